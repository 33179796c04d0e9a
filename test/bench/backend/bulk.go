package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"

	"github.com/detour-dev/detour/test/bench/bulk"
)

// serveBulk answers GET with a [bulk.Body] and drops the one that comes with a POST. It returns when l fails.
func serveBulk(l net.Listener) error {
	body, err := bulk.Body()
	if err != nil {
		return err
	}
	defer body.Close()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go serveBulkConn(c.(*net.TCPConn), body)
	}
}

// serveBulkConn serves until the connection ends or sends what it does not understand, and then closes it.
func serveBulkConn(c *net.TCPConn, body *os.File) {
	defer c.Close()
	raw, err := bulk.NewConn(c)
	in := bufio.NewReader(c)
	for err == nil {
		var r *http.Request
		if r, err = http.ReadRequest(in); err == nil {
			err = answerBulk(c, raw, in, r, body)
		}
	}
}

func answerBulk(c *net.TCPConn, raw *bulk.Conn, in *bufio.Reader, r *http.Request, body *os.File) error {
	if r.Method == http.MethodGet {
		if err := sendHead(c, bulk.Size); err != nil {
			return err
		}
		return raw.Send(body)
	}
	early, err := in.Discard(min(in.Buffered(), int(r.ContentLength)))
	if err != nil {
		return err
	}
	if err := raw.Discard(int(r.ContentLength) - early); err != nil {
		return err
	}
	return sendHead(c, 0)
}

func sendHead(c net.Conn, length int) error {
	_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", length)
	return err
}
