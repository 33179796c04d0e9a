package dashboard

import (
	"fmt"
	"strings"
	"time"

	"github.com/detour-dev/detour/api"
)

// plot is a history as bars, one a step, which a page draws as two paths in a box of Width by Height.
type plot struct {
	Total    api.Counters
	Words    string // what it shows, for those who do not see it
	Requests string // paths as SVG has them
	Errors   string
	Width    int
	Height   int
	Busiest  uint64
	Figures  []figure // of the steps that had requests, the newest first
}

// figure is a step in numbers.
type figure struct {
	From time.Time
	api.Counters
}

const (
	barWidth   = 5 // with the gap after it
	barGap     = 1
	plotHeight = 28
)

func newPlot(h *History) *plot {
	p := &plot{Total: h.total(), Width: len(h.Requests) * barWidth, Height: plotHeight, Busiest: h.busiest()}
	p.Requests, p.Errors = bars(h.Requests, p.Busiest), bars(h.Errors, p.Busiest)
	p.Words = fmt.Sprintf("%s and %s in the last %d minutes, at most %s in %d seconds",
		plural(p.Total.Requests, "request"), plural(p.Total.Errors, "error"),
		len(h.Requests)*h.StepSeconds/60, plural(p.Busiest, "request"), h.StepSeconds)
	length := time.Duration(h.StepSeconds) * time.Second
	for i := len(h.Requests) - 1; i >= 0; i-- {
		if h.Requests[i] > 0 {
			from := h.Until.Add(-length * time.Duration(len(h.Requests)-i))
			p.Figures = append(p.Figures, figure{from, api.Counters{Requests: h.Requests[i], Errors: h.Errors[i]}})
		}
	}
	return p
}

// bars is the path of bars on the ground of the box. One that is not zero can be seen.
func bars(values []uint64, highest uint64) string {
	var path strings.Builder
	for i, value := range values {
		if value == 0 {
			continue
		}
		height := max(plotHeight*float64(value)/float64(highest), 1.5)
		fmt.Fprintf(&path, "M%d %dv-%.3gh%dv%.3gz", i*barWidth, plotHeight, height, barWidth-barGap, height)
	}
	return path.String()
}

func plural(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
