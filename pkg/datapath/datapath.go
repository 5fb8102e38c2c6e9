// Package datapath is the kernel side seen from Go, and the only importer of
// cilium/ebpf: it loads, pins and adopts the programs and maps of bpf/, writes
// plans into them, and reads events and counters back.
//
//	<bpffs>/maps/<map>_v<layout>   outlive the daemon
//	<bpffs>/links/<program>        one link a program, replaced one by one
//
// A plan reaches the maps first and the programs are attached after it
// (Publish), so a program never runs over maps that say less than its
// predecessor's.
package datapath

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
)

// Params configure Open.
type Params struct {
	Log    *slog.Logger
	BPFFS  string // directory on a bpffs; created when missing
	Cgroup string // cgroup2 directory the programs are attached to
	VIP4   netip.Prefix
	VIP6   netip.Prefix // a /64

	CountCallers bool // what CallerBytes and HTTPCallers return; a lookup for each connection and response

	MaxConnections uint32 // tracked at once; a quarter of it for one task
	MaxEndpoints   uint32
	MaxServices    uint32
	MaxSlots       uint32
}

// Datapath is the loaded kernel side. Apply, Publish and Resync belong to one
// goroutine; everything else may be called from any.
type Datapath struct {
	log     *slog.Logger
	params  Params
	objs    connectObjects
	events  *ringbuf.Reader
	refused *ringbuf.Reader
	seats   *seats
	slots   slotAllocator
	shared  shared
	direct  direct
	serve   serve
	written written
	sweeps  uint64      // of Sweep, which one goroutine calls
	canDiag func() bool // asked once, when first needed
}

// Open loads the programs, and creates the maps or adopts those an earlier
// daemon pinned. Nothing is attached or changed in the kernel's behaviour
// until Publish. A map pinned with other sizes keeps its sizes until Unload.
func Open(p Params) (*Datapath, error) {
	if err := rlimit.RemoveMemlock(); err != nil { // kernels before 5.11
		return nil, fmt.Errorf("remove memory lock limit: %s", err)
	}
	if err := EnsureBPFFS(p.BPFFS); err != nil {
		return nil, err
	}
	for _, dir := range []string{mapDir(p.BPFFS), linkDir(p.BPFFS)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("create %s: %s", dir, err)
		}
	}
	spec, err := loadConnect()
	if err != nil {
		return nil, fmt.Errorf("read programs: %s", err)
	}
	canDiag := sync.OnceValue(func() bool { return haveDestroy() == nil })
	d := &Datapath{log: p.Log, params: p, canDiag: canDiag, written: written{
		levels: make(map[uint64]uint8),
		avoids: make(map[lb.TaskID]map[lb.EndpointID]struct{}),
	}}
	if err := d.load(spec); err != nil {
		return nil, err
	}
	if err := d.start(); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Datapath) load(spec *ebpf.CollectionSpec) error {
	if err := d.params.configure(spec); err != nil {
		return err
	}
	if err := pinMaps(spec, mapDir(d.params.BPFFS), d.log); err != nil {
		return err
	}
	err := spec.LoadAndAssign(&d.objs, &ebpf.CollectionOptions{
		Maps: ebpf.MapOptions{PinPath: mapDir(d.params.BPFFS)},
	})
	if err != nil {
		return fmt.Errorf("load programs: %w", err)
	}
	return nil
}

func (d *Datapath) start() error {
	var err error
	if d.events, err = ringbuf.NewReader(d.objs.EventsV1); err != nil {
		return fmt.Errorf("open event ring: %s", err)
	}
	if d.refused, err = ringbuf.NewReader(d.objs.RefusalsV1); err != nil {
		return fmt.Errorf("open refusal ring: %s", err)
	}
	if err := d.shared.open(&d.objs); err != nil {
		return err
	}
	if err := d.objs.SettingsV1.Lookup(uint32(0), &d.written.adopted); err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	d.seats = newSeats(&d.objs, d.shared.heartbeats)
	// An earlier daemon's DNS sockets are gone, and their seats are about to
	// be given to others.
	if _, err := d.resyncResolvers(nil); err != nil {
		return err
	}
	if err := d.clearForwarders(); err != nil {
		return err
	}
	return d.adoptSlots()
}

// Close lets go of the kernel objects. Programs, links and maps stay and go on
// working; Unload removes them.
func (d *Datapath) Close() error {
	var errs []error
	for _, ring := range []*ringbuf.Reader{d.events, d.refused} {
		if ring != nil {
			errs = append(errs, ring.Close())
		}
	}
	d.shared.close()
	d.direct.close()
	d.serve.close()
	errs = append(errs, d.objs.Close())
	return errors.Join(errs...)
}

func mapDir(bpffs string) string  { return filepath.Join(bpffs, "maps") }
func linkDir(bpffs string) string { return filepath.Join(bpffs, "links") }

// LearnAddr is the address in the VIP range that the connect hook answers with
// the caller's netns cookie (kernels before 5.14).
func LearnAddr(vips netip.Prefix) netip.Addr { return reserved(vips, 3) }

// reserved returns the n-th address from the end of the range; plan keeps the
// last 16 free.
func reserved(vips netip.Prefix, n byte) netip.Addr {
	a := vips.Masked().Addr().As4()
	ones := vips.Bits()
	for i := range a {
		bits := max(0, min(8, ones-8*i))
		a[i] |= byte(0xff >> bits)
	}
	a[3] -= n - 1
	return netip.AddrFrom4(a)
}

func (p *Params) configure(spec *ebpf.CollectionSpec) error {
	vars := p.knobs()
	vars[connectVarLearnAddr] = be32(LearnAddr(p.VIP4).As4())
	vars[connectVarOwnMark] = uint32(netns.Mark)
	vars[connectVarHasSetRetval] = boolByte(haveSetRetval())
	vars[connectVarMaxTaskConnections] = max(p.MaxConnections/4, 1)
	if err := setVariables(spec, vars); err != nil {
		return err
	}
	// Ids start at 1, so an array needs one entry more than it holds.
	for name, entries := range map[string]uint32{
		connectMapFrontendsV1:     p.MaxServices * 4,
		connectMapSlotsV1:         p.MaxSlots,
		connectMapEndpointsV1:     p.MaxEndpoints + 1,
		connectMapEndpointStatsV1: p.MaxEndpoints + 1,
		connectMapServiceStatsV1:  p.MaxServices + 1,
		connectMapTurnsV1:         p.MaxServices + 1,
		connectMapConnectionsV1:   p.MaxConnections,
		connectMapExchangesFarV2:  p.MaxConnections,
	} {
		spec.Maps[name].MaxEntries = entries
	}
	return nil
}

// knobs are the load-time ones that all programs have.
func (p *Params) knobs() map[string]any {
	mask := [4]byte{}
	for i := range p.VIP4.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	net6 := p.VIP6.Masked().Addr().As16()
	return map[string]any{
		connectVarVip4Net:  be32(p.VIP4.Masked().Addr().As4()),
		connectVarVip4Mask: be32(mask),
		connectVarVip6Net:  [2]uint32{be32([4]byte(net6[0:4])), be32([4]byte(net6[4:8]))},

		connectVarCountCallers: boolByte(p.CountCallers),
	}
}

func setVariables(spec *ebpf.CollectionSpec, values map[string]any) error {
	for name, value := range values {
		v, ok := spec.Variables[name]
		if !ok {
			return fmt.Errorf("set %s: no such variable in the programs", name)
		}
		if err := v.Set(value); err != nil {
			return fmt.Errorf("set %s: %s", name, err)
		}
	}
	return nil
}

func boolByte(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// ids that index the shared arrays, checked once here.
func (d *Datapath) endpointFits(id lb.EndpointID) bool { return int(id) < len(d.shared.endpoints) }
func (d *Datapath) serviceFits(id lb.ServiceID) bool   { return int(id) < len(d.shared.services) }

// Cgroup is where the programs are attached.
func (d *Datapath) Cgroup() string { return d.params.Cgroup }

// Room is how much the maps hold, which for maps of an earlier daemon is not
// what Params ask for.
type Room struct{ Endpoints, Services, Slots int }

// Room returns the sizes of the loaded maps.
func (d *Datapath) Room() Room {
	return Room{Endpoints: len(d.shared.endpoints) - 1, Services: len(d.shared.services) - 1, Slots: len(d.shared.slots)}
}
