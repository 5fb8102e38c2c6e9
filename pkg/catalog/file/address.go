package file

import (
	"fmt"
	"net/netip"
)

// ParseAddress parses an endpoint's address: an IPv4 or IPv6 literal without
// a zone. An IPv4-mapped one is returned as IPv4. Addresses that no server
// can have and those in forbidden, which are VIPs, are errors; their text
// follows the address.
func ParseAddress(s string, forbidden []netip.Prefix) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("is not an IP address")
	}
	if addr.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("has a zone")
	}
	addr = addr.Unmap()
	switch {
	case addr.IsUnspecified():
		return netip.Addr{}, fmt.Errorf("is the unspecified address")
	case addr.IsMulticast():
		return netip.Addr{}, fmt.Errorf("is a multicast address")
	case addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.Addr{}, fmt.Errorf("is the broadcast address")
	}
	for _, p := range forbidden {
		if p.Contains(addr) {
			return netip.Addr{}, fmt.Errorf("is inside the VIP range %s", p)
		}
	}
	return addr, nil
}
