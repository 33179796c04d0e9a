package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

// row is a result in bench.json: the ratio where there is a peer to be compared with and null where our own value is
// what counts, null also for what was not measured.
type row struct {
	Case    string   `json:"case"`
	Ours    *float64 `json:"ours"`
	Haproxy *float64 `json:"haproxy"`
	Ratio   *float64 `json:"ratio"`
	Bar     *float64 `json:"bar"`
	Aim     *float64 `json:"aim"`
}

// encode renders results as the content of bench.json.
func encode(results []result) ([]byte, error) {
	rows := []row{}
	for _, r := range results {
		name := r.name
		if r.unit != "" {
			name += ", " + r.unit
		}
		rows = append(rows, row{
			Case: name, Ours: peerValue(r, ours), Haproxy: peerValue(r, haproxy),
			Ratio: number(r.ratio), Bar: number(r.bar), Aim: number(r.aim),
		})
	}
	b, err := json.MarshalIndent(rows, "", "  ")
	return append(b, '\n'), err
}

func peerValue(r result, peer string) *float64 {
	if v, ok := r.values[peer]; ok {
		return number(v)
	}
	return nil
}

// number rounds to four digits; what is no number is null.
func number(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	if v != 0 {
		scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
		v = math.Round(v*scale) / scale
	}
	return &v
}

// print writes the table, and below it what went wrong.
func print(w io.Writer, results []result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "case\tunit\tours\thaproxy\tnginx\tnet/http\tratio\tbar\taim\t")
	for _, r := range results {
		cells := []string{r.name, r.unit}
		for _, peer := range []string{ours, haproxy, nginx, nethttp} {
			cells = append(cells, cell(peerValue(r, peer)))
		}
		cells = append(cells, fixed(r.ratio), fixed(r.bar), fixed(r.aim), strings.TrimSpace(r.verdict()+" "+r.note))
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range results {
		if r.err != nil {
			fmt.Fprintf(w, "\n%s failed: %v\n", r.name, r.err)
		}
	}
	return nil
}

func cell(v *float64) string {
	if v == nil {
		return ""
	}
	if math.Abs(*v) >= 100 {
		return fmt.Sprintf("%.0f", *v)
	}
	return fmt.Sprintf("%.3g", *v)
}

func fixed(v float64) string {
	if n := number(v); n != nil {
		return fmt.Sprintf("%.2f", *n)
	}
	return ""
}
