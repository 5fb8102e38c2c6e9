package dns

import (
	"slices"
	"strings"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// state is one published plan as the responder sees it. It is immutable.
type state struct {
	services []*plan.Service // what table was made of
	table    *table
	tasks    []*plan.Task
	scopes   map[lb.TaskID]*scope
}

// scope is what one task may resolve.
type scope struct {
	task       *plan.Task
	namespaces []string
	suffixes   []string // search domains as ".corp.example", lower case
}

func newScope(t *plan.Task) *scope {
	s := &scope{task: t, namespaces: t.Namespaces}
	for _, domain := range t.Search {
		if domain = strings.ToLower(strings.Trim(domain, ".")); domain != "" {
			s.suffixes = append(s.suffixes, "."+domain)
		}
	}
	return s
}

// next returns the state after s for a new plan.
func (s *state) next(d *plan.Desired) *state {
	n := &state{services: d.Services, table: s.table.update(s.services, d.Services), tasks: d.Tasks, scopes: s.scopes}
	if slices.Equal(s.tasks, d.Tasks) {
		return n
	}
	n.scopes = make(map[lb.TaskID]*scope, len(d.Tasks))
	for _, t := range d.Tasks {
		if old := s.scopes[t.ID]; old != nil && old.task == t {
			n.scopes[t.ID] = old
			continue
		}
		n.scopes[t.ID] = newScope(t)
	}
	return n
}

// view is how one task sees the names at one moment.
type view struct {
	table *table
	scope *scope
	ipv6  bool // the task's network namespace has IPv6
}

// find looks up a name as asked, lower case without the last dot. search is
// the search domain that was taken off to find it, as ".corp.example", or "".
//
// A short name wins over the search domains, as it does with Service Connect,
// whose names stand in the hosts file and so never reach DNS. Most resolvers
// try the search domains before the bare name, and the two cannot be told
// apart here: "orders.corp.example" leads to the service orders even if corp
// has a host of that name. Only a service that carries the full name itself
// goes before it.
func (v view) find(name []byte) (m match, search string, ok bool) {
	if m, ok = v.table.lookup(name, v.scope.namespaces); ok {
		return m, "", true
	}
	for _, suffix := range v.scope.suffixes {
		short, ends := strip(name, suffix)
		if !ends {
			continue
		}
		if m, ok = v.table.lookup(short, v.scope.namespaces); ok {
			return m, suffix, true
		}
	}
	return match{}, "", false
}

// strip takes a search domain off a name that ends in it and has more.
func strip(name []byte, suffix string) (short []byte, ok bool) {
	n := len(name) - len(suffix)
	if n <= 0 || string(name[n:]) != suffix {
		return nil, false
	}
	return name[:n], true
}

// elsewhere finds a name that find did not, in the namespaces that the task may
// not use; with its search domains, as the task's resolver asks with them first.
func (v view) elsewhere(name []byte) match {
	if m, ok := v.table.anywhere(name); ok {
		return m
	}
	for _, suffix := range v.scope.suffixes {
		short, ends := strip(name, suffix)
		if !ends {
			continue
		}
		if m, ok := v.table.anywhere(short); ok {
			return m
		}
	}
	return match{}
}
