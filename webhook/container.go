package webhook

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/detour-dev/detour/api"
)

// proxyUser is the image's non-root user; it is set here as well, so that the Pod says that it is not root even if the
// image is replaced.
const proxyUser = 65532

// proxyContainer builds the sidecar. It sets what the API server would default, so that the Pod is the same before
// and after.
func proxyContainer(pod *corev1.Pod, plan portPlan, with sidecar) corev1.Container {
	return corev1.Container{
		Name:            api.ContainerProxy,
		Image:           with.image,
		ImagePullPolicy: corev1.PullIfNotPresent,
		RestartPolicy:   ptr.To(corev1.ContainerRestartPolicyAlways), // a native sidecar (KEP-753)
		Env:             proxyEnv(pod, plan, with),
		Ports:           proxyPorts(plan),
		Resources:       proxyResources(pod),
		VolumeMounts:    []corev1.VolumeMount{{Name: api.VolumeProxy, MountPath: api.ProxyDir, ReadOnly: true}},

		// The app starts once this one has succeeded: hence every second. A minute leaves room for a slow node.
		StartupProbe: probe(plan.admin, "/readyz", timing{period: 1, timeout: 1, failures: 60}),
		// The Pod is ready only while this one succeeds, so a busy node gets three tries.
		ReadinessProbe: probe(plan.admin, "/readyz", timing{period: 5, timeout: 3, failures: 3}),
		// A restart cuts connections: only for a proxy that has been dead for a minute.
		LivenessProbe: probe(plan.admin, "/healthz", timing{period: 10, timeout: 5, failures: 6}),

		// It runs when the Pod begins to end, at the same time as the app's; the proxy is told to end only after the app has
		// ended (KEP-753). The image has no shell, and the admin port takes this order from the Pod itself only.
		Lifecycle: &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{
			Exec: &corev1.ExecAction{Command: []string{api.ProxyProgram, api.ProxyDrain}},
		}},

		TerminationMessagePath:   corev1.TerminationMessagePathDefault,
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext:          restricted(),
	}
}

func proxyEnv(pod *corev1.Pod, plan portPlan, with sidecar) []corev1.EnvVar {
	var env []corev1.EnvVar
	known := api.Sidecar{
		Ports:         plan.taken,
		AdminPort:     plan.admin,
		Router:        with.router,
		ClientAddress: api.ClientAddress(pod.Annotations[api.AnnotationClientAddress]), // inject has checked it
		Grace:         time.Duration(ptr.Deref(pod.Spec.TerminationGracePeriodSeconds, corev1.DefaultTerminationGracePeriodSeconds)) * time.Second,
	}
	for _, e := range known.Env() {
		env = append(env, corev1.EnvVar{Name: e[0], Value: e[1]})
	}
	return append(env,
		downward(api.EnvNamespace, "metadata.namespace"),
		downward(api.EnvPod, "metadata.name"),
		downward(api.EnvPodIPs, "status.podIPs"))
}

func downward(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path},
	}}
}

func proxyPorts(plan portPlan) []corev1.ContainerPort {
	var ports []corev1.ContainerPort
	add := func(name string, number uint16) {
		ports = append(ports, corev1.ContainerPort{
			Name: name, ContainerPort: int32(number), Protocol: corev1.ProtocolTCP,
		})
	}
	for _, p := range plan.taken {
		add(p.Name, p.Listen)
	}
	add(api.PortMetrics, plan.admin)
	return ports
}

// proxyResources has requests, because an HPA on utilisation fails for Pods with a container that has none, and no
// CPU limit, because throttling would slow down requests. A Pod with resources of its own as a whole (KEP-2837)
// shares them with the proxy: the sum of its containers' requests may not exceed them. A Pod of the class Guaranteed
// stays one: its proxy gets a CPU limit as well, of some thousands of requests a second.
func proxyResources(pod *corev1.Pod) corev1.ResourceRequirements {
	if pod.Spec.Resources != nil {
		return corev1.ResourceRequirements{}
	}
	if isGuaranteed(pod) {
		all := corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("200m"),
			corev1.ResourceMemory: resource.MustParse("128Mi"),
		}
		return corev1.ResourceRequirements{Requests: all, Limits: all}
	}
	return ordinaryResources()
}

// ordinaryResources are those of most proxies.
func ordinaryResources() corev1.ResourceRequirements {
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("10m"),
			corev1.ResourceMemory: resource.MustParse("32Mi"),
		},
		Limits: corev1.ResourceList{
			corev1.ResourceMemory: resource.MustParse("128Mi"),
		},
	}
}

// isGuaranteed reports whether each container of a Pod has limits of CPU and memory, and requests as much.
// (https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/#guaranteed)
func isGuaranteed(pod *corev1.Pod) bool {
	return !slices.ContainsFunc(slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers), func(c corev1.Container) bool {
		return !limitsAll(c.Resources, corev1.ResourceCPU) || !limitsAll(c.Resources, corev1.ResourceMemory)
	})
}

// limitsAll reports whether a resource is limited to just what is requested. Admission sees requests that were left out as
// the API server defaults them: to the limits.
func limitsAll(r corev1.ResourceRequirements, name corev1.ResourceName) bool {
	limit := r.Limits[name]
	return limit.Sign() > 0 && limit.Cmp(r.Requests[name]) == 0
}

// proxyAsks says in words what [ordinaryResources] has.
func proxyAsks() string {
	r := ordinaryResources()
	return fmt.Sprintf("it requests %s of CPU and %s of memory, and has a limit of %s of memory and none of CPU",
		r.Requests.Cpu(), r.Requests.Memory(), r.Limits.Memory())
}

// timing is in seconds.
type timing struct {
	period, timeout, failures int32
}

func probe(port uint16, path string, t timing) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Path: path, Port: intstr.FromInt32(int32(port)), Scheme: corev1.URISchemeHTTP,
		}},
		PeriodSeconds:    t.period,
		TimeoutSeconds:   t.timeout,
		SuccessThreshold: 1,
		FailureThreshold: t.failures,
	}
}

// restricted passes the strictest of the Pod Security Standards.
func restricted() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		RunAsNonRoot:             ptr.To(true),
		RunAsUser:                ptr.To(int64(proxyUser)),
		RunAsGroup:               ptr.To(int64(proxyUser)),
		AllowPrivilegeEscalation: ptr.To(false),
		ReadOnlyRootFilesystem:   ptr.To(true),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// proxyVolume holds the proxy's token and the CA of the router. The CA is optional, so that its absence never holds up
// a Pod.
func proxyVolume() corev1.Volume {
	token := corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
		Audience:          api.Audience,
		ExpirationSeconds: ptr.To(int64(3600)),
		Path:              "token", // api.TokenFile
	}}
	ca := corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{
		LocalObjectReference: corev1.LocalObjectReference{Name: api.ConfigMapCA},
		Items:                []corev1.KeyToPath{{Key: api.ConfigMapCAKey, Path: "ca.crt"}}, // api.CAFile
		Optional:             ptr.To(true),
	}}
	return corev1.Volume{
		Name: api.VolumeProxy,
		VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources:     []corev1.VolumeProjection{token, ca},
			DefaultMode: ptr.To(corev1.ProjectedVolumeSourceDefaultMode),
		}},
	}
}
