package cloudmap

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	sdtypes "github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"

	"connectd/pkg/lb"
)

const (
	// listEvery is how often the services of a namespace are listed, and
	// listEveryNode how much longer it gets with each node: the account's
	// quota for lists is for all of them.
	listEvery     = 30 * time.Minute
	listEveryNode = 10 * time.Second
	// missEvery and missEveryNode are the same after somebody asked for a
	// name that nothing is known of, and missAgain how long one name waits
	// until it causes another list.
	missEvery     = time.Minute
	missEveryNode = time.Second
	missAgain     = time.Hour
	maxMissed     = 1000 // names remembered in a namespace
	// unresolvedEvery is how often a namespace is looked for that does not
	// exist.
	unresolvedEvery = 30 * time.Second
	pageSize        = 100
	maxPages        = 100 // of one list: a stop for an AWS that never ends
)

var (
	errNoNamespace = errors.New("no namespace of this name exists, or it is not shared with this account")
	errPages       = errors.New("the list does not end")
)

// upkeep asks which namespaces are used and lets demand expire, once a second.
func (s *Source) upkeep(now time.Time) {
	if !s.upkeepAt.IsZero() && now.Sub(s.upkeepAt) < upkeepEvery {
		return
	}
	s.upkeepAt = now
	used := map[string]Namespace{}
	for _, ns := range s.p.Namespaces() {
		if ns.Name != "" {
			used[ns.Name] = ns
		}
	}
	for name, ns := range used {
		sp := s.space(name)
		sp.used = true
		if sp.wanted != ns {
			sp.wanted = ns
			sp.resolved, sp.missing = false, false
		}
	}
	for name, sp := range s.spaces {
		if _, ok := used[name]; !ok && sp.used {
			sp.used = false
			s.abandon(sp)
		}
	}
	s.expire(now)
	if arn := s.p.Instance(); arn != s.instance {
		s.instance = arn
		for _, sp := range s.spaces {
			sp.entry.touch(now)
		}
	}
}

// namespaceJobs offers to look for namespaces that are used and not found yet.
func (s *Source) namespaceJobs(c *chooser) {
	for _, sp := range s.spaces {
		if !sp.resolved && (sp.used || s.registrar.uses(sp.name)) {
			due := latest(s.names.until, sp.listBack.until)
			c.offer(job{call: callListNamespaces, class: classFirst, due: due, busy: &s.listing, do: (*Source).listNamespaces})
		}
	}
}

// abandon makes a namespace that nobody uses any more leave Snapshot.
func (s *Source) abandon(sp *space) {
	for _, sv := range sp.services {
		sv.demand = time.Time{}
		for _, o := range sv.origins() {
			o.due = time.Time{}
		}
		s.dirty[sv] = struct{}{}
	}
}

func (s *Source) listNamespaces(ctx context.Context, j *job) {
	var all []sdtypes.NamespaceSummary
	var token *string
	var failed error
	for range maxPages {
		var out *sd.ListNamespacesOutput
		_, err := s.invoke(ctx, j, callListNamespaces, func(ctx context.Context) (err error) {
			out, err = s.p.API.ListNamespaces(ctx, &sd.ListNamespacesInput{MaxResults: new(int32(pageSize)), NextToken: token})
			return err
		})
		if err != nil {
			failed = err
			break
		}
		all = append(all, out.Namespaces...)
		if token = out.NextToken; token == nil {
			break
		}
		failed = errPages
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.p.Now()
	if token == nil && failed == errPages {
		failed = nil
	}
	if failed != nil {
		s.names.fail(now, s.random, backoffLeast, backoffMost)
		return
	}
	s.names = retry{}
	for _, sp := range s.spaces {
		if !sp.resolved {
			s.resolve(sp, all, now)
		}
	}
}

// resolve finds a namespace in the list of all.
func (s *Source) resolve(sp *space, all []sdtypes.NamespaceSummary, now time.Time) {
	var found *sdtypes.NamespaceSummary
	better := func(n *sdtypes.NamespaceSummary) bool {
		// Where a name was used twice, the HTTP name of one has a suffix.
		return found == nil || s.isOwn(deref(n.ResourceOwner)) && !s.isOwn(deref(found.ResourceOwner)) ||
			httpName(n) == sp.name && httpName(found) != sp.name
	}
	for i := range all {
		n := &all[i]
		switch {
		case deref(n.Name) != sp.name:
		case sp.wanted.ARN != "" && deref(n.Arn) != sp.wanted.ARN:
		case sp.wanted.OwnerAccount != "" && deref(n.ResourceOwner) != sp.wanted.OwnerAccount:
		case better(n):
			found = n
		}
	}
	if found == nil {
		if sp.err == nil {
			sp.errSince = now
			s.log.Warn("a namespace is not in Cloud Map", "namespace", sp.name, "create", s.p.CreateNamespaces)
		}
		sp.err, sp.missing = errNoNamespace, true
		sp.listBack.until = now.Add(jitter(s.random, unresolvedEvery))
		if s.p.CreateNamespaces {
			sp.listBack.until = now
		}
		return
	}
	if deref(found.Id) != sp.id {
		clear(sp.targets)
		sp.listed = false
	}
	sp.resolved, sp.missing, sp.err, sp.errSince, sp.listBack = true, false, nil, time.Time{}, retry{}
	sp.id, sp.arn, sp.httpName, sp.owner = deref(found.Id), deref(found.Arn), httpName(found), ""
	if owner := deref(found.ResourceOwner); !s.isOwn(owner) {
		sp.owner = owner
	}
	s.soon(time.Second)
}

func httpName(n *sdtypes.NamespaceSummary) string {
	if n.Properties != nil && n.Properties.HttpProperties != nil && n.Properties.HttpProperties.HttpName != nil {
		return *n.Properties.HttpProperties.HttpName
	}
	return deref(n.Name)
}

// isOwn says whether an account is this node's. Where that is not known, only
// a namespace that the config says is another's counts as one.
func (s *Source) isOwn(account string) bool {
	if own := accountOf(s.p.Instance()); own != "" && account != "" {
		return own == account
	}
	for _, sp := range s.spaces {
		if account != "" && (sp.wanted.OwnerAccount == account || accountOf(sp.wanted.ARN) == account) {
			return false
		}
	}
	return true
}

// accountOf returns the account of an ARN, or "".
func accountOf(arn string) string {
	if parts := strings.SplitN(arn, ":", 6); len(parts) == 6 && parts[0] == "arn" {
		return parts[4]
	}
	return ""
}

// createNamespace makes a namespace that is missing. It is there when it is
// listed.
func (s *Source) createNamespace(ctx context.Context, j *job) {
	_, err := s.invoke(ctx, j, callCreateNamespace, func(ctx context.Context) error {
		_, err := s.p.API.CreateHttpNamespace(ctx, &sd.CreateHttpNamespaceInput{Name: &j.space.name, CreatorRequestId: new("connectd-" + j.space.name)})
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.p.Now()
	if err != nil {
		j.space.err = err
	} else {
		s.log.Info("created a namespace", "namespace", j.space.name)
	}
	j.space.missing = false // look for it again
	j.space.listBack.fail(now, s.random, 2*time.Second, backoffMost)
}

// listServices lists the services of a namespace: which there are, and what
// they are called when instances are registered.
func (s *Source) listServices(ctx context.Context, j *job) {
	sp := j.space
	s.mu.Lock()
	filter := []sdtypes.ServiceFilter{{Name: sdtypes.ServiceFilterNameNamespaceId, Values: []string{*sp.ref()}, Condition: sdtypes.FilterConditionEq}}
	s.mu.Unlock()
	found := map[string]*target{}
	var token *string
	for page := 0; ; page++ {
		var out *sd.ListServicesOutput
		_, err := s.invoke(ctx, j, callListServices, func(ctx context.Context) (err error) {
			out, err = s.p.API.ListServices(ctx, &sd.ListServicesInput{Filters: filter, MaxResults: new(int32(pageSize)), NextToken: token})
			return err
		})
		if err != nil || page == maxPages {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.lostIf(sp, err)
			sp.listBack.fail(s.p.Now(), s.random, backoffLeast, backoffMost)
			return
		}
		for _, sv := range out.Services {
			found[deref(sv.Name)] = &target{id: deref(sv.Id), arn: deref(sv.Arn)}
		}
		if token = out.NextToken; token == nil {
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, t := range sp.targets {
		if found[name] == nil && (t.busy || t.id == "") {
			found[name] = t // being created
		} else if found[name] != nil && t.busy {
			t.id, t.arn = found[name].id, found[name].arn
			found[name] = t
		}
	}
	sp.targets, sp.listed, sp.listBack = found, true, retry{}
	sp.listDue = s.p.Now().Add(jitter(s.random, listEvery+time.Duration(s.fleet())*listEveryNode))
	s.directory(sp)
	s.soon(time.Minute)
}

// lostIf makes a namespace be looked up again if an error says that it is not
// there.
func (s *Source) lostIf(sp *space, err error) bool {
	if !isNamespaceGone(err) {
		return false
	}
	sp.resolved = false
	return true
}

// directory brings in line what follows from targets and index entries: which
// names lead to which services, and what there is to read.
func (s *Source) directory(sp *space) {
	s.listNames(sp)
	if !sp.isKnown() {
		return
	}
	select {
	case <-sp.ready:
	default:
		close(sp.ready)
	}
	for _, sv := range sp.services {
		if sv.demand.IsZero() {
			continue
		}
		for _, o := range sv.origins() {
			if o.due.IsZero() && !o.busy {
				s.follow(o)
			}
		}
	}
}

// listNames fills the table of names: aliases, discoveryNames, and these with
// the namespace.
func (s *Source) listNames(sp *space) {
	clear(sp.aliases)
	add := func(dnsName, service string) {
		if list := sp.aliases[dnsName]; !slices.Contains(list, service) {
			sp.aliases[dnsName] = append(list, service)
		}
	}
	known := func(service string, aliases []lb.ClientAlias) {
		add(service, service)
		add(service+"."+sp.name, service)
		for _, a := range aliases {
			add(a.DNSName, service)
		}
	}
	for name := range sp.targets {
		if bare, ok := s.bare(name); ok {
			known(bare, nil)
		}
	}
	told := make(map[string][]lb.ClientAlias, len(sp.aliases)) // most nodes say the same of a service
	for _, e := range sp.entries {
		for name, sv := range e.Services {
			if before, ok := told[name]; !ok || !slices.Equal(before, sv.Aliases) {
				told[name] = sv.Aliases
				known(name, sv.Aliases)
			}
		}
	}
	for name, list := range sp.connect.aliases {
		known(name, list)
	}
	for _, sv := range sp.services {
		known(sv.name, sv.last)
	}
}

// miss notes that somebody asked for a name that nothing is known of: ECS may
// have made its service a moment ago.
func (s *Source) miss(sp *space, name string, now time.Time) {
	if bare := strings.TrimSuffix(name, "."+sp.name); strings.Contains(bare, ".") || !checkDNSName(bare) {
		return
	}
	if at, ok := sp.missed[name]; ok && now.Sub(at) < missAgain {
		return
	}
	if len(sp.missed) >= maxMissed {
		clear(sp.missed)
	}
	sp.missed[name] = now
	if soon := now.Add(jitter(s.random, missEvery+time.Duration(s.fleet())*missEveryNode)); soon.Before(sp.listDue) {
		sp.listDue = soon
		sp.connect.sooner(soon)
	}
}
