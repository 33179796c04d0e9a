package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/test/bench/bulk"
)

// ask sends one small request over a new connection and waits for its answer.
func ask(addr string, request []byte, letter byte) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	return exchange(c, request, letter)
}

// exchange sends one small request and waits for its answer, which is to be the app's or the preview's by its letter.
func exchange(c net.Conn, request []byte, letter byte) error {
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write(request); err != nil {
		return err
	}
	var b []byte
	for {
		more := make([]byte, 4096)
		n, err := c.Read(more)
		b = append(b, more[:n]...)
		if end, parsed := parseAnswer(b, letter); parsed != nil || end > 0 {
			return parsed
		}
		if err != nil {
			return err
		}
	}
}

// call sends one gRPC-shaped request and looks at the whole answer, its trailers included.
func call(ctx context.Context, addr string, letter byte, more http.Header) error {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols, DisableCompression: true}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+rpc, bytes.NewReader(rpcMessage))
	if err != nil {
		return err
	}
	for name, values := range more {
		r.Header[name] = values
	}
	for _, h := range rpcHeads {
		r.Header.Set(h[0], h[1])
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || len(b) != answerBody || b[answerBody-1] != letter || resp.Trailer.Get("Grpc-Status") != "0" {
		return fmt.Errorf("answered %s, trailers %v, %q: want %d bytes that end in %q", resp.Status, resp.Trailer, b, answerBody, letter)
	}
	return nil
}

// fetch asks for one large body.
func fetch(ctx context.Context, addr string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/", nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || n != bulk.Size) {
		err = fmt.Errorf("answered %s with %d bytes", resp.Status, n)
	}
	return err
}

// probe sends what the site's protocol and backend call for, with the key and without, and returns what is not as it
// should be.
func (s site) probe(ctx context.Context, routed, bulk bool) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	addr := s.addr()
	switch {
	case bulk:
		return fetch(ctx, addr)
	case s.Protocol == api.ProtocolH2C:
		return errors.Join(
			call(ctx, addr, appLetter, nil),
			call(ctx, addr, previewLetter, http.Header{"Detour-Key": {s.Key}}))
	case routed:
		return errors.Join(ask(addr, get(), appLetter), ask(addr, get("Detour-Key: "+s.Key), previewLetter))
	}
	return ask(addr, get(), appLetter)
}

func (s site) addr() string { return fmt.Sprintf("127.0.0.1:%d", s.Listen) }
