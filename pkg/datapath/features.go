package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
)

// haveSetRetval reports whether cgroup programs may choose the errno of a
// refusal (5.18).
func haveSetRetval() bool {
	return features.HaveProgramHelper(ebpf.CGroupSockAddr, asm.FnSetRetval) == nil
}

// Feature is something of the kernel that connectd uses.
type Feature struct {
	Name    string
	Needed  bool   // without it nothing works
	Since   string // kernel version
	Lost    string // what is lost without it, when it is not needed
	Missing error  // nil: present
}

// Features asks the running kernel.
func Features() []Feature {
	if err := rlimit.RemoveMemlock(); err != nil {
		return []Feature{{Name: "memory lock limit", Needed: true, Missing: err}}
	}
	return []Feature{
		{Name: "cgroup programs that know their netns", Needed: true, Since: "5.7",
			Missing: features.HaveProgramHelper(ebpf.CGroupSockAddr, asm.FnGetNetnsCookie)},
		{Name: "BPF ring buffer", Needed: true, Since: "5.8", Missing: features.HaveMapType(ebpf.RingBuf)},
		{Name: "kernel type information (CO-RE)", Needed: true, Since: "5.10 with CONFIG_DEBUG_INFO_BTF", Missing: haveBTF()},
		{Name: "socket lookup programs", Since: "5.9", Lost: "HTTP services are reached directly, as TCP ones are",
			Missing: features.HaveProgramType(ebpf.SkLookup)},
		{Name: "errno of a refused connect", Since: "5.18", Lost: "a service without endpoints gives ENETUNREACH (UDP: EPERM), not EHOSTUNREACH",
			Missing: features.HaveProgramHelper(ebpf.CGroupSockAddr, asm.FnSetRetval)},
		{Name: "sockops programs that know their netns", Since: "5.15", Lost: "CloudWatch has no metrics of the connections that tasks accept",
			Missing: haveServe()},
		{Name: "inet_diag destroy", Since: "4.9 with CONFIG_INET_DIAG_DESTROY", Lost: "drains cannot end connections",
			Missing: haveDestroy()},
	}
}

func haveBTF() error {
	var st unix.Stat_t
	return unix.Stat("/sys/kernel/btf/vmlinux", &st)
}

// haveDestroy makes a connection of its own on loopback and destroys it.
func haveDestroy() error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	to := l.Addr().(*net.TCPAddr).AddrPort()
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		return err
	}
	own, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return err
	}
	from := own.(*unix.SockaddrInet4)
	d, err := openDiag((*netns.Handle)(nil))
	if err != nil {
		return err
	}
	defer d.close()
	err = d.destroy(diagID{protocol: uint8(lb.TCP), cookie: cookie, remote: to,
		local: netip.AddrPortFrom(netip.AddrFrom4(from.Addr), uint16(from.Port))})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, errNoSocket) {
		return fmt.Errorf("not in this kernel: %w", err)
	}
	return err
}
