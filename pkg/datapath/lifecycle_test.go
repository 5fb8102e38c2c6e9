package datapath

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/plan"
	"connectd/pkg/testutil"
)

// Only connections to the endpoint asked for end, whatever kind of socket made
// them; a neighbour's and a direct one to the same address live on.
func TestTerminate(t *testing.T) {
	r := newRig(t)
	web, a, b := r.w.Host("web"), r.w.Host("a"), r.w.Host("b")
	a.ServeName("a", at(a.Addr4(), 8080))
	b.ServeName("b", at(b.Addr4(), 8080))
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{
			service(1, lb.TCP, at(a.Addr4(), 8080)), service(2, lb.TCP, at(b.Addr4(), 8080)),
			service(3, lb.UDP, at(a.Addr4(), 8080)),
		}
		d.Tasks = []*plan.Task{r.task(web, 1)}
	})
	open := func(network, address string) net.Conn {
		t.Helper()
		c, err := web.Dial(context.Background(), network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := testutil.AskConn(c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	doomed := []net.Conn{open("tcp", at(vip4(1), 80)), open("udp", at(vip4(3), 80))}
	spared := []net.Conn{open("tcp", at(vip4(2), 80)), open("tcp", at(a.Addr4(), 8080)), open("udp", at(a.Addr4(), 8080))}
	cookie, err := r.dp.NetnsCookie(web.NS())
	if err != nil {
		t.Fatal(err)
	}
	in := func(c uint64) (*netns.Handle, bool) { return web.NS(), c == cookie }

	live, _, err := r.dp.LiveBytes(100, in)
	if err != nil || live[101].Received == 0 {
		t.Errorf("live bytes %v (%v), want some received from endpoint 101", live, err)
	}
	got, err := r.dp.Terminate([]lb.EndpointID{101, 301}, in)
	if err != nil || got != (Terminated{Destroyed: 2}) {
		t.Errorf("terminated %+v (%v), want 2 destroyed", got, err)
	}
	for _, c := range doomed {
		c.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("%s: read: %v, want ECONNABORTED", c.RemoteAddr(), err)
		}
	}
	for _, c := range spared {
		c.SetDeadline(time.Now().Add(30 * time.Second))
		c.Write([]byte("still"))
		if n, err := c.Read(make([]byte, 64)); n == 0 || err != nil {
			t.Errorf("%s: read %d bytes: %v, want an echo", c.RemoteAddr(), n, err)
		}
		c.Close()
	}
	for _, c := range doomed {
		c.Close()
	}
	r.waitIdle()
}

// A refusing endpoint and a black hole are told as strikes, counted in a row,
// and a success clears them.
func TestStrikes(t *testing.T) {
	r := newRig(t)
	web, a := r.w.Host("web"), r.w.Host("a")
	ctx, cancel := context.WithCancel(context.Background())
	strikes := make(chan lb.Strike, 64)
	var wg sync.WaitGroup
	wg.Go(func() { r.dp.Events(ctx, func(s lb.Strike) { strikes <- s }) })
	defer wg.Wait()
	defer cancel()
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{service(1, lb.TCP, at(a.Addr4(), 8080)), service(2, lb.TCP, "10.66.0.250:9")}
		d.Tasks = []*plan.Task{r.task(web, 7)}
	})
	expect := func(id lb.EndpointID, count uint32) {
		t.Helper()
		select {
		case s := <-strikes:
			if s.Endpoint != id || s.Task != 7 || s.Count != count || time.Since(s.At) > time.Minute {
				t.Fatalf("strike %+v, want endpoint %d count %d", s, id, count)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("no strike for endpoint %d", id)
		}
	}
	for n := range uint32(3) {
		web.Ask(ctx, "tcp", at(vip4(1), 80))
		expect(101, n+1)
	}
	a.ServeName("a", at(a.Addr4(), 8080))
	if got := testutil.WhoAnswers(t, web, "tcp", at(vip4(1), 80)); got != "a" {
		t.Fatalf("%q answers", got)
	}
	expect(101, 0)
	// Nobody has this address: neighbour discovery fails and the SYN is sent
	// again after a second, long before the connect gives up.
	short, stop := context.WithTimeout(ctx, 2*time.Second)
	defer stop()
	begin := time.Now()
	web.Dial(short, "tcp", at(vip4(2), 80))
	expect(201, 1)
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("a black hole showed after %s", took)
	}
}

// A new daemon finds what the old one left: connections keep their peer name
// and are counted off, and connects work in between.
func TestRestart(t *testing.T) {
	r := newRig(t)
	web, a, b := r.w.Host("web"), r.w.Host("a"), r.w.Host("b")
	a.ServeName("a", at(a.Addr4(), 8080))
	b.ServeName("b", at(b.Addr4(), 8080))
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{service(1, lb.TCP, at(a.Addr4(), 8080)), service(2, lb.TCP, at(b.Addr4(), 8080))}
		d.Tasks = []*plan.Task{r.task(web, 1)}
	})
	held, err := web.Dial(context.Background(), "tcp", at(vip4(1), 80))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	r.close()
	if got := testutil.WhoAnswers(t, web, "tcp", at(vip4(1), 80)); got != "a" {
		t.Errorf("without a daemon %q answers", got)
	}
	r.open()
	if got := testutil.WhoAnswers(t, web, "tcp", at(vip4(1), 80)); got != "a" {
		t.Errorf("before the first plan %q answers", got)
	}
	// The new daemon's catalog has lost service 2.
	gone := r.want.Services[1]
	r.want = &plan.Desired{}
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{service(1, lb.TCP, at(a.Addr4(), 8080))}
		d.Tasks = []*plan.Task{r.task(web, 1)}
	})
	if got := testutil.WhoAnswers(t, web, "tcp", at(vip4(2), 80)); got != "b" {
		t.Errorf("before the prune %q answers for %s, want b", got, gone.Name)
	}
	if n, err := r.dp.Resync(r.want); err != nil || n != 2 {
		t.Errorf("resync repaired %d (%v), want the two frontends of service 2 pruned", n, err)
	}
	if n, err := r.dp.Resync(r.want); err != nil || n != 0 {
		t.Errorf("second resync repaired %d (%v), want nothing", n, err)
	}
	if got := testutil.WhoAnswers(t, web, "tcp", at(vip4(2), 80)); got != "" {
		t.Errorf("after the prune %q answers", got)
	}
	if got := r.dp.Active(101); got != 1 {
		t.Errorf("endpoint 101 has %d connections, want the held one", got)
	}
	if _, err := testutil.AskConn(held); err != nil {
		t.Errorf("held connection: %s", err)
	}
	held.Close()
	r.waitIdle()
}

// A scrape that outlives the daemon's stop reads nothing, and does not crash.
func TestCountersAfterClose(t *testing.T) {
	r := newRig(t)
	dp := r.dp
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					dp.Active(1)
					dp.Endpoint(1)
					dp.Service(1)
				}
			}
		})
	}
	r.close()
	if got := dp.Endpoint(1); got != (EndpointCounters{}) {
		t.Errorf("after close: %+v", got)
	}
	close(stop)
	wg.Wait()
}

// What somebody else writes into our maps is put right, and named by number.
func TestResyncRepairs(t *testing.T) {
	r := newRig(t)
	web, a := r.w.Host("web"), r.w.Host("a")
	a.ServeName("a", at(a.Addr4(), 8080))
	task := r.task(web, 1)
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{service(1, lb.TCP, at(a.Addr4(), 8080))}
		d.Tasks = []*plan.Task{task}
	})
	slot := r.dp.slots.held[1].v4.base
	for name, harm := range map[string]func() error{
		"endpoint": func() error { r.dp.shared.endpoints[101].Port = be16(9); return nil },
		"slot":     func() error { r.dp.shared.slots[slot].Service = 77; return nil },
		"frontend": func() error {
			key := encodeFrontend(r.want.Services[0].Frontends()[0])
			return r.dp.objs.FrontendsV1.Delete(&key)
		},
		"hook": func() error { return r.detach("connect4") },
		"task": func() error { return r.dp.objs.TasksNetnsV1.Delete(task.NetnsCookie) },
	} {
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		if got := testutil.WhoAnswers(t, web, "tcp", at(vip4(1), 80)); got != "" {
			t.Errorf("%s harmed: %q answers", name, got)
		}
		if n, err := r.dp.Resync(r.want); n != 1 || err != nil {
			t.Errorf("%s: repaired %d (%v), want 1", name, n, err)
		}
		if got := testutil.WhoAnswers(t, web, "tcp", at(vip4(1), 80)); got != "a" {
			t.Errorf("%s repaired: %q answers", name, got)
		}
	}
}

// Port 53 of a task's resolver comes to our sockets, over UDP and TCP, and
// shows the resolver's address; when we hang or are gone it goes where it
// always did.
func TestRedirect(t *testing.T) {
	r := newRig(t)
	web, dns := r.w.Host("web"), r.w.Host("dns")
	dns.ServeName("upstream", at(dns.Addr4(), 53))
	task := r.task(web, 1)
	r.apply(func(d *plan.Desired) { d.Tasks = []*plan.Task{task} })
	local := web.ServeName("connectd", "127.255.255.254:0")
	ln := web.Listen("tcp", "127.255.255.254:0").(*net.TCPListener) // what is watched
	red, err := r.dp.Redirect(Redirection{Task: 1, NetnsCookie: task.NetnsCookie, Resolver: dns.Addr4(), Local: local, Listener: ln})
	if err != nil {
		t.Fatal(err)
	}
	resolver := netip.AddrPortFrom(dns.Addr4(), 53)
	check := func(when, want string) {
		t.Helper()
		red.Beat()
		for _, network := range []string{"udp", "tcp"} {
			got, err := web.Ask(context.Background(), network, resolver.String())
			if got.Name != want || got.Remote != resolver {
				t.Errorf("%s, %s: %q at %s answers (%v), want %q at %s", when, network, got.Name, got.Remote, err, want, resolver)
			}
		}
		conn := web.ListenPacket("udp", "0.0.0.0:0")
		defer conn.Close()
		if got, err := testutil.AskPacket(conn, resolver); got.Name != want || got.Remote != resolver {
			t.Errorf("%s, unconnected: %q at %s answers (%v)", when, got.Name, got.Remote, err)
		}
	}
	check("standing", "connectd")
	for _, mark := range []int{netns.Mark} {
		var got testutil.Answer
		conn, err := web.NS().DialMarked(context.Background(), "udp", resolver.String())
		if err == nil {
			got, err = testutil.AskConn(conn)
			conn.Close()
		}
		if got.Name != "upstream" {
			t.Errorf("marked %#x: %q answers (%v), want upstream", mark, got.Name, err)
		}
	}
	r.dp.shared.heartbeats[red.seat] = monotonic() - 3e9
	if got, _ := web.Ask(context.Background(), "udp", resolver.String()); got.Name != "upstream" {
		t.Errorf("hanging: %q answers, want upstream", got.Name)
	}
	ln.Close()
	check("listener gone", "upstream")
	if err := red.Close(); err != nil {
		t.Error(err)
	}
	check("closed", "upstream")
}

// The doctor's canary works beside a loaded daemon, leaves nothing, and fails
// where the hooks do not see its process.
func TestCanary(t *testing.T) {
	r := newRig(t)
	r.apply(func(*plan.Desired) {})
	if err := Canary(r.p); err != nil {
		t.Error(err)
	}
	for _, a := range r.dp.Attachments() {
		if a.Err != nil {
			t.Errorf("%s: %s", a.Name, a.Err)
		}
	}
	p := r.p
	p.Cgroup = testutil.NewCgroup(t).Path()
	if err := Canary(p); err == nil {
		t.Error("canary lives in a cgroup that this process is not in")
	}
	others, err := Neighbours(r.p.BPFFS+"-none", r.p.Cgroup)
	if err != nil || len(others) < len(hooks) {
		t.Errorf("%d neighbours (%v), want at least our own %d hooks", len(others), err, len(hooks))
	}
}

// In the middle of a new daemon's first Apply, when services are written and
// tasks are not, a client that is known by its cgroup is still known.
func TestRestartKeepsCgroupClients(t *testing.T) {
	r := newRig(t)
	group := testutil.NewCgroup(t)
	web, a := r.w.Host("web"), r.w.Host("a")
	a.ServeName("a", at(a.Addr4(), 8080))
	task := &plan.Task{Task: lb.Task{Name: "cron", CgroupID: group.ID(), CgroupLevel: 1}, ID: 1}
	task.Scope[0] = 1
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{service(1, lb.TCP, at(a.Addr4(), 8080))}
		d.Tasks = []*plan.Task{task}
	})
	if got := testutil.WhoAnswers(t, web, "tcp", at(vip4(1), 80)); got != "" {
		t.Fatalf("outside the cgroup %q answers", got)
	}
	group.Add(os.Getpid())
	answers := func(when, want string) {
		t.Helper()
		if got := testutil.WhoAnswers(t, web, "tcp", at(vip4(1), 80)); got != want {
			t.Errorf("%s: %q answers, want %q", when, got, want)
		}
	}
	answers("before", "a")
	r.close()
	r.open()
	if err := r.dp.putServices(r.want.Services, time.Now()); err != nil {
		t.Fatal(err)
	}
	answers("services written", "a")
	if err := r.dp.putTasks(r.want.Tasks); err != nil {
		t.Fatal(err)
	}
	answers("tasks written", "a")
	if _, err := r.dp.Resync(r.want); err != nil {
		t.Fatal(err)
	}
	answers("pruned", "a")
	// Without the task its depth is no longer looked at.
	r.apply(func(d *plan.Desired) { d.Tasks = nil })
	answers("task gone", "")
	var set connectSettings
	if err := r.dp.objs.SettingsV1.Lookup(uint32(0), &set); err != nil || set.CgroupLevels != 0 {
		t.Errorf("settings %+v (%v), want no depth", set, err)
	}
}
