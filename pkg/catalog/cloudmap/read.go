package cloudmap

import (
	"context"
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
