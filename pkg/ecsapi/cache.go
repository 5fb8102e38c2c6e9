// Package ecsapi is what a node asks of ECS: the agent beside it, and the API
// for what the agent does not know. The API's quotas are shared by the whole
// account, so answers are kept, asked for in batches and within a budget.
package ecsapi

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"connectd/pkg/lb"
)

const (
	defaultRate     = 0.2              // calls a second: 200 nodes then stay at 40/s while all of them start anew
	burst           = 20               // calls: the families on a node, at its start
	callTimeout     = 10 * time.Second // of one call, credentials included
	refreshClusters = 10 * time.Minute // a default namespace hardly ever changes
	gather          = 200 * time.Millisecond
	firstBackoff    = time.Second
	maxBackoff      = 5 * time.Minute
	forgetAfter     = 24 * time.Hour // nobody has asked
	maxBatch        = 100            // tasks in one DescribeTasks
)

// Params is what a Cache needs from the daemon.
type Params struct {
	Region         string // "" means that of the environment, then of IMDSv2
	Log            *slog.Logger
	CallsPerSecond float64 // budget of all calls; 0 means 0.2. 20 may come at once

	// Changed is called when an answer, or an error, is there that was not.
	// It is called by one goroutine and must not block. nil is allowed.
	Changed func()

	// Observe counts a call that ended: its action as IAM names it, and
	// "success" or the reason of an Error. It is called from any goroutine.
	// nil is allowed.
	Observe func(action, result string)
}

// Cache answers from memory. What it does not know it looks up behind the back
// of who asks: then ok is false until Params.Changed was called, and err, an
// *Error, says why it is not known yet if a try has failed. What fails is
// tried again. A value that was known stays while it cannot be looked up anew.
//
// Its methods may be called from any goroutine.
type Cache struct {
	params     Params
	bucket     *bucket
	connection connection
	wake       chan struct{}

	mu      sync.Mutex
	entries map[key]*entry
	lanes   [kinds]lane
}

// New returns a Cache that knows nothing. It looks nothing up until Run.
func New(p Params) *Cache {
	if p.CallsPerSecond <= 0 {
		p.CallsPerSecond = defaultRate
	}
	c := &Cache{
		params:  p,
		bucket:  newBucket(p.CallsPerSecond, burst),
		wake:    make(chan struct{}, 1),
		entries: make(map[key]*entry),
	}
	c.connection.dial = func(ctx context.Context) (*session, error) { return dial(ctx, p.Region) }
	return c
}

// PortMappings returns the ports of a task definition, which is given as
// family:revision or ARN. They never change, so they are looked up once. The
// slice is shared and must not be changed.
func (c *Cache) PortMappings(taskDefinition string) (ports []lb.PortMapping, ok bool, err error) {
	v, ok, err := c.ask(key{kind: portMappings, name: taskDefinition})
	ports, _ = v.([]lb.PortMapping)
	return ports, ok, err
}

// DefaultNamespace returns the default Service Connect namespace of a cluster,
// given by name or ARN: the ARN of a namespace, or "" if the cluster has none.
// It is looked up every 10 minutes.
func (c *Cache) DefaultNamespace(cluster string) (ref string, ok bool, err error) {
	v, ok, err := c.ask(key{kind: defaultNamespace, name: cluster})
	ref, _ = v.(string)
	return ref, ok, err
}

// NamespaceName returns the name of a Cloud Map namespace, given by ARN or id.
// It is looked up once.
func (c *Cache) NamespaceName(arn string) (name string, ok bool, err error) {
	v, ok, err := c.ask(key{kind: namespaceName, name: arn})
	name, _ = v.(string)
	return name, ok, err
}

// Service returns the name of the ECS service that started a task, "" if none
// did. cluster is a name or ARN. It is looked up once for each task, for up to
// 100 tasks at once.
func (c *Cache) Service(taskARN, cluster string) (name string, ok bool, err error) {
	v, ok, err := c.ask(key{kind: taskService, cluster: cluster, name: taskARN})
	name, _ = v.(string)
	return name, ok, err
}

// Problem is an action that fails at the moment.
type Problem struct {
	Action string // as IAM names it
	Err    *Error
	Since  time.Time
}

// Problems lists the actions whose newest call has failed, for others than
// that something does not exist.
func (c *Cache) Problems() (list []Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, l := range c.lanes {
		if l.err != nil {
			list = append(list, Problem{Action: actions[k], Err: l.err, Since: l.since})
		}
	}
	return list
}
