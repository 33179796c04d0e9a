package api

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReplaceKey(t *testing.T) {
	for name, c := range map[string]struct{ in, want http.Header }{
		"nothing": {http.Header{}, http.Header{}},
		"what else is there": {
			http.Header{"Baggage": {"a=1, b=2;c", "d=%2C"}, "Cookie": {"a=1; b=2", "c=3"}, "Tracestate": {"x=1"}, "Accept": {"*/*"}},
			http.Header{"Baggage": {"a=1,b=2;c,d=%2C"}, "Cookie": {"a=1; b=2; c=3"}, "Tracestate": {"x=1"}, "Accept": {"*/*"}},
		},
		"every carrier": {
			http.Header{
				"Detour-Key": {"evil", "worse"}, "Baggage": {"detour-key=evil"}, "Correlation-Context": {"detour-key=evil"},
				"Tracestate": {"detour=evil"}, "Ot-Baggage-Detour-Key": {"evil"}, "Uberctx-Detour-Key": {"evil"},
				"Cookie": {"detour-key=evil"},
			},
			http.Header{},
		},
		"among others": {
			http.Header{
				"Baggage": {"a=1 , detour-key = evil;x=y,b=2", "detour-key=evil"}, "Correlation-Context": {"c=3,detour-key=evil"},
				"Tracestate": {"x=1,detour=evil"}, "Cookie": {"a=1;detour-key=evil", "detour-key=evil; b=2"},
			},
			http.Header{"Baggage": {"a=1,b=2"}, "Correlation-Context": {"c=3"}, "Tracestate": {"x=1"}, "Cookie": {"a=1; b=2"}},
		},
		"names that someone may take for it": {
			http.Header{
				"Baggage":    {"DETOUR-KEY=evil,detour%2Dkey=evil,\tdetour-key\t=evil,\"detour-key\"=evil,detour-key", "a=\"x,detour-key=evil\""},
				"Detour_key": {"evil"}, "Ot_baggage_detour-Key": {"evil"}, "My_header": {"x"},
			},
			http.Header{"Baggage": {"a=\"x"}, "My_header": {"x"}},
		},
	} {
		ReplaceKey(c.in, "pr-42")
		c.want.Set("Detour-Key", "pr-42")
		member := "detour-key=pr-42"
		if others := c.want.Get("Baggage"); others != "" {
			member += "," + others
		}
		c.want.Set("Baggage", member)
		if diff := cmp.Diff(c.want, c.in); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}
