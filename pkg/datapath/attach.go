package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

type hook struct {
	name   string
	attach ebpf.AttachType
	prog   func(*connectObjects) *ebpf.Program
}

// hooks in the order in which they are attached and replaced. Those that only
// read state come first, so that what a new layout writes can be read; then
// those that follow connections, which move entries from an old layout's map
// to the new one; the writers come last.
var hooks = []hook{
	{"recvmsg4", ebpf.AttachCGroupUDP4Recvmsg, func(o *connectObjects) *ebpf.Program { return o.Recvmsg4 }},
	{"recvmsg6", ebpf.AttachCGroupUDP6Recvmsg, func(o *connectObjects) *ebpf.Program { return o.Recvmsg6 }},
	{"getpeername4", ebpf.AttachCgroupInet4GetPeername, func(o *connectObjects) *ebpf.Program { return o.Getpeername4 }},
	{"getpeername6", ebpf.AttachCgroupInet6GetPeername, func(o *connectObjects) *ebpf.Program { return o.Getpeername6 }},
	{"sock_ops", ebpf.AttachCGroupSockOps, func(o *connectObjects) *ebpf.Program { return o.SockOps }},
	{"sock_release", ebpf.AttachCgroupInetSockRelease, func(o *connectObjects) *ebpf.Program { return o.SockRelease }},
	{"sendmsg4", ebpf.AttachCGroupUDP4Sendmsg, func(o *connectObjects) *ebpf.Program { return o.Sendmsg4 }},
	{"sendmsg6", ebpf.AttachCGroupUDP6Sendmsg, func(o *connectObjects) *ebpf.Program { return o.Sendmsg6 }},
	{"connect4", ebpf.AttachCGroupInet4Connect, func(o *connectObjects) *ebpf.Program { return o.Connect4 }},
	{"connect6", ebpf.AttachCGroupInet6Connect, func(o *connectObjects) *ebpf.Program { return o.Connect6 }},
}

// Publish attaches the programs, or puts them in the place of those an earlier
// daemon attached, one link at a time: no connect falls between. Call it when
// the first plan is in the maps.
func (d *Datapath) Publish() error {
	for _, h := range hooks {
		if err := attachHook(h, h.prog(&d.objs), d.params.Cgroup, linkDir(d.params.BPFFS)); err != nil {
			return fmt.Errorf("attach %s to %s: %w", h.name, d.params.Cgroup, err)
		}
	}
	spec, err := loadConnect()
	if err != nil {
		return err
	}
	return d.dropOldMaps(spec)
}

func attachHook(h hook, prog *ebpf.Program, cgroup, dir string) error {
	path := filepath.Join(dir, h.name)
	pinned, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, os.ErrNotExist) {
		return attachNew(h, prog, cgroup, path)
	}
	if err != nil {
		return fmt.Errorf("open pinned link: %w", err)
	}
	defer pinned.Close()
	same, err := attachedTo(pinned, cgroup)
	if err != nil {
		return err
	}
	if same {
		err = pinned.Update(prog)
		if err == nil || !errors.Is(err, unix.ENOLINK) {
			return err
		}
		// ENOLINK: the cgroup went away and took the attachment along.
	}
	// The new one stands before the old one goes. Both translate for an
	// instant; the second sees an address that is a VIP no more.
	next := path + "_next"
	os.Remove(next) // of an earlier try
	if err := attachNew(h, prog, cgroup, next); err != nil {
		return err
	}
	return os.Rename(next, path)
}

func attachNew(h hook, prog *ebpf.Program, cgroup, path string) error {
	l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: h.attach, Program: prog})
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Pin(path); err != nil {
		return fmt.Errorf("pin link: %w", err)
	}
	return nil
}

func attachedTo(l link.Link, cgroup string) (bool, error) {
	info, err := l.Info()
	if err != nil {
		return false, fmt.Errorf("read pinned link: %w", err)
	}
	id, err := CgroupID(cgroup)
	if err != nil {
		return false, err
	}
	at := info.Cgroup()
	return at != nil && at.CgroupId == id, nil
}

// CgroupID returns the id of a cgroup2 directory: its inode number, which is
// what bpf_get_current_ancestor_cgroup_id returns.
func CgroupID(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("stat cgroup %s: %w", path, err)
	}
	return st.Ino, nil
}

// Attachment is whether one program is where it should be.
type Attachment struct {
	Name string
	Err  error // nil: attached and effective
}

// Attachments looks at every hook: its link must be pinned, and the kernel
// must list its program as effective at the cgroup.
func (d *Datapath) Attachments() []Attachment { return attachments(d.params.BPFFS, d.params.Cgroup) }

func attachments(bpffs, cgroup string) []Attachment {
	out := make([]Attachment, len(hooks))
	for i, h := range hooks {
		out[i] = Attachment{Name: h.name, Err: checkHook(h, linkDir(bpffs), cgroup)}
	}
	return out
}

func checkHook(h hook, dir, cgroup string) error {
	l, err := link.LoadPinnedLink(filepath.Join(dir, h.name), nil)
	if err != nil {
		return fmt.Errorf("open pinned link: %w", err)
	}
	defer l.Close()
	same, err := attachedTo(l, cgroup)
	if err != nil {
		return err
	}
	if !same {
		return fmt.Errorf("attached to another cgroup than %s", cgroup)
	}
	program, err := pinnedProgram(filepath.Join(dir, h.name))
	if err != nil {
		return err
	}
	effective, err := effectivePrograms(h, cgroup)
	if err != nil {
		return err
	}
	if !slices.Contains(effective, program) {
		return fmt.Errorf("program %d is not effective at %s", program, cgroup)
	}
	return nil
}

func pinnedProgram(path string) (ebpf.ProgramID, error) {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return 0, fmt.Errorf("open pinned link: %w", err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return 0, fmt.Errorf("read pinned link: %w", err)
	}
	return info.Program, nil
}

// effectivePrograms lists what the kernel runs for a hook, in order.
func effectivePrograms(h hook, cgroup string) ([]ebpf.ProgramID, error) {
	dir, err := os.Open(cgroup)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	res, err := link.QueryPrograms(link.QueryOptions{
		Target: int(dir.Fd()), Attach: h.attach, QueryFlags: unix.BPF_F_QUERY_EFFECTIVE,
	})
	if err != nil {
		return nil, fmt.Errorf("query programs at %s: %w", cgroup, err)
	}
	ids := make([]ebpf.ProgramID, len(res.Programs))
	for i, p := range res.Programs {
		ids[i] = p.ID
	}
	return ids, nil
}
