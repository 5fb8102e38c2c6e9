package health

import (
	"testing"
	"time"

	"connectd/pkg/lb"
)

// TestVerdicts: s is a success, f a failure, l a local fault, n no caller.
// The verdict after each is u unknown, H healthy, X unhealthy.
func TestVerdicts(t *testing.T) {
	letters := map[lb.Verdict]byte{lb.VerdictUnknown: 'u', lb.VerdictHealthy: 'H', lb.VerdictUnhealthy: 'X'}
	results := map[rune]result{'s': resultSuccess, 'f': resultConnect, 'l': resultLocal, 'n': resultNoCaller}
	for _, c := range []struct {
		why                string
		healthy, unhealthy uint32
		from               lb.Verdict
		results, verdicts  string
	}{
		{"first success counts at once", 3, 3, lb.VerdictUnknown, "s", "H"},
		{"one failure before it does not matter", 3, 3, lb.VerdictUnknown, "fs", "uH"},
		{"unknown and failing", 3, 3, lb.VerdictUnknown, "fff", "uuX"},
		{"a recovery needs its threshold", 3, 2, lb.VerdictUnknown, "sffsss", "HHXXXH"},
		{"a recovery is in a row", 3, 2, lb.VerdictUnhealthy, "ssfsss", "XXXXXH"},
		{"a failure run is broken by a success", 2, 3, lb.VerdictHealthy, "ffsfff", "HHHHHX"},
		{"restored healthy needs the failures too", 2, 2, lb.VerdictHealthy, "ff", "HX"},
		{"restored unhealthy needs the successes", 2, 2, lb.VerdictUnhealthy, "ss", "XH"},
		{"local faults neither count nor break a run", 2, 2, lb.VerdictHealthy, "lflnf", "HHHHX"},
		{"local faults make nothing healthy", 2, 2, lb.VerdictUnknown, "lnl", "uuu"},
		{"thresholds of one", 1, 1, lb.VerdictUnknown, "fsfs", "XHXH"},
	} {
		tg := &target{check: &check{HealthCheck: tcpCheck(c.healthy, c.unhealthy)}, verdict: c.from}
		var got []byte
		for _, r := range c.results {
			tg.record(outcome{result: results[r]}, 0, 0)
			got = append(got, letters[tg.verdict])
		}
		if string(got) != c.verdicts {
			t.Errorf("%s: %s from %s gave %s, want %s", c.why, c.results, c.from, got, c.verdicts)
		}
	}
}

func TestEveryResultHasAName(t *testing.T) {
	if n := int(resultNoCaller) + 1; len(resultNames) != n || len(Results()) != n-1 {
		t.Fatalf("%d names for %d results", len(resultNames), n)
	}
	for _, r := range []result{resultConnect, resultTimeout, resultTLS, resultProtocol, resultStatus} {
		if !r.countsAgainst() {
			t.Errorf("%s does not count against an endpoint", r)
		}
	}
}

func TestNextProbe(t *testing.T) {
	tg := &target{check: &check{HealthCheck: tcpCheck(1, 1)}}
	const began = time.Minute
	least, most := never, time.Duration(0)
	for range 1000 {
		tg.record(outcome{result: resultSuccess}, began, began+time.Millisecond)
		least, most = min(least, tg.due-began), max(most, tg.due-began)
	}
	if least < 9*time.Second || least > 9200*time.Millisecond || most > 11*time.Second || most < 10800*time.Millisecond {
		t.Errorf("intervals of 10 s were %s to %s, want 9 s to 11 s", least, most)
	}
	if tg.record(outcome{result: resultTimeout}, began, began+time.Hour); tg.due != began+time.Hour {
		t.Errorf("after a probe longer than the interval the next is due at %s, want at once", tg.due)
	}
	if tg.record(outcome{result: resultNoCaller}, began, began); tg.due-began > 1100*time.Millisecond {
		t.Errorf("without a caller the next try is after %s, want about 1 s", tg.due-began)
	}
}

func TestSpreadIsEven(t *testing.T) {
	const n, buckets = 10000, 100
	var count [buckets]int
	for id := range lb.EndpointID(n) {
		d := spread(id+1, time.Second)
		if d < 0 || d >= time.Second {
			t.Fatalf("spread(%d) = %s", id+1, d)
		}
		count[d*buckets/time.Second]++
	}
	for i, c := range count {
		if c < n/buckets*9/10 || c > n/buckets*11/10 {
			t.Errorf("bucket %d has %d of %d", i, c, n)
		}
	}
}

func TestShort(t *testing.T) {
	for in, want := range map[string]string{
		"status 503":             "status 503",
		"a\x1b[2Jb\nc\xff\u202e": "a?[2Jb?c??",
	} {
		if got := short(in); got != want {
			t.Errorf("short(%q) = %q, want %q", in, got, want)
		}
	}
	long := make([]rune, 200)
	for i := range long {
		long[i] = 'é'
	}
	if got := short(string(long)); len(got) > maxReason || got[len(got)-3:] != "..." {
		t.Errorf("short of a long text is %d bytes: %s", len(got), got)
	}
}
