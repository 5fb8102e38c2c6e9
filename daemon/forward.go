package daemon

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"connectd/pkg/datapath"
	"connectd/pkg/lb"
	"connectd/pkg/plan"
	"connectd/pkg/proxy"
	"connectd/pkg/proxy/accesslog"
)

// drainTime is how long a stop waits for requests in flight, and for clients
// with kept connections to make their next request and hear that it was the
// last: well below the 30 s after which ECS and systemd kill.
const drainTime = 10 * time.Second

func (d *daemon) openProxy(vip4 netip.Prefix) (err error) {
	d.access = accesslog.New(d.log.With("component", "accesslog"))
	d.proxy, err = proxy.New(proxy.Params{
		Log: d.log.With("component", "proxy"), Home: d.own, Forward: d.forward, Access: d.access, Drain: drainTime,
		Strike: d.loop.Strike, Ready: d.taskReady, ReadyAt: netip.AddrPortFrom(plan.ReadyVIP(vip4), 80),
	})
	return err
}

// taskReady says whether a task is ready by the plan in force, and known whole.
func (d *daemon) taskReady(id lb.TaskID) (ok bool, detail string) {
	p := d.loop.Desired() // never nil: seats come after the first plan
	i := slices.IndexFunc(p.Tasks, func(t *plan.Task) bool { return t.ID == id })
	if i < 0 {
		return p.Readiness(id)
	}
	name := p.Tasks[i].Name
	if d.tasks.node != nil {
		if waiting := d.tasks.node.Waiting(name); waiting != "" {
			return false, waiting
		}
	}
	if ok, detail = p.Readiness(id); !ok {
		return false, detail
	}
	return d.inRegistry(p, name)
}

// forward gives the forwarder's listeners their place in the kernel.
func (d *daemon) forward(l proxy.Listeners) (proxy.Forwarder, error) {
	cookie, err := d.cookieOf(l.Task.ID)
	if err != nil {
		return nil, err
	}
	return d.datapath.Forward(datapath.Forwarding{NetnsCookie: cookie, NS: l.NS, V4: l.V4, V6: l.V6})
}

// kernel is what the loop writes, and counts connections of the forwarder too.
type kernel struct {
	*datapath.Datapath
	d *daemon
}

func (k kernel) Active(id lb.EndpointID) uint32 { return k.d.active(id) }

// active is how many connections an endpoint has, the forwarder's included.
func (d *daemon) active(id lb.EndpointID) uint32 {
	return d.datapath.Active(id) + d.proxy.Active(id)
}

// readDirect has the kernel read HTTP of services in mode direct. Without it
// they work and are not counted, so a failure is told and tried again with the
// next plan.
func (d *daemon) readDirect(p *plan.Desired) {
	err := d.datapath.Direct(p)
	if text := fmt.Sprint(err); text != d.directError {
		d.directError = text
		if err != nil {
			d.log.Error("HTTP metrics of mode direct are missing, will try again", "error", err)
		}
	}
}
