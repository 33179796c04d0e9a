package api

import "time"

// The router's API. Every request shows a token for [Audience] as "Authorization: Bearer"; who has none gets 401.
const (
	// Audience is what tokens for the router are made for. A token counts only if its review confirms it.
	Audience = "detour.dev/router"

	// PathRoutes is read by a proxy (GET): an endless answer of one [Table] a line (application/x-ndjson), the first
	// at once, then one whenever the Pod's table changes. An empty line says that the connection is alive. The
	// token must be bound to the Pod; the router answers with that Pod's table only.
	PathRoutes = "/v1/routes"

	// PathAcks takes a proxy's [Ack] (POST), and tells a replica of the router what this one has been told (GET):
	// [Acks].
	PathAcks = "/v1/acks"

	// PathStatus, followed by a namespace, answers with its [Status] (GET) for those who may list Pods there.
	PathStatus = "/v1/status/"
)

const (
	// KeepAlive is how often the router sends an empty line on an idle stream. A proxy that has read nothing for
	// three times as long connects again.
	KeepAlive = 15 * time.Second

	// AckEvery is how often a proxy sends its Ack when nothing has changed. The router forgets a proxy that it has
	// not heard of for three times as long.
	AckEvery = 15 * time.Second
)

// Ack is what a proxy tells of itself.
type Ack struct {
	// Version is that of the table in force.
	Version string `json:"version"`
	// Previews counts, by [Route.Preview], since the proxy started.
	Previews map[string]Counters `json:"previews,omitempty"`
	// Knows is what the proxy understands of tables beyond what each one did from the beginning: [KnowsMatches] and the
	// like. The router tells by it whether a preview that needs more is routed there.
	Knows []string `json:"knows,omitempty"`
}

// KnowsMatches is said by proxies that read [Port.Matches].
const KnowsMatches = "matches"

// KnowsShares is said by proxies that know [PartShare].
const KnowsShares = "shares"

// KnowsMirrors is said by proxies that read [Port.Mirrors].
const KnowsMirrors = "mirrors"

// Counters are one preview's, as one proxy saw them.
type Counters struct {
	// Requests were sent to the preview, or would have been if it had an endpoint. Copies of requests count.
	Requests uint64 `json:"requests"`
	// Errors are the requests among them that the proxy answered itself, and the copies that were not answered.
	Errors uint64 `json:"errors"`
	// Last is when the newest of the Requests came, to the second and by the clock of the proxy's node; zero without one.
	Last time.Time `json:"last,omitzero"`
}

// Plus is what two proxies saw together.
func (c Counters) Plus(d Counters) Counters {
	sum := Counters{Requests: c.Requests + d.Requests, Errors: c.Errors + d.Errors, Last: c.Last}
	if d.Last.After(c.Last) {
		sum.Last = d.Last
	}
	return sum
}

// Acks is what a replica of the router has been told, by the UID of the proxy's Pod.
type Acks map[string]PodAck

// PodAck is the newest Ack of one Pod.
type PodAck struct {
	Ack
	Namespace string    `json:"namespace"` // the Pod's
	Time      time.Time `json:"time"`      // when the replica received it
}
