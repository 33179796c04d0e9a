package plugin

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// severity of a finding.
type severity string

const (
	severe  severity = "error"   // something does not work
	warning severity = "warning" // something works in part, or will not for long
	remark  severity = "note"    // it is in order as it is
)

// severities has the worst first.
var severities = []severity{severe, warning, remark}

// finding is something that a person should know, or mend.
type finding struct {
	Severity severity `json:"severity"`
	// Namespace is that of Object; empty for objects that have none.
	Namespace string `json:"namespace,omitempty"`
	Object    string `json:"object"` // "deployment/api-pr-42"
	// Reason is a word in CamelCase for programs.
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// Remedy is a command that mends it, or that shows what is to be mended.
	Remedy string `json:"remedy,omitempty"`

	others []string // objects that it is about, too
}

// diagnosis is what doctor prints.
type diagnosis struct {
	Namespace   string    `json:"namespace"`
	Findings    []finding `json:"findings"`
	NotLookedAt []unread  `json:"notLookedAt,omitempty"`
}

// sortFindings puts the worst first, and the same of one object together.
func sortFindings(found []finding) {
	slices.SortStableFunc(found, func(a, b finding) int {
		return cmp.Or(
			cmp.Compare(slices.Index(severities, a.Severity), slices.Index(severities, b.Severity)),
			cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Reason, b.Reason))
	})
}

func (d *diagnosis) count(s severity) int {
	n := 0
	for _, f := range d.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

func (d *diagnosis) print(w io.Writer) {
	for _, f := range d.Findings {
		fmt.Fprintf(w, "%-8s %s\n", f.Severity, f.text(d.Namespace))
		if f.Remedy != "" {
			fmt.Fprintf(w, "         %s\n", f.Remedy)
		}
	}
	if len(d.Findings) == 0 {
		fmt.Fprintf(w, "nothing is wrong in namespace %s, as far as it was looked at\n", d.Namespace)
	}
	for _, u := range d.NotLookedAt {
		fmt.Fprintf(w, "not looked at: no right to read %s (ask %s)\n", u.What, u.Ask)
	}
}

// text names the object unless the message begins with it, as the router's do.
func (f finding) text(namespace string) string {
	if strings.HasPrefix(f.Message, f.Object) {
		return f.Message
	}
	if f.Namespace != "" && f.Namespace != namespace {
		return fmt.Sprintf("%s in namespace %s: %s", f.Object, f.Namespace, f.Message)
	}
	return f.Object + ": " + f.Message
}

// maxNamed is how many objects a message names.
const maxNamed = 3

func shortList(items []string) string {
	if more := len(items) - maxNamed; more > 0 {
		items = append(slices.Clone(items[:maxNamed]), fmt.Sprintf("and %d more", more))
	}
	return strings.Join(items, ", ")
}
