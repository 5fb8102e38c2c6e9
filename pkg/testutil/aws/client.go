package aws

import (
	"context"
	"strings"
)

// Caller is who calls.
type Caller struct {
	Account string // "" means DefaultAccount
	Label   string // for counting: a node's name
}

// AccessKey is the access key by which the server knows a caller.
func (w Caller) AccessKey() string { return w.account() + "-" + w.Label }

func (w Caller) account() string {
	if w.Account == "" {
		return DefaultAccount
	}
	return w.Account
}

// callerOf reads an access key; one of another form belongs to DefaultAccount.
func callerOf(accessKey string) Caller {
	account, label, ok := strings.Cut(accessKey, "-")
	if ok && len(account) == 12 && strings.Trim(account, "0123456789") == "" {
		return Caller{Account: account, Label: label}
	}
	return Caller{Label: accessKey}
}

// Client calls the services as one caller. Its fields have the signatures of
// the SDK's clients; options are ignored and nothing is tried again.
type Client struct {
	CloudMap   CloudMap
	ECS        ECS
	CloudWatch CloudWatch
}

// As returns a client for a caller.
func (c *Cloud) As(who Caller) *Client {
	from := origin{cloud: c, who: who}
	return &Client{CloudMap: CloudMap{from}, ECS: ECS{from}, CloudWatch: CloudWatch{from}}
}

// origin is where a call comes from.
type origin struct {
	cloud *Cloud
	who   Caller
}

// invoke counts, refuses or answers one call. answer gets the caller's account.
func invoke[I, O any](ctx context.Context, from origin, call Call, in *I, answer func(*Cloud, string, *I) (*O, error)) (*O, error) {
	c := from.cloud
	call.Account, call.Caller = from.who.account(), from.who.Label
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	fault := c.fault(call)
	if fault != nil && fault.Kind == Hang {
		c.record(call, fault)
		c.mu.Unlock()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	defer c.mu.Unlock()
	if fault != nil {
		c.record(call, fault)
		return nil, fault.err(call)
	}
	if err := c.take(call); err != nil {
		c.record(call, err)
		return nil, err
	}
	c.settle()
	if in == nil {
		in = new(I)
	}
	out, err := answer(c, call.Account, in)
	c.record(call, err)
	if err != nil {
		return nil, err
	}
	return out, nil
}
