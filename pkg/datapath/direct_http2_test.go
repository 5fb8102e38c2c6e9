package datapath

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
)

func serveHTTP2(l net.Listener) { serveHTTP2As(l, func(c net.Conn) net.Conn { return c }) }

func serveHTTP2As(l net.Listener, wrap func(net.Conn) net.Conn) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go (&http2.Server{}).ServeConn(wrap(c), &http2.ServeConnOpts{Handler: http.HandlerFunc(answer2)})
	}
}

// answer2 answers with the status that the path names: /503, or in words:
// /trailers/200 with a body and trailers, /short/302 without a body.
func answer2(w http.ResponseWriter, r *http.Request) {
	var code int
	if _, err := fmt.Sscanf(r.URL.Path, "/trailers/%d", &code); err == nil {
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(code)
		io.WriteString(w, "x")
		w.Header().Set("Grpc-Status", "0")
		return
	}
	if _, err := fmt.Sscanf(r.URL.Path, "/short/%d", &code); err == nil {
		w.WriteHeader(code)
		return
	}
	if r.URL.Path == "/hints" {
		w.WriteHeader(http.StatusEarlyHints)
		return
	}
	status(w, r)
}

// chopped writes n bytes at a time, each as a segment; the first write, in which
// a server says that it speaks HTTP/2, stays whole.
type chopped struct {
	net.Conn
	n     int
	begun bool
}

func (c *chopped) Write(b []byte) (int, error) {
	if !c.begun || c.n == 0 {
		c.begun = true
		return c.Conn.Write(b)
	}
	done := 0
	for done < len(b) {
		n, err := c.Conn.Write(b[done:min(done+c.n, len(b))])
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// onOneCPU keeps the test on one processor: segments sent from two at once may
// overtake one another, and then HTTP/2 is not followed exactly.
func onOneCPU(t *testing.T) {
	t.Helper()
	var one, had unix.CPUSet
	if err := unix.SchedGetaffinity(0, &had); err != nil {
		t.Fatal(err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if had.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	set := func(to *unix.CPUSet) {
		tasks, err := os.ReadDir("/proc/self/task") // threads that are made later inherit it
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			tid, _ := strconv.Atoi(task.Name())
			if err := unix.SchedSetaffinity(tid, to); err != nil && !errors.Is(err, unix.ESRCH) {
				t.Fatal(err)
			}
		}
	}
	set(&one)
	t.Cleanup(func() { set(&had) })
}

func get2(cc *http2.ClientConn, path string) error {
	req, err := http.NewRequest("GET", "http://s"+path, nil)
	if err != nil {
		return err
	}
	res, err := cc.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

// HTTP/2: a status in HPACK's static table or spelt out has its class, one from
// the connection's own table is other; each response is counted once.
func TestDirectHTTP2(t *testing.T) {
	onOneCPU(t)
	var size atomic.Int64
	r := newDirectRig(t, func(l net.Listener) {
		serveHTTP2As(l, func(c net.Conn) net.Conn { return &chopped{Conn: c, n: int(size.Load())} })
	})
	for _, tc := range []struct {
		name  string
		paths []string
		want  [6]uint64
	}{
		{"static", []string{"/200", "/204", "/206", "/304", "/400", "/404", "/500", "/200"}, [6]uint64{2: 4, 3: 1, 4: 2, 5: 1}},
		{"spelt out", []string{"/201", "/503", "/301", "/429", "/502", "/299"}, [6]uint64{2: 2, 3: 1, 4: 1, 5: 2}},
		{"dynamic", []string{"/503", "/503", "/200", "/503"}, [6]uint64{0: 2, 2: 1, 5: 1}},
		{"dynamic without a body", []string{"/short/302", "/short/302", "/short/302", "/short/200"}, [6]uint64{0: 2, 2: 1, 3: 1}},
		{"trailers", []string{"/trailers/200", "/trailers/200", "/trailers/503", "/trailers/503", "/trailers/200"}, [6]uint64{0: 1, 2: 3, 5: 1}},
		{"early hints", []string{"/hints", "/200"}, [6]uint64{2: 2}},
	} {
		for _, n := range []int64{0, 1, 7, 10, 13, 1000} {
			t.Run(fmt.Sprintf("%s/%d", tc.name, n), func(t *testing.T) {
				size.Store(n)
				before := r.counted()
				cc, err := (&http2.Transport{}).NewClientConn(r.dial())
				if err != nil {
					t.Fatal(err)
				}
				for _, path := range tc.paths {
					if err := get2(cc, path); err != nil {
						t.Fatal(err)
					}
				}
				r.wantSince(before, tc.want, 0)
				cc.Close()
			})
		}
	}
}

// Many streams at once, whose frames share segments.
func TestDirectHTTP2Streams(t *testing.T) {
	onOneCPU(t)
	r := newDirectRig(t, serveHTTP2)
	cc, err := (&http2.Transport{}).NewClientConn(r.dial())
	if err != nil {
		t.Fatal(err)
	}
	const streams, requests = 50, 40
	var wg sync.WaitGroup
	for range streams {
		wg.Go(func() {
			for n := range requests {
				if err := get2(cc, []string{"/trailers/200", "/200", "/short/404"}[n%3]); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	r.want2("streams", [6]uint64{2: streams * 27, 4: streams * 13}, 0)
}
