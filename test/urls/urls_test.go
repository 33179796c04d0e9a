// Package urls checks the manifests of docs/urls as far as that goes without the programs that they are for.
package urls

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

const (
	domain = "preview.example.com"
	secret = "detour-gateway-tls"
)

// kinds are those of the manifests.
var kinds = map[string]func() metav1.Object{
	"Certificate":   func() metav1.Object { return &certmanagerv1.Certificate{} },
	"Deployment":    func() metav1.Object { return &appsv1.Deployment{} },
	"Gateway":       func() metav1.Object { return &gatewayv1.Gateway{} },
	"HTTPRoute":     func() metav1.Object { return &gatewayv1.HTTPRoute{} },
	"Ingress":       func() metav1.Object { return &networkingv1.Ingress{} },
	"NetworkPolicy": func() metav1.Object { return &networkingv1.NetworkPolicy{} },
	"Service":       func() metav1.Object { return &corev1.Service{} },
}

// read decodes each object of a file. A field that its type does not have is an error.
func read(t *testing.T, file string) []metav1.Object {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var objects []metav1.Object
	for _, document := range strings.Split(string(content), "\n---\n") {
		var meta metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(document), &meta); err != nil || kinds[meta.Kind] == nil {
			t.Fatalf("%s: kind %q: %v", file, meta.Kind, err)
		}
		object := kinds[meta.Kind]()
		if err := yaml.UnmarshalStrict([]byte(document), object); err != nil {
			t.Fatalf("%s: %s: %v", file, meta.Kind, err)
		}
		objects = append(objects, object)
	}
	return objects
}

func files(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("../../docs/urls/*.yaml")
	if err != nil || len(all) < 6 {
		t.Fatalf("%d files: %v", len(all), err)
	}
	return all
}

// TestDoors: whatever comes in by one of the manifests is for the domain, has the certificate and leads to a port that there
// is.
func TestDoors(t *testing.T) {
	services := read(t, "../../manifests/gateway/service.yaml")
	for _, file := range files(t) {
		objects := read(t, file)
		d := door{file, slices.Concat(services, objects)}
		for _, object := range objects {
			if object.GetNamespace() != "detour-system" {
				t.Errorf("%s: %s is in namespace %q", file, object.GetName(), object.GetNamespace())
			}
			switch o := object.(type) {
			case *certmanagerv1.Certificate:
				if o.Spec.SecretName != secret || !slices.Equal(o.Spec.DNSNames, []string{"*." + domain}) {
					t.Errorf("%s: a certificate for %v in Secret %s", file, o.Spec.DNSNames, o.Spec.SecretName)
				}
			case *networkingv1.Ingress:
				d.checkIngress(t, o)
			case *gatewayv1.HTTPRoute:
				d.checkRoute(t, o)
			case *networkingv1.NetworkPolicy:
				checkPolicy(t, file, o)
			}
		}
	}
}

// door is a file, and the objects that are there once it has been applied.
type door struct {
	file    string
	objects []metav1.Object
}

func (d door) hasPort(service string, port intstr.IntOrString) bool {
	return slices.ContainsFunc(d.objects, func(object metav1.Object) bool {
		s, ok := object.(*corev1.Service)
		return ok && s.Name == service && slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
			return port == intstr.FromString(p.Name) || port == intstr.FromInt32(p.Port)
		})
	})
}

func (d door) checkIngress(t *testing.T, ingress *networkingv1.Ingress) {
	t.Helper()
	for _, rule := range ingress.Spec.Rules {
		tls := networkingv1.IngressTLS{Hosts: []string{rule.Host}, SecretName: secret}
		if !strings.HasSuffix(rule.Host, "."+domain) || len(ingress.Spec.TLS) != 1 || !slices.Equal(ingress.Spec.TLS[0].Hosts, tls.Hosts) || ingress.Spec.TLS[0].SecretName != secret {
			t.Errorf("%s: host %s has the certificates %v", d.file, rule.Host, ingress.Spec.TLS)
		}
		for _, path := range rule.HTTP.Paths {
			if to := path.Backend.Service; !d.hasPort(to.Name, intstr.FromString(to.Port.Name)) {
				t.Errorf("%s: there is no port %s of Service %s", d.file, to.Port.Name, to.Name)
			}
		}
	}
}

func (d door) checkRoute(t *testing.T, route *gatewayv1.HTTPRoute) {
	t.Helper()
	to := route.Spec.Rules[0].BackendRefs[0]
	if !d.hasPort(string(to.Name), intstr.FromInt32(int32(*to.Port))) {
		t.Errorf("%s: there is no port %d of Service %s", d.file, *to.Port, to.Name)
	}
	from := route.Spec.ParentRefs[0]
	if !slices.ContainsFunc(d.objects, func(object metav1.Object) bool {
		g, ok := object.(*gatewayv1.Gateway)
		return ok && g.Name == string(from.Name) && slices.ContainsFunc(g.Spec.Listeners, func(l gatewayv1.Listener) bool {
			return l.Name == *from.SectionName && *l.Hostname == route.Spec.Hostnames[0] && *l.Hostname == "*."+domain &&
				l.TLS.CertificateRefs[0].Name == secret
		})
	}) {
		t.Errorf("%s: no Gateway has what the route comes from", d.file)
	}
}

// checkPolicy: it names all ports of the router, and who it is for only at the gateway's.
func checkPolicy(t *testing.T, file string, policy *networkingv1.NetworkPolicy) {
	t.Helper()
	named := []string{}
	for _, rule := range policy.Spec.Ingress {
		for _, port := range rule.Ports {
			named = append(named, port.Port.StrVal)
			if (port.Port.StrVal == "gateway") != (len(rule.From) > 0) {
				t.Errorf("%s: port %s is for %v", file, port.Port, rule.From)
			}
		}
	}
	var has []string
	for _, manifest := range []string{"base/router.yaml", "gateway/kustomization.yaml"} {
		content, err := os.ReadFile("../../manifests/" + manifest)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`name: (\w+),?\s+containerPort: `).FindAllStringSubmatch(string(content), -1) {
			has = append(has, m[1])
		}
	}
	if slices.Sort(named); !slices.Equal(named, slices.Sorted(slices.Values(has))) {
		t.Errorf("%s: it admits the ports %v, and the router has %v", file, named, has)
	}
}

// TestPage: each file is on the page, and sed finds the domain wherever one is named that is not marked as the reader's own.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/urls.md")
	if err != nil {
		t.Fatal(err)
	}
	host := regexp.MustCompile(`[a-z0-9.*-]*example\.[a-z]+`)
	for _, file := range files(t) {
		if link := "(urls/" + filepath.Base(file) + ")"; !strings.Contains(string(page), link) {
			t.Errorf("docs/urls.md has no link %s", link)
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(content)) {
			if name := host.FindString(line); name != "" && !strings.HasSuffix(name, domain) && !strings.Contains(line, "# yours") {
				t.Errorf("%s: %s is not below %s", file, name, domain)
			}
		}
	}
}
