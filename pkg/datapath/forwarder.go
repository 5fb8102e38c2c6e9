package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/plan"
)

// noSeat stands for a listener that there is none of: NO_SEAT in
// bpf/lib/types.h.
const noSeat = ^uint32(0)

// Forwarding is the forwarder's listeners in one network namespace.
type Forwarding struct {
	NetnsCookie uint64
	NS          *netns.Handle // nil or Self: the node's own
	V4, V6      int           // descriptors of listening plain TCP sockets; V6 is -1 where there is no IPv6
}

// Forwarder is a Forwarding that stands until it is closed, its listener is
// gone, or Beat was not called for two seconds. Without it connects to proxied
// services go to an endpoint at once. A later one for the same namespace takes
// its place.
//
// Its sk_lookup program is not pinned: it serves the daemon's listeners, and
// ends with them.
type Forwarder struct {
	d      *Datapath
	entry  connectForwarder
	seats  []uint32 // of V4, and V6 if there is one; fixed once it stands
	ns     *netns.Handle
	prog   *ebpf.Program
	closed sync.Once

	// Under d.seats.mu.
	lookup link.Link
	routed bool
}

// Forward puts listeners in force.
func (d *Datapath) Forward(f Forwarding) (*Forwarder, error) {
	w := &Forwarder{d: d, entry: connectForwarder{Netns: f.NetnsCookie, Seat6: noSeat}}
	if err := w.open(f); err != nil {
		return nil, errors.Join(fmt.Errorf("forward in netns %d: %w", f.NetnsCookie, err), w.Close())
	}
	return w, nil
}

func (w *Forwarder) open(f Forwarding) error {
	s := w.d.seats
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if w.ns, err = f.NS.Clone(); err != nil {
		return err
	}
	if w.entry.Seat4, err = w.sit(f.V4); err != nil {
		return err
	}
	if f.V6 >= 0 {
		// Without the route there is no way to an IPv6 VIP, forwarder or not.
		if err := w.route(); err != nil {
			w.d.log.Warn("IPv6 connections of a task go direct", "netns", f.NetnsCookie, "error", err)
		} else if w.entry.Seat6, err = w.sit(f.V6); err != nil {
			return err
		}
	}
	if err := w.load(); err != nil {
		return err
	}
	// First what takes the SYNs, then what lets them come.
	if err := w.attach(); err != nil {
		return err
	}
	if err := w.d.objs.ForwardersV1.Put(&w.entry.Netns, &w.entry); err != nil {
		return fmt.Errorf("write forwarder: %w", err)
	}
	s.forwarders[w.entry.Netns] = w
	return nil
}

// sit takes a seat for a listener.
func (w *Forwarder) sit(fd int) (uint32, error) {
	s := w.d.seats
	seat, err := s.take()
	if err != nil {
		return noSeat, err
	}
	w.seats = append(w.seats, seat)
	atomic.StoreUint64(&s.heartbeats[seat], monotonic())
	return seat, s.place(seat, fd)
}

// load loads the sk_lookup program of one namespace.
func (w *Forwarder) load() error {
	spec, err := loadForward()
	if err != nil {
		return fmt.Errorf("read sk_lookup program: %w", err)
	}
	vars := w.d.params.knobs()
	for name, value := range map[string]any{
		"netns_cookie": w.entry.Netns,
		"listener4":    w.entry.Seat4,
		"listener6":    w.entry.Seat6,
		"is_node":      boolByte(w.ns.Self()),
		"socket_addr":  be32([4]byte{127, 255, 255, 254}),
	} {
		vars[name] = value
	}
	if err := setVariables(spec, vars); err != nil {
		return err
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: w.d.objs.usedBy(spec)})
	if err != nil {
		return fmt.Errorf("load sk_lookup program: %w", err)
	}
	w.prog = coll.DetachProgram("forward")
	coll.Close()
	return nil
}

func (w *Forwarder) attach() error {
	return w.ns.Do(func() error {
		l, err := attachNetns(w.prog)
		if err == nil {
			w.lookup = l
		}
		return err
	})
}

// resync attaches the program again when somebody has detached it.
func (w *Forwarder) resync() (repaired int, err error) {
	info, err := w.lookup.Info()
	if err != nil {
		return 0, fmt.Errorf("read sk_lookup link: %w", err)
	}
	if at := info.NetNs(); at == nil || at.NetnsInode != 0 {
		return 0, nil
	}
	severed := w.lookup
	if err := w.attach(); err != nil {
		return 0, err
	}
	return 1, severed.Close()
}

// Beat says that connections are being accepted.
func (w *Forwarder) Beat() {
	now := monotonic()
	for _, seat := range w.seats {
		atomic.StoreUint64(&w.d.seats.heartbeats[seat], now)
	}
}

// Away sends new connects to endpoints. Those on their way still arrive.
func (w *Forwarder) Away() error {
	w.d.seats.mu.Lock()
	defer w.d.seats.mu.Unlock()
	return w.step()
}

// step steps aside, unless a successor has the place.
func (w *Forwarder) step() error {
	s := w.d.seats
	if s.forwarders[w.entry.Netns] != w {
		return nil
	}
	delete(s.forwarders, w.entry.Netns)
	if err := w.d.objs.ForwardersV1.Delete(&w.entry.Netns); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete forwarder: %w", err)
	}
	return nil
}

// Close is Away, and nothing arrives any more.
func (w *Forwarder) Close() error {
	var errs []error
	w.closed.Do(func() {
		s := w.d.seats
		s.mu.Lock()
		defer s.mu.Unlock()
		errs = append(errs, w.step())
		// Before its seats may become another's: a SYN that is given to a
		// listener of another namespace times out.
		if w.lookup != nil {
			errs = append(errs, w.lookup.Close())
		}
		if w.prog != nil {
			errs = append(errs, w.prog.Close())
		}
		for _, seat := range w.seats {
			errs = append(errs, s.leave(seat))
		}
		errs = append(errs, w.unroute(), w.ns.Close())
	})
	return errors.Join(errs...)
}

// Caller says who made a connection that the forwarder has accepted, and
// forgets it: each is asked about once. ok is false for a connection that was
// not left to the forwarder.
func (w *Forwarder) Caller(client, vip netip.AddrPort) (id lb.TaskID, ok bool) {
	key := connectAdmissionKey{
		Netns: w.entry.Netns, Local: encodeAddr(client.Addr()), LocalPort: be16(client.Port()),
		Vip: encodeAddr(vip.Addr()), VipPort: be16(vip.Port()),
	}
	var value connectAdmission
	if err := w.d.objs.AdmissionsV1.Lookup(&key, &value); err != nil {
		return 0, false
	}
	w.d.objs.AdmissionsV1.Delete(&key) // gone already when the client has ended in between
	return lb.TaskID(value.Task), true
}

// clearForwarders removes what an earlier daemon left: its listeners are gone.
func (d *Datapath) clearForwarders() error {
	if _, err := repair(d.objs.ForwardersV1, map[uint64]connectForwarder{}); err != nil {
		return err
	}
	_, err := repair(d.objs.AdmissionsV1, map[connectAdmissionKey]connectAdmission{})
	return err
}

func (d *Datapath) resyncForwarders(*plan.Desired) (int, error) {
	s := d.seats
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	n, wanted := 0, make(map[uint64]connectForwarder, len(s.forwarders))
	for cookie, w := range s.forwarders {
		wanted[cookie] = w.entry
		repaired, err := w.resync()
		n, errs = n+repaired, append(errs, err)
	}
	more, err := repair(d.objs.ForwardersV1, wanted)
	return n + more, errors.Join(append(errs, err)...)
}
