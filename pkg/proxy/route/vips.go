package route

import (
	"maps"
	"net/netip"
	"sync/atomic"
)

// slot holds the route of all VIPs of one service. A service that changes keeps
// it, so a map is copied only when VIPs come or go.
type slot struct{ route atomic.Pointer[Route] }

// shards of the VIPs: with 40,000 of them a change copies 160 at a time.
const shards = 256

// vipMap is read without a lock; writers copy the shards that they change.
type vipMap [shards]atomic.Pointer[map[netip.AddrPort]*slot]

// shardOf spreads by the low bytes: VIPs are hashes of names there.
func shardOf(vip netip.AddrPort) uint8 {
	a := vip.Addr().As16()
	return a[15] ^ a[14] ^ uint8(vip.Port())
}

func (m *vipMap) get(vip netip.AddrPort) *slot {
	if shard := m[shardOf(vip)].Load(); shard != nil {
		return (*shard)[vip]
	}
	return nil
}

// vipEdit is a change that is under way.
type vipEdit struct {
	of    *vipMap
	fresh map[uint8]map[netip.AddrPort]*slot
}

func (m *vipMap) edit() *vipEdit { return &vipEdit{of: m} }

func (d *vipEdit) shard(vip netip.AddrPort) map[netip.AddrPort]*slot {
	i := shardOf(vip)
	if d.fresh[i] == nil {
		if d.fresh == nil {
			d.fresh = make(map[uint8]map[netip.AddrPort]*slot)
		}
		d.fresh[i] = make(map[netip.AddrPort]*slot)
		if old := d.of[i].Load(); old != nil {
			d.fresh[i] = maps.Clone(*old)
		}
	}
	return d.fresh[i]
}

func (d *vipEdit) add(vips []netip.AddrPort, s *slot) {
	for _, vip := range vips {
		d.shard(vip)[vip] = s
	}
}

// remove takes out VIPs of a slot that no other has taken over meanwhile.
func (d *vipEdit) remove(vips []netip.AddrPort, s *slot) {
	for _, vip := range vips {
		if shard := d.shard(vip); shard[vip] == s {
			delete(shard, vip)
		}
	}
}

// publish shows readers the change, a shard at a time.
func (d *vipEdit) publish() {
	for i, shard := range d.fresh {
		d.of[i].Store(&shard)
	}
}
