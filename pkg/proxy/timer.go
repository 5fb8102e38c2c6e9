package proxy

import (
	"time"

	"golang.org/x/sys/unix"
)

// timer calls its owner once, a few milliseconds late at most. Timers of one
// duration expire in the order in which they were armed, so a list for each
// duration in use keeps arming and stopping at constant cost.
type timer struct {
	prev, next *timer
	when       int64 // by the loop's clock; 0: not armed
	owner      expirer
}

type expirer interface{ expired(t *timer) }

type timers struct {
	fd      int // timerfd, in the loop's epoll
	lists   map[time.Duration]*timer
	armed   int64 // what the timerfd is set to; 0: nothing
	soonest int64 // the earliest timer armed since
}

// arm starts a timer, anew when it was running.
func (l *loop) arm(t *timer, after time.Duration, owner expirer) {
	t.stop()
	list := l.timers.lists[after]
	if list == nil {
		list = &timer{}
		list.prev, list.next = list, list
		l.timers.lists[after] = list
	}
	t.owner = owner
	t.when = l.now + int64(after)
	t.prev, t.next = list.prev, list
	t.prev.next, list.prev = t, t
	if l.timers.soonest == 0 || t.when < l.timers.soonest {
		l.timers.soonest = t.when
	}
}

func (t *timer) stop() {
	if t.when == 0 {
		return
	}
	t.prev.next, t.next.prev = t.next, t.prev
	t.prev, t.next, t.when = nil, nil, 0
}

// expire fires what is due and looks for what comes next. Lists of durations
// that are in use no more go here.
func (l *loop) expire() {
	s := &l.timers
	var buf [8]byte
	unix.Read(s.fd, buf[:]) // level of a timerfd; EAGAIN when it was set anew meanwhile
	s.armed, s.soonest = 0, 0
	for after, list := range s.lists {
		for t := list.next; t != list && t.when <= l.now; t = list.next {
			owner := t.owner
			t.stop()
			owner.expired(t)
		}
		if list.next == list {
			delete(s.lists, after)
		}
	}
	// What fired may have armed some.
	for _, list := range s.lists {
		if t := list.next; t != list && (s.soonest == 0 || t.when < s.soonest) {
			s.soonest = t.when
		}
	}
}

// setTimer tells the kernel of an earlier deadline. That one was removed since
// it does not hear: it wakes once for nothing.
func (l *loop) setTimer() {
	s := &l.timers
	// One wakeup for what is due about the same time.
	due := s.soonest + int64(timerSlack)
	if s.soonest == 0 || s.armed != 0 && s.armed <= due {
		return
	}
	s.armed = due
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(1, s.armed-l.now))}
	if err := unix.TimerfdSettime(s.fd, 0, &spec, nil); err != nil {
		panic("set timerfd: " + err.Error()) // only bad arguments fail
	}
}
