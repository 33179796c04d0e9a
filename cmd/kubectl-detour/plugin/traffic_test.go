package plugin

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/detour-dev/detour/api"
)

func TestStatusTellsTraffic(t *testing.T) {
	said := func(traffic string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			fmt.Fprintf(w, `{"previews": [
				{"preview": "deployment/web-pr-43", "key": "pr-43", "traffic": {"requests": 1000, "errors": 1000}},
				{"preview": "deployment/api-pr-42", "key": "pr-42", "traffic": %s}, {"preview": "deployment/api-pr-42"}]}`, traffic)
		}
	}
	ago := func(d time.Duration) string {
		return fmt.Sprintf(`{"requests": 7, "errors": 2, "last": %q}`, time.Now().Add(-d).Format(time.RFC3339))
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("of-ci\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const line, couldNot = "  requests  ", "note: the router alone knows what was requested last, and could not be asked: "
	for name, c := range map[string]struct {
		args   string
		change func(*town)
		page   func(http.ResponseWriter)
		out    string // "" is a status without requests
		errOut string
		signed string // the signature that the page is asked for with
	}{
		"by a link":     {page: said(ago(3 * time.Minute)), out: line + "7, 2 of them not answered by it; the last 3m ago\n", signed: "1.x"},
		"nothing yet":   {page: said(`{"requests": 0, "errors": 0}`), out: line + "0\n", signed: "1.x"},
		"older proxies": {page: said(`{"requests": 7, "errors": 0}`), out: line + "7\n", signed: "1.x"},
		"a clock ahead": {page: said(ago(-time.Hour)), out: "; the last 0s ago\n", signed: "1.x"},
		"JSON":          {args: "-o json", page: said(`{"requests": 7, "errors": 2, "last": "2026-01-02T03:04:05Z"}`), out: `"last": "2026-01-02T03:04:05Z"`, signed: "1.x"},
		"open":          {change: func(town *town) { town.status.GatewayOpen, town.tokenCode = true, 403 }, page: said(ago(3 * time.Minute)), out: "; the last 3m ago\n"},

		"another preview": {page: func(w http.ResponseWriter) {
			fmt.Fprint(w, `{"previews": [{"preview": "deployment/api-pr-42", "key": "pr-44"}]}`)
		}, signed: "1.x"},
		"no gateway": {change: func(town *town) { town.status.Gateway = "" },
			errOut: couldNot + "it runs without -gateway-url, so that only Pods reach it, at https://detour-router.detour-system:8443/v1/status/shop with a token of the audience detour.dev/router\n"},
		"another's token":     {args: "--token-file " + token, change: func(town *town) { town.tokenCode = http.StatusForbidden }, page: said(ago(3 * time.Minute)), out: "; the last 3m ago\n", signed: "1.x"},
		"no right to a token": {change: func(town *town) { town.tokenCode = http.StatusForbidden }, errOut: couldNot + "you may not have tokens of ServiceAccount detour-links of namespace shop"},
		"no ServiceAccount":   {change: func(town *town) { town.tokenCode = http.StatusNotFound }, errOut: "kubectl create serviceaccount detour-links -n shop\n"},
		"nobody":              {change: func(town *town) { town.gateway.Close() }, errOut: couldNot + "asking the gateway for a link: Post "},
		"nonsense":            {page: func(w http.ResponseWriter) { fmt.Fprint(w, "<html>") }, errOut: couldNot + "http://detour.HOST/namespaces/shop/status.json answers 200 OK, which is not the gateway's answer\n", signed: "1.x"},
		"a refusal":           {page: func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden); fmt.Fprint(w, "{}") }, errOut: "answers 403 Forbidden", signed: "1.x"},
	} {
		t.Run(name, func(t *testing.T) {
			town := newTown(t)
			town.page = c.page
			if c.change != nil {
				c.change(town)
			}
			code, out, errOut := town.detour(t, append([]string{"status", "pr-42"}, strings.Fields(c.args)...)...)
			if code != 0 || !strings.Contains(out, "deployment/api-pr-42") || !strings.Contains(out, c.out) || c.out == "" && strings.Contains(out, line) {
				t.Errorf("code %d; stdout is to have %q:\n%s", code, c.out, out)
			}
			if !strings.Contains(errOut, c.errOut) || c.errOut == "" && errOut != "" {
				t.Errorf("stderr is to have %q:\n%s", c.errOut, errOut)
			}
			var want []string
			if c.page != nil {
				want = []string{c.signed}
			}
			if !slices.Equal(town.signatures, want) {
				t.Errorf("the page is asked for with %q, want %q", town.signatures, want)
			}
			if strings.Contains(out+errOut, "1000") || len(town.asked) > 1 || len(town.asked) == 1 && town.asked[0] != (api.LinkRequest{Namespace: "shop"}) {
				t.Errorf("asked for %v\n%s%s", town.asked, out, errOut)
			}
		})
	}
}
