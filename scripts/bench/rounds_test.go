package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestRounds: every contender has its turn in each round, in orders that
// differ, and ratios are of one round.
func TestRounds(t *testing.T) {
	a, b := &contender{name: "a"}, &contender{name: "b"}
	var order strings.Builder
	drift := 1.0 // the machine becomes slower from round to round
	seen, err := rounds(context.Background(), 8, []*contender{a, b}, func(c *contender) (shot, error) {
		order.WriteString(c.name)
		if order.Len()%2 == 0 {
			drift /= 2
		}
		return shot{rate: map[*contender]float64{a: 300, b: 100}[c] * drift}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := order.String(); len(got) != 16 || !strings.Contains(got, "abba") && !strings.Contains(got, "baab") {
		t.Errorf("order %q", got)
	}
	for i := 0; i < order.Len(); i += 2 {
		if pair := order.String()[i : i+2]; pair != "ab" && pair != "ba" {
			t.Errorf("round %d is %q", i/2, pair)
		}
	}
	// The drift falls between the two of a round: 3 becomes 1.5 or 6, never more.
	for _, r := range seen.ratios(a, b, rate) {
		if r != 1.5 && r != 6 {
			t.Errorf("a ratio of %v mixes rounds", r)
		}
	}
	boom := errors.New("boom")
	if _, err := rounds(context.Background(), 1, []*contender{a}, func(*contender) (shot, error) { return shot{}, boom }); !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
}

func TestTogether(t *testing.T) {
	c := &contender{}
	got := shots{c: {{rate: 1, cpu: 4}, {rate: 3, cpu: 6}, {rate: 10, p99: 2, side: 1}, {rate: 20, p99: 4, side: 7}, {rate: 7, cpu: 1}}}.together(2)[c]
	if want := []shot{{rate: 2, cpu: 5}, {rate: 15, p99: 3, side: 4}, {rate: 7, cpu: 1}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestForwardRows(t *testing.T) {
	st := &stage{
		connectd: contender{name: "connectd"}, haproxy: contender{name: "HAProxy"},
		pair: contender{name: "HAProxy pair"}, reverse: contender{name: "ReverseProxy"},
	}
	seen := shots{
		&st.connectd: {{rate: 30, p99: 5, cpu: 8}},
		&st.haproxy:  {{rate: 20, p99: 4, cpu: 10}},
		&st.again:    {{rate: 22, p99: 8, cpu: 10}},
		&st.pair:     {{rate: 10}},
	}
	got := map[string]string{}
	for _, r := range forwardRows(st, seen, "x", bars{haproxy: atLeast(1), pair: atLeast(4), reverse: atLeast(2), p99: atMost(1), cpu: atMost(0.9)}) {
		got[r.what] = r.number(r.median) + " " + r.verdict()
	}
	want := map[string]string{
		"x: requests/s, connectd / HAProxy":             "1.500 met",
		"x: requests/s, HAProxy / HAProxy (noise)":      "1.100 ",
		"x: requests/s, connectd / HAProxy pair":        "3.000 MISSED",
		"x: p99, connectd / HAProxy":                    "1.250 met within noise of 100 %",
		"x: p99, HAProxy / HAProxy (noise)":             "2.000 ",
		"x: CPU per request, connectd / HAProxy":        "0.800 met",
		"x: CPU per request, HAProxy / HAProxy (noise)": "1.000 ",
		"x: requests/s, connectd":                       "30.0 /s ",
		"x: CPU per request, connectd":                  "8.00 us ",
	}
	for what, value := range want {
		if got[what] != value {
			t.Errorf("%s: %q, want %q", what, got[what], value)
		}
		delete(got, what)
	}
	if len(got) > 0 {
		t.Errorf("further rows: %q", got)
	}
}

func TestNoise(t *testing.T) {
	same := slices.Repeat([]float64{1}, 9)
	for _, tc := range []struct {
		ratios   []float64
		from, to float64
	}{
		{nil, 0, 0},
		{same, 0, 0},
		{append([]float64{1.5}, same...), 0, 0}, // one outlier moves no median
		{[]float64{1.1, 1.1, 1.1}, 0.1, 0.11},   // it leans
		{[]float64{0.9, 0.9, 0.9}, 0.11, 0.12},
		{[]float64{0.8, 0.9, 1, 1.1, 1.2, 0.8, 0.9, 1.1, 1.2}, 0.1, 0.2},
	} {
		if got := noiseOf(tc.ratios); got < tc.from-1e-9 || got > tc.to+1e-9 {
			t.Errorf("noise of %v is %v, want %v to %v", tc.ratios, got, tc.from, tc.to)
		}
	}
}

func TestParseH2load(t *testing.T) {
	const out = `finished in 503.21ms, 39745.61 req/s, 1.82MB/s
requests: 20000 total, 20000 started, 20000 done, 20000 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 20000 2xx, 0 3xx, 0 4xx, 0 5xx
`
	if got, err := parseH2load(out, 20000); err != nil || got != 39745.61 {
		t.Errorf("read %v (%v)", got, err)
	}
	for _, bad := range []string{
		strings.Replace(out, "20000 2xx, 0 3xx, 0 4xx, 0 5xx", "19999 2xx, 0 3xx, 0 4xx, 1 5xx", 1),
		strings.Replace(out, "0 errored", "1 errored", 1),
		strings.Replace(out, "finished in", "began at", 1),
		"",
	} {
		if got, err := parseH2load(bad, 20000); err == nil {
			t.Errorf("read %v from %q", got, bad)
		}
	}
}

func TestChoose(t *testing.T) {
	for _, tc := range []struct {
		only string
		want string // "" is an error
	}{
		{"", strings.Join(partNames(), " ")},
		{"direct,http", "http direct"},
		{"http,", ""},
		{"nothing", ""},
	} {
		chosen, err := choose(tc.only)
		var names []string
		for _, p := range chosen {
			names = append(names, p.name)
		}
		if got := strings.Join(names, " "); got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("-only %q chose %q (%v), want %q", tc.only, got, err, tc.want)
		}
	}
}
