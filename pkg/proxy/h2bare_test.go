package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
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

// known waits until the forwarder has seen that a client speaks HTTP/2.
func (w *world) known(c *bareH2) {
	w.Helper()
	f, err := c.fr.ReadFrame()
	if _, ok := f.(*http2.SettingsFrame); !ok {
		w.Fatalf("got %v, %v instead of SETTINGS", f, err)
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
