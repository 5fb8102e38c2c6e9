package datapath

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"

	"connectd/pkg/lb"
)

// EndpointCounters are what the kernel counted for one endpoint since its id
// was given out. Bytes are those of connections that have ended.
type EndpointCounters struct {
	Active      uint64 // connections now
	Opened      uint64 // connections begun
	Established uint64
	Failed      uint64
	Bytes
	Retransmits uint64
}

// Histogram counts observations in buckets of powers of two.
type Histogram struct {
	Buckets []uint64 // Buckets[i] counts what is at most Bounds()[i]; the last has no bound
	Sum     time.Duration
}

// HistogramBounds returns the upper bounds of all buckets but the last.
func HistogramBounds() []time.Duration {
	var h connectHistogram
	out := make([]time.Duration, len(h.Buckets)-1)
	for i := range out {
		out[i] = time.Microsecond << (i + 4) // HISTOGRAM_SHIFT in bpf/lib/types.h
	}
	return out
}

// ServiceCounters are what the kernel counted for one service.
type ServiceCounters struct {
	ConnectTime Histogram // SYN to established
	SRTT        Histogram // smoothed round trip time, at each connection's end
	Failures    []uint64  // failed connects, in the order of FailureReasons
}

// Endpoint reads an endpoint's counters.
func (d *Datapath) Endpoint(id lb.EndpointID) EndpointCounters {
	d.shared.mu.RLock()
	defer d.shared.mu.RUnlock()
	if !d.endpointFits(id) {
		return EndpointCounters{}
	}
	s := &d.shared.stats[id]
	return EndpointCounters{
		Active:      atomic.LoadUint64(&s.Active),
		Opened:      atomic.LoadUint64(&s.Opened),
		Established: atomic.LoadUint64(&s.Established),
		Failed:      atomic.LoadUint64(&s.Failed),
		Bytes:       Bytes{atomic.LoadUint64(&s.BytesSent), atomic.LoadUint64(&s.BytesReceived)},
		Retransmits: atomic.LoadUint64(&s.Retransmits),
	}
}

// Service reads a service's counters.
func (d *Datapath) Service(id lb.ServiceID) ServiceCounters {
	d.shared.mu.RLock()
	defer d.shared.mu.RUnlock()
	if !d.serviceFits(id) {
		return ServiceCounters{}
	}
	s := &d.shared.services[id]
	out := ServiceCounters{
		ConnectTime: readHistogram(&s.ConnectTime),
		SRTT:        readHistogram(&s.Srtt),
		Failures:    make([]uint64, len(s.Failures)),
	}
	for i := range s.Failures {
		out.Failures[i] = atomic.LoadUint64(&s.Failures[i])
	}
	return out
}

func readHistogram(h *connectHistogram) Histogram {
	out := Histogram{Buckets: make([]uint64, len(h.Buckets))}
	for i := range h.Buckets {
		out.Buckets[i] = atomic.LoadUint64(&h.Buckets[i])
	}
	out.Sum = time.Duration(atomic.LoadUint64(&h.SumUs)) * time.Microsecond
	return out
}

// The C enums are also the metric labels.
var (
	failureNames = [...]string{
		connectFailureFAILURE_REFUSED:     "refused",
		connectFailureFAILURE_TIMEOUT:     "timeout",
		connectFailureFAILURE_UNREACHABLE: "unreachable",
		connectFailureFAILURE_RESET:       "reset",
		connectFailureFAILURE_ABORTED:     "aborted",
		connectFailureFAILURE_TERMINATED:  "terminated",
		connectFailureFAILURE_LOCAL:       "local",
		connectFailureFAILURE_OTHER:       "other",
	}
	outcomeNames = [...]string{
		connectOutcomeOUTCOME_TRANSLATED:     "translated",
		connectOutcomeOUTCOME_NO_FRONTEND:    "no_frontend",
		connectOutcomeOUTCOME_NO_ENDPOINT:    "no_endpoint",
		connectOutcomeOUTCOME_OUT_OF_SCOPE:   "out_of_scope",
		connectOutcomeOUTCOME_UNTRACKED:      "untracked",
		connectOutcomeOUTCOME_STALE:          "stale",
		connectOutcomeOUTCOME_DNS:            "dns",
		connectOutcomeOUTCOME_DNS_AWAY:       "dns_away",
		connectOutcomeOUTCOME_EVENT_LOST:     "event_lost",
		connectOutcomeOUTCOME_FORWARDED:      "forwarded",
		connectOutcomeOUTCOME_FORWARDER_AWAY: "forwarder_away",
	}
)

// FailureReasons names the reasons for failed connects.
func FailureReasons() []string { return failureNames[:] }

// Outcomes returns how often each outcome came up in the hooks.
func (d *Datapath) Outcomes() (map[string]uint64, error) {
	out := make(map[string]uint64, len(outcomeNames))
	for i, name := range outcomeNames {
		var perCPU []uint64
		if err := d.objs.OutcomesV2.Lookup(uint32(i), &perCPU); err != nil {
			return nil, fmt.Errorf("read outcomes: %w", err)
		}
		for _, n := range perCPU {
			out[name] += n
		}
	}
	return out, nil
}

// MapFill says how full a map is.
type MapFill struct {
	Name       string // without the layout version
	Entries    uint64
	MaxEntries uint64 // 0: it cannot run full
	Bytes      uint64 // kernel memory, 0 where the kernel does not tell
}

// Maps returns the memory of every map, and the fill of those that can run
// full, sorted by name. Counting the entries of a hash walks it: call it
// at most every few seconds.
func (d *Datapath) Maps() ([]MapFill, error) {
	counted := map[*ebpf.Map]func() (uint64, error){
		d.objs.FrontendsV1:   countAll[connectFrontendKey, connectFrontend](d.objs.FrontendsV1),
		d.objs.ConnectionsV1: countAll[uint64, connectConnection](d.objs.ConnectionsV1),
		d.objs.TasksNetnsV1:  countAll[uint64, connectTask](d.objs.TasksNetnsV1),
		d.objs.TasksCgroupV1: countAll[uint64, connectTask](d.objs.TasksCgroupV1),
		d.objs.AvoidsV1:      countAll[connectTaskEndpoint, uint8](d.objs.AvoidsV1),
		d.objs.ResolversV1:   countAll[connectResolverKey, connectResolver](d.objs.ResolversV1),
		d.objs.ForwardersV1:  countAll[uint64, connectForwarder](d.objs.ForwardersV1),
	}
	var out []MapFill
	for pin, m := range d.objs.all() {
		info, err := m.Info()
		if err != nil {
			return nil, fmt.Errorf("read map %s: %w", m, err)
		}
		name := pin[:strings.LastIndex(pin, "_v")]
		fill := MapFill{Name: name}
		if bytes, ok := info.Memlock(); ok {
			fill.Bytes = bytes
		}
		if count := counted[m]; count != nil {
			fill.MaxEntries = uint64(m.MaxEntries())
			if fill.Entries, err = count(); err != nil {
				return nil, fmt.Errorf("count map %s: %w", name, err)
			}
		}
		out = append(out, fill)
	}
	slices.SortFunc(out, func(a, b MapFill) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func countAll[K, V any](m *ebpf.Map) func() (uint64, error) {
	return func() (uint64, error) {
		var n uint64
		for _, err := range all[K, V](m) {
			if err != nil {
				return 0, err
			}
			n++
		}
		return n, nil
	}
}

// all lists the maps by the names of their pins.
func (o *connectObjects) all() map[string]*ebpf.Map {
	return map[string]*ebpf.Map{
		connectMapAdmissionsV1:      o.AdmissionsV1,
		connectMapAvoidsV1:          o.AvoidsV1,
		connectMapForwardersV1:      o.ForwardersV1,
		connectMapConnectionsV1:     o.ConnectionsV1,
		connectMapDatagramsV1:       o.DatagramsV1,
		connectMapEndpointStatsV1:   o.EndpointStatsV1,
		connectMapEndpointsV1:       o.EndpointsV1,
		connectMapEventsV1:          o.EventsV1,
		connectMapExchangesFarV2:    o.ExchangesFarV2,
		connectMapExchangesNearV2:   o.ExchangesNearV2,
		connectMapFrontendsV1:       o.FrontendsV1,
		connectMapHeartbeatsV1:      o.HeartbeatsV1,
		connectMapLearnedV1:         o.LearnedV1,
		connectMapListenersV1:       o.ListenersV1,
		connectMapOutcomesV2:        o.OutcomesV2,
		connectMapRefusalsV1:        o.RefusalsV1,
		connectMapRefusedV1:         o.RefusedV1,
		connectMapResolversV1:       o.ResolversV1,
		connectMapServiceStatsV1:    o.ServiceStatsV1,
		connectMapSettingsV1:        o.SettingsV1,
		connectMapSlotsV1:           o.SlotsV1,
		connectMapStrikesV1:         o.StrikesV1,
		connectMapSubflowsV1:        o.SubflowsV1,
		connectMapTaskConnectionsV1: o.TaskConnectionsV1,
		connectMapTasksCgroupV1:     o.TasksCgroupV1,
		connectMapTasksNetnsV1:      o.TasksNetnsV1,
		connectMapTurnsV1:           o.TurnsV1,
	}
}

// usedBy returns the maps that the programs of a spec use, and takes the
// others, which it has from shared headers, out of it.
func (o *connectObjects) usedBy(spec *ebpf.CollectionSpec) map[string]*ebpf.Map {
	used := make(map[string]*ebpf.Map)
	ours := o.all()
	for _, prog := range spec.Programs {
		for _, ins := range prog.Instructions {
			if m := ours[ins.Reference()]; m != nil && ins.IsLoadFromMap() {
				used[ins.Reference()] = m
				spec.Maps[ins.Reference()].MaxEntries = m.MaxEntries()
			}
		}
	}
	for name := range ours {
		if used[name] == nil {
			delete(spec.Maps, name)
		}
	}
	return used
}

// release takes a connection off the counts that its close event would have.
func (d *Datapath) release(c *connectConnection) {
	if int(c.Task) < len(d.shared.taskConnections) {
		atomic.AddUint64(&d.shared.taskConnections[c.Task], ^uint64(0))
	}
	if c.Endpoint != 0 && d.endpointFits(lb.EndpointID(c.Endpoint)) {
		atomic.AddUint64(&d.shared.stats[c.Endpoint].Active, ^uint64(0))
	}
}
