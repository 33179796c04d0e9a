package router

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
)

func stray(name, message string) view.Stray {
	return view.Stray{
		Object:  corev1.ObjectReference{Kind: "Deployment", Namespace: "team-b", Name: name, UID: types.UID("uid-" + name)},
		Problem: api.Problem{Reason: "TargetNotTakingPart", Message: message},
	}
}

// TestStraysAreToldOnce has two replicas see the same strays, and the API server be away for a while.
func TestStraysAreToldOnce(t *testing.T) {
	away := false
	c := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithInterceptorFuncs(interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if away {
				return errors.New("connection refused")
			}
			return c.Create(ctx, o, opts...)
		},
	}).Build()
	strays := newLatest[[]view.Stray]()
	replicas := []*publisher{}
	for range 2 {
		replicas = append(replicas, &publisher{client: c, strays: strays, log: slog.New(slog.DiscardHandler), started: time.Now()})
	}
	for _, step := range []struct {
		away bool
		see  []view.Stray
		want []string
	}{
		{true, []view.Stray{stray("a", "one")}, nil},
		{false, []view.Stray{stray("a", "one")}, []string{"a one"}},
		{false, []view.Stray{stray("a", "one"), stray("b", "one")}, []string{"a one", "b one"}},
		{false, []view.Stray{stray("b", "two")}, []string{"a one", "b one", "b two"}},
		{false, nil, []string{"a one", "b one", "b two"}},
	} {
		away = step.away
		strays.set(step.see)
		for _, p := range replicas {
			p.tellStrays(t.Context())
			p.tellStrays(t.Context())
		}
		var events corev1.EventList
		if err := c.List(t.Context(), &events, client.InNamespace("team-b")); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range events.Items {
			got = append(got, e.InvolvedObject.Name+" "+e.Message)
		}
		slices.Sort(got)
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}
}

// TestManyStrays tells of all in the end, and of few at once.
func TestManyStrays(t *testing.T) {
	c := fake.NewClientBuilder().WithScheme(scheme.Scheme).Build()
	p := &publisher{client: c, strays: newLatest[[]view.Stray](), log: slog.New(slog.DiscardHandler)}
	var many []view.Stray
	for i := range 25 {
		many = append(many, stray(string(rune('a'+i)), "lost"))
	}
	p.strays.set(many)
	for _, want := range []int{10, 20, 25, 25} {
		p.tellStrays(t.Context())
		var events corev1.EventList
		if err := c.List(t.Context(), &events); err != nil {
			t.Fatal(err)
		}
		if len(events.Items) != want {
			t.Errorf("%d Events, want %d", len(events.Items), want)
		}
	}
}
