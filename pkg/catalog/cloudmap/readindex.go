package cloudmap

import (
	"context"
	"maps"
	"strings"
	"time"

	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	sdtypes "github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
)

// pollIndex asks for the revision of an index.
func (s *Source) pollIndex(ctx context.Context, j *job) {
	sp, sh := j.space, j.shard
	var out *sd.DiscoverInstancesRevisionOutput
	kind, err := s.invoke(ctx, j, callRevision, func(ctx context.Context) (err error) {
		out, err = s.p.API.DiscoverInstancesRevision(ctx, &sd.DiscoverInstancesRevisionInput{
			NamespaceName: &sp.httpName, ServiceName: &sh.name, OwnerAccount: sp.account(),
		})
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.p.Now()
	sh.due = now.Add(s.pollPause(sp, now))
	switch {
	case kind == faultGone:
		s.goneOrLost(sp, sh, err, now)
	case err != nil:
		sh.back.fail(now, s.random, backoffLeast, backoffMost)
	case out.InstancesRevision == nil:
	case *out.InstancesRevision > sh.revision:
		sh.want, sh.tries, sh.due = *out.InstancesRevision, 0, now
		sh.looked(true)
	case *out.InstancesRevision < sh.revision:
		s.stale++
		if s.outdated(&sh.older, now) {
			sh.revision, sh.want, sh.due = 0, *out.InstancesRevision, now
		}
	default:
		sh.checked, sh.older, sh.back = now, time.Time{}, retry{}
		sh.looked(false)
	}
}

// looked notes whether a look at the index found a change.
func (sh *shard) looked(changed bool) {
	sh.churn *= 1 - churnWeight
	if changed {
		sh.churn += churnWeight
	}
}

// pollPause is the time to the next poll of an index.
func (s *Source) pollPause(sp *space, now time.Time) time.Duration {
	every := s.p.PollEvery
	if now.Before(sp.fastUntil) {
		every = min(every, fastPoll)
	}
	return jitter(s.random, every)
}

// goneOrLost takes that there is no index: nobody has registered yet, or the
// namespace is another one by now.
func (s *Source) goneOrLost(sp *space, sh *shard, err error, now time.Time) {
	if s.lostIf(sp, err) {
		sh.back.fail(now, s.random, backoffLeast, backoffMost)
		return
	}
	if len(sh.entries) > 0 && !goneLong(&sh.absent, now) {
		return
	}
	same := sh.known && len(sh.entries) == 0 && len(sh.weights) == 0
	sh.known, sh.checked, sh.revision, sh.want, sh.back = true, now, 0, 0, retry{}
	if same {
		s.checkEntry(sp, now)
		return // the next shard of a large fleet may not be there for days, and is polled all the same
	}
	s.setEntries(sp, sh, map[string]*indexEntry{}, map[string]int{}, now)
}

// readIndex reads the entries of an index.
func (s *Source) readIndex(ctx context.Context, j *job) {
	sp, sh := j.space, j.shard
	out, kind, err := s.discover(ctx, j, sp, sh.name)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.p.Now()
	switch {
	case kind == faultGone:
		sh.due = now.Add(s.pollPause(sp, now))
		s.goneOrLost(sp, sh, err, now)
		return
	case err != nil:
		sh.back.fail(now, s.random, backoffLeast, backoffMost)
		return
	case out.InstancesRevision == nil:
		sh.back.fail(now, s.random, backoffLeast, backoffMost) // not a whole answer
		return
	case *out.InstancesRevision < sh.revision && !s.outdated(&sh.older, now), *out.InstancesRevision < sh.want && sh.tries < maxTries:
		s.stale++
		sh.tries++
		sh.due = now.Add(jitter(s.random, retryRead))
		if sh.tries > maxTries {
			sh.tries, sh.want = 0, sh.revision
		}
		if *out.InstancesRevision <= sh.revision {
			return // nothing new in it
		}
	default:
		if sh.known && sh.want <= sh.revision { // no poll before it
			sh.looked(*out.InstancesRevision != sh.revision)
		}
		sh.tries, sh.want = 0, *out.InstancesRevision
		sh.checked, sh.older = now, time.Time{}
		sh.due = now.Add(s.pollPause(sp, now))
	}
	same := sh.known && *out.InstancesRevision == sh.revision
	sh.known, sh.absent, sh.revision, sh.back = true, time.Time{}, *out.InstancesRevision, retry{}
	if same {
		return
	}
	entries, weights := sh.decode(out.Instances)
	s.setEntries(sp, sh, entries, weights, now)
}

// decode reads what an index lists. An entry that does not parse says nothing:
// the one before it stays.
func (sh *shard) decode(list []sdtypes.HttpInstanceSummary) (entries map[string]*indexEntry, weights map[string]int) {
	entries, weights = make(map[string]*indexEntry, len(list)), map[string]int{}
	for i := range list {
		in := &list[i]
		id := deref(in.InstanceId)
		if strings.HasPrefix(id, weightsID) {
			decodeWeights(in.Attributes, weights)
			continue
		}
		old := sh.entries[id]
		if old != nil && maps.Equal(old.raw, in.Attributes) {
			entries[id] = old
			continue
		}
		e, err := decodeIndex(id, in.Attributes)
		if err == nil {
			entries[id] = e
		} else if old != nil {
			entries[id] = old
		}
	}
	return entries, weights
}

// setEntries takes the entries of one shard, and has those services read that
// they say have changed.
func (s *Source) setEntries(sp *space, sh *shard, entries map[string]*indexEntry, weights map[string]int, now time.Time) {
	before, moved := sp.entries, sp.weights
	sh.entries, sh.weights = entries, weights
	sp.entries, sp.weights = map[string]*indexEntry{}, map[string]int{}
	for _, each := range sp.shards {
		maps.Copy(sp.entries, each.entries)
		maps.Copy(sp.weights, each.weights)
	}
	if last := sp.shards[len(sp.shards)-1]; last.known && len(last.entries) >= shardFull && len(sp.shards) < maxShards {
		sp.addShard(s.p.Prefix)
	}
	changed := map[string]bool{}
	for node, e := range sp.entries {
		if old := before[node]; old != e {
			compareEntries(sp, old, e, changed)
		}
	}
	for node, old := range before {
		if sp.entries[node] == nil {
			compareEntries(sp, old, nil, changed)
		}
	}
	s.directory(sp)
	for name, forced := range changed {
		sv := sp.services[name]
		if sv == nil || sv.demand.IsZero() {
			continue
		}
		if o := sv.ours; o.known && (forced || !o.satisfied(sp)) {
			o.tries = 0
			if o.staleAt.IsZero() {
				o.staleAt = now
			}
			s.schedule(o, now, classChange)
		}
		sp.fastUntil = now.Add(fastFor)
	}
	for name, sv := range sp.services {
		if a, ok := moved[name]; a != sp.weights[name] || ok != has(sp.weights, name) {
			s.dirty[sv] = struct{}{}
		}
	}
	s.checkEntry(sp, now)
}

func has[V any](m map[string]V, key string) bool {
	_, ok := m[key]
	return ok
}

// compareEntries notes which services differ between what a node said and
// says; nil is nothing. The value is true where the instances themselves do not
// tell whether they are as new as the entry: it is gone, or its node tells what
// it cleaned up after others.
func compareEntries(sp *space, old, is *indexEntry, changed map[string]bool) {
	vanished := is == nil
	if old == nil {
		old = &indexEntry{}
	}
	if vanished {
		is = &indexEntry{}
	}
	for name, a := range old.Services {
		if b := is.Services[name]; !a.same(b) {
			changed[name] = changed[name] || vanished || a.Count == 0 || b.Count == 0
		}
	}
	for name, b := range is.Services {
		if a := old.Services[name]; !a.same(b) {
			changed[name] = changed[name] || b.Count == 0
		}
	}
	if old.More != is.More {
		for name := range sp.services {
			if _, listed := is.Services[name]; !listed {
				changed[name] = true
			}
		}
	}
}
