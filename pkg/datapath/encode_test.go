package datapath

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"unsafe"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// wire is how the kernel sees an address in memory: network byte order.
func wire(a connectAddr) (b [16]byte) {
	return *(*[16]byte)(unsafe.Pointer(&a.W))
}

func TestAddressCodec(t *testing.T) {
	for text, want := range map[string][16]byte{
		"1.2.3.4":          {10: 0xff, 11: 0xff, 12: 1, 13: 2, 14: 3, 15: 4},
		"0.0.0.0":          {10: 0xff, 11: 0xff},
		"255.255.255.255":  {10: 0xff, 11: 0xff, 12: 255, 13: 255, 14: 255, 15: 255},
		"::":               {},
		"::1":              {15: 1},
		"fd63:6f6e::1:203": {0: 0xfd, 1: 0x63, 2: 0x6f, 3: 0x6e, 13: 1, 14: 2, 15: 3},
	} {
		a := netip.MustParseAddr(text)
		if got := wire(encodeAddr(a)); got != want {
			t.Errorf("%s is % x, want % x", text, got, want)
		}
		if got := decodeAddr(encodeAddr(a)); got != a {
			t.Errorf("%s comes back as %s", text, got)
		}
	}
	if got := decodeAddr(encodeAddr(netip.MustParseAddr("::ffff:1.2.3.4"))); got != netip.MustParseAddr("1.2.3.4") {
		t.Errorf("a mapped address comes back as %s", got)
	}
}

func TestEncodeFrontend(t *testing.T) {
	key := encodeFrontend(plan.Frontend{Address: netip.MustParseAddrPort("127.254.0.7:258"), Protocol: lb.UDP})
	got := (*[unsafe.Sizeof(key)]byte)(unsafe.Pointer(&key))[:]
	want := []byte{10: 0xff, 11: 0xff, 12: 127, 13: 254, 14: 0, 15: 7, 16: 1, 17: 2, 18: 17, 19: 0}
	if !bytes.Equal(got, want) {
		t.Errorf("key % x\nwant % x", got, want)
	}
}

// FuzzAddressCodec: whatever address and port goes into a map comes back, and
// stands there in network byte order.
func FuzzAddressCodec(f *testing.F) {
	for _, seed := range []string{"127.254.0.7:80", "0.0.0.0:0", "255.255.255.255:65535", "[::]:0", "[::1]:53",
		"[fd63:6f6e:6e65:6374::1]:8080", "[::ffff:10.0.0.1]:1", "[fe80::1]:256", "[::1.2.3.4]:255"} {
		at := netip.MustParseAddrPort(seed)
		f.Add(at.Addr().AsSlice(), at.Port(), uint8(lb.TCP))
	}
	f.Fuzz(func(t *testing.T, raw []byte, port uint16, protocol uint8) {
		addr, ok := netip.AddrFromSlice(raw)
		if !ok {
			return
		}
		if got := decodeAddr(encodeAddr(addr)); got != addr.Unmap() {
			t.Errorf("%s comes back as %s", addr, got)
		}
		if got, want := wire(encodeAddr(addr)), addr.As16(); got != want {
			t.Errorf("%s is % x, want % x", addr, got, want)
		}
		if got := fromBE16(be16(port)); got != port {
			t.Errorf("port %d comes back as %d", port, got)
		}
		if got := binary.NativeEndian.AppendUint16(nil, be16(port)); got[0] != byte(port>>8) || got[1] != byte(port) {
			t.Errorf("port %d is % x", port, got)
		}
		at := netip.AddrPortFrom(addr, port)
		if got := decodeAddrPort(encodeAddr(addr), be16(port)); got != netip.AddrPortFrom(addr.Unmap(), port) {
			t.Errorf("%s comes back as %s", at, got)
		}
		key := encodeFrontend(plan.Frontend{Address: at, Protocol: lb.Protocol(protocol)})
		if decodeAddrPort(key.Addr, key.Port) != netip.AddrPortFrom(addr.Unmap(), port) || key.Protocol != protocol || key.Pad != 0 {
			t.Errorf("%s/%d is %+v", at, protocol, key)
		}
	})
}

// TestReserved: the reserved addresses are the last ones of any range that the
// config allows, and stay inside of it.
func TestReserved(t *testing.T) {
	for text, want := range map[string]string{
		"127.254.0.0/16":  "127.254.255.253",
		"127.254.9.9/16":  "127.254.255.253",
		"10.0.0.0/8":      "10.255.255.253",
		"10.128.0.0/9":    "10.255.255.253",
		"10.1.2.0/24":     "10.1.2.253",
		"10.1.2.64/26":    "10.1.2.125",
		"10.1.2.32/27":    "10.1.2.61",
		"192.168.16.0/20": "192.168.31.253",
	} {
		p := netip.MustParsePrefix(text)
		if got := LearnAddr(p); got != netip.MustParseAddr(want) || !p.Contains(got) {
			t.Errorf("learn address of %s is %s, want %s", text, got, want)
		}
		seen := map[netip.Addr]bool{}
		for n := byte(1); n <= 16; n++ {
			a := reserved(p, n)
			if !p.Contains(a) || seen[a] {
				t.Errorf("reserved %d of %s is %s", n, text, a)
			}
			seen[a] = true
		}
	}
}
