package plugin

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/detour-dev/detour/api"
)

func TestHasExpired(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	hoursAgo := func(hours time.Duration) string { return now.Add(-hours * time.Hour).Format(time.RFC3339) }
	for name, c := range map[string]struct {
		object, template map[string]any
		want             bool
	}{
		"its time is over":         {map[string]any{api.AnnotationTTL: "1h"}, nil, true},
		"it has some left":         {map[string]any{api.AnnotationTTL: "3h"}, nil, false},
		"it has begun anew":        {map[string]any{api.AnnotationTTL: "90m", api.AnnotationUpdated: hoursAgo(1)}, nil, false},
		"that is long ago as well": {map[string]any{api.AnnotationTTL: "30m", api.AnnotationUpdated: hoursAgo(1)}, nil, true},
		"begun before it was made": {map[string]any{api.AnnotationTTL: "90m", api.AnnotationUpdated: hoursAgo(9)}, nil, true},
		"in the template":          {nil, map[string]any{api.AnnotationTTL: "1h"}, true},
		"its own counts first":     {map[string]any{api.AnnotationTTL: "3h"}, map[string]any{api.AnnotationTTL: "1h"}, false},
		"no end any more":          {nil, nil, false},
		"an end that is none":      {map[string]any{api.AnnotationTTL: "tomorrow"}, nil, false},
		"a negative one":           {map[string]any{api.AnnotationTTL: "-1h"}, nil, false},
	} {
		object := &unstructured.Unstructured{Object: map[string]any{
			"metadata": map[string]any{"creationTimestamp": hoursAgo(2), "annotations": c.object},
			"spec":     map[string]any{"template": map[string]any{"metadata": map[string]any{"annotations": c.template}}},
		}}
		if got := hasExpired(&labelled{Unstructured: object}, now); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
