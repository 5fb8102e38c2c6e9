package cloudmap

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"time"

	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
)

const (
	// entryAfter is how long the index waits for more changes, entryEvery how
	// long at least between two writes: every node reads the index after each.
	entryAfter = 500 * time.Millisecond
	entryEvery = 2 * time.Second
	// entryUnseen is how long this node's entry may not be in the index
	// before it is written again.
	entryUnseen = time.Minute
)

// ownEntry is this node's entry in the index of a namespace.
type ownEntry struct {
	attrs   map[string]string // as written last; nil: it is not there
	shard   int               // where
	written time.Time
	since   time.Time // since when it is to be written; zero: it is as it should be
	begun   bool      // it was compared with what there is
	busy    bool
	back    retry
}

func (e *ownEntry) touch(now time.Time) {
	if e.since.IsZero() {
		e.since = now
	}
}

// entryOf is what this node has to say in the index of a namespace.
func (s *Source) entryOf(sp *space) *indexEntry {
	e := &indexEntry{Node: s.p.Node, Instance: s.p.Instance(), Services: map[string]served{}, More: s.registrar.sequence}
	for _, p := range s.registrar.publications {
		if p.Namespace != sp.name || p.Written.IsZero() {
			continue
		}
		sv := e.Services[p.Service]
		sv.Count++
		if sv.Sequence < p.In.Sequence {
			sv.Sequence, sv.Aliases = p.In.Sequence, p.In.Aliases
		}
		e.Services[p.Service] = sv
	}
	for key, sequence := range s.cleaner.notices {
		if name, ok := strings.CutPrefix(key, sp.name+"/"); ok && e.Services[name].Count == 0 {
			e.Services[name] = served{Sequence: sequence}
		}
	}
	return e
}

// entryJob offers to write this node's entry, or to take it out.
func (s *Source) entryJob(c *chooser, sp *space) {
	e := &sp.entry
	if !e.begun {
		e.begun = true
		e.touch(c.now)
		for i, sh := range sp.shards { // of an earlier run
			if own := sh.entries[s.p.Node]; own != nil {
				e.shard, e.attrs = i, own.encode()
			}
		}
	}
	if e.since.IsZero() {
		return
	}
	if e.shard >= len(sp.shards) || e.attrs == nil {
		e.shard = 0
		for e.shard < len(sp.shards)-1 && len(sp.shards[e.shard].entries) >= shardFull {
			e.shard++
		}
	}
	name := sp.shards[e.shard].name
	if t := sp.targets[name]; t == nil || t.id == "" {
		if !s.registrar.away {
			s.createJob(c, sp, name)
		}
		return
	}
	j := job{
		call: callRegister, class: classRegister, due: latest(latest(e.since.Add(entryAfter), e.written.Add(entryEvery)), e.back.until),
		busy: &e.busy, space: sp, name: name, do: (*Source).writeEntry,
	}
	if s.registrar.away && s.leftIn(sp) == 0 {
		if e.attrs == nil {
			e.since = time.Time{}
			return
		}
		j.call, j.do = callDeregister, (*Source).removeEntry
	}
	c.offer(j)
}

func (s *Source) leftIn(sp *space) (n int) {
	for _, p := range s.registrar.publications {
		if p.Namespace == sp.name && !p.Written.IsZero() {
			n++
		}
	}
	return n
}

func (s *Source) writeEntry(ctx context.Context, j *job) {
	sp, e := j.space, &j.space.entry
	s.mu.Lock()
	begun := s.p.Now()
	attrs := s.entryOf(sp).encode()
	t := sp.targets[j.name]
	if t == nil || maps.Equal(attrs, e.attrs) || !s.writable(j.name) {
		e.since = time.Time{}
		s.mu.Unlock()
		return
	}
	e.since = time.Time{}
	ref := *t.ref(sp)
	sequence := s.registrar.next(begun)
	s.mu.Unlock()
	kind, err := s.invoke(ctx, j, callRegister, func(ctx context.Context) error {
		_, err := s.p.API.RegisterInstance(ctx, &sd.RegisterInstanceInput{
			ServiceId: &ref, InstanceId: &s.p.Node, Attributes: attrs,
			CreatorRequestId: new(s.p.Node + "-" + strconv.FormatUint(sequence, 10)),
		})
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.p.Now()
	if err == nil {
		e.attrs, e.written, e.back = attrs, now, retry{}
		s.soon(time.Second)
		return
	}
	s.entryFailed(sp, j.name, kind, err, begun, now)
}

func (s *Source) removeEntry(ctx context.Context, j *job) {
	sp, e := j.space, &j.space.entry
	s.mu.Lock()
	begun := s.p.Now()
	t := sp.targets[j.name]
	if t == nil || !s.writable(j.name) {
		s.mu.Unlock()
		return
	}
	e.since = time.Time{}
	ref := *t.ref(sp)
	s.mu.Unlock()
	kind, err := s.invoke(ctx, j, callDeregister, func(ctx context.Context) error {
		_, err := s.p.API.DeregisterInstance(ctx, &sd.DeregisterInstanceInput{ServiceId: &ref, InstanceId: &s.p.Node})
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil || kind == faultGone {
		e.attrs, e.back = nil, retry{}
		return
	}
	s.entryFailed(sp, j.name, kind, err, begun, s.p.Now())
}

func (s *Source) entryFailed(sp *space, name string, kind fault, err error, begun, now time.Time) {
	e := &sp.entry
	e.touch(begun)
	most := backoffMost
	switch kind {
	case faultBusy:
		most = busyMost
	case faultGone:
		delete(sp.targets, name)
		s.lostIf(sp, err)
	case faultFull:
		if e.shard == len(sp.shards)-1 && len(sp.shards) < maxShards {
			sp.addShard(s.p.Prefix)
		}
		e.shard = min(e.shard+1, len(sp.shards)-1)
		e.attrs = map[string]string{} // not nil: the shard is chosen
	}
	e.back.fail(now, s.random, backoffLeast, most)
}

// checkEntry has this node's entry written again that is not in the index.
func (s *Source) checkEntry(sp *space, now time.Time) {
	e := &sp.entry
	if e.attrs == nil || e.busy || !e.since.IsZero() || now.Sub(e.written) < entryUnseen || s.registrar.away {
		return
	}
	if own := sp.entries[s.p.Node]; own == nil || !maps.Equal(own.encode(), e.attrs) {
		e.attrs = map[string]string{}
		e.touch(now)
	}
}
