package view

import (
	"time"

	"github.com/detour-dev/detour/api"
)

// checkTTL says when a preview expires, if it does. An updated time without a TTL is checked all the same: whoever writes
// it counts on it.
func (w *world) checkTTL(p *preview) *api.Problem {
	from := p.created
	if text, set := w.annotation(p, api.AnnotationUpdated); set {
		updated, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return problem("InvalidUpdated", "%s: annotation %s=%.100q is no time as RFC 3339 has it, such as %s",
				p.name, api.AnnotationUpdated, text, p.created.Format(time.RFC3339))
		}
		if updated.After(from) {
			from = updated.UTC()
		}
	}
	if text, set := w.annotation(p, api.AnnotationTTL); set {
		ttl, err := time.ParseDuration(text)
		if err != nil || ttl <= 0 {
			return problem("InvalidTTL", "%s: annotation %s=%.100q is no positive duration in hours, minutes and seconds, such as 72h or 1h30m",
				p.name, api.AnnotationTTL, text)
		}
		p.expires = from.Add(ttl)
	}
	return nil
}

func (w *world) checkExpired(p *preview) *api.Problem {
	if p.expires.IsZero() || w.now.Before(p.expires) {
		return nil
	}
	return problem("Expired", "%s has expired at %s, requests with key %q go to the baseline: delete it, or set annotation %s to the present time to begin its %s anew",
		p.name, p.expires.Format(time.RFC3339), p.key, api.AnnotationUpdated, api.AnnotationTTL)
}

// nextExpiry is when the first of the previews that have not expired will; zero if none will.
func nextExpiry(previews []*preview, now time.Time) (next time.Time) {
	for _, p := range previews {
		if p.expires.After(now) && (next.IsZero() || p.expires.Before(next)) {
			next = p.expires
		}
	}
	return next
}
