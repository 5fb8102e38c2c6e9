package aws

import (
	"errors"
	"slices"
	"syscall"

	"github.com/aws/smithy-go"
)

// FaultKind is how a call fails.
type FaultKind int

// The kinds of faults.
const (
	Refuse   FaultKind = iota // answered with an error of Code
	Throttle                  // answered as if the bucket were empty
	Hang                      // not answered until the caller gives up
	Reset                     // the connection is reset
	Garbage                   // answered 200 with bytes that mean nothing
	Broken                    // answered 500 with a page of HTML
)

// Codes of refusals that any service may give.
const (
	CodeAccessDenied = "AccessDeniedException"
	CodeExpired      = "ExpiredTokenException"
	CodeUnrecognized = "UnrecognizedClientException"
)

// Fault spoils the calls that Call covers; its empty fields cover everything.
type Fault struct {
	Call
	Kind    FaultKind
	Code    string // of Refuse; "" means InternalServiceError
	Message string // of Refuse; "" means one that fits the code
	Count   int    // calls that it spoils; 0 means all until it is removed
}

// Inject lets a fault begin and returns how to end it. Of several faults for
// one call the oldest is taken.
func (c *Cloud) Inject(f Fault) (remove func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.Count == 0 {
		f.Count = -1
	}
	c.faults = append(c.faults, &f)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.faults = slices.DeleteFunc(c.faults, func(other *Fault) bool { return other == &f })
	}
}

// Outage resets every connection to the services of the region; IMDS and the
// agent, which are on the node, go on.
func (c *Cloud) Outage() (end func()) {
	var ends []func()
	for _, name := range []string{ServiceCloudMap, ServiceECS, ServiceCloudWatch} {
		ends = append(ends, c.Inject(Fault{Call: Call{Service: name}, Kind: Reset}))
	}
	return func() {
		for _, end := range ends {
			end()
		}
	}
}

// fault returns what spoils a call, if anything does.
func (c *Cloud) fault(call Call) *Fault {
	for i, f := range c.faults {
		if !f.covers(call) {
			continue
		}
		if f.Count > 0 {
			if f.Count--; f.Count == 0 {
				c.faults = slices.Delete(c.faults, i, i+1)
			}
		}
		return f
	}
	return nil
}

// Errors that stand for what the server does to a connection.
var (
	errHang    = errors.New("no answer")
	errReset   = errors.New("reset connection")
	errGarbage = errors.New("garbage instead of an answer")
	errBroken  = errors.New("page of HTML instead of an answer")
)

// Error is what is recorded.
func (f *Fault) Error() string { return codeOf(f.err(f.Call)) }

func (f *Fault) err(call Call) error {
	switch f.Kind {
	case Throttle:
		return throttled(call)
	case Hang:
		return errHang
	case Reset:
		return errors.Join(errReset, syscall.ECONNRESET)
	case Garbage:
		return errGarbage
	case Broken:
		return errBroken
	}
	code, message := f.Code, f.Message
	if code == "" {
		code = "InternalServiceError"
	}
	if message == "" {
		message = messageOf(code, call)
	}
	return &smithy.GenericAPIError{Code: code, Message: message}
}

// messageOf is what the services say beside a code.
func messageOf(code string, call Call) string {
	switch code {
	case CodeAccessDenied:
		return "User: arn:aws:sts::" + call.Account + ":assumed-role/connectd/" + call.Caller +
			" is not authorized to perform: " + call.Service + ":" + call.Action + " because no identity-based policy allows it"
	case CodeExpired:
		return "The security token included in the request is expired"
	case CodeUnrecognized:
		return "The security token included in the request is invalid."
	}
	return "injected"
}
