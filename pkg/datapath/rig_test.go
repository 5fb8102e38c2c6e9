package datapath

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
	"connectd/pkg/testutil"
)

func TestMain(m *testing.M) { os.Exit(testutil.Main(m)) }

var (
	testVIP4 = netip.MustParsePrefix("127.254.0.0/16")
	testVIP6 = netip.MustParsePrefix("fd63:6f6e:6e65:6374::/64")
)

// rig is a loaded datapath over a world of hosts, with a hand-made plan.
type rig struct {
	tb   testing.TB
	w    *testutil.World
	dp   *Datapath
	p    Params
	want *plan.Desired
}

func newRig(tb testing.TB) *rig {
	tb.Helper()
	return newRigWith(tb, func(*Params) {})
}

// newRigWith is newRig with other Params.
func newRigWith(tb testing.TB, change func(*Params)) *rig {
	tb.Helper()
	r := &rig{tb: tb, w: testutil.NewWorld(tb), want: &plan.Desired{}}
	root, err := testutil.CgroupRoot()
	if err != nil {
		tb.Fatal(err)
	}
	r.p = Params{
		Log: slog.New(slog.NewTextHandler(testWriter{tb}, nil)), BPFFS: testutil.BPFFS(tb), Cgroup: root,
		VIP4: testVIP4, VIP6: testVIP6, CountCallers: true,
		MaxConnections: 4096, MaxEndpoints: 4096, MaxServices: 256, MaxSlots: 16384,
	}
	change(&r.p)
	tb.Cleanup(func() { r.close() })
	r.open()
	return r
}

type testWriter struct{ tb testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.tb.Log(string(b))
	return len(b), nil
}

func (r *rig) open() {
	r.tb.Helper()
	var err error
	if r.dp, err = Open(r.p); err != nil {
		r.tb.Fatalf("open: %+v", err)
	}
}

func (r *rig) close() {
	if r.dp == nil {
		return
	}
	if err := r.dp.Close(); err != nil {
		r.tb.Errorf("close: %s", err)
	}
	r.dp = nil
}

// apply plans, writes and publishes.
func (r *rig) apply(change func(*plan.Desired)) {
	r.tb.Helper()
	next := &plan.Desired{Services: slices.Clone(r.want.Services), Tasks: slices.Clone(r.want.Tasks), Ready: r.want.Ready}
	change(next)
	if err := r.dp.Apply(plan.Diff(r.want, next), time.Now()); err != nil {
		r.tb.Fatalf("apply: %s", err)
	}
	r.want = next
	if err := r.dp.Publish(); err != nil {
		r.tb.Fatalf("publish: %+v", err)
	}
}

// detach takes a program away at once; a link that is only unpinned goes some
// time later, from a work queue.
func (r *rig) detach(hook string) error {
	l, err := link.LoadPinnedLink(filepath.Join(linkDir(r.p.BPFFS), hook), nil)
	if err != nil {
		return err
	}
	return errors.Join(l.Detach(), l.Unpin(), l.Close())
}

// task makes a host a client of namespace 0.
func (r *rig) task(h *testutil.Host, id lb.TaskID) *plan.Task {
	r.tb.Helper()
	cookie, err := r.dp.NetnsCookie(h.NS())
	if err != nil {
		r.tb.Fatal(err)
	}
	t := &plan.Task{Task: lb.Task{Name: h.Name(), NetnsCookie: cookie}, ID: id, HashKey: uint32(id) * 7919}
	t.Scope[0] = 1
	return t
}

// service is one VIP, 127.254.0.<id> or its IPv6 twin, port 80, over the
// endpoints; endpoint ids are id*100+1 and on.
func service(id lb.ServiceID, protocol lb.Protocol, endpoints ...string) *plan.Service {
	s := &plan.Service{
		Service: &lb.Service{Name: lb.ServiceName{Namespace: "prod", DiscoveryName: "s" + string(rune('a'+id))}, Protocol: protocol},
		ID:      id,
	}
	for i, e := range endpoints {
		ep := plan.Endpoint{Endpoint: lb.Endpoint{Address: netip.MustParseAddrPort(e), Weight: 1}, ID: lb.EndpointID(int(id)*100 + 1 + i)}
		s.Endpoints = append(s.Endpoints, ep)
		if ep.Address.Addr().Is4() {
			s.SlotsV4 = append(s.SlotsV4, ep.ID)
		} else {
			s.SlotsV6 = append(s.SlotsV6, ep.ID)
		}
	}
	s.Names = []plan.Name{{DNSName: "s", V4: vip4(id), V6: vip6(id), Ports: []uint16{80}}}
	return s
}

func vip4(id lb.ServiceID) netip.Addr { return netip.AddrFrom4([4]byte{127, 254, 0, byte(id)}) }

func vip6(id lb.ServiceID) netip.Addr {
	a := testVIP6.Addr().As16()
	a[15] = byte(id)
	return netip.AddrFrom16(a)
}

func at(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }
