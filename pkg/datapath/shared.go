package datapath

import (
	"fmt"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// shared are the arrays that are memory of both sides: read and written
// without a system call. Every element type is a whole number of machine words
// and every field naturally aligned, so a word is never seen half written; an
// entry of several words is written only while nothing published names it.
//
// Counters are read by whoever answers a scrape or a command, which may be
// later than anyone waits for when the daemon stops, so those readers hold mu
// against the unmapping. The goroutines that write are gone by then.
type shared struct {
	mu sync.RWMutex

	slots           []connectSlot
	endpoints       []connectEndpoint
	stats           []connectEndpointStats
	services        []connectServiceStats
	taskConnections []uint64
	heartbeats      []uint64

	mappings [][]byte
}

func (s *shared) open(objs *connectObjects) error {
	var err error
	if s.slots, err = mapArray[connectSlot](s, objs.SlotsV1); err != nil {
		return err
	}
	if s.endpoints, err = mapArray[connectEndpoint](s, objs.EndpointsV1); err != nil {
		return err
	}
	if s.stats, err = mapArray[connectEndpointStats](s, objs.EndpointStatsV1); err != nil {
		return err
	}
	if s.services, err = mapArray[connectServiceStats](s, objs.ServiceStatsV1); err != nil {
		return err
	}
	if s.taskConnections, err = mapArray[uint64](s, objs.TaskConnectionsV1); err != nil {
		return err
	}
	s.heartbeats, err = mapArray[uint64](s, objs.HeartbeatsV1)
	return err
}

// close unmaps the arrays. They have no elements from then on.
func (s *shared) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.mappings {
		unix.Munmap(m)
	}
	s.slots, s.endpoints, s.stats, s.services, s.taskConnections, s.heartbeats = nil, nil, nil, nil, nil, nil
	s.mappings = nil
}

func mapArray[T any](s *shared, m *ebpf.Map) ([]T, error) {
	var zero T
	size := int(unsafe.Sizeof(zero))
	if size%8 != 0 || int(m.ValueSize()) != size {
		return nil, fmt.Errorf("map %s into memory: value is %d bytes, not %d", m, m.ValueSize(), size)
	}
	n := int(m.MaxEntries())
	length := (n*size + unix.Getpagesize() - 1) &^ (unix.Getpagesize() - 1)
	mem, err := unix.Mmap(m.FD(), 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s into memory: %s", m, err)
	}
	s.mappings = append(s.mappings, mem)
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(mem))), n), nil
}
