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

// What an endpoint answered is counted as that, be it tried again or passed on.
func TestAnswersOfEndpointsAreCounted(t *testing.T) {
	for _, c := range []struct {
		name     string
		protocol lb.AppProtocol
		attempts uint8
		class    int // of the endpoint's tries
		grpc     int // -1: none
	}{
		{"503, passed on", lb.AppHTTP, 0, 5, -1},
		{"503, tried again", lb.AppHTTP, 2, 5, -1},
		{"503, passed on", lb.AppHTTP2, 0, 5, -1},
		{"503, tried again", lb.AppHTTP2, 2, 5, -1},
		{"UNAVAILABLE, passed on", lb.AppGRPC, 0, 2, 14},
		{"UNAVAILABLE, tried again", lb.AppGRPC, 2, 2, 14},
	} {
		t.Run(fmt.Sprint(c.protocol, " ", c.name), func(t *testing.T) {
			answer := func(w http.ResponseWriter, r *http.Request) {
				if c.grpc >= 0 {
					w.Header().Set("content-type", "application/grpc")
					w.Header().Set("grpc-status", fmt.Sprint(c.grpc))
					return
				}
				w.WriteHeader(503)
				io.WriteString(w, "sorry")
			}
			addr := serveAs(t, c.protocol, answer)
			w := newWorld(t, addr)
			w.change(func(h *lb.HTTP) { h.Protocol, h.Retry.Attempts = c.protocol, c.attempts }, addr)
			req, _ := http.NewRequest("PUT", w.url("/"), strings.NewReader("a body"))
			if c.grpc >= 0 {
				req.Header.Set("content-type", "application/grpc")
			}
			r, err := w.speaks(c.protocol).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(r.Body)
			r.Body.Close()
			want := uint64(c.attempts) + 1
			testutil.Eventually(t, 5*time.Second, func() (err error) { // the client may be faster than the counters
				w.p.Each(func(*route.Service) {}, func(e *route.Endpoint) {
					calls := uint64(0)
					if c.grpc >= 0 {
						calls = e.GRPC[c.grpc].Load()
					}
					if e.Classes[c.class].Load() != want || e.Classes[0].Load() > 0 || c.grpc >= 0 && calls != want || e.Sent.Load() != uint64(len(b)) {
						err = fmt.Errorf("%d of class %d, %d without an answer, %d calls and %d bytes sent, want %d and %d bytes",
							e.Classes[c.class].Load(), c.class, e.Classes[0].Load(), calls, e.Sent.Load(), want, len(b))
					}
				})
				return err
			})
			if _, longest := w.run(); longest != uint32(want) {
				t.Errorf("%d strikes, want %d", longest, want)
			}
		})
	}
}
