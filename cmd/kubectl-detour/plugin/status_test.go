package plugin

import (
	"strings"
	"testing"
	"time"

	"github.com/detour-dev/detour/api"
)

func TestReportTellsTimeToLive(t *testing.T) {
	var r report
	r.PreviewStatus = api.PreviewStatus{Preview: "deployment/api-pr-42", Created: time.Now()}
	if text := r.text(); strings.Contains(text, "expires") {
		t.Errorf("without a time to live:\n%s", text)
	}
	r.Expires = time.Now().Add(72 * time.Hour)
	if text, want := r.text(), "  expires   "+r.Expires.Format(time.RFC3339)+"\n"; !strings.Contains(text, want) {
		t.Errorf("with one:\n%swant %q", text, want)
	}
}
