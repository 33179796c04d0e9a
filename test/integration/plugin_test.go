//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/cmd/kubectl-detour/plugin"
)

// answer is what one call of the plugin came to.
type answer struct {
	code        int
	out, errOut string
}

// developer calls the plugin with the rights of manifests/roles in one namespace, and no others.
type developer struct {
	kubeconfig, namespace string
	account               string // "" is [developer.user]
	groups                []string
}

// newDeveloper binds one of the roles.
func newDeveloper(t *testing.T, namespace, role string) *developer {
	t.Helper()
	d := &developer{kubeconfig: filepath.Join(t.TempDir(), "kubeconfig"), namespace: namespace}
	if err := os.WriteFile(d.kubeconfig, kubeConfig, 0o600); err != nil {
		t.Fatal(err)
	}
	create(t, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "developer", Namespace: namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: d.user()}},
	})
	eventually(t, "the developer has the rights", func() error {
		if a := d.detour(t, "list"); strings.Contains(a.errOut, "forbidden") {
			return errors.New(a.errOut)
		}
		return nil
	})
	return d
}

func (d *developer) user() string { return cmp.Or(d.account, "developer-of-"+d.namespace) }

// detour runs "kubectl detour" to its end.
func (d *developer) detour(t *testing.T, args ...string) answer {
	t.Helper()
	return <-d.begin(t, args...)
}

// begin runs it in the background.
func (d *developer) begin(t *testing.T, args ...string) <-chan answer {
	args = append(args, "--kubeconfig", d.kubeconfig, "-n", d.namespace, "--as", d.user())
	for _, group := range d.groups {
		args = append(args, "--as-group", group)
	}
	done := make(chan answer, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		var out, errOut bytes.Buffer
		code := plugin.Run(ctx, plugin.Name, args, genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &errOut})
		done <- answer{code, out.String(), errOut.String()}
	}()
	return done
}

// newBaseline is a Deployment with one ready Pod behind a Service; its proxy puts every table in force.
func newBaseline(t *testing.T, namespace, name string) *corev1.Service {
	t.Helper()
	service := newService(namespace, name, intstr.FromString("http"))
	create(t, service)
	create(t, newDeployment(namespace, name, map[string]string{"app": name}))
	pod := newPod(namespace, name+"-1", map[string]string{"app": name}, 8080)
	create(t, pod)
	makeReady(t, pod, "198.18.129.10")
	create(t, endpointSlice(service, pod, int32(takenPorts(t, pod)[0].Listen)))
	acknowledgeAll(t, tokenFor(t, pod))
	return service
}

// acknowledgeAll plays a proxy until the test ends.
func acknowledgeAll(t *testing.T, token string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, routerURL+api.PathRoutes, nil)
	if err != nil {
		t.Fatal(err)
	}
	asker := routerClient(t, token)
	response, err := asker.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(response.Body); lines.Scan(); {
			var table api.Table
			if len(lines.Bytes()) == 0 || json.Unmarshal(lines.Bytes(), &table) != nil {
				continue
			}
			content, _ := json.Marshal(api.Ack{Version: table.Version})
			if answer, err := asker.Post(routerURL+api.PathAcks, "application/json", bytes.NewReader(content)); err == nil {
				answer.Body.Close()
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		response.Body.Close()
		<-done
	})
}

// rollOut plays the controllers and the kubelet: the Deployment gets a new ReplicaSet and a Pod, which replaces the others.
func rollOut(t *testing.T, namespace, name string, make func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	deployment := &appsv1.Deployment{}
	if err := kube.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, deployment); err != nil {
		t.Fatal(err)
	}
	revision := fmt.Sprint(deployment.Generation)
	before := deployment.DeepCopy()
	metav1.SetMetaDataAnnotation(&deployment.ObjectMeta, "deployment.kubernetes.io/revision", revision)
	if err := kube.Patch(t.Context(), deployment, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	replicaSet := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{
		Name: name + "-" + revision, Namespace: namespace, Labels: deployment.Spec.Template.Labels,
		Annotations:     map[string]string{"deployment.kubernetes.io/revision": revision},
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(deployment, appsv1.SchemeGroupVersion.WithKind("Deployment"))},
	}}
	replicaSet.Spec.Selector, replicaSet.Spec.Template = deployment.Spec.Selector, deployment.Spec.Template
	create(t, replicaSet)
	removePods(t, namespace, deployment.Spec.Selector.MatchLabels)
	pod := &corev1.Pod{ObjectMeta: deployment.Spec.Template.ObjectMeta, Spec: deployment.Spec.Template.Spec}
	pod.Namespace, pod.Name = namespace, replicaSet.Name+"-x"
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(replicaSet, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
	create(t, pod)
	make(pod)
	before = deployment.DeepCopy()
	deployment.Status = appsv1.DeploymentStatus{ObservedGeneration: deployment.Generation, Replicas: 1, UpdatedReplicas: 1}
	if ready := len(pod.Status.Conditions) > 0; ready {
		deployment.Status.ReadyReplicas, deployment.Status.AvailableReplicas = 1, 1
	}
	if err := kube.Status().Patch(t.Context(), deployment, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	return pod
}

// removePods plays the garbage collector.
func removePods(t *testing.T, namespace string, labels map[string]string) {
	t.Helper()
	err := kube.DeleteAllOf(t.Context(), &corev1.Pod{}, client.InNamespace(namespace), client.MatchingLabels(labels), client.GracePeriodSeconds(0))
	if err != nil {
		t.Fatal(err)
	}
}

// waitForImage waits until a Deployment is there and has the image.
func waitForImage(t *testing.T, namespace, name, image string) *appsv1.Deployment {
	t.Helper()
	deployment := &appsv1.Deployment{}
	eventually(t, "Deployment "+name+" runs "+image, func() error {
		if err := kube.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, deployment); err != nil {
			return err
		}
		if got := deployment.Spec.Template.Spec.Containers[0].Image; got != image {
			return errors.New(got)
		}
		return nil
	})
	return deployment
}

// check compares an answer's code and looks for texts in what it says.
func (a answer) check(t *testing.T, code int, out, errOut string) {
	t.Helper()
	if a.code != code || !strings.Contains(a.out, out) || !strings.Contains(a.errOut, errOut) {
		t.Errorf("code %d, want %d; stdout is to have %q, stderr %q\nstdout:\n%s\nstderr:\n%s", a.code, code, out, errOut, a.out, a.errOut)
	}
}

// TestPluginPreview makes a preview with a developer's rights, brings it up to date and removes it.
func TestPluginPreview(t *testing.T) {
	newNamespace(t, "plugin")
	d := newDeveloper(t, "plugin", "detour-previews")
	newBaseline(t, "plugin", "api")

	ready := func(pod *corev1.Pod) { makeReady(t, pod, "198.18.129.11") }
	creating := d.begin(t, "create", "api", "--key", "pr-42", "--image", "app:2")
	waitForImage(t, "plugin", "api-pr-42", "app:2")
	rollOut(t, "plugin", "api-pr-42", ready)
	(<-creating).check(t, 0, "Detour-Key: pr-42\ncurl -H 'Detour-Key: pr-42' http://api.plugin/\n", "deployment/api-pr-42 is routed by 1 of 1 Pods")

	updating := d.begin(t, "create", "api", "--key", "pr-42", "--tag", "3", "--env", "BANNER=new", "--replicas", "1")
	waitForImage(t, "plugin", "api-pr-42", "app:3")
	select {
	case a := <-updating:
		t.Fatalf("it did not wait for the new Pods: %+v", a)
	default:
	}
	rollOut(t, "plugin", "api-pr-42", ready)
	(<-updating).check(t, 0, "Detour-Key: pr-42", "")

	d.detour(t, "create", "api", "--key", "pr-42", "--tag", "4", "--wait=false").check(t, 0, "deployment.apps/api-pr-42 applied\n", "")
	if env := waitForImage(t, "plugin", "api-pr-42", "app:4").Spec.Template.Spec.Containers[0].Env; len(env) > 0 {
		t.Errorf("what the earlier call said is left: %v", env)
	}
	rollOut(t, "plugin", "api-pr-42", ready)
	d.detour(t, "wait", "pr-42").check(t, 0, "", "is routed by 1 of 1")
	d.detour(t, "list").check(t, 0, "api       pr-42   routed   1/1      deployment/api-pr-42", "")
	d.detour(t, "list", "-o", "wide").check(t, 0, "app:4", "")
	d.detour(t, "list", "-o", "name").check(t, 0, "deployment/api-pr-42\n", "")
	d.detour(t, "list", "-o", "json").check(t, 0, `"state": "routed"`, "")
	d.detour(t, "status", "pr-42").check(t, 0, "  routed    1/1\n  ready     1/1\n  image     app:4\n", "")
	d.detour(t, "status", "pr-42", "-o", "yaml").check(t, 0, "ready: 1", "")
	d.detour(t, "status", "pr-43").check(t, 3, "", `no preview in namespace plugin has the key "pr-43"`)

	deleting := d.begin(t, "delete", "pr-42")
	eventually(t, "the Deployment is gone", func() error {
		err := kube.Get(t.Context(), client.ObjectKey{Namespace: "plugin", Name: "api-pr-42"}, &appsv1.Deployment{})
		if client.IgnoreNotFound(err) == nil && err != nil {
			return nil
		}
		return errors.New("it is there")
	})
	removePods(t, "plugin", map[string]string{api.LabelKey: "pr-42"})
	(<-deleting).check(t, 0, "deployment/api-pr-42 deleted\n", "")
	d.detour(t, "delete", "pr-42").check(t, 3, "", "no preview")
}

// TestPluginDryRun applies what a dry run prints as GitOps would, and finds it to be what the plugin itself applies.
func TestPluginDryRun(t *testing.T) {
	newNamespace(t, "plugin-dry-run")
	d := newDeveloper(t, "plugin-dry-run", "detour-previews")
	newBaseline(t, "plugin-dry-run", "api")
	args := []string{"create", "api", "--key", "pr-42", "--image", "app:2"}
	printed := d.detour(t, append(args, "--dry-run=client", "-o", "yaml")...)
	printed.check(t, 0, "kind: Deployment", "")
	if strings.Contains(printed.out, "status") || strings.Contains(printed.out, "creationTimestamp") {
		t.Errorf("it has fields of the API server's:\n%s", printed.out)
	}
	create(t, &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "api", Namespace: "plugin-dry-run"},
		Spec:       networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "api"}}},
	})
	d.detour(t, append(args, "--dry-run=server")...).check(t, 0, "deployment.apps/api-pr-42 applied (server dry run)\n",
		"note: NetworkPolicy api is for the original's Pods")

	deployment := &appsv1.Deployment{}
	if err := yaml.UnmarshalStrict([]byte(printed.out), deployment); err != nil {
		t.Fatal(err)
	}
	create(t, deployment)
	d.detour(t, append(args, "--wait=false")...).check(t, 0, "applied", "")
	after := waitForImage(t, "plugin-dry-run", "api-pr-42", "app:2")
	if after.Generation != deployment.Generation {
		t.Errorf("the plugin changed what its dry run had printed:\n%v\n%v", deployment.Spec, after.Spec)
	}
}

// TestPluginTellsWhatIsWrong has a preview's Pods fail.
func TestPluginTellsWhatIsWrong(t *testing.T) {
	newNamespace(t, "plugin-wrong")
	d := newDeveloper(t, "plugin-wrong", "detour-previews")
	newBaseline(t, "plugin-wrong", "api")
	creating := d.begin(t, "create", "api", "--key", "pr-42", "--image", "nowhere:2")
	waitForImage(t, "plugin-wrong", "api-pr-42", "nowhere:2")
	rollOut(t, "plugin-wrong", "api-pr-42", func(pod *corev1.Pod) {
		pod.Status = corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{
			Name:  "app",
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "no such host"}},
		}}}
		if err := kube.Status().Update(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
		create(t, &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Name: "failed", Namespace: pod.Namespace},
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
			Type:           "Warning", Reason: "Failed", Message: "Failed to pull image nowhere:2",
		})
	})
	failed := <-creating
	failed.check(t, 5, "", "Warning Failed: Failed to pull image nowhere:2")
	failed.check(t, 5, "", "container app: ImagePullBackOff: no such host")

	creating = d.begin(t, "create", "api", "--key", "pr-42", "--image", "nowhere:3", "--timeout", "2s")
	(<-creating).check(t, 4, "", "not routed within 2s: deployment/api-pr-42: 0 of 1 Pods are up to date and ready")
	d.detour(t, "wait", "pr-43", "--timeout", "1s").check(t, 4, "", "no preview in namespace plugin-wrong has the key pr-43")
}

// TestPluginErrors has the plugin say what to do instead.
func TestPluginErrors(t *testing.T) {
	newNamespace(t, "plugin-errors")
	d := newDeveloper(t, "plugin-errors", "detour-previews")
	newBaseline(t, "plugin-errors", "api")
	create(t, newDeployment("plugin-errors", "api-old", map[string]string{"app": "api"}))
	headless := newService("plugin-errors", "headless", intstr.FromInt32(8080))
	headless.Spec.ClusterIP = corev1.ClusterIPNone
	create(t, headless)
	alone := newService("plugin-errors", "alone", intstr.FromInt32(8080))
	alone.Spec.Selector = nil
	create(t, alone)
	create(t, newService("plugin-errors", "empty", intstr.FromInt32(8080)))
	uncovered := newService("plugin-errors", "uncovered", intstr.FromInt32(8080))
	create(t, uncovered)
	create(t, newDeployment("plugin-errors", "uncovered", map[string]string{"app": "uncovered"}))
	without := newPod("plugin-errors", "uncovered", map[string]string{"app": "uncovered", api.LabelInject: api.InjectDisabled}, 8080)
	create(t, without)
	makeReady(t, without, "198.18.129.20")
	taken := newDeployment("plugin-errors", "api-taken", map[string]string{"app": "another"})
	create(t, taken)

	image := []string{"--image", "app:2"}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"nowhere", "--key", "k"}, 3, `namespace plugin-errors has no Service "nowhere": it has api, `},
		{[]string{"headless", "--key", "k"}, 5, "Service headless is headless"},
		{[]string{"alone", "--key", "k"}, 5, "Service alone has no selector"},
		{[]string{"empty", "--key", "k"}, 3, "has Pods that Service empty selects (app=empty)"},
		{[]string{"api", "--key", "k"}, 2, "--from deployment/api or --from deployment/api-old"},
		{[]string{"api", "--key", "k", "--from", "deployment/web"}, 3, "--from can be deployment/api or deployment/api-old"},
		{[]string{"api", "--key", "a b"}, 2, `"a b" cannot be a key: use 1 to 63 characters`},
		{[]string{"api", "--key", strings.Repeat("x", 64)}, 2, "cannot be a key"},
		{[]string{"api", "--key", "k", "--env", "X"}, 2, "use the form NAME=VALUE"},
		{[]string{"api", "--key", "taken", "--from", "deployment/api"}, 1, "Deployment api-taken is there already and is not this preview"},
		{[]string{"--key", "k"}, 2, "kubectl detour create takes one argument, SERVICE, and got 0"},
		{[]string{"api"}, 2, `required flag(s) "key" not set`},
	} {
		d.detour(t, append(append([]string{"create"}, c.args...), image...)...).check(t, c.code, "", c.want)
	}
	eventually(t, "nothing that passes no proxy gets a preview", func() error {
		a := d.detour(t, append([]string{"create", "uncovered", "--key", "k", "--wait=false", "--dry-run=server"}, image...)...)
		if a.code != 5 || !strings.Contains(a.errOut, "kubectl detour enable plugin-errors --restart") {
			return fmt.Errorf("%+v", a)
		}
		return nil
	})

	byHand, _ := newPreview(t, "plugin-errors", "api-by-hand", "api", "by-hand")
	d.detour(t, "delete", byHand.Labels[api.LabelKey]).check(t, 1, "", "deployment/api-by-hand was not made by kubectl detour")
	d.detour(t, "delete", byHand.Labels[api.LabelKey], "--force", "--wait=false").check(t, 0, "deployment/api-by-hand deleted\n", "")
}

// TestPluginOutside asks for a preview in a namespace that does not take part.
func TestPluginOutside(t *testing.T) {
	create(t, namespaceNamed("plugin-outside"))
	create(t, newService("plugin-outside", "api", intstr.FromInt32(8080)))
	create(t, newDeployment("plugin-outside", "api", map[string]string{"app": "api"}))
	d := newDeveloper(t, "plugin-outside", "detour-previews")
	d.detour(t, "create", "api", "--key", "k", "--tag", "2").check(t, 1, "", "run kubectl detour enable plugin-outside")
	d.detour(t, "create", "api", "--key", "k", "--tag", "2", "--dry-run=client").check(t, 0, "deployment.apps/api-k created (dry run)", "")
	d.detour(t, "list").check(t, 1, "", "namespace plugin-outside does not take part")
}

// TestPluginEnables has a namespace take part and takes it out again, with the rights for that alone.
func TestPluginEnables(t *testing.T) {
	create(t, namespaceNamed("plugin-enable"))
	create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "plugin-enable"}})
	service := newService("plugin-enable", "web", intstr.FromString("http"))
	create(t, service)
	create(t, newDeployment("plugin-enable", "web", map[string]string{"app": "web"}))
	rollOut(t, "plugin-enable", "web", func(pod *corev1.Pod) { makeReady(t, pod, "198.18.129.30") })
	d := newDeveloper(t, "plugin-enable", "detour-namespace")

	d.detour(t, "enable", "plugin-enable").check(t, 0, "1 of 1 Pods behind Service web are not reached through their proxy",
		"deployment/web: Pods that are there have no proxy yet; kubectl detour enable plugin-enable --restart replaces them")

	before := generationOf(t, "plugin-enable", "web")
	enabling := d.begin(t, "enable", "plugin-enable", "--restart")
	waitForChange(t, "plugin-enable", "web", before)
	rollOut(t, "plugin-enable", "web", func(pod *corev1.Pod) {
		makeReady(t, pod, "198.18.129.31")
		create(t, endpointSlice(service, pod, int32(takenPorts(t, pod)[0].Listen)))
	})
	(<-enabling).check(t, 0, "web       1/1       -", "deployment/web: 1 of 1 Pods are replaced")
	d.detour(t, "enable", "plugin-enable", "--restart").check(t, 0, "web       1/1       -", "") // nothing is left to do

	before = generationOf(t, "plugin-enable", "web")
	disabling := d.begin(t, "disable", "plugin-enable", "--restart")
	waitForChange(t, "plugin-enable", "web", before)
	rollOut(t, "plugin-enable", "web", func(pod *corev1.Pod) {
		if isInjected(pod) {
			t.Error("the Pod has a proxy")
		}
		makeReady(t, pod, "198.18.129.32")
	})
	(<-disabling).check(t, 0, "namespace plugin-enable takes no part", "deployment/web: 1 of 1 Pods are replaced")

	d.detour(t, "enable", "default").check(t, 1, "", "you may not label namespace default: ask someone who may to run kubectl label namespace default detour.dev/inject=enabled")
	d.detour(t, "enable", "kube-system").check(t, 2, "", "namespace kube-system cannot take part")
}

func generationOf(t *testing.T, namespace, name string) int64 {
	t.Helper()
	var deployment appsv1.Deployment
	if err := kube.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, &deployment); err != nil {
		t.Fatal(err)
	}
	return deployment.Generation
}

func waitForChange(t *testing.T, namespace, name string, before int64) {
	t.Helper()
	eventually(t, "Deployment "+name+" is changed", func() error {
		if generationOf(t, namespace, name) == before {
			return errors.New("it is not")
		}
		return nil
	})
}

// TestPluginCompletes asks for names as kubectl's shell completion does.
func TestPluginCompletes(t *testing.T) {
	newNamespace(t, "plugin-completion")
	d := newDeveloper(t, "plugin-completion", "detour-previews")
	create(t, newService("plugin-completion", "api", intstr.FromInt32(8080)))
	newPreview(t, "plugin-completion", "api-pr-42", "api", "pr-42")
	waitForState(t, "plugin-completion", "deployment/api-pr-42", api.StateNotReady)
	for verb, want := range map[string]string{"create": "api\n", "status": "pr-42\n", "wait": "pr-42\n", "delete": "pr-42\n"} {
		flags := []string{"--kubeconfig", d.kubeconfig, "-n", d.namespace, "--as", d.user(), ""}
		var out bytes.Buffer
		streams := genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &bytes.Buffer{}}
		plugin.Run(t.Context(), plugin.Name, append([]string{"__complete", verb}, flags...), streams)
		if !strings.Contains("\n"+out.String(), "\n"+want) {
			t.Errorf("%s is completed with %q, want %q", verb, out.String(), want)
		}
	}
}

// TestPluginForward asks for a way that there is not. Whether there is one is for a whole cluster to show.
func TestPluginForward(t *testing.T) {
	newNamespace(t, "plugin-forward")
	d := newDeveloper(t, "plugin-forward", "detour-previews")
	newBaseline(t, "plugin-forward", "api")
	create(t, newService("plugin-forward", "web", intstr.FromString("http")))
	for _, target := range []string{"api", "web"} {
		newPreview(t, "plugin-forward", target+"-pr-42", target, "pr-42")
		waitForState(t, "plugin-forward", "deployment/"+target+"-pr-42", api.StateNotReady)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"pr-43"}, 3, `no preview in namespace plugin-forward has the key "pr-43"`},
		{[]string{"pr-42"}, 2, "choose the one to enter with --service api or --service web"},
		{[]string{"pr 42"}, 2, `"pr 42" cannot be a key`},
		{[]string{"pr-42", "--service", "api", "--port", "http"}, 2, `"http" is not a port number`},
		{[]string{"pr-42", "--service", "api", "--port", "0:81"}, 2, `Service api has no TCP port "81": --port LOCAL:REMOTE can have 80`},
		{[]string{"pr-42", "--service", "web"}, 5, "port 80 of Service web: no Pod behind it is ready; kubectl detour enable plugin-forward"},
		{[]string{"pr-43", "--service", "api"}, 1, "note: no preview in namespace plugin-forward has the key pr-43 yet"},
		{[]string{"pr-42", "--service", "api"}, 1, "through Pod api-1, port 15401: port-forward: "},
	} {
		d.detour(t, append([]string{"forward"}, c.args...)...).check(t, c.code, "", c.want)
	}
}

// TestPluginWait has previews of two services under one key, for a time, and waits for what becomes of them.
func TestPluginWait(t *testing.T) {
	newNamespace(t, "plugin-wait")
	d := newDeveloper(t, "plugin-wait", "detour-previews")
	newBaseline(t, "plugin-wait", "api")
	create(t, newService("plugin-wait", "web", intstr.FromString("http")))
	create(t, newDeployment("plugin-wait", "web", map[string]string{"app": "web"}))
	d.detour(t, "create", "api", "--key", "pr-42", "--commit", "3f2c1ab", "--ttl", "1h", "--wait=false").check(t, 0, "deployment.apps/api-pr-42 applied\n", "")
	d.detour(t, "create", "web", "--key", "pr-42", "--tag", "2", "--wait=false").check(t, 0, "deployment.apps/web-pr-42 applied\n", "")
	api42 := waitForImage(t, "plugin-wait", "api-pr-42", "app:3f2c1ab")
	if got := api42.Labels[api.LabelCommit] + " " + api42.Annotations[api.AnnotationTTL]; got != "3f2c1ab 1h" {
		t.Errorf("the commit and the time to live are %q", got)
	}
	isReady := func(address string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { makeReady(t, pod, address) }
	}
	rollOut(t, "plugin-wait", "api-pr-42", isReady("198.18.129.41"))
	waiting := d.begin(t, "wait", "pr-42", "--for=ready")
	rollOut(t, "plugin-wait", "web-pr-42", isReady("198.18.129.42"))
	(<-waiting).check(t, 0, "", "deployment/web-pr-42: all Pods are up to date and ready")

	late := d.detour(t, "wait", "pr-42", "--timeout", "1s", "-o", "json") // Service web has no Pod
	late.check(t, 4, "{\n  \"state\": \"failure\",\n  \"description\": \"not routed within 1s: deployment/web-pr-42: ", "")
	d.detour(t, "wait", "pr-42", "--for=expired").check(t, 5, "", "deployment/web-pr-42 never expires")
	d.detour(t, "wait", "pr-42", "--for=gone").check(t, 2, "", "--for=gone: use routed, ready, expired or deleted")

	d.detour(t, "create", "api", "--key", "pr-43", "--tag", "2", "--ttl", "1s", "--wait=false").check(t, 0, "", "")
	d.detour(t, "wait", "pr-43", "--for=expired", "-o", "json").check(t, 0, `"description": "deployment/api-pr-43 has expired"`, "")
	d.detour(t, "wait", "pr-43").check(t, 5, "", "deployment/api-pr-43 has expired at ")

	deleting := d.begin(t, "wait", "pr-42", "--for=deleted")
	d.detour(t, "delete", "pr-42", "--wait=false").check(t, 0, "deployment/api-pr-42 deleted\ndeployment/web-pr-42 deleted\n", "")
	removePods(t, "plugin-wait", map[string]string{api.LabelKey: "pr-42"})
	(<-deleting).check(t, 0, "", "no preview in namespace plugin-wait has the key pr-42")
}
