package cloudmap

import (
	"context"
	"time"
)

// class is how urgent a call is; a lower one goes first.
type class uint8

const (
	classDrain    class = iota // an endpoint that must get no new connections
	classRegister              // what local tasks serve
	classFirst                 // somebody waits for the first answer
	classChange                // something changed that a local task uses
	classPoll                  // did anything change?
	classForeign               // services of ECS, which tell nobody of changes
	classSlow                  // repair, directory, cleaning
)

// need is how many tokens there must be for a call of a class. The most urgent
// go into debt.
func (c class) need() float64 {
	switch {
	case c <= classRegister:
		return 1 - debt
	case c == classFirst:
		return 1
	case c <= classPoll:
		return 1 + reserve
	}
	return 1 + 2*reserve
}

// follows says whether a call is about what other nodes do.
func (c class) follows() bool { return c >= classChange }

// readsNeed is need of the bucket for reads.
func (c class) readsNeed() float64 {
	if c <= classPoll {
		return 1
	}
	return 2
}

// job is one call that is due, or a few that belong together.
type job struct {
	call  call
	class class
	due   time.Time
	paid  bool // its first call's token has been taken

	busy  *bool // set while it is under way
	space *space
	do    func(*Source, context.Context, *job)

	shard       *shard
	origin      *origin
	publication *publication
	victim      *victim
	name        string // of a Cloud Map service
}

// chooser finds the job to do, and when the next one is due.
type chooser struct {
	s    *Source
	now  time.Time
	best job
	any  bool
	wake time.Time
}

// offer takes a job into account; it is a value so that those that are not
// taken cost nothing.
func (c *chooser) offer(j job) {
	if *j.busy {
		return
	}
	at := j.due
	if a := c.s.apis[j.call]; a != nil && a.until.After(at) {
		at = a.until
	}
	if !at.After(c.now) {
		at = latest(at, c.s.bucket.ready(c.now, j.class.need()))
		if j.class.follows() {
			at = latest(at, c.s.reads.ready(c.now, j.class.readsNeed()))
		}
	}
	if at.After(c.now) {
		if at.Before(c.wake) {
			c.wake = at
		}
		return
	}
	if !c.any || j.class < c.best.class || j.class == c.best.class && j.due.Before(c.best.due) {
		c.best, c.any = j, true
	}
}

// idle is how long a Source without anything to do waits at most.
const idle = time.Minute

// pick returns the most urgent job that is due, or nil and when to look again.
func (s *Source) pick(now time.Time) (*job, time.Time) {
	s.setRate()
	s.bucket.advance(now)
	s.reads.advance(now)
	c := &chooser{s: s, now: now, wake: now.Add(idle)}
	s.upkeep(now)
	s.namespaceJobs(c)
	for _, sp := range s.spaces {
		if !sp.used && !s.registrar.uses(sp.name) {
			continue
		}
		s.spaceJobs(c, sp)
	}
	s.registrarJobs(c)
	s.cleanerJobs(c)
	if !s.saveAt.IsZero() && s.saveAt.Before(c.wake) {
		c.wake = s.saveAt
	}
	if !c.any {
		return nil, c.wake
	}
	j := c.best
	*j.busy = true
	j.paid = true
	s.pay(j.class)
	return &j, now
}

// pay takes the token of a call.
func (s *Source) pay(c class) {
	s.bucket.tokens--
	if c.follows() {
		s.reads.tokens--
	}
}

// setRate keeps what all nodes together call below what an account may.
func (s *Source) setRate() {
	nodes := float64(s.fleet())
	s.bucket.rate = min(s.p.CallsPerSecond, fleetRate/nodes)
	s.reads.rate, s.reads.most = s.bucket.rate, max(readsLeast, min(burst, fleetBurst/nodes))
}

// fleet is how many nodes the indexes name, at least 1.
func (s *Source) fleet() int {
	n := 1
	for _, sp := range s.spaces {
		n = max(n, len(sp.entries))
	}
	return n
}

func (s *Source) spaceJobs(c *chooser, sp *space) {
	if !sp.resolved {
		if sp.missing && s.p.CreateNamespaces && s.p.Register {
			c.offer(job{call: callCreateNamespace, class: classRegister, due: sp.listBack.until, busy: &sp.listBusy, space: sp, do: (*Source).createNamespace})
		}
		return
	}
	directory := classSlow
	if !sp.listed {
		directory = classFirst
	}
	c.offer(job{call: callListServices, class: directory, due: latest(sp.listDue, sp.listBack.until), busy: &sp.listBusy, space: sp, do: (*Source).listServices})
	for _, sh := range sp.shards {
		due := latest(sh.due, sh.back.until)
		switch {
		case !sh.known:
			c.offer(job{call: callDiscover, class: classFirst, due: due, busy: &sh.busy, space: sp, shard: sh, do: (*Source).readIndex})
		case sh.want > sh.revision:
			c.offer(job{call: callDiscover, class: classChange, due: due, busy: &sh.busy, space: sp, shard: sh, do: (*Source).readIndex})
		case sh.churn > mostlyChanged:
			c.offer(job{call: callDiscover, class: classPoll, due: due, busy: &sh.busy, space: sp, shard: sh, do: (*Source).readIndex})
		default:
			c.offer(job{call: callRevision, class: classPoll, due: due, busy: &sh.busy, space: sp, shard: sh, do: (*Source).pollIndex})
		}
	}
	for _, sv := range sp.services {
		for _, o := range sv.origins() {
			if !o.due.IsZero() {
				c.offer(job{call: callDiscover, class: o.class, due: latest(o.due, o.back.until), busy: &o.busy, space: sp, origin: o, do: (*Source).read})
			}
		}
	}
	s.aliasJobs(c, sp)
}

// run makes a job's calls and takes their answers.
func (s *Source) run(ctx context.Context, j *job) {
	j.do(s, ctx, j)
	s.mu.Lock()
	*j.busy = false
	changed := s.publish()
	s.mu.Unlock()
	if changed {
		s.p.Changed()
	}
}

// invoke makes one call, counts it, and holds up others of its API after a
// failure that would most likely be theirs, too.
func (s *Source) invoke(ctx context.Context, j *job, c call, f func(context.Context) error) (fault, error) {
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	err := f(bounded)
	cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	if j.paid {
		j.paid = false
	} else {
		s.pay(j.class)
	}
	if err != nil && ctx.Err() != nil {
		return faultAway, err // we are stopping: that says nothing of AWS
	}
	kind := faultOf(err)
	a := s.apis[c]
	if a == nil {
		a = &apiState{}
		s.apis[c] = a
	}
	a.outcomes[kind]++
	now := s.p.Now()
	if !kind.spreads() {
		if a.err != nil {
			s.log.Info("calls succeed again", "call", string(c), "failed", now.Sub(a.since).Round(time.Second).String())
		}
		a.failures, a.until, a.err, a.since = 0, time.Time{}, nil, time.Time{}
		return kind, describe(c, kind, err)
	}
	err = describe(c, kind, err)
	if a.err == nil {
		a.since = now
		s.log.Warn("keep what is known: a call fails", "call", string(c), "error", err)
	}
	a.err = err
	most := backoffMost
	if kind == faultDenied {
		most = backoffDenied
	}
	a.fail(now, s.random, backoffLeast, most)
	return kind, err
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
