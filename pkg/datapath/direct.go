package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// direct is what exists only while some service is in mode direct: every packet
// of the node passes its programs.
type direct struct {
	mu   sync.RWMutex
	coll *ebpf.Collection // nil: there is none
	gone bool             // nothing of an earlier daemon is left either
}

// directHooks in the order in which they are attached. sock_ops begins what
// they follow.
var directHooks = []hook{
	{name: "http_ingress", attach: ebpf.AttachCGroupInetIngress},
	{name: "http_egress", attach: ebpf.AttachCGroupInetEgress},
}

// retiredHooks are what builds attached in which sock_ops did not yet begin what
// is followed.
var retiredHooks = []hook{{name: "http_sockops", attach: ebpf.AttachCGroupSockOps}}

// httpMaps are those of the direct programs alone. They stay over a restart,
// so that connections are followed on.
var httpMaps = []string{"heads_v1", "http_stats_v1", "http_callers_v1", "http_strikes_v1"}

// HTTPCounters are what was read of HTTP in mode direct.
type HTTPCounters struct {
	Classes [6]uint64 // responses by the status's first digit; 0 is an HTTP/2 status from the dynamic table
	Time    Histogram // HTTP/1: request line to status line
	LeftOut uint64    // of a service: connections that pipeline or use TCP Fast Open, of which nothing more is counted
}

// Direct has first lines read as long as the plan has a service in mode direct.
// Connections made before are not followed. It belongs to the goroutine of
// Apply.
func (d *Datapath) Direct(p *plan.Desired) error {
	wanted := false
	for _, s := range p.Services {
		if s.HTTP != nil && s.HTTP.Direct {
			wanted = true
			break
		}
	}
	d.direct.mu.Lock()
	defer d.direct.mu.Unlock()
	switch {
	case !wanted:
		return d.stopDirect()
	case d.direct.coll != nil:
		return nil
	}
	if err := d.startDirect(); err != nil {
		return fmt.Errorf("read HTTP in mode direct: %w", err)
	}
	return nil
}

func (d *Datapath) startDirect() error {
	spec, err := loadDirect()
	if err != nil {
		return err
	}
	if err := setVariables(spec, d.params.knobs()); err != nil {
		return err
	}
	shared := d.objs.usedBy(spec)
	spec.Maps["http_stats_v1"].MaxEntries = d.params.MaxEndpoints + d.params.MaxServices
	for _, name := range httpMaps {
		m := spec.Maps[name]
		m.Pinning = ebpf.PinByName
		// The size of one that is there stays.
		if pinned, err := ebpf.LoadPinnedMap(filepath.Join(mapDir(d.params.BPFFS), name), nil); err == nil {
			m.MaxEntries = pinned.MaxEntries()
			pinned.Close()
		}
	}
	d.direct.gone = false
	opts := ebpf.CollectionOptions{MapReplacements: shared, Maps: ebpf.MapOptions{PinPath: mapDir(d.params.BPFFS)}}
	coll, err := ebpf.NewCollectionWithOptions(spec, opts)
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		// Of another build. They hold nothing that anything depends on.
		if err := removeDirect(d.params.BPFFS); err != nil {
			return err
		}
		coll, err = ebpf.NewCollectionWithOptions(spec, opts)
	}
	if err != nil {
		return fmt.Errorf("load programs: %w", err)
	}
	if err := d.attachDirect(coll); err != nil {
		coll.Close()
		return err
	}
	d.direct.coll = coll
	return removePrograms(d.params.BPFFS, retiredHooks, nil)
}

func (d *Datapath) attachDirect(coll *ebpf.Collection) error {
	for _, h := range directHooks {
		if err := attachHook(h, coll.Programs[h.name], d.params.Cgroup, linkDir(d.params.BPFFS)); err != nil {
			return fmt.Errorf("attach %s to %s: %w", h.name, d.params.Cgroup, err)
		}
	}
	return nil
}

// resyncDirect attaches again what somebody has detached.
func (d *Datapath) resyncDirect(*plan.Desired) (detached int, err error) {
	d.direct.mu.RLock()
	defer d.direct.mu.RUnlock()
	if d.direct.coll == nil {
		return 0, nil
	}
	for _, h := range directHooks {
		if checkHook(h, linkDir(d.params.BPFFS), d.params.Cgroup) != nil {
			detached++
		}
	}
	if detached > 0 {
		err = d.attachDirect(d.direct.coll)
	}
	return detached, err
}

// stopDirect removes the programs, of an earlier daemon too.
func (d *Datapath) stopDirect() error {
	if d.direct.coll != nil {
		d.direct.coll.Close()
		d.direct.coll = nil
	}
	if d.direct.gone {
		return nil
	}
	err := removeDirect(d.params.BPFFS)
	d.direct.gone = err == nil
	return err
}

func removeDirect(bpffs string) error {
	return removePrograms(bpffs, slices.Concat(directHooks, retiredHooks), httpMaps)
}

// removePrograms detaches programs, the last first, and unpins maps.
func removePrograms(bpffs string, hooks []hook, maps []string) error {
	var errs []error
	for _, h := range slices.Backward(hooks) {
		_, err := removeLink(bpffs, h.name)
		errs = append(errs, err)
	}
	for _, name := range maps {
		if err := os.Remove(filepath.Join(mapDir(bpffs), name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("unpin map %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// removeLink detaches a program; removed is false when it was not attached.
func removeLink(bpffs, name string) (removed bool, err error) {
	l, err := link.LoadPinnedLink(filepath.Join(linkDir(bpffs), name), nil)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		// Unpinning alone detaches some time later, from a work queue.
		err = errors.Join(l.Detach(), l.Unpin(), l.Close())
	}
	if err != nil {
		return false, fmt.Errorf("remove link %s: %s", name, err)
	}
	return true, nil
}

// forgetExchange does what sock_ops does when a connection ends. Most have none.
func (d *Datapath) forgetExchange(cookie uint64) {
	var x connectExchange
	near := d.objs.ExchangesNearV2
	place := uint32(cookie % uint64(near.MaxEntries()))
	if near.Lookup(place, &x) == nil && x.Cookie == cookie {
		_ = near.Put(place, connectExchange{})
		return
	}
	_ = d.objs.ExchangesFarV2.Delete(cookie)
}

// HTTP reads the counters of services and endpoints in mode direct that had
// traffic. There are none while nothing is in that mode.
func (d *Datapath) HTTP() (map[lb.ServiceID]HTTPCounters, map[lb.EndpointID]HTTPCounters, error) {
	d.direct.mu.RLock()
	defer d.direct.mu.RUnlock()
	if d.direct.coll == nil {
		return nil, nil, nil
	}
	services, endpoints := make(map[lb.ServiceID]HTTPCounters), make(map[lb.EndpointID]HTTPCounters)
	for e, err := range all[directHttpKey, directHttpStats](d.direct.coll.Maps["http_stats_v1"]) {
		if err != nil {
			return nil, nil, fmt.Errorf("read HTTP counters: %w", err)
		}
		c := httpCounters(&e.value)
		if e.key.Endpoint == 0 {
			services[lb.ServiceID(e.key.Service)] = c
		} else {
			endpoints[lb.EndpointID(e.key.Endpoint)] = c
		}
	}
	return services, endpoints, nil
}

// HTTPCallers are the same by caller, as CallerBytes: there is room for 4,096.
func (d *Datapath) HTTPCallers() (map[Caller]HTTPCounters, error) {
	d.direct.mu.RLock()
	defer d.direct.mu.RUnlock()
	if d.direct.coll == nil {
		return nil, nil
	}
	out := make(map[Caller]HTTPCounters)
	for e, err := range all[connectCallerKey, directHttpStats](d.direct.coll.Maps["http_callers_v1"]) {
		if err != nil {
			return nil, fmt.Errorf("read HTTP counters of callers: %w", err)
		}
		out[Caller{lb.TaskID(e.key.Task), lb.ServiceID(e.key.Service)}] = httpCounters(&e.value)
	}
	return out, nil
}

func httpCounters(v *directHttpStats) HTTPCounters {
	return HTTPCounters{Classes: v.Classes, LeftOut: v.LeftOut, Time: Histogram{
		Buckets: append([]uint64(nil), v.Time.Buckets[:]...), Sum: time.Duration(v.Time.SumUs) * time.Microsecond,
	}}
}

// forgetHTTP deletes the counters of an id that is given to another; endpoint 0
// is the service itself.
func (d *Datapath) forgetHTTP(service lb.ServiceID, endpoint lb.EndpointID) {
	d.direct.mu.RLock()
	defer d.direct.mu.RUnlock()
	if d.direct.coll != nil {
		// Most have none.
		_ = d.direct.coll.Maps["http_stats_v1"].Delete(&directHttpKey{Endpoint: uint32(endpoint), Service: uint32(service)})
	}
}

func (d *direct) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.coll != nil {
		d.coll.Close()
		d.coll = nil
	}
}
