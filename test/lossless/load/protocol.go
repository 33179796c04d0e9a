package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/coder/websocket"
	"github.com/redis/go-redis/v9"
)

// protocol makes clients.
type protocol struct {
	name   string
	client func(place, string) client
}

// protocols are those of the app. The first two are HTTP/1.1, with a connection for each request and with connections
// that are kept.
var protocols = []protocol{
	{"http1 new", func(p place, key string) client { return newHTTP1(p, key, true) }},
	{"http1 kept", func(p place, key string) client { return newHTTP1(p, key, false) }},
	{"h2c", newH2C},
	{"grpc", newUnary},
	{"grpc stream", newStream},
	{"websocket", func(p place, key string) client { return &webSocket{place: p, key: key} }},
}

// keyedProtocols are those that clients with a key use.
var keyedProtocols = protocols[1:]

var redisProtocol = protocol{"redis", func(p place, _ string) client { return &redisClient{place: p} }}

func newSeed() string { return strconv.FormatUint(rand.Uint64(), 36) }

// httpClient asks by HTTP/1.1 or h2c.
type httpClient struct {
	place
	key       string
	transport *http.Transport
	request   func(ctx context.Context, address, seed string) (*http.Request, error)
}

// newHTTP1 asks with GET, which net/http sends again where a connection that was kept turns out to be closed: the race
// that RFC 9112, 9.3.1, has clients prepared for.
func newHTTP1(p place, key string, fresh bool) client {
	return &httpClient{place: p, key: key, transport: &http.Transport{DisableKeepAlives: fresh},
		request: func(ctx context.Context, address, seed string) (*http.Request, error) {
			return http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/blob?seed="+seed, nil)
		}}
}

func newH2C(p place, key string) client {
	h2c := new(http.Protocols)
	h2c.SetUnencryptedHTTP2(true)
	return &httpClient{place: p, key: key, transport: &http.Transport{Protocols: h2c},
		request: func(ctx context.Context, address, seed string) (*http.Request, error) {
			return http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/echo", bytes.NewReader(blob(seed)))
		}}
}

func (c *httpClient) ask(ctx context.Context) (string, error) {
	address, err := c.address("http")
	if err != nil {
		return "", err
	}
	seed := newSeed()
	req, err := c.request(ctx, address, seed)
	if err != nil {
		return "", err
	}
	if c.key != "" {
		req.Header.Set("Detour-Key", c.key)
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", unusual(resp, body)
	}
	return split(body, blob(seed))
}

func (c *httpClient) close() { c.transport.CloseIdleConnections() }

// unusual is the error that an answer stands for.
func unusual(resp *http.Response, body []byte) error {
	if why := resp.Header.Get("Detour-Error"); resp.StatusCode == http.StatusServiceUnavailable && why != "" {
		return refusal(why)
	}
	return fmt.Errorf("%s: %.200q", resp.Status, body)
}

// streamLife is how long a stream is used, on average. Twice that is less than the grace of the Pods that it may go
// through: what is cut was cut too soon.
const streamLife = 5 * time.Second

// webSocket has one conversation after another.
type webSocket struct {
	place
	key  string
	conn *websocket.Conn
	ends time.Time
}

func (c *webSocket) ask(ctx context.Context) (version string, err error) {
	if time.Now().After(c.ends) {
		c.close()
	}
	if c.conn == nil {
		if err := c.dial(ctx); err != nil {
			return "", err
		}
	}
	defer func() {
		if err != nil {
			c.conn.CloseNow()
			c.conn = nil
		}
	}()
	content := blob(newSeed())
	err = c.conn.Write(ctx, websocket.MessageBinary, content)
	_, answer, readErr := c.conn.Read(ctx) // even if nothing could be written: it tells why
	switch {
	case websocket.CloseStatus(readErr) == websocket.StatusGoingAway:
		return "", errGoodBye
	case err != nil || readErr != nil:
		return "", errors.Join(err, readErr)
	}
	return split(answer, content)
}

func (c *webSocket) dial(ctx context.Context) error {
	address, err := c.address("http")
	if err != nil {
		return err
	}
	options := &websocket.DialOptions{HTTPHeader: http.Header{}}
	if c.key != "" {
		options.HTTPHeader.Set("Detour-Key", c.key)
	}
	conn, resp, err := websocket.Dial(ctx, "ws://"+address+"/ws", options)
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return unusual(resp, []byte(err.Error()))
		}
		return err
	}
	c.conn, c.ends = conn, time.Now().Add(2*rand.N(streamLife))
	return nil
}

func (c *webSocket) close() {
	if c.conn != nil {
		c.conn.Close(websocket.StatusNormalClosure, "")
		c.conn = nil
	}
}

// redisClient keeps a connection for two seconds: Redis closes connections without a word when it ends, so one has to be
// off them by then, with or without a proxy.
type redisClient struct {
	place
	address string
	client  *redis.Client
}

func (c *redisClient) ask(ctx context.Context) (string, error) {
	if err := c.connect(); err != nil {
		return "", err
	}
	seed := newSeed()
	content := string(blob(seed))
	var got *redis.StringCmd
	_, err := c.client.Pipelined(ctx, func(p redis.Pipeliner) error { // both on one connection, and so on one Pod
		p.Set(ctx, seed, content, 10*time.Second)
		got = p.Get(ctx, seed)
		return nil
	})
	if err != nil {
		return "", err
	}
	if got.Val() != content {
		return "", fmt.Errorf("other bytes than were set: %d, want %d", len(got.Val()), len(content))
	}
	return baseline, nil
}

func (c *redisClient) connect() error {
	address, err := c.place.address("redis")
	if err != nil {
		return err
	}
	if c.client != nil && address == c.address {
		return nil
	}
	c.close()
	c.address = address
	c.client = redis.NewClient(&redis.Options{
		Addr: address, PoolSize: 1, ConnMaxLifetime: 2 * time.Second, MaxRetries: -1, DialerRetries: 1,
		DisableIdentity: true, Protocol: 2,
	})
	return nil
}

func (c *redisClient) close() {
	if c.client != nil {
		c.client.Close()
		c.client = nil
	}
}
