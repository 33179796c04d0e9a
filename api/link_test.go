package api

import "testing"

func TestGatewayURLs(t *testing.T) {
	n := HostName{Key: "pr-42", Service: "frontend", Namespace: "shop"}
	for gateway, want := range map[string][2]string{
		"https://preview.example.com":    {"https://pr-42--frontend--shop.preview.example.com/", "https://detour.preview.example.com"},
		"http://preview.localhost:18080": {"http://pr-42--frontend--shop.preview.localhost:18080/", "http://detour.preview.localhost:18080"},
	} {
		if got := [2]string{PreviewURL(gateway, n), GatewayURL(gateway)}; got != want {
			t.Errorf("%s: %v, want %v", gateway, got, want)
		}
	}
}
