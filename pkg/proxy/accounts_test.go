package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/proxy/route"
	"connectd/pkg/testutil"
)

// TestAccountsOfRequests: each try is counted for who called, each request for
// who was tried last, over HTTP/1 and HTTP/2.
func TestAccountsOfRequests(t *testing.T) {
	answer := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(status)
			io.WriteString(w, "four")
		}
	}
	for _, test := range []struct {
		name     string
		protocol lb.AppProtocol
		serve    func(testing.TB, http.HandlerFunc) string
		client   func(*world) *http.Client
	}{
		{"HTTP/1", lb.AppHTTP, serve, (*world).client},
		{"HTTP/2", lb.AppHTTP2, serveH2, (*world).h2client},
	} {
		t.Run(test.name, func(t *testing.T) {
			bad, good := test.serve(t, answer(503)), test.serve(t, answer(200))
			w := newWorld(t, bad, good)
			w.change(func(h *lb.HTTP) { h.Protocol = test.protocol }, bad, good)
			c := test.client(w)
			for range 10 {
				req, _ := http.NewRequest("PUT", w.url("/"), strings.NewReader("body!!"))
				r, err := c.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, r.Body)
				r.Body.Close()
				if r.StatusCode != 200 {
					t.Fatalf("status %d", r.StatusCode)
				}
			}
			// The last one is counted after its client has it all.
			testutil.Eventually(t, 5*time.Second, func() error {
				var tries [6]uint64
				var received, sent, other uint64
				servers := map[string]uint64{}
				w.p.Each(func(s *route.Service) {
					s.Accounts(func(c *route.Caller) {
						if c.Owner != w.task.Owner {
							other++
							return
						}
						for i := range c.Classes {
							tries[i] = c.Classes[i].Load()
						}
						received, sent = c.Received.Load(), c.Sent.Load()
					}, func(s *route.Server) { servers[s.Owner.String()] = s.Requests.Load() })
				}, func(*route.Endpoint) {})
				if tries[2] != 10 || tries[0]+tries[5] == 0 || received != 60 || sent != 40 || other != 0 || len(servers) != 1 || servers["shop/server-2"] != 10 {
					return fmt.Errorf("tries %v, bytes %d and %d, %d other callers, requests to %v", tries, received, sent, other, servers)
				}
				return nil
			})
		})
	}
}
