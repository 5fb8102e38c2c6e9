package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestHTTPAccessLog: a line for each request, in both formats, in a file that
// can be rotated, or where the daemon's output goes.
func TestHTTPAccessLog(t *testing.T) {
	t.Parallel()
	s, webs := newHTTPShop(t, "a", "b")
	log := func(format, path string) string {
		return fmt.Sprintf("appProtocol: http\naccessLog: {format: %s, path: \"%s\"}\n%s", format, path, patient)
	}
	j, text := s.path("json.log"), s.path("text.log")
	s.begin(service("json", log("JSON", j), "a", "b"), service("text", log("TEXT", text), "b"), service("out", log("JSON", "-"), "b"))
	c := httpClient(t, s.web)
	send := func(name, path string) {
		t.Helper()
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+s.at80(name)+path, nil)
		req.Header.Set("User-Agent", "shop/1")
		req.Header.Set("X-Request-Id", "id-of"+path)
		req.Host = name
		r, err := c.Do(req)
		if err != nil || r.StatusCode != 200 {
			t.Fatalf("%s%s: %v, %v", name, path, r, err)
		}
		r.Body.Close()
	}
	// lines waits until a file has so many.
	lines := func(path string, n int) (out [][]byte) {
		t.Helper()
		s.eventually(10*time.Second, func() error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if out = bytes.SplitAfter(b, []byte("\n")); len(out) != n+1 {
				return fmt.Errorf("%s has %d lines, want %d:\n%s", path, len(out)-1, n, b)
			}
			return nil
		})
		return out[:n]
	}

	webs["a"].answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	send("json", "/1?secret=1")
	send("json", "/2?secret=2")
	tried := 0
	for i, line := range lines(j, 2) {
		var e struct {
			Method, Path, Protocol, Authority string
			StartTime                         time.Time `json:"start_time"`
			Code                              int       `json:"response_code"`
			Sent                              int       `json:"bytes_sent"`
			Agent                             string    `json:"user_agent"`
			ID                                string    `json:"request_id"`
			Host                              string    `json:"upstream_host"`
			Tries                             int
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%s: %s", line, err)
		}
		path := fmt.Sprint("/", i+1)
		if e.Method != "GET" || e.Path != path || e.Protocol != "HTTP/1.1" || e.Authority != "json" || e.Code != 200 || e.Sent != 1 ||
			e.Agent != "shop/1" || !strings.HasPrefix(e.ID, "id-of"+path) || e.Host != s.endpoint("b").String() || time.Since(e.StartTime) > time.Minute {
			t.Errorf("line %d: %s", i, line)
		}
		if e.Tries == 2 {
			tried++
		}
	}
	if tried == 0 {
		t.Error("no line says that there were two tries")
	}

	send("text", "/3?secret=3")
	pattern := `^\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\] "GET /3 HTTP/1.1" 200 0 1 \d+ \d+ "[^"]*" "shop/1" "id-of/3[^"]*" "text" "` +
		regexp.QuoteMeta(s.endpoint("b").String()) + `"` + "\n$"
	if got := lines(text, 1)[0]; !regexp.MustCompile(pattern).Match(got) {
		t.Errorf("%q does not match %s", got, pattern)
	}

	send("out", "/4")
	s.eventually(10*time.Second, func() error {
		if !s.daemon.logged(`"path":"/4"`, `"authority":"out"`) {
			return fmt.Errorf("the daemon's output does not have it:\n%s", s.daemon.output())
		}
		return nil
	})

	// Rotated: what goes on before the signal is in the old file, the rest in a
	// new one, and nothing is lost.
	if err := os.Rename(j, j+".1"); err != nil {
		t.Fatal(err)
	}
	send("json", "/5")
	lines(j+".1", 3)
	s.daemon.signal(syscall.SIGHUP)
	sent := 3
	s.eventually(10*time.Second, func() error {
		send("json", "/6")
		sent++
		_, err := os.Stat(j)
		return err
	})
	send("json", "/7")
	sent++
	s.eventually(10*time.Second, func() error {
		before, _ := os.ReadFile(j + ".1")
		after, err := os.ReadFile(j)
		if n := bytes.Count(before, []byte("\n")) + bytes.Count(after, []byte("\n")); err != nil || n != sent || !bytes.Contains(after, []byte(`"/7"`)) {
			return fmt.Errorf("%d of %d lines, the new file has\n%s(%v)", n, sent, after, err)
		}
		return nil
	})
}
