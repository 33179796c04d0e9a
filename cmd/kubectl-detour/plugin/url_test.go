package plugin

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/detour-dev/detour/api"
)

// town is a cluster's API server and gateway, as far as links go, each behind a socket of its own.
type town struct {
	kube, gateway *httptest.Server
	domain        string // and the port of the gateway
	status        api.Status
	tokenCode     int                       // the API server's answer to who asks for a token
	link          func(http.ResponseWriter) // the gateway's answer, in the place of a link
	asked         []api.LinkRequest         // of the gateway
	tokens        []string                  // that it was shown
	page          func(http.ResponseWriter) // the gateway's page of the namespace for programs; nil when there is none
	signatures    []string                  // that it was asked with
}

func newTown(t *testing.T) *town {
	town := &town{tokenCode: http.StatusCreated}
	town.gateway = httptest.NewServer(http.HandlerFunc(town.serveGateway))
	t.Cleanup(town.gateway.Close)
	town.domain = strings.Replace(town.gateway.Listener.Addr().String(), "127.0.0.1", "preview.localhost", 1)
	preview := func(target, key string, state api.State) api.PreviewStatus {
		return api.PreviewStatus{Preview: "deployment/" + target + "-" + key, Target: target, Key: key, State: state, Created: time.Now()}
	}
	town.status = api.Status{
		Gateway: "http://" + town.domain,
		Previews: []api.PreviewStatus{
			preview("api", "pr-42", api.StateRouted), preview("api", "pr-43", api.StateRouted), preview("web", "pr-43", api.StateExpired),
		},
	}
	town.status.Previews[0].Commit = "3f2c1ab0c9"
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/namespaces/shop/configmaps/detour-status", func(w http.ResponseWriter, _ *http.Request) {
		content, _ := json.Marshal(town.status)
		answerKube(w, http.StatusOK, corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop"}, Data: map[string]string{api.ConfigMapStatusKey: string(content)}})
	})
	mux.HandleFunc("GET /api/v1/namespaces/shop/services", func(w http.ResponseWriter, _ *http.Request) {
		list := corev1.ServiceList{}
		for _, name := range []string{"api", "web"} {
			list.Items = append(list.Items, corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop"},
				Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Port: 80}}},
			})
		}
		answerKube(w, http.StatusOK, list)
	})
	mux.HandleFunc("POST /api/v1/namespaces/shop/serviceaccounts/detour-links/token", func(w http.ResponseWriter, r *http.Request) {
		if town.tokenCode != http.StatusCreated {
			reason := map[int]metav1.StatusReason{http.StatusForbidden: metav1.StatusReasonForbidden, http.StatusNotFound: metav1.StatusReasonNotFound}
			answerKube(w, town.tokenCode, metav1.Status{Status: metav1.StatusFailure, Code: int32(town.tokenCode), Reason: reason[town.tokenCode]})
			return
		}
		content, _ := io.ReadAll(r.Body) // as protobuf
		token := "for another audience"
		if bytes.Contains(content, []byte(api.Audience)) {
			token = "of-detour-links"
		}
		answerKube(w, http.StatusCreated, authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{Token: token}})
	})
	town.kube = httptest.NewServer(mux)
	t.Cleanup(town.kube.Close)
	return town
}

func answerKube(w http.ResponseWriter, code int, object any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(object)
}

func (town *town) serveGateway(w http.ResponseWriter, r *http.Request) {
	if town.page != nil && r.Method == http.MethodGet && r.RequestURI == "/namespaces/shop/status.json" {
		town.signatures = append(town.signatures, r.Header.Get(api.HeaderSignature))
		town.page(w)
		return
	}
	if !strings.HasPrefix(r.Host, "detour.preview.localhost:") || r.Method != http.MethodPost || r.URL.Path != "/v1/links" {
		http.Error(w, r.Method+" "+r.Host+r.URL.Path, http.StatusTeapot)
		return
	}
	var request api.LinkRequest
	_ = json.NewDecoder(r.Body).Decode(&request)
	town.asked = append(town.asked, request)
	town.tokens = append(town.tokens, r.Header.Get("Authorization"))
	if town.link != nil {
		town.link(w)
		return
	}
	url := api.PreviewURL(town.status.Gateway, api.HostName{Key: request.Key, Service: request.Service, Namespace: request.Namespace})
	if request.Key == "" {
		url = api.GatewayURL(town.status.Gateway) + api.PathNamespaces + request.Namespace
	}
	_ = json.NewEncoder(w).Encode(api.Link{URL: url + "?detour-signature=1.x", Expires: time.Unix(1, 0).UTC()})
}

// detour runs the plugin. HOST in its output stands for the domain and the port of the town's gateway.
func (town *town) detour(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	t.Setenv("KUBECONFIG", os.DevNull)
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1") // what is local goes past it
	var stdout, stderr bytes.Buffer
	streams := genericiooptions.IOStreams{In: strings.NewReader(""), Out: &stdout, ErrOut: &stderr}
	code = Run(t.Context(), Name, append(args, "--server", town.kube.URL, "-n", "shop"), streams)
	return code, strings.ReplaceAll(stdout.String(), town.domain, "HOST"), strings.ReplaceAll(stderr.String(), town.domain, "HOST")
}

func TestURL(t *testing.T) {
	refuse := func(code int, reason, message string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set(api.HeaderError, reason)
			w.WriteHeader(code)
			fmt.Fprintf(w, `{"error": %q}`, message)
		}
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("of-ci\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(town *town) { town.status.GatewayOpen = true }
	for name, c := range map[string]struct {
		args        string
		change      func(*town)
		code        int
		out, errOut string
		asked       api.LinkRequest
		token       string
	}{
		"the only target": {args: "pr-42", out: "http://pr-42--api--shop.HOST/?detour-signature=1.x\n", asked: api.LinkRequest{Key: "pr-42", Service: "api", Namespace: "shop"}},
		"another Service": {args: "pr-42 --service web --share 2h", out: "http://pr-42--web--shop.HOST/?detour-signature=1.x\n", asked: api.LinkRequest{Key: "pr-42", Service: "web", Namespace: "shop", Seconds: 7200}},
		"several targets": {args: "pr-43", code: exitUsage, errOut: "choose the one to enter with --service api or --service web"},
		"a commit":        {args: "3f2c1ab", out: "http://3f2c1ab--api--shop.HOST/?", asked: api.LinkRequest{Key: "3f2c1ab", Service: "api", Namespace: "shop"}},
		"no commit":       {args: "3f2c1a", code: 3, errOut: `no preview in namespace shop has the key "3f2c1a"`},
		"one of several":  {args: "pr-43 --service web", out: "http://pr-43--web--shop.HOST/?", asked: api.LinkRequest{Key: "pr-43", Service: "web", Namespace: "shop"}},
		"no preview":      {args: "pr-44 --service web", code: exitNotFound, errOut: `no preview in namespace shop has the key "pr-44"`},
		"no Service":      {args: "pr-42 --service wen", code: exitNotFound, errOut: `no Service "wen": it has api, web`},
		"JSON":            {args: "pr-42 -o json", out: "HOST/?detour-signature=1.x\",\n  \"expires\": \"1970-01-01T00:00:01Z\"\n}", asked: api.LinkRequest{Key: "pr-42", Service: "api", Namespace: "shop"}},
		"dashboard":       {args: "--dashboard", out: "http://detour.HOST/namespaces/shop?detour-signature=1.x\n", asked: api.LinkRequest{Namespace: "shop"}},
		"another's token": {args: "pr-42 --token-file " + token, change: func(town *town) { town.tokenCode = http.StatusForbidden }, out: "?detour-signature=1.x", asked: api.LinkRequest{Key: "pr-42", Service: "api", Namespace: "shop"}, token: "Bearer of-ci"},

		"open":                  {args: "pr-42", change: open, out: "http://pr-42--api--shop.HOST/\n"},
		"open, with a time":     {args: "pr-42 --share 2h -o json", change: open, out: "{\n  \"url\": \"http://pr-42--api--shop.HOST/\"\n}\n", errOut: "note: the gateway lets everyone in"},
		"the open dashboard":    {args: "--dashboard", change: open, out: "http://detour.HOST/namespaces/shop\n"},
		"no gateway":            {args: "pr-42", change: func(town *town) { town.status.Gateway = "" }, code: exitError, errOut: "its router runs without -gateway-url"},
		"no right to a token":   {args: "pr-42", change: func(town *town) { town.tokenCode = http.StatusForbidden }, code: exitError, errOut: "ask for the role detour-previews of manifests/roles, or bring another token"},
		"no ServiceAccount":     {args: "pr-42", change: func(town *town) { town.tokenCode = http.StatusNotFound }, code: exitError, errOut: "kubectl create serviceaccount detour-links -n shop\n  kubectl create rolebinding detour-links -n shop --clusterrole detour-links --serviceaccount shop:detour-links\n"},
		"no token":              {args: "pr-42 --token-file /nowhere", code: exitError, errOut: "reading the token: open /nowhere"},
		"too long":              {args: "pr-42 --share 721h", code: exitUsage, errOut: "--share 721h0m0s: use 1s to 720h0m0s"},
		"too short":             {args: "pr-42 --share 1ms", code: exitUsage, errOut: "--share 1ms"},
		"negative":              {args: "pr-42 --share=-1h", code: exitUsage, errOut: "--share -1h0m0s"},
		"no KEY":                {args: "", code: exitUsage, errOut: "takes one argument, KEY, and got 0"},
		"KEY and dashboard":     {args: "pr-42 --dashboard", code: exitUsage, errOut: `leave out "pr-42"`},
		"Service and dashboard": {args: "--service api --dashboard", code: exitUsage, errOut: "[dashboard service] were all set"},

		"may not list Pods": {args: "--dashboard", change: func(town *town) { town.link = refuse(403, "forbidden", "x may not") }, code: exitError, errOut: "the gateway gives no link: x may not; ask someone who may to run\n  kubectl create", asked: api.LinkRequest{Namespace: "shop"}},
		"no key":            {args: "--dashboard", change: func(town *town) { town.link = refuse(503, "no-signing-key", "there is no key") }, code: exitError, errOut: "error: the gateway gives no link: there is no key\n", asked: api.LinkRequest{Namespace: "shop"}},
		"someone in front": {args: "--dashboard", change: func(town *town) {
			town.link = func(w http.ResponseWriter) {
				w.Header().Set("Location", town.status.Gateway+"/v1/links")
				w.WriteHeader(http.StatusFound)
			}
		}, code: exitError, errOut: "answers 302 Found, which is not the gateway's answer", asked: api.LinkRequest{Namespace: "shop"}},
		"leads elsewhere": {args: "--dashboard", change: func(town *town) {
			town.link = func(w http.ResponseWriter) { fmt.Fprint(w, `{"url": "file:///etc/passwd"}`) }
		}, code: exitError, errOut: `a link to "file:///etc/passwd", and was asked for one to http://detour.HOST/namespaces/shop`, asked: api.LinkRequest{Namespace: "shop"}},
		"without end": {args: "--dashboard", change: func(town *town) {
			town.link = func(w http.ResponseWriter) { fmt.Fprint(w, `{"url": "`+strings.Repeat("x", maxLink)+`"}`) }
		}, code: exitError, errOut: "answers 200 OK, which is not the gateway's answer", asked: api.LinkRequest{Namespace: "shop"}},
		"nobody": {args: "--dashboard", change: func(town *town) { town.gateway.Close() }, code: exitError, errOut: "asking the gateway for a link: Post "},
	} {
		t.Run(name, func(t *testing.T) {
			town := newTown(t)
			if c.change != nil {
				c.change(town)
			}
			code, out, errOut := town.detour(t, append([]string{"url"}, strings.Fields(c.args)...)...)
			if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(errOut, c.errOut) || (c.out == "") != (out == "") {
				t.Errorf("code %d, want %d; stdout is to have %q, stderr %q\nstdout:\n%s\nstderr:\n%s", code, c.code, c.out, c.errOut, out, errOut)
			}
			var want []api.LinkRequest
			if c.asked != (api.LinkRequest{}) {
				want = append(want, c.asked)
			}
			if fmt.Sprint(town.asked) != fmt.Sprint(want) {
				t.Errorf("the gateway is asked for %v, want %v", town.asked, want)
			}
			for _, got := range town.tokens {
				if want := cmp.Or(c.token, "Bearer of-detour-links"); got != want {
					t.Errorf("the gateway is shown %q, want %q", got, want)
				}
			}
		})
	}
}

// TestOpen has a program in the place of the one that desktops open URLs with.
func TestOpen(t *testing.T) {
	bin := t.TempDir()
	opened := filepath.Join(bin, "opened")
	if err := os.WriteFile(filepath.Join(bin, "xdg-open"), []byte("#!/bin/sh\necho said; printf %s \"$1\" >"+opened+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	town := newTown(t)
	t.Setenv("PATH", bin)
	code, out, errOut := town.detour(t, "open", "pr-42")
	if code != 0 || out != "" {
		t.Errorf("code %d, %s%s", code, out, errOut)
	}
	got, _ := os.ReadFile(opened)
	if want := api.PreviewURL(town.status.Gateway, api.HostName{Key: "pr-42", Service: "api", Namespace: "shop"}) + "?detour-signature=1.x"; string(got) != want {
		t.Errorf("%q was opened, want %s", got, want)
	}
	t.Setenv("PATH", t.TempDir())
	if code, _, errOut := town.detour(t, "open", "pr-42"); code != exitError || !strings.Contains(errOut, "kubectl detour url prints the URL") {
		t.Errorf("without a browser: code %d, %s", code, errOut)
	}
}

func TestBoardURLs(t *testing.T) {
	town := newTown(t)
	if code, out, errOut := town.detour(t, "list", "-o", "wide"); code != 0 || strings.Count(out, "HOST/") != 2 || !strings.Contains(out, "http://pr-42--api--shop.HOST/") {
		t.Errorf("code %d\n%s%s", code, out, errOut)
	}
	b := &board{namespace: "shop", Status: town.status}
	for key, want := range map[string]string{"pr-42": api.PreviewURL(b.Gateway, api.HostName{Key: "pr-42", Service: "api", Namespace: "shop"}), "pr-43": "", "pr-44": ""} {
		if got := b.onlyURL(key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	b.Gateway = ""
	if got := b.onlyURL("pr-42"); got != "" {
		t.Errorf("without a gateway: %q", got)
	}
}

// FuzzReadLink: whatever is in the gateway's place, there is a link or an error that says whose answer it was.
func FuzzReadLink(f *testing.F) {
	f.Add(200, "", `{"url": "https://x.test/"}`)
	f.Add(403, "forbidden", `{"error": "no"}`)
	f.Add(200, "", `{"url": 1, "expires": "never"}`)
	f.Fuzz(func(t *testing.T, code int, reason, body string) {
		answer := &http.Response{StatusCode: code, Header: http.Header{api.HeaderError: {reason}}, Body: io.NopCloser(strings.NewReader(body))}
		link, err := readLink(answer, "https://detour.test/v1/links")
		if err == nil && code != http.StatusOK || err != nil && link != (api.Link{}) {
			t.Errorf("%v, %v", link, err)
		}
	})
}
