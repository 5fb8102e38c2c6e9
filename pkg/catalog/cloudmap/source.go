package cloudmap

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"connectd/pkg/catalog"
	"connectd/pkg/lb"
)

const (
	// inFlight is how many calls a node makes at once: enough that one that
	// hangs does not hold up the others.
	inFlight = 4
	// callTimeout bounds one call. Cloud Map answers within 100 ms.
	callTimeout = 5 * time.Second
	// fastFor and fastPoll: how long and how often the index is polled after
	// something changed, or somebody failed to connect.
	fastFor  = time.Minute
	fastPoll = 2 * time.Second
	// foreignEvery is how often a service is read that ECS made: its health
	// moves no revision.
	foreignEvery = 30 * time.Second
	// rereadEvery is how often a service in demand is read though the index
	// says that nothing changed.
	rereadEvery = 15 * time.Minute
	// lateAfter is the age from which the log says so, once a minute.
	lateAfter = time.Minute
	// upkeepEvery is how often Params.Namespaces is asked and demand expires.
	upkeepEvery = time.Second
)

// Namespace is a Cloud Map namespace that this node uses.
type Namespace struct {
	Name string
	// ARN, or the account that owns it, tells a namespace of another account
	// from one's own of the same name. Both may be empty.
	ARN, OwnerAccount string
}

// Params are what a Source is made of.
type Params struct {
	Log *slog.Logger
	API API
	ECS ECS // nil: nothing is cleaned, and aliases of Service Connect are not known

	Node     string        // id of this node, unique: EC2 instance id or host name, as an instance id of Cloud Map
	Instance func() string // ARN of its ECS container instance; nil or "": not known
	Zone     string        // availability zone's name, such as us-east-1a; "" is unknown
	ZoneID   string        // its id, such as use1-az1; "" is unknown

	Prefix           string         // of the services that connectd writes: "cd--"
	Register         bool           // false: nothing is written
	CreateNamespaces bool           // create namespaces that are missing
	PollEvery        time.Duration  // of an index; default 10 s
	CallsPerSecond   float64        // budget of this node; default 0.2
	StateDir         string         // where cloudmap.json is kept; "" keeps nothing
	Forbidden        []netip.Prefix // prefixes no endpoint may be in: the VIP ranges

	// Namespaces lists those of the config, of tasks and of clients. It must
	// not block, and not call the Source.
	Namespaces func() []Namespace
	// Weights, if set, is the config's share in percent of a service's new
	// connections for endpoints that a connectd registered, the rest being
	// for those of ECS. It goes before what Cloud Map says.
	Weights func(lb.ServiceName) (percent int, ok bool)
	// Changed, if set, is called after each change of what Snapshot or
	// Registered returns. It must not block.
	Changed func()
	// Now is the clock; nil is time.Now. Run needs that one.
	Now func() time.Time
}

// Source reads namespaces and registers what local tasks serve. Its methods
// may be called from any goroutine; Run runs once.
type Source struct {
	p    Params
	log  *slog.Logger
	kick chan struct{} // something may be due earlier

	mu        sync.Mutex // guards all that follows
	random    *rand.Rand
	spaces    map[string]*space
	upkeepAt  time.Time
	instance  string // what Params.Instance said last
	names     retry  // of ListNamespaces
	listing   bool   // ListNamespaces is under way
	bucket    bucket // all calls
	reads     bucket // of them, those that follow what others do: see fleetBurst
	apis      map[call]*apiState
	addresses map[netip.AddrPort][]claim
	registrar registrar
	cleaner   cleaner
	zoneIDs   map[string]string // availability zone name -> id, as instances say; "" is ambiguous
	dirty     map[*service]struct{}
	services  []*lb.Service                    // what Snapshot returns
	own       map[lb.ServiceName][]lb.Endpoint // what Own returns; never written to
	revision  uint64
	saveAt    time.Time // zero: nothing to save
	confirmed bool      // an instance of ours was seen for the first time
	stale     uint64    // answers that were older than what was known
}

// apiState is what is known of one API.
type apiState struct {
	retry
	outcomes [len(faults)]uint64
	err      error     // of the latest call; nil if it succeeded
	since    time.Time // since when calls fail
}

// New returns a Source that knows what the last run knew.
func New(p Params) (*Source, error) {
	switch {
	case !instanceIDs.MatchString(p.Node) || strings.HasPrefix(p.Node, weightsID):
		return nil, fmt.Errorf("open cloud map: node %q is no id of at most %d characters, or begins with %s", p.Node, maxInstanceID, weightsID)
	case p.API == nil || p.Namespaces == nil:
		return nil, errors.New("open cloud map: no API or no namespaces")
	}
	p.fill()
	h := fnv.New64a()
	h.Write([]byte(p.Node))
	s := &Source{
		p: p, log: p.Log.With("component", "cloudmap"), kick: make(chan struct{}, 1),
		random:    rand.New(rand.NewPCG(h.Sum64(), uint64(p.Now().UnixNano()))),
		spaces:    map[string]*space{},
		bucket:    bucket{tokens: burst, most: burst, rate: p.CallsPerSecond, at: p.Now()},
		reads:     bucket{tokens: burst, most: burst, rate: p.CallsPerSecond, at: p.Now()},
		apis:      map[call]*apiState{},
		addresses: map[netip.AddrPort][]claim{},
		zoneIDs:   map[string]string{},
		dirty:     map[*service]struct{}{},
		registrar: newRegistrar(),
		cleaner:   newCleaner(),
	}
	if p.Zone != "" && p.ZoneID != "" {
		s.zoneIDs[p.Zone] = p.ZoneID
	}
	if err := s.load(); err != nil {
		s.log.Warn("start without what was known: the state file cannot be read", "path", s.statePath(), "error", err)
	}
	s.publish()
	return s, nil
}

func (p *Params) fill() {
	if p.PollEvery <= 0 {
		p.PollEvery = 10 * time.Second
	}
	if p.CallsPerSecond <= 0 {
		p.CallsPerSecond = 0.2
	}
	if p.Now == nil {
		p.Now = time.Now
	}
	if p.Changed == nil {
		p.Changed = func() {}
	}
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	if p.Instance == nil {
		p.Instance = func() string { return "" }
	}
}

// Run reads and registers until ctx ends, and returns nil then. What is
// registered stays: see GoAway.
func (s *Source) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer s.save(true)
	defer running.Wait()
	slots := make(chan struct{}, inFlight)
	timer := time.NewTimer(0)
	defer timer.Stop()
	late := time.NewTicker(lateAfter)
	defer late.Stop()
	for {
		s.save(false)
		s.mu.Lock()
		j, wake := s.pick(s.p.Now())
		changed := s.publish() // upkeep may have changed something
		s.mu.Unlock()
		if changed {
			s.p.Changed()
		}
		if j != nil {
			slots <- struct{}{} // callTimeout bounds the wait
			running.Go(func() {
				s.run(ctx, j)
				<-slots
				s.nudge()
			})
			continue
		}
		timer.Reset(max(wake.Sub(s.p.Now()), time.Millisecond))
		select {
		case <-ctx.Done():
			return nil
		case <-s.kick:
		case <-timer.C:
		case <-late.C:
			s.tellLate()
		}
	}
}

// Step makes the one call that is due and most urgent, and reports when the
// next is. It is Run for a clock that somebody else moves, and for one
// goroutine.
func (s *Source) Step(ctx context.Context) (wake time.Time, called bool) {
	s.save(false)
	s.mu.Lock()
	j, wake := s.pick(s.p.Now())
	changed := s.publish()
	s.mu.Unlock()
	if changed {
		s.p.Changed()
	}
	if j == nil {
		return wake, false
	}
	s.run(ctx, j)
	return s.p.Now(), true
}

// Snapshot returns the services in demand, sorted by name, and the state of each namespace, sorted by name: Loaded is
// the moment as of which all of it in demand is known. A service that did not
// change is the same pointer again.
func (s *Source) Snapshot() ([]*lb.Service, []catalog.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.p.Now()
	status := make([]catalog.Status, 0, len(s.spaces))
	for _, sp := range s.sorted() {
		st := catalog.Status{Path: "cloudMap " + sp.name, Loaded: sp.fresh(now)}
		for _, sv := range sp.services {
			if sv.built != nil {
				st.Services++
			}
		}
		st.Err, st.Since = s.trouble(sp)
		status = append(status, st)
	}
	return s.services, status
}

func (s *Source) sorted() []*space {
	out := make([]*space, 0, len(s.spaces))
	for _, sp := range s.spaces {
		out = append(out, sp)
	}
	slices.SortFunc(out, func(a, b *space) int { return strings.Compare(a.name, b.name) })
	return out
}

// trouble is why a namespace may not be as known, and since when.
func (s *Source) trouble(sp *space) (error, time.Time) {
	if sp.err != nil {
		return sp.err, sp.errSince
	}
	for _, c := range []call{callListNamespaces, callRevision, callDiscover} {
		if a := s.apis[c]; a != nil && a.err != nil {
			return a.err, a.since
		}
	}
	return nil, time.Time{}
}

// tellLate logs which namespaces are not known as of now.
func (s *Source) tellLate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.p.Now()
	for _, sp := range s.sorted() {
		at := sp.fresh(now)
		if !sp.used || now.Sub(at) <= lateAfter {
			continue
		}
		age := "never known"
		if !at.IsZero() {
			age = now.Sub(at).Round(time.Second).String()
		}
		err, _ := s.trouble(sp)
		s.log.Warn("what is known of a namespace is old", "namespace", sp.name, "age", age, "error", err)
	}
}

// nudge makes Run look again.
func (s *Source) nudge() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// soon asks for the state to be saved within d.
func (s *Source) soon(d time.Duration) {
	if at := s.p.Now().Add(d); s.saveAt.IsZero() || at.Before(s.saveAt) {
		s.saveAt = at
	}
}
