package aws

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// DefaultAccount and DefaultRegion are where things are that say nothing else.
const (
	DefaultAccount = "111122223333"
	DefaultRegion  = "us-east-1"
)

// Params says how a Cloud behaves. The zero value behaves as AWS does, on the
// machine's clock.
type Params struct {
	Seed   uint64           // of delays, orders and stale answers
	Region string           // "" means DefaultRegion
	Now    func() time.Time // nil means time.Now

	// MinDelay and MaxDelay bound how long an operation of Cloud Map takes
	// until DiscoverInstances shows it. MaxDelay 0 means 10 s; negative means
	// at once.
	MinDelay, MaxDelay time.Duration

	// Stale is the share of answers to DiscoverInstances that are one
	// revision behind, within StaleFor after a change. 0 means 0.02, negative
	// none; StaleFor 0 means 10 s.
	Stale    float64
	StaleFor time.Duration

	// Quotas replaces buckets of the table DefaultQuotas, by name.
	Quotas map[string]Quota

	// KeepRequests is how many requests Cloud.Requests remembers; 0 means
	// 10,000. Cloud.Calls counts without a bound.
	KeepRequests int
}

// Cloud is the state of every service, for all accounts. Its methods may be
// called from any goroutine.
type Cloud struct {
	params Params
	quotas map[string]Quota

	mu      sync.Mutex
	rng     *rand.Rand
	serial  uint64 // of ids
	pending []event
	buckets map[bucketKey]*bucket
	faults  []*Fault
	calls   map[Call]Count
	kept    []Request

	namespaces []*namespace
	services   map[string]*service // of Cloud Map, by id
	operations map[string]*operation
	finished   []string // ids of operations, oldest first

	ecs  ecsState
	data []Metrics
}

// New returns a Cloud in which nothing exists.
func New(p Params) *Cloud {
	if p.Region == "" {
		p.Region = DefaultRegion
	}
	if p.Now == nil {
		p.Now = time.Now
	}
	if p.MaxDelay == 0 {
		p.MaxDelay = 10 * time.Second
	}
	if p.Stale == 0 {
		p.Stale = 0.02
	}
	if p.StaleFor == 0 {
		p.StaleFor = 10 * time.Second
	}
	if p.KeepRequests == 0 {
		p.KeepRequests = 10_000
	}
	quotas := DefaultQuotas()
	for name, q := range p.Quotas {
		quotas[name] = q
	}
	return &Cloud{
		params:     p,
		quotas:     quotas,
		rng:        rand.New(rand.NewPCG(p.Seed, 0xa35)),
		buckets:    make(map[bucketKey]*bucket),
		calls:      make(map[Call]Count),
		services:   make(map[string]*service),
		operations: make(map[string]*operation),
		ecs:        newECSState(),
	}
}

// SetDelay changes MinDelay and MaxDelay for operations to come.
func (c *Cloud) SetDelay(least, most time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.params.MinDelay, c.params.MaxDelay = least, most
}

// SetStale changes the share of stale answers.
func (c *Cloud) SetStale(share float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.params.Stale = share
}

// event is something that happens later.
type event struct {
	at time.Time
	do func()
}

// later runs do when at has come; what is due at the same time runs in the
// order in which it was asked for. c.mu is held, also when do runs.
func (c *Cloud) later(at time.Time, do func()) {
	i := len(c.pending)
	for i > 0 && c.pending[i-1].at.After(at) {
		i--
	}
	c.pending = append(c.pending, event{})
	copy(c.pending[i+1:], c.pending[i:])
	c.pending[i] = event{at: at, do: do}
}

// settle lets happen what is due.
func (c *Cloud) settle() {
	now := c.params.Now()
	for len(c.pending) > 0 && !c.pending[0].at.After(now) {
		do := c.pending[0].do
		c.pending = c.pending[1:]
		do()
	}
}

// NextChange is when the next operation shows; ok is false when none is under
// way. A virtual clock may jump there.
func (c *Cloud) NextChange() (at time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	if len(c.pending) == 0 {
		return time.Time{}, false
	}
	return c.pending[0].at, true
}

// delay draws how long an operation takes: until it is done, and until
// DiscoverInstances shows it.
func (c *Cloud) delay() (done, shows time.Duration) {
	span := c.params.MaxDelay - c.params.MinDelay
	if c.params.MaxDelay <= 0 || span < 0 {
		return 0, 0
	}
	shows = c.params.MinDelay + time.Duration(c.rng.Float64()*float64(span))
	return time.Duration(c.rng.Float64() * float64(shows)), shows
}

// id makes an id as Cloud Map's are: a prefix and 16 letters or digits.
func (c *Cloud) id(prefix string) string {
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	c.serial++
	id := []byte(prefix)
	for range 11 {
		id = append(id, letters[c.rng.IntN(len(letters))])
	}
	return fmt.Sprintf("%s%05d", id, c.serial)
}

func (c *Cloud) arn(service, account, resource string) string {
	return "arn:aws:" + service + ":" + c.params.Region + ":" + account + ":" + resource
}
