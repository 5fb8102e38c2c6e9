package proxy

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectd/pkg/lb"
)

// An interim answer that the client has got, and a body that it sent because of
// one, keep a request neither from another endpoint nor from an answer of ours.
func TestRetryAfterInterim(t *testing.T) {
	const body = "a body"
	for _, protocol := range []lb.AppProtocol{lb.AppHTTP, lb.AppHTTP2} {
		for _, c := range []struct {
			name   string
			hints  bool // 103
			end    func(http.ResponseWriter, *http.Request)
			alone  bool // there is no other endpoint
			status int
		}{
			{"100, 503", false, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, false, 200},
			{"100, reset", false, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false, 200},
			{"103, 503", true, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, false, 200},
			{"103, reset", true, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false, 200},
			{"103, nothing", true, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, true, 504},
		} {
			t.Run(fmt.Sprint(protocol, " ", c.name), func(t *testing.T) {
				var failed, interim atomic.Int64
				endpoints := []string{serveAs(t, protocol, func(w http.ResponseWriter, r *http.Request) {
					if c.hints {
						w.WriteHeader(103)
					}
					io.Copy(io.Discard, r.Body)
					failed.Add(1)
					c.end(w, r)
				})}
				if !c.alone {
					endpoints = append(endpoints, serveAs(t, protocol, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
				}
				w := newWorld(t, endpoints...)
				w.change(func(h *lb.HTTP) { h.Protocol, h.RequestTimeout = protocol, 5*time.Second }, endpoints...)
				if c.alone {
					w.change(func(h *lb.HTTP) { h.RequestTimeout = 100 * time.Millisecond }, endpoints...)
				}
				client := w.speaks(protocol)
				if t, ok := client.Transport.(*http.Transport); ok {
					t.ExpectContinueTimeout = 10 * time.Second
				}
				for range 2 { // in turn, so that one of them begins with the failing endpoint
					req, _ := http.NewRequest("PUT", w.url("/"), strings.NewReader(body))
					req.Header.Set("Expect", "100-continue")
					r, err := client.Do(req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
						Got1xxResponse: func(int, textproto.MIMEHeader) error { interim.Add(1); return nil },
						Got100Continue: func() { interim.Add(1) },
					})))
					if err != nil {
						t.Fatal(err)
					}
					b, err := io.ReadAll(r.Body)
					r.Body.Close()
					if err != nil || r.StatusCode != c.status || c.status == 200 && string(b) != body {
						t.Errorf("got %d %q (%v), want %d", r.StatusCode, b, err, c.status)
					}
				}
				if failed.Load() == 0 || interim.Load() == 0 {
					t.Errorf("%d failures and %d interim answers", failed.Load(), interim.Load())
				}
			})
		}
	}
}
