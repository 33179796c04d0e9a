package conformance

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	gorilla "github.com/gorilla/websocket"

	"github.com/detour-dev/detour/api"
)

// floods is how many messages go each way at the same time.
const floods = 200

// TestWebSocket has every client converse with every server through the proxy, with and without a key, compressed and
// not: text, binary, large and fragmented messages, pings both ways, traffic both ways at once, and closing by either.
func TestWebSocket(t *testing.T) {
	servers := map[string]func(*testing.T, net.Listener, string) <-chan string{
		"gorilla": wsServer(acceptGorilla), "coder": wsServer(acceptCoder), "node": nodeServer,
	}
	clients := map[string]func(*testing.T, wsCall){
		"gorilla": wsClient(dialGorilla), "coder": wsClient(dialCoder), "node": nodeClient,
	}
	for server, serve := range servers {
		t.Run("to "+server, func(t *testing.T) {
			t.Parallel()
			app, preview := listenApp(t), listenPreview(t)
			s := startSidecar(t, app.Addr().String(), append(otherRoutes(3, 0), routeTo(preview.Addr().String()))...)
			closings := map[string]<-chan string{"app": serve(t, app, "app"), "preview": serve(t, preview, "preview")}
			for client, call := range clients {
				for _, c := range []wsCall{
					{s.addr, "app", "", false}, {s.addr, "app", "", true},
					{s.addr, "preview", key, false}, {s.addr, "preview", key, true},
				} {
					t.Run(fmt.Sprintf("from %s to %s deflate=%v", client, c.name, c.deflate), func(t *testing.T) {
						call(t, c)
						want := "4001 bye"
						if c.deflate {
							want = "4002 done"
						}
						if got := receive(t, closings[c.name], "the server sees the connection close"); got != want {
							t.Errorf("the server saw the connection close with %q, want %q", got, want)
						}
					})
				}
			}
		})
	}
}

// wsCall is one conversation. A compressed one is closed by the client, with 4002, another by the server, with 4001.
type wsCall struct {
	addr, name string // name is the server's that must answer
	key        string
	deflate    bool
}

func (c wsCall) header() http.Header {
	if c.key == "" {
		return nil
	}
	return http.Header{api.HeaderKey: {c.key}}
}

// wsConn is a connection of one of Go's libraries. read must go on while ping waits.
type wsConn interface {
	read() (wsMessage, error)
	write(wsMessage) error
	writePieces(pieces ...string) error // one text message in several frames
	ping() error
	close(code int, reason string) error
}

type wsMessage struct {
	text bool
	data string
}

// wsClosed is the error of reading from a connection that the peer has closed.
type wsClosed struct {
	code   int
	reason string
}

func (c wsClosed) Error() string { return fmt.Sprintf("%d %s", c.code, c.reason) }

// wsClient converses over what dial opens.
func wsClient(dial func(*testing.T, wsCall) (wsConn, *http.Response)) func(*testing.T, wsCall) {
	return func(t *testing.T, c wsCall) {
		conn, resp := dial(t, c)
		if got := resp.Header.Get("Sec-WebSocket-Extensions"); strings.Contains(got, "permessage-deflate") != c.deflate {
			t.Errorf("Sec-WebSocket-Extensions: %q, want permessage-deflate: %v", got, c.deflate)
		}
		var want []string
		if c.key != "" {
			want = []string{servedBy}
		}
		if diff := cmp.Diff(want, resp.Header.Values(api.HeaderServedBy)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", api.HeaderServedBy, diff)
		}
		if err := holdConversation(conn, c); err != nil {
			t.Error(err)
		}
	}
}

// holdConversation is the client's half.
func holdConversation(conn wsConn, c wsCall) error {
	received := make(chan wsMessage, 2*floods)
	ended := make(chan error, 1)
	go func() {
		for {
			m, err := conn.read()
			if err != nil {
				close(received)
				ended <- err
				return
			}
			received <- m
		}
	}()
	expect := func(want wsMessage) error {
		got, ok := <-received
		if !ok {
			return <-ended
		}
		if got != want {
			return fmt.Errorf("got %.60q (text: %v, %d bytes), want %.60q (text: %v, %d bytes)",
				got.data, got.text, len(got.data), want.data, want.text, len(want.data))
		}
		return nil
	}
	text := func(s string) wsMessage { return wsMessage{true, s} }

	if err := expect(text(c.name)); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 3 << 19} {
		for _, isText := range []bool{true, false} {
			m := wsMessage{isText, string(blob(size))}
			if err := errors.Join(conn.write(m), expect(m)); err != nil {
				return fmt.Errorf("%d bytes: %w", size, err)
			}
		}
	}
	long := strings.Repeat("and on ", 500)
	if err := errors.Join(conn.writePieces("in ", "many ", "pieces ", long), expect(text("in many pieces "+long))); err != nil {
		return fmt.Errorf("fragments: %w", err)
	}
	if err := conn.ping(); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	if err := errors.Join(conn.write(text("ping")), expect(text("ponged"))); err != nil {
		return fmt.Errorf("the server's ping: %w", err)
	}
	if err := flood(conn, received); err != nil {
		return fmt.Errorf("both ways at once: %w", err)
	}
	if c.deflate {
		return conn.close(4002, "done")
	}
	if err := conn.write(text("close")); err != nil {
		return err
	}
	if err := expect(wsMessage{}); err != (wsClosed{4001, "bye"}) {
		return fmt.Errorf("closing: %w, want 4001 bye", err)
	}
	return nil
}

// flood has the server push messages while it echoes others.
func flood(conn wsConn, received <-chan wsMessage) error {
	block := strings.Repeat("x", 16<<10)
	var pushes, echoes int
	sent := make(chan error, 1)
	go func() {
		err := conn.write(wsMessage{true, "flood"})
		for i := 0; i < floods && err == nil; i++ {
			err = conn.write(wsMessage{true, fmt.Sprintf("echo %d %s", i, block)})
		}
		sent <- err
	}()
	for pushes < floods || echoes < floods {
		m, ok := <-received
		switch {
		case !ok:
			return fmt.Errorf("the connection ended after %d pushes and %d echoes", pushes, echoes)
		case m.data == fmt.Sprintf("push %d", pushes):
			pushes++
		case m.data == fmt.Sprintf("echo %d %s", echoes, block):
			echoes++
		default:
			return fmt.Errorf("got %.60q after %d pushes and %d echoes", m.data, pushes, echoes)
		}
	}
	return <-sent
}

// wsServer serves conversations until the test ends, and tells how each was closed.
func wsServer(accept func(http.ResponseWriter, *http.Request) (wsConn, error)) func(*testing.T, net.Listener, string) <-chan string {
	return func(t *testing.T, l net.Listener, name string) <-chan string {
		closings := make(chan string, 100)
		httpServer(t, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if conn, err := accept(w, r); err != nil {
				closings <- err.Error()
			} else {
				closings <- serveConversation(conn, name).Error()
			}
		}))
		return closings
	}
}

// serveConversation is the server's half, which ends with an error always.
func serveConversation(conn wsConn, name string) error {
	var others sync.WaitGroup
	defer others.Wait()
	if err := conn.write(wsMessage{true, name}); err != nil {
		return err
	}
	for {
		m, err := conn.read()
		if err != nil {
			return err
		}
		switch m {
		case wsMessage{true, "ping"}:
			others.Go(func() {
				if conn.ping() == nil {
					conn.write(wsMessage{true, "ponged"})
				}
			})
		case wsMessage{true, "flood"}:
			others.Go(func() {
				for i := range floods {
					conn.write(wsMessage{true, fmt.Sprintf("push %d", i)})
				}
			})
		case wsMessage{true, "close"}:
			if err := conn.close(4001, "bye"); err != nil {
				return err
			}
			return wsClosed{4001, "bye"}
		default:
			if err := conn.write(m); err != nil {
				return err
			}
		}
	}
}

// gorillaConn is one of github.com/gorilla/websocket.
type gorillaConn struct {
	*gorilla.Conn
	server  bool
	writing sync.Mutex
	pongs   chan string
}

func newGorillaConn(c *gorilla.Conn) *gorillaConn {
	g := &gorillaConn{Conn: c, pongs: make(chan string, 1)}
	c.SetReadDeadline(time.Now().Add(time.Minute))
	c.SetPongHandler(func(data string) error {
		g.pongs <- data
		return nil
	})
	c.SetCloseHandler(func(code int, reason string) error { // the default leaves the reason out
		c.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(code, reason), time.Now().Add(10*time.Second))
		return nil
	})
	return g
}

func dialGorilla(t *testing.T, call wsCall) (wsConn, *http.Response) {
	dialer := gorilla.Dialer{EnableCompression: call.deflate, WriteBufferSize: 512, HandshakeTimeout: 10 * time.Second}
	conn, resp, err := dialer.Dial("ws://"+call.addr+"/", call.header())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return newGorillaConn(conn), resp
}

func acceptGorilla(w http.ResponseWriter, r *http.Request) (wsConn, error) {
	upgrader := gorilla.Upgrader{EnableCompression: true}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return nil, err
	}
	g := newGorillaConn(conn)
	g.server = true
	return g, nil
}

func (c *gorillaConn) read() (wsMessage, error) {
	kind, data, err := c.ReadMessage()
	var closed *gorilla.CloseError
	if errors.As(err, &closed) {
		c.Conn.Close()
		return wsMessage{}, wsClosed{closed.Code, closed.Text}
	}
	return wsMessage{kind == gorilla.TextMessage, string(data)}, err
}

func (c *gorillaConn) write(m wsMessage) error {
	kind := gorilla.BinaryMessage
	if m.text {
		kind = gorilla.TextMessage
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.WriteMessage(kind, []byte(m.data))
}

func (c *gorillaConn) writePieces(pieces ...string) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	w, err := c.NextWriter(gorilla.TextMessage) // which begins a new frame whenever its buffer is full
	if err != nil {
		return err
	}
	for _, piece := range pieces {
		if _, err := w.Write([]byte(piece)); err != nil {
			return err
		}
	}
	return w.Close()
}

func (c *gorillaConn) ping() error {
	if err := c.WriteControl(gorilla.PingMessage, []byte("are you there"), time.Now().Add(10*time.Second)); err != nil {
		return err
	}
	select {
	case got := <-c.pongs:
		if got != "are you there" {
			return fmt.Errorf("pong of %q", got)
		}
		return nil
	case <-time.After(10 * time.Second):
		return errors.New("no pong has come")
	}
}

func (c *gorillaConn) close(code int, reason string) error {
	message := gorilla.FormatCloseMessage(code, reason)
	if err := c.WriteControl(gorilla.CloseMessage, message, time.Now().Add(10*time.Second)); err != nil || !c.server {
		return err // the client's answer is awaited by read, which goes on
	}
	defer c.Conn.Close()
	var closed *gorilla.CloseError
	if _, _, err := c.ReadMessage(); !errors.As(err, &closed) || closed.Code != code {
		return fmt.Errorf("closing was answered with %w", err)
	}
	return nil
}

// coderConn is one of github.com/coder/websocket.
type coderConn struct {
	*coder.Conn
}

func newCoderConn(c *coder.Conn) *coderConn {
	c.SetReadLimit(-1)
	return &coderConn{c}
}

func dialCoder(t *testing.T, call wsCall) (wsConn, *http.Response) {
	options := &coder.DialOptions{HTTPHeader: call.header(), HTTPClient: httpClient(t, false)}
	if call.deflate {
		options.CompressionMode = coder.CompressionContextTakeover
	}
	conn, resp, err := coder.Dial(t.Context(), "ws://"+call.addr+"/", options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	return newCoderConn(conn), resp
}

func acceptCoder(w http.ResponseWriter, r *http.Request) (wsConn, error) {
	conn, err := coder.Accept(w, r, &coder.AcceptOptions{CompressionMode: coder.CompressionContextTakeover})
	if err != nil {
		return nil, err
	}
	return newCoderConn(conn), nil
}

func (c *coderConn) read() (wsMessage, error) {
	kind, data, err := c.Read(context.Background())
	var closed coder.CloseError
	if errors.As(err, &closed) {
		return wsMessage{}, wsClosed{int(closed.Code), closed.Reason}
	}
	return wsMessage{kind == coder.MessageText, string(data)}, err
}

func (c *coderConn) write(m wsMessage) error {
	kind := coder.MessageBinary
	if m.text {
		kind = coder.MessageText
	}
	return c.Write(context.Background(), kind, []byte(m.data))
}

func (c *coderConn) writePieces(pieces ...string) error {
	w, err := c.Writer(context.Background(), coder.MessageText) // which makes each write a frame
	if err != nil {
		return err
	}
	for _, piece := range pieces {
		if _, err := w.Write([]byte(piece)); err != nil {
			return err
		}
	}
	return w.Close()
}

func (c *coderConn) ping() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return c.Ping(ctx)
}

func (c *coderConn) close(code int, reason string) error {
	return c.Close(coder.StatusCode(code), reason)
}

// nodeServer serves conversations with npm's ws at the address of l, which it closes.
func nodeServer(t *testing.T, l net.Listener, name string) <-chan string {
	t.Helper()
	l.Close()
	cmd := node(t, "serve", l.Addr().String(), name)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() || lines.Text() != "listening" {
		t.Fatalf("node does not listen: %s", cmd.Stderr)
	}
	closings := make(chan string, 100)
	go func() {
		for lines.Scan() {
			closings <- lines.Text()
		}
	}()
	return closings
}

// nodeClient converses with npm's ws.
func nodeClient(t *testing.T, c wsCall) {
	cmd := node(t, "call", "ws://"+c.addr+"/", c.key, c.name, fmt.Sprint(c.deflate))
	if err := cmd.Run(); err != nil {
		t.Errorf("%v: %s", err, cmd.Stderr)
	}
}

func node(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	folder := os.Getenv("DETOUR_NODE_PEER")
	if folder == "" {
		t.Fatal("DETOUR_NODE_PEER names no folder that npm's ws is installed in; hack/conformance makes one and sets it")
	}
	cmd := exec.CommandContext(t.Context(), "node", append([]string{"testdata/ws/peer.cjs"}, args...)...)
	cmd.Env = append(os.Environ(), "NODE_PATH="+folder+"/node_modules")
	cmd.Stderr = new(bytes.Buffer)
	return cmd
}

// blob is n bytes of ASCII that neither repeat soon nor compress to nothing.
func blob(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(32 + (i*31+i>>8)%90)
	}
	return b
}
