package datapath

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
	"connectd/pkg/testutil"
)

// servedRig is a host whose ports are counted, and one that calls it. Neither
// is a client.
type servedRig struct {
	*rig
	a, b  *testutil.Host
	netns uint64 // of a
}

func newServedRig(t *testing.T) *servedRig {
	t.Helper()
	r := &servedRig{rig: newRig(t)}
	r.a, r.b = r.w.Host("a"), r.w.Host("b")
	var err error
	if r.netns, err = r.dp.NetnsCookie(r.a.NS()); err != nil {
		t.Fatal(err)
	}
	if err := r.dp.Serve([]Port{{r.netns, 8080}}); errors.Is(err, ErrServeUnsupported) {
		if haveServe() == nil {
			t.Fatal("said to be unsupported where it is not")
		}
		t.Skip(err)
	} else if err != nil {
		t.Fatalf("serve: %+v", err)
	}
	return r
}

// accept returns both ends of a connection from b to a listener of a.
func (r *servedRig) accept(l net.Listener) (client, server net.Conn) {
	r.tb.Helper()
	client, err := r.b.Dial(context.Background(), "tcp", l.Addr().String())
	if err != nil {
		r.tb.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		r.tb.Fatal(err)
	}
	for _, c := range []net.Conn{client, server} {
		r.tb.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return client, server
}

// expect waits until the counters of a port are these.
func (r *servedRig) expect(what string, port uint16, want Accepted) {
	r.tb.Helper()
	testutil.Eventually(r.tb, 10*time.Second, func() error {
		all, err := r.dp.Accepted()
		if err != nil {
			return err
		}
		if got := all[Port{r.netns, port}]; got != want {
			return fmt.Errorf("%s: port %d has %+v, want %+v", what, port, got, want)
		}
		return nil
	})
}

func pass(t *testing.T, from, to net.Conn, n int) {
	t.Helper()
	if _, err := from.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(to, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
}

// Connections are counted at the ports that were named, whoever made them, and
// their payload to the byte, whichever end closes first.
func TestServe(t *testing.T) {
	r := newServedRig(t)
	for _, network := range []struct {
		name string
		addr netip.Addr
	}{{"tcp4", r.a.Addr4()}, {"tcp6", r.a.Addr6()}} {
		before, err := r.dp.Accepted()
		if err != nil {
			t.Fatal(err)
		}
		base := before[Port{r.netns, 8080}]
		l, other := r.a.Listen(network.name, at(network.addr, 8080)), r.a.Listen(network.name, at(network.addr, 8081))
		want := func(active, accepted, received, sent uint64) Accepted {
			return Accepted{
				Active: active, Accepted: base.Accepted + accepted,
				Bytes: Bytes{Sent: base.Sent + sent, Received: base.Received + received},
			}
		}
		c1, s1 := r.accept(l)
		c2, s2 := r.accept(l)
		r.accept(other)
		r.expect(network.name+" open", 8080, want(2, 2, 0, 0))
		pass(t, c1, s1, 1000)
		pass(t, s1, c1, 300)
		pass(t, c2, s2, 10)
		// The client closes first, then the server of the other.
		c1.Close()
		io.Copy(io.Discard, s1)
		s1.Close()
		r.expect(network.name+" closed by its client", 8080, want(1, 2, 1000, 300))
		s2.Close()
		io.Copy(io.Discard, c2)
		c2.Close()
		r.expect(network.name+" closed by its server", 8080, want(0, 2, 1010, 300))
		c3, s3 := r.accept(l)
		pass(t, s3, c3, 7)
		c3.(*net.TCPConn).SetLinger(0)
		c3.Close()
		r.expect(network.name+" reset", 8080, want(0, 3, 1010, 307))
		l.Close()
		other.Close()
	}
	all, err := r.dp.Accepted()
	if err != nil || len(all) != 1 {
		t.Errorf("counted at %v, %v", all, err)
	}
}

// Another namespace's port of the same number is another port, and connections
// that translated clients make are followed by both programs.
func TestServeOfClients(t *testing.T) {
	r := newServedRig(t)
	l, elsewhere := r.a.Listen("tcp4", at(r.a.Addr4(), 8080)), r.b.Listen("tcp4", at(r.b.Addr4(), 8080))
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{service(1, lb.TCP, at(r.a.Addr4(), 8080))}
		d.Tasks = []*plan.Task{r.task(r.b, 7)}
	})
	own, err := r.a.Dial(context.Background(), "tcp", elsewhere.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	c, err := r.b.Dial(context.Background(), "tcp", at(vip4(1), 80))
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	pass(t, c, s, 20)
	r.expect("open", 8080, Accepted{Active: 1, Accepted: 1})
	c.Close()
	io.Copy(io.Discard, s)
	s.Close()
	r.expect("closed", 8080, Accepted{Accepted: 1, Bytes: Bytes{Received: 20}})
	testutil.Eventually(t, 10*time.Second, func() error {
		if e := r.dp.Endpoint(101); e.Active != 0 || e.Opened != 1 || e.Sent != 20 {
			return fmt.Errorf("the caller's counters: %+v", e)
		}
		return nil
	})
}

// Counting goes on over a restart, and ends with the ports.
func TestServeLife(t *testing.T) {
	r := newServedRig(t)
	l := r.a.Listen("tcp4", at(r.a.Addr4(), 8080))
	c1, s1 := r.accept(l)
	r.close()
	c2, s2 := r.accept(l) // while there is no daemon
	r.open()
	ports := []Port{{r.netns, 8080}, {r.netns, 8081}}
	if err := r.dp.Serve(ports); err != nil {
		t.Fatal(err)
	}
	r.expect("after a restart", 8080, Accepted{Active: 2, Accepted: 2})
	for _, c := range []net.Conn{c1, s1, c2, s2} {
		c.Close()
	}
	r.expect("after the end", 8080, Accepted{Accepted: 2})

	if err := r.detach("serve_sockops"); err != nil {
		t.Fatal(err)
	}
	r.accept(l)
	r.expect("detached", 8080, Accepted{Accepted: 2})
	r.apply(func(*plan.Desired) {})
	if n, err := r.dp.Resync(r.want); n == 0 || err != nil {
		t.Errorf("repaired %d, %v", n, err)
	}
	r.accept(l)
	r.expect("attached again", 8080, Accepted{Active: 1, Accepted: 3})

	if err := r.dp.Serve(ports[1:]); err != nil {
		t.Fatal(err)
	}
	if all, err := r.dp.Accepted(); err != nil || len(all) != 1 || all[ports[1]] != (Accepted{}) {
		t.Errorf("counted at %v, %v", all, err)
	}
	pins := []string{filepath.Join(linkDir(r.p.BPFFS), "serve_sockops")}
	for _, m := range servedMaps {
		pins = append(pins, filepath.Join(mapDir(r.p.BPFFS), m))
	}
	there := func(want bool) {
		t.Helper()
		for _, p := range pins {
			if _, err := os.Stat(p); (err == nil) != want {
				t.Errorf("%s: %v, want it there: %v", p, err, want)
			}
		}
	}
	there(true)
	if err := r.dp.Serve(nil); err != nil {
		t.Fatal(err)
	}
	there(false)
	if all, err := r.dp.Accepted(); err != nil || len(all) != 0 {
		t.Errorf("counted at %v, %v", all, err)
	}

	// A daemon that does not want it removes what an earlier one left.
	if err := r.dp.Serve(ports); err != nil {
		t.Fatal(err)
	}
	there(true)
	r.close()
	r.open()
	if err := r.dp.Serve(nil); err != nil {
		t.Fatal(err)
	}
	there(false)
}

// More ports than the map holds are an error, and no harm.
func TestServeFull(t *testing.T) {
	r := newServedRig(t)
	many := []Port{{r.netns, 8080}}
	for n := range 8192 {
		many = append(many, Port{1 << 40, uint16(n + 1)})
	}
	if err := r.dp.Serve(many); err == nil {
		t.Error("more ports than there is room for")
	}
	if err := r.dp.Serve([]Port{{r.netns, 8080}}); err != nil {
		t.Fatal(err)
	}
	l := r.a.Listen("tcp4", at(r.a.Addr4(), 8080))
	r.accept(l)
	r.expect("after too many", 8080, Accepted{Active: 1, Accepted: 1})
}
