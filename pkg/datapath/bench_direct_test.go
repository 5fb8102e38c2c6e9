package datapath

import (
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
	"connectd/pkg/testutil"
)

// benchExchanges is how many exchanges one measurement averages over.
const benchExchanges = 2000

// BenchmarkDirect measures what the programs of mode direct cost an exchange of
// one request and one answer, all its packets together, by the kernel's own
// bpf_stats: the difference to empty programs that see the same packets. Each
// iteration is one measurement; the metrics are the median, the least and the
// greatest in nanoseconds.
//
//	go test -run xxx -bench Direct -benchtime 20x ./pkg/datapath
func BenchmarkDirect(b *testing.B) {
	r := &rig{tb: b, w: testutil.NewWorld(b), want: &plan.Desired{}}
	cgroup := testutil.NewCgroup(b)
	r.p = Params{
		Log: slog.New(slog.DiscardHandler), BPFFS: testutil.BPFFS(b), Cgroup: cgroup.Path(), VIP4: testVIP4, VIP6: testVIP6,
		MaxConnections: 4096, MaxEndpoints: 4096, MaxServices: 256, MaxSlots: 16384,
	}
	b.Cleanup(func() { r.close() })
	r.open()
	web, a := r.w.Host("web"), r.w.Host("a")
	s := service(1, lb.TCP, at(a.Addr4(), 8080))
	s.HTTP = &lb.HTTP{Direct: true}
	r.apply(func(d *plan.Desired) { d.Services, d.Tasks = []*plan.Service{s}, []*plan.Task{r.task(web, 7)} })
	empty := []*ebpf.Program{
		emptySkb(b, cgroup.Path(), ebpf.AttachCGroupInetIngress), emptySkb(b, cgroup.Path(), ebpf.AttachCGroupInetEgress),
	}
	if err := r.dp.Direct(r.want); err != nil {
		b.Fatal(err)
	}
	ours := []*ebpf.Program{r.dp.direct.coll.Programs["http_ingress"], r.dp.direct.coll.Programs["http_egress"]}
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Fatalf("enable bpf_stats: %s", err)
	}
	b.Cleanup(func() { stats.Close() })
	cgroup.Add(os.Getpid())

	vip, server := at(vip4(1), 80), at(a.Addr4(), 8080)
	for _, bench := range []struct {
		name, to string
		head     int // bytes
	}{
		{"bystander", server, 100}, {"head_100", vip, 100}, {"head_500", vip, 500}, {"head_1000", vip, 1000},
	} {
		b.Run(bench.name, func(b *testing.B) {
			send := "GET / HTTP/1.1\r\nHost: s\r\n"
			for n := bench.head - 2 - len(send); n > 0; n = bench.head - 2 - len(send) {
				n = min(n, 40)
				send += "x: " + strings.Repeat("y", max(n-5, 0)) + "\r\n"
			}
			e := exchange{send: parts(send + "\r\n"), answer: parts(okHead)}
			c, done := benchPeer(b, web, a, bench.to, e)
			defer done()
			var costs, empties []float64
			for b.Loop() {
				before, beforeEmpty := runTime(b, ours), runTime(b, empty)
				ask(b, c, e, benchExchanges)
				floor := (runTime(b, empty) - beforeEmpty) / benchExchanges
				costs = append(costs, (runTime(b, ours)-before)/benchExchanges-floor)
				empties = append(empties, floor)
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
	services, _, err := r.dp.HTTP()
	if err != nil || services[1].Classes[2] == 0 || services[1].LeftOut != 0 {
		b.Errorf("requests were not counted: %+v (%v)", services, err)
	}
}

// benchPeer connects to a server that answers the one exchange over and over.
func benchPeer(b *testing.B, web, a *testutil.Host, to string, e exchange) (net.Conn, func()) {
	l := a.Listen("tcp", at(a.Addr4(), 8080))
	go func() {
		s, err := l.Accept()
		if err != nil {
			return
		}
		defer s.Close()
		buf := make([]byte, len(e.send[0]))
		for {
			if _, err := io.ReadFull(s, buf); err != nil {
				return
			}
			io.WriteString(s, e.answer[0])
		}
	}()
	c, err := web.Dial(b.Context(), "tcp", to)
	if err != nil {
		b.Fatal(err)
	}
	return c, func() { c.Close(); l.Close() }
}

func ask(b *testing.B, c net.Conn, e exchange, times int) {
	buf := make([]byte, len(e.answer[0]))
	for range times {
		if _, err := io.WriteString(c, e.send[0]); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// emptySkb attaches a program that lets everything pass.
func emptySkb(b *testing.B, cgroup string, attach ebpf.AttachType) *ebpf.Program {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "empty", Type: ebpf.CGroupSKB, AttachType: attach, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if err != nil {
		b.Fatalf("load empty program: %s", err)
	}
	b.Cleanup(func() { prog.Close() })
	l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: attach, Program: prog})
	if err != nil {
		b.Fatalf("attach empty program: %s", err)
	}
	b.Cleanup(func() { l.Close() })
	return prog
}

func runTime(b *testing.B, programs []*ebpf.Program) float64 {
	var sum float64
	for _, p := range programs {
		s, err := p.Stats()
		if err != nil {
			b.Fatalf("read statistics: %s", err)
		}
		sum += float64(s.Runtime.Nanoseconds())
	}
	return sum
}
