package aws

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/aws/smithy-go"
)

// Call is what a request is counted by.
type Call struct {
	Service string // one of the Service constants
	Action  string // DescribeTasks; a path for IMDS and the agent
	Account string
	Caller  string // label
}

// covers says whether a call fits a pattern, whose empty fields stand for
// everything.
func (p Call) covers(call Call) bool {
	return (p.Service == "" || p.Service == call.Service) &&
		(p.Action == "" || p.Action == call.Action) &&
		(p.Account == "" || p.Account == call.Account) &&
		(p.Caller == "" || p.Caller == call.Caller)
}

// Count is how often a call was made, and how often it was refused.
type Count struct{ Calls, Errors int }

// Request is one request that came.
type Request struct {
	Call
	At    time.Time
	Error string // code of the refusal; "" is none
}

func (c *Cloud) record(call Call, err error) {
	n := c.calls[call]
	n.Calls++
	if err != nil {
		n.Errors++
	}
	c.calls[call] = n
	if len(c.kept) >= 2*c.params.KeepRequests {
		c.kept = append(c.kept[:0], c.kept[len(c.kept)-c.params.KeepRequests:]...)
	}
	c.kept = append(c.kept, Request{Call: call, At: c.params.Now(), Error: codeOf(err)})
}

// codeOf is the error code that a client sees.
func codeOf(err error) string {
	if err == nil {
		return ""
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return err.Error()
}

// Requests returns the newest requests, oldest first.
func (c *Cloud) Requests() []Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.kept[max(0, len(c.kept)-c.params.KeepRequests):])
}

// Calls returns how often each call was made since ResetCalls.
func (c *Cloud) Calls() map[Call]Count {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.calls)
}

// CallsOf sums Calls over what the pattern's empty fields leave open.
func (c *Cloud) CallsOf(pattern Call) (sum Count) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for call, n := range c.calls {
		if pattern.covers(call) {
			sum.Calls += n.Calls
			sum.Errors += n.Errors
		}
	}
	return sum
}

// ResetCalls forgets counts and requests.
func (c *Cloud) ResetCalls() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.calls)
	c.kept = nil
}
