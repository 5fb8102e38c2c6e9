package proxy

import (
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wait returns how many events there are. It waits for one unless something
// else is to be done.
//
// It sleeps in epoll itself, as in any blocking call: the runtime leaves the
// loop its processor for the short sleeps of a busy loop and takes it away in
// longer ones, at the cost of a thread for each loop. Sleeping in Go's poller
// would take three calls for each event: one that finds nothing, the poller's
// own, and one for what it announced.
func (l *loop) wait() int {
	if len(l.queue) > 0 || len(l.reads) > 0 {
		return l.poll()
	}
	if l.park != nil {
		if n := l.poll(); n > 0 {
			return n
		}
		l.park.wait()
		return l.poll()
	}
	n, _, errno := syscall.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epfd), uintptr(unsafe.Pointer(&l.events[0])), batch, ^uintptr(0), 0, 0)
	if errno != 0 {
		return 0 // EINTR
	}
	return int(n)
}

// poll takes the events that are there, without waiting.
func (l *loop) poll() int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epfd), uintptr(unsafe.Pointer(&l.events[0])), batch, 0, 0, 0)
	if errno != 0 {
		return 0 // EINTR
	}
	return int(n)
}

// sliceOfLoop is half of the 10 ms after which the runtime takes the processor
// from a goroutine that was not scheduled anew.
const sliceOfLoop = 5 * time.Millisecond

// giveWay has the runtime schedule a busy loop anew before it does so by force.
// That would meet the loop in a system call: it goes on in another thread, and
// the runtime's monitor then wakes every 20 us for a while to look for more. At
// one connection this was a tenth of the forwarder's CPU time (Go 1.26,
// runtime.retake).
func (l *loop) giveWay() {
	if l.now-l.gaveWay >= int64(sliceOfLoop) {
		l.gaveWay = l.now
		runtime.Gosched()
	}
}

// parking is where a loop sleeps that has the process's one processor: in Go's
// poller, which watches the epoll descriptor. From a blocking call the runtime
// would take the processor only after up to 10 ms, for which everything else in
// the daemon, DNS above all, would wait.
type parking struct {
	file  *os.File
	raw   syscall.RawConn
	slept bool
	check func(uintptr) bool
}

// newParking takes the descriptor, which close closes.
func newParking(epfd int) (*parking, error) {
	// Non-blocking, or package os would not give it to the poller.
	if err := unix.SetNonblock(epfd, true); err != nil {
		return nil, err
	}
	p := &parking{file: os.NewFile(uintptr(epfd), "epoll")}
	p.check = func(uintptr) bool {
		slept := p.slept
		p.slept = true
		return slept
	}
	var err error
	p.raw, err = p.file.SyscallConn()
	return p, err
}

// wait returns when there may be events.
func (p *parking) wait() {
	p.slept = false
	if err := p.raw.Read(p.check); err != nil {
		panic("wait for epoll: " + err.Error()) // only the loop closes it
	}
}

func (p *parking) close() { p.file.Close() }
