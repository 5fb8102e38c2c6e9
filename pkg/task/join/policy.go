package join

import (
	"path"
	"slices"
)

// Policy is what the node's config says about joining.
type Policy struct {
	JoinAll    bool          // every task is at least a client
	Namespaces []string      // that tasks may join, valid names; empty is any
	Publish    []PublishRule // empty: any family may publish any name
}

// PublishRule allows the families of task definitions that match a pattern, as
// of path.Match, to publish names. A pattern that is wrong allows nothing.
type PublishRule struct {
	Family         string
	DiscoveryNames []string
}

// Equal reports whether two policies say the same.
func (p Policy) Equal(o Policy) bool {
	return p.JoinAll == o.JoinAll && slices.Equal(p.Namespaces, o.Namespaces) &&
		slices.EqualFunc(p.Publish, o.Publish, func(a, b PublishRule) bool {
			return a.Family == b.Family && slices.Equal(a.DiscoveryNames, b.DiscoveryNames)
		})
}

// mayJoin says whether tasks may join a namespace.
func (p Policy) mayJoin(namespace string) bool {
	return len(p.Namespaces) == 0 || slices.Contains(p.Namespaces, namespace)
}

// mayPublish says whether tasks of a family may serve a name.
func (p Policy) mayPublish(family, name string) bool {
	return len(p.Publish) == 0 || slices.ContainsFunc(p.Publish, func(r PublishRule) bool {
		ok, err := path.Match(r.Family, family)
		return ok && err == nil && slices.Contains(r.DiscoveryNames, name)
	})
}
