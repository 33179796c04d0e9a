package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// admitter answers admission requests. It reads from a cache, and has no effect beyond its answers and its counters but for
// Events about errors of its own, of which a dry run gets none.
type admitter struct {
	cache   client.Reader
	members members
	sidecar sidecar
	tooOld  func() bool // the API server
	metrics *metrics
	events  recorder
	now     func() time.Time
	log     *slog.Logger
}

// decision answers a request.
type decision func(context.Context, admission.Request) (admission.Response, error)

// handler answers as decide does. When decide fails or panics, the object is admitted as it is.
func (a *admitter) handler(kind string, decide decision) admission.Handler {
	return admission.HandlerFunc(func(ctx context.Context, req admission.Request) (resp admission.Response) {
		defer func() {
			if p := recover(); p != nil {
				resp = a.giveUp(kind, req, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
			}
		}()
		resp, err := decide(ctx, req)
		if err != nil {
			return a.giveUp(kind, req, err)
		}
		return resp
	})
}

// giveUp admits an object as it is, and says so to everyone who might care. What is being admitted may not exist yet, so the
// Event is its namespace's.
func (a *admitter) giveUp(kind string, req admission.Request, err error) admission.Response {
	a.metrics.errors.WithLabelValues("admission").Inc()
	a.log.Error("object admitted unchanged", kind, nameOf(req), "error", err)
	if req.DryRun == nil || !*req.DryRun {
		object := &corev1.ObjectReference{APIVersion: "v1", Kind: "Namespace", Namespace: req.Namespace, Name: req.Namespace}
		a.events.Eventf(object, nil, corev1.EventTypeWarning, eventAdmissionFailed, "Admit",
			"%s %s was admitted as it is, because Detour came upon an error of its own: %.300s. See kubectl logs -n %s deployment/detour-webhook",
			req.Kind.Kind, nameOf(req), err.Error(), a.members.own)
	}
	return admission.Allowed("").WithWarnings("detour: admitted unchanged after an internal error, see the log of detour-webhook")
}

// mutation returns the object of a request before and after. Both are of the same type.
type mutation func(context.Context, admission.Request) (before, after any, err error)

// changed admits an object with the difference that mutate makes.
func changed(mutate mutation) decision {
	return func(ctx context.Context, req admission.Request) (admission.Response, error) {
		before, after, err := mutate(ctx, req)
		if err != nil {
			return admission.Response{}, err
		}
		patches, err := difference(before, after)
		return admission.Response{Patches: patches, AdmissionResponse: admissionv1.AdmissionResponse{Allowed: true}}, err
	}
}

// difference is the JSON patch from before to after. Both went through our types, so a field that our types don't
// know is in neither, and the patch leaves it alone.
func difference(before, after any) ([]jsonpatch.JsonPatchOperation, error) {
	from, err := json.Marshal(before)
	if err != nil {
		return nil, fmt.Errorf("encoding the object as it came: %w", err)
	}
	to, err := json.Marshal(after)
	if err != nil {
		return nil, fmt.Errorf("encoding the changed object: %w", err)
	}
	return jsonpatch.CreatePatch(from, to)
}

// mutatePod is [inject] behind admission.
func (a *admitter) mutatePod(ctx context.Context, req admission.Request) (any, any, error) {
	pod, err := decode[corev1.Pod](req.Object.Raw)
	if err != nil {
		return nil, nil, err
	}
	result, err := a.inject(ctx, req.Namespace, pod)
	if err != nil {
		return nil, nil, err
	}
	a.report(req, result)
	return pod, result.pod, nil
}

// inject takes the namespace from the request, because a Pod that a controller creates may not say its own.
func (a *admitter) inject(ctx context.Context, namespace string, pod *corev1.Pod) (injection, error) {
	switch {
	case a.members.dissolved(ctx):
		return injection{pod: pod.DeepCopy(), reason: reasonDissolved}, nil
	case a.tooOld():
		return leave(pod.DeepCopy(), reasonTooOld), nil
	}
	around, err := survey(ctx, a.cache, namespace)
	if err != nil {
		return injection{}, err
	}
	around.namespace = a.members.find(ctx, namespace)
	result := inject(pod, around, a.sidecar)
	if result.reason != "" {
		return result, nil
	}
	_, suspension, err := a.pods(ctx, namespace)
	if suspension.active {
		return leave(pod.DeepCopy(), reasonCannotStart), nil
	}
	return result, err
}

// pods returns the Pods of a namespace that takes part, and whether others get a proxy.
func (a *admitter) pods(ctx context.Context, name string) ([]corev1.Pod, suspension, error) {
	namespace := a.members.find(ctx, name)
	if namespace == nil {
		return nil, suspension{}, nil
	}
	var pods corev1.PodList
	if err := a.cache.List(ctx, &pods, client.InNamespace(name), client.UnsafeDisableDeepCopy); err != nil {
		return nil, suspension{}, fmt.Errorf("listing the pods of namespace %s: %w", name, err)
	}
	return pods.Items, suspensionOf(namespace, pods.Items, a.now()), nil
}

func (a *admitter) report(req admission.Request, result injection) {
	switch log := a.log.With("pod", nameOf(req)); {
	case result.reason == reasonInjectedAlready:
		return // asked again after another webhook's change
	case result.reason != "":
		a.metrics.notInjected.WithLabelValues(string(result.reason)).Inc()
		log.Info("pod left without a proxy", "reason", string(result.reason))
	default:
		a.metrics.injected.Inc()
		log.Info("proxy injected", "left", formatLeft(result.left))
	}
}

// mutateService is [planService] behind admission: whoever applies a Service again, in whatever way, finds it
// switched when the request is done.
func (a *admitter) mutateService(ctx context.Context, req admission.Request) (any, any, error) {
	service, err := decode[corev1.Service](req.Object.Raw)
	if err != nil {
		return nil, nil, err
	}
	pods, suspension, err := a.pods(ctx, req.Namespace)
	if err != nil {
		return nil, nil, err
	}
	around, err := survey(ctx, a.cache, req.Namespace)
	if err != nil {
		return nil, nil, err
	}
	plan := planService(service, admitted(suspension.covering(pods), around.policies))
	disown(plan)
	return service, plan, nil
}

func decode[T any](raw []byte) (*T, error) {
	if len(raw) == 0 {
		return nil, errors.New("the request holds no object")
	}
	object := new(T)
	if err := json.Unmarshal(raw, object); err != nil {
		return nil, fmt.Errorf("decoding the object: %w", err)
	}
	return object, nil
}

// nameOf names the object of a request. A Pod that is being created may have nothing but the beginning of a name,
// which its object holds.
func nameOf(req admission.Request) string {
	if req.Name != "" {
		return req.Namespace + "/" + req.Name
	}
	var object struct {
		Metadata struct{ Name, GenerateName string }
	}
	if err := json.Unmarshal(req.Object.Raw, &object); err != nil {
		return req.Namespace + "/?"
	}
	if object.Metadata.Name != "" {
		return req.Namespace + "/" + object.Metadata.Name
	}
	return req.Namespace + "/" + object.Metadata.GenerateName + "?"
}
