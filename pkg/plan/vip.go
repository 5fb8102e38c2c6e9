package plan

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
)

var defaultVIP4 = netip.MustParsePrefix("127.254.0.0/16")

// readyPort is HTTP's: a health check is a short line that people type.
const readyPort = 80

// reserved is how many addresses at the end of a VIP range are connectd's own.
const reserved = 16

// ReadyVIP is the address in a VIP range, zero for the default one, at which
// a task asks on port 80 whether it is ready: the second to last.
func ReadyVIP(v4 netip.Prefix) netip.Addr {
	if !v4.IsValid() {
		v4 = defaultVIP4
	}
	base := v4.Masked().Addr().As4()
	last := binary.BigEndian.Uint32(base[:]) | (1<<(32-v4.Bits()) - 1)
	binary.BigEndian.PutUint32(base[:], last-1)
	return netip.AddrFrom4(base)
}

// vipTable maps names to addresses. An address is a hash of namespace and
// name, and on a collision the next free one: nodes that saw the same catalog
// agree without talking. The hash must never change, or VIPs would move with
// an upgrade.
type vipTable struct {
	base4  uint32
	hosts4 uint32 // the hosts that may be given are 1 to hosts4
	net6   [8]byte
	names  map[nameKey]*vip
	taken4 map[uint32]struct{}
	taken6 map[uint64]struct{}
}

type nameKey struct{ namespace, dnsName string }

// vip is the addresses of one name as host parts; 0 is none.
type vip struct {
	host4 uint32
	host6 uint64
	users []*service // more than one when services share a name on different ports
}

func newVIPTable(v4, v6 netip.Prefix) (vipTable, error) {
	if !v4.IsValid() {
		v4 = defaultVIP4
	}
	if !v6.IsValid() {
		v6 = netip.MustParsePrefix("fd63:6f6e:6e65:6374::/64")
	}
	if !v4.Addr().Is4() || v4.Bits() < 8 || v4.Bits() > 27 {
		return vipTable{}, fmt.Errorf("use VIP range %s: want an IPv4 prefix of /8 to /27", v4)
	}
	if !v6.Addr().Is6() || v6.Addr().Is4In6() || v6.Bits() != 64 {
		return vipTable{}, fmt.Errorf("use VIP range %s: want an IPv6 /64", v6)
	}
	base4, base6 := v4.Masked().Addr().As4(), v6.Masked().Addr().As16()
	return vipTable{
		base4:  binary.BigEndian.Uint32(base4[:]),
		hosts4: 1<<(32-v4.Bits()) - reserved - 1,
		net6:   [8]byte(base6[:8]),
		names:  make(map[nameKey]*vip),
		taken4: make(map[uint32]struct{}),
		taken6: make(map[uint64]struct{}),
	}, nil
}

// give4 sets host4. It fails when the range is full.
func (t *vipTable) give4(key nameKey, v *vip) bool {
	if len(t.taken4) >= int(t.hosts4) {
		return false
	}
	host := 1 + uint32(key.hash()%uint64(t.hosts4))
	for {
		if _, taken := t.taken4[host]; !taken {
			break
		}
		host = host%t.hosts4 + 1
	}
	v.host4 = host
	t.taken4[host] = struct{}{}
	return true
}

func (t *vipTable) give6(key nameKey, v *vip) {
	host := key.hash()
	for {
		_, taken := t.taken6[host]
		if !taken && host != 0 && host <= math.MaxUint64-reserved {
			break
		}
		host++
	}
	v.host6 = host
	t.taken6[host] = struct{}{}
}

// restore sets an address that was given by an earlier run. One outside the
// range (which was configured anew) or taken by another name is passed over:
// the name gets a new one.
func (t *vipTable) restore(key nameKey, addr netip.Addr) {
	v := t.names[key]
	if v == nil {
		v = &vip{}
		t.names[key] = v
	}
	if addr.Is4() {
		b := addr.As4()
		host := binary.BigEndian.Uint32(b[:]) - t.base4 // below the base it wraps and is too large
		if _, taken := t.taken4[host]; !taken && host >= 1 && host <= t.hosts4 {
			delete(t.taken4, v.host4)
			v.host4 = host
			t.taken4[host] = struct{}{}
		}
		return
	}
	b := addr.As16()
	host := binary.BigEndian.Uint64(b[8:])
	if _, taken := t.taken6[host]; !taken && [8]byte(b[:8]) == t.net6 && host != 0 {
		delete(t.taken6, v.host6)
		v.host6 = host
		t.taken6[host] = struct{}{}
	}
}

func (t *vipTable) drop(key nameKey) {
	if v := t.names[key]; v != nil {
		delete(t.taken4, v.host4)
		delete(t.taken6, v.host6)
		delete(t.names, key)
	}
}

// addr4 returns the zero Addr when the name has no IPv4 address.
func (t *vipTable) addr4(v *vip) netip.Addr {
	if v.host4 == 0 {
		return netip.Addr{}
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], t.base4+v.host4)
	return netip.AddrFrom4(b)
}

func (t *vipTable) addr6(v *vip) netip.Addr {
	if v.host6 == 0 {
		return netip.Addr{}
	}
	var b [16]byte
	copy(b[:], t.net6[:])
	binary.BigEndian.PutUint64(b[8:], v.host6)
	return netip.AddrFrom16(b)
}

// hash is FNV-1a of "namespace NUL name", mixed so that the low bits of
// similar names differ.
func (k nameKey) hash() uint64 {
	h := fnv1a(fnvOffset, k.namespace)
	h *= fnvPrime // the NUL
	return mix(fnv1a(h, k.dnsName))
}

const (
	fnvOffset uint64 = 14695981039346656037
	fnvPrime  uint64 = 1099511628211
)

func fnv1a[T string | []byte](h uint64, s T) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return h
}

// mix is the finalizer of MurmurHash3.
func mix(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
