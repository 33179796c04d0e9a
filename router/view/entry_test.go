package view_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/detour-dev/detour/router/view"
	"github.com/detour-dev/detour/router/view/viewtest"
)

func TestEntries(t *testing.T) {
	port := func(name string, number int32, appProtocol string) corev1.ServicePort {
		p := viewtest.ServicePort(name, number, intstr.FromInt32(8080))
		if appProtocol != "" {
			p.AppProtocol = &appProtocol
		}
		return p
	}
	ports := func(list ...corev1.ServicePort) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Spec.Ports = list }
	}
	for name, c := range map[string]struct {
		edit func(*corev1.Service)
		want string
	}{
		"the only port":               {ports(port("web", 8080, "")), "10.1.0.1:8080"},
		"the first port":              {ports(port("admin", 9000, ""), port("web", 8080, "")), "10.1.0.1:9000"},
		"port 80":                     {ports(port("admin", 9000, ""), port("web", 80, "")), "10.1.0.1:80"},
		"the port named http":         {ports(port("web", 80, ""), port("http", 8080, "")), "10.1.0.1:8080"},
		"the first named http":        {ports(port("http-api", 8080, ""), port("http", 8081, "")), "10.1.0.1:8080"},
		"not what only begins so":     {ports(port("httpd", 8080, ""), port("web", 80, "")), "10.1.0.1:80"},
		"not https":                   {ports(port("https", 443, ""), port("web", 8080, "")), "10.1.0.1:8080"},
		"not another protocol":        {ports(port("http", 80, "redis"), port("web", 8080, "")), "10.1.0.1:8080"},
		"HTTP/2":                      {ports(port("grpc", 9000, "kubernetes.io/h2c")), "10.1.0.1:9000 h2c"},
		"an IPv6 address":             {func(s *corev1.Service) { s.Spec.ClusterIP = "fd00::1" }, "[fd00::1]:80"},
		"nothing but TLS":             {ports(port("https", 443, ""), port("", 8443, "https")), "NotHTTP"},
		"no cluster IP yet":           {func(s *corev1.Service) { s.Spec.ClusterIP = "" }, "NoClusterIP"},
		"headless":                    {func(s *corev1.Service) { s.Spec.ClusterIP = "None" }, "Headless"},
		"another name elsewhere":      {func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }, "ExternalName"},
		"endpoints written by anyone": {func(s *corev1.Service) { s.Spec.Selector = nil }, "NoSelector"},
	} {
		o := viewtest.Shop()
		c.edit(service(o, "api"))
		e := view.New("shop", o.Objects, nil, viewtest.Now).Entries["api"]
		got := e.Address.String()
		if e.Problem != nil {
			got = e.Problem.Reason
		}
		if e.H2C {
			got += " h2c"
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
