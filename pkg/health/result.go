package health

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"unicode"
)

// result is how a probe ended, and a metric label.
type result uint8

const (
	resultNone     result = iota // not probed yet
	resultSuccess                // the endpoint is well
	resultConnect                // no connection
	resultTimeout                // no answer in time, or no connection
	resultTLS                    // the handshake ended in an error
	resultProtocol               // the answer broke off or could not be understood
	resultStatus                 // the endpoint answered, and says that it is not well
	resultLocal                  // this node could not probe: says nothing of the endpoint
	resultNoCaller               // no task to probe from: the same
)

var resultNames = [...]string{"", "success", "connect", "timeout", "tls", "protocol", "status", "local", "no_caller"}

func (r result) String() string { return resultNames[r] }

// countsAgainst reports whether the result is a failure of the endpoint.
func (r result) countsAgainst() bool {
	switch r {
	case resultNone, resultSuccess, resultLocal, resultNoCaller:
		return false
	}
	return true
}

// Results lists what Params.Observe may be told, for metrics.
func Results() []string { return append([]string(nil), resultNames[1:]...) }

// outcome is a result with its reason in words.
type outcome struct {
	result result
	reason string
}

// maxReason bounds a reason in bytes: some of it may come from the endpoint.
const maxReason = 120

// cause says in few words what an error comes down to.
func cause(err error) string {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed in the middle"
	case errors.Is(err, io.EOF):
		return "connection closed by the endpoint"
	}
	return err.Error()
}

// short makes a reason fit for logs and terminals.
func short(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason-3], "") + "..."
	}
	return s
}
