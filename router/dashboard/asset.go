package dashboard

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed assets pages
var files embed.FS

// assets are the files that pages refer to, by a name with a hash of the content in it, so that a browser may keep them.
var assets, assetNames = hashAssets()

// pages are rendered by name: "namespace.html".
var pages = template.Must(template.New("").
	Funcs(template.FuncMap{
		"asset":  func(name string) string { return "/assets/" + assetNames[name] },
		"word":   stateWord,
		"plural": func(n int, noun string) string { return plural(uint64(n), noun) },
		"count":  plural,
		"host":   func(url string) string { return strings.Trim(url[strings.Index(url, "//"):], "/") },
		"iso":    func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"clock":  func(t time.Time) string { return t.UTC().Format(time.TimeOnly) },
		"day":    func(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") },
	}).
	ParseFS(files, "pages/*.html"))

func hashAssets() (contents map[string][]byte, names map[string]string) {
	contents, names = map[string][]byte{}, map[string]string{}
	found, err := fs.Glob(files, "assets/*")
	if err != nil {
		panic(err) // the pattern is well-formed
	}
	for _, file := range found {
		content, err := files.ReadFile(file)
		if err != nil {
			panic(err) // it is part of the program
		}
		sum := sha256.Sum256(content)
		base, ext := path.Base(file), path.Ext(file)
		name := strings.TrimSuffix(base, ext) + "." + base64.RawURLEncoding.EncodeToString(sum[:9]) + ext
		contents[name], names[base] = content, name
	}
	return contents, names
}

func serveAsset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	content, found := assets[name]
	if !found {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
}
