package datapath

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"

	"connectd/pkg/plan"
)

// ErrServeUnsupported says that this kernel cannot count what tasks accept:
// sockops programs know their network namespace from 5.15 on.
var ErrServeUnsupported = errors.New("kernel before 5.15: sockops programs do not know their network namespace")

func haveServe() error { return features.HaveProgramHelper(ebpf.SockOps, asm.FnGetNetnsCookie) }

// serve is what exists only while accepted connections are counted: all of the
// node pass its program.
type serve struct {
	mu   sync.RWMutex
	coll *ebpf.Collection // nil: there is none
	gone bool             // nothing of an earlier daemon is left either
}

var servedHooks = []hook{{name: "serve_sockops", attach: ebpf.AttachCGroupSockOps}}

// servedMaps stay over a restart, so that open connections are counted on.
var servedMaps = []string{"served_v1", "accepted_v1"}

// Port is where a local task serves: a TCP port of a network namespace, which
// behind a published port is another than that of the endpoint's address.
type Port struct {
	Netns  uint64 // cookie
	Number uint16
}

// Accepted is what was counted at a port since it was first named. Bytes are
// those of connections that have ended.
type Accepted struct {
	Active   uint64 // connections now
	Accepted uint64
	Bytes    // Sent: to clients
}

// Serve counts connections accepted at ports from now on, those at ports that
// it named before as well, and forgets all others. No ports take the program
// away. It belongs to the goroutine of Apply. The error is ErrServeUnsupported
// on kernels that cannot.
func (d *Datapath) Serve(ports []Port) error {
	d.serve.mu.Lock()
	defer d.serve.mu.Unlock()
	if len(ports) == 0 {
		return d.stopServe()
	}
	if d.serve.coll == nil {
		if err := d.startServe(); err != nil {
			return err
		}
	}
	return d.putServed(ports)
}

func (d *Datapath) putServed(ports []Port) error {
	m := d.serve.coll.Maps["served_v1"]
	wanted := make(map[serveServedKey]bool, len(ports))
	for _, p := range ports {
		wanted[serveServedKey{Netns: p.Netns, Port: uint32(p.Number)}] = true
	}
	var gone []serveServedKey
	for e, err := range all[serveServedKey, serveServed](m) {
		if err != nil {
			return fmt.Errorf("read ports that are served: %w", err)
		}
		if !wanted[e.key] {
			gone = append(gone, e.key)
		}
		delete(wanted, e.key)
	}
	for _, k := range gone { // first, for they may be in the way
		if err := m.Delete(&k); err != nil {
			return fmt.Errorf("forget port %d that was served: %w", k.Port, err)
		}
	}
	for k := range wanted {
		if err := m.Update(&k, &serveServed{}, ebpf.UpdateNoExist); err != nil {
			return fmt.Errorf("count at port %d that is served: %w", k.Port, err)
		}
	}
	return nil
}

func (d *Datapath) startServe() error {
	if err := haveServe(); errors.Is(err, ebpf.ErrNotSupported) {
		return ErrServeUnsupported
	} else if err != nil {
		return fmt.Errorf("count accepted connections: %w", err)
	}
	spec, err := loadServe()
	if err != nil {
		return fmt.Errorf("read programs that count accepted connections: %w", err)
	}
	d.objs.usedBy(spec)
	for _, name := range servedMaps {
		spec.Maps[name].Pinning = ebpf.PinByName
	}
	d.serve.gone = false
	opts := ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: mapDir(d.params.BPFFS)}}
	coll, err := ebpf.NewCollectionWithOptions(spec, opts)
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		// Of another build. They hold nothing that anything depends on.
		if err := removeServe(d.params.BPFFS); err != nil {
			return err
		}
		coll, err = ebpf.NewCollectionWithOptions(spec, opts)
	}
	if err != nil {
		return fmt.Errorf("load programs that count accepted connections: %w", err)
	}
	if err := d.attachServe(coll); err != nil {
		coll.Close()
		return err
	}
	d.serve.coll = coll
	return nil
}

func (d *Datapath) attachServe(coll *ebpf.Collection) error {
	for _, h := range servedHooks {
		if err := attachHook(h, coll.Programs[h.name], d.params.Cgroup, linkDir(d.params.BPFFS)); err != nil {
			return fmt.Errorf("attach %s to %s: %w", h.name, d.params.Cgroup, err)
		}
	}
	return nil
}

// resyncServe attaches again what somebody has detached.
func (d *Datapath) resyncServe(*plan.Desired) (detached int, err error) {
	d.serve.mu.RLock()
	defer d.serve.mu.RUnlock()
	if d.serve.coll == nil {
		return 0, nil
	}
	for _, h := range servedHooks {
		if checkHook(h, linkDir(d.params.BPFFS), d.params.Cgroup) != nil {
			detached++
		}
	}
	if detached > 0 {
		err = d.attachServe(d.serve.coll)
	}
	return detached, err
}

// stopServe removes the program, of an earlier daemon too.
func (d *Datapath) stopServe() error {
	if d.serve.coll != nil {
		d.serve.coll.Close()
		d.serve.coll = nil
	}
	if d.serve.gone {
		return nil
	}
	err := removeServe(d.params.BPFFS)
	d.serve.gone = err == nil
	return err
}

func removeServe(bpffs string) error { return removePrograms(bpffs, servedHooks, servedMaps) }

// Accepted reads the counters of all ports that Serve has named.
func (d *Datapath) Accepted() (map[Port]Accepted, error) {
	d.serve.mu.RLock()
	defer d.serve.mu.RUnlock()
	if d.serve.coll == nil {
		return nil, nil
	}
	out := make(map[Port]Accepted)
	for e, err := range all[serveServedKey, serveServed](d.serve.coll.Maps["served_v1"]) {
		if err != nil {
			return nil, fmt.Errorf("read counters of accepted connections: %w", err)
		}
		v := &e.value
		out[Port{e.key.Netns, uint16(e.key.Port)}] = Accepted{
			// Below 0 when a port was forgotten and named anew under its connections.
			Active: uint64(max(int64(v.Active), 0)), Accepted: v.Accepted,
			Bytes: Bytes{Sent: v.BytesSent, Received: v.BytesReceived},
		}
	}
	return out, nil
}

func (s *serve) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.coll != nil {
		s.coll.Close()
		s.coll = nil
	}
}
