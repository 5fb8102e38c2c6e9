package h2

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// world is a client, a forwarder and an endpoint in memory, whose bytes move
// and whose people act by a seeded chance.
type world struct {
	t     *testing.T
	rnd   *rand.Rand
	now   time.Time
	calm  bool // no more failures: what is under way comes to its end
	fwd   *Forwarder
	pool  *Pool
	links []*link // the client's, and one for each session to an endpoint
	up    *link
	dials []*Exchange // waiting for a session
	begun map[*Exchange]bool
	asks  map[*Stream]*ask
}

// link is two sessions back to back.
type link struct {
	a, b *Session
	dead bool
}

// ask is what the client knows of a request of its own.
type ask struct {
	left     int // of its body
	trailers bool
	got      int
	want     int // from content-length-like field, -1 before the head
	ended    bool
	reset    bool
}

func (w *world) chance(percent int) bool { return w.rnd.IntN(100) < percent }

// trouble is a chance that ends when the world calms down.
func (w *world) trouble(permille int) bool { return !w.calm && w.rnd.IntN(1000) < permille }

func (w *world) Request(x *Exchange) (Origin, int) {
	if w.begun[x] {
		w.t.Fatal("an exchange begins twice")
	}
	w.begun[x] = true
	if w.trouble(20) {
		return Origin{}, 404
	}
	return Origin{For: "c"}, 0
}

func (w *world) Dial(x *Exchange) {
	switch {
	case w.trouble(50):
		x.Failed(ConnectFailed)
	case w.up != nil && w.up.a.Room() > 0 && w.chance(80):
		x.Connected(w.up.a)
	default:
		w.dials = append(w.dials, x)
	}
}

func (w *world) Abandon(x *Exchange) {
	for i, d := range w.dials {
		if d == x {
			w.dials = append(w.dials[:i], w.dials[i+1:]...)
			return
		}
	}
	w.t.Fatal("a dial is abandoned that is not under way")
}

func (w *world) Judge(x *Exchange, _ Failure) bool { return x.Tries < 3 && x.Replayable() }

func (w *world) Active(x *Exchange) {
	if !w.begun[x] || !x.Answered() {
		w.t.Fatal("an exchange is active that has no answer, or is over")
	}
}

func (w *world) Done(x *Exchange) {
	if !w.begun[x] {
		w.t.Fatal("an exchange ends twice")
	}
	delete(w.begun, x)
}

// client is the Handler of the client's session.
type client struct{ w *world }

func (c client) Headers(st *Stream, kind Kind, fields []hpack.HeaderField, end bool) {
	a := c.w.asks[st]
	if kind == Head {
		a.want = -1
		for _, f := range fields {
			if f.Name == "x-size" {
				fmt.Sscan(f.Value, &a.want)
			}
		}
	}
	if end {
		a.ended = true
	}
}

func (c client) Data(st *Stream, p []byte, end bool) {
	a := c.w.asks[st]
	for i, b := range p {
		if a.want >= 0 && b != byte(a.got+i) {
			c.w.t.Fatalf("byte %d of a response is %d", a.got+i, b)
		}
	}
	a.got += len(p)
	a.ended = a.ended || end
	st.Release(len(p))
	if c.w.trouble(10) {
		a.reset = true
		st.Close(http2.ErrCodeCancel)
		delete(c.w.asks, st)
	}
}

func (c client) Reset(st *Stream, cause Cause) {
	if a := c.w.asks[st]; a.ended && a.want >= 0 && a.got != a.want {
		c.w.t.Fatalf("a response of %d bytes ended after %d", a.want, a.got)
	}
	st.Close(http2.ErrCodeNo)
	delete(c.w.asks, st)
}

func (c client) Writable(st *Stream) { c.send(st) }
func (c client) Flush(*Session)      {}

func (c client) send(st *Stream) {
	a := c.w.asks[st]
	n := min(a.left, 1+c.w.rnd.IntN(60_000))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(a.left - i)
	}
	a.left -= st.Write(p, n == a.left && !a.trailers)
	if a.left == 0 && a.trailers {
		a.trailers = false
		st.Headers([]hpack.HeaderField{{Name: "x-sum", Value: "1"}}, true)
	}
}

// server is the Handler of endpoints' sessions.
type server struct {
	w    *world
	size map[*Stream]int // of a response under way
	sent map[*Stream]int
	got  map[*Stream]int
	want map[*Stream]int // of a request
}

func (s *server) Headers(st *Stream, kind Kind, fields []hpack.HeaderField, end bool) {
	for _, f := range fields {
		if f.Name == "x-size" {
			var n int
			fmt.Sscan(f.Value, &n)
			s.want[st] = n
		}
	}
	if end {
		s.check(st)
	}
	if _, under := s.size[st]; !under && (end || s.w.chance(20)) {
		s.answer(st)
	}
}

// check: a request that ends is whole, whichever try it is.
func (s *server) check(st *Stream) {
	if s.got[st] != s.want[st] {
		s.w.t.Fatalf("a request of %d bytes ended after %d", s.want[st], s.got[st])
	}
}

func (s *server) Data(st *Stream, p []byte, end bool) {
	want := s.want[st]
	for i, b := range p {
		if b != byte(want-s.got[st]-i) {
			s.w.t.Fatalf("byte %d of a request is %d", s.got[st]+i, b)
		}
	}
	s.got[st] += len(p)
	st.Release(len(p))
	if end {
		s.check(st)
	}
	if _, under := s.size[st]; !under && (end || s.w.chance(5)) {
		s.answer(st)
	}
}

func (s *server) answer(st *Stream) {
	w := s.w
	codes := []http2.ErrCode{http2.ErrCodeNo, http2.ErrCodeRefusedStream, http2.ErrCodeInternal, http2.ErrCodeCancel}
	if w.trouble(100) {
		s.close(st, codes[w.rnd.IntN(len(codes))])
		return
	}
	if w.trouble(100) {
		st.Headers([]hpack.HeaderField{{Name: ":status", Value: "103"}}, false)
	}
	if w.trouble(100) {
		st.Headers([]hpack.HeaderField{{Name: ":status", Value: "503"}}, true)
		s.finish(st)
		return
	}
	size := w.rnd.IntN(3) * w.rnd.IntN(200_000)
	s.size[st] = size
	st.Headers([]hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "x-size", Value: fmt.Sprint(size)}}, size == 0)
	if size > 0 {
		s.Writable(st)
	} else {
		s.finish(st)
	}
}

func (s *server) Writable(st *Stream) {
	w := s.w
	left := s.size[st] - s.sent[st]
	n := min(left, 1+w.rnd.IntN(100_000))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(s.sent[st] + i)
	}
	trailers := s.size[st]%2 == 0
	s.sent[st] += st.Write(p, n == left && !trailers)
	if w.trouble(20) {
		s.close(st, http2.ErrCodeInternal)
		return
	}
	if s.sent[st] == s.size[st] {
		if trailers {
			st.Headers([]hpack.HeaderField{{Name: "x-sum", Value: "1"}}, true)
		}
		s.finish(st)
	}
}

// more writes on where Write took all it was given.
func (s *server) more() (moved bool) {
	for st, size := range s.size {
		if s.sent[st] < size && !st.short && !st.Gone() {
			s.Writable(st)
			moved = true
		}
	}
	return moved
}

// finish lets a stream go whose response is written, now or when the request
// has ended.
func (s *server) finish(st *Stream) {
	if st.Gone() || s.w.chance(30) {
		s.close(st, http2.ErrCodeNo)
	}
}

func (s *server) close(st *Stream, code http2.ErrCode) {
	st.Close(code)
	delete(s.size, st)
	delete(s.sent, st)
	delete(s.got, st)
	delete(s.want, st)
}

func (s *server) Reset(st *Stream, _ Cause) { s.close(st, http2.ErrCodeNo) }
func (s *server) Flush(*Session)            {}

// endpoint makes a session pair towards an endpoint.
func (w *world) endpoint() *link {
	cfg := Config{MaxStreams: 5 + w.rnd.IntN(20), StreamWindow: 1, ConnWindow: w.rnd.IntN(300_000), Pool: w.pool}
	l := &link{a: New(cfg, w.fwd)}
	cfg = Config{Server: true, MaxStreams: 5 + w.rnd.IntN(20), StreamWindow: 1, ConnWindow: w.rnd.IntN(300_000)}
	l.b = New(cfg, &server{w: w, size: map[*Stream]int{}, sent: map[*Stream]int{}, got: map[*Stream]int{}, want: map[*Stream]int{}})
	w.links = append(w.links, l)
	return l
}

// move carries some bytes over a link, and reports whether there were any.
func (w *world) move(l *link) (moved bool) {
	for _, d := range [][2]*Session{{l.a, l.b}, {l.b, l.a}} {
		out := d[0].Output()
		if n := min(len(out), 1+w.rnd.IntN(40_000)); n > 0 {
			moved = true
			if err := d[1].Feed(append([]byte(nil), out[:n]...), w.now); err != nil {
				w.t.Fatal(err)
			}
			d[0].Sent(n, w.now)
		}
	}
	return moved
}

// act is one thing that somebody does.
func (w *world) act() (moved bool) {
	w.now = w.now.Add(time.Millisecond)
	me := w.links[0].a
	if !w.calm && me.Room() > 0 && w.chance(10) {
		a := &ask{left: w.rnd.IntN(3) * w.rnd.IntN(100_000), trailers: w.chance(20), want: -1}
		fields := append(getFields[:4:4], hpack.HeaderField{Name: "x-size", Value: fmt.Sprint(a.left)})
		st, err := me.Open(fields, a.left == 0 && !a.trailers)
		if err != nil {
			w.t.Fatal(err)
		}
		w.asks[st] = a
	}
	for st, a := range w.asks {
		switch {
		case a.ended && st.Gone():
			st.Close(http2.ErrCodeNo)
			delete(w.asks, st)
			moved = true
		case a.ended && w.chance(1):
			st.Close(http2.ErrCodeNo) // enough of an answer to stop asking
			delete(w.asks, st)
			moved = true
		case (a.left > 0 || a.trailers) && !st.short && !st.Gone():
			client{w}.send(st)
			moved = true
		}
	}
	for len(w.dials) > 0 && w.chance(50) {
		x := w.dials[0]
		w.dials = w.dials[1:]
		if w.up == nil || w.up.a.Room() == 0 {
			w.up = w.endpoint()
		}
		x.Connected(w.up.a)
	}
	for x := range w.begun {
		if w.trouble(2) {
			x.Expire(504, ReasonTimeout)
		} else if w.trouble(1) {
			x.Cut()
		}
		break
	}
	for _, l := range w.links {
		if !l.dead && w.chance(60) {
			moved = w.move(l) || moved
		}
		if s, ok := l.b.handler.(*server); ok {
			moved = s.more() || moved
		}
	}
	if up := w.up; up != nil && w.trouble(5) {
		if w.up = nil; w.chance(50) {
			up.b.Shutdown()
		} else {
			up.dead = true
			up.a.Close()
			up.b.Close()
		}
	}
	return moved || len(w.dials) > 0
}

// TestChaos: whatever happens in whichever order, bodies arrive unchanged or
// not at all, every exchange ends once, and nothing is left: no stream, no
// byte kept for replay, no credit.
func TestChaos(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := &world{
				t: t, rnd: rand.New(rand.NewPCG(seed, 0)), now: time.Unix(1e9, 0), pool: NewPool(),
				begun: map[*Exchange]bool{}, asks: map[*Stream]*ask{},
			}
			w.fwd = NewForwarder(w.pool, w, func(*Session) {})
			cfg := Config{Server: true, Pool: w.pool, StreamWindow: 1, ConnWindow: w.rnd.IntN(300_000)}
			w.links = append(w.links, &link{
				a: New(Config{MaxStreams: 1 + w.rnd.IntN(50), ConnWindow: w.rnd.IntN(300_000), StreamWindow: 1}, client{w}),
				b: New(cfg, w.fwd),
			})
			for range 600 {
				w.act()
			}
			w.calm = true
			for idle := 0; idle < 30; idle++ {
				if w.act() {
					idle = 0
				}
			}
			w.over()
		})
	}
}

// over checks that nothing is left.
func (w *world) over() {
	if len(w.begun) != 0 || len(w.asks) != 0 || w.fwd.replay != 0 {
		w.t.Errorf("%d exchanges, %d requests and %d bytes for replay are left", len(w.begun), len(w.asks), w.fwd.replay)
	}
	for i, l := range w.links {
		for _, s := range []*Session{l.a, l.b} {
			if s.Streams() != 0 {
				w.t.Errorf("link %d: %d streams are left", i, s.Streams())
			}
			if !l.dead && s.recvWindow+s.owed != int64(s.cfg.ConnWindow) {
				w.t.Errorf("link %d: the connection's window is %d and %d owed, of %d", i, s.recvWindow, s.owed, s.cfg.ConnWindow)
			}
		}
	}
}
