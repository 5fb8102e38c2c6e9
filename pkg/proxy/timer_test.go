package proxy

import (
	"testing"
	"time"
)

// TestTimerIsSetOnce: a deadline that the kernel knows costs later turns no call.
// With a descriptor that cannot be set any call panics.
func TestTimerIsSetOnce(t *testing.T) {
	l := &loop{timers: timers{fd: -1, lists: make(map[time.Duration]*timer)}}
	sets := func() (set bool) {
		defer func() { set = recover() != nil }()
		l.setTimer()
		return false
	}
	var a, b, c timer
	l.arm(&a, time.Minute, nil)
	if !sets() {
		t.Fatal("the first deadline is not told to the kernel")
	}
	l.now += int64(time.Second)
	l.arm(&b, time.Minute, nil)
	if sets() {
		t.Error("a later deadline sets the timer again")
	}
	a.stop()
	if sets() {
		t.Error("a deadline that was removed sets the timer again")
	}
	l.arm(&c, time.Second, nil)
	if !sets() {
		t.Error("an earlier deadline is not told to the kernel")
	}
}
