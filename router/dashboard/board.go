package dashboard

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
)

// Namespace is what status.json says; docs/dashboard.md has it field by field.
type Namespace struct {
	Namespace string              `json:"namespace"`
	Services  []api.ServiceStatus `json:"services"` // by name
	Previews  []Preview           `json:"previews"` // by target, then key, then age
}

// Preview is one preview in status.json.
type Preview struct {
	api.PreviewStatus
	// Commit is what the preview's label says, or the tag of an image of it, where that looks like a commit.
	Commit string `json:"commit,omitempty"`
	// URL enters the preview's target with its key; empty where that does not lead to the preview.
	URL string `json:"url,omitempty"`
	// History is nil when there was no request in its time.
	History *History `json:"history,omitempty"`
}

// board is what the pages of one namespace are made from. It is not changed once it is made.
type board struct {
	Namespace
	gateway string // the URL beneath whose domain previews have their hosts
	entries map[string]view.Entry
	json    []byte
	version string // a hash of json: the pages show nothing else that changes, but for the time
}

func (d *Dashboard) newBoard(namespace string, v *view.View, acks api.Acks) *board {
	b := &board{
		Namespace: Namespace{Namespace: namespace, Services: append([]api.ServiceStatus{}, v.Status.Services...), Previews: []Preview{}},
		gateway:   v.Status.Gateway,
		entries:   v.Entries,
	}
	counted := v.Traffic(acks)
	for _, status := range v.Status.Previews {
		counters := counted[status.Preview]
		status.Traffic = &counters
		b.Previews = append(b.Previews, Preview{
			PreviewStatus: status, Commit: cmp.Or(status.Commit, commitOf(status.Instances)), URL: b.url(status),
			History: d.history.of(namespace, status.Preview),
		})
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(b.Namespace); err != nil {
		panic(err) // a Namespace holds nothing that JSON cannot say
	}
	b.json = text.Bytes()
	sum := sha256.Sum256(b.json)
	b.version = base64.RawURLEncoding.EncodeToString(sum[:12])
	return b
}

// url is empty for a preview that gets no requests.
func (b *board) url(p api.PreviewStatus) string {
	if !getsRequests(p) {
		return ""
	}
	return api.PreviewURL(b.gateway, api.HostName{Key: p.Key, Service: p.Target, Namespace: b.Namespace.Namespace})
}

// getsRequests reports whether requests with the preview's key are meant for it. Its key and its target are as they must be
// then: nothing in them needs quoting in a shell.
func getsRequests(p api.PreviewStatus) bool {
	return p.State.GetsRequests() && api.ValidKey(p.Key) && api.ValidKey(p.Target)
}

// commitTag is a tag that CI gives images of a commit. One of digits alone is rather a date.
var (
	commitTag  = regexp.MustCompile(`^(?:sha-|git-)?([0-9a-f]{7,40})$`)
	digitsOnly = regexp.MustCompile(`^[0-9]+$`)
)

func commitOf(instances []api.Instance) string {
	for _, instance := range instances {
		for _, image := range instance.Images {
			image, _, _ = strings.Cut(image, "@")
			tag := image[strings.LastIndex(image, ":")+1:]
			if m := commitTag.FindStringSubmatch(tag); m != nil && !digitsOnly.MatchString(m[1]) {
				return m[1]
			}
		}
	}
	return ""
}

func (d *Dashboard) tellStatus(w http.ResponseWriter, _ *http.Request, b *board) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b.json) // the client has gone
}
