package datapath

import (
	"errors"
	"fmt"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
)

// closingGrace is how long a connection that its application has closed may
// stay tracked before the sweep asks whether its socket still exists.
const closingGrace = 10 * time.Minute

const (
	connectionArmed       = 1 // CONNECTION_* in bpf/lib/types.h
	connectionClosing     = 2
	connectionEstablished = 4
)

// Namespaces finds the namespace with a cookie; ok is false for one that is
// gone or was never ours.
type Namespaces func(cookie uint64) (ns *netns.Handle, ok bool)

// Terminated counts what Terminate did.
type Terminated struct {
	Destroyed int // connections ended
	Gone      int // ended by themselves meanwhile
	Unreached int // in a namespace that could not be entered
}

// Terminate ends every connection to the endpoints. Only sockets whose cookie
// and whole tuple are those of a tracked connection are touched, and TIME_WAIT
// is left alone (it holds nothing).
func (d *Datapath) Terminate(endpoints []lb.EndpointID, in Namespaces) (Terminated, error) {
	doomed := make(map[uint32]struct{}, len(endpoints))
	for _, id := range endpoints {
		if d.Active(id) > 0 {
			doomed[uint32(id)] = struct{}{}
		}
	}
	var out Terminated
	if len(doomed) == 0 {
		return out, nil
	}
	err := d.eachConnection(in, func(c *connectConnection) bool {
		_, yes := doomed[c.Endpoint]
		return yes
	}, func(diag *diag, id diagID, c *connectConnection) error {
		if diag == nil {
			out.Unreached++
			return nil
		}
		err := destroyAny(diag, id)
		if errors.Is(err, errNoSocket) {
			out.Gone++
			return nil
		}
		if err == nil {
			out.Destroyed++
		}
		return err
	})
	return out, err
}

// destroyAny tries the socket as what it may be: an IPv4 connection is made by
// an AF_INET socket or by an AF_INET6 one with mapped addresses.
func destroyAny(d *diag, id diagID) error {
	err := errNoSocket
	for _, mapped := range families(id) {
		id.mapped = mapped
		exact := id
		if id.protocol == uint8(lb.UDP) {
			if exact, err = d.findUDP(id); errors.Is(err, errNoSocket) {
				continue
			}
			if err != nil {
				return err
			}
		}
		if err = d.destroy(exact); !errors.Is(err, errNoSocket) {
			return err
		}
	}
	return err
}

func families(id diagID) []bool {
	if id.remote.Addr().Is4() {
		return []bool{false, true}
	}
	return []bool{false}
}

// Bytes are payload that connections have moved.
type Bytes struct{ Sent, Received uint64 }

// Plus returns the sum.
func (b Bytes) Plus(o Bytes) Bytes { return Bytes{b.Sent + o.Sent, b.Received + o.Received} }

// Caller is a task and a service that it calls.
type Caller struct {
	Task    lb.TaskID
	Service lb.ServiceID
}

// LiveBytes adds up the live TCP connections per endpoint and per caller, at
// most limit of them: each costs a request to the kernel.
func (d *Datapath) LiveBytes(limit int, in Namespaces) (map[lb.EndpointID]Bytes, map[Caller]Bytes, error) {
	out, callers := make(map[lb.EndpointID]Bytes), make(map[Caller]Bytes)
	err := d.eachConnection(in, func(c *connectConnection) bool {
		if c.Protocol != uint8(lb.TCP) || c.Flags&connectionEstablished == 0 || c.Endpoint == 0 {
			return false
		}
		limit--
		return limit >= 0
	}, func(diag *diag, id diagID, c *connectConnection) error {
		if diag == nil {
			return nil
		}
		live, err := diag.bytesOf(id)
		if live != nil {
			e, by := lb.EndpointID(c.Endpoint), Caller{lb.TaskID(c.Task), lb.ServiceID(c.Service)}
			out[e] = out[e].Plus(*live)
			callers[by] = callers[by].Plus(*live)
		}
		return err
	})
	return out, callers, err
}

// CallerBytes is what the ended TCP connections of each caller have moved. A
// caller's count goes on under its ids when another has them, and begins anew
// when it was not called for long: there is room for 8,192.
func (d *Datapath) CallerBytes() (map[Caller]Bytes, error) {
	out := make(map[Caller]Bytes)
	for e, err := range all[connectCallerKey, connectCallerBytes](d.objs.CallerBytesV1) {
		if err != nil {
			return nil, fmt.Errorf("read bytes of callers: %w", err)
		}
		out[Caller{lb.TaskID(e.key.Task), lb.ServiceID(e.key.Service)}] = Bytes{e.value.Sent, e.value.Received}
	}
	return out, nil
}

// sweepShare is how many sweeps it takes to ask for every connection that
// nobody is known to have closed: each costs a request to the kernel.
const sweepShare = 16

// Sweep forgets connections that began long ago and whose socket is gone, and
// returns how many. It must find none: one found is an end that no event told,
// because somebody detached the program or took its callbacks away. A sixteenth
// of those not known to be closed is looked at in each call.
func (d *Datapath) Sweep(in Namespaces) (int, error) {
	before := monotonic() - uint64(closingGrace)
	swept := 0
	d.sweeps++
	err := d.eachConnection(in, func(c *connectConnection) bool {
		due := c.Flags&connectionClosing != 0 || c.StartedNs/1000%sweepShare == d.sweeps%sweepShare
		return c.Flags&connectionArmed != 0 && c.StartedNs < before && due
	}, func(diag *diag, id diagID, c *connectConnection) error {
		closing := c.Flags&connectionClosing != 0
		if diag == nil && !closing {
			return nil // it may live on
		}
		if diag != nil {
			for _, mapped := range families(id) {
				id.mapped = mapped
				if _, _, err := diag.tcpBytes(id); !errors.Is(err, errNoSocket) {
					return err
				}
			}
		}
		// A kernel without tcp_diag says of every socket that it is gone.
		if !closing && !d.canDiag() {
			return nil
		}
		var now connectConnection
		if err := d.objs.ConnectionsV1.Lookup(id.cookie, &now); err != nil || now != *c {
			return nil // it ended just now
		}
		if err := d.objs.ConnectionsV1.Delete(id.cookie); err != nil {
			return nil
		}
		d.forgetExchange(id.cookie)
		swept++
		d.release(c)
		return nil
	})
	return swept, err
}

// eachConnection visits the tracked connections that match, namespace by
// namespace. diag is nil where the namespace is not to be had.
func (d *Datapath) eachConnection(in Namespaces, match func(*connectConnection) bool,
	visit func(*diag, diagID, *connectConnection) error) error {
	byNetns := make(map[uint64][]entry[uint64, connectConnection])
	for e, err := range d.connections() {
		if err != nil {
			return fmt.Errorf("read connections: %w", err)
		}
		if match(&e.value) {
			byNetns[e.value.Netns] = append(byNetns[e.value.Netns], e)
		}
	}
	var errs []error
	for cookie, conns := range byNetns {
		errs = append(errs, visitNetns(cookie, conns, in, visit))
	}
	return errors.Join(errs...)
}

func visitNetns(cookie uint64, conns []entry[uint64, connectConnection], in Namespaces,
	visit func(*diag, diagID, *connectConnection) error) error {
	var dg *diag
	if ns, ok := in(cookie); ok {
		var err error
		if dg, err = openDiag(ns); err != nil {
			return err
		}
		defer dg.close()
	}
	var errs []error
	for i := range conns {
		c := &conns[i].value
		id := diagID{
			protocol: c.Protocol,
			local:    decodeAddrPort(c.Local, c.LocalPort),
			remote:   decodeAddrPort(c.Remote, c.RemotePort),
			cookie:   conns[i].key,
		}
		if err := visit(dg, id, c); err != nil && len(errs) < 8 {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
