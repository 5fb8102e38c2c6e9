package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/proxy/accesslog"
	"connectd/pkg/testutil"
)

var logFormats = map[string]lb.AccessLogFormat{"TEXT": lb.LogText, "JSON": lb.LogJSON}

// logged has the service log to a file. lines waits until it has so many.
func (w *world) logged(format lb.AccessLogFormat, endpoints ...string) (lines func(n int) []string) {
	w.Helper()
	path := filepath.Join(w.TempDir(), "log")
	logs := accesslog.New(slog.New(slog.NewTextHandler(testWriter{w}, nil)))
	w.Cleanup(func() {
		if err := logs.Close(); err != nil {
			w.Error(err)
		}
	})
	w.p.params.Access = logs // the loops see it when they see the service's change
	w.change(func(h *lb.HTTP) { h.AccessLog = lb.AccessLog{Format: format, Path: path} }, endpoints...)
	return func(n int) (out []string) {
		w.Helper()
		testutil.Eventually(w, 5*time.Second, func() error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			out = strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
			if len(out) != n {
				return fmt.Errorf("%d lines, want %d:\n%s", len(out), n, b)
			}
			return nil
		})
		return out
	}
}

// jsonLine is a line as a reader has it.
func jsonLine(tb testing.TB, line string) map[string]any {
	tb.Helper()
	d := json.NewDecoder(bytes.NewReader([]byte(line)))
	d.UseNumber()
	out := make(map[string]any)
	if err := d.Decode(&out); err != nil {
		tb.Fatalf("%s: %s", line, err)
	}
	return out
}

// A request that was refused before it had an id is logged without one: not
// with that of another request, which may be another task's.
func TestLogRefusedHasNoID(t *testing.T) {
	h1s, h2s := serve(t, named("one")), serveH2(t, named("two"))
	for name, format := range logFormats {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, h2s)
			w.spec.HTTP.Protocol = lb.AppHTTP2
			lines := w.logged(format, h2s)
			refused := func(reason, id string) {
				t.Helper()
				c := w.dial()
				if id != "" {
					id = "X-Request-Id: " + id + "\r\n"
				}
				c.send("GET /refused HTTP/1.1\r\nHost: x\r\n" + id + "\r\n")
				if r, _ := c.response("GET"); r.Header.Get("X-Connectd-Reason") != reason {
					t.Fatalf("refused for %q, want %q", r.Header.Get("X-Connectd-Reason"), reason)
				}
			}
			refused(reasonNeedsHTTP2, "") // of an exchange that had no request before
			w.change(func(h *lb.HTTP) { h.Protocol = lb.AppHTTP }, h1s)
			r, err := w.client().Get(w.url("/"))
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, r.Body)
			r.Body.Close()
			w.change(func(h *lb.HTTP) { h.Protocol = lb.AppHTTP2 }, h2s)
			refused(reasonNeedsHTTP2, "")
			refused(reasonNeedsHTTP2, "own")
			outside := *w.task
			outside.Scope = [4]uint64{}
			w.task = &outside
			w.publish(h2s)
			refused(reasonOutOfScope, "")
			got := lines(5)
			if format == lb.LogJSON {
				for i, line := range got {
					// The fields are those of the service's protocol, whatever came.
					_, stream := jsonLine(t, line)["stream_id"]
					if stream != (i != 1) {
						t.Errorf("line %d: %s", i, line)
					}
				}
			}
			for i, want := range []string{"", "made", "", "own", ""} {
				id := ""
				if format == lb.LogJSON {
					id, _ = jsonLine(t, got[i])["request_id"].(string)
					if want == "" && !strings.Contains(got[i], `"request_id":null`) {
						t.Errorf("line %d: %s", i, got[i])
					}
				} else if id = strings.Split(got[i], `"`)[7]; id == "-" {
					id = ""
				}
				if want == "made" {
					if len(id) != 36 {
						t.Errorf("a request that was forwarded has id %q", id)
					}
				} else if id != want {
					t.Errorf("line %d has id %q, want %q: %s", i, id, want, got[i])
				}
			}
		})
	}
}

// What HTTP/1 has in more than one form is logged in one, and what no request
// could be read from as absent.
func TestLogForms(t *testing.T) {
	at := serve(t, named("one"))
	w := newWorld(t, at)
	lines := w.logged(lb.LogText, at)
	const host = "Host: a\r\nConnection: close\r\n\r\n"
	var want []string
	for _, tc := range []struct{ request, line, authority string }{
		{"GET /x?y HTTP/1.1\r\n" + host, `"GET /x HTTP/1.1" 200`, "a"},
		{"GET http://b:80/x?y HTTP/1.1\r\n" + host, `"GET /x HTTP/1.1" 200`, "b:80"},
		{"GET http://b?y HTTP/1.1\r\n" + host, `"GET / HTTP/1.1" 200`, "b"},
		{"GET http://b HTTP/1.1\r\n" + host, `"GET / HTTP/1.1" 200`, "b"},
		{"OPTIONS http://b HTTP/1.1\r\n" + host, `"OPTIONS * HTTP/1.1" 200`, "b"},
		{"GET /x HTTP/1.0\r\n\r\n", `"GET /x HTTP/1.0" 200`, "-"},
		{"GET /x HTTP/1.1\r\nNo: host\r\n\r\n", `"- - -" 400`, "-"},
		{"no HTTP at all\r\n\r\n", `"- - -" 400`, "-"},
		{"GET /x HTTP/1.1\r\nA: " + strings.Repeat("b", 70<<10) + "\r\n\r\n", `"- - -" 431`, "-"},
	} {
		c := w.dial()
		c.send(tc.request)
		io.Copy(io.Discard, c.r)
		want = append(want, tc.line+" "+tc.authority)
	}
	for i, line := range lines(len(want)) {
		_, line, _ = strings.Cut(line, "] ")
		if quoted := strings.Split(line, `"`); len(quoted) < 11 || `"`+quoted[1]+`" `+strings.Fields(quoted[2])[0]+" "+quoted[9] != want[i] {
			t.Errorf("got %s, want %s", line, want[i])
		}
	}
}
