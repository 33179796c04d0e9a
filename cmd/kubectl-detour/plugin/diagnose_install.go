package plugin

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/detour-dev/detour/api"
)

// installing is how what is not there comes back, whichever of the overlays it was.
const installing = "kubectl apply -k manifests/self-managed"

func checkPrograms(f *facts) []finding {
	return slices.Concat(
		f.checkProgram(subjectWebhook, "detour-webhook", f.webhook, "Pods of namespaces that take part cannot be created, and Services follow their Pods no longer"),
		f.checkProgram(subjectRouter, "detour-router", f.router, "proxies keep the routes that they have, and new ones answer requests with a key 503"))
}

// checkProgram says what does without the program.
func (f *facts) checkProgram(what subject, name string, program *appsv1.Deployment, without string) []finding {
	if !f.knows(what) {
		return nil
	}
	about := finding{Severity: severe, Namespace: system, Object: "deployment/" + name, Reason: "NotAvailable",
		Remedy: fmt.Sprintf("kubectl describe pods -n %s -l app.kubernetes.io/name=%s", system, name)}
	if program == nil {
		about.Reason, about.Remedy = "NotInstalled", installing
		about.Message = "it is not there: " + without
		return []finding{about}
	}
	wanted, available := int32(1), program.Status.AvailableReplicas
	if program.Spec.Replicas != nil {
		wanted = *program.Spec.Replicas
	}
	switch {
	case wanted == 0:
		about.Message = "it is scaled to nothing: " + without
		about.Remedy = fmt.Sprintf("kubectl scale -n %s deployment/%s --replicas=2", system, name)
	case available == 0:
		about.Message = fmt.Sprintf("none of its %d Pods is available: %s", wanted, without)
	case program.Status.ObservedGeneration < program.Generation || program.Status.UpdatedReplicas < wanted || available < wanted:
		about.Severity, about.Reason = warning, "NotUpToDate"
		about.Message = fmt.Sprintf("%d of its %d Pods are available, %d of them up to date", available, wanted, program.Status.UpdatedReplicas)
	default:
		return nil
	}
	return []finding{about}
}

// caller is one webhook of a configuration.
type caller struct {
	name   string
	bundle []byte
}

// checkConfigurations looks whether the API server asks the webhook, and trusts it.
func checkConfigurations(f *facts) []finding {
	var mutating, validating []caller
	if f.mutating != nil {
		for _, w := range f.mutating.Webhooks {
			mutating = append(mutating, caller{w.Name, w.ClientConfig.CABundle})
		}
	}
	if f.validating != nil {
		for _, w := range f.validating.Webhooks {
			validating = append(validating, caller{w.Name, w.ClientConfig.CABundle})
		}
	}
	return slices.Concat(
		f.checkConfiguration(subjectMutating, f.mutating != nil, mutating, "no Pod gets a proxy"),
		f.checkConfiguration(subjectValidating, f.validating != nil, validating, "previews that would receive ordinary traffic are not refused"))
}

func (f *facts) checkConfiguration(what subject, exists bool, callers []caller, without string) []finding {
	if !f.knows(what) {
		return nil
	}
	kind, _, _ := strings.Cut(string(what), " ")
	about := finding{Severity: severe, Object: strings.ToLower(kind) + "/" + configuration, Reason: "NotInstalled", Remedy: installing}
	if !exists {
		about.Message = "it is not there: " + without
		return []finding{about}
	}
	about.Reason, about.Remedy = "BadCABundle", fmt.Sprintf("kubectl rollout restart deployment detour-webhook -n %s", system)
	var found []finding
	for _, c := range callers {
		why := whyNoTrust(c.bundle, f.now)
		if why == "" && f.certificate != nil {
			why = whyNotVerified(f.certificate, c.bundle, f.now)
		}
		if why != "" {
			about.Message = fmt.Sprintf("caBundle of webhook %s: %s, so the API server does not trust the webhook: %s", c.name, why, without)
			found = append(found, about)
		}
	}
	return found
}

// whyNoTrust says why nobody can be trusted by a bundle of authorities, or nothing.
func whyNoTrust(bundle []byte, now time.Time) string {
	certificates := parseCertificates(bundle)
	switch {
	case len(bytes.TrimSpace(bundle)) == 0:
		return "it is empty"
	case len(certificates) == 0:
		return "it holds no certificate"
	}
	for _, c := range certificates {
		if now.Before(c.NotAfter) {
			return ""
		}
	}
	return "its certificates have ended, the last on " + certificates[len(certificates)-1].NotAfter.Format(time.DateOnly)
}

// whyNotVerified says why a server's certificate does not count by a bundle, or nothing.
func whyNotVerified(certificate, bundle []byte, now time.Time) string {
	chain := parseCertificates(certificate)
	if len(chain) == 0 {
		return "the webhook's Secret detour-webhook-tls holds no certificate"
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	options := x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: "detour-webhook." + system + ".svc", CurrentTime: now}
	if _, err := chain[0].Verify(options); err != nil {
		return fmt.Sprintf("the certificate that the webhook shows does not count by it (%v)", err)
	}
	return ""
}

// parseCertificates skips everything else.
func parseCertificates(bundle []byte) []*x509.Certificate {
	var certificates []*x509.Certificate
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			certificates = append(certificates, c)
		}
	}
	return certificates
}

// checkVersions compares by tag. What has none, such as an image by its digest, cannot be compared.
func checkVersions(f *facts) []finding {
	return slices.Concat(f.checkProgramVersions(), f.checkProxyVersions(), f.checkOwnVersion())
}

func (f *facts) checkProgramVersions() []finding {
	if f.webhook == nil || f.router == nil {
		return nil
	}
	tags := map[string]string{
		"the webhook's": tagOf(imageOf(f.webhook)), "the router's": tagOf(imageOf(f.router)), "the proxy's": tagOf(proxyImageOf(f.webhook)),
	}
	var told, distinct []string
	for _, part := range []string{"the webhook's", "the router's", "the proxy's"} {
		if tag := tags[part]; tag != "" {
			told, distinct = append(told, part+" is "+tag), append(distinct, tag)
		}
	}
	slices.Sort(distinct)
	if len(slices.Compact(distinct)) < 2 {
		return nil
	}
	return []finding{{
		Severity: warning, Namespace: system, Object: "deployment/detour-webhook", Reason: "VersionsDiffer",
		Message: fmt.Sprintf("its image and the others are not of one version (%s): install all three of the same", strings.Join(told, ", ")),
		Remedy:  installing,
	}}
}

// checkProxyVersions compares the proxies with what new Pods get or, for who may not read that, with each other.
func (f *facts) checkProxyVersions() []finding {
	want := ""
	if f.webhook != nil {
		want = proxyImageOf(f.webhook)
	}
	var others []string
	for i := range f.pods {
		image := proxyIn(&f.pods[i])
		if image == "" || !isRunning(&f.pods[i]) {
			continue
		}
		if want == "" {
			want = image
		}
		if image != want {
			others = append(others, "pod/"+f.pods[i].Name)
		}
	}
	if len(others) == 0 {
		return nil
	}
	return []finding{{
		Severity: remark, Namespace: f.namespace, Object: "namespace/" + f.namespace, Reason: "ProxiesDiffer", others: others,
		Message: fmt.Sprintf("the proxies of %s have another image than %s: they are served for two versions, and lack what is newer", shortList(others), want),
		Remedy:  f.command("kubectl rollout restart deployment -n %[2]s"),
	}}
}

// proxyIn is the image of a Pod's proxy; "" if it has none.
func proxyIn(pod *corev1.Pod) string {
	for _, c := range pod.Spec.InitContainers {
		if c.Name == api.ContainerProxy {
			return c.Image
		}
	}
	return ""
}

// release is a version that can be compared with a tag: builds of a checkout have others.
var release = regexp.MustCompile(`^v\d+\.\d+\.\d+$`)

func (f *facts) checkOwnVersion() []finding {
	if f.router == nil {
		return nil
	}
	tag := tagOf(imageOf(f.router))
	if !release.MatchString(tag) || !release.MatchString(f.client) || tag == f.client {
		return nil
	}
	return []finding{{
		Severity: remark, Namespace: system, Object: "deployment/detour-router", Reason: "PluginDiffers",
		Message: fmt.Sprintf("it is %s, and %s is %s, which may not understand all that it says", tag, f.self, f.client),
		Remedy:  "go install github.com/detour-dev/detour/cmd/kubectl-detour@" + tag,
	}}
}

// tagOf is "" for an image without.
func tagOf(image string) string {
	image, _, _ = strings.Cut(image, "@")
	_, tag, _ := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
	return tag
}
