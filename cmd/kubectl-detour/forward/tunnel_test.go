package forward

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// apiServer plays the API server's port-forward to the Pod api-1 of the namespace shop, over SPDY: port 15401 leads to an
// app, and at any other nobody listens.
func apiServer(t *testing.T, app http.HandlerFunc) *rest.Config {
	t.Helper()
	pod := httptest.NewUnstartedServer(app)
	pod.Config.Protocols = protocols((*http.Protocols).SetHTTP1, (*http.Protocols).SetUnencryptedHTTP2)
	pod.Start()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/api/v1/namespaces/shop/pods/api-1/portforward" {
			http.Error(w, "not over WebSocket, and only to api-1", http.StatusForbidden)
			return
		}
		if _, err := httpstream.Handshake(r, w, []string{portforward.PortForwardProtocolV1Name}); err != nil {
			return
		}
		arrived := make(chan httpstream.Stream, 2)
		streams := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
			arrived <- s
			return nil
		})
		if streams == nil {
			return
		}
		defer streams.Close()
		relay(arrived, pod.Listener.Addr().String())
		<-streams.CloseChan()
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		pod.Close()
	})
	return &rest.Config{Host: server.URL}
}

// relay plays the kubelet.
func relay(arrived <-chan httpstream.Stream, app string) {
	failure, data := <-arrived, <-arrived
	if failure.Headers().Get(corev1.StreamType) != corev1.StreamTypeError {
		panic("the first stream is to be for errors")
	}
	defer data.Close()
	defer failure.Close()
	if port := data.Headers().Get(corev1.PortHeader); port != "15401" {
		_, _ = fmt.Fprintf(failure, "nothing listens at port %s", port)
		return
	}
	conn, err := net.Dial("tcp", app)
	if err != nil {
		_, _ = fmt.Fprint(failure, err)
		return
	}
	defer conn.Close()
	go func() {
		_, _ = io.Copy(conn, data)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(data, conn)
}

func passageTo(config *rest.Config, e Entrance) *Passage {
	return &Passage{
		Entrances: func(context.Context) ([]Entrance, error) { return []Entrance{e}, nil },
		Open:      Tunnel(config, "shop"),
		Changed:   func(Entrance) {},
	}
}

func TestTunnel(t *testing.T) {
	config := apiServer(t, echo)
	p := passageTo(config, Entrance{"api-1", 15401})
	address, _ := serve(t, Config{Key: "pr-42", Dial: p.Dial})
	large := strings.Repeat("x", 1<<20)
	for name, speak := range map[string]func(*http.Protocols, bool){
		"HTTP/1.1": (*http.Protocols).SetHTTP1, "gRPC": (*http.Protocols).SetUnencryptedHTTP2,
	} {
		header := http.Header{"Content-Type": {"application/grpc"}}
		answer, body := send(t, client(t, speak), "PUT", "http://"+address+"/large", large, header)
		if answer.StatusCode != http.StatusOK || !strings.Contains(body, large) || !strings.Contains(body, `"Key":"pr-42"`) {
			t.Errorf("%s: %s: %.100q", name, answer.Status, body)
		}
	}
}

// TestTunnelTells has the node and the API server refuse.
func TestTunnelTells(t *testing.T) {
	config := apiServer(t, echo)
	for _, c := range []struct {
		entrance Entrance
		want     string
	}{
		{Entrance{"api-1", 1}, "nothing listens at port 1"},
		{Entrance{"api-2", 15401}, "Pod api-2, port 15401: port-forward: "},
	} {
		address, _ := serve(t, Config{Key: "pr-42", Dial: passageTo(config, c.entrance).Dial})
		answer, body := send(t, client(t, (*http.Protocols).SetHTTP1), "GET", "http://"+address, "", nil)
		if answer.StatusCode != http.StatusBadGateway || !strings.Contains(body, c.want) {
			t.Errorf("%s: %q, want 502 with %q", answer.Status, body, c.want)
		}
	}
}
