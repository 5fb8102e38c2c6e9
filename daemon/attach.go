package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"connectd/pkg/datapath"
	"connectd/pkg/dns"
	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/plan"
)

// attach opens a task's sockets, room by room.
func (d *daemon) attach(ctx context.Context, t *plan.Task) (io.Closer, error) {
	ns, ok := d.tasks.Namespace(t.Name)
	if !ok {
		return nil, errors.New("its network namespace is gone")
	}
	// The seat needs the namespace to the end of its own Close, which comes
	// after the client has gone from the config.
	own, err := ns.Clone()
	if err != nil {
		return nil, err
	}
	// The forwarder first: a name that resolves is soon connected to, and a
	// connection that went direct stays so.
	f, err := d.proxy.Attach(ctx, t, own)
	if err != nil {
		return nil, errors.Join(err, own.Close())
	}
	s, err := d.dns.Attach(ctx, t, own)
	if err != nil {
		return nil, errors.Join(err, f.Close(), own.Close())
	}
	d.seated.Store(t.Name, true)
	return closer(func() error {
		d.seated.Delete(t.Name)
		return errors.Join(s.Close(), f.Close(), own.Close())
	}), nil
}

type closer func() error

func (c closer) Close() error { return c() }

// redirect gives a DNS socket its place in the kernel.
func (d *daemon) redirect(r dns.Redirection) (dns.Redirect, error) {
	cookie, err := d.cookieOf(r.Task)
	if err != nil {
		return nil, err
	}
	return d.datapath.Redirect(datapath.Redirection{
		Task: r.Task, NetnsCookie: cookie, Resolver: r.Resolver, Local: r.Local, Listener: r.Listener,
	})
}

func (d *daemon) cookieOf(id lb.TaskID) (uint64, error) {
	p := d.loop.Desired()
	i := slices.IndexFunc(p.Tasks, func(t *plan.Task) bool { return t.ID == id })
	if i < 0 {
		return 0, fmt.Errorf("task %d is gone", id)
	}
	if c := p.Tasks[i].NetnsCookie; c != 0 {
		return c, nil
	}
	return d.cookie() // cgroup clients are served in the node's own
}

// namespaces finds the namespace of a tracked connection.
func (d *daemon) namespaces(cookie uint64) (*netns.Handle, bool) {
	if ns, ok := d.tasks.ByCookie(cookie); ok {
		return ns, true
	}
	own, err := d.cookie()
	return nil, err == nil && own == cookie
}

// caller finds a task that may call a namespace's services, to probe from.
func (d *daemon) caller(id lb.NamespaceID) *netns.Handle {
	p := d.loop.Desired()
	if p == nil {
		return nil
	}
	for _, t := range p.Tasks {
		if t.Scope[id/64]&(1<<(id%64)) == 0 {
			continue
		}
		if ns := d.taskNamespace(t.Name); ns != nil {
			return ns
		}
	}
	return nil
}

// taskNamespace is where a task lives, nil when it is gone.
func (d *daemon) taskNamespace(name string) *netns.Handle {
	ns, ok := d.tasks.Namespace(name)
	if ok && ns == nil {
		return d.own // known by its cgroup
	}
	return ns
}

func (d *daemon) terminate(ids []lb.EndpointID) (int, error) {
	out, err := d.datapath.Terminate(ids, d.namespaces)
	ended := out.Destroyed + d.proxy.Terminate(ids)
	d.ended.terminated.Add(uint64(ended))
	return ended, err
}
