package webhook

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/detour-dev/detour/api"
)

// board keeps the notices of each namespace in its status for as long as they hold; an Event is gone after an hour.
type board struct {
	client client.Client
	now    func() time.Time

	mu     sync.Mutex
	posted map[string]posted // by namespace
}

type posted struct {
	text string
	at   time.Time
}

func newBoard(c client.Client, now func() time.Time) *board {
	return &board{client: c, now: now, posted: map[string]posted{}}
}

// post writes the notices of a namespace that have changed, though not with each Pod of a rollout, and now and then all
// the same, for somebody may have edited them. It returns when to come again.
func (b *board) post(ctx context.Context, namespace string, notices []notice) (time.Duration, error) {
	text := noticesText(notices)
	if rest := b.rest(namespace, text); rest > 0 {
		return rest, nil
	}
	body, err := json.Marshal(map[string]any{"data": map[string]string{api.ConfigMapNoticesKey: text}})
	if err != nil {
		return 0, err
	}
	status := ourConfigMap(namespace, api.ConfigMapStatus)
	err = b.client.Patch(ctx, &status, client.RawPatch(types.MergePatchType, body), client.FieldOwner(fieldOwner))
	if apierrors.IsNotFound(err) {
		return askAgain, nil // until [namespaceReconciler] has made it
	}
	if err != nil {
		return 0, fmt.Errorf("writing the notices: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.posted[namespace] = posted{text, b.now()}
	return lookAgain, nil
}

// rest is how long to wait before a text is to be written.
func (b *board) rest(namespace, text string) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	last := b.posted[namespace]
	pause := settling
	if last.text == text {
		pause = lookAgain
	}
	return pause - b.now().Sub(last.at)
}

// forget drops what was posted of a namespace.
func (b *board) forget(namespace string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.posted, namespace)
}

// maxNotices is how many notices a ConfigMap holds; a namespace may have thousands of Pods.
const maxNotices = 100

// noticesText is what the ConfigMap holds. It is the same for the same notices in any order.
func noticesText(notices []notice) string {
	var all api.Notices
	for _, n := range notices {
		all.Notices = append(all.Notices, api.Notice{
			Object: n.object.Kind + "/" + n.object.Name, Warning: n.kind == corev1.EventTypeWarning, Reason: n.reason, Message: n.message,
		})
	}
	slices.SortFunc(all.Notices, compareNotices)
	all.Notices = slices.CompactFunc(all.Notices, func(a, b api.Notice) bool { // a Job has many Pods
		return a.Reason == b.Reason && a.Object == b.Object
	})
	all.More = max(0, len(all.Notices)-maxNotices)
	all.Notices = all.Notices[:len(all.Notices)-all.More]
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		panic(err) // strings can always be encoded
	}
	return string(text) + "\n"
}

func compareNotices(a, b api.Notice) int {
	if a.Warning != b.Warning {
		if a.Warning {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Message, b.Message))
}
