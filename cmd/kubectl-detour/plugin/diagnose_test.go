package plugin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/detour-dev/detour/api"
)

var (
	today     = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	yesterday = metav1.NewTime(today.Add(-24 * time.Hour))
)

// authority is one that signed the webhook's certificate.
type authority struct{ bundle, certificate []byte }

func newAuthority(t *testing.T, until time.Time) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: yesterday.Time.AddDate(-1, 0, 0), NotAfter: until, IsCA: true, BasicConstraintsValid: true}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: ca.NotBefore, NotAfter: until, DNSNames: []string{"detour-webhook.detour-system.svc"}}
	encode := func(template *x509.Certificate) []byte {
		der, err := x509.CreateCertificate(rand.Reader, template, ca, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	return authority{encode(ca), encode(leaf)}
}

func program(image string) *appsv1.Deployment {
	d := &appsv1.Deployment{}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Image: image}}
	d.Status = appsv1.DeploymentStatus{Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1}
	return d
}

func readyPod(name string, labels map[string]string) corev1.Pod {
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	pod.Spec.Containers = []corev1.Container{{Name: "app", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: yesterday}}
	return pod
}

// healthy is a namespace with Service api, a Pod behind it and a preview, all of them in order.
func healthy(t *testing.T) *facts {
	a := newAuthority(t, today.AddDate(1, 0, 0))
	f := &facts{self: Name, client: "v1.2.0", namespace: "shop", now: today, certificate: a.certificate}
	f.own = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{api.LabelInject: api.InjectEnabled}}}
	f.bundle = &corev1.ConfigMap{Data: map[string]string{api.ConfigMapCAKey: string(a.bundle)}}
	f.webhook, f.router = program("registry:5000/webhook:v1.2.0"), program("registry:5000/router:v1.2.0@sha256:abc")
	f.webhook.Spec.Template.Spec.Containers[0].Env = []corev1.EnvVar{{Name: envProxyImage, Value: "registry:5000/proxy:v1.2.0"}}
	f.mutating = &admissionregistrationv1.MutatingWebhookConfiguration{Webhooks: []admissionregistrationv1.MutatingWebhook{
		{Name: "pods.detour.dev", ClientConfig: admissionregistrationv1.WebhookClientConfig{CABundle: a.bundle}},
	}}
	f.validating = &admissionregistrationv1.ValidatingWebhookConfiguration{Webhooks: []admissionregistrationv1.ValidatingWebhook{
		{Name: "previews.detour.dev", ClientConfig: admissionregistrationv1.WebhookClientConfig{CABundle: a.bundle}},
	}}

	service := corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "api", CreationTimestamp: yesterday}}
	service.Spec = corev1.ServiceSpec{ClusterIP: "10.0.0.1", Selector: map[string]string{"app": "api"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}}}
	f.services = []corev1.Service{service}
	baseline, preview := readyPod("api-1", map[string]string{"app": "api"}), readyPod("api-pr-42-1", map[string]string{"app": "api-pr-42"})
	baseline.Spec.InitContainers = []corev1.Container{{Name: api.ContainerProxy, Image: "registry:5000/proxy:v1.2.0"}}
	f.pods = []corev1.Pod{baseline, preview}
	f.workloads = []*workload{deploymentOf("api", "api", nil), deploymentOf("api-pr-42", "api-pr-42", map[string]string{api.LabelTarget: "api", api.LabelKey: "pr-42"})}
	f.board = &board{namespace: "shop", Status: api.Status{
		Services: []api.ServiceStatus{{Name: "api", Intercepted: true, Covered: 1, Pods: 1}},
		Previews: []api.PreviewStatus{{Preview: "deployment/api-pr-42", Target: "api", Key: "pr-42", State: api.StateRouted, Endpoints: []string{"api-pr-42-1"}, Routed: 1, Of: 1}},
	}}
	return f
}

func deploymentOf(name, app string, labels map[string]string) *workload {
	w := &workload{TypeMeta: metav1.TypeMeta{Kind: "Deployment"}, ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, CreationTimestamp: yesterday}}
	w.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
	w.Spec.Template.Labels = map[string]string{"app": app}
	w.Spec.Template.Spec.Containers = []corev1.Container{{Name: "app"}}
	return w
}

// diagnosisCase is one thing that is wrong.
type diagnosisCase struct {
	change   func(*facts)
	severity severity
	object   string
	reason   string
	message  string
	remedy   string
}

func TestDiagnose(t *testing.T) {
	if found := diagnose(healthy(t)); len(found) > 0 {
		t.Fatalf("something is wrong with what is in order: %+v", found)
	}
	for _, cases := range []map[string]diagnosisCase{installCases(t), namespaceCases(t), podCases(), previewCasesOfDoctor(), limitCases()} {
		for name, c := range cases {
			f := healthy(t)
			c.change(f)
			found := diagnose(f)
			if len(found) != 1 {
				t.Errorf("%s: %d findings, want one: %+v", name, len(found), found)
				continue
			}
			got := found[0]
			if got.Severity != c.severity || got.Object != c.object || got.Reason != c.reason || !strings.Contains(got.Message, c.message) || !strings.Contains(got.Remedy, c.remedy) {
				t.Errorf("%s:\n%+v, want\n%s %s %s %q %q", name, got, c.severity, c.object, c.reason, c.message, c.remedy)
			}
		}
	}
}

func installCases(t *testing.T) map[string]diagnosisCase {
	const mutating, validating = "mutatingwebhookconfiguration/detour", "validatingwebhookconfiguration/detour"
	bundle := func(b []byte) func(*facts) {
		return func(f *facts) { f.mutating.Webhooks[0].ClientConfig.CABundle = b }
	}
	const announce = "kubectl rollout restart deployment detour-webhook"
	other := newAuthority(t, today.AddDate(1, 0, 0))
	return map[string]diagnosisCase{
		"no webhook":           {func(f *facts) { f.webhook = nil }, severe, "deployment/detour-webhook", "NotInstalled", "Pods of namespaces that take part cannot be created", installing},
		"no router":            {func(f *facts) { f.router = nil }, severe, "deployment/detour-router", "NotInstalled", "it is not there", installing},
		"router not available": {func(f *facts) { f.router.Status.AvailableReplicas = 0 }, severe, "deployment/detour-router", "NotAvailable", "none of its 1 Pods", "kubectl describe pods -n detour-system"},
		"webhook scaled away":  {func(f *facts) { f.webhook.Spec.Replicas = new(int32) }, severe, "deployment/detour-webhook", "NotAvailable", "scaled to nothing", "kubectl scale"},
		"router being updated": {func(f *facts) { f.router.Status.UpdatedReplicas = 0 }, warning, "deployment/detour-router", "NotUpToDate", "0 of them up to date", ""},

		"no configuration":        {func(f *facts) { f.mutating = nil }, severe, mutating, "NotInstalled", "no Pod gets a proxy", installing},
		"no validation":           {func(f *facts) { f.validating = nil }, severe, validating, "NotInstalled", "not refused", installing},
		"no caBundle":             {bundle(nil), severe, mutating, "BadCABundle", "caBundle of webhook pods.detour.dev: it is empty", announce},
		"caBundle of nothing":     {bundle([]byte("hello")), severe, mutating, "BadCABundle", "holds no certificate", announce},
		"caBundle that has ended": {bundle(newAuthority(t, today.AddDate(0, 0, -1)).bundle), severe, mutating, "BadCABundle", "have ended, the last on 2026-01-01", announce},
		"caBundle of another":     {bundle(other.bundle), severe, mutating, "BadCABundle", "does not count by it", announce},

		"programs differ":    {func(f *facts) { f.router = program("router:v1.2.0-rc1") }, warning, "deployment/detour-webhook", "VersionsDiffer", "the router's is v1.2.0-rc1", installing},
		"proxies differ":     {func(f *facts) { f.pods[0].Spec.InitContainers[0].Image = "proxy:v1.1.0" }, remark, "namespace/shop", "ProxiesDiffer", "pod/api-1", "kubectl rollout restart deployment -n shop"},
		"the plugin differs": {func(f *facts) { f.client = "v1.0.0" }, remark, "deployment/detour-router", "PluginDiffers", "is v1.0.0", "@v1.2.0"},
		"proxies differ, and nobody knows from what": {func(f *facts) {
			f.webhook, f.unread = nil, []unread{{subjectWebhook, askAdmin}}
			f.pods = append(f.pods, f.pods[0])
			f.pods[2].Name, f.pods[2].Spec.InitContainers = "api-2", []corev1.Container{{Name: api.ContainerProxy, Image: "proxy:v1.1.0"}}
		}, remark, "namespace/shop", "ProxiesDiffer", "pod/api-2", ""},
	}
}

func namespaceCases(t *testing.T) map[string]diagnosisCase {
	// A namespace that does not take part has no previews either.
	outside := func(label string) func(*facts) {
		return func(f *facts) {
			f.board, f.bundle = nil, nil
			f.own.Labels = map[string]string{api.LabelInject: label}
		}
	}
	return map[string]diagnosisCase{
		"not taking part": {outside(""), severe, "namespace/shop", "NotTakingPart", "it does not take part", "kubectl detour enable shop"},
		"a label that means nothing": {outside("true"), severe, "namespace/shop", "UnknownLabel", "detour.dev/inject=true means nothing",
			"kubectl label namespace shop --overwrite detour.dev/inject=enabled"},
		"not noticed":     {outside(api.InjectEnabled), severe, "namespace/shop", "NotNoticed", "the webhook has taken no notice", "kubectl logs"},
		"being taken out": {func(f *facts) { f.own.Labels = nil }, warning, "namespace/shop", "BeingTakenOut", "has no label", "kubectl logs"},
		"label not read":  {func(f *facts) { f.own, f.board = nil, nil }, severe, "namespace/shop", "NotTakingPart", "", "kubectl detour enable shop"},
		"no CA":           {func(f *facts) { f.bundle = nil }, severe, "configmap/detour-ca", "NoCA", "it is not there", "kubectl logs"},
		"a CA that ended": {func(f *facts) {
			f.bundle.Data[api.ConfigMapCAKey] = string(newAuthority(t, today.AddDate(0, 0, -1)).bundle)
		}, severe, "configmap/detour-ca", "NoCA", "have ended", ""},
		"Service not seen":  {func(f *facts) { f.board.Services = nil }, severe, "configmap/detour-status", "StatusBehind", "service/api", "deployment/detour-router"},
		"preview not seen":  {func(f *facts) { f.board.Previews = nil }, severe, "configmap/detour-status", "StatusBehind", "deployment/api-pr-42", ""},
		"its Pod not seen":  {func(f *facts) { f.board.Previews[0].Endpoints = nil }, severe, "configmap/detour-status", "StatusBehind", "pod/api-pr-42-1", ""},
		"more than fits in": {func(f *facts) { f.board.More = 3 }, remark, "configmap/detour-status", "MoreNotices", "3 more notices", "kubectl get events -n shop"},
	}
}

func podCases() map[string]diagnosisCase {
	without := func(word string) func(*facts) {
		return func(f *facts) {
			f.pods[0].Spec.InitContainers = nil
			if word != "" {
				f.pods[0].Annotations = map[string]string{api.AnnotationNotInjected: word}
			}
		}
	}
	noticed := func(change func(*facts), n api.Notice) func(*facts) {
		return func(f *facts) {
			change(f)
			f.board.Notices.Notices = append(f.board.Notices.Notices, n)
		}
	}
	notIntercepted := func(reason string) func(*facts) {
		return func(f *facts) { f.board.Services[0].Problem = &api.Problem{Reason: reason, Message: "1 of 1 Pods"} }
	}
	nothing := func(*facts) {}
	return map[string]diagnosisCase{
		"there before": {noticed(without(""), api.Notice{Object: "Namespace/shop", Reason: "RestartNeeded", Message: "1 Pods"}),
			warning, "pod/api-1", "RestartNeeded", "there before its namespace took part", "kubectl detour enable shop --restart"},
		"two alike": {func(f *facts) {
			without("host-network")(f)
			f.pods = append(f.pods, *f.pods[0].DeepCopy())
			f.pods[2].Name = "api-2"
		}, warning, "pod/api-1", "NotInjected", "(host-network) (as do pod/api-2)", "kubectl describe pod api-1 -n shop"},
		"told by the webhook": {noticed(without("host-network"), api.Notice{Object: "Pod/api-1", Warning: true, Reason: "NotInjected", Message: "Remove hostNetwork."}),
			warning, "pod/api-1", "NotInjected", "Remove hostNetwork", ""},
		"opted out": {func(f *facts) {
			without("")(f)
			f.pods[0].Labels[api.LabelInject] = api.InjectDisabled
		}, remark, "pod/api-1", "NotInjected", "it has the label detour.dev/inject=disabled", ""},

		"Service without proxies": {notIntercepted("NotInjected"), warning, "service/api", "NotInjected", "1 of 1 Pods", "kubectl detour enable shop --restart"},
		"Service not switched":    {notIntercepted("PortNotTaken"), warning, "service/api", "PortNotTaken", "1 of 1 Pods", "kubectl describe service api -n shop"},
		"headless Service": {func(f *facts) {
			notIntercepted("Headless")(f)
			f.services[0].Spec.ClusterIP = corev1.ClusterIPNone
		}, remark, "service/api", "Headless", "", ""},

		"a warning of the webhook": {noticed(nothing, api.Notice{Object: "NetworkPolicy/web", Warning: true, Reason: "NetworkPolicyBarsRouter", Message: "m"}),
			warning, "networkpolicy/web", "NetworkPolicyBarsRouter", "m", "kubectl edit networkpolicy web -n shop"},
		"proxies that cannot start": {noticed(nothing, api.Notice{Object: "Namespace/shop", Warning: true, Reason: "InjectionSuspended", Message: "m"}),
			warning, "namespace/shop", "InjectionSuspended", "m", "kubectl edit namespace shop"},
		"a remark of the webhook": {noticed(nothing, api.Notice{Object: "Service/api", Reason: "SessionAffinity", Message: "m"}),
			remark, "service/api", "SessionAffinity", "m", ""},
	}
}

func previewCasesOfDoctor() map[string]diagnosisCase {
	const object, guest = "deployment/api-pr-42", "team-b/deployment/api-pr-7"
	invited := func(state api.State, reason string) func(*facts) {
		return func(f *facts) {
			f.board.Previews = append(f.board.Previews, api.PreviewStatus{
				Preview: guest, Target: "api", Key: "pr-7", State: state, Problem: &api.Problem{Reason: reason, Message: "the router's words"},
			})
		}
	}
	in := func(state api.State, reason string, more func(*facts)) func(*facts) {
		return func(f *facts) {
			f.board.Previews[0].State, f.board.Previews[0].Problem = state, &api.Problem{Reason: reason, Message: "the router's words"}
			if more != nil {
				more(f)
			}
		}
	}
	pending := func(missing string) func(*facts) {
		return func(f *facts) {
			f.board.Previews[0].State, f.board.Previews[0].Of = api.StatePending, 2
			f.board.Previews[0].Missing = []api.Missing{{Pod: "api-2", Reason: missing}}
		}
	}
	return map[string]diagnosisCase{
		"a bad annotation": {in(api.StateInvalid, "InvalidTTL", nil), severe, object, "InvalidTTL", "the router's words", "kubectl edit deployment api-pr-42 -n shop"},
		"expired":          {in(api.StateExpired, "Expired", nil), warning, object, "Expired", "the router's words", "kubectl detour gc -n shop"},
		"in conflict":      {in(api.StateConflict, "Conflict", nil), severe, object, "Conflict", "the router's words", "kubectl label deployment/api-pr-42 -n shop --overwrite detour.dev/key=ANOTHER-KEY"},
		"a bad annotation in another namespace": {invited(api.StateInvalid, "InvalidTTL"), severe, guest, "InvalidTTL", "the router's words",
			"kubectl edit deployment api-pr-7 -n team-b"},
		"expired in another namespace": {invited(api.StateExpired, "Expired"), warning, guest, "Expired", "the router's words",
			"kubectl delete deployment/api-pr-7 -n team-b"},
		"in conflict in another namespace": {invited(api.StateConflict, "Conflict"), severe, guest, "Conflict", "the router's words",
			"kubectl label deployment/api-pr-7 -n team-b --overwrite detour.dev/key=ANOTHER-KEY"},
		"not ready in another namespace": {invited(api.StateNotReady, "NotReady"), severe, guest, "NotReady", "the router's words", ""},
		"not ready": {in(api.StateNotReady, "NotReady", func(f *facts) {
			f.board.Previews[0].Endpoints = nil
			f.pods[1].Status = corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}}}}
			f.events = map[string]corev1.Event{"api-pr-42-1": {Reason: "Failed", Message: "no such image"}}
		}), severe, object, "NotReady", "Pod api-pr-42-1: container app: ImagePullBackOff; its last Event: Failed: no such image", "kubectl describe pod api-pr-42-1 -n shop"},
		"without Pods": {in(api.StateNotReady, "NotReady", func(f *facts) {
			f.board.Previews[0].Endpoints, f.pods = nil, f.pods[:1]
			f.workloads[1].Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: "exceeded quota: q"}}
		}), severe, object, "NotReady", "it gets no Pods: exceeded quota: q", "kubectl edit"},
		"missing":         {pending("has not acknowledged the routes yet"), warning, object, "Pending", "routed by 1 of 2 Pods; api-2: has not acknowledged", "kubectl detour status pr-42 -n shop"},
		"without a proxy": {pending("not injected: restart it"), warning, object, "Pending", "api-2: not injected", "kubectl rollout restart deployment -n shop"},
		"routed in part": {func(f *facts) {
			f.board.Previews[0].Warnings = []api.Problem{{Reason: "NoPort", Message: "no port named http"}}
		}, warning, object, "NoPort", "no port named http", "kubectl edit"},
		"another pollutes": {func(f *facts) {
			f.services = append(f.services, *f.services[0].DeepCopy())
			f.services[1].Name, f.services[1].Spec.Selector = "all", map[string]string{"app": "api-pr-42"}
			f.board.Services = append(f.board.Services, api.ServiceStatus{Name: "all", Intercepted: true})
		}, severe, object, "Pollutes", "Service all selects its Pods (app=api-pr-42)", "kubectl edit deployment api-pr-42 -n shop"},

		"egress barred": {func(f *facts) {
			f.policies = []networkingv1.NetworkPolicy{policyFor("api", networkingv1.PolicyTypeEgress)}
		},
			severe, object, "NetworkPolicyBarsPreview", "the proxy of Pod api-1 cannot reach it, and answers its requests 503: NetworkPolicies (p) do not let it out to Pod api-pr-42-1, port 8080", "kubectl edit networkpolicy p -n shop"},
		"ingress barred": {func(f *facts) {
			f.policies = []networkingv1.NetworkPolicy{policyFor("api-pr-42", networkingv1.PolicyTypeIngress)}
		},
			severe, object, "NetworkPolicyBarsPreview", "do not admit it to Pod api-pr-42-1, port 8080", "kubectl edit networkpolicy p -n shop"},
		"egress barred, and the webhook says so": {func(f *facts) {
			f.policies = []networkingv1.NetworkPolicy{policyFor("api", networkingv1.PolicyTypeEgress)}
			f.board.Notices.Notices = []api.Notice{{Object: "NetworkPolicy/p", Warning: true, Reason: "NetworkPolicyBarsPreviews", Message: "m"}}
		}, warning, "networkpolicy/p", "NetworkPolicyBarsPreviews", "m", ""},
	}
}

func limitCases() map[string]diagnosisCase {
	quota := func(name corev1.ResourceName, used, hard string) corev1.ResourceQuota {
		return corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Status: corev1.ResourceQuotaStatus{
			Hard: corev1.ResourceList{name: resource.MustParse(hard)}, Used: corev1.ResourceList{name: resource.MustParse(used)},
		}}
	}
	limits := func(item corev1.LimitRangeItem) func(*facts) {
		return func(f *facts) {
			item.Type = corev1.LimitTypeContainer
			f.ranges = []corev1.LimitRange{{ObjectMeta: metav1.ObjectMeta{Name: "l"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{item}}}}
			list := corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")}
			f.workloads[0].Spec.Template.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: list, Limits: list}
		}
	}
	memory := func(amount string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(amount)}
	}
	return map[string]diagnosisCase{
		"no Pod left": {func(f *facts) {
			f.quotas = []corev1.ResourceQuota{quota("pods", "10", "10"), quota("requests.cpu", "1", "2")}
		},
			warning, "resourcequota/q", "QuotaExhausted", "10 of 10 pods are in use", "kubectl edit resourcequota q -n shop"},
		"too large": {limits(corev1.LimitRangeItem{Max: memory("128Mi")}),
			warning, "limitrange/l", "LimitRangeRejects", "no further Pod of deployment/api, nor of a preview that is a copy of it: container app: its limit of memory is 256Mi, and 128Mi is the most", "kubectl edit limitrange l -n shop"},
		"too small": {limits(corev1.LimitRangeItem{Min: memory("1Gi")}), warning, "limitrange/l", "LimitRangeRejects", "1Gi is the least", ""},
	}
}

// TestDiagnoseWithoutRights: what was not to be read is no finding.
func TestDiagnoseWithoutRights(t *testing.T) {
	f := &facts{self: Name, namespace: "shop", now: today}
	for _, what := range []subject{
		subjectNamespace, subjectStatus, subjectCA, subjectServices, subjectPods, subjectWorkloads, subjectPolicies, subjectQuotas,
		subjectRanges, subjectEvents, subjectWebhook, subjectRouter, subjectMutating, subjectValidating, subjectSecret,
	} {
		f.unread = append(f.unread, unread{what, askAdmin})
	}
	if found := diagnose(f); len(found) > 0 {
		t.Errorf("it found %+v", found)
	}
	inPart := healthy(t)
	inPart.webhook, inPart.router, inPart.mutating, inPart.validating, inPart.certificate, inPart.own, inPart.bundle = nil, nil, nil, nil, nil, nil, nil
	inPart.pods, inPart.services, inPart.workloads, inPart.unread = nil, nil, nil, f.unread
	if found := diagnose(inPart); len(found) > 0 {
		t.Errorf("by the status alone it found %+v", found)
	}
}

// FuzzWhyNoTrust reads whatever somebody has put where certificates belong.
func FuzzWhyNoTrust(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"), []byte("hello"))
	f.Fuzz(func(t *testing.T, bundle, certificate []byte) {
		if whyNoTrust(bundle, today) == "" && len(parseCertificates(bundle)) == 0 {
			t.Error("nobody is trusted")
		}
		if whyNotVerified(certificate, bundle, today) == "" && len(parseCertificates(certificate)) == 0 {
			t.Error("nothing is verified")
		}
	})
}
