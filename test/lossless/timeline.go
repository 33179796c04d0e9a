package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/test/lossless/result"
)

// step is a phase of the timeline. What is done in it has taken effect when do returns.
type step struct {
	name string
	do   func(context.Context) error
}

// detour's own namespace.
const system = "detour-system"

// timeline is what happens, in this order.
func (d *driver) timeline() []step {
	if d.brutal {
		return []step{
			{"steady", nothing},
			{"enabled", d.enable},
			{"previews", d.startPreviews},
			{"namespace deleted", d.deleteNamespace},
			{"rolled without Detour", d.rollAll},
			{"installed again", d.installAgain},
			{"uninstalled", d.uninstall},
			{"rolled at last", d.rollAll},
		}
	}
	return []step{
		{"steady", nothing},
		{"enabled", d.enable},
		{"previews", d.startPreviews},
		{"twenty previews", d.twentyPreviews},
		{"preview crashes", d.crashPreview},
		{"scaled up", func(ctx context.Context) error { return d.scale(ctx, 4) }},
		{"scaled down", func(ctx context.Context) error { return d.scale(ctx, 2) }},
		{"router killed", d.killRouter},
		{"router gone", d.removeRouter},
		{"webhook restarted", d.restartWebhook},
		{"webhook gone while web rolls", d.rollWithoutWebhook},
		{"certificates rotated", d.rotateCertificates},
		{"manifests applied again", d.applyAgain},
		{"uncovered Pod", d.forceUncovered},
		{"image not to be had", d.loseImage},
		{"image back", d.restoreImage},
		{"version before", d.downgrade},
		{"upgraded", d.upgrade},
		{"disabled", d.disable},
		{"enabled again", d.enable},
		{"uninstalled", d.uninstall},
		{"rolled at last", d.rollAll},
	}
}

func nothing(context.Context) error { return nil }

// enable opts the namespace in and rolls it. In the end the Services lead to the proxies.
func (d *driver) enable(ctx context.Context) error {
	if !d.control {
		if err := kubectl(ctx, "label", "namespace", namespace, api.LabelInject+"="+api.InjectEnabled); err != nil {
			return err
		}
	}
	if err := d.restart(ctx, apps...); err != nil {
		return err
	}
	return d.leads(ctx, true)
}

func (d *driver) rollAll(ctx context.Context) error { return d.restart(ctx, apps...) }

// stable are the keys of the previews that are there from the beginning to the end, and their services.
var stable = map[string]string{"stable-web": "web", "stable-num": "num"}

func (d *driver) startPreviews(ctx context.Context) error {
	for key, service := range stable {
		if err := d.apply(ctx, "preview", "KEY", key, "SERVICE", service, "REPLICAS", "2"); err != nil {
			return err
		}
	}
	if err := d.switched(ctx); err != nil {
		return err
	}
	return d.expectPreviews(ctx)
}

// expectPreviews waits until the stable previews are routed. From then on nobody else may answer their keys. Clients with
// a key connect now: connections from before a switch may lead past the proxies.
func (d *driver) expectPreviews(ctx context.Context) error {
	if err := d.stopPreviews(ctx); err != nil {
		return err
	}
	if err := d.routed(ctx, slices.Collect(maps.Keys(stable))...); err != nil {
		return err
	}
	return d.sendEach(ctx, result.Strict, stable)
}

// switched waits until a Service that has just been led to the proxies leads nobody past them any more.
func (d *driver) switched(ctx context.Context) error {
	if err := d.leads(ctx, true); err != nil {
		return err
	}
	return d.rest(ctx, oldestView)
}

// oldestView is how old the endpoints may be that a client, or kube-proxy, knows.
const oldestView = 7 * time.Second

// excusePreviews has baseline Pods answer requests with keys, too, because something happens that leads past proxies.
func (d *driver) excusePreviews(ctx context.Context) error {
	return d.sendEach(ctx, result.Loose, stable)
}

// routed waits until the status says so of the previews with these keys.
func (d *driver) routed(ctx context.Context, keys ...string) error {
	if d.control {
		return nil
	}
	return eventually(ctx, 90*time.Second, func() error {
		out, err := output(ctx, "", "get", "configmap", api.ConfigMapStatus, "-o", `jsonpath={.data.status\.json}`)
		if err != nil {
			return err
		}
		var s api.Status
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			return err
		}
		for _, key := range keys {
			isRouted := func(p api.PreviewStatus) bool { return p.Key == key && p.State == api.StateRouted }
			if !slices.ContainsFunc(s.Previews, isRouted) {
				return fmt.Errorf("the preview with key %s is not routed: %s", key, out)
			}
		}
		return nil
	})
}

// twentyPreviews come and go, ten at a time.
func (d *driver) twentyPreviews(ctx context.Context) error {
	for round := range 2 {
		keys := map[string]string{} // and their services
		for i := range 10 {
			keys[fmt.Sprintf("pr-%d", 10*round+i+1)] = []string{"web", "num"}[i%2]
		}
		if err := d.comeAndGo(ctx, keys); err != nil {
			return err
		}
	}
	return nil
}

// comeAndGo has requests with the keys sent before there are previews, while there are, and until after they are gone.
func (d *driver) comeAndGo(ctx context.Context, services map[string]string) error {
	keys := slices.Sorted(maps.Keys(services))
	var deployments []string
	for _, key := range keys {
		manifest, err := d.manifest("preview", "KEY", key, "SERVICE", services[key], "REPLICAS", "1")
		if err != nil {
			return err
		}
		deployments = append(deployments, manifest)
	}
	all := strings.Join(deployments, "---\n")
	if err := d.sendEach(ctx, result.Loose, services); err != nil {
		return err
	}
	if _, err := output(ctx, all, "apply", "-f", "-"); err != nil {
		return err
	}
	if _, err := output(ctx, all, "wait", "--for=condition=Available", "--timeout=90s", "-f", "-"); err != nil {
		return err
	}
	if err := d.routed(ctx, keys...); err != nil {
		return err
	}
	// Streams that were begun before go on at the baseline, so there are new clients now.
	err := errors.Join(d.sendNoMore(ctx, keys...), d.sendEach(ctx, result.Strict, services), d.rest(ctx, d.hold/2),
		d.sendEach(ctx, result.Loose, services))
	if err != nil {
		return err
	}
	if _, err := output(ctx, all, "delete", "--wait=false", "-f", "-"); err != nil {
		return err
	}
	return errors.Join(d.rest(ctx, d.hold/2), d.sendNoMore(ctx, keys...))
}

// crashPreview ends one of the two copies of a preview without warning, and expects the other one to take over at once.
func (d *driver) crashPreview(ctx context.Context) error {
	const key = "stable-web"
	pods, err := fields(ctx, "get", "pods", "-l", "app="+key, "-o", "jsonpath={.items[*].status.podIP}")
	if err != nil || len(pods) == 0 {
		return errors.Join(err, errors.New("the preview has no Pod"))
	}
	if err := d.sendEach(ctx, result.Lenient, map[string]string{key: "web"}); err != nil {
		return err
	}
	ask(ctx, http.MethodPost, "http://"+pods[0]+":8080/crash", nil) // it cannot answer
	if err := d.rest(ctx, time.Second); err != nil {
		return err
	}
	if err := d.sendEach(ctx, result.Strict, stable); err != nil {
		return err
	}
	return d.rolledOut(ctx, key)
}

// scale changes the number of copies.
func (d *driver) scale(ctx context.Context, to int) error {
	before, err := podsOf(ctx, "web", "num")
	if err != nil {
		return err
	}
	if err := kubectl(ctx, "scale", "deployment", "web", "num", fmt.Sprintf("--replicas=%d", to)); err != nil {
		return err
	}
	if err := d.rolledOut(ctx, "web", "num"); err != nil {
		return err
	}
	if len(before) <= 2*to {
		return nil
	}
	return eventually(ctx, time.Minute, func() error {
		pods, err := podsOf(ctx, "web", "num")
		if err == nil && len(pods) > 2*to {
			err = fmt.Errorf("%d Pods are left, want %d", len(pods), 2*to)
		}
		return err
	})
}

// inSystem runs kubectl in Detour's own namespace, if Detour is there.
func (d *driver) inSystem(ctx context.Context, commands ...[]string) error {
	if d.control {
		return nil
	}
	for _, c := range commands {
		if err := kubectl(ctx, append([]string{"--namespace", system}, c...)...); err != nil {
			return err
		}
	}
	return nil
}

// deploy installs this version, and returns when nothing of another is left.
func (d *driver) deploy(ctx context.Context) error {
	return d.replaced(ctx, func() error { return script(ctx, "hack/deploy") })
}

// replaced does something that replaces the webhook, and returns when the Pods from before are gone: until they have ended
// the API server may go on asking them.
func (d *driver) replaced(ctx context.Context, do func() error) error {
	if err := do(); err != nil {
		return err
	}
	ending, err := fields(ctx, "get", "pods", "--namespace", system, "-o",
		"go-template={{range .items}}{{if .metadata.deletionTimestamp}}pod/{{.metadata.name}} {{end}}{{end}}")
	if err != nil {
		return err
	}
	return gone(ctx, ending, "--namespace", system)
}

func (d *driver) killRouter(ctx context.Context) error {
	return d.inSystem(ctx,
		[]string{"delete", "pods", "-l", "app.kubernetes.io/name=detour-router", "--force", "--grace-period=0"},
		[]string{"rollout", "status", "deployment/detour-router", "--timeout=60s"})
}

func (d *driver) removeRouter(ctx context.Context) error {
	err := d.inSystem(ctx,
		[]string{"scale", "deployment/detour-router", "--replicas=0"},
		[]string{"wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=detour-router", "--timeout=60s"})
	if err != nil {
		return err
	}
	if err := d.rest(ctx, d.gone); err != nil {
		return err
	}
	return d.inSystem(ctx,
		[]string{"scale", "deployment/detour-router", "--replicas=2"},
		[]string{"rollout", "status", "deployment/detour-router", "--timeout=60s"})
}

func (d *driver) restartWebhook(ctx context.Context) error {
	return d.inSystem(ctx,
		[]string{"rollout", "restart", "deployment/detour-webhook"},
		[]string{"rollout", "status", "deployment/detour-webhook", "--timeout=60s"})
}

// rollWithoutWebhook: the rollout has to wait until the webhook is back, and must not go on without it.
func (d *driver) rollWithoutWebhook(ctx context.Context) error {
	err := d.inSystem(ctx,
		[]string{"scale", "deployment/detour-webhook", "--replicas=0"},
		[]string{"wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=detour-webhook", "--timeout=60s"})
	if err != nil {
		return err
	}
	old, err := podsOf(ctx, "web")
	if err != nil {
		return err
	}
	if err := kubectl(ctx, "rollout", "restart", "deployment/web"); err != nil {
		return err
	}
	if err := d.rest(ctx, 2*d.hold); err != nil {
		return err
	}
	if now, err := podsOf(ctx, "web"); err != nil || !d.control && fmt.Sprint(now) != fmt.Sprint(old) {
		return errors.Join(err, fmt.Errorf("without a webhook the Pods became %v, before they were %v", now, old))
	}
	err = d.inSystem(ctx,
		[]string{"scale", "deployment/detour-webhook", "--replicas=2"},
		[]string{"rollout", "status", "deployment/detour-webhook", "--timeout=60s"})
	if err != nil {
		return err
	}
	return d.rolledOut(ctx, "web")
}

// rotateCertificates has the webhook make a new authority and a new certificate.
func (d *driver) rotateCertificates(ctx context.Context) error {
	if d.control {
		return nil
	}
	bundle := func() (string, error) {
		return output(ctx, "", "get", "mutatingwebhookconfiguration", "detour", "-o", "jsonpath={.webhooks[*].clientConfig.caBundle}")
	}
	before, err := bundle()
	if err != nil {
		return err
	}
	if err := d.inSystem(ctx, []string{"delete", "secret", "detour-authority", "detour-webhook-tls"}); err != nil {
		return err
	}
	return eventually(ctx, time.Minute, func() error {
		after, err := bundle()
		if err == nil && after == before {
			err = errors.New("the new authority is not announced")
		}
		return errors.Join(err, d.inSystem(ctx, []string{"get", "secret", "detour-webhook-tls"}))
	})
}

// applyAgain has the user's own manifests applied in every way that kubectl has. None may meet a conflict.
func (d *driver) applyAgain(ctx context.Context) error {
	services, err := d.manifest("services")
	if err != nil {
		return err
	}
	for _, command := range [][]string{
		{"apply", "-f", "-"}, {"replace", "-f", "-"}, {"apply", "-f", "-"}, {"apply", "--server-side", "-f", "-"}, {"apply", "-f", "-"},
	} {
		if _, err := output(ctx, services, command...); err != nil {
			return err
		}
		if err := d.leads(ctx, true); err != nil {
			return fmt.Errorf("after kubectl %s: %w", command, err)
		}
	}
	if err := edit(ctx, "service/num", "detour-8080", "8080"); err != nil {
		return err
	}
	return d.leads(ctx, true)
}

// forceUncovered puts a Pod without a proxy behind num, and takes it away again.
func (d *driver) forceUncovered(ctx context.Context) error {
	if err := d.excusePreviews(ctx); err != nil {
		return err
	}
	if err := d.apply(ctx, "uncovered"); err != nil {
		return err
	}
	if err := kubectl(ctx, "wait", "pod/uncovered", "--for=condition=Ready", "--timeout=60s"); err != nil {
		return err
	}
	if got, err := output(ctx, "", "get", "service", "num", "-o", "jsonpath={.spec.ports[*].targetPort}"); err != nil || got != "8080 9090" {
		return errors.Join(err, fmt.Errorf("with an uncovered Pod ready, service num leads to %q", got))
	}
	if err := d.rest(ctx, d.hold); err != nil {
		return err
	}
	if err := kubectl(ctx, "delete", "pod/uncovered", "--wait"); err != nil {
		return err
	}
	if err := d.switched(ctx); err != nil {
		return err
	}
	return d.expectPreviews(ctx)
}

// loseImage has a rollout of the apps come upon a proxy whose image is not to be had. Pods that wait for it are deleted,
// as the Event on the namespace says, and the rollout ends without proxies.
func (d *driver) loseImage(ctx context.Context) error {
	if err := d.excusePreviews(ctx); err != nil {
		return err
	}
	err := d.replaced(ctx, func() error {
		return d.inSystem(ctx,
			[]string{"set", "env", "deployment/detour-webhook", "PROXY_IMAGE=ghcr.io/detour-dev/proxy:none"},
			[]string{"rollout", "status", "deployment/detour-webhook", "--timeout=60s"})
	})
	if err != nil {
		return err
	}
	if d.control {
		return d.restart(ctx, "web", "num")
	}
	old, err := podsOf(ctx, "web", "num")
	if err != nil {
		return err
	}
	if err := kubectl(ctx, "rollout", "restart", "deployment/web", "deployment/num"); err != nil {
		return err
	}
	if err := d.leads(ctx, false); err != nil {
		return err
	}
	waiting, err := fields(ctx, "get", "pods", "-l", "app in (web,num)", "--field-selector=status.phase=Pending", "-o", "name")
	if err != nil || len(waiting) == 0 {
		return errors.Join(err, errors.New("no Pod waits for its proxy"))
	}
	if err := kubectl(ctx, append([]string{"delete"}, waiting...)...); err != nil {
		return err
	}
	if err := d.rolledOut(ctx, "web", "num"); err != nil {
		return err
	}
	return gone(ctx, old)
}

// restoreImage has the apps get proxies again.
func (d *driver) restoreImage(ctx context.Context) error {
	if !d.control {
		if err := d.deploy(ctx); err != nil {
			return err
		}
		retry := api.AnnotationRetry + "=" + time.Now().UTC().Format(time.RFC3339)
		if err := kubectl(ctx, "annotate", "namespace", namespace, "--overwrite", retry); err != nil {
			return err
		}
	}
	if err := d.restart(ctx, "web", "num"); err != nil {
		return err
	}
	if err := d.switched(ctx); err != nil {
		return err
	}
	return d.expectPreviews(ctx)
}

// downgrade brings the version before, and Pods with its proxy.
func (d *driver) downgrade(ctx context.Context) error {
	if !d.control {
		err := d.replaced(ctx, func() error {
			return script(ctx, "bash", "-c", `TAG=$(cat "$0/bin/tag") "$0/hack/deploy"`, d.previous)
		})
		if err != nil {
			return err
		}
	}
	if err := d.roll(ctx, "num"); err != nil {
		return err
	}
	return d.expectPreviews(ctx)
}

// upgrade leaves the apps as they are: proxies of both versions go on with the new router.
func (d *driver) upgrade(ctx context.Context) error {
	if d.control {
		return nil
	}
	if err := d.deploy(ctx); err != nil {
		return err
	}
	return d.expectPreviews(ctx)
}

// disable takes the namespace out: the Services go back at once, and the Pods lose their proxies as they are replaced.
func (d *driver) disable(ctx context.Context) error {
	if !d.control {
		if err := d.excusePreviews(ctx); err != nil {
			return err
		}
		if err := kubectl(ctx, "label", "namespace", namespace, api.LabelInject+"-"); err != nil {
			return err
		}
	}
	if err := d.leads(ctx, false); err != nil {
		return err
	}
	return errors.Join(d.roll(ctx, apps...), d.stopPreviews(ctx))
}

// stopPreviews returns when no request with a stable preview's key is under way any more.
func (d *driver) stopPreviews(ctx context.Context) error {
	return d.sendNoMore(ctx, slices.Collect(maps.Keys(stable))...)
}

// uninstall puts everything back while the proxies are still there.
func (d *driver) uninstall(ctx context.Context) error {
	if d.control {
		return nil
	}
	if err := d.excusePreviews(ctx); err != nil {
		return err
	}
	if err := script(ctx, "hack/undeploy"); err != nil {
		return err
	}
	return errors.Join(d.leads(ctx, false), d.stopPreviews(ctx))
}

// deleteNamespace removes Detour as nobody should.
func (d *driver) deleteNamespace(ctx context.Context) error {
	if d.control {
		return nil
	}
	if err := d.excusePreviews(ctx); err != nil {
		return err
	}
	if err := kubectl(ctx, "delete", "namespace", system, "--wait"); err != nil {
		return err
	}
	return errors.Join(d.leads(ctx, false), d.stopPreviews(ctx))
}

// installAgain finds the namespace still labelled.
func (d *driver) installAgain(ctx context.Context) error {
	if !d.control {
		if err := d.deploy(ctx); err != nil {
			return err
		}
	}
	if err := d.restart(ctx, apps...); err != nil {
		return err
	}
	if err := d.switched(ctx); err != nil {
		return err
	}
	return d.expectPreviews(ctx)
}
