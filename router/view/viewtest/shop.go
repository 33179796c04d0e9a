// Package viewtest makes namespaces for the tests of views and of what the router does with them: each test begins with
// a [Shop] in which all is well and spoils it in its own way. UIDs, ages and addresses are fixed, so that a test can
// name them.
//
// It is for tests only, and asserts nothing.
package viewtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
)

// Namespace is the objects of the namespace "shop", until [Guests] makes them another's. An object has the UID
// "<kind>-<name>" and is a second younger than the one that was added before it. What a method returns is the object itself, to be edited before the next is added.
type Namespace struct{ view.Objects }

// Now is when views are made, an hour after the first object.
var Now = time.Date(2026, 1, 2, 4, 4, 0, 0, time.UTC)

// Shop is a namespace in which all is well: Services api (a named port) and identity (a numeric one, switched), each
// with two injected Pods, and a preview of api.
func Shop() *Namespace {
	o := &Namespace{}
	o.AddService("api", map[string]string{"app": "api"}, ServicePort("http", 80, intstr.FromString("http")))
	o.AddService("identity", map[string]string{"app": "identity"}, ServicePort("http", 8080, intstr.FromString("detour-9090")))
	o.AddDeployment("api", map[string]string{"app": "api"}, nil)
	o.AddDeployment("identity", map[string]string{"app": "identity"}, nil)
	o.AddPod("api-a", "api-1", Injected("http:15401:8080"))
	o.AddPod("api-b", "api-1", Injected("http:15401:8080"))
	o.AddPod("identity-a", "identity-1", Injected("detour-9090:15401:9090"))
	o.AddPod("identity-b", "identity-1", Injected("detour-9090:15401:9090"))
	o.AddPreview("api-pr-42", "api", "pr-42")
	return o
}

// AddPreview adds a labelled Deployment with one ready Pod, "<name>-x", that is not injected.
func (o *Namespace) AddPreview(name, target, key string) {
	o.AddDeployment(name, map[string]string{"app": name}, map[string]string{api.LabelTarget: target, api.LabelKey: key})
	o.AddPod(name+"-x", name+"-1", ContainerPort("http", 8080))
}

// Guests are the objects of another namespace, in which each Deployment is a preview of a Service of the shop.
func Guests(namespace string, o *Namespace) view.Workloads {
	guests := o.Workloads
	for i := range guests.Deployments {
		d := &guests.Deployments[i]
		move(&d.ObjectMeta, namespace)
		d.Annotations[api.AnnotationTargetNamespace] = "shop"
	}
	for i := range guests.ReplicaSets {
		move(&guests.ReplicaSets[i].ObjectMeta, namespace)
	}
	for i := range guests.Pods {
		move(&guests.Pods[i].ObjectMeta, namespace)
	}
	return guests
}

// move keeps UIDs of different namespaces apart.
func move(m *metav1.ObjectMeta, namespace string) {
	m.Namespace, m.UID = namespace, types.UID(namespace+"-"+string(m.UID))
	for i := range m.OwnerReferences {
		m.OwnerReferences[i].UID = types.UID(namespace + "-" + string(m.OwnerReferences[i].UID))
	}
}

// AddService adds a Service with a cluster IP.
func (o *Namespace) AddService(name string, selector map[string]string, ports ...corev1.ServicePort) *corev1.Service {
	o.Services = append(o.Services, corev1.Service{
		ObjectMeta: o.meta("service", name, nil),
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.1.0.1", Selector: selector, Ports: ports},
	})
	return &o.Services[len(o.Services)-1]
}

// ServicePort is a TCP port of a Service.
func ServicePort(name string, port int32, target intstr.IntOrString) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Port: port, TargetPort: target, Protocol: corev1.ProtocolTCP}
}

// revision is the annotation by which a Deployment knows its newest ReplicaSet.
const revision = "deployment.kubernetes.io/revision"

// AddDeployment adds a Deployment and its ReplicaSet "<name>-1".
func (o *Namespace) AddDeployment(name string, podLabels, labels map[string]string) {
	d := appsv1.Deployment{ObjectMeta: o.meta("deployment", name, labels)}
	d.Spec.Template.Labels = podLabels
	d.Annotations = map[string]string{revision: "1"}
	o.Deployments = append(o.Deployments, d)
	o.AddReplicaSet(name+"-1", &d, podLabels)
}

// AddReplicaSet adds one that has a Pod's template labels, as the Deployment's controller gives them to it.
func (o *Namespace) AddReplicaSet(name string, owner *appsv1.Deployment, podLabels map[string]string) *appsv1.ReplicaSet {
	r := appsv1.ReplicaSet{ObjectMeta: o.meta("replicaset", name, podLabels)}
	if owner != nil {
		r.OwnerReferences = OwnedBy("Deployment", owner.Name, owner.UID)
		r.Annotations = map[string]string{revision: name[strings.LastIndex(name, "-")+1:]}
	}
	r.Spec.Template.Labels = podLabels
	r.Spec.Replicas, r.Status.Replicas = new(int32(2)), 2
	o.ReplicaSets = append(o.ReplicaSets, r)
	return &o.ReplicaSets[len(o.ReplicaSets)-1]
}

// AddStatefulSet adds one without Pods.
func (o *Namespace) AddStatefulSet(name string, labels map[string]string) *appsv1.StatefulSet {
	o.StatefulSets = append(o.StatefulSets, appsv1.StatefulSet{ObjectMeta: o.meta("statefulset", name, labels)})
	return &o.StatefulSets[len(o.StatefulSets)-1]
}

// AddPod adds a ready Pod of a ReplicaSet, or a bare one, with the address 10.0.0.<its place>.
func (o *Namespace) AddPod(name, replicaSet string, edits ...func(*corev1.Pod)) *corev1.Pod {
	p := corev1.Pod{
		ObjectMeta: o.meta("pod", name, nil),
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: fmt.Sprintf("10.0.0.%d", len(o.Pods)+1),
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	for i := range o.ReplicaSets {
		if r := &o.ReplicaSets[i]; r.Name == replicaSet {
			p.Labels = maps.Clone(r.Spec.Template.Labels)
			p.OwnerReferences = OwnedBy("ReplicaSet", r.Name, r.UID)
		}
	}
	for _, edit := range edits {
		edit(&p)
	}
	o.Pods = append(o.Pods, p)
	return &o.Pods[len(o.Pods)-1]
}

// meta gives each object a UID of its kind and name, and makes each a second younger than the one before.
func (o *Namespace) meta(kind, name string, labels map[string]string) metav1.ObjectMeta {
	age := len(o.Services) + len(o.Deployments) + len(o.ReplicaSets) + len(o.StatefulSets) + len(o.Pods)
	return metav1.ObjectMeta{
		Namespace: "shop", Name: name, UID: types.UID(kind + "-" + name), Labels: maps.Clone(labels),
		CreationTimestamp: metav1.NewTime(time.Date(2026, 1, 2, 3, 4, age, 0, time.UTC)),
	}
}

// OwnedBy names an object of apps/v1 as the controller.
func OwnedBy(kind, name string, uid types.UID) []metav1.OwnerReference {
	return []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: name, UID: uid, Controller: new(true)}}
}

// Injected makes a Pod as the webhook does: the proxy has the ports' names, the app's ports have others.
func Injected(ports string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		taken, err := api.ParsePorts(ports)
		if err != nil {
			panic(err)
		}
		proxy := corev1.Container{
			Name: api.ContainerProxy, RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
			Env: []corev1.EnvVar{{Name: api.EnvPorts, Value: ports}},
		}
		app := &p.Spec.Containers[0]
		for i, t := range taken {
			proxy.Ports = append(proxy.Ports, corev1.ContainerPort{Name: t.Name, ContainerPort: int32(t.Listen)})
			app.Ports = append(app.Ports, corev1.ContainerPort{Name: fmt.Sprintf("app-%d", i), ContainerPort: int32(t.App)})
		}
		p.Spec.InitContainers = []corev1.Container{proxy}
	}
}

// ContainerPort gives the app of a Pod a port.
func ContainerPort(name string, number int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		c := &p.Spec.Containers[0]
		c.Ports = append(c.Ports, corev1.ContainerPort{Name: name, ContainerPort: number})
	}
}

// Waiting makes a Pod that is not ready, for the reason that its container gives.
func Waiting(reason string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Conditions[0].Status = corev1.ConditionFalse
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}},
		}}
	}
}

// Pod is the Pod of that name; there must be one.
func (o *Namespace) Pod(name string) *corev1.Pod {
	i := slices.IndexFunc(o.Pods, func(p corev1.Pod) bool { return p.Name == name })
	return &o.Pods[i]
}

// ResolveSlices plays the EndpointSlice controller: one slice for each Pod and Service port.
func (o *Namespace) ResolveSlices() {
	o.EndpointSlices = nil
	for i := range o.Services {
		s := &o.Services[i]
		if len(s.Spec.Selector) == 0 {
			continue
		}
		for j := range o.Pods {
			if p := &o.Pods[j]; labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(p.Labels)) {
				o.EndpointSlices = append(o.EndpointSlices, slicesOf(s, p)...)
			}
		}
	}
}

func slicesOf(s *corev1.Service, p *corev1.Pod) []discoveryv1.EndpointSlice {
	var list []discoveryv1.EndpointSlice
	for _, port := range s.Spec.Ports {
		number, ok := port.TargetPort.IntVal, port.TargetPort.Type == intstr.Int
		for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
			for _, declared := range c.Ports {
				if !ok && declared.Name == port.TargetPort.StrVal {
					number, ok = declared.ContainerPort, true
				}
			}
		}
		if ok {
			list = append(list, discoveryv1.EndpointSlice{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: "shop", Name: s.Name + "-" + port.Name + "-" + p.Name,
					Labels: map[string]string{discoveryv1.LabelServiceName: s.Name},
				},
				Ports:     []discoveryv1.EndpointPort{{Name: &port.Name, Port: &number, Protocol: new(corev1.ProtocolTCP)}},
				Endpoints: []discoveryv1.Endpoint{{TargetRef: &corev1.ObjectReference{Kind: "Pod", UID: p.UID, Name: p.Name}}},
			})
		}
	}
	return list
}

// Acknowledged is the view of a namespace once every proxy has put its table in force.
func Acknowledged(o *Namespace) *view.View {
	o.ResolveSlices()
	return view.New("shop", o.Objects, Acks(view.New("shop", o.Objects, nil, Now)), Now)
}

// Acks are those of all proxies of a view.
func Acks(v *view.View) api.Acks {
	acks := api.Acks{}
	for pod, table := range v.Tables {
		acks[string(pod)] = api.PodAck{Ack: api.Ack{Version: table.Version, Knows: []string{api.KnowsMatches, api.KnowsShares, api.KnowsMirrors}}}
	}
	return acks
}

// States shows the previews: "deployment/api-pr-42 pr-42 routed 2/2", "pod/x pr-1 invalid Pollutes 0/0".
func States(v *view.View) []string {
	var lines []string
	for _, p := range v.Status.Previews {
		fields := []string{p.Preview, p.Key, string(p.State)}
		if p.Problem != nil {
			fields = append(fields, p.Problem.Reason)
		}
		for _, w := range p.Warnings {
			fields = append(fields, "("+w.Reason+")")
		}
		fields = append(fields, fmt.Sprintf("%d/%d", p.Routed, p.Of))
		lines = append(lines, strings.Join(fields, " "))
	}
	return lines
}
