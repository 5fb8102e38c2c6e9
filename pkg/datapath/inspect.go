package datapath

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/plan"
)

// InspectHooks looks at the pinned links without opening anything else; for
// the doctor, beside a daemon or without one.
func InspectHooks(bpffs, cgroup string) []Attachment { return attachments(bpffs, cgroup) }

// Neighbour is a program of somebody else on a hook that connectd uses too.
type Neighbour struct {
	Hook    string
	Program string // name, or "id N" when it cannot be read
}

// Neighbours lists the programs at cgroup that are not those pinned in bpffs.
func Neighbours(bpffs, cgroup string) ([]Neighbour, error) {
	own := map[ebpf.ProgramID]bool{}
	for _, h := range hooks {
		if id, err := pinnedProgram(filepath.Join(linkDir(bpffs), h.name)); err == nil {
			own[id] = true
		}
	}
	var out []Neighbour
	for _, h := range hooks {
		ids, err := effectivePrograms(h, cgroup)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			if !own[id] {
				out = append(out, Neighbour{Hook: h.name, Program: programName(id)})
			}
		}
	}
	return out, nil
}

func programName(id ebpf.ProgramID) string {
	p, err := ebpf.NewProgramFromID(id)
	if err == nil {
		defer p.Close()
		if info, err := p.Info(); err == nil && info.Name != "" {
			return fmt.Sprintf("%s (id %d)", info.Name, id)
		}
	}
	return fmt.Sprintf("id %d", id)
}

// Canary loads the programs once more, with maps of their own that know one
// fresh namespace only, attaches them beside whatever is there, and makes a
// connection through them to a server of its own. It touches no running
// daemon; what it made is gone when it returns.
func Canary(p Params) (err error) {
	p.BPFFS = fmt.Sprintf("%s-canary-%d", p.BPFFS, os.Getpid())
	p.MaxConnections, p.MaxEndpoints, p.MaxServices, p.MaxSlots = 64, 8, 8, 64
	defer func() {
		if _, uerr := Unload(p.BPFFS); err == nil && uerr != nil {
			err = fmt.Errorf("remove canary: %w", uerr)
		}
	}()
	d, err := Open(p)
	if err != nil {
		return err
	}
	defer d.Close()
	return netns.OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		return d.callCanary()
	})
}

// callCanary runs in the fresh namespace.
func (d *Datapath) callCanary() error {
	if err := loopbackUp(); err != nil {
		return err
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	cookie, err := d.NetnsCookie(nil)
	if err != nil {
		return err
	}
	vip := netip.AddrPortFrom(reserved(d.params.VIP4, 4), 1)
	if err := d.Apply(plan.Diff(nil, canaryPlan(cookie, vip, l.Addr().(*net.TCPAddr).AddrPort())), time.Now()); err != nil {
		return err
	}
	if err := d.Publish(); err != nil {
		return err
	}
	dialer := net.Dialer{Timeout: 2 * time.Second}
	dialer.SetMultipathTCP(false)
	c, err := dialer.Dial("tcp4", vip.String())
	if err != nil {
		return fmt.Errorf("connect to canary VIP %s: %w (the hooks do not see this process: is it in a private cgroup namespace?)", vip, err)
	}
	defer c.Close()
	if got := c.RemoteAddr().String(); got != vip.String() {
		return fmt.Errorf("connected to the canary, but its peer shows as %s, not %s", got, vip)
	}
	if n := d.Active(1); n != 1 {
		return fmt.Errorf("connected to the canary, but %d connections are counted, not 1", n)
	}
	return nil
}

func canaryPlan(cookie uint64, vip, server netip.AddrPort) *plan.Desired {
	task := &plan.Task{Task: lb.Task{Name: "canary", NetnsCookie: cookie}, ID: 1}
	task.Scope[0] = 1
	return &plan.Desired{
		Tasks: []*plan.Task{task},
		Services: []*plan.Service{{
			Service:   &lb.Service{Name: lb.ServiceName{Namespace: "connectd", DiscoveryName: "canary"}, Protocol: lb.TCP},
			ID:        1,
			Names:     []plan.Name{{DNSName: "canary", V4: vip.Addr(), Ports: []uint16{vip.Port()}}},
			Endpoints: []plan.Endpoint{{Endpoint: lb.Endpoint{Address: server, Weight: 1}, ID: 1}},
			SlotsV4:   []lb.EndpointID{1},
		}},
	}
}

func loopbackUp() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	return h.LinkSetUp(lo)
}
