// Package h2spec runs the conformance suite of that name in tests.
package h2spec

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

// Run holds the suite's cases, strict ones included, against an HTTP/2 server
// that answers GET / with a body. except are beginnings of descriptions of cases
// whose result does not count. It takes seconds, in which the suite waits for
// silence, and skips a short test.
func Run(t *testing.T, at netip.AddrPort, except ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds: h2spec waits for silence")
	}
	c := &config.Config{
		Host: at.Addr().String(), Port: int(at.Port()), Path: "/",
		Timeout: time.Second, MaxHeaderLen: 4000, Strict: true,
	}
	ran := 0
	for _, group := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		group.Test(c)
		ran += report(t, group, except)
	}
	if ran < 140 {
		t.Errorf("only %d cases ran", ran)
	}
}

func report(t *testing.T, group *spec.TestGroup, except []string) (ran int) {
	for _, test := range group.Tests {
		if test.Result == nil {
			continue
		}
		ran++
		what := strings.TrimSpace(test.Desc)
		if slices.ContainsFunc(except, func(e string) bool { return strings.HasPrefix(what, e) }) {
			continue
		}
		if test.Result.Failed || test.Result.Skipped {
			t.Errorf("%s %s: %s: %v", group.ID(), group.Name, what, test.Result.Error)
		}
	}
	for _, sub := range group.Groups {
		ran += report(t, sub, except)
	}
	return ran
}
