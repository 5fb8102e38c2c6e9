package datapath

import (
	"encoding/binary"
	"net/netip"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// The one place where network byte order meets netip. A __be32 read as a Go
// uint32 on a little-endian machine has its bytes reversed; copying bytes in
// and out in native order keeps it right on any.

func be32(b [4]byte) uint32 { return binary.NativeEndian.Uint32(b[:]) }

func be16(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}

func fromBE16(v uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], v)
	return binary.BigEndian.Uint16(b[:])
}

func encodeAddr(a netip.Addr) connectAddr {
	b := a.As16()
	return connectAddr{W: [4]uint32{
		be32([4]byte(b[0:4])), be32([4]byte(b[4:8])), be32([4]byte(b[8:12])), be32([4]byte(b[12:16])),
	}}
}

func decodeAddr(a connectAddr) netip.Addr {
	var b [16]byte
	for i, w := range a.W {
		binary.NativeEndian.PutUint32(b[4*i:], w)
	}
	return netip.AddrFrom16(b).Unmap()
}

func decodeAddrPort(a connectAddr, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(decodeAddr(a), fromBE16(port))
}

func encodeEndpoint(service lb.ServiceID, address netip.AddrPort, weight uint16) connectEndpoint {
	return connectEndpoint{
		Addr:    encodeAddr(address.Addr()),
		Port:    be16(address.Port()),
		Weight:  weight,
		Service: uint32(service),
	}
}

func encodeFrontend(f plan.Frontend) connectFrontendKey {
	return connectFrontendKey{
		Addr:     encodeAddr(f.Address.Addr()),
		Port:     be16(f.Address.Port()),
		Protocol: uint8(f.Protocol),
	}
}
