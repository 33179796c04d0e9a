// Command reverseproxy is net/http's reverse proxy, tuned, as a peer in the benchmark. It sends requests whose
// Detour-Key is the one of -key to -preview and all others to -app.
//
//	reverseproxy -listen 127.0.0.1:9000 -app 127.0.0.1:8080 -preview 127.0.0.2:8080 -key pr-42 [-h2c]
package main

import (
	"flag"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"runtime/debug"
	"sync"
	"time"
)

func main() {
	listen := flag.String("listen", "", "the `address` to serve")
	app := flag.String("app", "", "the `address` for requests without the key")
	preview := flag.String("preview", "", "the `address` for requests with it")
	key := flag.String("key", "", "the `key`")
	h2c := flag.Bool("h2c", false, "speak HTTP/2 with prior knowledge instead of HTTP/1.1")
	flag.Parse()
	debug.SetGCPercent(400)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!*h2c)
	protocols.SetUnencryptedHTTP2(*h2c)
	server := &http.Server{
		Addr:      *listen,
		Protocols: protocols,
		Handler: &httputil.ReverseProxy{
			Rewrite:    rewrite(*app, *preview, *key),
			Transport:  transport(protocols),
			BufferPool: &buffers{sync.Pool{New: func() any { return make([]byte, 64<<10) }}},
			ErrorLog:   log.New(io.Discard, "", 0), // the driver sees the 502 and says so
		},
	}
	log.Fatal(server.ListenAndServe())
}

func rewrite(app, preview, key string) func(*httputil.ProxyRequest) {
	toApp := &url.URL{Scheme: "http", Host: app}
	toPreview := &url.URL{Scheme: "http", Host: preview}
	return func(r *httputil.ProxyRequest) {
		if r.In.Header.Get("Detour-Key") == key {
			r.SetURL(toPreview)
		} else {
			r.SetURL(toApp)
		}
		r.Out.Host = r.In.Host
	}
}

func transport(protocols *http.Protocols) *http.Transport {
	return &http.Transport{
		Protocols:           protocols,
		DisableCompression:  true,
		MaxIdleConnsPerHost: 8192,
		IdleConnTimeout:     5 * time.Minute,
	}
}

// buffers is a pool of what bodies are copied through.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte { return b.pool.Get().([]byte) }

//lint:ignore SA6002 what a slice costs, a pointer to one would cost in Get
func (b *buffers) Put(p []byte) { b.pool.Put(p) }
