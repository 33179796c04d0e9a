package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/cmd/kubectl-detour/forward"
)

// forwarding serves a local port whose requests carry a key into a Service.
type forwarding struct {
	key     string
	service string // "" is the key's only target
	port    string // LOCAL[:REMOTE]
	address string
}

const forwardLong = `Serve a local port whose requests carry a key into a Service, until it is interrupted. The port's URL is printed once it
works.

Requests go through the API server to a ready Pod behind the Service, and to another one when that Pod goes away. They
carry the key whatever they carried before. HTTP/1.1, HTTP/2 with prior knowledge, gRPC and WebSocket are understood.`

const forwardExample = `  # The preview itself
  %[1]s forward pr-42

  # The whole application with the preview inside, at http://127.0.0.1:8080/
  %[1]s forward pr-42 --service frontend --port 8080`

func (p *plugin) forwardCommand() *cobra.Command {
	f := &forwarding{}
	cmd := &cobra.Command{
		Use:               "forward KEY",
		Short:             "Serve a local port whose requests carry a key into a service",
		Long:              forwardLong,
		Example:           fmt.Sprintf(forwardExample, p.name),
		Args:              exactly("KEY"),
		ValidArgsFunction: p.completing(keys),
		RunE: p.verb(func(ctx context.Context, s *session, args []string) error {
			f.key = args[0]
			return f.run(ctx, s)
		}),
	}
	cmd.Flags().StringVar(&f.service, "service", "", "the Service to enter; needed where the key has previews of several, or to enter elsewhere")
	cmd.Flags().StringVar(&f.port, "port", "0", "LOCAL[:REMOTE]: the local port, 0 for a free one, and the Service's port by number or name, else its first")
	cmd.Flags().StringVar(&f.address, "address", "127.0.0.1", "the local address; whoever reaches it reaches the Service")
	return cmd
}

func (f *forwarding) run(ctx context.Context, s *session) error {
	if !api.ValidKey(f.key) {
		return usageError("%q cannot be a key: use 1 to 63 characters of [A-Za-z0-9._-], the first and the last a letter or a digit", f.key)
	}
	local, remote, err := parseForward(f.port)
	if err != nil {
		return err
	}
	port, err := f.enter(ctx, s, remote)
	if err != nil {
		return err
	}
	passage := &forward.Passage{
		Entrances: func(ctx context.Context) ([]forward.Entrance, error) { return s.entrances(ctx, f.service, port.Port) },
		Open:      forward.Tunnel(s.config, s.namespace),
		Changed: func(e forward.Entrance) {
			s.note("requests with the key %s enter Service %s through Pod %s", f.key, f.service, e.Pod)
		},
	}
	if err := s.try(ctx, passage); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(f.address, local))
	if err != nil {
		return fmt.Errorf("listening on port %s: %w", local, err)
	}
	fmt.Fprintf(s.Out, "http://%s/\n", listener.Addr())
	return forward.Serve(ctx, listener, forward.Config{Key: f.key, Dial: passage.Dial, H2C: speaksH2C(port)})
}

// parseForward takes LOCAL[:REMOTE] apart.
func parseForward(port string) (local, remote string, err error) {
	local, remote, _ = strings.Cut(port, ":")
	if local == "" {
		local = "0"
	}
	if _, err := strconv.ParseUint(local, 10, 16); err != nil {
		return "", "", usageError("--port %q: %q is not a port number (0 to 65535); use the form LOCAL[:REMOTE]", port, local)
	}
	return local, remote, nil
}

// enter settles which Service is entered, and at which of its ports.
func (f *forwarding) enter(ctx context.Context, s *session, remote string) (corev1.ServicePort, error) {
	b, err := s.readBoard(ctx)
	if err != nil {
		return corev1.ServicePort{}, err
	}
	if b == nil {
		return corev1.ServicePort{}, s.notTakingPart()
	}
	switch {
	case f.service == "":
		if f.service, err = s.onlyTarget(b, f.key); err != nil {
			return corev1.ServicePort{}, err
		}
	case len(b.targets(f.key)) == 0:
		s.note("note: no preview in namespace %s has the key %s yet", s.namespace, f.key)
	}
	service, _, err := s.service(ctx, f.service)
	if err != nil {
		return corev1.ServicePort{}, err
	}
	return portNamed(service, remote)
}

// onlyTarget is the Service to enter with a key where nobody has named one.
func (s *session) onlyTarget(b *board, key string) (string, error) {
	switch targets := b.targets(key); len(targets) {
	case 0:
		return "", s.noPreview(key)
	case 1:
		return targets[0], nil
	default:
		return "", usageError("the key %s has previews of several Services: choose the one to enter with --service %s",
			key, strings.Join(targets, " or --service "))
	}
}

// targets are the Services that have a preview with a key.
func (b *board) targets(key string) []string {
	var targets []string
	for _, preview := range b.previews(key) {
		targets = append(targets, preview.Target)
	}
	slices.Sort(targets)
	return slices.Compact(targets)
}

// portNamed is a TCP port of a Service by its number or name; the first for "".
func portNamed(service *corev1.Service, remote string) (corev1.ServicePort, error) {
	var has []string
	for _, port := range tcpPorts(service) {
		number := strconv.Itoa(int(port.Port))
		if remote == "" || remote == number || remote == port.Name {
			return port, nil
		}
		has = append(has, strings.TrimSuffix(number+" "+port.Name, " "))
	}
	return corev1.ServicePort{}, usageError("Service %s has no TCP port %q: --port LOCAL:REMOTE can have %s", service.Name, remote, strings.Join(has, ", "))
}

// speaksH2C reports whether a port's appProtocol says that nothing but HTTP/2 with prior knowledge is spoken there.
func speaksH2C(port corev1.ServicePort) bool {
	if port.AppProtocol == nil {
		return false
	}
	return slices.Contains([]string{"kubernetes.io/h2c", "h2c", "http2", "grpc"}, strings.ToLower(*port.AppProtocol))
}

// try makes sure that there is a way before anybody is told that there is.
func (s *session) try(ctx context.Context, passage *forward.Passage) error {
	conn, err := passage.Dial(ctx)
	if err != nil && strings.Contains(err.Error(), "is forbidden") { // port-forward leaves only the text of the error
		return fmt.Errorf("%w\nthe role detour-previews of manifests/roles has the rights that it takes", err)
	}
	if err != nil {
		return err
	}
	return conn.Close()
}

// entrances are the proxies of the ready Pods that a Service selects now.
func (s *session) entrances(ctx context.Context, name string, number int32) ([]forward.Entrance, error) {
	services, err := s.kube.CoreV1().Services(s.namespace).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return nil, fmt.Errorf("looking for Service %s: %w", name, err)
	}
	if len(services.Items) == 0 {
		return nil, notFound("Service %s of namespace %s is gone", name, s.namespace)
	}
	service := &services.Items[0]
	i := slices.IndexFunc(tcpPorts(service), func(port corev1.ServicePort) bool { return port.Port == number })
	if i < 0 {
		return nil, notFound("Service %s of namespace %s has no TCP port %d any more", name, s.namespace, number)
	}
	selector := labels.SelectorFromSet(service.Spec.Selector).String()
	pods, err := s.kube.CoreV1().Pods(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("listing the Pods behind Service %s: %w", name, err)
	}
	found, err := entrancesOf(tcpPorts(service)[i], pods.Items)
	if err != nil {
		return nil, fail(exitUnroutable, "port %d of Service %s: %w; %s enable %s says what is covered and what is not", number, name, err, s.self, s.namespace)
	}
	return found, nil
}

var (
	errNoneReady   = errors.New("no Pod behind it is ready")
	errNoneCovered = errors.New("no ready Pod behind it has a proxy there, which would look for the key")
)

// entrancesOf are the proxy's ports on the ready ones of a Service's Pods. Anywhere else nobody would look for the key.
func entrancesOf(port corev1.ServicePort, pods []corev1.Pod) ([]forward.Entrance, error) {
	var found []forward.Entrance
	err := errNoneReady
	for i := range pods {
		if !isReady(&pods[i]) {
			continue
		}
		err = errNoneCovered
		if number := proxyPort(port, &pods[i]); number != 0 {
			found = append(found, forward.Entrance{Pod: pods[i].Name, Port: number})
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	return nil, err
}

// proxyPort is where a Pod's proxy takes what a Service's port leads to, whether the Service says so yet or not; 0 if it
// does not.
func proxyPort(port corev1.ServicePort, pod *corev1.Pod) uint16 {
	name := proxyPortName(port)
	for _, c := range pod.Spec.InitContainers {
		for _, p := range c.Ports {
			if c.Name == api.ContainerProxy && p.Name == name {
				return uint16(p.ContainerPort)
			}
		}
	}
	return 0
}

func proxyPortName(port corev1.ServicePort) string {
	target := port.TargetPort
	switch {
	case target.Type == intstr.String:
		return target.StrVal
	case target.IntVal == 0:
		return api.PortName(uint16(port.Port))
	}
	return api.PortName(uint16(target.IntVal))
}
