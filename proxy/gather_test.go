package proxy

import (
	"io"
	"testing"
)

// FuzzCopy makes copies of whatever HTTP/1 requests would be copied, and writes those that can be.
func FuzzCopy(f *testing.F) {
	f.Add("GET /a%zz HTTP/1.1\r\nHost: x\r\n\r\n", "")
	f.Add("POST http://u:p@[::1]:80/?# HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n", "1\r\na\r\n0\r\nA: b\r\n\r\n")
	f.Add("PRI * HTTP/1.1\r\nHost:\r\nConnection: , x\r\n\r\n", "")
	f.Add("\"A\" y:z HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n", "abc")
	to := sharing(percentOf(f, "a", "1")).ports[80].routes["a"]
	f.Fuzz(func(t *testing.T, text, body string) {
		end := headEnd([]byte(text), 0)
		if head := readRequest([]byte(text[:end])); end == 0 || head.doubt != "" || head.connect {
			return
		}
		req, err := (&gathered{to: to, head: []byte(text[:end]), body: []byte(body)}).request()
		if err != nil {
			return
		}
		if err := req.Write(io.Discard); err == nil && req.Header.Get("Detour-Mirror") != "a" {
			t.Errorf("%q does not say what it is: %v", text, req.Header)
		}
	})
}
