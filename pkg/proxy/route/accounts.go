package route

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// maxAccounts bounds what a table counts by ECS service, over all services:
// 1.6 MiB. Beyond it requests are counted as nobody's.
const maxAccounts = 4096

// Caller counts what tasks of one ECS service, or of none, did with a service.
// It counts on when they have gone, so that sums over callers only grow.
type Caller struct {
	Owner    lb.Owner
	Counters // of tries; the bytes are those of requests
}

// Server counts the requests whose last try went to endpoints of one ECS
// service, or of none, or that no endpoint was tried for.
type Server struct {
	Owner    lb.Owner
	Requests atomic.Uint64
}

// accounts are those of one service. A reader of a caller that is there takes
// no lock and allocates nothing.
type accounts struct {
	room    *room
	callers atomic.Pointer[map[lb.Owner]*Caller] // never changed in place
	nobody  Caller
	unowned Server

	// The room's lock guards what follows.
	servers map[lb.Owner]*Server
	retired bool // the service has left the table
}

// room is what all services of a table have in accounts.
type room struct {
	mu   sync.Mutex
	used int
	most int
}

// Caller is where to count what a task does; nil is nobody.
func (a *accounts) Caller(task *plan.Task) *Caller {
	if task == nil || task.Owner == (lb.Owner{}) {
		return &a.nobody
	}
	if known := a.callers.Load(); known != nil {
		if c := (*known)[task.Owner]; c != nil {
			return c
		}
	}
	return a.open(task.Owner)
}

func (a *accounts) open(owner lb.Owner) *Caller {
	a.room.mu.Lock()
	defer a.room.mu.Unlock()
	var known map[lb.Owner]*Caller
	if p := a.callers.Load(); p != nil {
		known = *p
	}
	if c := known[owner]; c != nil {
		return c
	}
	if a.retired || a.room.used >= a.room.most {
		return &a.nobody
	}
	a.room.used++
	next := make(map[lb.Owner]*Caller, len(known)+1)
	maps.Copy(next, known)
	c := &Caller{Owner: owner}
	next[owner] = c
	a.callers.Store(&next)
	return c
}

// server is where to count requests to endpoints of an owner.
func (a *accounts) server(owner lb.Owner) *Server {
	if owner == (lb.Owner{}) {
		return &a.unowned
	}
	a.room.mu.Lock()
	defer a.room.mu.Unlock()
	if s := a.servers[owner]; s != nil {
		return s
	}
	if a.room.used >= a.room.most {
		return &a.unowned
	}
	a.room.used++
	if a.servers == nil {
		a.servers = make(map[lb.Owner]*Server)
	}
	s := &Server{Owner: owner}
	a.servers[owner] = s
	return s
}

// Ended counts a request of a task that is over. server is that of the endpoint
// that was tried last, nil if there was none.
func (a *accounts) Ended(task *plan.Task, server *Server, received, sent int64) {
	c := a.Caller(task)
	c.Received.Add(uint64(max(0, received)))
	c.Sent.Add(uint64(max(0, sent)))
	if server == nil {
		server = &a.unowned
	}
	server.Requests.Add(1)
}

// Accounts visits the accounts that have counted something.
func (a *accounts) Accounts(caller func(*Caller), server func(*Server)) {
	a.room.mu.Lock()
	defer a.room.mu.Unlock()
	visit := func(c *Caller) {
		if c.used() {
			caller(c)
		}
	}
	visit(&a.nobody)
	if known := a.callers.Load(); known != nil {
		for _, c := range *known {
			visit(c)
		}
	}
	for _, s := range append(slices.Collect(maps.Values(a.servers)), &a.unowned) {
		if s.Requests.Load() > 0 {
			server(s)
		}
	}
}

func (c *Caller) used() bool {
	n := c.Received.Load() + c.Sent.Load()
	for i := range c.Classes {
		n += c.Classes[i].Load()
	}
	return n > 0
}

// retire gives back the room of a service that leaves the table. Its last
// requests are counted as nobody's.
func (a *accounts) retire() {
	a.room.mu.Lock()
	defer a.room.mu.Unlock()
	a.retired = true
	if known := a.callers.Load(); known != nil {
		a.room.used -= len(*known)
	}
	a.room.used -= len(a.servers)
	a.callers.Store(nil)
	a.servers = nil
}

// makeRoom forgets accounts of who calls and serves no more, once there is room
// for no other: a node sees many names over the years. What they counted since
// it was read last is lost.
func (t *Table) makeRoom(tasks []*plan.Task) {
	b := &t.room
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used < b.most {
		return
	}
	calling := make(map[lb.Owner]bool, len(tasks))
	for _, task := range tasks {
		calling[task.Owner] = true
	}
	for _, e := range t.services {
		a := &e.state.accounts
		serving := make(map[*Server]bool)
		for _, endpoint := range e.endpoints {
			serving[endpoint.server.Load()] = true
		}
		b.used -= len(a.servers)
		maps.DeleteFunc(a.servers, func(_ lb.Owner, s *Server) bool { return !serving[s] })
		b.used += len(a.servers)
		known := a.callers.Load()
		if known == nil {
			continue
		}
		next := maps.Clone(*known)
		maps.DeleteFunc(next, func(o lb.Owner, _ *Caller) bool { return !calling[o] })
		b.used += len(next) - len(*known)
		a.callers.Store(&next)
	}
}
