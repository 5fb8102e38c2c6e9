package datapath

import (
	"errors"
	"fmt"
	"iter"
	"maps"

	"github.com/cilium/ebpf"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// adoptSlots takes the ranges that published frontends use, so that nothing is
// written over them before they are replaced.
func (d *Datapath) adoptSlots() error {
	d.slots = newSlotAllocator(uint32(len(d.shared.slots)))
	for f, err := range all[connectFrontendKey, connectFrontend](d.objs.FrontendsV1) {
		if err != nil {
			return fmt.Errorf("read frontends: %w", err)
		}
		s := span{f.value.Base, f.value.Count}
		if s.end() < s.base || int(s.end()) > len(d.shared.slots) {
			continue // a frontend we did not write may say anything
		}
		d.slots.claim(s)
		held := d.slots.held[lb.ServiceID(f.value.Service)]
		if decodeAddr(f.key.Addr).Is4() {
			held.v4 = s
		} else {
			held.v6 = s
		}
		d.slots.held[lb.ServiceID(f.value.Service)] = held
	}
	return nil
}

// Resync reads the kernel back, deletes what the plan does not name and
// returns how many entries it had to repair. Run it after the first Apply (it
// is the prune) and now and then: somebody with bpftool may have been here.
func (d *Datapath) Resync(want *plan.Desired) (repaired int, err error) {
	for _, step := range []func(*plan.Desired) (int, error){
		d.resyncArrays, d.resyncFrontends, d.resyncTasks, d.resyncAvoids, d.resyncResolvers, d.resyncForwarders, d.resyncDirect, d.resyncServe,
	} {
		n, err := step(want)
		repaired += n
		if err != nil {
			return repaired, err
		}
	}
	// Tasks of an earlier daemon are pruned by now.
	d.written.adopted = connectSettings{}
	if err := d.writeSettings(); err != nil {
		return repaired, err
	}
	n, err := d.resyncHooks()
	return repaired + n, err
}

// resyncHooks attaches again what somebody has detached.
func (d *Datapath) resyncHooks() (detached int, err error) {
	for _, a := range d.Attachments() {
		if a.Err != nil {
			detached++
		}
	}
	if detached > 0 {
		err = d.Publish()
	}
	return detached, err
}

// resyncArrays compares endpoints and slots, which are memory of ours.
func (d *Datapath) resyncArrays(want *plan.Desired) (int, error) {
	n := 0
	for _, s := range want.Services {
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			if entry := &d.shared.endpoints[e.ID]; *entry != encodeEndpoint(s.ID, e.Address, e.Weight) {
				*entry = encodeEndpoint(s.ID, e.Address, e.Weight)
				n++
			}
		}
		held := d.slots.held[s.ID]
		n += d.resyncSlots(s.ID, held.v4, s.SlotsV4) + d.resyncSlots(s.ID, held.v6, s.SlotsV6)
	}
	return n, nil
}

func (d *Datapath) resyncSlots(service lb.ServiceID, at span, want []lb.EndpointID) (n int) {
	if int(at.count) != len(want) {
		return 0 // not written yet
	}
	for i, id := range want {
		slot := connectSlot{Endpoint: uint32(id), Service: uint32(service)}
		if have := &d.shared.slots[at.base+uint32(i)]; *have != slot {
			*have = slot
			n++
		}
	}
	return n
}

func (d *Datapath) resyncFrontends(want *plan.Desired) (int, error) {
	var keys []connectFrontendKey
	var values []connectFrontend
	for _, s := range want.Services {
		keys, values = appendFrontends(keys, values, s, d.slots.held[s.ID])
	}
	wanted := make(map[connectFrontendKey]connectFrontend, len(keys))
	for i, k := range keys {
		wanted[k] = values[i]
	}
	if want.Ready.Address.IsValid() {
		k, v := readyFrontend(want.Ready)
		wanted[k] = v
	}
	return repair(d.objs.FrontendsV1, wanted)
}

func (d *Datapath) resyncTasks(want *plan.Desired) (int, error) {
	byNetns, byCgroup := make(map[uint64]connectTask), make(map[uint64]connectTask)
	for _, t := range want.Tasks {
		if t.CgroupID != 0 {
			byCgroup[t.CgroupID] = *encodeTask(t)
		} else {
			byNetns[t.NetnsCookie] = *encodeTask(t)
		}
	}
	n, err := repair(d.objs.TasksNetnsV1, byNetns)
	if err != nil {
		return n, err
	}
	more, err := repair(d.objs.TasksCgroupV1, byCgroup)
	return n + more, err
}

func (d *Datapath) resyncAvoids(want *plan.Desired) (int, error) {
	wanted := make(map[connectTaskEndpoint]uint8)
	for _, t := range want.Tasks {
		for _, id := range t.Avoid {
			wanted[connectTaskEndpoint{Task: uint32(t.ID), Endpoint: uint32(id)}] = 1
		}
	}
	return repair(d.objs.AvoidsV1, wanted)
}

func (d *Datapath) resyncResolvers(*plan.Desired) (int, error) {
	s := d.seats
	// Others begin and end redirections meanwhile, so map and wish are
	// compared while both stand still.
	s.mu.Lock()
	defer s.mu.Unlock()
	return repair(d.objs.ResolversV1, maps.Clone(s.resolvers))
}

// repair makes a map hold exactly what is wanted.
func repair[K comparable, V comparable](m *ebpf.Map, wanted map[K]V) (int, error) {
	var gone []K
	n := 0
	for e, err := range all[K, V](m) {
		if err != nil {
			return n, fmt.Errorf("read %s: %w", m, err)
		}
		want, ok := wanted[e.key]
		switch {
		case !ok:
			gone = append(gone, e.key)
		case want == e.value:
			delete(wanted, e.key)
		}
	}
	for k, v := range wanted {
		if err := m.Put(&k, &v); err != nil {
			return n, fmt.Errorf("repair %s: %w", m, err)
		}
		n++
	}
	for _, k := range gone {
		// The programs may have been first: an admission ends with its socket.
		if err := m.Delete(&k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return n, fmt.Errorf("prune %s: %w", m, err)
		}
		n++
	}
	return n, nil
}

type entry[K, V any] struct {
	key   K
	value V
}

// all walks a hash map in batches. An entry that is added or deleted meanwhile
// may be seen or not; one that stays is seen.
func all[K, V any](m *ebpf.Map) iter.Seq2[entry[K, V], error] {
	return func(yield func(entry[K, V], error) bool) {
		size := batchSize
		keys, values := make([]K, size), make([]V, size)
		var cursor ebpf.MapBatchCursor
		for {
			n, err := m.BatchLookup(&cursor, keys, values, nil)
			done := errors.Is(err, ebpf.ErrKeyNotExist)
			if err != nil && !done {
				yield(entry[K, V]{}, err)
				return
			}
			for i := range n {
				if !yield(entry[K, V]{keys[i], values[i]}, nil) {
					return
				}
			}
			if done {
				return
			}
		}
	}
}
