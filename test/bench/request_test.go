package main

import (
	"strings"
	"testing"
)

func TestGet(t *testing.T) {
	head := string(get())
	if n := strings.Count(head, "\r\n"); n != 12 {
		t.Errorf("%d lines, want the request line, ten headers and an empty one", n)
	}
	if len(head) < 550 || len(head) > 650 {
		t.Errorf("%d bytes, want about 600", len(head))
	}
}

func TestParseAnswer(t *testing.T) {
	body := strings.Repeat("a", answerBody)
	whole := "HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 128\r\n\r\n" + body
	for n := range len(whole) {
		if end, err := parseAnswer([]byte(whole[:n]), appLetter); end != 0 || err != nil {
			t.Fatalf("%d bytes of it: end %d, error %v", n, end, err)
		}
	}
	if end, err := parseAnswer([]byte(whole+"HTTP"), appLetter); end != len(whole) || err != nil {
		t.Errorf("end %d, error %v, want %d", end, err, len(whole))
	}
	for name, answer := range map[string]string{
		"another status": strings.Replace(whole, "200 OK", "503 No", 1),
		"no length":      strings.Replace(whole, "content-length", "x", 1),
		"bad length":     strings.Replace(whole, "128", "1x8", 1),
		"short body":     strings.Replace(whole, "128", "127", 1),
		"the preview's":  strings.ReplaceAll(whole, body, strings.Repeat("p", answerBody)),
	} {
		if _, err := parseAnswer([]byte(answer), appLetter); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
