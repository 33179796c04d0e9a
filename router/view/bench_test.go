package view_test

import (
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/detour-dev/detour/router/view"
	"github.com/detour-dev/detour/router/view/viewtest"
)

// BenchmarkNew is a large namespace: 50 Services with 20 Pods each, and 100 previews.
func BenchmarkNew(b *testing.B) {
	o := &viewtest.Namespace{}
	for i := range 50 {
		name := fmt.Sprintf("svc-%d", i)
		o.AddService(name, map[string]string{"app": name}, viewtest.ServicePort("http", 80, intstr.FromString("http")))
		o.AddDeployment(name, map[string]string{"app": name}, nil)
		for j := range 20 {
			o.AddPod(fmt.Sprintf("%s-%d", name, j), name+"-1", viewtest.Injected("http:15401:8080"))
		}
		for j := range 2 {
			o.AddPreview(fmt.Sprintf("preview-%d-%d", i, j), name, fmt.Sprintf("pr-%d", j))
		}
	}
	o.ResolveSlices()
	acks := viewtest.Acks(view.New("shop", o.Objects, nil, viewtest.Now))
	for b.Loop() {
		view.New("shop", o.Objects, acks, viewtest.Now)
	}
}
