package datapath

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/plan"
	"connectd/pkg/testutil"
)

// A client that closes first is in FIN_WAIT2 when the kernel lets its socket
// go, with the server's FIN yet to come: no byte may be taken off for it.
func TestBytesWhenTheServerClosesLater(t *testing.T) {
	r := newRig(t)
	web, a := r.w.Host("web"), r.w.Host("a")
	ln := a.Listen("tcp", at(a.Addr4(), 8080))
	release := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		io.CopyN(c, c, 100)
		<-release
		c.Close()
	})
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{service(1, lb.TCP, at(a.Addr4(), 8080))}
		d.Tasks = []*plan.Task{r.task(web, 1)}
	})
	defer wg.Wait()
	defer close(release)
	c, err := web.Dial(context.Background(), "tcp", at(vip4(1), 80))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	r.waitIdle()
	if got := r.dp.Endpoint(101).Bytes; got != (Bytes{100, 100}) {
		t.Errorf("counted %+v, want 100 each way", got)
	}
}

// A redirection that has a successor takes nothing from it when it ends.
func TestRedirectReplaced(t *testing.T) {
	r := newRig(t)
	web, dns := r.w.Host("web"), r.w.Host("dns")
	task := r.task(web, 1)
	r.apply(func(d *plan.Desired) { d.Tasks = []*plan.Task{task} })
	redirect := func(name string) *Redirect {
		t.Helper()
		local := web.ServeName(name, "127.255.255.254:0")
		ln := web.Listen("tcp", "127.255.255.254:0").(*net.TCPListener)
		red, err := r.dp.Redirect(Redirection{Task: 1, NetnsCookie: task.NetnsCookie, Resolver: dns.Addr4(), Local: local, Listener: ln})
		if err != nil {
			t.Fatal(err)
		}
		return red
	}
	first, second := redirect("first"), redirect("second")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second.Beat()
	if got := testutil.WhoAnswers(t, web, "udp", at(dns.Addr4(), 53)); got != "second" {
		t.Errorf("%q answers, want second", got)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}

// Resync runs in one goroutine while others begin and end redirections: it
// neither prunes a new one nor brings back one that has ended.
func TestResyncBesideRedirects(t *testing.T) {
	r := newRig(t)
	web := r.w.Host("web")
	task := r.task(web, 1)
	r.apply(func(d *plan.Desired) { d.Tasks = []*plan.Task{task} })
	ln := web.Listen("tcp", "127.255.255.254:0").(*net.TCPListener)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if n, err := r.dp.resyncResolvers(nil); err != nil || n != 0 {
					t.Errorf("resync repaired %d (%v), want nothing", n, err)
					return
				}
			}
		}
	})
	resolver := netip.MustParseAddr("10.66.0.2")
	key := connectResolverKey{Addr: encodeAddr(resolver), Task: 1}
	for i := range 3000 {
		red, err := r.dp.Redirect(Redirection{Task: 1, NetnsCookie: task.NetnsCookie, Resolver: resolver,
			Local: ln.Addr().(*net.TCPAddr).AddrPort(), Listener: ln})
		if err != nil {
			t.Fatal(err)
		}
		var value connectResolver
		for range 3 {
			if err := r.dp.objs.ResolversV1.Lookup(&key, &value); err != nil {
				t.Errorf("round %d: a standing redirection: %v", i, err)
				break
			}
		}
		red.Close()
		if err := r.dp.objs.ResolversV1.Lookup(&key, &value); err == nil {
			t.Errorf("round %d: a closed redirection stands", i)
		}
		if t.Failed() {
			break
		}
	}
	close(stop)
	wg.Wait()
}

// Frontends that we did not write may name any range; nothing is given out or
// written by them.
func TestAdoptForeignFrontend(t *testing.T) {
	r := newRig(t)
	r.apply(func(*plan.Desired) {})
	s := service(9, lb.TCP, "10.66.0.77:8080")
	key := encodeFrontend(s.Frontends()[0])
	if err := r.dp.objs.FrontendsV1.Put(&key, &connectFrontend{Key: key, Service: 9, Base: 4e9, Count: 1}); err != nil {
		t.Fatal(err)
	}
	r.close()
	r.open()
	if _, err := r.dp.Resync(&plan.Desired{Services: []*plan.Service{s}}); err != nil {
		t.Error(err)
	}
	r.apply(func(d *plan.Desired) { d.Services = []*plan.Service{s} })
	for _, span := range r.dp.slots.retired {
		if int(span.end()) > len(r.dp.shared.slots) || span.base >= span.end() {
			t.Errorf("slots %+v would be given out", span)
		}
	}
}

// The limit is for requests, so it counts what is asked for.
func TestLiveBytesLimit(t *testing.T) {
	r := newRig(t)
	web, a := r.w.Host("web"), r.w.Host("a")
	a.ServeName("a", at(a.Addr4(), 8080))
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{service(1, lb.TCP, at(a.Addr4(), 8080)), service(2, lb.UDP, at(a.Addr4(), 8080))}
		d.Tasks = []*plan.Task{r.task(web, 1)}
	})
	for range 64 {
		c, err := web.Dial(context.Background(), "udp", at(vip4(2), 80))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for range 4 {
		c, err := web.Dial(context.Background(), "tcp", at(vip4(1), 80))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := testutil.AskConn(c); err != nil {
			t.Fatal(err)
		}
	}
	live, _, err := r.dp.LiveBytes(4, func(uint64) (*netns.Handle, bool) { return web.NS(), true })
	if err != nil || live[101].Received < 4 {
		t.Errorf("live bytes %+v (%v)", live, err)
	}
	all, _, _ := r.dp.LiveBytes(1000, func(uint64) (*netns.Handle, bool) { return web.NS(), true })
	if live[101] != all[101] {
		t.Errorf("within the limit %+v, of %+v", live[101], all[101])
	}
}

// A connection whose end nobody told (somebody detached the program, or took
// the callback flags) is found by the sweep; one that lives is left alone.
func TestSweepFindsMissedEnd(t *testing.T) {
	r := newRig(t)
	web, a := r.w.Host("web"), r.w.Host("a")
	a.ServeName("a", at(a.Addr4(), 8080))
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{service(1, lb.TCP, at(a.Addr4(), 8080))}
		d.Tasks = []*plan.Task{r.task(web, 1)}
	})
	var conns []net.Conn
	for range 2 {
		c, err := web.Dial(context.Background(), "tcp", at(vip4(1), 80))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := testutil.AskConn(c); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	if err := r.detach("sock_ops"); err != nil {
		t.Fatal(err)
	}
	conns[0].(*net.TCPConn).SetLinger(0)
	conns[0].Close()
	if err := r.dp.Publish(); err != nil {
		t.Fatal(err)
	}
	for e, err := range r.dp.connections() {
		if err != nil {
			t.Fatal(err)
		}
		e.value.StartedNs = monotonic() - uint64(2*closingGrace)
		if err := r.dp.objs.ConnectionsV1.Put(&e.key, &e.value); err != nil {
			t.Fatal(err)
		}
	}
	in := func(uint64) (*netns.Handle, bool) { return web.NS(), true }
	swept := 0
	for range sweepShare {
		n, err := r.dp.Sweep(in)
		if err != nil {
			t.Fatal(err)
		}
		swept += n
	}
	if swept != 1 {
		t.Errorf("swept %d, want 1", swept)
	}
	if got := r.dp.Active(101); got != 1 {
		t.Errorf("%d active, want 1", got)
	}
	for range sweepShare {
		if n, err := r.dp.Sweep(func(uint64) (*netns.Handle, bool) { return nil, false }); err != nil || n != 0 {
			t.Errorf("namespace not to be had: swept %d (%v), want 0", n, err)
		}
	}
	conns[1].Close()
	r.waitIdle()
}

// Frontends come and go, so that their map values are recycled under readers:
// a connect goes to its own service's endpoint or is refused, never elsewhere.
func TestRecycledFrontends(t *testing.T) {
	r := newRig(t)
	web := r.w.Host("web")
	var services []*plan.Service
	for id := lb.ServiceID(1); id <= 8; id++ {
		services = append(services, service(id, lb.UDP, fmt.Sprintf("10.66.0.%d:8080", 100+id)))
	}
	r.apply(func(d *plan.Desired) {
		d.Services = services
		d.Tasks = []*plan.Task{r.task(web, 1)}
	})
	values := map[connectFrontendKey]connectFrontend{}
	var keys []connectFrontendKey
	for _, s := range services {
		key := encodeFrontend(s.Frontends()[0])
		var v connectFrontend
		if err := r.dp.objs.FrontendsV1.Lookup(&key, &v); err != nil {
			t.Fatal(err)
		}
		values[key], keys = v, append(keys, key)
	}
	until := time.Now().Add(2 * time.Second)
	var wg sync.WaitGroup
	wg.Go(func() {
		for time.Now().Before(until) {
			for _, key := range keys[1:] {
				v := values[key]
				r.dp.objs.FrontendsV1.Delete(&key)
				r.dp.objs.FrontendsV1.Put(&key, &v)
			}
			v := values[keys[0]]
			r.dp.objs.FrontendsV1.Put(&keys[0], &v) // replaced, never gone
		}
	})
	var tried [9]uint64
	err := web.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for time.Now().Before(until) {
			for i := range 512 {
				id := lb.ServiceID(1 + i%8)
				if i%2 == 0 {
					id = 1
				}
				tried[id]++
				err := unix.Connect(fd, &unix.SockaddrInet4{Addr: vip4(id).As4(), Port: 80})
				if err != nil && id == 1 {
					return fmt.Errorf("a service that stood: %w", err)
				}
			}
		}
		return nil
	})
	wg.Wait()
	if err != nil {
		t.Error(err)
	}
	for id := 1; id < len(tried); id++ {
		opened := r.dp.Endpoint(lb.EndpointID(id*100 + 1)).Opened
		if opened > tried[id] || id == 1 && opened != tried[id] {
			t.Errorf("service %d: %d connects, its endpoint got %d", id, tried[id], opened)
		}
	}
	outcomes, _ := r.dp.Outcomes()
	t.Logf("connects by service %v: %v", tried[1:], outcomes)
}
