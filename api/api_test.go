package api

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestSidecarRoundTrip(t *testing.T) {
	want := Sidecar{
		Ports:     []TakenPort{{"http", 15401, 8080}, {PortName(9000), 15402, 9000}},
		AdminPort: 15400,
		Router:    "https://detour-router.detour-system.svc:8443",
		Namespace: "shop",
		Pod:       "api-0",
		PodIPs:    []netip.Addr{netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("fd00::7")},

		ClientAddress: ClientForwarded,
		Grace:         90 * time.Second,
	}
	env := map[string]string{EnvNamespace: "shop", EnvPod: "api-0", EnvPodIPs: "10.0.0.7,fd00::7"}
	for _, e := range want.Env() {
		env[e[0]] = e[1]
	}
	got, err := ParseSidecar(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestParseSidecarNamesTheVariable(t *testing.T) {
	good := map[string]string{
		EnvPorts: "http:15401:8080", EnvAdminPort: "15400", EnvRouter: "https://r:1", EnvPodIPs: "10.0.0.7",
	}
	for name, bad := range map[string]string{
		EnvPorts: "http:0:8080", EnvAdminPort: "70000", EnvRouter: "http://r", EnvPodIPs: "nonsense",
		EnvClientAddress: "x-real-ip", EnvGrace: "soon",
	} {
		_, err := ParseSidecar(func(n string) string {
			if n == name {
				return bad
			}
			return good[n]
		})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%q: error %v does not name it", name, bad, err)
		}
	}
}

func TestParsePortPairs(t *testing.T) {
	for text, want := range map[string][]PortPair{
		"8080:9090":          {{PortRef{Number: 8080}, PortRef{Number: 9090}}},
		"http:web, 9000:rpc": {{PortRef{Name: "http"}, PortRef{Name: "web"}}, {PortRef{Number: 9000}, PortRef{Name: "rpc"}}},
		"1:65535":            {{PortRef{Number: 1}, PortRef{Number: 65535}}},
	} {
		if got, err := ParsePortPairs(text); !cmp.Equal(want, got) || err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for text, bad := range map[string]string{
		"":                      `""`,
		"8080":                  `"8080"`,
		"8080:9090,":            `""`,
		"8080:9090;81:82":       `"9090;81:82"`,
		"80:1,8080:0":           `"0"`,
		"65536:1":               `"65536"`,
		"-1:1":                  `"-1"`,
		"http:Web":              `"Web"`,
		"http: web":             `" web"`,
		"a-name-far-too-long:1": `"a-name-far-too-long"`,
		":1":                    `""`,
		"1:ü":                   `"ü"`,
	} {
		if got, err := ParsePortPairs(text); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v, error %v, want one that names %s", text, got, err, bad)
		}
	}
	if _, err := ParsePortPairs(strings.Repeat("x", 100_000)); err == nil || len(err.Error()) > 300 {
		t.Errorf("a long value makes an error of %d bytes", len(err.Error()))
	}
}

// FuzzParsePortPairs checks that what is accepted can be written down and read again.
func FuzzParsePortPairs(f *testing.F) {
	f.Add("8080:9090,http:web")
	f.Add("1:,:1,::")
	f.Fuzz(func(t *testing.T, text string) {
		pairs, err := ParsePortPairs(text)
		if err != nil {
			return
		}
		var parts []string
		for _, p := range pairs {
			parts = append(parts, p.Target.String()+":"+p.Preview.String())
		}
		if again, err := ParsePortPairs(strings.Join(parts, ",")); !cmp.Equal(pairs, again) || err != nil {
			t.Errorf("%q is read as %v, and then as %v, %v", text, pairs, again, err)
		}
	})
}

func TestOriginalPort(t *testing.T) {
	for name, want := range map[string]uint16{
		"detour-8080": 8080, "detour-65535": 65535, "detour-0": 0, "detour-65536": 0, "detour-080": 0,
		"detour-": 0, "detour-+1": 0, "8080": 0, "http": 0, "detour-metrics": 0,
	} {
		got, ok := OriginalPort(name)
		if got != want || ok != (want != 0) {
			t.Errorf("OriginalPort(%q) = %d, %v, want %d", name, got, ok, want)
		}
	}
}

func TestTableVersion(t *testing.T) {
	table := Table{Ports: []Port{{Port: 8080, Routes: []Route{{
		Key: "pr-42", Preview: "deployment/api-pr-42",
		Endpoints: []Endpoint{{Pod: "shop/api-pr-42-x", Address: netip.MustParseAddrPort("10.0.0.9:8080")}},
	}}}}}
	version := table.Hash()
	table.Version = version
	b, err := json.Marshal(table)
	if err != nil {
		t.Fatal(err)
	}
	var back Table
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if back.Hash() != version {
		t.Errorf("the version changed from %s to %s on the way", version, back.Hash())
	}
	back.Ports[0].Routes[0].Key = "pr-43"
	if back.Hash() == version {
		t.Error("another table has the same version")
	}
}

func TestTableCheck(t *testing.T) {
	for name, bad := range map[string]Table{
		"no port":      {Ports: []Port{{}}},
		"port twice":   {Ports: []Port{{Port: 1}, {Port: 1}}},
		"protocol":     {Ports: []Port{{Port: 1, Protocol: "quic"}}},
		"key":          {Ports: []Port{{Port: 1, Routes: []Route{{Key: "a b"}}}}},
		"key twice":    {Ports: []Port{{Port: 1, Routes: []Route{{Key: "a"}, {Key: "a"}}}}},
		"no address":   {Ports: []Port{{Port: 1, Routes: []Route{{Key: "a", Endpoints: []Endpoint{{Pod: "x"}}}}}}},
		"address port": {Ports: []Port{{Port: 1, Routes: []Route{{Key: "a", Endpoints: []Endpoint{{Address: netip.MustParseAddrPort("1.2.3.4:0")}}}}}}},
	} {
		if bad.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := (Table{}).Check(); err != nil {
		t.Errorf("an empty table is refused: %v", err)
	}
}
