package docker

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"connectd/pkg/netns"
)

// room is an OS thread in the engine's network and mount namespaces, which
// starts dockerd: another dockerd must come to the same mounts when containers
// lived on, and the death signal fires when the thread that forked ends.
type room struct {
	mu   sync.Mutex // guards jobs against a send after close
	jobs chan func()
	done chan struct{}
	tid  int
}

// newRoom makes the namespaces; ns is the network namespace, nil a new one.
func newRoom(ns *netns.Handle) (*room, error) {
	r := &room{jobs: make(chan func()), done: make(chan struct{})}
	entered := make(chan error)
	go func() {
		defer close(r.done)
		enter := netns.OnThread
		if !ns.Self() {
			enter = ns.Do
		}
		enter(func() error {
			err := furnish(ns == nil)
			r.tid = unix.Gettid()
			entered <- err
			if err != nil {
				return err
			}
			for job := range r.jobs {
				job()
			}
			return nil
		})
	}()
	if err := <-entered; err != nil {
		return nil, fmt.Errorf("make namespaces of dockerd: %w", err)
	}
	return r, nil
}

// furnish moves the calling thread. Mounts of the machine are seen, those of
// the engine are seen by nobody else and end with its processes. Where dockerd
// looks for a containerd and where shims have their sockets is empty.
func furnish(newNet bool) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := os.MkdirAll("/run/containerd", 0o711); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run/containerd", "tmpfs", 0, "mode=0711"); err != nil {
		return err
	}
	if !newNet {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	links, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer links.Close()
	lo, err := links.LinkByName("lo")
	if err != nil {
		return err
	}
	return links.LinkSetUp(lo)
}

// do runs fn in the room.
func (r *room) do(fn func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.jobs == nil {
		return errors.New("the engine is closed")
	}
	result := make(chan error)
	r.jobs <- func() { result <- fn() }
	return <-result
}

// netns opens the room's network namespace.
func (r *room) netns() (*netns.Handle, error) {
	return netns.Open(fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), r.tid))
}

// close ends the thread; r may be nil.
func (r *room) close() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.jobs != nil {
		close(r.jobs)
		<-r.done
		r.jobs = nil
	}
}
