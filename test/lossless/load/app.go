package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	appHTTP = ":8080" // HTTP/1.1, h2c and WebSocket
	appGRPC = ":9090"
)

// app echoes, signed with the copy that it is. When it is told to end it says good-bye on its streams and lets requests
// finish, as an app should.
type app struct {
	signature  string // see [split]
	ending     chan struct{}
	webSockets sync.WaitGroup
}

func runApp(ctx context.Context) error {
	pod, err := os.Hostname()
	if err != nil {
		return err
	}
	a := &app{signature: cmp.Or(os.Getenv("VERSION"), baseline) + " " + pod + "\n", ending: make(chan struct{})}
	web := &http.Server{Addr: appHTTP, Handler: a.routes(), Protocols: new(http.Protocols), ReadHeaderTimeout: 10 * time.Second}
	web.Protocols.SetHTTP1(true)
	web.Protocols.SetUnencryptedHTTP2(true)
	rpc := grpc.NewServer()
	rpc.RegisterService(&echoService, a)
	listener, err := net.Listen("tcp", appGRPC)
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() { failed <- web.ListenAndServe() }()
	go func() { failed <- rpc.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	close(a.ending)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	rpc.GracefulStop()
	err = web.Shutdown(grace)
	a.webSockets.Wait() // Shutdown does not know of them
	return err
}

func (a *app) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("POST /crash", func(http.ResponseWriter, *http.Request) { os.Exit(1) })
	mux.HandleFunc("GET /blob", a.serveBlob)
	mux.HandleFunc("POST /echo", a.serveEcho)
	mux.HandleFunc("GET /ws", a.serveWebSocket)
	return mux
}

// serveBlob answers with bytes that the client can work out.
func (a *app) serveBlob(w http.ResponseWriter, r *http.Request) {
	io.WriteString(w, a.signature)
	w.Write(blob(r.FormValue("seed")))
}

func (a *app) serveEcho(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	io.WriteString(w, a.signature)
	w.Write(body)
}

func (a *app) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	a.webSockets.Add(1)
	defer a.webSockets.Done()
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	received := make(chan []byte)
	go func() {
		defer close(received)
		for {
			_, message, err := conn.Read(r.Context())
			if err != nil {
				return
			}
			select {
			case received <- message:
			case <-a.ending: // the client knows from the close that this message was not answered
			}
		}
	}()
	for {
		select {
		case message, ok := <-received:
			if !ok || conn.Write(r.Context(), websocket.MessageBinary, append([]byte(a.signature), message...)) != nil {
				return
			}
		case <-a.ending:
			conn.Close(websocket.StatusGoingAway, "")
			return
		}
	}
}

// echoService is written by hand because its messages are well-known ones and need no generated code.
var echoService = grpc.ServiceDesc{
	ServiceName: "lossless.Echo",
	HandlerType: (*any)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "Unary", Handler: serveUnary}},
	Streams:     []grpc.StreamDesc{{StreamName: "Stream", Handler: serveStream, ServerStreams: true, ClientStreams: true}},
}

const (
	methodUnary  = "/lossless.Echo/Unary"
	methodStream = "/lossless.Echo/Stream"
)

func serveUnary(server any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	message := new(wrapperspb.BytesValue)
	if err := decode(message); err != nil {
		return nil, err
	}
	return server.(*app).signed(message), nil
}

func (a *app) signed(m *wrapperspb.BytesValue) *wrapperspb.BytesValue {
	return wrapperspb.Bytes(append([]byte(a.signature), m.GetValue()...))
}

// serveStream ends the stream when the app ends; what the client has sent by then without an answer, it can send again.
func serveStream(server any, stream grpc.ServerStream) error {
	a := server.(*app)
	received := make(chan *wrapperspb.BytesValue)
	broken := make(chan error, 1)
	go func() {
		for {
			message := new(wrapperspb.BytesValue)
			if err := stream.RecvMsg(message); err != nil {
				broken <- err
				return
			}
			select {
			case received <- message:
			case <-stream.Context().Done():
			}
		}
	}()
	for {
		select {
		case message := <-received:
			if err := stream.SendMsg(a.signed(message)); err != nil {
				return err
			}
		case err := <-broken:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-a.ending:
			return nil
		}
	}
}
