package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"connectd/pkg/lb"
	"connectd/pkg/testutil"
)

// pass lets a time go by for the loops: their clocks jump, and what is due
// happens.
func (w *world) pass(d time.Duration) {
	for _, l := range w.p.loops {
		l.call(func() {
			l.epoch = l.epoch.Add(-d)
			l.now = l.clock()
			l.expire()
		})
	}
}

// newH2World is a forwarder for an HTTP/2 service of one endpoint.
func newH2World(t *testing.T, h http.HandlerFunc) (w *world, endpoint string) {
	t.Helper()
	endpoint = serveH2(t, h)
	w = newWorld(t, endpoint)
	w.change(func(h *lb.HTTP) { h.Protocol = lb.AppHTTP2 }, endpoint)
	return w, endpoint
}

// goAway runs Away and waits for it at the end of the test.
func (w *world) goAway() {
	gone := make(chan struct{})
	go func() { w.p.Away(); close(gone) }()
	w.Cleanup(func() { <-gone })
}

// bareH2 is an HTTP/2 client frame by frame.
type bareH2 struct {
	*bareConn
	fr  *http2.Framer
	enc *hpack.Encoder
	buf bytes.Buffer
}

func (w *world) dialH2() *bareH2 {
	w.Helper()
	c := &bareH2{bareConn: w.dial()}
	c.send(http2.ClientPreface)
	c.fr, c.enc = http2.NewFramer(c.Conn, c.r), hpack.NewEncoder(&c.buf)
	c.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.did(c.fr.WriteSettings())
	c.did(c.fr.WriteSettingsAck())
	return c
}

func (c *bareConn) did(err error) {
	c.tb.Helper()
	if err != nil {
		c.tb.Fatal(err)
	}
}

func (c *bareH2) block(method, path string) []byte {
	c.buf.Reset()
	for _, f := range [][2]string{{":method", method}, {":scheme", "http"}, {":path", path}, {":authority", "orders"}} {
		c.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	return bytes.Clone(c.buf.Bytes())
}

// request sends one without a body.
func (c *bareH2) request(id uint32, method, path string) {
	c.tb.Helper()
	c.did(c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block(method, path), EndStream: true, EndHeaders: true}))
}

// next is the next frame that says something, in a few words. An end of the
// connection is one too.
func (c *bareH2) next() string {
	c.tb.Helper()
	for {
		f, err := c.fr.ReadFrame()
		if errors.Is(err, io.EOF) {
			return "end"
		}
		if err != nil {
			return err.Error()
		}
		switch f := f.(type) {
		case *http2.GoAwayFrame:
			return fmt.Sprintf("goaway %d %s", f.LastStreamID, f.ErrCode)
		case *http2.PingFrame:
			if !f.IsAck() {
				return "ping " + string(f.Data[:])
			}
		case *http2.MetaHeadersFrame:
			return fmt.Sprintf("%d: %s", f.StreamID, f.PseudoValue("status"))
		case *http2.RSTStreamFrame:
			return fmt.Sprintf("%d: %s", f.StreamID, f.ErrCode)
		}
	}
}

// hears fails unless the next frames are these.
func (c *bareH2) hears(want ...string) {
	c.tb.Helper()
	for _, w := range want {
		if got := c.next(); got != w {
			c.tb.Fatalf("heard %q, want %q", got, w)
		}
	}
}

// hearsBoth takes two frames in either order.
func (c *bareH2) hearsBoth(a, b string) {
	c.tb.Helper()
	if first, second := c.next(), c.next(); (first != a || second != b) && (first != b || second != a) {
		c.tb.Fatalf("heard %q and %q, want %q and %q", first, second, a, b)
	}
}

// echo answers the PING between the two GOAWAYs.
func (c *bareH2) echo() {
	c.tb.Helper()
	c.did(c.fr.WritePing(true, [8]byte([]byte(farewellPing)[5:])))
}

const (
	firstGoAway  = "goaway 2147483647 NO_ERROR"
	farewellPing = "ping drain\x00\x00\x00"
)

// Whoever is sent away has what it had sent by then answered: after the first
// GOAWAY the connection stays until the client has read it.
func TestHTTP2SentAway(t *testing.T) {
	for _, test := range []struct {
		name  string
		leave func(w *world, endpoint string, c *bareH2)
		used  bool // a request came before
	}{
		{"idle when the daemon goes", func(w *world, _ string, _ *bareH2) { w.goAway() }, true},
		{"not used when the daemon goes", func(w *world, _ string, _ *bareH2) { w.goAway() }, false},
		{"idle for too long", func(w *world, _ string, _ *bareH2) { w.pass(5 * time.Minute) }, true},
	} {
		for _, echoes := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, echo %t", test.name, echoes), func(t *testing.T) {
				w, endpoint := newH2World(t, named("one"))
				c := w.dialH2()
				last := uint32(1)
				if test.used {
					c.request(last, "GET", "/")
					c.hears("1: 200")
					last += 2
				} else {
					w.known(c)
				}
				test.leave(w, endpoint, c)
				c.hears(firstGoAway, farewellPing)
				c.request(last, "POST", "/") // under way when the client read it
				answered := fmt.Sprintf("%d: 200", last)
				if echoes {
					c.echo()
					c.hearsBoth(fmt.Sprintf("goaway %d NO_ERROR", last), answered)
					c.hears("end")
					return
				}
				c.hears(answered)
				w.pass(farewellTimeout)
				c.hears(fmt.Sprintf("goaway %d NO_ERROR", last), "end")
			})
		}
	}
}

// known waits until the forwarder has seen that a client speaks HTTP/2.
func (w *world) known(c *bareH2) {
	w.Helper()
	f, err := c.fr.ReadFrame()
	if _, ok := f.(*http2.SettingsFrame); !ok {
		w.Fatalf("got %v, %v instead of SETTINGS", f, err)
	}
}

// A client that begins while the daemon goes away is told the same.
func TestHTTP2BeginsWhileAway(t *testing.T) {
	w, _ := newH2World(t, named("one"))
	w.p.draining.Store(true)
	c := w.dialH2()
	c.hears(firstGoAway, farewellPing)
	c.request(1, "POST", "/")
	c.echo()
	c.hearsBoth("goaway 1 NO_ERROR", "1: 200")
	c.hears("end")
}

// A client that resets its last request after the final GOAWAY has its
// connection closed, not kept until it is idle for too long.
func TestHTTP2ResetAfterGoAway(t *testing.T) {
	arrived := make(chan struct{}, 1)
	w, _ := newH2World(t, func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	c := w.dialH2()
	c.request(1, "GET", "/")
	<-arrived
	w.goAway()
	c.hears(firstGoAway, farewellPing)
	c.echo()
	c.hears("goaway 1 NO_ERROR")
	c.did(c.fr.WriteRSTStream(1, http2.ErrCodeCancel))
	c.hears("end")
}

// A service that is not the forwarder's any more, or speaks HTTP/1 now, keeps
// no client for ever: the next request is answered and the client sent away.
func TestHTTP2ServiceChanges(t *testing.T) {
	for name, change := range map[string]func(w *world, endpoint string){
		"direct":   func(w *world, endpoint string) { w.change(func(h *lb.HTTP) { h.Direct = true }, endpoint) },
		"TCP":      func(w *world, endpoint string) { w.spec.HTTP = nil; w.publish(endpoint) },
		"HTTP/1.1": func(w *world, endpoint string) { w.change(func(h *lb.HTTP) { h.Protocol = lb.AppHTTP }, endpoint) },
	} {
		t.Run(name, func(t *testing.T) {
			w, endpoint := newH2World(t, named("one"))
			c := w.dialH2()
			c.request(1, "GET", "/")
			c.hears("1: 200")
			change(w, endpoint)
			c.request(3, "GET", "/")
			c.hears(firstGoAway, farewellPing)
			c.request(5, "GET", "/")
			c.echo()
			heard := map[string]bool{}
			for got := ""; got != "end"; {
				got = c.next()
				heard[got] = true
			}
			for _, want := range []string{"goaway 5 NO_ERROR", "3: 200", "5: 200"} {
				if !heard[want] {
					t.Errorf("heard %v, not %q", heard, want)
				}
			}
		})
	}
}

// A beginning of the preface is a head like any other: it takes its time once.
func TestSlowPreface(t *testing.T) {
	for _, head := range []string{"P", "PR", "PRI", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r", "PUT"} {
		w := newWorld(t, serve(t, named("one")))
		c := w.dial()
		c.send(head)
		w.seen(len(head))
		w.pass(headTimeout)
		if r, _ := c.response("GET"); r.StatusCode != 408 {
			t.Errorf("%q: got %d", head, r.StatusCode)
		}
	}
}

// A beginning of the preface, and the end of the connection.
func TestHalfPreface(t *testing.T) {
	w := newWorld(t, serve(t, named("one")))
	c := w.dial()
	c.send("PRI * HT")
	c.did(c.Conn.(*net.TCPConn).CloseWrite())
	if err := c.closed(); err != nil {
		t.Error(err)
	}
}

// seen waits until the forwarder has read so much of a head.
func (w *world) seen(bytes int) {
	w.Helper()
	testutil.Eventually(w, 5*time.Second, func() error {
		got := 0
		for _, l := range w.p.loops {
			l.call(func() {
				for c := range l.clients {
					if c.x != nil {
						got += len(c.x.req)
					}
				}
			})
		}
		if got != bytes {
			return fmt.Errorf("%d of %d bytes", got, bytes)
		}
		return nil
	})
}

// A frame or a header block that was begun is to be finished, whatever else
// the connection does; what is finished in time starts no clock.
func TestHTTP2SlowHead(t *testing.T) {
	half := func(c *bareH2, id uint32) (rest []byte) {
		b := c.block("GET", "/")
		c.did(c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b[:2], EndStream: true}))
		return b[2:]
	}
	for name, begin := range map[string]func(c *bareH2){
		"HEADERS without END_HEADERS": func(c *bareH2) { half(c, 3) },
		"and some of CONTINUATION": func(c *bareH2) {
			half(c, 3)
			c.did(c.fr.WriteContinuation(3, false, nil))
			c.send("\x00\x00")
		},
		"half a frame":          func(c *bareH2) { c.send("\x00\x00\x08\x06\x00\x00\x00\x00\x00abcd") },
		"half a frame's header": func(c *bareH2) { c.send("\x00\x00") },
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newH2World(t, named("one"))
			c := w.dialH2()
			rest := half(c, 1)
			w.unfinished()
			w.pass(headTimeout / 2)
			c.did(c.fr.WriteContinuation(1, true, rest))
			c.hears("1: 200")
			begin(c)
			w.unfinished()
			w.pass(headTimeout / 2) // counts from its own beginning
			w.unfinished()
			w.pass(headTimeout / 2)
			c.hears("goaway 1 ENHANCE_YOUR_CALM", "end")
			if n := w.p.Stats().Refusals[reasonSlow]; n != 1 {
				t.Errorf("%d counted", n)
			}
		})
	}
}

// unfinished waits until a client has begun something, and it is known.
func (w *world) unfinished() {
	w.Helper()
	testutil.Eventually(w, 5*time.Second, func() error {
		n := 0
		for _, l := range w.p.loops {
			l.call(func() {
				for c := range l.clients {
					if c.h2 != nil && c.h2.session.Unfinished() != 0 {
						n++
					}
				}
			})
		}
		if n == 0 {
			return errors.New("no client has begun anything")
		}
		return nil
	})
}

// A client that is still sending when its connection is ended gets to read
// why: what it sends then is thrown away, and no reset overtakes the GOAWAY.
func TestHTTP2GoAwayIsRead(t *testing.T) {
	for name, test := range map[string]struct{ say, hear string }{
		"error":    {"\x00\x00\x00\x04\x00\x00\x00\x00\x01", "goaway 0 PROTOCOL_ERROR"}, // SETTINGS on a stream
		"too slow": {"\x00\x00\x00", "goaway 0 ENHANCE_YOUR_CALM"},
		"away":     {"", firstGoAway},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newH2World(t, named("one"))
			c := w.dialH2()
			w.known(c)
			c.send(test.say)
			switch name {
			case "too slow":
				w.unfinished()
				w.pass(headTimeout)
			case "away":
				w.goAway()
			}
			c.hears(test.hear)
			if name == "away" {
				c.hears(farewellPing)
				c.echo()
				c.hears("goaway 0 NO_ERROR")
			}
			c.hears("end")
			// Were the connection closed, the first of these would be answered
			// by a reset.
			for range 3 {
				c.send(string(make([]byte, 9)))
				w.pass(0)
			}
			if n := w.p.Stats().Clients; n != 1 {
				t.Errorf("%d clients while it has not read all, want 1", n)
			}
			c.send(string(make([]byte, 9)))
			c.did(c.Conn.(*net.TCPConn).CloseWrite())
			c.hears("end")
			testutil.Eventually(t, 5*time.Second, func() error {
				if n := w.p.Stats().Clients; n != 0 {
					return fmt.Errorf("%d clients", n)
				}
				return nil
			})
		})
	}
}

// A client that has been sent away and reads slowly gets its whole answer,
// though what it says of its windows comes to an ended connection.
func TestHTTP2SlowReaderSentAway(t *testing.T) {
	const size = 16 << 20
	w, _ := newH2World(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, size)) })
	c := w.dialH2()
	c.did(c.Conn.(*net.TCPConn).SetReadBuffer(64 << 10))
	c.did(c.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30}))
	c.did(c.fr.WriteWindowUpdate(0, 1<<30))
	c.request(1, "GET", "/")
	c.hears("1: 200")
	w.goAway()
	lingering := func() (yes bool) {
		for _, l := range w.p.loops {
			l.call(func() {
				for c := range l.clients {
					yes = yes || c.lingering
				}
			})
		}
		return yes
	}
	got, waits := 0, 0
	for got < size {
		f, err := c.fr.ReadFrame()
		if err != nil {
			t.Fatalf("%d of %d bytes: %v", got, size, err)
		}
		switch f := f.(type) {
		case *http2.PingFrame:
			c.echo()
		case *http2.DataFrame:
			got += len(f.Data())
			if waits == 0 && !lingering() {
				continue
			}
			c.fr.WriteWindowUpdate(0, 1)
			if waits%64 == 0 && got < size { // every MiB
				w.pass(lingerTimeout)
			}
			waits++
		}
	}
	if waits == 0 {
		t.Error("all was read before the connection ended: this test shows nothing")
	}
	c.hears("end")
}
