package webhook

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/detour-dev/detour/api"
)

func TestNoticesText(t *testing.T) {
	pod := func(name string) corev1.ObjectReference { return corev1.ObjectReference{Kind: "Pod", Name: name} }
	notices := []notice{
		remark(pod("b"), "A", "said"), warning(pod("b"), "Z", "warned"), warning(pod("a"), "Z", "warned"), warning(pod("a"), "Z", "warned"),
	}
	want := api.Notices{Notices: []api.Notice{
		{Object: "Pod/a", Warning: true, Reason: "Z", Message: "warned"},
		{Object: "Pod/b", Warning: true, Reason: "Z", Message: "warned"},
		{Object: "Pod/b", Reason: "A", Message: "said"},
	}}
	if diff := cmp.Diff(want, readNotices(t, noticesText(notices))); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if got := noticesText(nil); got != "{}\n" {
		t.Errorf("without notices %q, want an empty object", got)
	}
	for i := range 1000 {
		notices = append(notices, warning(pod(fmt.Sprint("pod-", i)), "Z", "%0600d", 0))
	}
	text := noticesText(notices)
	if got := readNotices(t, text); len(got.Notices) != maxNotices || got.More != 903 || len(text) > 100_000 {
		t.Errorf("%d notices and %d more in %d bytes, want %d and 903", len(got.Notices), got.More, len(text), maxNotices)
	}
}

func readNotices(t *testing.T, text string) api.Notices {
	t.Helper()
	var notices api.Notices
	if err := json.Unmarshal([]byte(text), &notices); err != nil {
		t.Fatal(err)
	}
	return notices
}

// The board writes beside the router, now and then, and again what somebody has changed.
func TestBoard(t *testing.T) {
	status := ourConfigMap("shop", api.ConfigMapStatus)
	status.Data = map[string]string{api.ConfigMapStatusKey: "the router's"}
	c := shop(true)
	now := time.Unix(1000, 0)
	b := newBoard(c, func() time.Time { return now })
	notices := serviceNotices([]corev1.Service{func() corev1.Service { s := testService("api", "80"); s.Spec.ClusterIP = "None"; return s }()})
	post := func(step string, notices []notice, wait time.Duration, want string) {
		t.Helper()
		got, err := b.post(t.Context(), "shop", notices)
		if err != nil || got != wait {
			t.Errorf("%s: comes again after %v with error %v, want %v", step, got, err, wait)
		}
		var cm corev1.ConfigMap
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(&status), &cm); client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
		if got := cm.Data[api.ConfigMapNoticesKey]; got != want {
			t.Errorf("%s: there is %q, want %q", step, got, want)
		}
	}
	post("without a ConfigMap", notices, askAgain, "")
	if err := c.Create(t.Context(), &status); err != nil {
		t.Fatal(err)
	}
	text := noticesText(notices)
	post("the first", notices, lookAgain, text)
	now = now.Add(time.Second)
	post("the same", notices, lookAgain-time.Second, text)
	post("a change too soon", nil, settling-time.Second, text)
	now = now.Add(settling)
	post("a change", nil, lookAgain, "{}\n")
	checkConfigMap(t, c, api.ConfigMapStatus, map[string]string{api.ConfigMapStatusKey: "the router's", api.ConfigMapNoticesKey: "{}\n"})

	status.Data = nil
	mustUpdate(t, c, &status)
	now = now.Add(lookAgain)
	post("what somebody has removed", nil, lookAgain, "{}\n")
	b.forget("shop")
	post("a namespace that has come back", notices, lookAgain, text)
}
