package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
)

// seats hands out the places in the listener SOCKMAP and the heartbeat array.
type seats struct {
	objs       *connectObjects
	heartbeats []uint64

	mu        sync.Mutex
	free      []uint32
	next      uint32
	resolvers map[connectResolverKey]connectResolver

	// By netns cookie.
	forwarders map[uint64]*Forwarder // the one in force
	routes     map[uint64]int        // how many need the route to the IPv6 VIPs
}

func newSeats(objs *connectObjects, heartbeats []uint64) *seats {
	return &seats{objs: objs, heartbeats: heartbeats, resolvers: make(map[connectResolverKey]connectResolver),
		forwarders: make(map[uint64]*Forwarder), routes: make(map[uint64]int)}
}

// Redirection sends what a task says to one of its resolvers to a socket of
// ours. The UDP socket next to Listener has the same address and port.
type Redirection struct {
	Task        lb.TaskID
	NetnsCookie uint64 // where Listener is
	Resolver    netip.Addr
	Local       netip.AddrPort
	Listener    *net.TCPListener // not multipath TCP: a SOCKMAP takes plain TCP only
}

// Redirect is a redirection that stands until it is closed, its listener is
// gone, or Beat was not called for two seconds.
type Redirect struct {
	seats *seats
	key   connectResolverKey
	seat  uint32
	once  sync.Once
}

// Redirect starts a redirection.
func (d *Datapath) Redirect(r Redirection) (*Redirect, error) {
	s := d.seats
	s.mu.Lock()
	defer s.mu.Unlock()
	seat, err := s.take()
	if err != nil {
		return nil, err
	}
	red := &Redirect{
		seats: s,
		seat:  seat,
		key:   connectResolverKey{Addr: encodeAddr(r.Resolver), Task: uint32(r.Task)},
	}
	red.Beat()
	if err := s.placeListener(seat, r.Listener); err != nil {
		s.free = append(s.free, seat)
		return nil, fmt.Errorf("redirect resolver %s: %w", r.Resolver, err)
	}
	value := connectResolver{
		Addr:  encodeAddr(r.Local.Addr()),
		Port:  be16(r.Local.Port()),
		Seat:  seat,
		Netns: r.NetnsCookie,
	}
	if err := s.objs.ResolversV1.Put(&red.key, &value); err != nil {
		s.free = append(s.free, seat)
		return nil, fmt.Errorf("redirect resolver %s: %w", r.Resolver, err)
	}
	s.resolvers[red.key] = value
	return red, nil
}

func (s *seats) take() (uint32, error) {
	if n := len(s.free); n > 0 {
		seat := s.free[n-1]
		s.free = s.free[:n-1]
		return seat, nil
	}
	if int(s.next) >= len(s.heartbeats) {
		return 0, fmt.Errorf("take a seat: all %d are taken", len(s.heartbeats))
	}
	s.next++
	return s.next - 1, nil
}

func (s *seats) placeListener(seat uint32, l *net.TCPListener) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) { err = s.place(seat, int(fd)) })
	return errors.Join(cerr, err)
}

func (s *seats) place(seat uint32, fd int) error {
	if err := s.objs.ListenersV1.Put(seat, uint64(fd)); err != nil {
		return fmt.Errorf("put listener into the socket map: %w", err)
	}
	return nil
}

// leave empties a seat and has it given to others.
func (s *seats) leave(seat uint32) error {
	atomic.StoreUint64(&s.heartbeats[seat], 0)
	s.free = append(s.free, seat)
	// EINVAL: the slot is empty, for its listener was closed before.
	if err := s.objs.ListenersV1.Delete(seat); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

// Beat says that the loop behind the sockets runs.
func (r *Redirect) Beat() {
	atomic.StoreUint64(&r.seats.heartbeats[r.seat], monotonic())
}

// Close ends the redirection: from now on the task reaches its own resolver.
func (r *Redirect) Close() error {
	var err error
	r.once.Do(func() {
		s := r.seats
		s.mu.Lock()
		defer s.mu.Unlock()
		atomic.StoreUint64(&s.heartbeats[r.seat], 0)
		if s.resolvers[r.key].Seat == r.seat { // else a successor has the key
			delete(s.resolvers, r.key)
			if err = s.objs.ResolversV1.Delete(&r.key); errors.Is(err, ebpf.ErrKeyNotExist) {
				err = nil
			}
		}
		err = errors.Join(err, s.leave(r.seat))
	})
	return err
}

// monotonic is bpf_ktime_get_ns.
func monotonic() uint64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail with this clock
	return uint64(ts.Nano())
}
