package dashboard

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"net"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/detour-dev/detour/api"
)

// card is a preview as pages show it.
type card struct {
	Preview
	ID       string // of the element, for the page's script, which keeps what has not changed
	Path     string // of its own page; empty if it has none
	Age      string // "3d"
	Left     string // until it expires; empty if it does not
	Restarts int
	Plot     *plot // nil if there was no request
	// Header and Curl are empty if they do not lead to the preview.
	Header, Curl string
}

func (d *Dashboard) card(b *board, p Preview) card {
	now := d.now()
	c := card{Preview: p, ID: elementID(p), Age: duration.HumanDuration(now.Sub(p.Created))}
	for _, instance := range p.Instances {
		c.Restarts += instance.Restarts
	}
	if p.Expires.After(now) {
		c.Left = duration.HumanDuration(p.Expires.Sub(now))
	}
	if p.History != nil {
		c.Plot = newPlot(p.History)
	}
	if api.ValidKey(p.Key) && api.ValidKey(p.Target) {
		c.Path = "/namespaces/" + b.Namespace.Namespace + "/previews/" + p.Target + "/" + p.Key
	}
	if getsRequests(p.PreviewStatus) {
		c.Header = api.HeaderKey + ": " + p.Key
		c.Curl = fmt.Sprintf("curl -H '%s' %s", c.Header, b.inCluster(p.Target))
	}
	return c
}

// elementID is of characters that need no care, whatever the preview is called.
func elementID(p Preview) string {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%q %q %q", p.Preview, p.Target, p.Key) // a hash takes everything
	return fmt.Sprintf("p%x", h.Sum64())
}

// maxMissing is how many Pods the page of a namespace names that do not route a preview; its own page names all.
const maxMissing = 3

func (c card) FirstMissing() []api.Missing { return c.Missing[:min(len(c.Missing), maxMissing)] }
func (c card) MoreMissing() int            { return max(len(c.Missing)-maxMissing, 0) }

// Problems are what a person has to mend, the worst first.
func (c card) Problems() []api.Problem {
	if c.Problem == nil {
		return c.Warnings
	}
	return append([]api.Problem{*c.Problem}, c.Warnings...)
}

// Images are those of its Pods, each once.
func (c card) Images() []string {
	var images []string
	for _, instance := range c.Instances {
		for _, image := range instance.Images {
			if !slices.Contains(images, image) {
				images = append(images, image)
			}
		}
	}
	return images
}

// ShortImages leave the registry and its folders out.
func (c card) ShortImages() []string {
	var short []string
	for _, image := range c.Images() {
		name, digest, _ := strings.Cut(image, "@sha256:")
		name = name[strings.LastIndex(name, "/")+1:]
		if digest != "" {
			name += "@" + digest[:min(len(digest), 7)]
		}
		short = append(short, name)
	}
	return short
}

// inCluster is the URL of a Service for a client in the cluster.
func (b *board) inCluster(service string) string {
	host := service + "." + b.Namespace.Namespace
	if port := b.entries[service].Address.Port(); port != 0 && port != 80 {
		host = net.JoinHostPort(host, fmt.Sprint(port))
	}
	return "http://" + host + "/"
}

// entry is a Service by which requests with a key may enter.
type entry struct{ Service, URL string }

// entered are the Services other than the key's target, by name.
func (b *board) entered(key, target string) []entry {
	var entries []entry
	for _, service := range slices.Sorted(maps.Keys(b.entries)) {
		if service != target && b.entries[service].Problem == nil {
			name := api.HostName{Key: key, Service: service, Namespace: b.Namespace.Namespace}
			entries = append(entries, entry{service, api.PreviewURL(b.gateway, name)})
		}
	}
	return entries
}

// stateWord is a state in words.
func stateWord(s api.State) string {
	return cmp.Or(map[api.State]string{api.StateNotReady: "not ready"}[s], string(s))
}
