package api

import (
	"strings"
	"time"
)

// Status is what Detour knows of one namespace. The router writes it, whenever a state changes, into the ConfigMap
// [ConfigMapStatus], so that whoever may read the namespace can read it; there Traffic and Instances are left out. The
// same JSON with them comes from the router's API.
type Status struct {
	Services []ServiceStatus `json:"services,omitempty"` // by name
	Previews []PreviewStatus `json:"previews,omitempty"` // by target, then key, then age
	// Gateway is the URL beneath whose domain previews have their hosts, such as "https://preview.example.com"
	// ([PreviewURL]); empty where the router serves none.
	Gateway string `json:"gateway,omitempty"`
	// GatewayOpen is true where the gateway lets everyone in, without a [Link].
	GatewayOpen bool `json:"gatewayOpen,omitempty"`
}

// ServiceStatus says how far a Service's traffic passes proxies.
type ServiceStatus struct {
	Name string `json:"name"`
	// Intercepted is true when every ready Pod behind the Service is reached through its proxy, on every TCP port.
	Intercepted bool `json:"intercepted"`
	// Problem says why it is not.
	Problem *Problem `json:"problem,omitempty"`
	// Covered of Pods ready Pods are reached through their proxy.
	Covered int `json:"covered"`
	Pods    int `json:"pods"`
}

// State of a preview.
type State string

const (
	// StateRouted: every ready baseline Pod has acknowledged the table that holds the preview, and the Service's
	// endpoints lead to the proxies.
	StateRouted State = "routed"
	// StatePending: Routed of Of ready baseline Pods have.
	StatePending State = "pending"
	// StateNotReady: the preview has no ready Pod. Its requests are answered 503, or go to the baseline if it asks
	// for that.
	StateNotReady State = "not-ready"
	// StateConflict: an older preview has the same target and key, and gets the requests.
	StateConflict State = "conflict"
	// StateExpired: its time is over, see Expires. Its key leads to the baseline, as one without a preview does.
	StateExpired State = "expired"
	// StateInvalid: the preview cannot be routed as it is labelled; Problem says what to change.
	StateInvalid State = "invalid"
)

// GetsRequests reports whether requests with the key of a preview in this state are meant for it.
func (s State) GetsRequests() bool {
	return s == StateRouted || s == StatePending || s == StateNotReady
}

// PreviewStatus says whether requests reach one preview.
type PreviewStatus struct {
	// Preview names the labelled object as kubectl does, "deployment/api-pr-42", with its namespace before it where that is
	// another than the target's: "team-b/deployment/api-pr-42".
	Preview string    `json:"preview"`
	Target  string    `json:"target"`
	Key     string    `json:"key"`
	Created time.Time `json:"created"`
	// Commit is what [LabelCommit] says, if it does.
	Commit string `json:"commit,omitempty"`
	// Expires is when it is no longer routed; zero if it has no [AnnotationTTL].
	Expires time.Time `json:"expires,omitzero"`
	State   State     `json:"state"`
	// Problem says why the state is neither routed nor pending.
	Problem *Problem `json:"problem,omitempty"`
	// Warnings do not keep it from being routed.
	Warnings []Problem `json:"warnings,omitempty"`
	// Endpoints names the preview's ready Pods.
	Endpoints []string `json:"endpoints,omitempty"`
	// Routed of Of ready baseline Pods send its requests to it; Missing says which do not, and why.
	Routed  int       `json:"routed"`
	Of      int       `json:"of"`
	Missing []Missing `json:"missing,omitempty"`
	// Instances are the preview's Pods that have not ended, by name.
	Instances []Instance `json:"instances,omitempty"`
	// Traffic is summed over the proxies that run now.
	Traffic *Counters `json:"traffic,omitempty"`
}

// minCommit is the least of a commit that is taken for one, as git abbreviates it.
const minCommit = 7

// Runs reports whether the preview runs the commit that begins so.
func (p PreviewStatus) Runs(commit string) bool {
	return len(commit) >= minCommit && strings.HasPrefix(p.Commit, commit)
}

// ShortCommit is the beginning of the Commit that is enough for [PreviewStatus.Runs]; empty without one.
func (p PreviewStatus) ShortCommit() string {
	if len(p.Commit) < minCommit {
		return ""
	}
	return p.Commit[:minCommit]
}

// Home takes the namespace off a preview's name; it is empty where that is the target's.
func (p PreviewStatus) Home() (namespace, object string) {
	if strings.Count(p.Preview, "/") < 2 {
		return "", p.Preview
	}
	namespace, object, _ = strings.Cut(p.Preview, "/")
	return namespace, object
}

// Missing is a baseline Pod that does not route a preview yet.
type Missing struct {
	Pod    string `json:"pod"`
	Reason string `json:"reason"`
}

// Instance is a Pod of a preview.
type Instance struct {
	Pod string `json:"pod"`
	// Unready says why the Pod is not ready, in the words of kubectl get pods; empty when it is.
	Unready string `json:"unready,omitempty"`
	// Images are those of its containers, in their order, as the Pod names them.
	Images []string `json:"images,omitempty"`
	// Restarts of its containers, together.
	Restarts int `json:"restarts,omitempty"`
}

// Problem is something that a person has to mend.
type Problem struct {
	// Reason is a word in CamelCase for programs; it is also the reason of the Event.
	Reason string `json:"reason"`
	// Message names the object, the value and what to do.
	Message string `json:"message"`
}

// Notices is what keeps Pods and Services of a namespace from being intercepted, or may surprise someone. The webhook
// writes it into the ConfigMap [ConfigMapStatus], under [ConfigMapNoticesKey]: only the webhook sees the NetworkPolicies,
// quotas and whatever else it comes from. Each notice is also told once as an Event on its object.
type Notices struct {
	Notices []Notice `json:"notices,omitempty"` // warnings first
	// More is how many were left out, to keep the ConfigMap small.
	More int `json:"more,omitempty"`
}

// Notice holds for as long as it is there.
type Notice struct {
	Object string `json:"object"` // "Pod/api-0"
	// Warning is false for what is in order as it is.
	Warning bool `json:"warning,omitempty"`
	// Reason is a word in CamelCase for programs, the same as the Event's.
	Reason string `json:"reason"`
	// Message says what it means and what to do.
	Message string `json:"message"`
}
