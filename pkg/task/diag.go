package task

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
)

// Layouts of include/uapi/linux/inet_diag.h.
const (
	diagSport   = 4  // in struct inet_diag_msg
	diagSrc     = 8  // 16 bytes
	diagMsgSize = 72 // attributes follow
	diagReqSize = 56 // struct inet_diag_req_v2
	diagV6Only  = 11 // INET_DIAG_SKV6ONLY, since Linux 4.3

	tcpListen = 10 // TCP_LISTEN
)

// listenersRequest asks for the TCP listeners of a family.
type listenersRequest byte

func (f listenersRequest) Len() int { return diagReqSize }

func (f listenersRequest) Serialize() []byte {
	r := make([]byte, diagReqSize)
	r[0], r[1] = byte(f), unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(r[4:], 1<<tcpListen) // so the connections are not gone through
	return r
}

// listListeners takes in the TCP listeners of the calling thread's network
// namespace. ENOENT is a kernel without tcp_diag.
func (p ports) listListeners() error {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		dump := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		dump.AddData(listenersRequest(family))
		err := dump.ExecuteIter(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY, func(msg []byte) bool {
			p.listener(msg)
			return true
		})
		if err != nil {
			return fmt.Errorf("list TCP listeners: %w", err)
		}
	}
	return nil
}

// listener takes in one struct inet_diag_msg.
func (p ports) listener(msg []byte) {
	if len(msg) < diagMsgSize {
		return
	}
	addr := netip.AddrFrom4([4]byte(msg[diagSrc:]))
	if msg[0] == unix.AF_INET6 {
		addr = netip.AddrFrom16([16]byte(msg[diagSrc:])).Unmap()
	}
	if addr == ownSockets {
		return
	}
	only6 := false
	attrs, err := nl.ParseRouteAttr(msg[diagMsgSize:])
	for _, a := range attrs {
		only6 = only6 || err == nil && a.Attr.Type == diagV6Only && len(a.Value) > 0 && a.Value[0] != 0
	}
	p.note(lb.TCP, netip.AddrPortFrom(addr, binary.BigEndian.Uint16(msg[diagSport:])), only6)
}
