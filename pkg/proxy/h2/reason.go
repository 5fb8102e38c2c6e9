package h2

// Reasons of the answers that exchanges and sessions give themselves, as the
// client reads them in x-connectd-reason. The carrier adds its own, see
// Exchange.Reason, and counts all of them by these words.
const (
	ReasonConnect      = "connect_failed"   // no endpoint could be connected to
	ReasonReset        = "reset"            // the endpoint ended the stream, or took none, before it answered
	ReasonMalformed    = "malformed_answer" // an answer against the protocol
	ReasonTimeout      = "timeout"          // no answer in time, see Expire
	ReasonBadRequest   = "bad_request"      // not for a forwarder: CONNECT
	ReasonHeadTooLarge = "head_too_large"   // a request's field list beyond maxHeaderList
)

func (f Failure) reason() string {
	switch f {
	case ConnectFailed:
		return ReasonConnect
	case Malformed:
		return ReasonMalformed
	}
	return ReasonReset
}
