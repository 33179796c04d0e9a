//go:build integration

package integration

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/detour-dev/detour/api"
)

// TestRulesOfAPreview gives a preview one annotation after the other and follows them to the table of the proxy, the status
// and the Events.
func TestRulesOfAPreview(t *testing.T) {
	newNamespace(t, "rules")
	service := newService("rules", "api", intstr.FromString("http"))
	create(t, service)
	baseline := newPod("rules", "api-1", map[string]string{"app": "api"}, 8080)
	create(t, baseline)
	makeReady(t, baseline, "198.18.128.20")
	create(t, endpointSlice(service, baseline, int32(takenPorts(t, baseline)[0].Listen)))
	token := tokenFor(t, baseline)
	next := openStream(t, token)
	deployment, pod := newPreview(t, "rules", "api-pr-1", "api", "pr-1")
	makeReady(t, pod, "198.18.128.21")
	expect := func(want ...api.Port) api.Table {
		t.Helper()
		for {
			if table := next(); cmp.Equal(table.Ports, want, cmpopts.EquateComparable(netip.AddrPort{})) {
				return table
			}
		}
	}
	routed := func(address string) api.Port {
		return api.Port{Port: 8080, Routes: []api.Route{{
			Key: "pr-1", Preview: "deployment/api-pr-1",
			Endpoints: []api.Endpoint{{Pod: "rules/" + pod.Name, Address: netip.MustParseAddrPort(address)}},
		}}}
	}
	expect(routed("198.18.128.21:8080"))

	annotate(t, deployment, api.AnnotationPorts, "8080:9090")
	expect(routed("198.18.128.21:9090"))

	annotate(t, deployment, api.AnnotationMatch, "header x-user exact alice")
	expect()
	waitForState(t, "rules", "deployment/api-pr-1", api.StateInvalid)
	waitForEvent(t, deployment, "NotAllowed")
	annotate(t, service, api.AnnotationAllow, api.AllowMatch)
	matched := routed("198.18.128.21:9090")
	matched.Matches = []api.Match{{Key: "pr-1", Conditions: []api.Condition{
		{Part: api.PartHeader, Name: "x-user", Test: api.TestExact, Value: "alice"},
	}}}
	version := expect(matched).Version
	acknowledge(t, token, api.Ack{Version: version}) // by a proxy that does not know matches
	waitForState(t, "rules", "deployment/api-pr-1", api.StatePending)
	acknowledge(t, token, api.Ack{Version: version, Knows: []string{api.KnowsMatches}})
	waitForState(t, "rules", "deployment/api-pr-1", api.StateRouted)

	annotate(t, deployment, api.AnnotationPercent, "12.5 by cookie session")
	expect()
	annotate(t, service, api.AnnotationAllow, api.AllowMatch+","+api.AllowPercent)
	share := api.Condition{Part: api.PartShare, Name: "cookie session", Test: api.TestPercent, Value: "12.5"}
	matched.Matches[0].Conditions = append(matched.Matches[0].Conditions, share)
	expect(matched)
	annotate(t, deployment, api.AnnotationMode, api.ModeMirror)
	expect()
	annotate(t, service, api.AnnotationAllow, api.AllowMirror)
	matched.Matches, matched.Mirrors = nil, matched.Matches
	version = expect(matched).Version
	acknowledge(t, token, api.Ack{Version: version, Knows: []string{api.KnowsMatches, api.KnowsShares}})
	waitForState(t, "rules", "deployment/api-pr-1", api.StatePending)
	acknowledge(t, token, api.Ack{Version: version, Knows: []string{api.KnowsMirrors, api.KnowsMatches, api.KnowsShares}})
	waitForState(t, "rules", "deployment/api-pr-1", api.StateRouted)

	annotate(t, deployment, api.AnnotationTTL, "1ms")
	expect()
	waitForState(t, "rules", "deployment/api-pr-1", api.StateExpired)
	waitForEvent(t, deployment, "Expired")
	annotate(t, deployment, api.AnnotationTTL, "soon")
	waitForState(t, "rules", "deployment/api-pr-1", api.StateInvalid)
	waitForEvent(t, deployment, "InvalidTTL")
}

// annotate changes an object as kubectl annotate does.
func annotate(t *testing.T, object client.Object, name, value string) {
	t.Helper()
	before := object.DeepCopyObject().(client.Object)
	annotations := map[string]string{}
	maps.Copy(annotations, object.GetAnnotations())
	annotations[name] = value
	object.SetAnnotations(annotations)
	if err := kube.Patch(t.Context(), object, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}
