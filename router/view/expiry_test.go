package view_test

import (
	"testing"
	"time"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
	"github.com/detour-dev/detour/router/view/viewtest"
)

// TestExpiry looks at one preview, which was created at 03:04:10, at different times.
func TestExpiry(t *testing.T) {
	for name, test := range map[string]struct {
		annotations map[string]string
		now         string
		want        api.State
		next        string
	}{
		"no ttl":           {nil, "2036-01-01T00:00:00Z", api.StatePending, ""},
		"update only":      {map[string]string{api.AnnotationUpdated: "2026-01-02T03:05:00Z"}, "2036-01-01T00:00:00Z", api.StatePending, ""},
		"in time":          {map[string]string{api.AnnotationTTL: "72h"}, "2026-01-05T03:04:09Z", api.StatePending, "2026-01-05T03:04:10Z"},
		"over":             {map[string]string{api.AnnotationTTL: "72h"}, "2026-01-05T03:04:10Z", api.StateExpired, ""},
		"long over":        {map[string]string{api.AnnotationTTL: "1ms"}, "2036-01-01T00:00:00Z", api.StateExpired, ""},
		"updated":          {map[string]string{api.AnnotationTTL: "1h", api.AnnotationUpdated: "2026-01-05T04:00:00+01:00"}, "2026-01-05T03:04:10Z", api.StatePending, "2026-01-05T04:00:00Z"},
		"updated and over": {map[string]string{api.AnnotationTTL: "1h", api.AnnotationUpdated: "2026-01-05T04:00:00+01:00"}, "2026-01-05T04:00:00Z", api.StateExpired, ""},
		"an update that was copied from an older one": {map[string]string{api.AnnotationTTL: "72h", api.AnnotationUpdated: "2020-01-01T00:00:00Z"}, "2026-01-05T03:04:09Z", api.StatePending, "2026-01-05T03:04:10Z"},
		"a clock that was set back":                   {map[string]string{api.AnnotationTTL: "72h"}, "1970-01-01T00:00:00Z", api.StatePending, "2026-01-05T03:04:10Z"},
	} {
		o := viewtest.Shop()
		for key, value := range test.annotations {
			deployment(o, "api-pr-42").Annotations[key] = value
		}
		v := view.New("shop", o.Objects, nil, parseTime(t, test.now))
		if p := v.Status.Previews[0]; p.State != test.want {
			t.Errorf("%s: it is %s (expires %s), want %s", name, p.State, p.Expires, test.want)
		}
		var next time.Time
		if test.next != "" {
			next = parseTime(t, test.next)
		}
		if !v.Next.Equal(next) {
			t.Errorf("%s: the next view is due at %s, want %s", name, v.Next, next)
		}
	}
}

// TestExpiryOfSeveral looks again when the first of them expires.
func TestExpiryOfSeveral(t *testing.T) {
	o := viewtest.Shop()
	for name, ttl := range map[string]string{"later": "3h", "sooner": "2h", "past": "1ms"} {
		o.AddPreview(name, "identity", name)
		deployment(o, name).Annotations[api.AnnotationTTL] = ttl
	}
	want := deployment(o, "sooner").CreationTimestamp.Add(2 * time.Hour)
	if got := view.New("shop", o.Objects, nil, viewtest.Now).Next; !got.Equal(want) {
		t.Errorf("the next view is due at %s, want %s", got, want)
	}
}

func parseTime(t *testing.T, text string) time.Time {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}
