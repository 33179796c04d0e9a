package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/detour-dev/detour/api"
)

const (
	conversations = 3000 // that are held if nobody asks for another number
	stages        = 4    // on which they are held at the same time
	enough        = 3    // failures a stage, of which more would not help
)

// patience bounds the wait for anything in one conversation.
const patience = 10 * time.Second

// TestDifferential holds generated conversations directly and through the proxy, and compares what everyone got.
// DETOUR_DIFFERENTIAL is how many, and DETOUR_SEED the seed of the first. A failure names the seed that holds that
// conversation alone.
func TestDifferential(t *testing.T) {
	t.Parallel()
	compare(t, numberIn(t, "DETOUR_DIFFERENTIAL", conversations), api.ProtocolSniff)
}

// TestDifferentialOfCopying holds conversations through a proxy that only copies: what differs there is the test's fault.
func TestDifferentialOfCopying(t *testing.T) {
	t.Parallel()
	compare(t, numberIn(t, "DETOUR_DIFFERENTIAL_COPY", conversations/10), api.ProtocolTCP)
}

// numberIn is the number in a variable of the environment.
func numberIn(t *testing.T, name string, otherwise int) int {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		return otherwise
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// compare holds n conversations through proxies whose port is declared to speak protocol.
func compare(t *testing.T, n int, protocol api.Protocol) {
	first := numberIn(t, "DETOUR_SEED", 1)
	for i := range min(n, stages) {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, protocol)
			for seed, failed := first+i, 0; seed < first+n && failed < enough; seed += stages {
				c := newConversation(uint64(seed))
				if protocol == api.ProtocolTCP {
					c.kind = plain
				}
				if err := s.try(c); err != nil {
					failed++
					s.report(t, c, err)
				}
			}
		})
	}
}

// stage is a proxy with its app and a preview, for one conversation at a time.
type stage struct {
	proxy, direct string // where clients connect
	app, preview  *stand
}

func newStage(t *testing.T, protocol api.Protocol) *stage {
	s := &stage{app: newStand(t), preview: newStand(t)}
	p := start(t, s.app.Addr())
	p.put(t, api.Port{Port: p.port, Protocol: protocol, Routes: []api.Route{
		{Key: routedKey, Preview: "deployment/mine", Endpoints: []api.Endpoint{endpointOf("preview", s.preview.Addr())}},
		{Key: goneKey, Preview: "deployment/gone"},
	}})
	s.proxy, s.direct = p.addr(), local(s.app.Addr())
	return s
}

// try holds a conversation and says what is wrong with it.
func (s *stage) try(c *conversation) error {
	if c.kind == plain {
		if err := c.direct().difference(s.play(c, s.direct)); err != nil {
			return fmt.Errorf("the test is wrong about direct connections: %w", err)
		}
	}
	return c.judge(s.play(c, s.proxy))
}

// report shows the failure with as few turns as show one.
func (s *stage) report(t *testing.T, c *conversation, err error) {
	t.Helper()
	for i := len(c.turns) - 1; i >= 0; i-- {
		if i == len(c.turns)-1 && (c.leave != byHalfClose || c.kind == hostile) {
			continue // it is what ends the conversation, or what it is about
		}
		less := c.without(i)
		if lessErr := s.try(less); lessErr != nil {
			c, err = less, lessErr
		}
	}
	t.Errorf("DETOUR_SEED=%d DETOUR_DIFFERENTIAL=1: %v\n%v", c.seed, err, c)
}

// play holds a conversation with whom is at addr.
func (s *stage) play(c *conversation, addr string) observed {
	s.app.begin(c, c.greeting)
	s.preview.begin(c, nil)
	client := converse(c, addr)
	return observed{client: client, app: s.app.finish(), preview: s.preview.finish()}
}

// stand is where an app or a preview listens.
type stand struct {
	net.Listener
	mu       sync.Mutex
	c        *conversation // that is being held
	greeting []byte
	log      heard // of its connections
	open     sync.WaitGroup
	fence    string        // the client's address of a connection that stands for no conversation
	fenced   chan struct{} // tells that it has been accepted
}

func newStand(t *testing.T) *stand {
	s := &stand{Listener: listenLocal(t), fenced: make(chan struct{})}
	var accepting sync.WaitGroup
	accepting.Go(s.accept)
	t.Cleanup(func() {
		s.Close()
		accepting.Wait()
		s.open.Wait()
	})
	return s
}

func (s *stand) begin(c *conversation, greeting []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.c, s.greeting, s.log, s.fence = c, greeting, heard{}, ""
}

// finish waits for the connections that were made for the conversation, also for those that nobody has accepted yet.
func (s *stand) finish() heard {
	if err := s.putFence(); err != nil {
		return heard{end: tooLate}
	}
	s.open.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log
}

// putFence makes a connection and waits until it has been accepted: all earlier ones have been by then.
func (s *stand) putFence() error {
	s.mu.Lock()
	c, err := net.Dial("tcp", local(s.Addr()))
	if err == nil {
		s.fence = c.LocalAddr().String()
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	<-s.fenced
	return c.Close()
}

func (s *stand) accept() {
	for {
		c, err := s.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		fence := c.RemoteAddr().String() == s.fence
		conversation, greeting := s.c, s.greeting
		s.mu.Unlock()
		if fence {
			c.(*net.TCPConn).SetLinger(0) // leave no port behind
			c.Close()
			s.fenced <- struct{}{}
			continue
		}
		s.open.Go(func() { s.serve(c.(*net.TCPConn), conversation, greeting) })
	}
}

// serve is one connection of the app or the preview.
func (s *stand) serve(c *net.TCPConn, of *conversation, greeting []byte) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	b := newBackend(of)
	say(c, greeting)
	end := b.serve(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = heard{append(s.log.bytes, b.log...), end}
}

// serve answers until either side ends the connection. What cannot be written is missed by the client.
func (b *backend) serve(c *net.TCPConn) end {
	buf := make([]byte, 32<<10)
	for {
		n, err := c.Read(buf)
		before := b.then
		out, next := b.take(buf[:n])
		say(c, out)
		switch {
		case next == closes:
			return itself
		case next == resets:
			c.SetLinger(0)
			return itself
		case next == halfCloses && before != next:
			c.CloseWrite()
		}
		if err != nil {
			return endOf(err)
		}
	}
}

// say writes b. An empty write would take away the error of a reset.
func say(c *net.TCPConn, b []byte) {
	if len(b) > 0 {
		c.Write(b)
	}
}

func endOf(err error) end {
	switch {
	case errors.Is(err, io.EOF):
		return atEOF
	case errors.Is(err, net.ErrClosed):
		return itself
	case errors.Is(err, os.ErrDeadlineExceeded):
		return tooLate
	case errors.Is(err, syscall.ECONNRESET):
		return byRST
	}
	return end(err.Error())
}

// converse is the client of a conversation.
func converse(c *conversation, addr string) heard {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return heard{end: end(err.Error())}
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	l := listenTo(conn)
	for _, w := range c.writes {
		l.wait(w.after)
		conn.Write(w.bytes) // what is lost is missed by the app
	}
	l.wait(c.after)
	switch tcp := conn.(*net.TCPConn); c.leave {
	case byHalfClose:
		tcp.CloseWrite()
	case byReset:
		tcp.SetLinger(0)
		fallthrough
	case byClose:
		tcp.Close()
	}
	return l.all()
}

// listener collects what a connection brings.
type listener struct {
	mu    sync.Mutex
	more  *sync.Cond
	heard heard
}

// listenTo reads the connection until it ends.
func listenTo(c net.Conn) *listener {
	l := &listener{}
	l.more = sync.NewCond(&l.mu)
	go l.listen(c)
	return l
}

func (l *listener) listen(c net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := c.Read(buf)
		l.mu.Lock()
		l.heard.bytes = append(l.heard.bytes, buf[:n]...)
		if err != nil {
			l.heard.end = endOf(err)
		}
		l.more.Broadcast()
		l.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// wait returns once n bytes have come, or the end.
func (l *listener) wait(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.heard.bytes) < n && l.heard.end == none {
		l.more.Wait()
	}
}

// all is what has come up to the end.
func (l *listener) all() heard {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.heard.end == none {
		l.more.Wait()
	}
	return heard{slices.Clone(l.heard.bytes), l.heard.end}
}
