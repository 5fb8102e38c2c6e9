package datapath

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
	"connectd/pkg/testutil"
)

const (
	benchServices  = 10_000
	benchEndpoints = 10
	benchPort      = 8080
	// benchRound is how many connections one measurement averages over: each
	// VIP once.
	benchRound = benchServices
)

// BenchmarkHook measures what the programs cost by the kernel's own
// bpf_stats, as the difference to empty programs of the same types that run
// in the same calls: one attached before ours and one after, of which the
// mean is taken. Each iteration is one measurement over benchRound
// connections through loopback, accepted and closed; the metrics are the
// median, the least and the greatest of all iterations in nanoseconds.
//
//	go test -run xxx -bench Hook -benchtime 20x ./pkg/datapath
//
// The programs are attached to a cgroup of the benchmark's own, so that
// sockets of other processes do not count. An interrupt fails the benchmark, so
// that what it made is removed.
func BenchmarkHook(b *testing.B) {
	ctx, stop := signal.NotifyContext(b.Context(), os.Interrupt)
	defer stop()
	h := newHookBench(ctx, b)
	bystander := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)}), benchPort)
	}
	hot := func(int) netip.AddrPort { return benchVIP(benchServices / 2) }
	turn := func(i int) netip.AddrPort { return benchVIP(i%benchServices + 1) }
	forwarded := func(int) netip.AddrPort { return benchForwarded }
	connection := []string{"connect4", "sock_ops", "sock_release"}
	lookup := []string{"sk_lookup"}
	for _, bench := range []struct {
		name  string
		to    func(int) netip.AddrPort
		hooks []string
	}{
		{"hot", hot, []string{"connect4"}},
		{"turn", turn, []string{"connect4"}},
		{"bystander", bystander, []string{"connect4"}},
		{"bystander_connection", bystander, connection},
		{"hot_connection", hot, connection},
		// From here on the forwarder stands.
		{"forwarded", forwarded, []string{"connect4"}},
		{"forwarded_connection", forwarded, connection},
		{"forwarded_lookup", forwarded, lookup},
		{"bystander_lookup", bystander, lookup},
	} {
		b.Run(bench.name, func(b *testing.B) {
			if strings.HasPrefix(bench.name, "forwarded") || bench.hooks[0] == "sk_lookup" {
				h.forward()
			}
			h.connect(b, bench.to) // warms up
			var costs, empties []float64
			for b.Loop() {
				before := h.read(b)
				h.connect(b, bench.to)
				cost, empty := h.read(b).minus(before).perConnection(bench.hooks)
				costs, empties = append(costs, cost), append(empties, empty)
			}
			slices.Sort(costs)
			slices.Sort(empties)
			b.ReportMetric(0, "ns/op") // of a whole round: says nothing
			b.ReportMetric(costs[len(costs)/2], "median-ns")
			b.ReportMetric(costs[0], "min-ns")
			b.ReportMetric(costs[len(costs)-1], "max-ns")
			b.ReportMetric(empties[len(empties)/2], "empty-ns")
		})
	}
	if got, err := h.dp.Outcomes(); err != nil || got["translated"] == 0 || got["untracked"] != 0 {
		b.Errorf("connections were not all translated with their state: %v %v", got, err)
	}
	if got, err := h.dp.Outcomes(); err != nil || h.desk != nil && got["forwarded"] == 0 || got["forwarder_away"] != 0 {
		b.Errorf("connections were not all forwarded: %v %v", got, err)
	}
}

// hookBench is a datapath with 10,000 services whose endpoints all live on the
// client's own host, between two sets of empty programs.
type hookBench struct {
	ctx  context.Context
	r    *rig
	dp   *Datapath
	task *plan.Task
	desk *desk // nil until the forwarder stands
	// deskListener is the desk's, in blocking mode.
	deskListener int
	host         *testutil.Host
	listener     int
	programs     map[string][]*ebpf.Program // by hook: empty, ours, empty
}

func newHookBench(ctx context.Context, b *testing.B) *hookBench {
	r := &rig{tb: b, w: testutil.NewWorld(b), want: &plan.Desired{}}
	cgroup := testutil.NewCgroup(b)
	r.p = Params{
		Log: slog.New(slog.DiscardHandler), BPFFS: testutil.BPFFS(b), Cgroup: cgroup.Path(), VIP4: testVIP4, VIP6: testVIP6,
		MaxConnections: 65536, MaxEndpoints: 131072, MaxServices: 16384, MaxSlots: 524288, // the daemon's defaults
	}
	b.Cleanup(func() { r.close() })
	r.open()
	h := &hookBench{ctx: ctx, r: r, dp: r.dp, host: r.w.Host("web"), programs: make(map[string][]*ebpf.Program)}
	h.task = r.task(h.host, 1)
	h.attachEmpty(b, cgroup.Path())
	r.apply(func(d *plan.Desired) {
		d.Tasks = []*plan.Task{h.task}
		for id := range lb.ServiceID(benchServices) {
			d.Services = append(d.Services, benchService(id+1))
		}
		d.Services = append(d.Services, proxied(benchService(benchServices+1)))
	})
	for _, hk := range hooks {
		if h.programs[hk.name] != nil {
			h.programs[hk.name] = append(h.programs[hk.name], hk.prog(&r.dp.objs))
		}
	}
	h.attachEmpty(b, cgroup.Path())

	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Fatalf("enable bpf_stats: %s", err)
	}
	b.Cleanup(func() { stats.Close() })
	cgroup.Add(os.Getpid())
	h.listen(b)
	return h
}

// attachEmpty attaches a program that does nothing to each measured hook.
func (h *hookBench) attachEmpty(b *testing.B, cgroup string) {
	types := map[string]ebpf.ProgramType{
		"connect4": ebpf.CGroupSockAddr, "sock_ops": ebpf.SockOps, "sock_release": ebpf.CGroupSock,
	}
	for _, hk := range hooks {
		kind, ok := types[hk.name]
		if !ok {
			continue
		}
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: "empty", Type: kind, AttachType: hk.attach, License: "GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
		})
		if err != nil {
			b.Fatalf("load empty %s: %s", hk.name, err)
		}
		b.Cleanup(func() { prog.Close() })
		l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: hk.attach, Program: prog})
		if err != nil {
			b.Fatalf("attach empty %s: %s", hk.name, err)
		}
		b.Cleanup(func() { l.Close() })
		h.programs[hk.name] = append(h.programs[hk.name], prog)
	}
}

// forward puts the forwarder in force, between two empty sk_lookup programs.
func (h *hookBench) forward() {
	if h.desk != nil {
		return
	}
	h.attachEmptyLookup()
	h.desk = h.r.forward(h.host, h.task.NetnsCookie)
	h.programs["sk_lookup"] = append(h.programs["sk_lookup"], h.desk.prog)
	h.attachEmptyLookup()
	f, err := h.desk.v4.File()
	if err != nil {
		h.r.tb.Fatal(err)
	}
	h.r.tb.Cleanup(func() { f.Close() })
	h.deskListener = int(f.Fd()) // blocks from now on
}

func (h *hookBench) attachEmptyLookup() {
	tb := h.r.tb
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "empty", Type: ebpf.SkLookup, AttachType: ebpf.AttachSkLookup, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if err != nil {
		tb.Fatalf("load empty sk_lookup: %s", err)
	}
	tb.Cleanup(func() { prog.Close() })
	var l link.Link
	if err := h.host.Do(func() error { l, err = attachNetns(prog); return err }); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	h.programs["sk_lookup"] = append(h.programs["sk_lookup"], prog)
}

// listen makes all of 10.0.0.0/8 the host's own and listens on it.
func (h *hookBench) listen(b *testing.B) {
	err := h.host.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		all := &net.IPNet{IP: net.IPv4(10, 0, 0, 0), Mask: net.CIDRMask(8, 32)}
		if err := netlink.RouteAdd(&netlink.Route{
			LinkIndex: lo.Attrs().Index, Dst: all, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST,
		}); err != nil {
			return fmt.Errorf("add local route: %w", err)
		}
		if h.listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); err != nil {
			return err
		}
		if err := unix.Bind(h.listener, &unix.SockaddrInet4{Port: benchPort}); err != nil {
			return err
		}
		return unix.Listen(h.listener, 16)
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { unix.Close(h.listener) })
}

func benchVIP(id int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 254, byte(id >> 8), byte(id)}), 80)
}

// benchForwarded is the one service of the forwarder.
var benchForwarded = benchVIP(benchServices + 1)

func benchService(id lb.ServiceID) *plan.Service {
	s := &plan.Service{
		Service: &lb.Service{Name: lb.ServiceName{Namespace: "prod", DiscoveryName: fmt.Sprintf("s%05d", id)}, Protocol: lb.TCP},
		ID:      id,
		Names:   []plan.Name{{DNSName: "s", V4: benchVIP(int(id)).Addr(), Ports: []uint16{80}}},
	}
	for k := range benchEndpoints {
		n := int(id-1)*benchEndpoints + k
		addr := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
		ep := plan.Endpoint{Endpoint: lb.Endpoint{Address: netip.AddrPortFrom(addr, benchPort), Weight: 1}, ID: lb.EndpointID(n + 1)}
		s.Endpoints = append(s.Endpoints, ep)
		s.SlotsV4 = append(s.SlotsV4, ep.ID)
	}
	return s
}

// connect makes benchRound connections one after another.
func (h *hookBench) connect(b *testing.B, to func(int) netip.AddrPort) {
	err := h.host.Do(func() error {
		for i := range benchRound {
			if h.ctx.Err() != nil {
				return h.ctx.Err()
			}
			if h.desk != nil && i%1000 == 0 {
				h.desk.Beat() // there is no loop
			}
			if err := h.connectOnce(to(i)); err != nil {
				return fmt.Errorf("connection %d to %s: %w", i, to(i), err)
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

// connectOnce ends its connection by a reset: no port is left in TIME_WAIT.
func (h *hookBench) connectOnce(to netip.AddrPort) error {
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(client)
	if err := unix.SetsockoptLinger(client, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	if err := unix.Connect(client, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		return err
	}
	if to == benchForwarded {
		return h.acceptForwarded(to)
	}
	server, _, err := unix.Accept(h.listener)
	if err != nil {
		return err
	}
	return unix.Close(server)
}

// acceptForwarded does what the forwarder does.
func (h *hookBench) acceptForwarded(vip netip.AddrPort) error {
	server, from, err := unix.Accept(h.deskListener)
	if err != nil {
		return err
	}
	if id, ok := h.desk.Caller(sockaddr(from), vip); !ok || id != h.task.ID {
		return fmt.Errorf("accepted from task %d (%v), want %d", id, ok, h.task.ID)
	}
	return unix.Close(server)
}

// hookTimes are the run times so far of the programs of each hook, in
// nanoseconds: empty, ours, empty.
type hookTimes map[string][3]float64

func (h *hookBench) read(b *testing.B) hookTimes {
	times := make(hookTimes)
	for name, programs := range h.programs {
		var t [3]float64
		for i, p := range programs {
			s, err := p.Stats()
			if err != nil {
				b.Fatalf("read statistics of %s: %s", name, err)
			}
			t[i] = float64(s.Runtime.Nanoseconds())
		}
		times[name] = t
	}
	return times
}

func (t hookTimes) minus(before hookTimes) hookTimes {
	out := make(hookTimes)
	for name, now := range t {
		for i := range now {
			now[i] -= before[name][i]
		}
		out[name] = now
	}
	return out
}

// perConnection is what our programs at these hooks cost one connection beyond
// what empty ones do, and what those do.
func (t hookTimes) perConnection(hooks []string) (cost, empty float64) {
	for _, name := range hooks {
		floor := (t[name][0] + t[name][2]) / 2
		cost += t[name][1] - floor
		empty += floor
	}
	return cost / benchRound, empty / benchRound
}
