package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/testutil"
)

// pair is a forwarder on one machine, and two with a server each: first and
// second. Requests for /held and /late are held by first until it is told to go
// on, and those for /late most likely not acknowledged for 40 ms.
type pair struct {
	*world
	first *testutil.Host
	held  chan struct{} // one for each request that is held
	goOn  chan struct{} // closed: they are answered
	seen  [2]atomic.Int64
	posts atomic.Int64 // that second got
	http  *http.Client
}

// newPair has both servers answer once, so that a connection to each is kept.
func newPair(t *testing.T, timeout time.Duration) *pair {
	t.Helper()
	n := testutil.NewWorld(t)
	p := &pair{first: n.Host("first"), held: make(chan struct{}, 16), goOn: make(chan struct{})}
	t.Cleanup(func() { p.release() })
	var endpoints []string
	for i, h := range []*testutil.Host{p.first, n.Host("second")} {
		address := h.Addr4().String() + ":8080"
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p.seen[i].Add(1)
			if i == 1 && r.Method == http.MethodPost {
				p.posts.Add(1)
			}
			if i == 0 && r.URL.Path != "/" {
				if r.URL.Path == "/held" {
					acknowledge(r.Context().Value(connKey{}).(*net.TCPConn))
				}
				p.held <- struct{}{}
				<-p.goOn
			}
			io.WriteString(w, h.Name())
		}), ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }}
		l := h.Listen("tcp", address)
		h.OnClose(func() { server.Close() })
		go server.Serve(l)
		endpoints = append(endpoints, address)
	}
	p.world = newWorldOn(t, n.Host("caller"), endpoints...)
	p.change(func(h *lb.HTTP) { h.RequestTimeout = timeout }, endpoints...)
	p.http = p.client()
	for p.seen[0].Load() == 0 || p.seen[1].Load() == 0 {
		if _, err := p.ask(http.MethodGet, "/"); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

type connKey struct{}

// acknowledge has the kernel acknowledge what it got now, and not 40 ms later.
func acknowledge(c *net.TCPConn) {
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) })
	}
}

func (p *pair) release() {
	select {
	case <-p.goOn:
	default:
		close(p.goOn)
	}
}

// ask makes a request and says who answered, or with which error.
func (p *pair) ask(method, path string) (string, error) {
	r, err := http.NewRequest(method, p.url(path), nil)
	if err != nil {
		return "", err
	}
	answer, err := p.http.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%d %s", answer.StatusCode, strings.TrimSpace(string(body)))
	}
	return string(body), err
}

// firstGone takes the first server's machine away; nothing tells that it is.
func (p *pair) firstGone() {
	p.Helper()
	if err := p.first.SetLink(false); err != nil {
		p.Fatal(err)
	}
}

// struck says whether something was held against the first endpoint.
func (p *pair) struck() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.strikes {
		if s.Endpoint == 1 && s.Count > 0 {
			return true
		}
	}
	return false
}

// A request whose connection was kept, and whose machine has gone since, goes
// to another endpoint long before its time is over, if it may be repeated.
func TestSilentUnacknowledged(t *testing.T) {
	t.Parallel()
	p := newPair(t, 15*time.Second)
	p.firstGone()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if by, err := p.ask(http.MethodGet, "/"); by != "second" {
				t.Errorf("a GET is answered by %q (%v), want by second", by, err)
			}
		})
	}
	all.Wait()
	if !p.struck() {
		t.Error("no request went to the machine that has gone: this shows nothing")
	}
}

// The same where the machine had got the request before it went, so that
// nothing is left to be acknowledged: the kernel asks whether it is there.
func TestSilentAcknowledged(t *testing.T) {
	t.Parallel()
	p := newPair(t, 15*time.Second)
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			if by, err := p.ask(http.MethodGet, "/held"); by != "second" {
				t.Errorf("a GET is answered by %q (%v), want by second", by, err)
			}
		})
	}
	<-p.held
	p.firstGone()
	all.Wait()
}

// What may not be repeated stays where it was sent, whatever becomes of that.
func TestSilentNoRepeat(t *testing.T) {
	t.Parallel()
	p := newPair(t, 5*time.Second)
	var all sync.WaitGroup
	var late atomic.Int64
	for range 2 {
		all.Go(func() {
			by, err := p.ask(http.MethodPost, "/late")
			switch {
			case err != nil && strings.Contains(err.Error(), "504"):
				late.Add(1)
			case by != "second":
				t.Errorf("a POST is answered by %q (%v)", by, err)
			}
		})
	}
	<-p.held
	p.firstGone()
	all.Wait()
	if late, second := late.Load(), p.posts.Load(); late != 1 || second != 1 {
		t.Errorf("of two POSTs %d took too long and second got %d, want 1 and 1: that of a machine that has gone must not be sent again", late, second)
	}
}

// A program that is slow on a machine that is there is waited for: its kernel
// acknowledges, and answers when it is asked.
func TestSlowIsNotSilent(t *testing.T) {
	t.Parallel()
	p := newPair(t, 15*time.Second)
	before := p.seen[1].Load()
	var all sync.WaitGroup
	var by [2]string
	for i := range by {
		all.Go(func() {
			var err error
			if by[i], err = p.ask(http.MethodGet, "/held"); err != nil {
				t.Error(err)
			}
		})
	}
	<-p.held
	// Long enough to be asked whether it is there until that would fail.
	time.AfterFunc(silentAfter+5*time.Second, p.release)
	all.Wait()
	if got := p.seen[1].Load() - before; by[0] == by[1] || got != 1 {
		t.Errorf("two GETs were answered by %v, and second got %d, want one each", by, got)
	}
	if p.struck() {
		t.Error("being slow is held against the endpoint")
	}
}
