package cloudmap

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"connectd/pkg/lb"
)

const (
	// demandFor is how long a service is followed after a task used it last.
	demandFor = 24 * time.Hour
	// waitMost is how long the first query of a name waits for its endpoints:
	// less than the 5 s after which resolvers ask again.
	waitMost = 2 * time.Second
	// inspectFor is how long a service is remembered that was read to clean
	// up.
	inspectFor = 10 * time.Minute
	// coldFor is how long queries wait for a namespace of which nothing is
	// known. With AWS away for longer, every name of the world would wait.
	coldFor = 10 * time.Second
	// demandSave is how late demand reaches the disk.
	demandSave = time.Minute
)

// Demand says that a local task that may use namespaces asks for a name. It is
// to be called with every query, for names of other worlds as well: it costs a
// look into a map. cold says that Wait has something to wait for.
func (s *Source) Demand(name string, namespaces []string) (cold bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.demand(name, namespaces) != nil
}

// Wait returns when the services that a name leads to have been read for the
// first time, when ctx ends, or after 2 s. It includes Demand.
func (s *Source) Wait(ctx context.Context, name string, namespaces []string) {
	ctx, cancel := context.WithTimeout(ctx, waitMost)
	defer cancel()
	for {
		s.mu.Lock()
		unknown := s.demand(name, namespaces)
		s.mu.Unlock()
		if unknown == nil {
			return
		}
		select {
		case <-unknown:
		case <-ctx.Done():
			return
		}
	}
}

// demand notes a use, and returns what is closed when more is known; nil if
// all is.
func (s *Source) demand(name string, namespaces []string) <-chan struct{} {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	now := s.p.Now()
	var unknown <-chan struct{}
	for _, ns := range namespaces {
		sp := s.spaces[ns]
		if sp == nil || !sp.used {
			continue
		}
		found := sp.aliases[name]
		for _, each := range found {
			sv := s.use(sp, each, now)
			for _, o := range sv.origins() {
				if !o.known && o.exists() {
					unknown = o.answered
				}
			}
		}
		switch {
		case len(found) > 0:
		case !sp.isKnown():
			if now.Sub(sp.since) < coldFor {
				unknown = sp.ready
			}
		default:
			s.miss(sp, name, now)
		}
	}
	return unknown
}

// Use says that a local task uses a service, by connecting to it, for example.
func (s *Source) Use(name lb.ServiceName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sp := s.spaces[name.Namespace]; sp != nil && sp.used && checkDiscoveryName(name.DiscoveryName) {
		s.use(sp, name.DiscoveryName, s.p.Now())
	}
}

func (s *Source) use(sp *space, name string, now time.Time) *service {
	sv := s.service(sp, name)
	fresh := sv.demand.IsZero()
	if fresh || now.Sub(sv.demand) > demandSave {
		s.soon(demandSave)
	}
	sv.demand = now
	if fresh {
		for _, o := range sv.origins() {
			s.follow(o)
		}
		s.dirty[sv] = struct{}{}
		s.nudge()
	}
	return sv
}

// expire forgets services that nobody used for a day.
func (s *Source) expire(now time.Time) {
	for _, sp := range s.spaces {
		for name, sv := range sp.services {
			switch {
			case !sv.demand.IsZero() && now.Sub(sv.demand) > demandFor:
				sv.demand = time.Time{}
				s.dirty[sv] = struct{}{}
				for _, o := range sv.origins() {
					o.due = time.Time{}
				}
				s.soon(demandSave)
			case sv.demand.IsZero() && sv.built == nil && !s.registrar.serves(sv) && !sv.busy() && now.Sub(sv.inspect) > inspectFor:
				for _, o := range sv.origins() {
					s.unclaim(o)
				}
				delete(sp.services, name)
				delete(s.dirty, sv)
			}
		}
	}
}

func (sv *service) busy() bool {
	for _, o := range sv.origins() {
		if o.busy {
			return true
		}
	}
	return false
}

// Failed says that a local task failed to connect to an endpoint. The index of
// its namespace is polled more often for a minute, and its service read.
func (s *Source) Failed(endpoint netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.p.Now()
	for _, c := range s.addresses[endpoint] {
		o := c.origin
		if o.service.demand.IsZero() {
			continue
		}
		sp := o.service.space
		sp.fastUntil = now.Add(fastFor)
		for _, sh := range sp.shards {
			if soon := now.Add(jitter(s.random, fastPoll/2)); soon.Before(sh.due) {
				sh.due = soon
			}
		}
		if at := o.loaded.Add(fastPoll); !o.busy {
			s.schedule(o, latest(at, now), classChange)
		}
		s.cleaner.suspect(c.task, now)
		s.nudge()
	}
}
