package router

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/detour-dev/detour/api"
)

// shop is a namespace in which all is well: Services api (a named port) and identity (a numeric one, switched), each
// with two injected Pods, and a preview of api.
func shop() *objects {
	o := &objects{}
	o.addService("api", map[string]string{"app": "api"}, servicePort("http", 80, intstr.FromString("http")))
	o.addService("identity", map[string]string{"app": "identity"}, servicePort("http", 8080, intstr.FromString("detour-9090")))
	o.addDeployment("api", map[string]string{"app": "api"}, nil)
	o.addDeployment("identity", map[string]string{"app": "identity"}, nil)
	o.addPod("api-a", "api-1", injected("http:15401:8080"))
	o.addPod("api-b", "api-1", injected("http:15401:8080"))
	o.addPod("identity-a", "identity-1", injected("detour-9090:15401:9090"))
	o.addPod("identity-b", "identity-1", injected("detour-9090:15401:9090"))
	o.addPreview("api-pr-42", "api", "pr-42")
	return o
}

// addPreview adds a labelled Deployment with one ready Pod, "<name>-x", that is not injected.
func (o *objects) addPreview(name, target, key string) {
	o.addDeployment(name, map[string]string{"app": name}, map[string]string{api.LabelTarget: target, api.LabelKey: key})
	o.addPod(name+"-x", name+"-1", containerPort("http", 8080))
}

func (o *objects) addService(name string, selector map[string]string, ports ...corev1.ServicePort) *corev1.Service {
	o.services = append(o.services, corev1.Service{
		ObjectMeta: o.meta("service", name, nil),
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.1.0.1", Selector: selector, Ports: ports},
	})
	return &o.services[len(o.services)-1]
}

func servicePort(name string, port int32, target intstr.IntOrString) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Port: port, TargetPort: target, Protocol: corev1.ProtocolTCP}
}

// addDeployment adds a Deployment and its ReplicaSet "<name>-1".
func (o *objects) addDeployment(name string, podLabels, labels map[string]string) {
	d := appsv1.Deployment{ObjectMeta: o.meta("deployment", name, labels)}
	d.Spec.Template.Labels = podLabels
	d.Annotations = map[string]string{revision: "1"}
	o.deployments = append(o.deployments, d)
	o.addReplicaSet(name+"-1", &d, podLabels)
}

// addReplicaSet adds one that has a Pod's template labels, as the Deployment's controller gives them to it.
func (o *objects) addReplicaSet(name string, owner *appsv1.Deployment, podLabels map[string]string) *appsv1.ReplicaSet {
	r := appsv1.ReplicaSet{ObjectMeta: o.meta("replicaset", name, podLabels)}
	if owner != nil {
		r.OwnerReferences = ownedBy("Deployment", owner.Name, owner.UID)
		r.Annotations = map[string]string{revision: name[strings.LastIndex(name, "-")+1:]}
	}
	r.Spec.Template.Labels = podLabels
	r.Spec.Replicas, r.Status.Replicas = new(int32(2)), 2
	o.replicaSets = append(o.replicaSets, r)
	return &o.replicaSets[len(o.replicaSets)-1]
}

// addPod adds a ready Pod of a ReplicaSet, or a bare one, with the address 10.0.0.<its place>.
func (o *objects) addPod(name, replicaSet string, edits ...func(*corev1.Pod)) *corev1.Pod {
	p := corev1.Pod{
		ObjectMeta: o.meta("pod", name, nil),
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: fmt.Sprintf("10.0.0.%d", len(o.pods)+1),
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	for i := range o.replicaSets {
		if r := &o.replicaSets[i]; r.Name == replicaSet {
			p.Labels = maps.Clone(r.Spec.Template.Labels)
			p.OwnerReferences = ownedBy("ReplicaSet", r.Name, r.UID)
		}
	}
	for _, edit := range edits {
		edit(&p)
	}
	o.pods = append(o.pods, p)
	return &o.pods[len(o.pods)-1]
}

// meta gives each object a UID of its kind and name, and makes each a second younger than the one before.
func (o *objects) meta(kind, name string, labels map[string]string) metav1.ObjectMeta {
	age := len(o.services) + len(o.deployments) + len(o.replicaSets) + len(o.statefulSets) + len(o.pods)
	return metav1.ObjectMeta{
		Namespace: "shop", Name: name, UID: types.UID(kind + "-" + name), Labels: maps.Clone(labels),
		CreationTimestamp: metav1.NewTime(time.Date(2026, 1, 2, 3, 4, age, 0, time.UTC)),
	}
}

func ownedBy(kind, name string, uid types.UID) []metav1.OwnerReference {
	return []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: name, UID: uid, Controller: new(true)}}
}

// injected makes a Pod as the webhook does: the proxy has the ports' names, the app's ports have others.
func injected(ports string) func(*corev1.Pod) {
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

func containerPort(name string, number int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		c := &p.Spec.Containers[0]
		c.Ports = append(c.Ports, corev1.ContainerPort{Name: name, ContainerPort: number})
	}
}

func labelled(labels map[string]string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Labels = labels }
}

func waiting(reason string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Conditions[0].Status = corev1.ConditionFalse
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}},
		}}
	}
}

func (o *objects) pod(name string) *corev1.Pod {
	i := slices.IndexFunc(o.pods, func(p corev1.Pod) bool { return p.Name == name })
	return &o.pods[i]
}

func (o *objects) service(name string) *corev1.Service {
	i := slices.IndexFunc(o.services, func(s corev1.Service) bool { return s.Name == name })
	return &o.services[i]
}

func (o *objects) deployment(name string) *appsv1.Deployment {
	i := slices.IndexFunc(o.deployments, func(d appsv1.Deployment) bool { return d.Name == name })
	return &o.deployments[i]
}

func (o *objects) replicaSet(name string) *appsv1.ReplicaSet {
	i := slices.IndexFunc(o.replicaSets, func(r appsv1.ReplicaSet) bool { return r.Name == name })
	return &o.replicaSets[i]
}

// resolveSlices plays the EndpointSlice controller: one slice for each Pod and Service port.
func (o *objects) resolveSlices() {
	o.slices = nil
	for i := range o.services {
		s := &o.services[i]
		for j := range o.pods {
			if p := &o.pods[j]; selects(s, p.Labels) {
				o.slices = append(o.slices, slicesOf(s, p)...)
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

// acknowledged is the view once every proxy has put its table in force.
func acknowledged(o *objects) *view {
	o.resolveSlices()
	return newView("shop", *o, ackAll(newView("shop", *o, nil)))
}

func ackAll(v *view) api.Acks {
	acks := api.Acks{}
	for pod, table := range v.tables {
		acks[string(pod)] = api.PodAck{Ack: api.Ack{Version: table.Version}}
	}
	return acks
}

// routesOf shows the routes of one Pod: "8080 pr-42 deployment/api-pr-42 10.0.0.5:8080".
func routesOf(v *view, pod string) []string {
	var lines []string
	table := v.tables[types.UID("pod-"+pod)]
	if table == nil {
		return []string{"no table"}
	}
	for _, port := range table.Ports {
		if len(port.Routes) == 0 {
			lines = append(lines, fmt.Sprintf("%d %s", port.Port, port.Protocol))
		}
		for _, r := range port.Routes {
			fields := []string{fmt.Sprint(port.Port), r.Key, r.Preview}
			if port.Protocol != "" {
				fields[0] += "/" + string(port.Protocol)
			}
			if r.Fallback {
				fields = append(fields, "fallback")
			}
			for _, e := range r.Endpoints {
				fields = append(fields, e.Address.String())
			}
			lines = append(lines, strings.Join(fields, " "))
		}
	}
	return lines
}

// statesOf shows the previews: "deployment/api-pr-42 pr-42 routed 2/2", "pod/x pr-1 invalid Pollutes 0/0".
func statesOf(v *view) []string {
	var lines []string
	for _, p := range v.status.Previews {
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

func sameAddress(a, b netip.AddrPort) bool { return a == b }
