package route

import (
	"fmt"
	"testing"

	"connectd/pkg/lb"
)

var (
	safeOnly = lb.Retry{Attempts: 2, BudgetPercent: 20, BudgetFloor: 3}
	anything = lb.Retry{Attempts: 2, BudgetPercent: 20, BudgetFloor: 3, AllMethods: true}
	noRetry  = lb.Retry{BudgetPercent: 20, BudgetFloor: 3}
)

// kept is a request that could be sent again in every respect.
func kept(f Failure, tries uint8) Try {
	return Try{Failure: f, Idempotent: true, Replayable: true, Tries: tries}
}

func (t Try) post() Try     { t.Idempotent = false; return t }
func (t Try) big() Try      { t.Replayable = false; return t }
func (t Try) answered() Try { t.ResponseStarted = true; return t }
func (t Try) pooled() Try   { t.Pooled = true; return t }
func (t Try) freed() Try    { t.Freed = true; return t }

// TestDecide are the rules of retries as people read them; TestDecideAll goes
// through every combination.
func TestDecide(t *testing.T) {
	for _, c := range []struct {
		name  string
		retry lb.Retry
		try   Try
		empty bool // of the budget
		want  Verdict
	}{
		{"GET, connect refused", safeOnly, kept(ConnectFailed, 1), false, Again},
		{"GET, connect refused twice", safeOnly, kept(ConnectFailed, 2), false, Again},
		{"GET, connect refused three times", safeOnly, kept(ConnectFailed, 3), false, NoAttempts},
		{"POST, connect refused", safeOnly, kept(ConnectFailed, 1).post(), false, Again},
		{"POST, connect refused, no budget", safeOnly, kept(ConnectFailed, 1).post(), true, NoBudget},
		{"POST, cut before the first byte", safeOnly, kept(Unsent, 1).post(), false, Again},
		{"POST, refused stream", safeOnly, kept(RefusedStream, 1).post(), false, Again},
		{"POST, refused stream on a used connection", safeOnly, kept(RefusedStream, 1).post().pooled(), false, Again},
		{"GET, 503", safeOnly, kept(Unavailable, 1), false, Again},
		{"GET, 503 on a used connection", safeOnly, kept(Unavailable, 1).pooled(), false, Again},
		{"POST, 503", safeOnly, kept(Unavailable, 1).post(), false, NotIdempotent},
		{"POST, 503, methods: all", anything, kept(Unavailable, 1).post(), false, Again},
		{"GET, reset", safeOnly, kept(Reset, 1), false, Again},
		{"POST, reset", safeOnly, kept(Reset, 1).post(), false, NotIdempotent},
		{"POST, reset, methods: all", anything, kept(Reset, 1).post(), false, Again},
		{"gRPC, UNAVAILABLE without a message", safeOnly, kept(GRPCUnavailable, 1).post(), false, Again},
		{"gRPC, UNAVAILABLE after a big message was sent", safeOnly, kept(GRPCUnavailable, 1).post().big(), false, BodyTooLarge},
		{"PUT of 1 MiB, 503", safeOnly, kept(Unavailable, 1).big(), false, BodyTooLarge},
		{"POST of 1 MiB, 503", safeOnly, kept(Unavailable, 1).post().big(), false, NotIdempotent},
		{"GET, reset within the body", safeOnly, kept(Reset, 1).answered(), false, ResponseStarted},
		{"GET, malformed answer", safeOnly, kept(Malformed, 1), false, NotRetriable},
		{"GET, dead in its pool", safeOnly, kept(Reset, 1).pooled(), false, AgainFree},
		{"GET, dead in its pool, no budget", safeOnly, kept(Reset, 1).pooled(), true, AgainFree},
		{"GET, dead in its pool after all tries", safeOnly, kept(Reset, 3).pooled(), false, AgainFree},
		{"GET, dead in its pool, retries off", noRetry, kept(Reset, 1).pooled(), false, AgainFree},
		{"POST, dead in its pool before the first byte", safeOnly, kept(Unsent, 1).post().pooled(), false, AgainFree},
		{"POST, dead in its pool after bytes went out", safeOnly, kept(Reset, 1).post().pooled(), false, NotIdempotent},
		{"GET, dead in its pool again", safeOnly, kept(Reset, 1).pooled().freed(), false, Again},
		{"GET, dead in its pool again after all tries", safeOnly, kept(Reset, 3).pooled().freed(), false, NoAttempts},
		{"GET, dead in its pool again, no budget", safeOnly, kept(Reset, 1).pooled().freed(), true, NoBudget},
		{"POST, dead in its pool again before the first byte", safeOnly, kept(Unsent, 1).post().pooled().freed(), false, Again},
		{"GET, 503, retries off", noRetry, kept(Unavailable, 1), false, NoAttempts},
		{"GET, 503, no budget", safeOnly, kept(Unavailable, 1), true, NoBudget},
		{"GET, 503 three times, no budget", safeOnly, kept(Unavailable, 3), true, NoAttempts},
		{"success", safeOnly, kept(NoFailure, 1), false, NotRetriable},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Decide(c.retry, c.try, budget(c.empty), epoch); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// epoch is a time; budgets of tests were last filled then.
const epoch = int64(1e12)

// budget holds many retries or none, and gets none for epoch.
func budget(empty bool) *Budget {
	b := &Budget{}
	b.last.Store(epoch)
	if !empty {
		b.held.Store(100 * one)
	}
	return b
}

// harm is what each failure says about the endpoint's having seen the request.
var harm = map[Failure]struct {
	end       bool // another try would not mend it
	seen      bool // the endpoint may have acted on it
	idleDeath bool // what it looks like when a pooled connection was dead
}{
	NoFailure:       {end: true},
	Malformed:       {end: true},
	ConnectFailed:   {},
	RefusedStream:   {},
	GRPCUnavailable: {},
	Unsent:          {idleDeath: true},
	Reset:           {seen: true, idleDeath: true},
	Unavailable:     {seen: true},
}

// stated is Decide said once more: from the design, as a list of objections of
// which the first that holds counts.
func stated(r lb.Retry, t Try, empty bool) Verdict {
	f := harm[t.Failure]
	mayRepeat := !f.seen || t.Idempotent || r.AllMethods
	for _, objection := range []struct {
		holds bool
		v     Verdict
	}{
		{f.end, NotRetriable},
		{t.ResponseStarted, ResponseStarted},
		{!mayRepeat, NotIdempotent},
		{!t.Replayable, BodyTooLarge},
		{f.idleDeath && t.Pooled && !t.Freed, AgainFree},
		{int(t.Tries) >= 1+int(r.Attempts), NoAttempts},
		{empty, NoBudget},
	} {
		if objection.holds {
			return objection.v
		}
	}
	return Again
}

// TestDecideAll compares every combination, and that a retry is paid for when
// it is made, and only then.
func TestDecideAll(t *testing.T) {
	seen := make(map[Verdict]int)
	each := func(r lb.Retry, try Try, empty bool) {
		b := budget(empty)
		before := b.held.Load()
		got, want := Decide(r, try, b, epoch), stated(r, try, empty)
		seen[got]++
		if got != want {
			t.Errorf("%+v of %+v, empty %v: %s, want %s", try, r, empty, got, want)
		}
		paid := int64(0)
		if want == Again {
			paid = one
		}
		if left := b.held.Load(); before-left != paid {
			t.Errorf("%+v of %+v: %s cost %d", try, r, got, before-left)
		}
	}
	n := 0
	for f := range harm {
		for bits := range 1 << 7 {
			is := func(n int) bool { return bits>>n&1 != 0 }
			for attempts := range uint8(6) {
				for tries := range uint8(8) {
					r := lb.Retry{Attempts: attempts, AllMethods: is(0), BudgetPercent: 20, BudgetFloor: 3}
					each(r, Try{f, is(1), is(2), is(3), is(4), is(6), tries + 1}, is(5))
					n++
				}
			}
		}
	}
	if want := 8 * 128 * 6 * 8; n != want {
		t.Errorf("%d combinations, want %d", n, want)
	}
	for v := range verdicts {
		if seen[v] == 0 {
			t.Errorf("no combination leads to %s", v)
		}
	}
}

// TestRetryOutcomes: the words of the metric, and none twice.
func TestRetryOutcomes(t *testing.T) {
	words := RetryOutcomes()
	if len(words) != len(Service{}.Retries) {
		t.Fatalf("%d words for %d counters", len(words), len(Service{}.Retries))
	}
	want := map[RetryOutcome]string{
		RetrySuccess: "success", RetryFailure: "failure",
		RetryRefused + RetryOutcome(NotRetriable):    "not_retriable",
		RetryRefused + RetryOutcome(NotIdempotent):   "not_idempotent",
		RetryRefused + RetryOutcome(BodyTooLarge):    "body_too_large",
		RetryRefused + RetryOutcome(ResponseStarted): "response_started",
		RetryRefused + RetryOutcome(NoAttempts):      "no_attempts",
		RetryRefused + RetryOutcome(NoBudget):        "no_budget",
	}
	for i, word := range words {
		if word != want[RetryOutcome(i)] {
			t.Errorf("outcome %d is %q, want %q", i, word, want[RetryOutcome(i)])
		}
	}
	names := make(map[string]bool)
	for v := range verdicts {
		if name := fmt.Sprint(v); name == "" || names[name] {
			t.Errorf("verdict %d is called %q", v, name)
		} else {
			names[name] = true
		}
	}
}

func BenchmarkDecideAndDeposit(b *testing.B) {
	var bucket Budget
	now := epoch
	b.ReportAllocs()
	for b.Loop() {
		now += 10_000 // 100,000 requests a second, each of which fails once
		bucket.Deposit(safeOnly, now)
		Decide(safeOnly, kept(Unavailable, 1), &bucket, now)
	}
}
