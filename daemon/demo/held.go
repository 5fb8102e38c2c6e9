package demo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"connectd/daemon/demo/report"
)

// hold makes the long-lived process keep connections open.
func (d *demo) hold(ctx context.Context, target string, count int) error {
	_, err := d.web.ask(ctx, request{Op: "hold", Target: target, Count: count})
	d.held += count
	return err
}

// waitEnded waits until exactly the connections to a server, from index from
// on, have ended, and returns how many.
func (d *demo) waitEnded(ctx context.Context, from int, server string, limit time.Duration) (ended int, err error) {
	err = report.Until(ctx, limit, func() error {
		_, held, err := d.web.stats(ctx)
		if err != nil {
			return err
		}
		ended = 0
		for _, h := range held[from:] {
			if h.Server == server && h.Ended.IsZero() {
				return fmt.Errorf("a connection to %s goes on", server)
			}
			if h.Server == server {
				ended++
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	d.held -= ended
	d.terminated += ended
	return ended, d.heldGoOn(ctx)
}

// heldGoOn checks that every connection that should live answers still.
func (d *demo) heldGoOn(ctx context.Context) error {
	_, before, err := d.web.stats(ctx)
	if err != nil {
		return err
	}
	return report.Until(ctx, 2*time.Second, func() error {
		_, held, err := d.web.stats(ctx)
		if err != nil {
			return err
		}
		live := 0
		for i, h := range held {
			if h.Ended.IsZero() {
				live++
				if h.Requests == before[i].Requests {
					return fmt.Errorf("a connection to %s is stuck", h.Server)
				}
			}
		}
		if live != d.held {
			return fmt.Errorf("%d of the connections to be kept are open, want %d: %s", live, d.held, firstError(held))
		}
		return nil
	})
}

func byServer(held []heldStats) map[string]int {
	m := map[string]int{}
	for _, h := range held {
		m[h.Server]++
	}
	return m
}

func firstError(held []heldStats) string {
	var parts []string
	for _, h := range held {
		if h.Error != "" {
			parts = append(parts, h.Server+": "+h.Error)
		}
	}
	return strings.Join(parts, "; ")
}
