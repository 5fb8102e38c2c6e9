// Package instance knows the EC2 instance that connectd runs on: its identity,
// and whether it is on its way out.
//
// Leaving is what some notice says:
//
//	spot         spot/instance-action: EC2 interrupts a Spot Instance, two minutes
//	             ahead at best. Terminate is never taken back. An instance that is
//	             stopped or hibernated comes back, out of hibernation with this
//	             very process, so those two last as long as EC2 says so.
//	autoscaling  autoscaling/target-lifecycle-state: Terminated and Warmed:Terminated
//	             are never taken back. An instance that goes back to its group's
//	             warm pool (the other Warmed states) leaves as long as it is to be
//	             there. Detached instances stay; Standby says something of the
//	             group's own load balancers, of which ECS makes no use.
//	ecs          Params.Draining: somebody set the container instance to DRAINING,
//	             and may set it back.
//	rebalance    events/recommendations/rebalance: a Spot Instance at elevated risk.
//	             Many are not interrupted for hours, or ever, and a service is no
//	             better for it if half of its endpoints leave at once: it counts
//	             only if Params.Rebalance says so, and as long as EC2 says it.
//
// An answer that did not come changes nothing. A daemon that starts anew asks
// again, so nothing is kept over restarts.
package instance

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// Params say how to watch an instance.
type Params struct {
	// Draining says whether ECS drains the container instance. It is called
	// every Interval and must not wait. Nil is never.
	Draining func() bool
	// Rebalance makes a rebalance recommendation a reason to leave.
	Rebalance bool
	// Changed is called whenever what Leaving returns has changed, never two at
	// once. Nil is nobody.
	Changed func()
	Log     *slog.Logger // nil discards
}

// Identity is what an instance says of itself.
type Identity struct {
	Region     string
	AccountID  string
	InstanceID string
	Zone       string     // availability zone by this account's name, such as us-east-1a
	ZoneID     string     // the same in all accounts, such as use1-az1; "" is unknown
	IPv4       netip.Addr // of its first interface; zero for an instance of IPv6 alone
}

// Stats is what a Watcher counts since start.
type Stats struct {
	Errors      uint64          // looks that the metadata service did not answer in full
	LastSuccess time.Time       // of a look that it did; zero is never
	Notices     map[string]bool // whether each of Reasons stands, counted or not
}

// Watcher looks for notices.
type Watcher struct {
	p        Params
	metadata metadata

	reading  sync.Mutex // held while the first Identity is read
	identity *Identity

	mu      sync.Mutex
	notices [numNotices]notice
	stats   Stats
}

// New returns a Watcher of the instance whose metadata service the SDK's
// environment names. It asks nothing before Run or Identity.
func New(p Params) *Watcher { return newWatcher(p, newMetadata()) }

func newWatcher(p Params, m metadata) *Watcher {
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	return &Watcher{p: p, metadata: m}
}

// Leaving says whether the instance is on its way out, and why. The reason
// begins with one of Reasons.
func (w *Watcher) Leaving() (bool, string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.leaving()
}

// Stats may be called at any time.
func (w *Watcher) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.Notices = make(map[string]bool, numNotices)
	for n, word := range words {
		s.Notices[word] = w.notices[n].stands
	}
	return s
}

// Identity returns who the instance is. It asks the metadata service, 10 s at
// most, until that has answered once, and never after that. An error means that
// this is no EC2 instance, or that the service is out of reach.
func (w *Watcher) Identity(ctx context.Context) (Identity, error) {
	w.reading.Lock()
	defer w.reading.Unlock()
	if w.identity == nil {
		id, err := w.metadata.identity(ctx)
		if err != nil {
			return Identity{}, err
		}
		w.identity = &id
	}
	return *w.identity, nil
}
