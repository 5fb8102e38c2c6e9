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
// services go to an endpoint at once.
//
// Its sk_lookup program is not pinned: it serves the daemon's listeners, and
// ends with them.
type Forwarder struct {
	d      *Datapath
	cookie uint64
	seats  []uint32 // of V4, and V6 if there is one
	lookup link.Link
	route  *localRoute
	away   sync.Once
	closed sync.Once
}

// Forward puts listeners in force.
func (d *Datapath) Forward(f Forwarding) (*Forwarder, error) {
	w := &Forwarder{d: d, cookie: f.NetnsCookie}
	if err := w.open(f); err != nil {
		return nil, errors.Join(fmt.Errorf("forward in netns %d: %w", f.NetnsCookie, err), w.Close())
	}
	return w, nil
}

func (w *Forwarder) open(f Forwarding) error {
	entry := connectForwarder{Netns: f.NetnsCookie, Seat6: noSeat}
	var err error
	if entry.Seat4, err = w.sit(f.V4); err != nil {
		return err
	}
	if f.V6 >= 0 {
		// Without the route there is no way to an IPv6 VIP, forwarder or not.
		if w.route, err = addLocalRoute(f.NS, w.d.params.VIP6); err != nil {
			w.d.log.Warn("IPv6 connections of a task go direct", "netns", f.NetnsCookie, "error", err)
		} else if entry.Seat6, err = w.sit(f.V6); err != nil {
			return err
		}
	}
	// First what takes the SYNs, then what lets them come.
	if err := w.attach(f, entry); err != nil {
		return err
	}
	if err := w.d.objs.ForwardersV1.Put(&w.cookie, &entry); err != nil {
		return fmt.Errorf("write forwarder: %w", err)
	}
	return nil
}

// sit takes a seat for a listener.
func (w *Forwarder) sit(fd int) (uint32, error) {
	s := w.d.seats
	s.mu.Lock()
	defer s.mu.Unlock()
	seat, err := s.take()
	if err != nil {
		return 0, err
	}
	w.seats = append(w.seats, seat)
	atomic.StoreUint64(&s.heartbeats[seat], monotonic())
	return seat, s.place(seat, fd)
}

// attach loads the sk_lookup program of one namespace.
func (w *Forwarder) attach(f Forwarding, entry connectForwarder) error {
	spec, err := loadForward()
	if err != nil {
		return fmt.Errorf("read sk_lookup program: %w", err)
	}
	vars := w.d.params.addresses()
	for name, value := range map[string]any{
		"netns_cookie": f.NetnsCookie,
		"listener4":    entry.Seat4,
		"listener6":    entry.Seat6,
		"is_node":      boolByte(f.NS.Self()),
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
	defer coll.Close()
	return f.NS.Do(func() error {
		w.lookup, err = attachNetns(coll.Programs["forward"])
		return err
	})
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
	var err error
	w.away.Do(func() {
		if err = w.d.objs.ForwardersV1.Delete(&w.cookie); errors.Is(err, ebpf.ErrKeyNotExist) {
			err = nil
		}
	})
	return err
}

// Close is Away, and nothing arrives any more.
func (w *Forwarder) Close() error {
	errs := []error{w.Away()}
	w.closed.Do(func() {
		if w.lookup != nil {
			errs = append(errs, w.lookup.Close())
		}
		s := w.d.seats
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, seat := range w.seats {
			errs = append(errs, s.leave(seat))
		}
		if w.route != nil {
			errs = append(errs, w.route.remove())
		}
	})
	return errors.Join(errs...)
}

// Caller says who made a connection that the forwarder has accepted, and
// forgets it: each is asked about once. ok is false for a connection that was
// not left to the forwarder.
func (w *Forwarder) Caller(client, vip netip.AddrPort) (id lb.TaskID, ok bool) {
	key := connectAdmissionKey{
		Netns: w.cookie, Local: encodeAddr(client.Addr()), LocalPort: be16(client.Port()),
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
	for e, err := range all[uint64, connectForwarder](d.objs.ForwardersV1) {
		if err != nil {
			return fmt.Errorf("read forwarders: %w", err)
		}
		if err := d.objs.ForwardersV1.Delete(&e.key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete forwarder: %w", err)
		}
	}
	for e, err := range all[connectAdmissionKey, connectAdmission](d.objs.AdmissionsV1) {
		if err != nil {
			return fmt.Errorf("read admissions: %w", err)
		}
		if err := d.objs.AdmissionsV1.Delete(&e.key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete admission: %w", err)
		}
	}
	return nil
}
