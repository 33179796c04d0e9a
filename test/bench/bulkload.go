package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/detour-dev/detour/test/bench/bulk"
)

// bulkLoad sends bodies of [bulk.Size] one after another on each connection: from the backend, as answers to GET, or to
// it, by POST.
type bulkLoad struct {
	conns int
	up    bool
}

func (l bulkLoad) run(ctx context.Context, addr string, w window) (traffic, error) {
	body, err := bulk.Body()
	if err != nil {
		return traffic{}, err
	}
	defer body.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var moved atomic.Int64
	var conns sync.WaitGroup
	for range l.conns {
		conns.Go(func() {
			if err := l.move(ctx, addr, body, &moved); ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	t, err := counted(ctx, w, &moved)
	cancel(err)
	conns.Wait()
	return t, err
}

// counted waits for the window to pass, and counts what moves in it.
func counted(ctx context.Context, w window, moved *atomic.Int64) (traffic, error) {
	if err := sleep(ctx, w.warm); err != nil {
		return traffic{}, err
	}
	if err := w.open(); err != nil {
		return traffic{}, err
	}
	before, started := moved.Load(), time.Now()
	if err := sleep(ctx, w.measure); err != nil {
		return traffic{}, err
	}
	t := traffic{units: float64(moved.Load()-before) / bulk.Size, elapsed: time.Since(started)}
	if t.units == 0 {
		return t, fmt.Errorf("nothing moved in %s", t.elapsed)
	}
	return t, w.close()
}

// sleep returns why ctx ended, if it does before d has passed.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// move sends bodies over one connection until ctx ends, which closes it.
func (l bulkLoad) move(ctx context.Context, addr string, body *os.File, moved *atomic.Int64) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	raw, err := bulk.NewConn(c.(*net.TCPConn))
	if err != nil {
		return err
	}
	raw.Moved = func(n int) { moved.Add(int64(n)) }
	in := bufio.NewReader(c)
	for err == nil {
		err = l.exchange(c, raw, in, body)
	}
	return err
}

func (l bulkLoad) exchange(c net.Conn, raw *bulk.Conn, in *bufio.Reader, body *os.File) error {
	head, want := request("GET", "/"), bulk.Size
	if l.up {
		head, want = request("POST", "/", fmt.Sprintf("Content-Length: %d", bulk.Size)), 0
	}
	if _, err := c.Write(head); err != nil {
		return err
	}
	if l.up {
		if err := raw.Send(body); err != nil {
			return err
		}
	}
	length, err := readHead(in)
	if err != nil {
		return err
	}
	if length != want {
		return fmt.Errorf("answered with %d bytes, want %d", length, want)
	}
	early, err := in.Discard(min(in.Buffered(), length))
	if err != nil {
		return err
	}
	raw.Moved(early)
	return raw.Discard(length - early)
}

// readHead reads the head of an answer, and returns the length of its body.
func readHead(in *bufio.Reader) (length int, err error) {
	for {
		if _, err := in.Peek(in.Buffered() + 1); err != nil {
			return 0, err
		}
		b, _ := in.Peek(in.Buffered())
		end, length, err := parseHead(b)
		if err != nil || end > 0 {
			in.Discard(end)
			return length, err
		}
	}
}
