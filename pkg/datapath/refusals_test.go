package datapath

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/plan"
	"connectd/pkg/testutil"
)

// told collects refusals until the test ends.
func (r *rig) told() <-chan Refusal {
	r.tb.Helper()
	out, done := make(chan Refusal, 4096), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- r.dp.Refusals(ctx, func(x Refusal) { out <- x }) }()
	r.tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.tb.Error(err)
		}
	})
	return out
}

// next takes the next refusal.
func next(tb testing.TB, told <-chan Refusal) Refusal {
	tb.Helper()
	select {
	case x := <-told:
		return x
	case <-time.After(30 * time.Second):
		tb.Fatal("nothing is told")
		return Refusal{}
	}
}

// Each way to be refused is told with whose it is, what was asked for and why.
// Who gets what it asks for, a stranger, and what getaddrinfo does tell nothing.
func TestRefusals(t *testing.T) {
	r := newRigWith(t, func(p *Params) { p.MaxConnections = 4 }) // one for a task
	web, stranger, other, a := r.w.Host("web"), r.w.Host("stranger"), r.w.Host("other"), r.w.Host("a")
	a.ServeName("a", at(a.Addr4(), 8080))
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{
			service(1, lb.TCP, at(a.Addr4(), 8080)), service(2, lb.UDP, at(a.Addr4(), 8080)), service(3, lb.TCP),
		}
		out := r.task(other, 2)
		out.Scope[0] = 2
		d.Tasks = []*plan.Task{r.task(web, 1), out}
	})
	told := r.told()
	quiet := func(from *testutil.Host, network, address string) {
		if c, err := from.Dial(context.Background(), network, address); err == nil {
			c.Close()
		}
		r.waitIdle()
	}
	quiet(web, "tcp", at(vip4(1), 80))
	quiet(web, "tcp", at(a.Addr4(), 81)) // refused, by the server
	quiet(stranger, "tcp", at(vip4(1), 80))
	quiet(web, "udp", at(vip4(1), 0)) // as getaddrinfo does to sort addresses
	for _, tc := range []struct {
		name             string
		from             *testutil.Host
		network, address string
		want             Refusal
	}{
		{"no frontend", web, "tcp", at(vip4(1), 81), Refusal{Task: 1, Reason: "no_frontend", Protocol: lb.TCP}},
		{"no frontend v6", web, "tcp", at(vip6(1), 81), Refusal{Task: 1, Reason: "no_frontend", Protocol: lb.TCP}},
		{"no endpoint", web, "tcp", at(vip4(3), 80), Refusal{Task: 1, Reason: "no_endpoint", Protocol: lb.TCP}},
		{"no endpoint v6", web, "tcp", at(vip6(3), 80), Refusal{Task: 1, Reason: "no_endpoint", Protocol: lb.TCP}},
		{"out of scope", other, "tcp", at(vip4(1), 80), Refusal{Task: 2, Reason: "out_of_scope", Protocol: lb.TCP}},
		{"out of scope udp", other, "udp", at(vip4(2), 80), Refusal{Task: 2, Reason: "out_of_scope", Protocol: lb.UDP}},
	} {
		tc.want.Address = netip.MustParseAddrPort(tc.address)
		before := time.Now()
		if _, err := tc.from.Dial(context.Background(), tc.network, tc.address); err == nil {
			t.Fatalf("%s: connected", tc.name)
		}
		got := next(t, told)
		if got.At.Before(before.Add(-time.Second)) || got.At.After(time.Now().Add(time.Second)) {
			t.Errorf("%s: told of %s, was at %s", tc.name, got.At, before)
		}
		if got.At = (time.Time{}); got != tc.want {
			t.Errorf("%s: told %+v, want %+v", tc.name, got, tc.want)
		}
	}
	// Unconnected UDP, and a connection beyond the task's share of the map.
	packets := other.ListenPacket("udp4", "0.0.0.0:0")
	if _, err := testutil.AskPacket(packets, netip.AddrPortFrom(vip4(2), 81)); err == nil {
		t.Error("unconnected UDP to no port: answered")
	}
	if got := next(t, told); got.Reason != "no_frontend" || got.Protocol != lb.UDP || got.Task != 2 || got.Address.Port() != 81 {
		t.Errorf("unconnected UDP: told %+v", got)
	}
	first, err := web.Dial(context.Background(), "tcp", at(vip4(1), 80))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := web.Dial(context.Background(), "tcp", at(vip4(1), 80))
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if got := next(t, told); got.Reason != "untracked" || got.Address != netip.AddrPortFrom(vip4(1), 80) {
		t.Errorf("over the task's share: told %+v", got)
	}
	select {
	case got := <-told:
		t.Errorf("told %+v too", got)
	default:
	}
}

// A loop is told once a second with how often it went round, and a task that
// asks for all sorts of things fills nothing.
func TestRefusalsAreLimited(t *testing.T) {
	r := newRig(t)
	web := r.w.Host("web")
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{service(1, lb.TCP)}
		d.Tasks = []*plan.Task{r.task(web, 1)}
	})
	told := r.told()
	var tells, untold, asked uint64
	ask := func(port uint16) {
		asked++
		if _, err := web.Dial(context.Background(), "tcp", at(vip4(1), port)); err == nil {
			t.Fatal("connected")
		}
	}
	begun := time.Now()
	for time.Since(begun) < 2500*time.Millisecond {
		ask(80)
	}
	seconds := uint64(time.Since(begun)/time.Second) + 1
	for drained := false; !drained; {
		select {
		case got := <-told:
			tells++
			untold += uint64(got.Untold)
		case <-time.After(200 * time.Millisecond):
			drained = true
		}
	}
	if tells < 2 || tells > seconds || tells+untold > asked || untold == 0 {
		t.Errorf("%d refusals in %d s: %d told with %d more", asked, seconds, tells, untold)
	}
	begun, tells = time.Now(), 0
	for port := range uint16(500) {
		ask(1000 + port)
	}
	seconds = uint64(time.Since(begun)/time.Second) + 2
	for drained := false; !drained; {
		select {
		case <-told:
			tells++
		case <-time.After(200 * time.Millisecond):
			drained = true
		}
	}
	if tells == 0 || tells > 32*seconds {
		t.Errorf("500 ports in %d s: %d told", seconds, tells)
	}
	outcomes, err := r.dp.Outcomes()
	if err != nil {
		t.Fatal(err)
	}
	if got := outcomes["no_frontend"] + outcomes["no_endpoint"]; got != asked {
		t.Errorf("%d counted, want %d", got, asked)
	}
}

// What another build may have left in the ring is no refusal.
func TestDecodeRefusal(t *testing.T) {
	r := connectRefusal{AtNs: monotonic(), Untold: 3}
	r.What.Reason = uint8(connectOutcomeOUTCOME_COUNT)
	encode := func() []byte {
		b, err := binary.Append(nil, binary.NativeEndian, &r)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if got, ok := decodeRefusal(encode()); ok {
		t.Errorf("a reason of a later build: %+v", got)
	}
	r.What.Reason = uint8(connectOutcomeOUTCOME_STALE)
	if got, ok := decodeRefusal(encode()); !ok || got.Reason != "stale" || got.Untold != 3 {
		t.Errorf("%+v, %v", got, ok)
	}
	if _, ok := decodeRefusal(encode()[:8]); ok {
		t.Error("half a record is one")
	}
}

// The list of connections has their ends and bytes, and is bounded.
func TestConnections(t *testing.T) {
	r := newRig(t)
	web, other, a := r.w.Host("web"), r.w.Host("other"), r.w.Host("a")
	a.ServeName("a", at(a.Addr4(), 8080))
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{service(1, lb.TCP, at(a.Addr4(), 8080)), service(2, lb.UDP, at(a.Addr4(), 8080))}
		d.Tasks = []*plan.Task{r.task(web, 1), r.task(other, 2)}
	})
	in := func(cookie uint64) (*netns.Handle, bool) {
		for _, t := range r.want.Tasks {
			if t.NetnsCookie == cookie {
				return map[string]*testutil.Host{"web": web, "other": other}[t.Name].NS(), true
			}
		}
		return nil, false
	}
	begun := time.Now()
	c, err := web.Dial(context.Background(), "tcp", at(vip4(1), 80))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answer, err := testutil.AskConn(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	for _, from := range []struct {
		h       *testutil.Host
		network string
		id      lb.ServiceID
	}{{other, "tcp", 1}, {web, "udp", 2}} {
		c, err := from.h.Dial(context.Background(), from.network, at(vip4(from.id), 80))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	list, total, err := r.dp.Connections(func(c *Connection) bool { return c.Task == 1 && c.Protocol == lb.TCP }, 10, in)
	if err != nil || total != 1 || len(list) != 1 {
		t.Fatalf("%+v, %d in all, %v", list, total, err)
	}
	got := list[0]
	if got.Started.Before(begun.Add(-time.Second)) || got.Started.After(time.Now()) {
		t.Errorf("started %s, want after %s", got.Started, begun)
	}
	want := Connection{
		Task: 1, Service: 1, VIP: netip.AddrPortFrom(vip4(1), 80), Remote: netip.AddrPortFrom(a.Addr4(), 8080),
		Local: answer.Local, Protocol: lb.TCP, State: Established, Started: got.Started,
	}
	if got.Bytes == nil || *got.Bytes != (Bytes{4, uint64(len(fmt.Sprintf("a %s\n", answer.Local)) + 4)}) {
		t.Errorf("bytes %+v", got.Bytes)
	}
	if got.Bytes = nil; got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	all := func(*Connection) bool { return true }
	if list, total, err := r.dp.Connections(all, 2, in); err != nil || total != 3 || len(list) != 2 {
		t.Errorf("at most 2: %d of %d, %v", len(list), total, err)
	}
	list, _, err = r.dp.Connections(all, 10, func(uint64) (*netns.Handle, bool) { return nil, false })
	if err != nil || len(list) != 3 || list[0].Bytes != nil || list[1].Bytes != nil || list[2].Bytes != nil {
		t.Errorf("with namespaces that are not to be had: %+v, %v", list, err)
	}
	for id, want := range map[lb.TaskID]uint64{1: 2, 2: 1, 3: 0, 1 << 20: 0} {
		if got := r.dp.TaskConnections(id); got != want {
			t.Errorf("task %d has %d connections, want %d", id, got, want)
		}
	}
}
