package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
)

var errUnasked = errors.New("switching protocols without having been asked to")

// tunnel hands the connection over to what both sides have agreed on, WebSocket for instance: bytes both ways, half-close
// included. It returns when both have ended.
func (p *pair) tunnel(w http.ResponseWriter, r *http.Request, resp *http.Response) {
	app, ok := resp.Body.(stream)
	if !ok || r.Header.Get("Upgrade") == "" || p.protocol != protocolHTTP1 {
		p.giveUp(r, errUnasked)
	}
	_, client, err := http.NewResponseController(w).Hijack()
	if err != nil {
		p.giveUp(r, fmt.Errorf("switching protocols: %w", err))
	}
	defer p.Close()
	fmt.Fprintf(client, "HTTP/1.1 %s\r\n", resp.Status)
	resp.Header.Write(client)
	client.WriteString("\r\n")
	if client.Flush() != nil {
		return
	}
	p.exchange(client.Reader, app)
}

// stream is one side of a tunnel.
type stream interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// exchange copies both ways. What the client sent behind its request is in fromClient already.
func (p *pair) exchange(fromClient *bufio.Reader, app stream) {
	back := make(chan struct{})
	go func() {
		defer close(back)
		p.copyStream(p.conn, app)
	}()
	p.copyStream(app, fromClient)
	<-back
}

func (p *pair) copyStream(dst stream, src io.Reader) {
	_, err := io.Copy(struct{ io.Writer }{dst}, struct{ io.Reader }{src})
	if err != nil {
		p.abort(err)
		return
	}
	dst.CloseWrite()
}
