package route

import (
	"connectd/pkg/lb"
)

// Failure is how a try has failed.
type Failure uint8

const (
	NoFailure       Failure = iota
	ConnectFailed           // refused, unreachable, timed out: nothing was sent
	Unsent                  // the connection ended before the first byte of the request was taken
	RefusedStream           // HTTP/2: the endpoint says that it has not looked at the request
	Reset                   // the connection ended after bytes were sent, and before any of a response
	Unavailable             // 503
	GRPCUnavailable         // UNAVAILABLE without a message: a trailers-only response
	Malformed               // what came was no response
)

// Try is a try that failed, and its request.
type Try struct {
	Failure
	Idempotent      bool // by its method
	Replayable      bool // all that was sent of its body can be sent again
	ResponseStarted bool // the client has got something of a response
	Pooled          bool // the connection had carried a request before
	Freed           bool // AgainFree was said of the request already
	Tries           uint8
}

// Verdict is whether there is to be another try, and if not, why.
type Verdict uint8

const (
	Again           Verdict = iota
	AgainFree               // a connection that had died in its pool: it is as if it had not been tried
	NotRetriable            // a failure that another try would not mend
	NotIdempotent           // the endpoint may have done what was asked
	BodyTooLarge            // what was sent of the body was not kept
	ResponseStarted         // the client has got something of a response
	NoAttempts              // all were made
	NoBudget                // too many requests of the service are being tried again
	verdicts
)

var verdictNames = [verdicts]string{"again", "again_free", "not_retriable", "not_idempotent", "body_too_large", "response_started", "no_attempts", "no_budget"}

// String is the word of metrics.
func (v Verdict) String() string { return verdictNames[v] }

// Decide says what is to follow a failed try. now is nanoseconds of any
// monotonic clock, the same for all calls with one Budget.
func Decide(r lb.Retry, t Try, b *Budget, now int64) Verdict {
	switch {
	case t.Failure == NoFailure || t.Failure == Malformed:
		return NotRetriable
	case t.ResponseStarted:
		return ResponseStarted
	case !t.safe(r):
		return NotIdempotent
	case !t.Replayable:
		return BodyTooLarge
	case t.Pooled && !t.Freed && (t.Failure == Reset || t.Failure == Unsent):
		// Its endpoint closed it while it was idle, most likely, and another
		// connection to the same endpoint would have done. Once: a request
		// that kills its server would go through a whole pool.
		return AgainFree
	case t.Tries > r.Attempts:
		return NoAttempts
	case !b.Take(r, now):
		return NoBudget
	}
	return Again
}

// safe says whether another try cannot do harm: the endpoint has not seen the
// request, or may see it twice. gRPC's UNAVAILABLE without a message is the
// server library's own answer for a call that it gave to no handler; Service
// Connect's proxy repeats it whatever the method is.
func (t *Try) safe(r lb.Retry) bool {
	switch t.Failure {
	case ConnectFailed, Unsent, RefusedStream, GRPCUnavailable:
		return true
	}
	return t.Idempotent || r.AllMethods
}

// RetryOutcome is what became of a request that was, or should have been,
// tried again.
type RetryOutcome uint8

const (
	RetrySuccess  RetryOutcome = iota // a later try was answered, and not with a 5xx
	RetryFailure                      // tried again in vain
	RetryRefused                      // RetryRefused+Verdict: not tried again, and why
	retryOutcomes = RetryRefused + RetryOutcome(verdicts)
)

// Decide says what is to follow a failed try of the service's, and counts the
// request if it should have been tried again and is not.
func (s *Service) Decide(r lb.Retry, t Try, now int64) Verdict {
	v := Decide(r, t, &s.Budget, now)
	if v > NotRetriable {
		s.Retries[RetryRefused+RetryOutcome(v)].Add(1)
	}
	return v
}

// BrokeOff counts a response that ended before it was whole.
func (s *Service) BrokeOff() { s.Retries[RetryRefused+RetryOutcome(ResponseStarted)].Add(1) }

// Retried counts a request that was tried again.
func (s *Service) Retried(well bool) {
	if well {
		s.Retries[RetrySuccess].Add(1)
	} else {
		s.Retries[RetryFailure].Add(1)
	}
}

// RetryOutcomes are the words of Service.Retries, by index; an empty one is not
// in use.
func RetryOutcomes() []string {
	out := make([]string, retryOutcomes)
	out[RetrySuccess], out[RetryFailure] = "success", "failure"
	for v := NotRetriable; v < verdicts; v++ {
		out[RetryRefused+RetryOutcome(v)] = v.String()
	}
	return out
}
