package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"connectd/pkg/lb"
)

const connectionForwarded = 32 // CONNECTION_FORWARDED in bpf/lib/types.h

// Connection is a tracked connection of a task.
type Connection struct {
	Task      lb.TaskID
	Service   lb.ServiceID
	VIP       netip.AddrPort // what the application connected to
	Remote    netip.AddrPort // the endpoint; the VIP when Forwarded
	Local     netip.AddrPort // unspecified before the SYN, and of UDP
	Protocol  lb.Protocol
	Forwarded bool // to the forwarder
	State     ConnectionState
	Started   time.Time // zero before the SYN, and of UDP
	Bytes     *Bytes    // as the task's socket counts them; nil: not to be had, as of UDP
}

// ConnectionState is how far a connection is.
type ConnectionState string

const (
	Connecting  ConnectionState = "connecting"
	Established ConnectionState = "established"
	Closing     ConnectionState = "closing"   // the application has closed it
	Connected   ConnectionState = "connected" // UDP
)

// Connections lists the tracked connections that keep wants, limit of them at
// most, and says how many keep wants in all. Each listed one costs a request to
// the kernel, some 5 us. With an error and a list that is whole, some have no
// Bytes.
func (d *Datapath) Connections(keep func(*Connection) bool, limit int, in Namespaces) (list []Connection, total int, err error) {
	byNetns := make(map[uint64][]entry[uint64, connectConnection])
	at := make(map[uint64]int) // in list, by cookie
	for e, err := range d.connections() {
		if err != nil {
			return nil, 0, fmt.Errorf("read connections: %w", err)
		}
		c := decodeConnection(&e.value)
		_, again := at[e.key] // a walk may start over when what it stands on is deleted
		if again || !keep(&c) {
			continue
		}
		if total++; total > limit {
			continue
		}
		at[e.key] = len(list)
		list = append(list, c)
		if c.Protocol == lb.TCP && e.value.Flags&connectionEstablished != 0 {
			byNetns[e.value.Netns] = append(byNetns[e.value.Netns], e)
		}
	}
	var errs []error
	for cookie, conns := range byNetns {
		errs = append(errs, visitNetns(cookie, conns, in, func(dg *diag, id diagID, _ *connectConnection) error {
			if dg == nil {
				return nil
			}
			bytes, err := dg.bytesOf(id)
			list[at[id.cookie]].Bytes = bytes
			return err
		}))
	}
	return list, total, errors.Join(errs...)
}

// bytesOf is nil for a socket that is gone.
func (d *diag) bytesOf(id diagID) (*Bytes, error) {
	for _, mapped := range families(id) {
		id.mapped = mapped
		sent, received, err := d.tcpBytes(id)
		if errors.Is(err, errNoSocket) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return &Bytes{sent, received}, nil
	}
	return nil, nil
}

func decodeConnection(c *connectConnection) Connection {
	out := Connection{
		Task:      lb.TaskID(c.Task),
		Service:   lb.ServiceID(c.Service),
		VIP:       decodeAddrPort(c.Vip, c.VipPort),
		Remote:    decodeAddrPort(c.Remote, c.RemotePort),
		Local:     decodeAddrPort(c.Local, c.LocalPort),
		Protocol:  lb.Protocol(c.Protocol),
		Forwarded: c.Flags&connectionForwarded != 0,
		State:     Connecting,
	}
	switch {
	case out.Protocol == lb.UDP:
		out.State = Connected
	case c.Flags&connectionClosing != 0:
		out.State = Closing
	case c.Flags&connectionEstablished != 0:
		out.State = Established
	}
	if c.StartedNs != 0 {
		out.Started = wall(c.StartedNs)
	}
	return out
}

// TaskConnections is how many tracked connections a task has.
func (d *Datapath) TaskConnections(id lb.TaskID) uint64 {
	if int(id) >= len(d.shared.taskConnections) {
		return 0
	}
	return atomic.LoadUint64(&d.shared.taskConnections[id])
}
