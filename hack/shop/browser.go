package main

import (
	"fmt"
	"io"
	"net/http"
	"time"
)

// addBrowsing adds what browsers do beside asking for pages: log in, upload, follow a stream.
func (s *service) addBrowsing(mux *http.ServeMux) {
	mux.HandleFunc("POST /login", logIn)
	mux.HandleFunc("GET /me", greet)
	mux.HandleFunc("POST /upload", countUpload)
	mux.HandleFunc("GET /events", streamEvents)
	mux.HandleFunc("GET /ws", s.serveEcho)
}

// canonicalHost is how the shop knows itself, as many applications do that have one address only.
const canonicalHost = "frontend.shop.svc.cluster.local"

func logIn(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{Name: "user", Value: "Ada", Domain: canonicalHost, Path: "/", HttpOnly: true})
	http.Redirect(w, r, "http://"+canonicalHost+"/me", http.StatusSeeOther)
}

func greet(w http.ResponseWriter, r *http.Request) {
	user := "nobody"
	if cookie, err := r.Cookie("user"); err == nil {
		user = cookie.Value
	}
	fmt.Fprintf(w, "Hello, %q\n", user)
}

func countUpload(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintln(w, n)
}

// streamEvents sends three events in a second (server-sent events of the HTML standard).
func streamEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	for i := range 3 {
		fmt.Fprintf(w, "data: %d\n\n", i)
		_ = rc.Flush() // the client has gone, which the next turn sees
		select {
		case <-r.Context().Done():
			return
		case <-time.After(400 * time.Millisecond):
		}
	}
}
