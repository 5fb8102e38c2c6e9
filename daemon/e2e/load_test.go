package e2e

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"connectd/pkg/testutil"
)

// load is traffic of one client that goes on until stop: workers that open a
// connection after another, and connections held through all of it.
type load struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	opened atomic.Int64
	pinged atomic.Int64
	held   []*held

	mu   sync.Mutex
	errs []string
}

// loaded starts traffic to an address of a VIP.
func (s *shop) loaded(h *testutil.Host, address string) *load {
	s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel}
	s.Cleanup(func() { cancel(); l.wg.Wait() })
	for range 3 {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := h.Ask(context.Background(), "tcp", address); err != nil {
					l.fail("new connection", err)
				}
				l.opened.Add(1)
			}
		})
	}
	for range 10 {
		c := hold(s, h, address)
		l.held = append(l.held, c)
		l.wg.Go(func() {
			for ctx.Err() == nil {
				if err := c.works(); err != nil {
					l.fail("held connection", err)
					return
				}
				l.pinged.Add(1)
				pause(ctx, 5*time.Millisecond)
			}
		})
	}
	return l
}

// pause spaces what a load does; nothing is awaited by it.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (l *load) fail(what string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, fmt.Sprintf("%s %s: %s", time.Now().UTC().Format("15:04:05.000"), what, err))
}

// progress waits until some more connections were opened and answered.
func (l *load) progress(n *node) {
	n.Helper()
	opened, pinged := l.opened.Load()+30, l.pinged.Load()+100
	n.eventually(20*time.Second, func() error {
		if l.opened.Load() < opened || l.pinged.Load() < pinged {
			return fmt.Errorf("%d of %d opened, %d of %d pinged", l.opened.Load(), opened, l.pinged.Load(), pinged)
		}
		return nil
	})
}

// stop ends the load and returns what went wrong.
func (l *load) stop() []string {
	l.cancel()
	l.wg.Wait()
	return l.errs
}
