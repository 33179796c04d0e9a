package dashboard

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/detour-dev/detour/api"
)

// frame is what every page has.
type frame struct {
	Title     string
	Namespace string // "" on pages that are of none
	Version   string // of the board that the page shows; "" for pages that are not kept live
	Now       time.Time
	Reload    int // seconds after which a page without script loads itself again; 0 for never
}

const (
	reloadEvery    = 15 // seconds
	reloadStarting = 2
)

// ofBoard answers for namespaces that have no board.
func (d *Dashboard) ofBoard(show func(http.ResponseWriter, *http.Request, *board)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		namespace := r.PathValue("namespace")
		boards := d.state.Load().boards
		b, takesPart := boards[namespace]
		switch {
		case b != nil:
			show(w, r, b)
		case boards == nil, takesPart:
			d.showStarting(w)
		default:
			d.render(w, http.StatusNotFound, "message.html", message{
				frame:   d.frame("This namespace does not take part"),
				Text:    fmt.Sprintf("The router knows no namespace %q that takes part. Whoever may label it can change that:", namespace),
				Command: "kubectl detour enable NAMESPACE --restart",
			})
		}
	}
}

// message is a page that says one thing, and what to do next.
type message struct {
	frame
	Text    string
	Command string
}

func (d *Dashboard) frame(title string) frame { return frame{Title: title, Now: d.now().UTC()} }

func (d *Dashboard) frameOf(b *board, title string) frame {
	return frame{Title: title, Namespace: b.Namespace.Namespace, Version: b.version, Now: d.now().UTC(), Reload: reloadEvery}
}

func (d *Dashboard) showStarting(w http.ResponseWriter) {
	w.Header().Set("Retry-After", fmt.Sprint(reloadStarting))
	page := message{frame: d.frame("The router is starting"), Text: "It does not know all Services and previews yet. This page looks again by itself."}
	page.Reload = reloadStarting
	d.render(w, http.StatusServiceUnavailable, "message.html", page)
}

func (d *Dashboard) showNotFound(w http.ResponseWriter, _ *http.Request) {
	d.render(w, http.StatusNotFound, "message.html", message{
		frame: d.frame("There is no such page"),
		Text:  "A namespace has its page at /namespaces/ and its name. A link to it comes from kubectl:", Command: linkCommand,
	})
}

const linkCommand = "kubectl detour url --dashboard -n NAMESPACE"

// namespacesPage is the first page.
type namespacesPage struct {
	frame
	Namespaces []namespaceRow
}

type namespaceRow struct {
	Name     string
	Starting bool
	Services int
	Previews int
	States   []stateCount
}

func (d *Dashboard) showNamespaces(w http.ResponseWriter, _ *http.Request) {
	if !d.cfg.Open {
		d.render(w, http.StatusOK, "message.html", message{
			frame: d.frame("Previews of your namespace"),
			Text:  "Each namespace that takes part has a page with its Services and previews. It is shown to whoever has a link to it:", Command: linkCommand,
		})
		return
	}
	boards := d.state.Load().boards
	if boards == nil {
		d.showStarting(w)
		return
	}
	page := namespacesPage{frame: d.frame("Namespaces")}
	page.Reload = reloadEvery
	for _, name := range slices.Sorted(maps.Keys(boards)) {
		row := namespaceRow{Name: name, Starting: boards[name] == nil}
		if b := boards[name]; b != nil {
			row.Services, row.Previews, row.States = len(b.Services), len(b.Previews), countStates(b.Previews)
		}
		page.Namespaces = append(page.Namespaces, row)
	}
	d.render(w, http.StatusOK, "namespaces.html", page)
}

// namespacePage is a namespace's.
type namespacePage struct {
	frame
	States   []stateCount
	Groups   []group
	Services []api.ServiceStatus
}

// group is the previews of one target.
type group struct {
	Target   string
	Service  *api.ServiceStatus // nil if there is no such Service
	Previews []card
}

func (d *Dashboard) showNamespace(w http.ResponseWriter, r *http.Request, b *board) {
	page := namespacePage{
		frame: d.frameOf(b, b.Namespace.Namespace), States: countStates(b.Previews), Services: b.Services,
	}
	for _, p := range b.Previews {
		if n := len(page.Groups); n == 0 || page.Groups[n-1].Target != p.Target {
			page.Groups = append(page.Groups, group{Target: p.Target, Service: b.service(p.Target)})
		}
		g := &page.Groups[len(page.Groups)-1]
		g.Previews = append(g.Previews, d.card(b, p))
	}
	d.render(w, http.StatusOK, "namespace.html", page)
}

func (b *board) service(name string) *api.ServiceStatus {
	i := slices.IndexFunc(b.Services, func(s api.ServiceStatus) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &b.Services[i]
}

// previewPage is of all previews with a target and a key: the one that gets the requests, and those in conflict with it.
type previewPage struct {
	frame
	Target   string
	Key      string
	Previews []card
	Entries  []entry
}

func (d *Dashboard) showPreview(w http.ResponseWriter, r *http.Request, b *board) {
	page := previewPage{Target: r.PathValue("target"), Key: r.PathValue("key")}
	for _, p := range b.Previews {
		if p.Target == page.Target && p.Key == page.Key {
			page.Previews = append(page.Previews, d.card(b, p))
		}
	}
	if len(page.Previews) == 0 {
		gone := message{
			frame: d.frameOf(b, "There is no such preview"), Text: "No preview of this Service has this key (any more). To make one:",
			Command: "kubectl detour create SERVICE --key KEY --image IMAGE -n " + b.Namespace.Namespace,
		}
		d.render(w, http.StatusNotFound, "message.html", gone)
		return
	}
	page.frame = d.frameOf(b, page.Key+" of "+page.Target)
	if getsRequests(page.Previews[0].PreviewStatus) {
		page.Entries = b.entered(page.Key, page.Target)
	}
	d.render(w, http.StatusOK, "preview.html", page)
}

// stateCount is how many previews are in one state.
type stateCount struct {
	State api.State
	Count int
}

// states are in the order in which pages count them.
var states = []api.State{
	api.StateRouted, api.StatePending, api.StateNotReady, api.StateConflict, api.StateInvalid, api.StateExpired,
}

func countStates(previews []Preview) []stateCount {
	count := map[api.State]int{}
	for _, p := range previews {
		count[p.State]++
	}
	var counts []stateCount
	for _, state := range states {
		if count[state] > 0 {
			counts = append(counts, stateCount{state, count[state]})
		}
	}
	return counts
}

// render sends a page, or nothing of it: what a template could not render must not look like the end of a page.
func (d *Dashboard) render(w http.ResponseWriter, code int, name string, page any) {
	var text bytes.Buffer
	if err := pages.ExecuteTemplate(&text, name, page); err != nil {
		http.Error(w, "rendering the page: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(text.Bytes()) // the client has gone
}
