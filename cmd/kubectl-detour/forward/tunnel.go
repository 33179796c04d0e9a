package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// Tunnel returns an Open of [Passage] that goes through the API server's port-forward to Pods of a namespace.
//
// Each connection has one to the API server for itself. Streams that share one have no flow control of their own, so a
// client that stops reading an answer would hold up all others.
func Tunnel(config *rest.Config, namespace string) func(context.Context, Entrance) (net.Conn, error) {
	return func(_ context.Context, e Entrance) (net.Conn, error) {
		dialer, err := podDialer(config, namespace, e.Pod)
		if err != nil {
			return nil, err
		}
		streams, protocol, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
		if err != nil {
			return nil, fmt.Errorf("port-forward: %w", err)
		}
		if protocol != portforward.PortForwardProtocolV1Name {
			_ = streams.Close()
			return nil, fmt.Errorf("port-forward: the API server speaks %q, not %q", protocol, portforward.PortForwardProtocolV1Name)
		}
		return open(streams, e)
	}
}

// podDialer speaks WebSocket to the API server, and SPDY where that is not understood, as kubectl does.
func podDialer(config *rest.Config, namespace, pod string) (httpstream.Dialer, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	url := client.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
	overWebSocket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(url, config)
	if err != nil {
		return nil, err
	}
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	plain := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, url)
	return portforward.NewFallbackDialerForStreaming(overWebSocket, plain, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	}), nil
}

// conn is a connection to a port of a Pod.
type conn struct {
	httpstream.Stream
	streams httpstream.Connection
	entrance
	told <-chan error // what the node says when it ends
}

// open makes the two streams of a connection (KEP-4006): one for its bytes, and one for the node to say what went wrong.
func open(streams httpstream.Connection, e Entrance) (_ net.Conn, err error) {
	defer func() {
		if err != nil {
			_ = streams.Close()
		}
	}()
	header := http.Header{}
	header.Set(corev1.PortHeader, strconv.Itoa(int(e.Port)))
	header.Set(corev1.PortForwardRequestIDHeader, "0")
	header.Set(corev1.StreamType, corev1.StreamTypeError)
	failure, err := streams.CreateStream(header)
	if err != nil {
		return nil, fmt.Errorf("port-forward: %w", err)
	}
	_ = failure.Close() // nothing is written to it
	header.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := streams.CreateStream(header)
	if err != nil {
		return nil, fmt.Errorf("port-forward: %w", err)
	}
	told := make(chan error, 1)
	go tell(failure, told)
	return &conn{Stream: data, streams: streams, entrance: entrance(e), told: told}, nil
}

// tell ends when the streams do.
func tell(failure io.Reader, told chan<- error) {
	defer close(told)
	if message, _ := io.ReadAll(failure); len(message) > 0 {
		told <- errors.New(string(message))
	}
}

// tellTimeout is how long the end of a connection waits for the node to say whether it is a failure. The node says both at
// once.
const tellTimeout = time.Second

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Stream.Read(p)
	if n > 0 || !errors.Is(err, io.EOF) {
		return n, err
	}
	select {
	case failure, there := <-c.told:
		if there {
			return 0, fmt.Errorf("port-forward: %w", failure)
		}
	case <-time.After(tellTimeout):
	}
	return 0, err
}

// CloseWrite says that nothing more will be written.
func (c *conn) CloseWrite() error { return c.Stream.Close() }

func (c *conn) Close() error {
	_ = c.Stream.Reset() // what nobody will read must not be waited for
	return c.streams.Close()
}

func (c *conn) LocalAddr() net.Addr  { return c.entrance }
func (c *conn) RemoteAddr() net.Addr { return c.entrance }

func (c *conn) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (c *conn) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (c *conn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// entrance is an [Entrance] as a [net.Addr].
type entrance Entrance

func (e entrance) Network() string { return "port-forward" }
func (e entrance) String() string  { return net.JoinHostPort(e.Pod, strconv.Itoa(int(e.Port))) }
