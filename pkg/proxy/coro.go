package proxy

import (
	"iter"
	"runtime/debug"
)

// coro is a coroutine: straight-line code that pauses where it would block,
// on the goroutine of its loop. A resume costs a tenth of what a goroutine
// switch does. It must not be made, resumed or paused while its goroutine is
// locked to a thread, which the runtime does not survive.
type coro struct {
	resume func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool
	job    job // nil: idle
	queued bool
}

// job is what a coroutine runs. It returns when it is done, and soon after the
// loop has told it to end.
type job interface{ run(co *coro) }

func (l *loop) newCoro() *coro {
	co := &coro{}
	co.resume, co.stop = iter.Pull(func(yield func(struct{}) bool) {
		co.yield = yield
		for {
			l.do(co)
			if !yield(struct{}{}) {
				return
			}
		}
	})
	return co
}

// do runs one job. A panic in it costs its request, not the node's traffic.
func (l *loop) do(co *coro) {
	defer func() {
		if r := recover(); r != nil {
			l.panicked(co.job, r, debug.Stack())
		}
		co.job = nil
	}()
	co.job.run(co)
}

// pause returns when the loop resumes the coroutine.
func (co *coro) pause() { co.yield(struct{}{}) }

// begin runs a job up to its first pause.
func (l *loop) begin(j job) {
	var co *coro
	if n := len(l.spare); n > 0 {
		co = l.spare[n-1]
		l.spare = l.spare[:n-1]
	} else {
		co = l.newCoro()
	}
	co.job = j
	l.step(co)
}

func (l *loop) step(co *coro) {
	co.resume()
	if co.job != nil {
		return
	}
	if len(l.spare) < maxSpare {
		l.spare = append(l.spare, co)
		return
	}
	co.stop()
}

// ready has a paused coroutine resumed before the loop waits again.
func (l *loop) ready(co *coro) {
	if co.queued {
		return
	}
	co.queued = true
	l.queue = append(l.queue, co)
}
