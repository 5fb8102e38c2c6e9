package datapath

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// Offsets in struct inet_diag_req_v2 and the inet_diag_sockid in it, from
// linux/inet_diag.h.
const (
	reqFamily   = 0  // __u8 sdiag_family
	reqProtocol = 1  // __u8 sdiag_protocol
	reqExt      = 2  // __u8 idiag_ext
	reqPad      = 3  // __u8 pad
	reqStates   = 4  // __u32 idiag_states
	reqSport    = 8  // __be16 idiag_sport
	reqDport    = 10 // __be16 idiag_dport
	reqSrc      = 12 // __be32 idiag_src[4]
	reqDst      = 28 // __be32 idiag_dst[4]
	reqIf       = 44 // __u32 idiag_if
	reqCookie   = 48 // __u32 idiag_cookie[2]: low, high
	reqEnd      = 56
)

func TestDiagRequest(t *testing.T) {
	v4 := func(a, b, c, d byte) []byte { return []byte{0: a, 1: b, 2: c, 3: d, 15: 0} }
	mapped := func(a, b, c, d byte) []byte { return []byte{10: 0xff, 11: 0xff, 12: a, 13: b, 14: c, 15: d} }
	for name, test := range map[string]struct {
		id       diagID
		family   byte
		src, dst []byte
	}{
		"IPv4": {diagID{local: netip.MustParseAddrPort("10.0.0.1:258"), remote: netip.MustParseAddrPort("10.0.0.2:80")},
			unix.AF_INET, v4(10, 0, 0, 1), v4(10, 0, 0, 2)},
		"IPv4 on an IPv6 socket": {diagID{local: netip.MustParseAddrPort("10.0.0.1:258"), remote: netip.MustParseAddrPort("10.0.0.2:80"), mapped: true},
			unix.AF_INET6, mapped(10, 0, 0, 1), mapped(10, 0, 0, 2)},
		"IPv6": {diagID{local: netip.MustParseAddrPort("[fd66::1]:258"), remote: netip.MustParseAddrPort("[fd66::2]:80")},
			unix.AF_INET6, []byte{0: 0xfd, 1: 0x66, 15: 1}, []byte{0: 0xfd, 1: 0x66, 15: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			test.id.protocol = unix.IPPROTO_UDP
			test.id.cookie = 0x1122334455667788
			b := test.id.Serialize()
			if len(b) != reqEnd || test.id.Len() != reqEnd {
				t.Fatalf("%d bytes, Len is %d, want %d", len(b), test.id.Len(), reqEnd)
			}
			if b[reqFamily] != test.family || b[reqProtocol] != unix.IPPROTO_UDP || b[reqPad] != 0 {
				t.Errorf("family, protocol, pad: % x", b[:reqStates])
			}
			if b[reqExt] != 1<<(2-1) {
				t.Errorf("extensions %#x, want INET_DIAG_INFO", b[reqExt])
			}
			if binary.NativeEndian.Uint32(b[reqStates:]) != 0xffffffff {
				t.Errorf("states % x", b[reqStates:reqSport])
			}
			if !bytes.Equal(b[reqSport:reqSrc], []byte{1, 2, 0, 80}) {
				t.Errorf("ports % x", b[reqSport:reqSrc])
			}
			if !bytes.Equal(b[reqSrc:reqDst], test.src) || !bytes.Equal(b[reqDst:reqIf], test.dst) {
				t.Errorf("addresses % x, % x", b[reqSrc:reqDst], b[reqDst:reqIf])
			}
			if binary.NativeEndian.Uint32(b[reqIf:]) != 0 {
				t.Errorf("interface % x", b[reqIf:reqCookie])
			}
			low, high := binary.NativeEndian.Uint32(b[reqCookie:]), binary.NativeEndian.Uint32(b[reqCookie+4:])
			if low != 0x55667788 || high != 0x11223344 {
				t.Errorf("cookie %#x %#x", low, high)
			}
		})
	}
}

// TestFamilies: an IPv4 connection may be an IPv6 socket's.
func TestFamilies(t *testing.T) {
	if got := families(diagID{remote: netip.MustParseAddrPort("10.0.0.2:80")}); len(got) != 2 || got[0] || !got[1] {
		t.Errorf("IPv4: %v", got)
	}
	if got := families(diagID{remote: netip.MustParseAddrPort("[fd66::2]:80")}); len(got) != 1 || got[0] {
		t.Errorf("IPv6: %v", got)
	}
}

func TestAddrOf(t *testing.T) {
	four, six := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd66::1")
	raw4, raw6, raw46 := make([]byte, 16), six.As16(), netip.AddrFrom16(four.As16()).As16()
	copy(raw4, four.AsSlice())
	for name, test := range map[string]struct {
		raw    []byte
		mapped bool
		like   netip.Addr
		want   netip.Addr
	}{
		"IPv4":   {raw4, false, four, four},
		"mapped": {raw46[:], true, four, four},
		"IPv6":   {raw6[:], false, six, six},
	} {
		if got := addrOf(test.raw, test.mapped, test.like); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}
