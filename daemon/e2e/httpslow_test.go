package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// rss is what the daemon has in memory, in bytes.
func (p *process) rss() int64 {
	p.tb.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.tb.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[0] == "VmRSS:" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	p.tb.Fatal("no VmRSS")
	return 0
}

// TestHTTPSlowReaders: a thousand clients that do not read what they asked for
// keep neither others waiting nor much memory, and get it all in the end. What
// is asked for is 1 MiB, which the kernel's buffers take; some ask for 16, which
// they do not.
func TestHTTPSlowReaders(t *testing.T) {
	readers, ofHuge := 1000, 20
	if testing.Short() || raceEnabled {
		readers, ofHuge = 200, 10
	}
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<20/16)
	huge := bytes.Repeat(large, 16)
	s, webs := newHTTPShop(t, "a", "b")
	for name, w := range webs {
		w.answer(func(w http.ResponseWriter, r *http.Request) {
			body := map[string][]byte{"/": []byte(name), "/large": large, "/huge": huge}[r.URL.Path]
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			w.Write(body)
		})
	}
	log := s.path("slow.log")
	s.begin(service("orders", "appProtocol: http", "a", "b"), service("slow", "appProtocol: http\naccessLog: {format: TEXT, path: "+log+"}", "a", "b"))
	over := func(path string) int {
		b, _ := os.ReadFile(log)
		return bytes.Count(b, []byte(`"GET `+path+` HTTP/1.1" 200 `))
	}
	l := s.requesting(s.web, s.at80("orders"), 2, false)
	l.progress(s.node)
	before := s.daemon.rss()
	conns, want := make([]net.Conn, readers), make([][]byte, readers)
	for i := range conns {
		conn, err := s.web.Dial(t.Context(), "tcp", s.at80("slow"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		path := "/large"
		if conns[i], want[i] = conn, large; i < ofHuge {
			path, want[i] = "/huge", huge
		}
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n", path)
	}
	s.eventually(60*time.Second, func() error {
		if n := webs["a"].requests.Load() + webs["b"].requests.Load() - l.done.Load(); n < int64(readers) {
			return fmt.Errorf("%d of %d requests came", n, readers)
		}
		return nil
	})
	for range 5 {
		l.progress(s.node)
	}
	held := s.daemon.rss()
	t.Logf("%d slow readers: %.1f MiB in memory, %.1f before", readers, float64(held)/(1<<20), float64(before)/(1<<20))
	if n := over("/huge"); n > 0 {
		t.Errorf("%d of the slow requests are over: the kernel holds what nobody reads, this shows nothing", n)
	}
	// 32 MiB that a loop holds before it reads little at once, some of it
	// twice while a buffer grows, and what the connections themselves take.
	if most := before + 100<<20; held > most {
		t.Errorf("%d MiB in memory, want at most %d", held>>20, most>>20)
	}
	var wg sync.WaitGroup
	failed := make(chan error, readers)
	for chunk := range 20 {
		wg.Go(func() {
			for i := chunk; i < readers; i += 20 {
				if err := readAnswer(conns[i], want[i]); err != nil {
					failed <- fmt.Errorf("reader %d: %w", i, err)
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	s.eventually(10*time.Second, func() error {
		if n := over("/large") + over("/huge"); n != readers {
			return fmt.Errorf("%d of %d in the access log", n, readers)
		}
		return nil
	})
	if errs := l.stop(); len(errs) > 0 {
		t.Errorf("%d other requests failed, first ones:\n%s", len(errs), firstOf(errs))
	}
}

func readAnswer(conn net.Conn, want []byte) error {
	conn.SetDeadline(time.Now().Add(60 * time.Second))
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	got, err := io.ReadAll(r.Body)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%d bytes, not those that were sent", len(got))
	}
	return err
}
