package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// fields reads one line field by field; after an error it returns zeros.
type fields struct {
	rest string
	err  error
}

func (f *fields) fail(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf(format, args...)
	}
}

func (f *fields) word() string {
	w, rest, _ := strings.Cut(f.rest, " ")
	f.rest = rest
	if w == "" {
		f.fail("a field is missing")
	}
	return w
}

func (f *fields) quoted() string {
	q, err := strconv.QuotedPrefix(f.rest)
	if err != nil {
		f.fail("want a quoted string at %q", f.rest)
		return ""
	}
	s, err := strconv.Unquote(q)
	if err != nil {
		f.fail("unquote %s: %w", q, err)
	}
	f.rest = strings.TrimPrefix(f.rest[len(q):], " ")
	return s
}

func (f *fields) num(most uint64) uint64 {
	w := f.word()
	n, err := strconv.ParseUint(w, 10, 64)
	if err != nil || n > most {
		f.fail("want a number up to %d, not %q", most, w)
		return 0
	}
	return n
}

func (f *fields) id(most uint64) uint32 {
	n := f.num(most)
	if n == 0 {
		f.fail("an id is at least 1")
	}
	return uint32(n)
}

func (f *fields) index(words ...string) int {
	w := f.word()
	i := slices.Index(words, w)
	if i < 0 {
		f.fail("want one of %s, not %q", strings.Join(words, ", "), w)
	}
	return i
}

func (f *fields) either(yes, no string) bool { return f.index(yes, no) == 0 }

func (f *fields) time() time.Time {
	w := f.word()
	if w == "-" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, w)
	if err != nil {
		f.fail("want a time, not %q", w)
	}
	return t
}

func (f *fields) duration() time.Duration {
	w := f.word()
	d, err := time.ParseDuration(w)
	if err != nil {
		f.fail("want a duration, not %q", w)
	}
	return d
}

func (f *fields) addr() netip.Addr {
	w := f.word()
	a, err := netip.ParseAddr(w)
	if err != nil {
		f.fail("want an address, not %q", w)
	}
	return a
}

func (f *fields) addrPort() netip.AddrPort {
	w := f.word()
	a, err := netip.ParseAddrPort(w)
	if err != nil {
		f.fail("want address:port, not %q", w)
	}
	return a
}
