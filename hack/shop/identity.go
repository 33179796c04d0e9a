package main

import (
	"context"
	"net/http"
)

// newIdentity knows who is shopping.
func newIdentity(cfg config) http.Handler {
	s := &service{cfg: cfg, answer: func(context.Context, string) (answer, error) {
		return answer{User: "Ada"}, nil
	}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.serveJSON)
	return s.handler(mux)
}
