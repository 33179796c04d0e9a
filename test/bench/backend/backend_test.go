package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/detour-dev/detour/test/bench/bulk"
)

// TestSmall asks in both protocols, with net/http as the client.
func TestSmall(t *testing.T) {
	addr := serveSmall(t)
	for _, h2c := range []bool{false, true} {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(!h2c)
		protocols.SetUnencryptedHTTP2(h2c)
		client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
		for range 1000 { // more than one window of answers
			resp, err := client.Get("http://" + addr)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || len(b) != 128 || b[127] != 'a' {
				t.Fatalf("h2c %v: %q, error %v", h2c, b, err)
			}
			if got := resp.Trailer.Get("Grpc-Status"); h2c && got != "0" {
				t.Fatalf("trailer %q, want 0", got)
			}
		}
		client.CloseIdleConnections()
	}
}

func serveSmall(t *testing.T) (addr string) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	loop, err := newLoop()
	if err != nil {
		t.Fatal(err)
	}
	if err := loop.listen("127.0.0.1", port, newAnswers('a')); err != nil {
		t.Fatal(err)
	}
	go loop.run() // until the test's process ends
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// TestSniffer feeds a connection's bytes one by one.
func TestSniffer(t *testing.T) {
	request := "GET / HTTP/1.1\r\nHost: api\r\n\r\n"
	for name, c := range map[string]struct {
		in   string
		want []byte
	}{
		"HTTP/1.1": {request + request, append(newAnswers('a').http1, newAnswers('a').http1...)},
		"PRIVATE":  {"PRIVATE / HTTP/1.1\r\n\r\n", newAnswers('a').http1},
		"HTTP/2":   {preface + string(frame(framePing, 0, 0, make([]byte, 8))), append(hello[:len(hello):len(hello)], frame(framePing, flagAck, 0, make([]byte, 8))...)},
	} {
		s := &sniffer{answers: newAnswers('a')}
		var rest, out []byte
		for _, b := range []byte(c.in) {
			rest, out = s.serve(append(rest, b), out)
		}
		if len(rest) != 0 || !bytes.Equal(out, c.want) {
			t.Errorf("%s: answered %q and left %q, want %q", name, out, rest, c.want)
		}
	}
}

func TestBulk(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go serveBulk(l)
	url := "http://" + l.Addr().String()
	for range 2 { // on one connection
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		if resp.Body.Close(); err != nil || n != bulk.Size {
			t.Fatalf("%d bytes, error %v", n, err)
		}
		resp, err = http.Post(url, "text/plain", bytes.NewReader(make([]byte, bulk.Size)))
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status)
		}
	}
}
