package proxy

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"connectd/pkg/proxy/accesslog"
	"connectd/pkg/proxy/h2"
)

const (
	batch      = 128                  // events taken at once
	maxSpare   = 64                   // idle coroutines, and exchanges, kept
	timerSlack = 4 * time.Millisecond // timers may be late by so much
)

// loop is one goroutine with an epoll of its own. Sockets, buffers and pools
// belong to one loop, so none of them needs a lock.
type loop struct {
	p     *Proxy
	epfd  int
	wakes int      // eventfd
	park  *parking // nil: waits in epoll itself
	rand  *rand.Rand
	done  chan struct{}

	events    [batch]unix.EpollEvent
	socks     []*sock // by descriptor
	gen       int32
	now       int64 // monotonic nanoseconds, when this turn began
	gaveWay   int64 // when the loop last let the runtime schedule it anew
	timers    timers
	queue     []*coro // to be resumed
	turning   []*coro
	spare     []*coro
	free      freeLists
	scratch   []byte // for bytes between one read and the write after it
	pools     map[poolKey]*pool
	clients   map[*client]struct{}
	upstreams map[*upstream]struct{}
	exchanges []*exchange // spare
	entry     accesslog.Entry
	holding   int64        // bytes held for slow readers
	idle      atomic.Int64 // pooled connections
	epoch     time.Time
	h2        *h2.Forwarder
	h2pool    *h2.Pool
	h2pools   map[poolKey][]*h2Upstream
	flushes   []*h2Conn // with something to write
	reads     []*h2Conn // with something left to read
	rereads   []*h2Conn
	seats     map[*seat]struct{} // whose listeners are here
	beats     timer
	accepts   timer // after accept found no descriptor
	closing   bool

	load atomic.Int64 // clients, for who hands out the next

	mu    sync.Mutex
	inbox []func()
}

func (p *Proxy) newLoop() (*loop, error) {
	l := &loop{
		p: p, done: make(chan struct{}), scratch: make([]byte, scratchSize), rand: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
		upstreams: make(map[*upstream]struct{}), epoch: time.Now(),
		pools: make(map[poolKey]*pool), clients: make(map[*client]struct{}), seats: make(map[*seat]struct{}), epfd: -1, wakes: -1,
	}
	l.h2pool, l.h2pools = h2.NewPool(), make(map[poolKey][]*h2Upstream)
	l.h2pool.Beside(&l.holding)
	l.h2 = h2.NewForwarder(l.h2pool, l, l.speak)
	l.h2.Now = func() int64 { return l.now }
	l.timers = timers{fd: -1, lists: make(map[time.Duration]*timer)}
	if err := l.open(); err != nil {
		l.release()
		return nil, fmt.Errorf("open event loop: %w", err)
	}
	l.now = l.clock()
	return l, nil
}

func (l *loop) open() (err error) {
	if l.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if l.wakes, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	if l.timers.fd, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return err
	}
	for _, fd := range []int{l.wakes, l.timers.fd} {
		if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return err
		}
	}
	if runtime.GOMAXPROCS(0) > 1 {
		return nil
	}
	l.park, err = newParking(l.epfd)
	return err
}

func (l *loop) release() {
	for _, fd := range []int{l.wakes, l.timers.fd} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if l.park != nil {
		l.park.close()
	} else if l.epfd >= 0 {
		unix.Close(l.epfd)
	}
}

// run goes round until the loop is closed.
func (l *loop) run() {
	defer close(l.done)
	defer l.release()
	for !l.closing {
		l.turn(l.wait())
		l.giveWay()
	}
	for _, co := range l.spare {
		co.stop()
	}
}

// turn handles a batch: events, then what they made ready.
func (l *loop) turn(n int) {
	l.now = l.clock()
	for i := range l.events[:n] {
		ev := &l.events[i]
		switch fd := int(ev.Fd); fd {
		case l.wakes:
			l.receive()
		case l.timers.fd:
			l.expire()
		default:
			if s := l.socks[fd]; s != nil && s.gen == ev.Pad {
				l.dispatch(s, ev.Events)
			}
		}
	}
	// What becomes ready meanwhile waits for the next turn, so that one busy
	// connection does not keep the others waiting.
	l.queue, l.turning = l.turning[:0], l.queue
	for _, co := range l.turning {
		co.queued = false
		l.step(co)
	}
	l.readLater()
	l.flushAll()
	l.setTimer()
}

// post has fn run on the loop. It may be called from any goroutine; false says
// that the loop has ended.
func (l *loop) post(fn func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.done:
		return false
	default:
	}
	l.inbox = append(l.inbox, fn)
	if len(l.inbox) == 1 {
		one := [8]byte{1}
		unix.Write(l.wakes, one[:]) // cannot fail: the counter is read before it is full
	}
	return true
}

// call has fn run on the loop and waits for it.
func (l *loop) call(fn func()) {
	ran := make(chan struct{})
	if !l.post(func() { fn(); close(ran) }) {
		return
	}
	select {
	case <-ran:
	case <-l.done:
	}
}

func (l *loop) receive() {
	var buf [8]byte
	unix.Read(l.wakes, buf[:])
	l.mu.Lock()
	inbox := l.inbox
	l.inbox = nil
	l.mu.Unlock()
	for _, fn := range inbox {
		fn()
	}
}

// panicked logs what a request died of and closes its connections.
func (l *loop) panicked(j job, reason any, stack []byte) {
	l.tellPanic(reason, stack)
	if x, ok := j.(*exchange); ok {
		x.abandon()
	}
}

func (l *loop) tellPanic(reason any, stack []byte) {
	l.p.params.Log.Error("a request made the forwarder panic", "panic", reason, "stack", string(stack))
}

// clock is now, for what is measured; l.now is when the turn began.
func (l *loop) clock() int64 { return int64(time.Since(l.epoch)) }

// timeOfDay is when the loop's clock was at, by the clock on the wall as that
// is set now.
func (l *loop) timeOfDay(at int64) time.Time {
	return time.Now().Add(time.Duration(at - l.clock()))
}
