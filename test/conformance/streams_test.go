package conformance

//lint:file-ignore SA1019 that golang.org/x/net/http2 is another implementation than net/http's is why it is here

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/detour-dev/detour/api"
)

// h2Server serves h2c alone, with golang.org/x/net/http2, until the test ends.
func h2Server(t testing.TB, l net.Listener, h http.Handler) {
	t.Helper()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			quiet := &http.Server{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
			go new(http2.Server).ServeConn(conn, &http2.ServeConnOpts{Handler: h, BaseConfig: quiet})
		}
	}()
}

// rawServer is an HTTP/2 server made of golang.org/x/net/http2's framer. It resets each stream with the code that is
// its path, or, for /wait, waits for the client to do so.
type rawServer struct {
	waiting chan struct{}      // a stream that waits
	resets  chan http2.ErrCode // what clients have reset with
}

func startRawServer(t *testing.T, l net.Listener) *rawServer {
	s := &rawServer{waiting: make(chan struct{}, 10), resets: make(chan http2.ErrCode, 10)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	return s
}

func (s *rawServer) serve(conn net.Conn) {
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.WriteSettings()
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				framer.WritePing(true, frame.Data)
			}
		case *http2.RSTStreamFrame:
			s.resets <- frame.ErrCode
		case *http2.MetaHeadersFrame:
			var head bytes.Buffer
			encoder := hpack.NewEncoder(&head)
			encoder.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
			framer.WriteHeaders(http2.HeadersFrameParam{StreamID: frame.StreamID, BlockFragment: head.Bytes(), EndHeaders: true})
			path := strings.TrimPrefix(frame.PseudoValue("path"), "/")
			if path == "wait" {
				s.waiting <- struct{}{}
				continue
			}
			code, _ := strconv.Atoi(path)
			framer.WriteData(frame.StreamID, false, []byte("some"))
			framer.WriteRSTStream(frame.StreamID, http2.ErrCode(code))
		}
	}
}

// TestResetCodes expects each code of RST_STREAM to be the one that the other side has sent, both ways.
func TestResetCodes(t *testing.T) {
	app, preview := listenApp(t), listenPreview(t)
	servers := map[bool]*rawServer{false: startRawServer(t, app), true: startRawServer(t, preview)}
	s := startSidecar(t, app.Addr().String(), routeTo(preview.Addr().String()))
	transport := &http2.Transport{AllowHTTP: true}
	conn, err := transport.NewClientConn(dial(t, s.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, keyed := range []bool{false, true} {
		for _, code := range []http2.ErrCode{
			http2.ErrCodeInternal, http2.ErrCodeCancel, http2.ErrCodeConnect, http2.ErrCodeEnhanceYourCalm, http2.ErrCodeHTTP11Required,
		} {
			t.Run(fmt.Sprintf("keyed=%v %v", keyed, code), func(t *testing.T) {
				resp, err := conn.RoundTrip(newRequest(t, "GET", fmt.Sprintf("%s/%d", s.url(), code), nil, keyed))
				if err == nil {
					defer resp.Body.Close()
					_, err = io.ReadAll(resp.Body)
				}
				var reset http2.StreamError
				if !errors.As(err, &reset) || reset.Code != code {
					t.Errorf("%v, want %v", err, code)
				}
			})
		}
		t.Run(fmt.Sprintf("keyed=%v from the client", keyed), func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			resp, err := conn.RoundTrip(newRequest(t, "GET", s.url()+"/wait", nil, keyed).WithContext(ctx))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			receive(t, servers[keyed].waiting, "the right server has the request")
			cancel()
			if code := receive(t, servers[keyed].resets, "the server is told"); code != http2.ErrCodeCancel {
				t.Errorf("the server was sent %v", code)
			}
		})
	}
}

// TestPreviewGoesAway has a preview's server shut down between requests of one client connection, which must live on:
// its requests to the app and, after a while, to the preview's successor.
func TestPreviewGoesAway(t *testing.T) {
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "answer") })
	app, preview := listenApp(t), listenPreview(t)
	httpServer(t, app, answer)
	first := httpServer(t, preview, answer)
	s := startSidecar(t, app.Addr().String(), routeTo(preview.Addr().String()))
	conn, err := (&http2.Transport{AllowHTTP: true}).NewClientConn(dial(t, s.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	get := func(keyed bool) (int, error) {
		resp, err := conn.RoundTrip(newRequest(t, "GET", s.url(), nil, keyed))
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		_, err = io.ReadAll(resp.Body)
		return resp.StatusCode, err
	}
	expect := func(keyed bool, want int) {
		t.Helper()
		if got, err := get(keyed); got != want || err != nil {
			t.Errorf("keyed %v: %d, %v, want %d", keyed, got, err, want)
		}
	}
	expect(false, http.StatusOK)
	expect(true, http.StatusOK)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := first.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	expect(false, http.StatusOK)
	expect(true, http.StatusServiceUnavailable)
	expect(false, http.StatusOK)
	httpServer(t, listenAt(t, preview.Addr().String()), answer)
	expect(true, http.StatusOK)
	expect(false, http.StatusOK)
}

// TestStandardServer has golang.org/x/net/http2's own server and client talk to each other with many streams on one
// connection, some of them keyed.
func TestStandardServer(t *testing.T) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Trailer")
		io.Copy(w, r.Body)
		w.Header().Set("X-Trailer", r.Header.Get(api.HeaderKey))
	})
	app, preview := listenApp(t), listenPreview(t)
	h2Server(t, app, echo)
	h2Server(t, preview, echo)
	s := startSidecar(t, app.Addr().String(), routeTo(preview.Addr().String()))
	conn, err := (&http2.Transport{AllowHTTP: true, StrictMaxConcurrentStreams: true}).NewClientConn(dial(t, s.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var streams sync.WaitGroup
	for i := range 300 {
		streams.Go(func() {
			keyed := i%3 == 0
			sent := blob(i * 400)
			resp, err := conn.RoundTrip(newRequest(t, "POST", s.url(), bytes.NewReader(sent), keyed))
			if err != nil {
				t.Errorf("stream %d: %v", i, err)
				return
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			want := map[bool]string{true: key}[keyed]
			if err != nil || !bytes.Equal(got, sent) || resp.Trailer.Get("X-Trailer") != want {
				t.Errorf("stream %d: %d bytes, %v, trailers %v, want %d bytes, %q", i, len(got), err, resp.Trailer, len(sent), want)
			}
			if err := checkServedBy(resp); err != nil {
				t.Error(err)
			}
		})
	}
	streams.Wait()
}
