package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"connectd/pkg/control"
	"connectd/pkg/lb"
)

// print writes a value as the user asked for it. What is written as a table is
// the caller's.
func (c *cli) print(value any, asTable func(io.Writer)) error {
	if c.output == outputJSON {
		enc := json.NewEncoder(c.stdout)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(value)
	}
	asTable(c.stdout)
	return nil
}

// table writes aligned columns.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer, header ...string) table {
	t := table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	t.row(header...)
	return t
}

// row writes one line; an empty cell is shown as "-", so that a script can
// count columns.
func (t table) row(cells ...string) {
	for i, cell := range cells {
		if i > 0 {
			io.WriteString(t.w, "\t")
		}
		if cell == "" {
			cell = "-"
		}
		io.WriteString(t.w, oneLine(cell))
	}
	io.WriteString(t.w, "\n")
}

func (t table) flush() { t.w.Flush() }

// oneLine makes a cell of text that came from elsewhere, such as a server's
// answer to a probe: no line breaks, no terminal escapes.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// indent puts the lines of a longer text below each other.
func indent(s, by string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i, line := range lines {
		lines[i] = oneLine(line)
	}
	return strings.Join(lines, "\n"+by)
}

// age is a duration in its two largest units: "12s", "4m32s", "2h14m", "3d4h".
func age(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	day := 24 * time.Hour
	return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
}

// since is the age of a moment, "" for none.
func (c *cli) since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return age(c.now().Sub(t))
}

// until is "in 12s", or "now" for what is due.
func (c *cli) until(t time.Time) string {
	if d := t.Sub(c.now()); d > 0 {
		return "in " + age(d)
	}
	return "now"
}

// clock is a moment in the user's time zone.
func (c *cli) clock(t time.Time) string {
	return t.In(c.now().Location()).Format("2006-01-02 15:04:05 MST")
}

// counts is "3 active, 1 draining", in the order of lb.States.
func counts(by control.StateCounts) string {
	var parts []string
	for _, s := range lb.States() {
		if n := by[s.String()]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	if parts == nil {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// plural is "1 task", "2 tasks".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

func join[T any](sep string, list []T) string {
	parts := make([]string, len(list))
	for i, v := range list {
		parts[i] = fmt.Sprint(v)
	}
	return strings.Join(parts, sep)
}

// percent has one decimal where it says something.
func percent(f float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0") + "%"
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }
