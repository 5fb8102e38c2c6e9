package cloudmap

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	sdtypes "github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
)

const (
	// mostlyChanged is the share of looks at an index that find a change from
	// which on it is read without asking for its revision first: that costs
	// as much.
	mostlyChanged = 0.5
	churnWeight   = 0.2 // of the latest look
	// retryRead is the pause before a service is read again whose instances
	// are not yet what the index says: registrations show within seconds. It
	// doubles, and after maxTries the two are left to contradict each other.
	retryRead = time.Second
	maxTries  = 6
	// oldAccepted is how long answers must have been older than what is known
	// until they are taken: the service was deleted and made anew.
	oldAccepted = 5 * time.Minute
	// goneAccepted is how long a service that had instances must be said not
	// to exist until that is believed.
	goneAccepted = 30 * time.Second
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

// outdated notes an answer that is older than what is known, and says whether
// that went on for so long that it must be taken.
func (s *Source) outdated(since *time.Time, now time.Time) bool {
	if since.IsZero() {
		*since = now
	}
	if now.Sub(*since) < oldAccepted {
		return false
	}
	*since = time.Time{}
	return true
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
	sh.known, sh.checked, sh.revision, sh.want, sh.back = true, now, 0, 0, retry{}
	s.setEntries(sp, sh, map[string]*indexEntry{}, map[string]int{}, now)
}

// goneLong notes that something is said not to be there, and says whether that
// went on for so long that it is believed.
func goneLong(since *time.Time, now time.Time) bool {
	if since.IsZero() {
		*since = now
	}
	return now.Sub(*since) >= goneAccepted
}

// discover reads all instances of a Cloud Map service.
func (s *Source) discover(ctx context.Context, j *job, sp *space, name string) (out *sd.DiscoverInstancesOutput, kind fault, err error) {
	kind, err = s.invoke(ctx, j, callDiscover, func(ctx context.Context) (err error) {
		out, err = s.p.API.DiscoverInstances(ctx, &sd.DiscoverInstancesInput{
			NamespaceName: &sp.httpName, ServiceName: &name, OwnerAccount: sp.account(),
			MaxResults: new(int32(maxInstances)), HealthStatus: sdtypes.HealthStatusFilterAll,
		})
		return err
	})
	return out, kind, err
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

// satisfied says whether the instances of an origin are what the index says
// of it.
func (o *origin) satisfied(sp *space) bool {
	if !o.ours {
		return true
	}
	for node, e := range sp.entries {
		if want, have, contradict := o.contradicts(node, e); contradict {
			if pair, ok := o.excused[node]; !ok || !pair[0].same(want) || !pair[1].same(have) {
				return false
			}
		}
	}
	return true
}

func (o *origin) contradicts(node string, e *indexEntry) (want, have served, contradict bool) {
	want, listed := e.Services[o.service.name]
	have = o.have[node]
	if !listed && e.More > 0 || want.Count == 0 && have.Count == 0 {
		return want, have, false
	}
	return want, have, !want.same(have)
}

// schedule has an origin read at a time at the latest. What was asked for
// before stands: the earlier of the two times, and the more urgent class.
func (s *Source) schedule(o *origin, at time.Time, c class) {
	if o.due.IsZero() {
		o.due, o.class = at, c
		return
	}
	if at.Before(o.due) {
		o.due = at
	}
	o.class = min(o.class, c)
}

// follow has an origin in demand read as often as it must be.
func (s *Source) follow(o *origin) {
	now := s.p.Now()
	switch {
	case !o.exists():
		if !o.known {
			s.settle(o, nil, 0, now) // that is an answer, too
		}
		o.staleAt = time.Time{}
	case !o.known:
		s.schedule(o, now, classFirst)
	case !o.ours || o.foreign:
		s.schedule(o, latest(o.loaded.Add(jitter(s.random, foreignEvery)), now), classForeign)
	case !o.satisfied(o.service.space):
		s.schedule(o, now, classChange)
	default:
		s.schedule(o, latest(o.loaded.Add(jitter(s.random, rereadEvery)), now), classSlow)
	}
}

// read reads the instances of a service.
func (s *Source) read(ctx context.Context, j *job) {
	sp, o := j.space, j.origin
	out, kind, err := s.discover(ctx, j, sp, o.cloudName)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.p.Now()
	switch {
	case kind == faultGone && s.lostIf(sp, err):
		o.back.fail(now, s.random, backoffLeast, backoffMost)
		return
	case kind == faultGone:
		if len(o.list) > 0 && !goneLong(&o.absent, now) {
			o.due = now.Add(jitter(s.random, goneAccepted/2))
			return
		}
		s.settle(o, nil, 0, now)
	case err != nil:
		o.back.fail(now, s.random, backoffLeast, backoffMost)
		return
	case out.InstancesRevision == nil:
		o.back.fail(now, s.random, backoffLeast, backoffMost) // not a whole answer
		return
	case *out.InstancesRevision < o.revision && !s.outdated(&o.older, now):
		s.stale++
		s.readAgain(o, now)
		return
	default:
		s.settle(o, out.Instances, *out.InstancesRevision, now)
	}
	o.due = time.Time{}
	if at := s.confirm(o, now); !at.IsZero() {
		defer func() { s.schedule(o, at, classChange) }()
	}
	if !o.satisfied(sp) {
		s.readAgain(o, now)
		return
	}
	o.tries, o.staleAt = 0, time.Time{}
	if !o.service.demand.IsZero() {
		s.follow(o)
	}
}

// readAgain reads an origin again in a moment, a few times; then what still
// differs from the index is left so until either changes.
func (s *Source) readAgain(o *origin, now time.Time) {
	if o.tries < maxTries {
		o.due, o.class = now.Add(jitter(s.random, retryRead<<o.tries)), classChange
		o.tries++
		return
	}
	o.tries, o.due, o.staleAt = 0, time.Time{}, time.Time{}
	o.excused = map[string][2]served{}
	for node, e := range o.service.space.entries {
		if want, have, contradict := o.contradicts(node, e); contradict {
			o.excused[node] = [2]served{want, have}
		}
	}
	if !o.service.demand.IsZero() {
		s.follow(o)
	}
}

// settle takes a whole answer: the instances of a service.
func (s *Source) settle(o *origin, list []sdtypes.HttpInstanceSummary, revision int64, now time.Time) {
	odd := map[string]int{}
	have := map[string]served{}
	good := make([]instance, 0, len(list))
	foreign := false
	for i := range list {
		in, reason := decodeInstance(deref(list[i].InstanceId), list[i].Attributes, list[i].HealthStatus)
		if in.Node != "" {
			h := have[in.Node]
			h.Count++
			h.Sequence = max(h.Sequence, in.Sequence)
			have[in.Node] = h
		} else {
			foreign = true
		}
		if reason == "" && s.forbidden(&in) {
			reason = reasonBadAddress
		}
		if reason != "" {
			odd[reason]++
			continue
		}
		if !in.V4.IsValid() {
			odd[reasonIPv6Only]++
		}
		if in.Zone != "" && in.ZoneName != "" && o.service.space.owner == "" {
			s.learnZone(in.ZoneName, in.Zone)
		}
		good = append(good, in)
	}
	if len(list) >= maxInstances {
		odd[reasonTooMany]++ // there may be more that the answer has no room for
	}
	slices.SortFunc(good, func(a, b instance) int { return strings.Compare(a.ID, b.ID) })
	s.unclaim(o)
	o.list, o.have, o.odd, o.foreign = good, have, odd, foreign
	s.claim(o)
	o.revision, o.loaded, o.older, o.absent, o.back = revision, now, time.Time{}, time.Time{}, retry{}
	if !o.known {
		o.known = true
		close(o.answered)
	}
	s.adopt(o)
	s.dirty[o.service] = struct{}{}
	s.soon(2 * time.Second)
}

func (s *Source) forbidden(in *instance) bool {
	for _, p := range s.p.Forbidden {
		if p.Contains(in.V4) || p.Contains(in.V6) {
			return true
		}
	}
	return false
}

// learnZone takes a zone's id from an instance that has both: ECS's own
// instances have the name only. Accounts name zones differently.
func (s *Source) learnZone(name, id string) {
	if have, ok := s.zoneIDs[name]; ok && have != id {
		if name != s.p.Zone {
			id = ""
		} else {
			id = have
		}
	}
	s.zoneIDs[name] = id
}
