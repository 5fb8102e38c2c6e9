package testutil

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// RequireRoot skips the test without root, and fails it where CI=true: there a
// skip would hide that nothing was tested.
func RequireRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		tb.Fatal("needs root")
	}
	tb.Skip("needs root")
}

// Eventually polls cond until it returns nil, and fails the test with its last
// error after timeout. It is for kernel state that gives no event; where there
// is a channel or a file to wait on, wait on that.
func Eventually(tb testing.TB, timeout time.Duration, cond func() error) {
	tb.Helper()
	var last error
	start, tries := time.Now(), 0
	if poll(timeout, func() bool { tries++; last = cond(); return last == nil }) {
		return
	}
	tb.Fatal(fmt.Sprintf("after %s and %d tries: %s", time.Since(start).Round(time.Millisecond), tries, last))
}

// poll calls cond until it is true or timeout has passed, at least twice, with
// pauses of 1 ms growing to 20 ms.
func poll(timeout time.Duration, cond func() bool) bool {
	deadline := time.Now().Add(timeout)
	for pause := time.Millisecond; !cond(); pause = min(2*pause, 20*time.Millisecond) {
		if time.Now().After(deadline) {
			return cond()
		}
		time.Sleep(pause)
	}
	return true
}
