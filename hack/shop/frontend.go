package main

import (
	_ "embed"
	"html/template"
	"log/slog"
	"net/http"
	"strings"
)

//go:embed page.html
var pageHTML string

// newFrontend shows what api answers: as a page to browsers, as JSON to programs.
func newFrontend(cfg config) (http.Handler, error) {
	api, err := newClient("api", cfg.API)
	if err != nil {
		return nil, err
	}
	page, err := template.New("page").Parse(pageHTML)
	if err != nil {
		return nil, err
	}
	s := &service{cfg: cfg, answer: api.get}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api", s.serveJSON)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Accept"), "text/html") {
			s.servePage(w, r, page)
			return
		}
		s.serveJSON(w, r)
	})
	s.addBrowsing(mux)
	return s.handler(mux), nil
}

// servePage answers browsers.
func (s *service) servePage(w http.ResponseWriter, r *http.Request, page *template.Template) {
	a, status := s.askHTTP(r)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if err := page.Execute(w, a); err != nil {
		slog.Debug("page not written", "error", err.Error())
	}
}
