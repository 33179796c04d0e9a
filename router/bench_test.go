package router

import (
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/util/intstr"
)

// BenchmarkNewView is a large namespace: 50 Services with 20 Pods each, and 100 previews.
func BenchmarkNewView(b *testing.B) {
	o := &objects{}
	for i := range 50 {
		name := fmt.Sprintf("svc-%d", i)
		o.addService(name, map[string]string{"app": name}, servicePort("http", 80, intstr.FromString("http")))
		o.addDeployment(name, map[string]string{"app": name}, nil)
		for j := range 20 {
			o.addPod(fmt.Sprintf("%s-%d", name, j), name+"-1", injected("http:15401:8080"))
		}
		for j := range 2 {
			o.addPreview(fmt.Sprintf("preview-%d-%d", i, j), name, fmt.Sprintf("pr-%d", j))
		}
	}
	o.resolveSlices()
	acks := ackAll(newView("shop", *o, nil))
	for b.Loop() {
		newView("shop", *o, acks)
	}
}
