package plugin

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/cmd/kubectl-detour/forward"
)

// coveredPod is ready, and its proxy has ports.
func coveredPod(name string, ports ...corev1.ContainerPort) corev1.Pod {
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	pod.Spec.Containers = []corev1.Container{{Name: "app", Ports: []corev1.ContainerPort{{Name: "app-8080", ContainerPort: 8080}}}}
	pod.Spec.InitContainers = []corev1.Container{{Name: api.ContainerProxy, Ports: ports}}
	return pod
}

func TestEntrances(t *testing.T) {
	http := corev1.ContainerPort{Name: "http", ContainerPort: 15401}
	numbered := corev1.ContainerPort{Name: "detour-8080", ContainerPort: 15402}
	away, uncovered := coveredPod("away", http), coveredPod("uncovered")
	away.Status.Conditions[0].Status = corev1.ConditionFalse
	ending := coveredPod("ending", http)
	ending.DeletionTimestamp = &metav1.Time{}
	for name, c := range map[string]struct {
		port intstr.IntOrString
		pods []corev1.Pod
		want []forward.Entrance
		err  error
	}{
		"named":        {intstr.FromString("http"), []corev1.Pod{coveredPod("a", http), coveredPod("b", http)}, []forward.Entrance{{Pod: "a", Port: 15401}, {Pod: "b", Port: 15401}}, nil},
		"number":       {intstr.FromInt32(8080), []corev1.Pod{coveredPod("a", http, numbered)}, []forward.Entrance{{Pod: "a", Port: 15402}}, nil},
		"switched":     {intstr.FromString("detour-8080"), []corev1.Pod{coveredPod("a", numbered)}, []forward.Entrance{{Pod: "a", Port: 15402}}, nil},
		"no target":    {intstr.IntOrString{}, []corev1.Pod{coveredPod("a", corev1.ContainerPort{Name: "detour-80", ContainerPort: 15403})}, []forward.Entrance{{Pod: "a", Port: 15403}}, nil},
		"some are not": {intstr.FromString("http"), []corev1.Pod{away, ending, uncovered, coveredPod("a", http)}, []forward.Entrance{{Pod: "a", Port: 15401}}, nil},
		"none ready":   {intstr.FromString("http"), []corev1.Pod{away, ending}, nil, errNoneReady},
		"none covered": {intstr.FromString("http"), []corev1.Pod{uncovered, away}, nil, errNoneCovered},
		"port left":    {intstr.FromString("app-8080"), []corev1.Pod{coveredPod("a", http)}, nil, errNoneCovered},
		"no Pods":      {intstr.FromString("http"), nil, nil, errNoneReady},
	} {
		got, err := entrancesOf(corev1.ServicePort{Port: 80, TargetPort: c.port}, c.pods)
		if diff := cmp.Diff(c.want, got); diff != "" || !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v; -want +got\n%s", name, err, c.err, diff)
		}
	}
}

func TestParseForward(t *testing.T) {
	for port, want := range map[string][3]string{
		"0":         {"0", ""},
		"8080":      {"8080", ""},
		"8080:http": {"8080", "http"},
		":80":       {"0", "80"},
		"http":      {"", "", `--port "http": "http" is not a port number (0 to 65535); use the form LOCAL[:REMOTE]`},
		"65536":     {"", "", `--port "65536": "65536" is not a port number (0 to 65535); use the form LOCAL[:REMOTE]`},
	} {
		local, remote, err := parseForward(port)
		message := ""
		if err != nil {
			message = err.Error()
		}
		if got := [3]string{local, remote, message}; got != want {
			t.Errorf("%q: %q, want %q", port, got, want)
		}
	}
}

func TestPortNamed(t *testing.T) {
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "api"}}
	service.Spec.Ports = []corev1.ServicePort{
		{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}, {Name: "http", Port: 80}, {Name: "grpc", Port: 9090},
	}
	for remote, want := range map[string]int32{"": 80, "80": 80, "grpc": 9090, "9090": 9090, "53": 0, "dns": 0} {
		port, err := portNamed(service, remote)
		if port.Port != want || (err == nil) != (want != 0) {
			t.Errorf("%q: port %d, want %d: %v", remote, port.Port, want, err)
		}
	}
}

func TestTargets(t *testing.T) {
	b := &board{Status: api.Status{Previews: []api.PreviewStatus{
		{Target: "web", Key: "pr-1"}, {Target: "api", Key: "pr-1"}, {Target: "api", Key: "pr-1"}, {Target: "db", Key: "pr-2"},
	}}}
	if diff := cmp.Diff([]string{"api", "web"}, b.targets("pr-1")); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
