// Package api is the contract between Detour's programs and the people who use them: every name that one of them
// writes and another reads, the route table, the messages of the router's stream, the status, and the sidecar's
// configuration.
//
// It depends on the standard library only, so that the sidecar that imports it stays small. It holds no behaviour
// beyond rendering, parsing and checking what it defines.
package api

// Labels. Kubernetes limits their values to 63 characters of [A-Za-z0-9._-].
const (
	// LabelInject is set by users. On a Namespace the value [InjectEnabled] makes it take part; on a Pod the value
	// [InjectDisabled] keeps the proxy out. The webhook configuration's selectors and the router read it.
	LabelInject = "detour.dev/inject"

	InjectEnabled  = "enabled"
	InjectDisabled = "disabled"

	// LabelTarget is set by users on a preview (a Deployment, StatefulSet, ReplicaSet or Pod): the name of the
	// Service that it is a preview of, in the same namespace or in that of [AnnotationTargetNamespace]. The router and
	// the webhook read it.
	LabelTarget = "detour.dev/target"

	// LabelKey is set by users on a preview: the key that a request carries to reach it. The router and the
	// webhook read it.
	LabelKey = "detour.dev/key"

	// LabelCommit is set by users, a CI job for instance, on the workload that has the two labels above: the commit that it
	// runs, as 7 to 40 hexadecimal digits. The plugin writes it, and the router takes it for another name of the key in
	// preview URLs, whole or from its beginning.
	LabelCommit = "detour.dev/commit"
)

// Annotations.
const (
	// AnnotationFallback is set by users on a preview. The value [FallbackBaseline] sends its requests to the
	// baseline while it has no ready endpoint, instead of answering them 503. The router reads it.
	AnnotationFallback = "detour.dev/fallback"

	FallbackBaseline = "baseline"

	// AnnotationTTL is set by users on a preview: how long it is routed, as a positive duration ("72h", "90m"). It counts
	// from the preview's creation, or from [AnnotationUpdated] where that is later. The router reads it.
	AnnotationTTL = "detour.dev/ttl"

	// AnnotationUpdated is set by users, a CI job for instance, on a preview that has a [AnnotationTTL], to have it begin
	// anew: a time (RFC 3339). The router reads it.
	AnnotationUpdated = "detour.dev/updated"

	// AnnotationPorts is set by users on a preview whose ports differ from its target's; [ParsePortPairs] has the form:
	// "8080:9090,http:web". The router reads it.
	AnnotationPorts = "detour.dev/ports"

	// AnnotationMatch is set by users on a preview that other requests than those with its key are to reach;
	// [ParseConditions] has the form. It needs the consent [AllowMatch] of the target. The router reads it.
	AnnotationMatch = "detour.dev/match"

	// AnnotationPercent is set by users on a preview that a share of the requests is to reach, of those that meet its
	// [AnnotationMatch] if it has one; [ParsePercent] has the form. It needs the consent [AllowPercent] of the target. The
	// router reads it.
	AnnotationPercent = "detour.dev/percent"

	// AnnotationMode is set by users on a preview: [ModeForward], the default, or [ModeMirror]. The router reads it.
	AnnotationMode = "detour.dev/mode"

	// ModeForward leads the requests that meet [AnnotationMatch] and [AnnotationPercent] to the preview.
	ModeForward = "forward"
	// ModeMirror sends the preview copies of them, or of all if it has neither. It needs the consent [AllowMirror] of the
	// target, and no other.
	ModeMirror = "mirror"

	// AnnotationTargetNamespace is set by users on a preview whose target is a Service of another namespace: the name of that
	// namespace. It needs the consent [AllowNamespace] of the target. The router and the webhook read it.
	AnnotationTargetNamespace = "detour.dev/target-namespace"

	// AnnotationAllow is set by users on a Service that consents to more than requests with a key going to its previews:
	// [ParseConsent] has the form. The router reads it.
	AnnotationAllow = "detour.dev/allow"

	// AllowMatch consents to previews with an [AnnotationMatch].
	AllowMatch = "match"

	// AllowPercent consents to previews with an [AnnotationPercent].
	AllowPercent = "percent"

	// AllowMirror consents to previews with [ModeMirror].
	AllowMirror = "mirror"

	// AllowNamespace, with the name of a namespace behind it ("namespace/team-b"), consents to previews from there.
	AllowNamespace = "namespace/"

	// AnnotationClientAddress is set by users on a Pod whose app needs to know its clients' addresses: a [ClientAddress].
	// The webhook hands it to the proxy.
	AnnotationClientAddress = "detour.dev/client-address"

	// AnnotationRetry is set by users on a Namespace where injection is suspended because proxies did not start: a time
	// (RFC 3339). Pods that were created before it no longer count. The webhook reads it.
	AnnotationRetry = "detour.dev/retry"

	// AnnotationNotInjected is written by the webhook on a Pod that it left without a proxy; the value is the named
	// reason. The webhook's reconciler turns it into an Event, the router into the status.
	AnnotationNotInjected = "detour.dev/not-injected"

	// AnnotationPortsNotTaken is written by the webhook on an injected Pod and lists the ports that it left to the
	// app, each with its named reason: "9100/TCP:host-port,53/UDP:udp". Same readers. After the reason "network-policy"
	// comes the number that NetworkPolicies would have to admit: "8080/TCP:network-policy:15401". A Pod that is left
	// without a proxy for that reason has the annotation as well.
	AnnotationPortsNotTaken = "detour.dev/ports-not-taken"

	// AnnotationTargetPorts is written by the webhook on a Service whose numeric targetPorts it turned into names.
	// It maps each such Service port's number to the user's own targetPort: "80:8080,9090:9000". It says how to
	// undo the change; [OriginalPort] can say so without it.
	AnnotationTargetPorts = "detour.dev/target-ports"
)

// Headers.
const (
	// HeaderKey carries keys, separated by commas. Clients write it, the proxy reads it.
	HeaderKey = "Detour-Key"

	// HeaderBaggage is the W3C Baggage header (https://www.w3.org/TR/baggage/), whose member [BaggageMember]
	// carries a key, or several with an encoded comma ("%2C") between them. Clients and instrumented apps write it;
	// the proxy reads it and adds the member to keyed requests that lack it.
	HeaderBaggage = "Baggage"
	BaggageMember = "detour-key"

	// HeaderServedBy is added by the proxy to every answer of a preview: "<namespace>/<pod>".
	HeaderServedBy = "Detour-Served-By"

	// HeaderMirror is added by the proxy to copies of requests: the key of the preview that they are for. Apps may read it.
	// Requests that have it, because an app has passed it on, are not copied again.
	HeaderMirror = "Detour-Mirror"

	// HeaderError is set by the proxy, by the router's gateway and by kubectl detour forward on the answers that they write
	// themselves: a named reason such as "no-endpoint".
	// Answers of an app never get it.
	HeaderError = "Detour-Error"
)

// Names of objects and of parts of a Pod.
const (
	// ContainerProxy is the sidecar's name; a Pod that has an init container of this name is injected.
	ContainerProxy = "detour-proxy"

	// VolumeProxy is the sidecar's projected volume with its token and the router's CA, mounted at [ProxyDir].
	VolumeProxy = "detour-proxy"

	// ConfigMapStatus is the ConfigMap of an opted-in namespace that holds the [Status] as JSON under
	// [ConfigMapStatusKey]. The webhook makes it, the router keeps it.
	ConfigMapStatus    = "detour-status"
	ConfigMapStatusKey = "status.json"

	// ConfigMapNoticesKey is where the same ConfigMap holds the [Notices], which the webhook keeps.
	ConfigMapNoticesKey = "notices.json"

	// ConfigMapCA is the ConfigMap of an opted-in namespace that holds, under [ConfigMapCAKey], the PEM bundle
	// that proxies check the router's certificate against. The webhook makes and keeps it.
	ConfigMapCA    = "detour-ca"
	ConfigMapCAKey = "ca.crt"
)
