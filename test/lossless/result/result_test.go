package result

import (
	"slices"
	"testing"
)

func TestTotal(t *testing.T) {
	reports := []Report{
		{Cells: []Cell{
			{"h2c", "cluster", "steady", Tally{Requests: 10, Failed: 1, LongestGap: 30}},
			{"h2c", "cluster", "enabled", Tally{Requests: 20, WrongCopy: 2, LongestGap: 50}},
		}},
		{Cells: []Cell{{"redis", "pod", "steady", Tally{Requests: 5, Refused: 3, LongestGap: 20}}}},
	}
	sum := Total(reports)
	if want := (Tally{Requests: 35, Failed: 1, WrongCopy: 2, Refused: 3, LongestGap: 50}); sum.Tally != want {
		t.Errorf("in all %+v, want %+v", sum.Tally, want)
	}
	if want := (Tally{Requests: 30, Failed: 1, WrongCopy: 2, LongestGap: 50}); *sum.Protocols["h2c"] != want {
		t.Errorf("by h2c %+v, want %+v", *sum.Protocols["h2c"], want)
	}
	if want := (Tally{Requests: 15, Failed: 1, Refused: 3, LongestGap: 30}); *sum.Phases["steady"] != want {
		t.Errorf("when steady %+v, want %+v", *sum.Phases["steady"], want)
	}
}

func TestSilent(t *testing.T) {
	got := Silent([]Report{{Cells: []Cell{
		{"h2c", "node", "steady", Tally{Requests: 4, Failed: 2, Refused: 2}},
		{"grpc", "node", "steady", Tally{Requests: 4, Failed: 4}},
		{"grpc", "node", "enabled", Tally{Requests: 4}},
	}}})
	if want := []string{"h2c by node"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
