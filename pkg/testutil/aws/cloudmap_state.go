package aws

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
)

// Limits of Cloud Map.
const (
	maxNamespaces         = 50
	maxNamespaceName      = 1024
	maxInstances          = 1000 // of a service
	maxNamespaceInstances = 2000
	maxCustomAttributes   = 30
	maxAttributeKey       = 255
	maxAttributeValue     = 1024
	maxAttributesSize     = 5000 // keys and values together, characters
	maxInstanceID         = 64
	maxServiceName        = 127
	maxDiscovered         = 1000
	defaultDiscovered     = 100
	maxFinishedOperations = 10_000 // remembered

	firstRevision int64 = 1 << 33 // revisions do not fit 32 bits
)

type namespace struct {
	id, arn, name, httpName string
	kind                    types.NamespaceType
	owner, description      string
	creator                 string // CreatorRequestId
	created                 time.Time
	shared                  map[string]bool // accounts that may use it besides its owner
	services                map[string]*service
	tags                    []types.Tag
}

type service struct {
	id, arn, name, description string
	namespace                  *namespace
	createdBy, creator         string
	created                    time.Time
	kind                       types.ServiceType
	dns                        *types.DnsConfig
	health                     *types.HealthCheckConfig
	custom                     *types.HealthCheckCustomConfig
	tags                       []types.Tag

	instances map[string]*instance  // as the control plane knows them
	busy      map[string]*operation // operations under way by instance id
	shows     map[string]time.Time  // when the newest change of an instance shows

	// What DiscoverInstances shows, and what it showed a revision ago. The
	// slices are replaced, never changed.
	visible, previous []*instance
	revision          int64
	changed           time.Time
}

// instance is immutable but for its health.
type instance struct {
	id, createdBy, creator string
	attributes             map[string]string
	health                 types.CustomHealthStatus
}

type operation struct {
	types.Operation
	account, creator string
}

// begin makes an operation that is under way until succeed's time has come.
func (c *Cloud) begin(account string, kind types.OperationType, targets map[string]string) *operation {
	now := c.params.Now()
	op := &operation{account: account, Operation: types.Operation{
		Id:           new(c.id("")),
		OwnerAccount: new(account),
		Type:         kind,
		Status:       types.OperationStatusPending,
		Targets:      targets,
		CreateDate:   new(now),
		UpdateDate:   new(now),
	}}
	c.operations[*op.Id] = op
	return op
}

// succeed ends an operation at the time at, after do.
func (c *Cloud) succeed(op *operation, at time.Time, do func()) {
	c.later(at, func() {
		do()
		op.Status, op.UpdateDate = types.OperationStatusSuccess, new(at)
		c.finished = append(c.finished, *op.Id)
		if len(c.finished) > maxFinishedOperations {
			delete(c.operations, c.finished[0])
			c.finished = c.finished[1:]
		}
	})
}

// show lets DiscoverInstances show an instance, or none if in is nil.
func (s *service) show(id string, in *instance, at time.Time) {
	i, found := slices.BinarySearchFunc(s.visible, id, func(v *instance, id string) int { return strings.Compare(v.id, id) })
	if !found && in == nil {
		return
	}
	// A registration that changes nothing moves no revision.
	same := found && in != nil && maps.Equal(s.visible[i].attributes, in.attributes)
	next := slices.Clone(s.visible)
	switch {
	case in == nil:
		next = slices.Delete(next, i, i+1)
	case found:
		next[i] = in
	default:
		next = slices.Insert(next, i, in)
	}
	if !same {
		s.previous = s.visible
		s.revision++
		s.changed = at
	}
	s.visible = next
}

// view is what DiscoverInstances answers with now: now and then what it
// answered with a revision ago.
func (c *Cloud) view(s *service) ([]*instance, int64) {
	if s.revision > firstRevision && c.params.Stale > 0 &&
		c.params.Now().Sub(s.changed) < c.params.StaleFor && c.rng.Float64() < c.params.Stale {
		return s.previous, s.revision - 1
	}
	return s.visible, s.revision
}

// seenBy says whether an account may use a namespace.
func (n *namespace) seenBy(account string) bool { return n.owner == account || n.shared[account] }

func (n *namespace) instances() (sum int) {
	for _, s := range n.services {
		sum += s.expected()
	}
	return sum
}

// expected is how many instances there are once all registrations under way
// are done.
func (s *service) expected() int {
	sum := len(s.instances)
	for id, op := range s.busy {
		if _, ok := s.instances[id]; !ok && op.Type == types.OperationTypeRegisterInstance {
			sum++
		}
	}
	return sum
}

// namespaceOf finds a namespace by id or ARN; one of another account by ARN
// only.
func (c *Cloud) namespaceOf(account string, ref *string) (*namespace, error) {
	if ref == nil || *ref == "" {
		return nil, invalid("namespace id is missing")
	}
	for _, n := range c.namespaces {
		if n.arn == *ref && n.seenBy(account) || n.id == *ref && n.owner == account {
			return n, nil
		}
	}
	return nil, &types.NamespaceNotFound{Message: new("No namespace found with ID " + *ref)}
}

// serviceOf finds a service by id or ARN; one in a namespace of another
// account by ARN only.
func (c *Cloud) serviceOf(account string, ref *string) (*service, error) {
	if ref == nil || *ref == "" {
		return nil, invalid("service id is missing")
	}
	id, isARN := *ref, false
	if i := strings.LastIndex(id, ":service/"); i >= 0 {
		id, isARN = id[i+len(":service/"):], true
	}
	s := c.services[id]
	if s == nil || (isARN && s.arn != *ref) || !s.namespace.seenBy(account) || (!isARN && s.namespace.owner != account) {
		return nil, &types.ServiceNotFound{Message: new("Service not found: " + *ref)}
	}
	return s, nil
}

// seen lists the namespaces that an account may use: its own first.
func (c *Cloud) seen(account string) (all []*namespace) {
	for _, own := range []bool{true, false} {
		for _, n := range c.namespaces {
			if n.seenBy(account) && (n.owner == account) == own {
				all = append(all, n)
			}
		}
	}
	return all
}

func (n *namespace) sorted() []*service {
	return slices.SortedFunc(maps.Values(n.services), func(a, b *service) int { return strings.Compare(a.name, b.name) })
}

func invalid(message string) error { return &types.InvalidInput{Message: new(message)} }
