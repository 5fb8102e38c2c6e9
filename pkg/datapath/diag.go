package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"connectd/pkg/netns"
)

// inet_diag requests are exact: tuple and cookie. A dump would walk every
// socket of the node (the hash table is shared by all namespaces), and a match
// by address alone could end somebody else's connection.

const (
	sockDiagByFamily = 20 // SOCK_DIAG_BY_FAMILY
	sockDestroy      = 21 // SOCK_DESTROY
	inetDiagInfo     = 2  // INET_DIAG_INFO

	inetDiagReqLen = 56 // struct inet_diag_req_v2
	inetDiagMsgLen = 72 // struct inet_diag_msg

	// In struct tcp_info (linux/tcp.h).
	tcpInfoBytesAcked    = 120
	tcpInfoBytesReceived = 128

	// linux/tcp_states.h
	tcpFinWait2  = 5
	tcpCloseWait = 8
	tcpLastAck   = 9
	tcpClosing   = 11
)

// diagID names one socket.
type diagID struct {
	protocol      uint8
	local, remote netip.AddrPort
	mapped        bool // an AF_INET6 socket that speaks IPv4
	cookie        uint64
}

// Len and Serialize make it an nl.NetlinkRequestData: struct inet_diag_req_v2.
func (id diagID) Len() int { return inetDiagReqLen }

func (id diagID) Serialize() []byte {
	b := make([]byte, inetDiagReqLen)
	b[0] = unix.AF_INET
	if id.mapped || id.remote.Addr().Is6() {
		b[0] = unix.AF_INET6
	}
	b[1] = id.protocol
	b[2] = 1 << (inetDiagInfo - 1)
	binary.NativeEndian.PutUint32(b[4:], 0xffffffff) // any state
	binary.BigEndian.PutUint16(b[8:], id.local.Port())
	binary.BigEndian.PutUint16(b[10:], id.remote.Port())
	id.putAddr(b[12:28], id.local.Addr())
	id.putAddr(b[28:44], id.remote.Addr())
	binary.NativeEndian.PutUint64(b[48:], id.cookie) // two words: low, high
	return b
}

func (id diagID) putAddr(b []byte, a netip.Addr) {
	if a.Is4() && !id.mapped {
		v4 := a.As4()
		copy(b, v4[:])
		return
	}
	v6 := a.As16()
	copy(b, v6[:])
}

var errNoSocket = errors.New("no such socket")

// diag is a sock_diag netlink socket inside one namespace.
type diag struct{ sock *nl.NetlinkSocket }

func openDiag(ns *netns.Handle) (*diag, error) {
	d := &diag{}
	err := ns.Do(func() error {
		var err error
		d.sock, err = nl.Subscribe(unix.NETLINK_INET_DIAG)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open sock_diag: %w", err)
	}
	return d, nil
}

func (d *diag) close() { d.sock.Close() }

// ask sends one request and returns its reply's payload (empty for an
// acknowledgement). errNoSocket: the socket is gone, or is another one now.
func (d *diag) ask(kind int, flags int, id diagID) ([]byte, error) {
	req := nl.NewNetlinkRequest(kind, flags)
	req.AddData(id)
	if err := d.sock.Send(req); err != nil {
		return nil, fmt.Errorf("send sock_diag request: %w", err)
	}
	for {
		msgs, _, err := d.sock.Receive()
		if err != nil {
			return nil, fmt.Errorf("read sock_diag reply: %w", err)
		}
		for _, m := range msgs {
			if m.Header.Seq != req.Seq {
				continue
			}
			if m.Header.Type != unix.NLMSG_ERROR {
				return m.Data, nil
			}
			if len(m.Data) < 4 {
				return nil, errors.New("read sock_diag reply: short error")
			}
			errno := unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
			switch errno {
			case 0:
				return nil, nil
			case unix.ENOENT:
				return nil, errNoSocket
			}
			return nil, fmt.Errorf("sock_diag %s: %w", id.remote, errno)
		}
	}
}

// destroy ends a connection: its owner's next call gets ECONNABORTED.
func (d *diag) destroy(id diagID) error {
	_, err := d.ask(sockDestroy, unix.NLM_F_ACK, id)
	return err
}

// tcpBytes returns how many bytes a live connection has moved each way.
func (d *diag) tcpBytes(id diagID) (sent, received uint64, err error) {
	b, err := d.ask(sockDiagByFamily, 0, id)
	if err != nil {
		return 0, 0, err
	}
	if len(b) < inetDiagMsgLen {
		return 0, 0, errors.New("read sock_diag reply: short message")
	}
	attrs, err := nl.ParseRouteAttr(b[inetDiagMsgLen:])
	if err != nil {
		return 0, 0, fmt.Errorf("read sock_diag reply: %w", err)
	}
	for _, a := range attrs {
		if a.Attr.Type != inetDiagInfo || len(a.Value) < tcpInfoBytesReceived+8 {
			continue
		}
		sent = binary.NativeEndian.Uint64(a.Value[tcpInfoBytesAcked:])
		received = binary.NativeEndian.Uint64(a.Value[tcpInfoBytesReceived:])
		if sent > 0 {
			sent-- // the SYN
		}
		switch b[1] { // the socket's state
		case tcpFinWait2:
			sent-- // our FIN
		case tcpCloseWait, tcpLastAck, tcpClosing:
			received-- // the peer's FIN
		}
	}
	return sent, received, nil
}

// findUDP returns the exact address of the UDP socket with this cookie: a
// connect does not tell the hook its local port. A dump of the UDP table, run
// only when a drain is over.
func (d *diag) findUDP(id diagID) (diagID, error) {
	req := nl.NewNetlinkRequest(sockDiagByFamily, unix.NLM_F_DUMP)
	ask := diagID{protocol: id.protocol, mapped: id.mapped,
		local:  netip.AddrPortFrom(netip.IPv4Unspecified(), 0),
		remote: netip.AddrPortFrom(zeroOf(id.remote.Addr()), 0)}
	req.AddData(ask)
	if err := d.sock.Send(req); err != nil {
		return id, fmt.Errorf("send sock_diag dump: %w", err)
	}
	found, err := id, errNoSocket
	for {
		msgs, _, rerr := d.sock.Receive()
		if rerr != nil {
			return id, fmt.Errorf("read sock_diag dump: %w", rerr)
		}
		for _, m := range msgs {
			if m.Header.Seq != req.Seq {
				continue
			}
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return found, err
			case unix.NLMSG_ERROR:
				return id, errors.New("read sock_diag dump: refused")
			}
			if len(m.Data) >= inetDiagMsgLen && binary.NativeEndian.Uint64(m.Data[44:]) == id.cookie {
				found.local = netip.AddrPortFrom(addrOf(m.Data[8:24], found.mapped, id.remote.Addr()), binary.BigEndian.Uint16(m.Data[4:]))
				err = nil
			}
		}
	}
}

func zeroOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func addrOf(b []byte, mapped bool, like netip.Addr) netip.Addr {
	if like.Is4() && !mapped {
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	return netip.AddrFrom16([16]byte(b)).Unmap()
}
