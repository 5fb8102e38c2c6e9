package cloudmap

import (
	"cmp"
	"strings"
	"time"

	"connectd/pkg/lb"
)

// space is what is known of one namespace.
type space struct {
	name   string
	wanted Namespace
	used   bool      // Params.Namespaces names it
	since  time.Time // when it was first heard of

	resolved bool // the following four are known
	id, arn  string
	httpName string
	owner    string // account that owns it; "" is our own
	err      error  // why it cannot be used
	errSince time.Time
	missing  bool // a whole list of namespaces did not have it

	listed   bool // targets are all that there are
	listDue  time.Time
	listBack retry
	listBusy bool
	targets  map[string]*target   // Cloud Map services by name
	missed   map[string]time.Time // names that nothing is known of, and when they were asked for

	shards    []*shard
	entries   map[string]*indexEntry // by node
	weights   map[string]int         // connectd's percent by discoveryName
	fastUntil time.Time

	services map[string]*service // by discoveryName
	aliases  map[string][]string // dnsName -> discoveryNames
	ready    chan struct{}       // closed when index and services have been listed

	connect aliasTable // of Service Connect
	entry   ownEntry
}

// target is a Cloud Map service.
type target struct {
	id, arn string // empty: it is to be created
	busy    bool
	back    retry
}

// shard is one of a namespace's index services.
type shard struct {
	space    *space
	name     string
	known    bool
	revision int64
	want     int64   // a revision that a poll has seen
	churn    float64 // share of the latest looks that found a change, weighted by age
	tries    int     // reads in a row that were older than want
	older    time.Time
	absent   time.Time // since when it is said not to be there
	checked  time.Time // when it was last known to be as of then
	due      time.Time
	back     retry
	busy     bool
	entries  map[string]*indexEntry
	weights  map[string]int
}

// service is one name in a namespace.
type service struct {
	space   *space
	name    string
	demand  time.Time // when a local task last used it; zero is never
	inspect time.Time // when it was last read to clean up
	ours    *origin   // registered by connectds
	theirs  *origin   // made by ECS; nil where the prefix is empty
	last    []lb.ClientAlias
	built   *lb.Service
	parsed  map[string]*lb.Service // settings by text
}

// origin is one Cloud Map service that lists instances of a service.
type origin struct {
	service   *service
	cloudName string
	ours      bool

	known    bool
	answered chan struct{} // closed when known
	revision int64
	loaded   time.Time
	list     []instance // sorted by id
	foreign  bool       // some have no node: nobody's index tells of them
	have     map[string]served
	odd      map[string]int // instances by reason

	due     time.Time // zero: not to be read
	class   class
	staleAt time.Time // since when something newer is known to be there
	tries   int
	excused map[string][2]served // nodes whose index and instances contradict each other for good
	older   time.Time
	absent  time.Time // since when the service is said not to be there
	back    retry
	busy    bool
}

func (s *Source) space(name string) *space {
	sp := s.spaces[name]
	if sp == nil {
		sp = &space{
			name: name, since: s.p.Now(), wanted: Namespace{Name: name}, targets: map[string]*target{}, missed: map[string]time.Time{},
			entries: map[string]*indexEntry{}, weights: map[string]int{}, services: map[string]*service{},
			aliases: map[string][]string{}, ready: make(chan struct{}),
		}
		sp.addShard(s.p.Prefix)
		s.spaces[name] = sp
	}
	return sp
}

func (sp *space) addShard(prefix string) {
	sp.shards = append(sp.shards, &shard{space: sp, name: indexService(prefix, len(sp.shards)), entries: map[string]*indexEntry{}})
}

func (s *Source) service(sp *space, name string) *service {
	sv := sp.services[name]
	if sv == nil {
		sv = &service{space: sp, name: name, parsed: map[string]*lb.Service{}}
		sv.ours = &origin{service: sv, cloudName: s.p.Prefix + name, ours: true, answered: make(chan struct{})}
		if s.p.Prefix != "" {
			sv.theirs = &origin{service: sv, cloudName: name, answered: make(chan struct{})}
		}
		sp.services[name] = sv
	}
	return sv
}

func (sv *service) fullName() lb.ServiceName {
	return lb.ServiceName{Namespace: sv.space.name, DiscoveryName: sv.name}
}

func (sv *service) origins() []*origin {
	if sv.theirs == nil {
		return []*origin{sv.ours}
	}
	return []*origin{sv.ours, sv.theirs}
}

// ref is how a Cloud Map service is named to APIs: in a namespace of another
// account by ARN.
func (t *target) ref(sp *space) *string {
	if sp.owner != "" && t.arn != "" {
		return &t.arn
	}
	return &t.id
}

// ref is the same for a namespace.
func (sp *space) ref() *string {
	if sp.owner != "" {
		return &sp.arn
	}
	return &sp.id
}

// account is the OwnerAccount that discovery needs.
func (sp *space) account() *string {
	if sp.owner == "" {
		return nil
	}
	return &sp.owner
}

// writable is the one rule of what connectd may change: services with its
// prefix. Every call that writes asks it.
func (s *Source) writable(cloudName string) bool {
	prefix := s.p.Prefix
	if isIndex(cloudName) {
		prefix = cmp.Or(prefix, indexPrefix)
	}
	return len(cloudName) > len(prefix) && strings.HasPrefix(cloudName, prefix)
}

// bare returns the discoveryName of a Cloud Map service; ok is false for those
// that are no service of a namespace: indexes.
func (s *Source) bare(cloudName string) (name string, ok bool) {
	name = strings.TrimPrefix(cloudName, s.p.Prefix)
	return name, checkDiscoveryName(name) && !isIndex(cloudName)
}

// isKnown says that both index and services have been listed: what is in
// neither is not there.
func (sp *space) isKnown() bool {
	for _, sh := range sp.shards {
		if !sh.known {
			return false
		}
	}
	return sp.listed
}

// exists says whether an origin may have instances.
func (o *origin) exists() bool {
	sp := o.service.space
	if !sp.isKnown() || sp.targets[o.cloudName] != nil {
		return true
	}
	if !o.ours {
		return false
	}
	for _, e := range sp.entries {
		if s, ok := e.Services[o.service.name]; e.More > 0 || ok && s.Count > 0 {
			return true
		}
	}
	return false
}

// fresh returns as of when everything that is in demand is known; zero is
// never.
func (sp *space) fresh(now time.Time) time.Time {
	at := now
	older := func(t time.Time) {
		if t.Before(at) {
			at = t
		}
	}
	for _, sh := range sp.shards {
		older(sh.checked)
	}
	for _, sv := range sp.services {
		if sv.demand.IsZero() {
			continue
		}
		for _, o := range sv.origins() {
			switch {
			case !o.exists():
			case !o.staleAt.IsZero():
				older(o.staleAt)
			case !o.ours:
				older(o.loaded)
			}
		}
	}
	return at
}
