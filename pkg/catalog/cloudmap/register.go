package cloudmap

import (
	"context"
	"errors"
	"reflect"
	"strconv"
	"time"

	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	sdtypes "github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"

	"connectd/pkg/lb"
)

const (
	// damping is the least time between two registrations of one instance but
	// for draining: each is read by every node that uses the service.
	damping = 10 * time.Second
	// drainingFor is how long a node that goes away shows an instance as
	// draining before it takes it out: two polls of other nodes.
	drainingFor = 20 * time.Second
	// unseenFor is the age from which an instance that a read does not show is
	// registered again: its operation has failed. They take seconds.
	unseenFor = 90 * time.Second
	// refusedFor is the pause after Cloud Map said that a request is wrong.
	refusedFor = 5 * time.Minute
	fullFor    = time.Minute // and after it said that a quota is used up
	busyMost   = 10 * time.Second
	// confirmAfter is how long after its first registration an instance is
	// looked for; the pause doubles.
	confirmAfter = 2 * time.Second
)

// publication is an instance that this node registered, or is about to.
// Exported fields are kept over restarts.
type publication struct {
	ID, Namespace, Service string
	In                     instance  // as written last
	Cluster                string    // the following three are attributes, too
	ECSService, Family     string    //
	Written                time.Time // when; zero: it is not registered
	Seen                   bool      // since then
	Draining               time.Time `json:",omitzero"` // since when it is registered as draining

	offer   *Offer // nil: nothing local offers it any more
	back    retry
	busy    bool
	tries   int  // reads that did not show it yet
	lost    bool // a read long after it was written did not show it
	todo    todo
	due     time.Time
	reason  string // of problem
	problem error
}

func (p *publication) name() lb.ServiceName {
	return lb.ServiceName{Namespace: p.Namespace, DiscoveryName: p.Service}
}

type todo uint8

const (
	todoNothing todo = iota
	todoRegister
	todoDrain // register as draining
	todoDeregister
)

// review decides what is to be done about a publication, and when.
func (s *Source) review(p *publication, now time.Time) {
	p.todo, p.due = todoNothing, time.Time{}
	registered := !p.Written.IsZero()
	if p.offer == nil {
		if registered && s.registrar.complete {
			p.todo = todoDeregister
		}
		return
	}
	want := s.instanceOf(p.offer)
	if !registered {
		if p.offer.State == Healthy && !s.registrar.away {
			p.todo = todoRegister
		}
		return
	}
	if p.offer.State == Pending && want.State == stateHealthy {
		want.State = p.In.State // no news
	}
	want.Since, want.Sequence = p.In.Since, p.In.Sequence
	switch {
	case s.registrar.away && p.In.State == stateDraining:
		p.todo, p.due = todoDeregister, p.Draining.Add(drainingFor)
	case want.State == stateDraining && p.In.State != stateDraining:
		p.todo = todoDrain
	case !reflect.DeepEqual(want, p.In) || p.Cluster != p.offer.Cluster || p.ECSService != p.offer.ECSService || p.Family != p.offer.Family:
		p.todo, p.due = todoRegister, p.Written.Add(damping)
	case p.lost:
		p.todo = todoRegister
	}
}

func (s *Source) registrarJobs(c *chooser) {
	if !s.p.Register {
		return
	}
	for _, p := range s.registrar.publications {
		sp := s.space(p.Namespace)
		if p.todo == todoNothing {
			continue
		}
		if !sp.resolved {
			p.reason, p.problem = problemFailed, sp.err
			continue
		}
		name := s.p.Prefix + p.Service
		t := sp.targets[name]
		if t == nil || t.id == "" {
			if sp.listed {
				s.createJob(c, sp, name)
			}
			continue
		}
		j := job{call: callRegister, class: classRegister, due: latest(p.due, p.back.until), busy: &p.busy, space: sp, publication: p, name: name, do: (*Source).register}
		switch p.todo {
		case todoDrain:
			j.class = classDrain
		case todoDeregister:
			j.call, j.do = callDeregister, (*Source).deregister
		}
		c.offer(j)
	}
	for _, sp := range s.spaces {
		if sp.resolved && sp.isKnown() && (sp.used || s.registrar.uses(sp.name)) {
			s.entryJob(c, sp)
		}
	}
}

// createJob offers to create a Cloud Map service.
func (s *Source) createJob(c *chooser, sp *space, name string) {
	t := sp.targets[name]
	if t == nil {
		t = &target{}
		sp.targets[name] = t
	}
	c.offer(job{call: callCreateService, class: classRegister, due: t.back.until, busy: &t.busy, space: sp, name: name, do: (*Source).createService})
}

var errForeign = errors.New("the service is not connectd's")

func (s *Source) createService(ctx context.Context, j *job) {
	sp := j.space
	if !s.writable(j.name) {
		s.log.Error("do not create a service", "service", j.name, "error", errForeign)
		return
	}
	var out *sd.CreateServiceOutput
	var raw error
	kind, err := s.invoke(ctx, j, callCreateService, func(ctx context.Context) error {
		// API discovery only: a DNS namespace would get records that
		// nobody needs, and a call to Route 53 with every registration.
		out, raw = s.p.API.CreateService(ctx, &sd.CreateServiceInput{
			Name: &j.name, NamespaceId: sp.ref(), Type: sdtypes.ServiceTypeOptionHttp,
			Description:      new("Instances that connectd registers"),
			CreatorRequestId: new("connectd-" + sp.id + "-" + j.name),
		})
		return raw
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.p.Now()
	t := sp.targets[j.name]
	if id, arn, taken := takenService(raw); taken {
		t.id, t.arn = id, arn
		return
	}
	if err != nil {
		s.lostIf(sp, raw)
		t.back.fail(now, s.random, pauseOf(kind), max(pauseOf(kind), backoffMost))
		for _, p := range s.registrar.publications {
			if p.Namespace == sp.name && s.p.Prefix+p.Service == j.name {
				p.reason, p.problem = problemOf(kind), err
			}
		}
		return
	}
	if out.Service != nil {
		t.id, t.arn = deref(out.Service.Id), deref(out.Service.Arn)
	}
	s.log.Info("created a service in Cloud Map", "namespace", sp.name, "service", j.name)
}

// pauseOf is the least pause after a failure.
func pauseOf(kind fault) time.Duration {
	switch kind {
	case faultInvalid:
		return refusedFor
	case faultFull:
		return fullFor
	}
	return backoffLeast
}

func problemOf(kind fault) string {
	switch kind {
	case faultInvalid:
		return problemInvalid
	case faultFull:
		return problemFull
	}
	return problemFailed
}

// register writes an instance as it is offered.
func (s *Source) register(ctx context.Context, j *job) {
	sp, p := j.space, j.publication
	s.mu.Lock()
	now := s.p.Now()
	t := sp.targets[j.name]
	if p.offer == nil || t == nil || !s.writable(j.name) {
		s.review(p, now)
		s.mu.Unlock()
		return
	}
	o := p.offer
	in := s.instanceOf(o)
	if o.State == Pending && !p.Written.IsZero() && in.State == stateHealthy {
		in.State = p.In.State
	}
	in.Since, in.Sequence = s.registrar.since(p.name(), p.ID, now), s.registrar.next(now)
	attrs, err := in.encode(o.Cluster, o.ECSService, o.Family)
	ref := *t.ref(sp)
	s.mu.Unlock()
	if err != nil {
		s.log.Error("do not register an instance", "instance", p.ID, "error", err) // checkOffer has seen to it
		return
	}
	kind, err := s.invoke(ctx, j, callRegister, func(ctx context.Context) error {
		_, err := s.p.API.RegisterInstance(ctx, &sd.RegisterInstanceInput{
			ServiceId: &ref, InstanceId: &p.ID, Attributes: attrs,
			CreatorRequestId: new(p.ID + "-" + strconv.FormatUint(in.Sequence, 10)),
		})
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	now = s.p.Now()
	if err != nil {
		s.notWritten(sp, p, j.name, kind, err, now)
		return
	}
	if in.State != stateDraining {
		p.Draining = time.Time{}
	} else if p.Draining.IsZero() {
		p.Draining = now
	}
	p.In, p.Cluster, p.ECSService, p.Family = in, o.Cluster, o.ECSService, o.Family
	first := !p.Seen
	p.Written, p.tries, p.back, p.lost = now, 0, retry{}, false
	p.reason, p.problem = "", nil
	s.review(p, now)
	s.wrote(sp, now)
	if o := s.service(sp, p.Service).ours; first {
		s.schedule(o, now.Add(confirmAfter), classChange) // its task waits to be seen
	} else {
		s.schedule(o, now.Add(unseenFor+time.Second), classSlow)
	}
}

// notWritten takes a failure of a call that changes an instance.
func (s *Source) notWritten(sp *space, p *publication, name string, kind fault, err error, now time.Time) {
	most := backoffMost
	switch kind {
	case faultBusy:
		most = busyMost
	case faultInvalid, faultFull:
		most = refusedFor
	case faultGone:
		delete(sp.targets, name) // somebody deleted it: it is created anew
		s.lostIf(sp, err)
	}
	p.back.fail(now, s.random, pauseOf(kind), most)
	if kind == faultBusy || errors.Is(err, context.Canceled) {
		return // an operation of ours goes on, or we are stopping: no problem
	}
	if p.problem == nil || p.problem.Error() != err.Error() {
		s.log.Warn("an instance is not registered as it is", "namespace", p.Namespace, "service", p.Service, "instance", p.ID, "error", err)
	}
	p.reason, p.problem = problemOf(kind), err
}

// wrote has the index told what was written, and the state saved.
func (s *Source) wrote(sp *space, now time.Time) {
	sp.entry.touch(now)
	s.soon(time.Second)
}

func (s *Source) deregister(ctx context.Context, j *job) {
	sp, p := j.space, j.publication
	s.mu.Lock()
	t := sp.targets[j.name]
	if t == nil || !s.writable(j.name) {
		s.mu.Unlock()
		return
	}
	ref := *t.ref(sp)
	s.mu.Unlock()
	kind, err := s.invoke(ctx, j, callDeregister, func(ctx context.Context) error {
		_, err := s.p.API.DeregisterInstance(ctx, &sd.DeregisterInstanceInput{ServiceId: &ref, InstanceId: &p.ID})
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.p.Now()
	if err != nil && kind != faultGone {
		s.notWritten(sp, p, j.name, kind, err, now)
		return
	}
	p.Written, p.Seen, p.Draining, p.back = time.Time{}, false, time.Time{}, retry{}
	p.reason, p.problem = "", nil
	p.In = instance{}
	s.registrar.next(now)
	s.review(p, now)
	s.wrote(sp, now)
	*j.busy = false
	s.forget()
}

// confirm looks for this node's instances in an answer, and says whether all
// were there that should be.
func (s *Source) confirm(o *origin, now time.Time) (next time.Time) {
	if !o.ours {
		return time.Time{}
	}
	for _, p := range s.registrar.publications {
		if p.Service != o.service.name || p.Namespace != o.service.space.name || p.Written.IsZero() {
			continue
		}
		in, found := find(o.list, p.ID)
		switch {
		case found && in.Sequence >= p.In.Sequence:
			if !p.Seen {
				p.Seen, s.confirmed = true, true
			}
			p.tries, p.lost = 0, false
		case now.Sub(p.Written) < unseenFor:
			at := now.Add(jitter(s.random, confirmAfter<<min(p.tries, maxTries-1)))
			if p.tries++; p.Seen {
				at = p.Written.Add(unseenFor + time.Second)
			}
			if next.IsZero() || at.Before(next) {
				next = at
			}
		case p.offer != nil && !p.busy:
			s.log.Warn("an instance is not in Cloud Map, it is registered again", "service", p.Service, "instance", p.ID)
			p.Seen, p.lost = false, true
		}
		if !p.busy {
			s.review(p, now)
		}
	}
	return next
}

// adopt takes instances as this node's own that it does not remember, so that
// they go when nothing local offers them.
func (s *Source) adopt(o *origin) {
	if !o.ours {
		return
	}
	for i := range o.list {
		in := &o.list[i]
		k := key(o.service.fullName(), in.ID)
		if in.Node != s.p.Node || s.registrar.publications[k] != nil && !s.registrar.publications[k].Written.IsZero() {
			continue
		}
		p := s.registrar.publications[k]
		if p == nil {
			p = &publication{ID: in.ID, Namespace: o.service.space.name, Service: o.service.name}
			s.registrar.publications[k] = p
		}
		if p.busy {
			continue
		}
		p.In, p.Written, p.Seen = *in, s.p.Now(), true
		p.In.ECSService, p.In.Cluster = "", ""
		if in.State == stateDraining {
			p.Draining = p.Written
		}
		s.registrar.sequence = max(s.registrar.sequence, in.Sequence)
		s.review(p, s.p.Now())
		s.wrote(o.service.space, s.p.Now())
	}
}
