package task

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"connectd/pkg/lb"
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

// readPorts reads who listens in the network namespace of a process, from
// proc(5), which takes no socket and no thread inside.
func readPorts(pid int) (ports, error) {
	out := ports{}
	for _, f := range []struct {
		name     string
		protocol lb.Protocol
	}{{"tcp", lb.TCP}, {"tcp6", lb.TCP}, {"udp", lb.UDP}, {"udp6", lb.UDP}} {
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
		reach := anyoneListens
		if at.Addr().IsLoopback() {
			reach = loopbackListens
		}
		for _, ip6 := range []bool{false, true} {
			// A socket at :: takes IPv4 too, unless it said otherwise, which
			// is rare and cannot be seen here.
			if at.Addr().Is6() == ip6 || at.Addr() == netip.IPv6Unspecified() {
				key := portKey{protocol, at.Port(), ip6}
				p[key] = max(p[key], reach)
			}
		}
	}
	return lines.Err()
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
