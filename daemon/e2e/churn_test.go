package e2e

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// TestNothingElseIsTerminated: connections are terminated over and over while
// 100,000 short ones come and go between the same client and the very same
// addresses and ports, by another VIP and by none. Not one of them is reset.
func TestNothingElseIsTerminated(t *testing.T) {
	t.Parallel()
	times := 100000
	if testing.Short() || raceEnabled {
		times = 20000
	}
	s := newShop(t, "a", "b")
	const drain = "drain: {deadlineSeconds: 0.05, connections: terminate}"
	s.begin(service("churn", drain, "a", "b"), service("victim", drain, "a", "b"))
	address, victim := s.at80("churn"), s.at80("victim")
	bystanders := []*held{hold(t, s.web, address), hold(t, s.web, s.endpoint("a").String())}

	var running atomic.Int32
	running.Store(2)
	type result struct {
		what string
		got  map[string]int
		err  error
	}
	results := make(chan result, 2)
	for what, load := range map[string]struct {
		address string
		times   int
	}{
		"by another VIP": {address, times * 9 / 10},
		"by none":        {s.endpoint("b").String(), times / 10},
	} {
		go func() {
			got, err := runClient[map[string]int](s.web, nil, "churn", load.address, fmt.Sprint(load.times), "8")
			results <- result{what, got, err}
			running.Add(-1)
		}()
	}
	rounds, ended := 0, 0
	for running.Load() > 0 {
		for _, server := range []string{"a", "b"} {
			var doomed []*held
			for range 4 {
				doomed = append(doomed, hold(t, s.web, victim))
			}
			if _, err := s.control().Drain(context.Background(), "prod/victim", s.endpoint(server)); err != nil {
				t.Fatal(err)
			}
			for _, c := range doomed {
				if c.server == server {
					if err := c.ended(10 * time.Second); err != nil {
						t.Error(err)
					}
					ended++
				} else if err := c.works(); err != nil {
					t.Errorf("connection to the endpoint that does not drain: %s", err)
				}
				c.Close()
			}
			if _, err := s.control().Undrain(context.Background(), "prod/victim", s.endpoint(server)); err != nil {
				t.Fatal(err)
			}
		}
		rounds++
	}
	total := 0
	for range 2 {
		r := <-results
		total += r.got["ok"]
		if r.err != nil || len(r.got) != 1 {
			t.Errorf("short connections %s: %v %v", r.what, r.got, r.err)
		}
	}
	if total != times {
		t.Errorf("%d of %d short connections went well", total, times)
	}
	for _, c := range bystanders {
		if err := c.works(); err != nil {
			t.Errorf("held connection to %s: %s", c.RemoteAddr(), err)
		}
	}
	if n := int(s.metric("connectd_terminated_connections_total", "reason", "endpoint")); n != ended {
		t.Errorf("%d terminated connections counted, %d were", n, ended)
	}
	if ended < 10 {
		t.Errorf("only %d connections were terminated beside it", ended)
	}
	t.Logf("%d connections terminated in %d rounds beside %d short ones", ended, rounds, total)
}
