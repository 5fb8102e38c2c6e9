package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/moby/moby/client"
)

// Params are what a Watcher needs.
type Params struct {
	Host       string // of the API, such as unix:///var/run/docker.sock
	CgroupRoot string // where cgroup2 is mounted; "" has Docker's word only
	Readiness  string // address that health checks of containers ask whether the task is ready; "" is none
	Log        *slog.Logger
	// Changed is called after Containers or Status changed, by several goroutines
	// at once; it must not block.
	Changed func()
}

// Status is how the Watcher stands with Docker.
type Status struct {
	Connected  bool
	Since      time.Time // when Connected changed
	Err        error     // why it is not connected
	Version    string    // Docker's, as of the last connection
	Reconnects int
	// EarlyStarts and LateStarts count starts of containers whose first process
	// was known before Docker told of the start, and those where it was not.
	EarlyStarts, LateStarts uint64
	// Errors counts what Docker refused, or answered in a way that is not
	// understood, and attempts to connect that failed.
	Errors uint64
	// CgroupErr is why starts are not seen in cgroups.
	CgroupErr error
}

// Watcher follows the ECS containers of one Docker.
type Watcher struct {
	Params

	mu      sync.Mutex
	known   bool
	entries map[string]*entry
	// cgroups are those of all containers, for one may be seen before Docker tells
	// of its container.
	cgroups map[string]seen
	// dead are containers destroyed within deadTime, by when: an answer that was
	// on its way does not bring them back.
	dead   map[string]time.Time
	images map[string]map[string]string // labels by image id
	status Status
	root   string // Docker's data root, "" not known yet
	since  int64  // time of the last event, in ns since 1970
	conn   *conn  // nil while there is none

	describe chan struct{} // holds one when an entry waits to be described
	slots    chan struct{} // one for each inspection under way
}

// conn is a connection to Docker that stands.
type conn struct {
	ctx  context.Context // ends with it
	api  *client.Client
	jobs sync.WaitGroup // inspections
}

// entry is one container. All is guarded by Watcher.mu.
type entry struct {
	Container
	described  bool // the list told of it, and its image's labels are known
	inspected  bool
	runs       bool          // Docker says so; State follows when the PID is known
	counts     bool          // its next start is one of those that are counted
	born       time.Time     // when first heard of
	stopSignal int           // that ends it, by number
	ended      int           // the process that its cgroup told to have ended
	seq        int           // counts events: an answer asked for before the last one is old
	asking     bool          // an inspection is under way
	again      bool          // another is wanted after it
	idle       chan struct{} // closed when it is over
}

// seen is a container's cgroup.
type seen struct {
	path  string
	at    time.Time
	pid   int       // its first process, 0 not known yet
	found time.Time // the process
}

const (
	// maxAsking bounds inspections under way: each is a connection to Docker, and
	// 16 keep its CPU busy.
	maxAsking = 16
	deadTime  = time.Minute
	// resyncTime is how long an event that Docker lost may matter: it drops those
	// that a reader does not take within 100 ms.
	resyncTime = time.Minute
)

var errNotAsked = errors.New("docker has not answered yet")

// New makes a Watcher of the Docker at p.Host; nothing is asked before Run.
func New(p Params) (*Watcher, error) {
	if _, err := client.ParseHostURL(p.Host); err != nil {
		return nil, fmt.Errorf("parse docker host %q: %w", p.Host, err)
	}
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	if p.Changed == nil {
		p.Changed = func() {}
	}
	return &Watcher{
		Params:   p,
		entries:  make(map[string]*entry),
		cgroups:  make(map[string]seen),
		dead:     make(map[string]time.Time),
		images:   make(map[string]map[string]string),
		status:   Status{Since: time.Now(), Err: errNotAsked},
		describe: make(chan struct{}, 1),
		slots:    make(chan struct{}, maxAsking),
	}, nil
}

// Docker needs a second or more to start: no use in asking more often, nor in
// learning of it much later.
const (
	firstPause = 50 * time.Millisecond
	maxPause   = 2 * time.Second
)

// Run follows Docker until ctx ends, through its going away and coming back.
// It returns ctx's error.
func (w *Watcher) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { w.watchCgroups(ctx) })
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		connected, err := w.follow(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.lost(err)
		if connected {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// Containers returns the containers, sorted by ID. While Docker is away they
// are those that it last told of; one whose cgroup has gone since has Exited.
// known is false until Docker answered once.
func (w *Watcher) Containers() (list []Container, known bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.entries {
		if e.described {
			list = append(list, e.Container)
		}
	}
	slices.SortFunc(list, func(a, b Container) int { return cmp.Compare(a.ID, b.ID) })
	return list, w.known
}

// Status tells how it stands with Docker.
func (w *Watcher) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// change runs fn on an entry, if it is there, and tells when it made a
// difference that others see.
func (w *Watcher) change(id string, fn func(*entry)) {
	w.mu.Lock()
	e := w.entries[id]
	if e == nil {
		w.mu.Unlock()
		return
	}
	before, was := e.Container, e.described
	fn(e)
	differs := e.described && (!was || !before.Equal(&e.Container))
	w.mu.Unlock()
	if differs {
		w.Changed()
	}
}

// meet makes an entry for a container that is heard of for the first time.
func (w *Watcher) meet(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, gone := w.dead[id]; gone || w.entries[id] != nil {
		return
	}
	w.entries[id] = &entry{Container: Container{ID: id, State: Created}, born: time.Now(), stopSignal: sigTerm}
	select {
	case w.describe <- struct{}{}:
	default:
	}
}

// forget drops a container that is no more.
func (w *Watcher) forget(id string) {
	w.mu.Lock()
	e := w.entries[id]
	delete(w.entries, id)
	now := time.Now()
	w.dead[id] = now
	for old, at := range w.dead {
		if now.Sub(at) > deadTime {
			delete(w.dead, old)
		}
	}
	w.mu.Unlock()
	if e != nil && e.described {
		w.Changed()
	}
}

// failed counts an error that concerns one container and logs it.
func (w *Watcher) failed(what, id string, err error) {
	w.mu.Lock()
	w.status.Errors++
	w.mu.Unlock()
	w.Log.Warn(what, "container", id, "error", err)
}
