package plugin

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/detour-dev/detour/api"
)

// TestConcerning has trouble everywhere, and asks about one thing.
func TestConcerning(t *testing.T) {
	f := healthy(t)
	f.board.Previews[0].Problem, f.board.Previews[0].State = &api.Problem{Message: "m"}, api.StateInvalid
	f.board.Services = append(f.board.Services, api.ServiceStatus{Name: "web", Problem: &api.Problem{Reason: "NoBaseline"}})
	f.board.Previews = append(f.board.Previews, api.PreviewStatus{
		Preview: "team-b/deployment/copy", Target: "api", Key: "pr-7", State: api.StateInvalid, Problem: &api.Problem{Message: "m"},
	})
	f.router = nil
	for p, want := range map[patient]string{
		{patientNamespace, "shop"}: "deployment/detour-router deployment/api-pr-42 team-b/deployment/copy service/web",
		{patientKey, "pr-42"}:      "deployment/detour-router deployment/api-pr-42",
		{patientKey, "pr-7"}:       "deployment/detour-router team-b/deployment/copy",
		{patientService, "api"}:    "deployment/detour-router deployment/api-pr-42 team-b/deployment/copy",
		{patientService, "web"}:    "deployment/detour-router service/web",
		{patientKey, "pr-43"}:      "deployment/detour-router",
	} {
		var objects []string
		for _, about := range f.concerning(p, diagnose(f)) {
			objects = append(objects, about.Object)
		}
		if got := strings.Join(objects, " "); got != want {
			t.Errorf("%v: %s, want %s", p, got, want)
		}
	}
}

func TestParsePatient(t *testing.T) {
	for argument, want := range map[string]patient{
		"": {patientNamespace, "shop"}, "api": {"", "api"}, "key/pr-42": {patientKey, "pr-42"},
		"service/api": {patientService, "api"}, "namespace/dev": {patientNamespace, "dev"},
	} {
		if got, err := parsePatient(argument, "shop"); err != nil || got != want {
			t.Errorf("%q: %v %v, want %v", argument, got, err, want)
		}
	}
	for _, argument := range []string{"pod/x", "key/", "/", "/x"} {
		if _, err := parsePatient(argument, "shop"); exitCode(err) != exitUsage {
			t.Errorf("%q: %v", argument, err)
		}
	}
}

// TestDiagnosisPrints compares with testdata/doctor; -update writes it.
func TestDiagnosisPrints(t *testing.T) {
	f := healthy(t)
	f.router.Status.AvailableReplicas = 0
	f.pods[0].Spec.InitContainers = nil
	f.board.Previews[0].State = api.StateExpired
	f.board.Previews[0].Problem = &api.Problem{Reason: "Expired", Message: "deployment/api-pr-42 has expired at 2026-01-01T00:00:00Z"}
	f.board.Notices.Notices = []api.Notice{{Object: "Service/api", Reason: "SessionAffinity", Message: "Service api has sessionAffinity: ClientIP"}}
	f.unread = []unread{{subjectQuotas, askForRole}, {subjectSecret, askAdmin}}
	sick := diagnosis{"shop", diagnose(f), f.unread}
	well := diagnosis{"shop", []finding{}, nil}
	for file, print := range map[string]func(*bytes.Buffer) error{
		"sick.txt":  func(b *bytes.Buffer) error { sick.print(b); return nil },
		"sick.yaml": func(b *bytes.Buffer) error { return printObject(b, "yaml", sick) },
		"sick.json": func(b *bytes.Buffer) error { return printObject(b, "json", sick) },
		"well.txt":  func(b *bytes.Buffer) error { well.print(b); return nil },
		"well.json": func(b *bytes.Buffer) error { return printObject(b, "json", well) },
	} {
		var got bytes.Buffer
		if err := print(&got); err != nil {
			t.Fatal(err)
		}
		file = "testdata/doctor/" + file
		if *update {
			if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
	}
}
