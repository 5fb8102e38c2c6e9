package report

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrEnded is of a program that should run: waiting for it has no sense.
var ErrEnded = errors.New("it ended")

// Until polls, for what gives no event, until check returns nil or ErrEnded;
// the error is its last one.
func Until(ctx context.Context, limit time.Duration, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		err := check()
		if err == nil || errors.Is(err, ErrEnded) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", limit, err)
		case <-t.C:
		}
	}
}

// Pause lets the load run for a while; it is a measuring time, nothing waits
// for it.
func Pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
