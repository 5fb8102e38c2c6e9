package datapath

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// batchSize bounds one batched map call: the kernel copies a batch through
// memory it allocates for the call.
const batchSize = 4096

// written is what the maps hold that cannot be seen from one entry.
type written struct {
	levels    map[uint64]uint8 // depth of each cgroup that is a task's
	avoids    map[lb.TaskID]map[lb.EndpointID]struct{}
	datagrams bool // some service is or was UDP

	// What an earlier daemon had set, until the first Resync: its tasks are in
	// the maps and must stay clients while ours are being written.
	adopted connectSettings
}

// Apply writes a change, publishing last and deleting last. It is idempotent:
// after an error the same or a newer change is applied again. What it wrote up
// to the error is harmless, for nothing names it yet.
func (d *Datapath) Apply(c *plan.Change, now time.Time) error {
	if err := d.putEndpoints(c.Endpoints); err != nil {
		return err
	}
	if err := d.putServices(c.Services, now); err != nil {
		return err
	}
	if err := d.putReady(c.Ready); err != nil {
		return err
	}
	if err := d.putTasks(c.Tasks); err != nil {
		return err
	}
	if err := d.dropTasks(c.DropTasks); err != nil {
		return err
	}
	if err := d.dropFrontends(c.DropFrontends); err != nil {
		return err
	}
	for _, id := range c.DropServices {
		d.forgetHTTP(id, 0)
		d.retireSlots(id, now)
	}
	return nil
}

func (d *Datapath) putEndpoints(changes []plan.EndpointChange) error {
	for _, c := range changes {
		if !d.endpointFits(c.ID) {
			return fmt.Errorf("write endpoint %s: id %d is over limits.maxEndpoints", c.Address, c.ID)
		}
		want := encodeEndpoint(c.Service, c.Address, c.Weight)
		entry := &d.shared.endpoints[c.ID]
		if entry.Addr != want.Addr || entry.Port != want.Port || entry.Service != want.Service {
			// Another endpoint's id, reused: its counters were that one's.
			d.shared.stats[c.ID] = connectEndpointStats{}
			d.forgetHTTP(c.Service, c.ID)
			*entry = want
			continue
		}
		entry.Weight = want.Weight
	}
	return nil
}

func (d *Datapath) putServices(services []*plan.Service, now time.Time) error {
	var keys []connectFrontendKey
	var values []connectFrontend
	placed := make(map[lb.ServiceID]serviceSlots, len(services))
	undo := func() {
		for _, s := range placed {
			d.slots.discard(s)
		}
	}
	for _, s := range services {
		if !d.serviceFits(s.ID) {
			undo()
			return fmt.Errorf("write service %s: id %d is over limits.maxServices", s.Name, s.ID)
		}
		where, err := d.writeSlots(s, now)
		if err != nil {
			undo()
			return fmt.Errorf("write service %s: %w", s.Name, err)
		}
		placed[s.ID] = where
		keys, values = appendFrontends(keys, values, s, where)
		d.written.datagrams = d.written.datagrams || s.Protocol == lb.UDP
	}
	if err := d.writeSettings(); err != nil {
		undo()
		return err
	}
	err := putBatch(d.objs.FrontendsV1, keys, values)
	// After an error some frontends name the new ranges and some the old: the
	// new ones stay held, and those before rest longer than a retry takes.
	for id, where := range placed {
		d.retireSlots(id, now)
		d.slots.held[id] = where
	}
	if err != nil {
		return fmt.Errorf("publish frontends: %w", err)
	}
	return nil
}

// writeSlots fills a fresh range for each address family; nothing names it yet.
func (d *Datapath) writeSlots(s *plan.Service, now time.Time) (serviceSlots, error) {
	v4, err := d.slots.take(uint32(len(s.SlotsV4)), now)
	if err != nil {
		return serviceSlots{}, err
	}
	v6, err := d.slots.take(uint32(len(s.SlotsV6)), now)
	if err != nil {
		d.slots.discard(serviceSlots{v4: v4})
		return serviceSlots{}, err
	}
	for i, id := range s.SlotsV4 {
		d.shared.slots[v4.base+uint32(i)] = connectSlot{Endpoint: uint32(id), Service: uint32(s.ID)}
	}
	for i, id := range s.SlotsV6 {
		d.shared.slots[v6.base+uint32(i)] = connectSlot{Endpoint: uint32(id), Service: uint32(s.ID)}
	}
	return serviceSlots{v4: v4, v6: v6}, nil
}

func appendFrontends(keys []connectFrontendKey, values []connectFrontend, s *plan.Service, where serviceSlots) ([]connectFrontendKey, []connectFrontend) {
	for _, f := range s.Frontends() {
		at := where.v4
		if f.Address.Addr().Is6() {
			at = where.v6
		}
		key := encodeFrontend(f)
		keys = append(keys, key)
		values = append(values, connectFrontend{
			Key:       key,
			Service:   uint32(s.ID),
			Base:      at.base,
			Count:     at.count,
			Policy:    uint8(s.LoadBalancing.Policy),
			Namespace: uint8(s.NamespaceID),
			Flags:     frontendFlags(s.Service),
		})
	}
	return keys, values
}

// readyFrontend names no service and no slots.
func readyFrontend(f plan.Frontend) (connectFrontendKey, connectFrontend) {
	key := encodeFrontend(f)
	flags := connectFrontendFlagFRONTEND_PROXIED | connectFrontendFlagFRONTEND_BUILT_IN
	return key, connectFrontend{Key: key, Flags: uint8(flags)}
}

func (d *Datapath) putReady(f plan.Frontend) error {
	if !f.Address.IsValid() {
		return nil
	}
	key, value := readyFrontend(f)
	if err := d.objs.FrontendsV1.Put(&key, &value); err != nil {
		return fmt.Errorf("write frontend %s: %w", f.Address, err)
	}
	return nil
}

func frontendFlags(s *lb.Service) uint8 {
	switch {
	case s.HTTP == nil:
		return 0
	case s.HTTP.Direct:
		return uint8(connectFrontendFlagFRONTEND_DIRECT)
	}
	return uint8(connectFrontendFlagFRONTEND_PROXIED)
}

func (d *Datapath) retireSlots(id lb.ServiceID, now time.Time) {
	if old, ok := d.slots.held[id]; ok {
		d.slots.retire(old.v4, now)
		d.slots.retire(old.v6, now)
		delete(d.slots.held, id)
	}
}

func (d *Datapath) dropFrontends(fronts []plan.Frontend) error {
	for _, f := range fronts {
		key := encodeFrontend(f)
		if err := d.objs.FrontendsV1.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete frontend %s/%s: %w", f.Address, f.Protocol, err)
		}
	}
	return nil
}

func (d *Datapath) writeSettings() error {
	set := d.written.adopted
	for _, level := range d.written.levels {
		set.CgroupLevels |= 1 << level
	}
	if d.written.datagrams {
		set.HasDatagrams = 1
	}
	if err := d.objs.SettingsV1.Put(uint32(0), &set); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// putBatch writes in batches. Kernels since 5.6 have the call; every kernel
// connectd supports has it.
func putBatch[K, V any](m *ebpf.Map, keys []K, values []V) error {
	for len(keys) > 0 {
		n := min(len(keys), batchSize)
		if _, err := m.BatchUpdate(keys[:n], values[:n], nil); err != nil {
			return err
		}
		keys, values = keys[n:], values[n:]
	}
	return nil
}

// Active returns how many connections an endpoint has now.
func (d *Datapath) Active(id lb.EndpointID) uint32 {
	d.shared.mu.RLock()
	defer d.shared.mu.RUnlock()
	if !d.endpointFits(id) {
		return 0
	}
	return uint32(atomic.LoadUint64(&d.shared.stats[id].Active))
}
