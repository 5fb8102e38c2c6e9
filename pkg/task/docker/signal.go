package docker

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	sigTerm = int(unix.SIGTERM)
	sigKill = int(unix.SIGKILL)
)

// endsBy reports whether a signal that Docker sent ends a container whose stop
// signal is stop: SIGHUP for a rotated log does not.
func endsBy(stop int, sent string) bool {
	n := signalNumber(sent)
	return n != 0 && (n == stop || n == sigKill)
}

// signalNumber reads "15", "TERM", "SIGTERM" and "SIGRTMIN+3"; what it cannot
// read is 0.
func signalNumber(s string) int {
	if n, err := strconv.Atoi(s); err == nil {
		return n
	}
	s = strings.ToUpper(s)
	if !strings.HasPrefix(s, "SIG") {
		s = "SIG" + s
	}
	// The C library keeps the first two for itself.
	const rtMin, rtMax = 34, 64
	if rest, ok := strings.CutPrefix(s, "SIGRTMIN"); ok {
		return offset(rtMin, rest)
	}
	if rest, ok := strings.CutPrefix(s, "SIGRTMAX"); ok {
		return offset(rtMax, rest)
	}
	return int(unix.SignalNum(s))
}

func offset(base int, s string) int {
	if s == "" {
		return base
	}
	n, err := strconv.Atoi(s)
	if err != nil || s[0] != '+' && s[0] != '-' {
		return 0
	}
	return base + n
}
