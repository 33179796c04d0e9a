package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// heads are the ten header lines of every HTTP/1.1 request, some 600 bytes with the request line: what a browser's
// call looks like behind a gateway that traces.
var heads = []string{
	"Host: api.shop.svc.cluster.local",
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36",
	"Accept: application/json, text/plain, */*",
	"Accept-Language: en-GB,en;q=0.9,de;q=0.8",
	"Accept-Encoding: gzip, deflate, br, zstd",
	"Authorization: Bearer eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.6ZRYnZQ2bVtxGzq0cOmD",
	"Cookie: session=5f0c2f8e9b7d4a3c8e1f6a2b; theme=dark",
	"X-Request-Id: 7f1c9a52-6f0e-4b7e-9d53-0c1f5a7e2b44",
	"X-Forwarded-For: 203.0.113.7",
	"Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}

// request renders an HTTP/1.1 request with those lines and others.
func request(method, path string, more ...string) []byte {
	lines := append([]string{method + " " + path + " HTTP/1.1"}, heads...)
	return []byte(strings.Join(append(lines, more...), "\r\n") + "\r\n\r\n")
}

// get is the small request.
func get(more ...string) []byte { return request("GET", "/products/42?currency=EUR", more...) }

// answerBody is the length of a small answer's body, and the letters that it consists of.
const (
	answerBody    = 128
	appLetter     = 'a'
	previewLetter = 'p'
)

// parseHead finds the end of an answer's head and the length of its body. The end is zero while the head is not whole.
func parseHead(b []byte) (end, length int, err error) {
	at := bytes.Index(b, []byte("\r\n\r\n"))
	if at < 0 {
		return 0, 0, nil
	}
	lines := b[:at+2]
	if !bytes.HasPrefix(lines, []byte("HTTP/1.1 200")) {
		return 0, 0, fmt.Errorf("answered %q", lines)
	}
	const name = "content-length:"
	for len(lines) > 0 {
		next := bytes.IndexByte(lines, '\n') + 1
		if next > len(name) && bytes.EqualFold(lines[:len(name)], []byte(name)) {
			length, err = strconv.Atoi(string(bytes.TrimSpace(lines[len(name):next])))
			return at + 4, length, err
		}
		lines = lines[next:]
	}
	return 0, 0, errors.New("answered without a Content-Length")
}

// parseAnswer finds the end of a small answer, and checks whose it is. The end is zero while it is not whole.
func parseAnswer(b []byte, letter byte) (end int, err error) {
	head, length, err := parseHead(b)
	if err != nil || head == 0 || len(b) < head+length {
		return 0, err
	}
	end = head + length
	if length != answerBody || b[head] != letter || b[end-1] != letter {
		return 0, fmt.Errorf("answered %q, want %d times %q", b[head:end], answerBody, letter)
	}
	return end, nil
}
