package dns

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// maxMessage is the largest UDP payload, and the largest message over TCP.
const maxMessage = 65535

// beatEvery leaves room for a late wake-up below the promised 500 ms.
const beatEvery = 400 * time.Millisecond

// server is the pair of sockets for one resolver of one task.
type server struct {
	seat     *Seat
	resolver netip.Addr     // as listed in resolv.conf
	upstream netip.AddrPort // the same with port 53 and a numeric zone
	local    netip.AddrPort
	udp      *net.UDPConn
	tcp      *net.TCPListener

	mu       sync.Mutex // guards redirect: no Beat after Close
	redirect Redirect   // nil once released
}

func (v *server) beat() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.redirect != nil {
		v.redirect.Beat()
	}
}

func (v *server) release() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.redirect == nil {
		return nil
	}
	redirect := v.redirect
	v.redirect = nil
	return redirect.Close()
}

// serveUDP answers queries until the socket is closed. The heartbeat rides on
// the read deadline, which runs out on time under load too, so it costs
// nothing per query. Should reading fail for good the heartbeat ends with the
// loop, and the kernel leaves the task's DNS alone.
func (v *server) serveUDP() {
	query, out := make([]byte, maxMessage), make([]byte, 0, 1024)
	for {
		v.beat()
		if err := v.udp.SetReadDeadline(time.Now().Add(beatEvery)); err != nil {
			return
		}
		for {
			n, client, err := v.udp.ReadFromUDPAddrPort(query)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					v.seat.r.params.Log.Error("read DNS queries", "task", v.seat.task.Name, "error", err)
				}
				return
			}
			answer, o, cold := v.seat.handle(query[:n], out)
			if len(cold) > 0 {
				v.later(query[:n], client, cold)
			} else if o == forwarded {
				v.forward(query[:n], client)
			} else if answer != nil {
				v.reply(answer, client)
			}
		}
	}
}

// reply sends an answer back. Whether it arrives is the client's business, as
// with any DNS over UDP.
func (v *server) reply(answer []byte, client netip.AddrPort) {
	_, _ = v.udp.WriteToUDPAddrPort(answer, client)
}
