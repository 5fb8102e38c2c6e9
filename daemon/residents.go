package daemon

import (
	"slices"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/task"
)

// residents are all who run here: static clients, and the tasks of ECS.
type residents struct {
	static *task.Static
	node   *task.Node // nil: ECS is not looked at
}

// Tasks returns all of them. Names do not clash: those of ECS have a slash,
// and if one does all the same the plan says so.
func (r *residents) Tasks() []lb.Task {
	out := r.static.Tasks()
	if r.node != nil {
		out = slices.Concat(out, r.node.Tasks())
	}
	return out
}

// Namespace returns the network namespace of a task; nil is the node's own.
func (r *residents) Namespace(name string) (*netns.Handle, bool) {
	if ns, ok := r.static.Namespace(name); ok || r.node == nil {
		return ns, ok
	}
	return r.node.Namespace(name)
}

// ByCookie returns the namespace with a cookie, if it is a task's.
func (r *residents) ByCookie(cookie uint64) (*netns.Handle, bool) {
	if ns, ok := r.static.ByCookie(cookie); ok || r.node == nil {
		return ns, ok
	}
	return r.node.ByCookie(cookie)
}
