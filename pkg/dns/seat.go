package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"connectd/pkg/netns"
	"connectd/pkg/plan"
)

// Seat is one task being served: a pair of sockets in its network namespace
// for each of its resolvers.
type Seat struct {
	r       *Responder
	task    *plan.Task
	initial *scope // used while the task is in no published plan
	ns      *netns.Handle
	ipv6    bool
	asked   *asked // nil without a hosts file
	told    told

	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup // every goroutine of the seat
	servers []*server
	streams chan struct{} // one element per TCP connection

	inFlight atomic.Int64  // forwarded UDP queries
	drained  chan struct{} // an element whenever inFlight falls to 0

	spareMu sync.Mutex
	spares  map[int][]int // unused upstream sockets by address family
}

// Attach serves a task's queries to each of its resolvers from inside ns,
// which must stay open until the Seat is closed. Call it after the first
// Publish: until then nothing would be answered. Resolvers of a family that
// the namespace does not have are skipped. ctx bounds Attach itself.
func (r *Responder) Attach(ctx context.Context, task *plan.Task, ns *netns.Handle) (*Seat, error) {
	s := &Seat{
		r: r, task: task, initial: newScope(task), ns: ns,
		streams: make(chan struct{}, seatStreams),
		drained: make(chan struct{}, 1),
		spares:  make(map[int][]int),
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("attach DNS of task %s: %w", task.Name, err), s.Close())
	}
	s.asked = r.hosts.attach(task.ID, s.ipv6)
	r.mu.Lock()
	r.seats[s] = struct{}{}
	r.mu.Unlock()
	for _, v := range s.servers {
		s.wg.Go(v.serveUDP)
		s.wg.Go(v.serveTCP)
	}
	if err := r.ports.save(r.state.Load().tasks, r.attached()); err != nil {
		r.params.Log.Error("keep DNS ports over restarts", "error", err)
	}
	return s, nil
}

// open binds every socket and puts the redirections in force.
func (s *Seat) open(ctx context.Context) error {
	err := s.ns.Do(func() error {
		s.ipv6 = bindable(netip.IPv6Loopback())
		for _, resolver := range s.task.Resolvers {
			resolver = resolver.Unmap()
			if resolver.Is6() && !s.ipv6 {
				continue
			}
			if slices.ContainsFunc(s.servers, func(v *server) bool { return v.resolver == resolver }) {
				continue
			}
			v, err := s.listen(ctx, resolver)
			if err != nil {
				return err
			}
			s.servers = append(s.servers, v)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, v := range s.servers {
		redirect, err := s.r.params.Redirect(Redirection{Task: s.task.ID, Resolver: v.resolver.WithZone(""), Local: v.local, Listener: v.tcp})
		if err != nil {
			return fmt.Errorf("redirect %s: %w", v.resolver, err)
		}
		v.redirect = redirect
	}
	return nil
}

// listen makes the sockets for one resolver; it runs inside the namespace.
func (s *Seat) listen(ctx context.Context, resolver netip.Addr) (*server, error) {
	v := &server{seat: s, resolver: resolver, upstream: netip.AddrPortFrom(resolver, 53)}
	host := netip.AddrFrom4([4]byte{127, 255, 255, 254})
	if resolver.Is6() {
		host = netip.IPv6Loopback()
	}
	if zone := resolver.Zone(); zone != "" {
		// By number: package net remembers names of interfaces process-wide,
		// and the same name is another interface in another namespace.
		ifi, err := net.InterfaceByName(zone)
		if err != nil {
			return nil, fmt.Errorf("find interface of resolver %s: %w", resolver, err)
		}
		v.upstream = netip.AddrPortFrom(resolver.WithZone(strconv.Itoa(ifi.Index)), 53)
	}
	var err error
	v.udp, v.tcp, err = listenPair(ctx, host, s.r.ports.get(s.task.Name, resolver))
	if err != nil {
		return nil, err
	}
	v.local = v.tcp.Addr().(*net.TCPAddr).AddrPort()
	return v, nil
}

// A bind of the wildcard address conflicts with ours of the same port, so ours
// should be one that no application asks for: above the range that the kernel
// and ECS choose ports from (32768 to 60999), where well-known ones such as
// 50051 lie too.
const (
	firstPort = 61000
	lastPort  = 65535
)

// listenPair binds a UDP and a TCP socket to one port: the wanted one, or one
// that seldom collides when that is 0 or taken, or at last any.
func listenPair(ctx context.Context, host netip.Addr, want uint16) (*net.UDPConn, *net.TCPListener, error) {
	lc := net.ListenConfig{Control: netns.MarkControl}
	lc.SetMultipathTCP(false) // a sockmap refuses MPTCP listeners
	var err error
	for try := range 24 {
		if want == 0 && try < 16 {
			want = firstPort + uint16(rand.IntN(lastPort-firstPort+1))
		}
		var pc net.PacketConn
		pc, err = lc.ListenPacket(ctx, "udp", netip.AddrPortFrom(host, want).String())
		if err != nil {
			if want == 0 {
				break
			}
			want = 0
			continue
		}
		udp := pc.(*net.UDPConn)
		var l net.Listener
		l, err = lc.Listen(ctx, "tcp", udp.LocalAddr().String())
		if err == nil {
			return udp, l.(*net.TCPListener), nil
		}
		udp.Close() // free for UDP, taken for TCP
		want = 0
	}
	return nil, nil, err
}

// bindable reports whether this namespace has addr.
func bindable(addr netip.Addr) bool {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Close hands the task back to its own resolvers, makes its sockets that are
// connected to ours open again, then closes ours and waits for what served
// them. Queries in flight get no answer.
func (s *Seat) Close() error {
	err := s.away()
	s.letGo()
	s.r.mu.Lock()
	_, seated := s.r.seats[s]
	delete(s.r.seats, s)
	s.r.mu.Unlock()
	if seated && s.asked != nil {
		s.r.hosts.detach(s.asked)
	}
	s.cancel()
	for _, v := range s.servers {
		v.udp.Close()
		v.tcp.Close()
	}
	s.wg.Wait()
	s.spareMu.Lock()
	defer s.spareMu.Unlock()
	for _, fds := range s.spares {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	s.spares = nil
	return err
}

// letGo ends the task's UDP sockets that are connected to ours. Where the
// kernel cannot, they fail until their owners reconnect.
func (s *Seat) letGo() {
	locals := make([]netip.AddrPort, 0, len(s.servers))
	for _, v := range s.servers {
		locals = append(locals, v.local)
	}
	if len(locals) == 0 || s.ctx.Err() != nil { // closed before
		return
	}
	if err := s.ns.Do(func() error { return destroyConnected(locals) }); err != nil {
		s.r.params.Log.Warn("end UDP sockets connected to ours", "task", s.task.Name, "error", err)
	}
}

// away ends the redirections; the sockets go on.
func (s *Seat) away() error {
	var first error
	for _, v := range s.servers {
		if err := v.release(); err != nil && first == nil {
			first = fmt.Errorf("end redirection of %s for task %s: %w", v.resolver, s.task.Name, err)
		}
	}
	return first
}

// idle waits until no UDP query is in flight.
func (s *Seat) idle(ctx context.Context) {
	for s.inFlight.Load() > 0 {
		select {
		case <-s.drained:
		case <-ctx.Done():
			return
		}
	}
}

// view returns how the task sees the names right now.
func (s *Seat) view() view {
	st := s.r.state.Load()
	sc := st.scopes[s.task.ID]
	if sc == nil {
		sc = s.initial
	}
	return view{table: st.table, scope: sc, ipv6: s.ipv6}
}

// handle decides on one message and counts it, unless it is to be forwarded.
// It is to wait first if there are names to be looked up.
func (s *Seat) handle(msg, out []byte) (answer []byte, o outcome, cold []string) {
	answer, o, m := s.decide(msg, out)
	return answer, o, s.cold(msg, m, o)
}

func (s *Seat) decide(msg, out []byte) ([]byte, outcome, match) {
	answer, o, m := handle(s.view(), msg, out)
	if o != forwarded {
		s.r.counters.count(o)
	}
	switch {
	case m.name == nil:
	case o == forwarded:
		s.refuse(m)
	case s.asked != nil:
		s.asked.add(m.name.DNSName)
	}
	return answer, o, m
}
