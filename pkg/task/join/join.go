// Package join decodes what a task's Docker labels say: which namespace it
// joins, and what it serves there. It is pure: what must be looked up is named
// in the Result, and the caller decodes again when it knows.
package join

import (
	"fmt"
	"slices"
	"strings"

	"connectd/pkg/lb"
)

// Container is one container of a task, pause containers left out.
type Container struct {
	Name        string            // in the task definition
	Labels      map[string]string // as Docker merged them
	ImageLabels map[string]string // of its image
}

// Task is what is known of a task.
type Task struct {
	Family     string
	Containers []Container // in any order
	// Arriving: more containers may come. What would be wrong without them is
	// not yet.
	Arriving bool

	// PortMappings are those of the task definition, if PortsKnown. They
	// count where no container has the label connectd.ports.
	PortMappings []lb.PortMapping
	PortsKnown   bool
	// DefaultNamespace is the cluster's, a name or an ARN. "" is not known
	// yet or, with DefaultKnown, that there is none.
	DefaultNamespace string
	DefaultKnown     bool
	// NamespaceName returns the name of the namespace of an ARN, "" if there
	// is no such namespace. ok is false while that is not known; nil knows
	// nothing.
	NamespaceName func(arn string) (name string, ok bool)
}

// Result is what a task joins as. With a Problem it is neither client nor
// server, whatever else its labels say: a task that half of its configuration
// applies to would be worse than one whose absence shows.
type Result struct {
	Off        bool      // connectd.off: nothing else was looked at
	Client     bool      // may use the names of Namespaces
	Namespace  string    // it joins, or "": none, or not known
	Namespaces []string  // what it may use, in order of preference; more than one only without labels
	Services   []Service // what it serves, in the order of the label

	// NeedsPorts: Task.PortMappings must be looked up. Until then the task
	// serves nothing, but is a client.
	NeedsPorts bool
	// NeedsNamespace is what must be looked up before the task can join:
	// Default, or an ARN for Task.NamespaceName.
	NeedsNamespace string

	// Awaits: the task is Arriving, and a container that has yet to come may
	// say more. Services are those that are complete.
	Awaits bool

	Problems []Problem // that refuse the task, at most 20
	Notes    []Problem // that refuse nothing, at most 20
}

// Default is the Result.NeedsNamespace that is no ARN but the cluster's
// default.
const Default = "default"

// Service is something a task serves.
type Service struct {
	*lb.Service                // complete but for Endpoints; a value of its own for each Decode
	Port        lb.PortMapping // where; its container port is not 0
}

// Problem is one thing wrong with a task's labels, or not as one might think.
type Problem struct {
	Field  string // "label connectd.serviceConnect: services[0].portName"
	Reason string // one of Reasons
	Detail string // follows the field: `"http" is the name of no port mapping`
}

func (p Problem) String() string { return p.Field + ": " + p.Detail }

// Decode decodes the labels of a task. Equal tasks and policies have equal
// results.
func Decode(t Task, p Policy) Result {
	d := &decoder{task: t, policy: p}
	d.collect()
	if d.off() {
		d.Off = true
		return d.Result
	}
	if text, ok := d.one(labelServiceConnect); ok {
		d.serviceConnect(text)
	} else if d.unused(); len(d.Problems) == 0 && p.JoinAll {
		d.joinAll()
	}
	if len(d.Problems) > 0 {
		d.Client, d.Namespaces, d.Services, d.NeedsPorts, d.NeedsNamespace = false, nil, nil, false, ""
	}
	return d.Result
}

// decoder fills a Result.
type decoder struct {
	Result
	task   Task
	policy Policy
	labels map[string][]labelled // those that count
}

// joinAll makes a task without labels a client.
func (d *decoder) joinAll() {
	d.Namespaces = slices.Clone(d.policy.Namespaces)
	if len(d.Namespaces) == 0 {
		if name := d.namespace("ecs.join", ""); name != "" {
			d.Namespaces = []string{name}
		}
	}
	if len(d.Namespaces) > 0 {
		d.Client, d.Namespace = true, d.Namespaces[0]
	}
}

const (
	maxProblems = 20  // of each kind: who mends those sees the next
	maxText     = 300 // bytes of a field or detail, which quote what anybody may have written
)

func (d *decoder) problem(field, reason, format string, args ...any) {
	d.Problems = add(d.Problems, Problem{clip(field), reason, clip(fmt.Sprintf(format, args...))})
}

func (d *decoder) note(field, reason, format string, args ...any) {
	d.Notes = add(d.Notes, Problem{clip(field), reason, clip(fmt.Sprintf(format, args...))})
}

func add(list []Problem, p Problem) []Problem {
	if len(list) == maxProblems || slices.Contains(list, p) {
		return list
	}
	return append(list, p)
}

func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText-3], "") + "..."
}
