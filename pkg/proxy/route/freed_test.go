package route

import (
	"testing"

	"connectd/pkg/lb"
)

// A request gets one try for nothing. The next connection that dies under it
// costs what any failure does, and what it may not do it still may not.
func TestFreedOnce(t *testing.T) {
	r := lb.Retry{Attempts: 2, BudgetFloor: 1}
	for _, c := range []struct {
		name string
		try  Try
		want Verdict
	}{
		{"GET, first", Try{Failure: Reset, Idempotent: true, Replayable: true, Pooled: true, Tries: 1}, AgainFree},
		{"GET, second", Try{Failure: Reset, Idempotent: true, Replayable: true, Pooled: true, Tries: 1, Freed: true}, Again},
		{"GET, last", Try{Failure: Reset, Idempotent: true, Replayable: true, Pooled: true, Tries: 3, Freed: true}, NoAttempts},
		{"POST, unsent", Try{Failure: Unsent, Replayable: true, Pooled: true, Tries: 1}, AgainFree},
		{"POST, unsent, second", Try{Failure: Unsent, Replayable: true, Pooled: true, Tries: 1, Freed: true}, Again},
		{"POST, sent, second", Try{Failure: Reset, Replayable: true, Pooled: true, Tries: 1, Freed: true}, NotIdempotent},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Decide(r, c.try, new(Budget), 1); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}
