package reconcile

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"connectd/pkg/lb"
)

// TestRandomFaults drives the loop through changes while every step may fail.
// What is published is always in the kernel (see rig.publish), and when the
// faults end, the kernel and the journal are what the planner says.
func TestRandomFaults(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) { randomFaults(t, r, rand.New(rand.NewPCG(seed, 7))) })
		})
	}
}

func randomFaults(t *testing.T, r *rig, rnd *rand.Rand) {
	faults := rand.New(rand.NewPCG(rnd.Uint64(), 1)) // the loop's goroutine
	chance := 0.02 + rnd.Float64()*0.3
	faulty := func(string) error {
		if faults.Float64() < chance {
			return errFault
		}
		return nil
	}
	r.kernel.setFault(faulty)
	r.start()
	for range 60 {
		randomEvent(r, rnd)
		switch rnd.IntN(3) {
		case 0:
			r.journal.fail(nil)
		case 1:
			r.journal.fail(errFault)
		}
		time.Sleep(time.Duration(rnd.IntN(3000)) * time.Millisecond)
	}
	synctest.Wait()
	r.kernel.setFault(func(string) error { return nil })
	r.journal.fail(nil)
	time.Sleep(2*time.Minute + time.Millisecond) // drains end, ids rest
	synctest.Wait()
	d := r.Desired()
	if d == nil {
		t.Fatal("no plan came into force")
	}
	s := r.Loop.Status()
	if s.Error != "" || s.Lag != 0 || s.Revision != d.Revision {
		t.Errorf("status %+v, revision %d", s, d.Revision)
	}
	if s.Errors == 0 {
		t.Error("no fault was met: the test tests nothing")
	}
	if err := r.kernel.holds(d); err != nil {
		t.Error(err)
	}
	r.remembers()
}

func randomEvent(r *rig, rnd *rand.Rand) {
	switch rnd.IntN(4) {
	case 0, 1:
		var services []*lb.Service
		for _, name := range []string{"a", "b", "c", "d"} {
			if rnd.IntN(4) == 0 {
				continue
			}
			s := service(name)
			for i := range 4 {
				if rnd.IntN(3) > 0 {
					e := service(name, fmt.Sprintf("10.0.%d.%d:80", name[0], i)).Endpoints[0]
					e.Weight, e.Draining = 1+uint16(rnd.IntN(3)), rnd.IntN(6) == 0
					s.Endpoints = append(s.Endpoints, e)
				}
			}
			services = append(services, s)
		}
		r.setCatalog(services...)
	case 2:
		var tasks []lb.Task
		for i := range 3 {
			if rnd.IntN(3) > 0 {
				// A cookie is one task's for ever, a task may get another.
				tasks = append(tasks, lb.Task{Name: fmt.Sprint("task-", i), Namespaces: []string{"prod"}, NetnsCookie: uint64(10*i + rnd.IntN(2) + 1)})
			}
		}
		r.setTasks(tasks...)
	case 3:
		if d := r.Desired(); d != nil && len(d.Services) > 0 {
			if s := d.Services[rnd.IntN(len(d.Services))]; len(s.Endpoints) > 0 {
				e := s.Endpoints[rnd.IntN(len(s.Endpoints))]
				r.Loop.Strike(lb.Strike{Endpoint: e.ID, Task: lb.TaskID(1 + rnd.IntN(3)), Count: 5, At: time.Now()})
				r.Loop.Verdicts([]lb.VerdictChange{{Endpoint: e.ID, Verdict: lb.Verdict(rnd.IntN(3))}})
			}
		}
	}
}
