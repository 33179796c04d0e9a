package main

import (
	"bytes"
	"fmt"
)

// answers are what a listener says.
type answers struct {
	body  []byte
	http1 []byte // a whole answer
}

func newAnswers(letter byte) answers {
	body := bytes.Repeat([]byte{letter}, 128)
	head := "HTTP/1.1 200 OK\r\nServer: backend\r\nContent-Type: text/plain; charset=utf-8\r\n" +
		"Cache-Control: no-store\r\nX-Request-Id: 4bf92f3577b34da6a3ce929d0e0e4736\r\nContent-Length: %d\r\n\r\n%s"
	return answers{body: body, http1: fmt.Appendf(nil, head, len(body), body)}
}

// http1 answers HTTP/1.1 requests without a body.
type http1 struct{ answer []byte }

func (h http1) serve(in, out []byte) ([]byte, []byte) {
	for {
		end := bytes.Index(in, []byte("\r\n\r\n"))
		if end < 0 {
			return in, out
		}
		in = in[end+4:]
		out = append(out, h.answer...)
	}
}

// A sniffer tells by the first bytes of a connection what it speaks.
type sniffer struct {
	answers answers
	chosen  server
}

func (s *sniffer) serve(in, out []byte) ([]byte, []byte) {
	if s.chosen == nil {
		n := min(len(in), len(preface))
		switch {
		case string(in[:n]) != preface[:n]:
			s.chosen = http1{s.answers.http1}
		case n < len(preface):
			return in, out
		default:
			s.chosen = newHTTP2(s.answers.body)
			in, out = in[n:], append(out, hello...)
		}
	}
	return s.chosen.serve(in, out)
}
