package conformance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/detour-dev/detour/api"
)

// peers has net/http talk to itself through the proxy: over HTTP/1.1 and h2c, to the app and to the preview, whose
// requests are keyed.
func peers(t *testing.T, h http.Handler, test func(t *testing.T, client *http.Client, request func(method string, body io.Reader) *http.Request)) {
	t.Helper()
	app, preview := listenApp(t), listenPreview(t)
	httpServer(t, app, h)
	httpServer(t, preview, h)
	s := startSidecar(t, app.Addr().String(), append(otherRoutes(3, 0), routeTo(preview.Addr().String()))...)
	for _, h2c := range []bool{false, true} {
		for _, keyed := range []bool{false, true} {
			t.Run(fmt.Sprintf("h2c=%v keyed=%v", h2c, keyed), func(t *testing.T) {
				test(t, httpClient(t, h2c), func(method string, body io.Reader) *http.Request {
					return newRequest(t, method, s.url(), body, keyed)
				})
			})
		}
	}
}

func newRequest(t testing.TB, method, url string, body io.Reader, keyed bool) *http.Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if keyed {
		req.Header.Set(api.HeaderKey, key)
	}
	return req
}

// checkServedBy holds an answer to naming the preview if its request was keyed, and no one otherwise.
func checkServedBy(resp *http.Response) error {
	var want []string
	if resp.Request.Header.Get(api.HeaderKey) != "" {
		want = []string{servedBy}
	}
	if diff := cmp.Diff(want, resp.Header.Values(api.HeaderServedBy)); diff != "" {
		return fmt.Errorf("%s (-want +got):\n%s", api.HeaderServedBy, diff)
	}
	return nil
}

// fetch makes a request that must be answered 200 by whom it is for, and reads the body.
func fetch(client *http.Client, req *http.Request) (*http.Response, []byte, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return resp, body, errors.Join(err, checkServedBy(resp))
}

// TestTrailers sends trailers both ways.
func TestTrailers(t *testing.T) {
	peers(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Announced")
		io.Copy(w, r.Body)
		w.Header().Set("X-Announced", r.Trailer.Get("X-Sum"))
		w.Header().Set(http.TrailerPrefix+"X-Unannounced", "too")
	}), func(t *testing.T, client *http.Client, request func(string, io.Reader) *http.Request) {
		req := request("POST", struct{ io.Reader }{strings.NewReader("body")}) // of unknown length
		req.Trailer = http.Header{"X-Sum": {"42"}}
		resp, body, err := fetch(client, req)
		if err != nil || string(body) != "body" {
			t.Fatalf("%q, %v", body, err)
		}
		if diff := cmp.Diff(http.Header{"X-Announced": {"42"}, "X-Unannounced": {"too"}}, resp.Trailer); diff != "" {
			t.Errorf("trailers (-want +got):\n%s", diff)
		}
	})
}

// TestEarlyHints expects each 103 before the answer.
func TestEarlyHints(t *testing.T) {
	peers(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, link := range []string{"</a.css>", "</b.css>"} {
			w.Header().Set("Link", link)
			w.WriteHeader(http.StatusEarlyHints)
		}
		w.Header().Del("Link")
		io.WriteString(w, "page")
	}), func(t *testing.T, client *http.Client, request func(string, io.Reader) *http.Request) {
		var hints []string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
				hints = append(hints, fmt.Sprint(code, " ", header.Get("Link")))
				return nil
			},
		})
		if _, _, err := fetch(client, request("GET", nil).WithContext(ctx)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"103 </a.css>", "103 </b.css>"}, hints); diff != "" {
			t.Errorf("hints (-want +got):\n%s", diff)
		}
	})
}

// TestExpectContinue sends a body only once it is asked for, and none where the answer comes at once.
func TestExpectContinue(t *testing.T) {
	peers(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PUT" {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		io.Copy(w, r.Body)
	}), func(t *testing.T, client *http.Client, request func(string, io.Reader) *http.Request) {
		client.Transport.(*http.Transport).ExpectContinueTimeout = time.Minute
		for _, method := range []string{"POST", "PUT"} {
			var asked bool
			body := &countingReader{Reader: strings.NewReader("body")}
			req := request(method, body)
			req.ContentLength = 4
			req.Header.Set("Expect", "100-continue")
			resp, err := client.Do(req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
				Got100Continue: func() { asked = true },
			})))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			wanted := method == "POST"
			if err != nil || asked != wanted || (string(got) == "body") != wanted || (body.n.Load() > 0) != wanted {
				t.Errorf("%s: %s, %q, %v; the body was asked for: %v, and %d bytes of it read", method, resp.Status, got, err, asked, body.n.Load())
			}
		}
	})
}

type countingReader struct {
	io.Reader
	n atomic.Int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.n.Add(int64(n))
	return n, err
}

// TestFullDuplex has a request and its answer go on at the same time.
func TestFullDuplex(t *testing.T) {
	peers(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		control.EnableFullDuplex() // of use to HTTP/1.1 only
		control.Flush()
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			w.Write(buf[:n])
			control.Flush()
			if err != nil {
				return
			}
		}
	}), func(t *testing.T, client *http.Client, request func(string, io.Reader) *http.Request) {
		r, w := io.Pipe()
		resp, err := client.Do(request("POST", r))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		for i := range 100 {
			sent := fmt.Sprintf("line %03d\n", i)
			if _, err := io.WriteString(w, sent); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(sent))
			if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != sent {
				t.Fatalf("%q, %v, want %q", got, err, sent)
			}
		}
		w.Close()
		if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
			t.Errorf("%q, %v, want the end", rest, err)
		}
	})
}

// TestCancel expects a client that gives up to be noticed by the handler.
func TestCancel(t *testing.T) {
	began, ended := make(chan struct{}, 1), make(chan struct{}, 1)
	peers(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).Flush()
		began <- struct{}{}
		<-r.Context().Done()
		ended <- struct{}{}
	}), func(t *testing.T, client *http.Client, request func(string, io.Reader) *http.Request) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		resp, err := client.Do(request("GET", nil).WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		receive(t, began, "the handler has the request")
		cancel()
		receive(t, ended, "the handler has heard of it")
	})
}

// TestAborted expects an answer that its handler breaks off to be broken.
func TestAborted(t *testing.T) {
	peers(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "half of it")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}), func(t *testing.T, client *http.Client, request func(string, io.Reader) *http.Request) {
		resp, err := client.Do(request("GET", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("%q, complete", body)
		}
	})
}

// TestServerCloses has a server close its HTTP/1.1 connection after every third answer. No request may fail for it.
func TestServerCloses(t *testing.T) {
	var n atomic.Int64
	peers(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)%3 == 0 && r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close")
		}
		io.WriteString(w, r.Proto)
	}), func(t *testing.T, client *http.Client, request func(string, io.Reader) *http.Request) {
		for i := range 100 {
			if _, body, err := fetch(client, request("GET", nil)); err != nil {
				t.Fatalf("request %d: %q, %v", i, body, err)
			}
		}
	})
}

// TestConcurrency has 400 requests at once, every other one keyed, over as few connections as a server that bears 10
// streams at a time makes of them.
func TestConcurrency(t *testing.T) {
	for _, h2c := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2c=%v", h2c), func(t *testing.T) {
			app, preview := listenApp(t), listenPreview(t)
			for l, name := range map[net.Listener]string{app: "app ", preview: "preview "} {
				httpServer(t, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					body, err := io.ReadAll(r.Body)
					if err != nil {
						panic(http.ErrAbortHandler)
					}
					io.WriteString(w, name+string(body))
				}), &http.HTTP2Config{MaxConcurrentStreams: 10})
			}
			s := startSidecar(t, app.Addr().String(), routeTo(preview.Addr().String()))
			client := httpClient(t, h2c)
			if !h2c {
				client.Transport.(*http.Transport).MaxConnsPerHost = 20
			}
			var requests sync.WaitGroup
			var failures atomic.Int64 // of which the first few tell enough
			for i := range 400 {
				requests.Go(func() {
					sent := strings.Repeat(fmt.Sprint(i, " "), 5000)
					_, got, err := fetch(client, newRequest(t, "POST", s.url(), strings.NewReader(sent), i%2 == 1))
					want := []string{"app ", "preview "}[i%2] + sent
					if (err != nil || string(got) != want) && failures.Add(1) <= 5 {
						t.Errorf("request %d: %.30q… (%d bytes), %v, want %.30q… (%d bytes)", i, got, len(got), err, want, len(want))
					}
				})
			}
			requests.Wait()
		})
	}
}

// TestFlowControl has streams of one connection that no one reads, of the app and of the preview, in both directions,
// beside others that must not be held up by them; released, they go on.
func TestFlowControl(t *testing.T) {
	const size = 4 << 20
	release := make(chan struct{})
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stalled" {
			<-release
		}
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		if r.Method == "GET" {
			w.Write(blob(size))
			return
		}
		fmt.Fprintf(w, "%d %v %x", n, err, sum.Sum(nil))
	})
	// A stream that is not read must not use up its connection's window, or it holds up the others without us too.
	windows := &http.HTTP2Config{MaxReceiveBufferPerStream: 128 << 10, MaxReceiveBufferPerConnection: 4 << 20}
	app, preview := listenApp(t), listenPreview(t)
	for _, l := range []net.Listener{app, preview} {
		httpServer(t, l, answer, windows)
	}
	s := startSidecar(t, app.Addr().String(), routeTo(preview.Addr().String()))
	client := httpClient(t, true)
	client.Transport.(*http.Transport).HTTP2 = windows

	want := fmt.Sprintf("%d %v %x", size, nil, sha256.Sum256(blob(size)))
	upload := func(path string, keyed bool) {
		_, got, err := fetch(client, newRequest(t, "POST", s.url()+path, bytes.NewReader(blob(size)), keyed))
		if err != nil || string(got) != want {
			t.Errorf("upload to %s, keyed %v: %q, %v, want %q", path, keyed, got, err, want)
		}
	}
	download := func(keyed bool) *http.Response {
		resp, err := client.Do(newRequest(t, "GET", s.url(), nil, keyed))
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	readAll := func(resp *http.Response) {
		defer resp.Body.Close()
		if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, blob(size)) {
			t.Errorf("download: %d bytes, %v, want %d", len(got), err, size)
		}
	}

	unread := []*http.Response{download(false), download(true)}
	var stalled, others sync.WaitGroup
	for _, keyed := range []bool{false, true} {
		stalled.Go(func() { upload("/stalled", keyed) })
		for range 4 {
			others.Go(func() { upload("/", keyed) })
			others.Go(func() { readAll(download(keyed)) })
		}
	}
	others.Wait()
	close(release)
	stalled.Wait()
	for _, resp := range unread {
		readAll(resp)
	}
}

// TestShutdown has the app's server shut down while 50 of its requests and 50 of the preview's are under way on one
// connection; then the preview's. None of them may fail, nor any that comes after a new server listens.
func TestShutdown(t *testing.T) {
	for _, which := range []string{"app", "preview"} {
		t.Run(which, func(t *testing.T) {
			began, release := make(chan struct{}, 100), make(chan struct{})
			answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/held" {
					began <- struct{}{}
					<-release
				}
				io.Copy(w, r.Body)
			})
			app, preview := listenApp(t), listenPreview(t)
			servers := map[string]*http.Server{"app": httpServer(t, app, answer), "preview": httpServer(t, preview, answer)}
			s := startSidecar(t, app.Addr().String(), routeTo(preview.Addr().String()))
			client := httpClient(t, true)
			post := func(path string, keyed bool) {
				_, got, err := fetch(client, newRequest(t, "POST", s.url()+path, strings.NewReader("body"), keyed))
				if err != nil || string(got) != "body" {
					t.Errorf("%s, keyed %v: %q, %v", path, keyed, got, err)
				}
			}
			var held sync.WaitGroup
			for i := range 100 {
				held.Go(func() { post("/held", i%2 == 1) })
			}
			for range 100 {
				receive(t, began, "all requests are held")
			}
			down := make(chan error, 1)
			ending := make(chan struct{})
			servers[which].RegisterOnShutdown(func() { close(ending) })
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				down <- servers[which].Shutdown(ctx)
			}()
			receive(t, ending, "the server shuts down")
			// GOAWAY is sent by each connection once it comes round to it; the other server's streams go on.
			if which == "preview" { // an app that is down refuses whoever has no connection yet
				post("/", false)
			}
			close(release)
			held.Wait()
			if err := <-down; err != nil {
				t.Errorf("shutting down: %v", err)
			}

			again := map[string]net.Listener{"app": app, "preview": preview}[which]
			httpServer(t, listenAt(t, again.Addr().String()), answer)
			for range 20 {
				post("/", false)
				post("/", true)
			}
		})
	}
}

// TestHalfClose has a client end its half of the connection with its request. The answer must come all the same.
func TestHalfClose(t *testing.T) {
	app, preview, tcp := listenApp(t), listenPreview(t), listenApp(t)
	httpServer(t, app, blobHandler)
	httpServer(t, preview, blobHandler)
	serveBlobs(tcp)
	web := startSidecar(t, app.Addr().String(), routeTo(preview.Addr().String()))
	plain := startSidecar(t, tcp.Addr().String())
	const head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 262144\r\n"
	for name, c := range map[string]struct{ head, direct, through string }{
		"tcp":        {"GIVE\n", tcp.Addr().String(), plain.addr},
		"http":       {head + "\r\n", app.Addr().String(), web.addr},
		"http keyed": {head + "Detour-Key: pr-1\r\n\r\n", preview.Addr().String(), web.addr},
	} {
		t.Run(name, func(t *testing.T) {
			var seen [2][]byte
			for i, addr := range []string{c.direct, c.through} {
				conn := dial(t, addr)
				if _, err := conn.Write(append([]byte(c.head), blob(256<<10)...)); err != nil {
					t.Fatal(err)
				}
				if err := conn.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(conn)
				if err != nil {
					t.Errorf("%s: %v", addr, err)
				}
				seen[i] = addedByProxy.ReplaceAll(got, nil)
			}
			if !bytes.Equal(seen[0], seen[1]) {
				t.Errorf("%d bytes (%.300q) through the proxy, %d (%.300q) directly", len(seen[1]), seen[1], len(seen[0]), seen[0])
			}
		})
	}
}
