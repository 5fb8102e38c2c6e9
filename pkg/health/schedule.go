package health

import (
	"container/heap"
	"math"
	"time"
)

const never = time.Duration(math.MaxInt64)

// scheduler says which target is probed next: the one due first, as long as
// there is a free slot. Targets whose last probe timed out get at most half
// of the slots; without that, a node that dies with a few hundred endpoints
// would fill all slots with waiting and delay the probes of the living.
// It is not safe for concurrent use.
type scheduler struct {
	prompt, slow queue
	limit        int // slots
	inFlight     int // slots taken
	slowInFlight int // of them by slow targets
	late         uint64
}

func (s *scheduler) queue(t *target) *queue {
	if t.slow {
		return &s.slow
	}
	return &s.prompt
}

// add queues a target for its due time.
func (s *scheduler) add(t *target) { heap.Push(s.queue(t), t) }

// remove takes a target out that is queued.
func (s *scheduler) remove(t *target) { heap.Remove(s.queue(t), int(t.pos)) }

// first is the target to probe next, nil when there is none or no slot.
func (s *scheduler) first() *target {
	if s.inFlight >= s.limit {
		return nil
	}
	var t *target
	if len(s.prompt) > 0 {
		t = s.prompt[0]
	}
	if len(s.slow) > 0 && s.slowInFlight < max(1, s.limit/2) && (t == nil || s.slow[0].due < t.due) {
		t = s.slow[0]
	}
	return t
}

// next is when take will return a target, never if that needs a slot or a
// target first.
func (s *scheduler) next() time.Duration {
	if t := s.first(); t != nil {
		return t.due
	}
	return never
}

// take removes the next target if it is due and gives it a slot, until done.
func (s *scheduler) take(now time.Duration) *target {
	t := s.first()
	if t == nil || t.due > now {
		return nil
	}
	s.remove(t)
	t.inFlight = true
	s.inFlight++
	if t.slow {
		s.slowInFlight++
	}
	if now-t.due > t.check.Interval/10 {
		s.late++
	}
	return t
}

// done gives the slot of a target back that take returned. t.slow must still
// be as it was.
func (s *scheduler) done(t *target) {
	t.inFlight = false
	s.inFlight--
	if t.slow {
		s.slowInFlight--
	}
}

// queue is a heap by due time.
type queue []*target

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due < q[j].due }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].pos, q[j].pos = int32(i), int32(j)
}

func (q *queue) Push(x any) {
	t := x.(*target)
	t.pos = int32(len(*q))
	*q = append(*q, t)
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	t := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return t
}
