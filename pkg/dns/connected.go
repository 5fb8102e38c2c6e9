package dns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A UDP socket that a task connected to ours while it was redirected stays
// connected to it: once ours is gone it gets ECONNREFUSED for ever. Destroyed
// by inet_diag it gets one ECONNABORTED, on which resolvers open another one.

// Layout of struct inet_diag_msg: the socket's identity after four bytes.
const (
	diagID     = 4
	diagIDSize = 48
	diagDport  = diagID + 2
	diagDst    = diagID + 20
)

// diagRequest is a struct inet_diag_req_v2.
type diagRequest []byte

func (r diagRequest) Len() int          { return len(r) }
func (r diagRequest) Serialize() []byte { return r }

func newDiagRequest(family byte, id []byte) diagRequest {
	r := make(diagRequest, 8+diagIDSize)
	r[0], r[1] = family, unix.IPPROTO_UDP
	binary.NativeEndian.PutUint32(r[4:], 0xffffffff) // sockets in any state
	copy(r[8:], id)
	return r
}

// destroyConnected ends the UDP sockets of the calling thread's network
// namespace that are connected to one of locals. Kernels without udp_diag or
// INET_DIAG_DESTROY give an error.
func destroyConnected(locals []netip.AddrPort) error {
	var failures []error
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} { // v6 sockets may be connected to v4 by a mapped address
		var ids [][]byte
		dump := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		dump.AddData(newDiagRequest(family, nil))
		err := dump.ExecuteIter(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY, func(msg []byte) bool {
			if len(msg) >= diagID+diagIDSize && slices.Contains(locals, diagPeer(family, msg)) {
				ids = append(ids, slices.Clone(msg[diagID:diagID+diagIDSize]))
			}
			return true
		})
		if err != nil {
			failures = append(failures, fmt.Errorf("list UDP sockets: %w", err))
		}
		for _, id := range ids {
			destroy := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
			destroy.AddData(newDiagRequest(family, id))
			if _, err := destroy.Execute(unix.NETLINK_INET_DIAG, 0); err != nil && !errors.Is(err, unix.ENOENT) {
				failures = append(failures, fmt.Errorf("destroy UDP socket: %w", err))
			}
		}
	}
	return errors.Join(failures...)
}

// diagPeer returns what a listed socket is connected to.
func diagPeer(family byte, msg []byte) netip.AddrPort {
	port := binary.BigEndian.Uint16(msg[diagDport:])
	if family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(msg[diagDst:])), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(msg[diagDst:])).Unmap(), port)
}
