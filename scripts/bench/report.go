package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
)

// row is one line of the table.
type row struct {
	what   string
	unit   string
	bound  bound
	median float64
	min    float64
	max    float64
	n      int // pairs or measurements
	// noise is by what part a ratio may miss its bound and still be no
	// difference, from the same thing against itself in the same rounds.
	noise float64
}

// group is the rows of one table.
type group struct {
	title string
	rows  []row
}

// bound is what a median is held against.
type bound struct {
	sign  string // "<=", ">=", or "" for a figure that is only reported
	value float64
}

func atMost(v float64) bound  { return bound{"<=", v} }
func atLeast(v float64) bound { return bound{">=", v} }

var reported = bound{}

func newRow(what, unit string, b bound, samples []float64) row {
	s := slices.Sorted(slices.Values(samples))
	if len(s) == 0 {
		return row{what: what, unit: unit, bound: b}
	}
	return row{what: what, unit: unit, bound: b, median: median(s), min: s[0], max: s[len(s)-1], n: len(s)}
}

// median of a sorted, non-empty slice.
func median(s []float64) float64 {
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}

func (r row) verdict() string {
	switch {
	case r.n == 0:
		return "not measured"
	case r.bound.sign == "":
		return ""
	case r.bound.holds(r.median):
		return "met"
	case r.bound.holds(r.median / (1 + r.noise)), r.bound.holds(r.median * (1 + r.noise)):
		return fmt.Sprintf("met within noise of %.0f %%", r.noise*100)
	}
	return "MISSED"
}

func (b bound) holds(v float64) bool {
	return b.sign == "<=" && v <= b.value || b.sign == ">=" && v >= b.value
}

// noiseOf says how far from 1 the median of so many ratios of a thing with
// itself may well lie: to the farther end of its notch, the median -/+ 1.57
// interquartile ranges / sqrt(n), which holds the true median 19 times of 20.
func noiseOf(ratios []float64) float64 {
	s := slices.Sorted(slices.Values(ratios))
	if len(s) == 0 {
		return 0
	}
	reach := 1.57 * (s[len(s)*3/4] - s[len(s)/4]) / math.Sqrt(float64(len(s)))
	return max(median(s)+reach, 1/max(median(s)-reach, 0.5), 1) - 1
}

func (r row) number(v float64) string {
	text := fmt.Sprintf("%.0f", v)
	switch {
	case r.unit == "":
		text = fmt.Sprintf("%.3f", v)
	case v < 10:
		text = fmt.Sprintf("%.2f", v)
	case v < 100:
		text = fmt.Sprintf("%.1f", v)
	}
	return strings.TrimSpace(text + " " + r.unit)
}

func (r row) target() string {
	if r.bound.sign == "" {
		return ""
	}
	return r.bound.sign + " " + strings.TrimSpace(fmt.Sprintf("%g %s", r.bound.value, r.unit))
}

// tables are those of all groups, each under its title.
func tables(groups []group) string {
	var out []string
	for _, g := range groups {
		out = append(out, fmt.Sprintf("### %s\n\n%s", g.title, table(g.rows)))
	}
	return strings.Join(out, "\n")
}

// table is in Markdown, its columns aligned for those who read it as text.
func table(rows []row) string {
	cells := [][]string{{"what", "target", "median", "min to max", "n", "verdict"}}
	for _, r := range rows {
		spread := r.number(r.min) + " to " + r.number(r.max)
		if r.n < 2 {
			spread = ""
		}
		cells = append(cells, []string{r.what, r.target(), r.number(r.median), spread, fmt.Sprint(r.n), r.verdict()})
	}
	width := make([]int, len(cells[0]))
	for _, line := range cells {
		for i, c := range line {
			width[i] = max(width[i], len(c))
		}
	}
	rule := make([]string, len(width))
	for i, w := range width {
		rule[i] = strings.Repeat("-", w)
	}
	var out strings.Builder
	for _, line := range slices.Insert(cells, 1, rule) {
		for i, c := range line {
			fmt.Fprintf(&out, "| %-*s ", width[i], c)
		}
		out.WriteString("|\n")
	}
	return out.String()
}

const (
	blockBegin = "<!-- written by make bench -->\n"
	blockEnd   = "<!-- end of what make bench writes -->\n"
)

// writeBlock puts text between the marks of a file.
func writeBlock(path, text string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, rest, ok := bytes.Cut(old, []byte(blockBegin))
	_, tail, ok2 := bytes.Cut(rest, []byte(blockEnd))
	if !ok || !ok2 {
		return fmt.Errorf("write results to %s: it lacks the line %q or %q", path, strings.TrimSpace(blockBegin), strings.TrimSpace(blockEnd))
	}
	return os.WriteFile(path, slices.Concat(head, []byte(blockBegin), []byte(text), []byte(blockEnd), tail), 0o644)
}
