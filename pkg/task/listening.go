package task

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
)

// listening says how far a port of a network namespace can be reached.
type listening uint8

const (
	nobodyListens   listening = iota
	loopbackListens           // on 127.0.0.1 or ::1 only
	anyoneListens
)

// ports are who listens where in one network namespace.
type ports map[portKey]listening

type portKey struct {
	protocol lb.Protocol
	port     uint16
	ip6      bool
}

// ownSockets is where connectd's own sockets in a task's namespace are.
var ownSockets = netip.MustParseAddr("127.255.255.254")

// readPorts reads who listens in the network namespace of a process, ns or if
// that is nil this one's, on UDP only when asked. TCP is asked of inet_diag in
// 0.1 ms; proc(5) goes through the connections of the whole machine, in 2 ms and
// for every task, so it is for kernels without.
func readPorts(pid int, ns *netns.Handle, udp bool) (ports, error) {
	out := ports{}
	type table struct {
		name     string
		protocol lb.Protocol
	}
	var tables []table
	if err := ns.Do(out.listListeners); errors.Is(err, unix.ENOENT) {
		tables = append(tables, table{"tcp", lb.TCP}, table{"tcp6", lb.TCP})
	} else if err != nil {
		return nil, err
	}
	if udp {
		tables = append(tables, table{"udp", lb.UDP}, table{"udp6", lb.UDP})
	}
	for _, f := range tables {
		if err := out.read(fmt.Sprintf("/proc/%d/net/%s", pid, f.name), f.protocol); err != nil && !os.IsNotExist(err) {
			return nil, err
		}
	}
	return out, nil
}

// Socket states in proc(5): include/net/tcp_states.h.
const (
	stateListen      = "0A"
	stateUnconnected = "07" // UDP
)

// read takes in one table. That of TCP has the listeners first
// (tcp_seq_start), so the connections, which may be many, are not read.
func (p ports) read(path string, protocol lb.Protocol) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Scan() // the heading
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 {
			continue
		}
		if protocol == lb.TCP && fields[3] != stateListen {
			break
		}
		if protocol == lb.UDP && fields[3] != stateUnconnected {
			continue
		}
		at, ok := parseProcAddr(fields[1])
		if !ok || at.Addr() == ownSockets {
			continue
		}
		p.note(protocol, at, false) // what is said against IPv4 is not in the table
	}
	return lines.Err()
}

// note takes in a socket. One at :: takes IPv4 too, unless it said otherwise.
func (p ports) note(protocol lb.Protocol, at netip.AddrPort, only6 bool) {
	reach := anyoneListens
	if at.Addr().IsLoopback() {
		reach = loopbackListens
	}
	for _, ip6 := range []bool{false, true} {
		if at.Addr().Is6() == ip6 || at.Addr() == netip.IPv6Unspecified() && !only6 {
			key := portKey{protocol, at.Port(), ip6}
			p[key] = max(p[key], reach)
		}
	}
}

// parseProcAddr reads "0100007F:1F90": an address as 32-bit words in the
// machine's byte order, and a port.
func parseProcAddr(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	n, perr := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || perr != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	addr, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), ok
}
