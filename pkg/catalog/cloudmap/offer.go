package cloudmap

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// State is what a node says of an endpoint of its own.
type State uint8

const (
	Pending   State = iota // not ready yet: not registered, and no news if it is
	Healthy                // takes connections
	Unhealthy              // was ready, and is not
	Draining               // no new connections but as a last resort
)

// StateOf is what the plan says of a local endpoint. What only local callers
// saw of it is no news for other nodes: theirs see for themselves.
func StateOf(s plan.Served) State {
	switch {
	case s.Endpoint.State == lb.StateDraining:
		return Draining
	case !s.Exposed || s.Endpoint.State == lb.StatePending:
		return Pending
	case s.Endpoint.State == lb.StateUnhealthy:
		return Unhealthy
	}
	return Healthy
}

// Offer is one port that a local task serves.
type Offer struct {
	ID      string      // unique in the service and for the task's life: "<task id>-<port>"
	Service *lb.Service // name, aliases, protocol and settings; its endpoints do not count. Immutable

	Task       string // ARN of its ECS task; anything else is never cleaned by other nodes
	Cluster    string // the following three are ECS's names, "" where there are none
	ECSService string
	Family     string

	V4, V6 netip.Addr // where other nodes reach it; at least one
	Port   uint16
	Weight uint16 // 0 is 1
	Share  *int   // percent of the service's new connections that all endpoints of connectds take; nil: by weight
	State  State
}

// Problem is why something that a local task serves is not registered.
type Problem struct {
	ID      string
	Service lb.ServiceName
	Reason  string // one of the constants below
	Err     error
}

const (
	problemName       = "bad_name"
	problemAddress    = "bad_address"
	problemAttributes = "too_large"
	problemID         = "bad_id"
	problemFull       = "full"    // Cloud Map's quota
	problemInvalid    = "refused" // by Cloud Map
	problemFailed     = "failed"  // a call fails, or the namespace is not there
)

// Offer replaces the list of what local tasks serve. complete says that all
// local tasks are known, so that what is registered and not in the list has
// gone: until then nothing is deregistered.
func (s *Source) Offer(list []Offer, complete bool) {
	s.mu.Lock()
	r := &s.registrar
	before := r.offers
	r.offers, r.byService, r.addresses, r.refused = map[string]*Offer{}, map[lb.ServiceName][]*Offer{}, map[netip.AddrPort]bool{}, nil
	r.complete = complete
	for i := range list {
		o := &list[i]
		if reason, err := s.checkOffer(o); err != nil {
			p := Problem{ID: o.ID, Reason: reason, Err: err}
			if o.Service != nil {
				p.Service = o.Service.Name
			}
			r.refused = append(r.refused, p)
			continue
		}
		copied := *o
		r.offers[key(o.Service.Name, o.ID)] = &copied
		r.byService[o.Service.Name] = append(r.byService[o.Service.Name], &copied)
		for _, a := range []netip.Addr{o.V4, o.V6} {
			if a.IsValid() {
				r.addresses[netip.AddrPortFrom(a, o.Port)] = true
			}
		}
	}
	s.tellRefused()
	for _, offers := range []map[string]*Offer{before, r.offers} {
		for _, o := range offers {
			s.dirty[s.service(s.space(o.Service.Name.Namespace), o.Service.Name.DiscoveryName)] = struct{}{}
		}
	}
	s.match()
	changed := s.publish()
	s.mu.Unlock()
	if changed {
		s.p.Changed()
	}
	s.nudge()
}

// SetZone replaces Params.Zone and Params.ZoneID. What is registered is
// registered anew with them.
func (s *Source) SetZone(name, id string) {
	s.mu.Lock()
	if s.p.Zone == name && s.p.ZoneID == id {
		s.mu.Unlock()
		return
	}
	s.p.Zone, s.p.ZoneID = name, id
	if name != "" && id != "" {
		s.zoneIDs[name] = id
	}
	for _, sp := range s.spaces {
		for _, v := range sp.services {
			s.dirty[v] = struct{}{}
		}
	}
	s.match()
	changed := s.publish()
	s.mu.Unlock()
	if changed {
		s.p.Changed()
	}
	s.nudge()
}

// checkOffer says why an offer cannot be registered.
func (s *Source) checkOffer(o *Offer) (reason string, err error) {
	switch {
	case o.Service == nil || !checkDiscoveryName(o.Service.Name.DiscoveryName) || o.Service.Name.Namespace == "":
		return problemName, errors.New("register instance: it has no valid name")
	case isIndex(o.Service.Name.DiscoveryName):
		return problemName, fmt.Errorf("register instance: the name %s is taken by connectd's index", o.Service.Name.DiscoveryName)
	case !cloudNames.MatchString(s.p.Prefix + o.Service.Name.DiscoveryName):
		return problemName, fmt.Errorf("register instance: Cloud Map takes no service name %s: it has more than 63 characters or ends with -", s.p.Prefix+o.Service.Name.DiscoveryName)
	case !instanceIDs.MatchString(o.ID) || s.registrar.offers[key(o.Service.Name, o.ID)] != nil:
		return problemID, fmt.Errorf("register instance: id %q is not valid, or is there twice", o.ID)
	case o.Port == 0 || !o.V4.IsValid() && !o.V6.IsValid():
		return problemAddress, errors.New("register instance: no address or port")
	case o.V4.IsValid() && !(o.V4.Is4() && usable(o.V4) && !o.V4.IsLoopback()), o.V6.IsValid() && !(o.V6.Is6() && !o.V6.Is4In6() && usable(o.V6) && o.V6.Zone() == "" && !o.V6.IsLoopback()):
		return problemAddress, fmt.Errorf("register instance: other nodes cannot reach %s %s", o.V4, o.V6)
	}
	for _, a := range o.Service.ClientAliases {
		if !checkDNSName(a.DNSName) || a.Port == 0 {
			return problemName, fmt.Errorf("register instance: client alias %s:%d is not valid", a.DNSName, a.Port)
		}
	}
	if len(o.Service.ClientAliases) > maxAliases {
		return problemAttributes, fmt.Errorf("register instance: more than %d client aliases", maxAliases)
	}
	in := s.instanceOf(o)
	in.Since, in.Sequence = maxNumber, maxNumber // the longest that they get
	if _, err := in.encode(o.Cluster, o.ECSService, o.Family); err != nil {
		return problemAttributes, fmt.Errorf("register instance: %w", err)
	}
	return "", nil
}

// instanceOf is an offer as an instance, but for Since and Sequence.
func (s *Source) instanceOf(o *Offer) instance {
	in := instance{
		ID: o.ID, V4: o.V4, V6: o.V6, Port: o.Port, ZoneName: s.p.Zone, Zone: s.p.ZoneID, State: stateHealthy,
		Weight: max(1, o.Weight), Node: s.p.Node, Task: o.Task, Share: -1, UDP: o.Service.Protocol == lb.UDP,
		Aliases: o.Service.ClientAliases, Settings: encodeSettings(o.Service),
	}
	if len(in.Aliases) == 0 {
		in.Aliases = nil // as one that was read
	}
	if o.Share != nil {
		in.Share = min(max(*o.Share, 0), 100)
	}
	switch {
	case o.State == Draining || s.registrar.away:
		in.State = stateDraining
	case o.State == Unhealthy:
		in.State = stateUnhealthy
	}
	return in
}

// tellRefused logs what is newly refused.
func (s *Source) tellRefused() {
	told := map[string]string{}
	for _, p := range s.registrar.refused {
		text := p.Err.Error()
		if told[p.ID] = text; s.registrar.told[p.ID] != text {
			s.log.Warn("do not register what a task serves", "service", p.Service.String(), "instance", p.ID, "reason", p.Reason, "error", text)
		}
	}
	s.registrar.told = told
}

// match gives each offer its publication, and takes those away that have gone.
func (s *Source) match() {
	r := &s.registrar
	now := s.p.Now()
	for k, o := range r.offers {
		p := r.publications[k]
		if p == nil {
			p = &publication{ID: o.ID, Namespace: o.Service.Name.Namespace, Service: o.Service.Name.DiscoveryName}
			r.publications[k] = p
		}
		p.offer = o
	}
	for k, p := range r.publications {
		if r.offers[k] == nil {
			p.offer = nil
		}
		s.review(p, now)
	}
	s.forget()
}

// forget drops publications of which nothing is left.
func (s *Source) forget() {
	maps.DeleteFunc(s.registrar.publications, func(_ string, p *publication) bool {
		return p.offer == nil && p.Written.IsZero() && !p.busy
	})
}

// GoAway says that this node is about to be taken away: everything is
// registered as draining at once, and deregistered when other nodes had the
// time to see that. It is for the node's end, never for an upgrade.
func (s *Source) GoAway() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.registrar.away {
		return
	}
	s.registrar.away = true
	s.log.Warn("the node goes away: draining what its tasks serve", "instances", len(s.registrar.publications))
	s.match()
	s.nudge()
}

// Stay takes GoAway back: a Spot or scaling notice was withdrawn.
func (s *Source) Stay() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.registrar.away {
		return
	}
	s.registrar.away = false
	s.match()
	s.nudge()
}

// Registered says whether all instances of an id in a namespace are registered,
// healthy, and were seen by a read like other nodes' reads.
func (s *Source) Registered(namespace, id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := false
	for _, p := range s.registrar.publications {
		if p.ID != id || p.Namespace != namespace {
			continue
		}
		if !p.Seen || p.In.State != stateHealthy {
			return false
		}
		found = true
	}
	return found
}

// Refresh says that Params.Weights or Params.Namespaces have changed.
func (s *Source) Refresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.upkeepAt = time.Time{}
	for _, sp := range s.spaces {
		for _, sv := range sp.services {
			s.dirty[sv] = struct{}{}
		}
	}
	s.nudge()
}

// Left says how many instances this node still has registered.
func (s *Source) Left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, p := range s.registrar.publications {
		if !p.Written.IsZero() {
			n++
		}
	}
	return n
}

// Problems lists what local tasks serve and is not registered, and why.
func (s *Source) Problems() []Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Clone(s.registrar.refused)
	for _, p := range s.registrar.publications {
		if p.problem == nil {
			continue
		}
		out = append(out, Problem{p.ID, p.name(), p.reason, p.problem})
	}
	slices.SortFunc(out, func(a, b Problem) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// registrar is what this node has registered, and is to register.
type registrar struct {
	offers       map[string]*Offer // by key
	byService    map[lb.ServiceName][]*Offer
	addresses    map[netip.AddrPort]bool
	publications map[string]*publication // by key
	refused      []Problem
	told         map[string]string // refusals by id
	complete     bool
	away         bool
	sequence     uint64
}

func newRegistrar() registrar {
	return registrar{offers: map[string]*Offer{}, publications: map[string]*publication{}}
}

// key names an instance: ids are unique in a service.
func key(name lb.ServiceName, id string) string { return name.String() + "/" + id }

// holds says whether a local task serves at an address.
func (r *registrar) holds(at netip.AddrPort) bool { return r.addresses[at] }

// since is when an offer was registered first, in unix milliseconds.
func (r *registrar) since(name lb.ServiceName, id string, now time.Time) int64 {
	if p := r.publications[key(name, id)]; p != nil && !p.Written.IsZero() {
		return p.In.Since
	}
	return now.UnixMilli()
}

// uses says whether something is registered, or to be, in a namespace.
func (r *registrar) uses(namespace string) bool {
	for _, p := range r.publications {
		if p.Namespace == namespace {
			return true
		}
	}
	return false
}

// serves says the same of a service.
func (r *registrar) serves(sv *service) bool {
	for _, p := range r.publications {
		if p.Namespace == sv.space.name && p.Service == sv.name {
			return true
		}
	}
	return false
}

// next gives out a sequence number: higher than any that this node gave out,
// whatever it remembers, unless it changed more than once a second all along.
func (r *registrar) next(now time.Time) uint64 {
	r.sequence = max(r.sequence+1, uint64(max(0, now.Unix())))
	return r.sequence
}
