package proxy

import (
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"connectd/pkg/lb"
	"connectd/pkg/testutil"
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

// A client that says GOAWAY has done with an idle connection.
func TestHTTP2ClientGoesAway(t *testing.T) {
	w, _ := newH2World(t, named("one"))
	c := w.dialH2()
	c.request(1, "GET", "/")
	c.hears("1: 200")
	c.did(c.fr.WriteGoAway(0, http2.ErrCodeNo, nil))
	c.hears("end")
}
