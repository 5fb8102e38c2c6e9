package docker

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// followFake follows a fake without cgroups, until Docker is known.
func followFake(t *testing.T, f *fake) *follower {
	t.Helper()
	w := followWith(t, Params{Host: f.host()})
	w.await(t, isKnown)
	return w
}

func isKnown(_ []Container, known bool) error {
	if !known {
		return errors.New("docker is not known")
	}
	return nil
}

// shows waits until the containers are these: "1 running", "2 exited".
func (f *follower) shows(t *testing.T, want ...string) {
	t.Helper()
	f.await(t, func(list []Container, _ bool) error {
		var got []string
		for _, c := range list {
			n, _ := strconv.ParseInt(c.ID, 16, 64)
			got = append(got, fmt.Sprintf("%d %s", n, c.State))
		}
		if strings.Join(got, ", ") != strings.Join(want, ", ") {
			return fmt.Errorf("shown are %q, want %q", got, want)
		}
		return nil
	})
}

func now() string { return time.Now().UTC().Format(time.RFC3339Nano) }

// TestDescribed: what is told of a container that runs.
func TestDescribed(t *testing.T) {
	f := newFake(t)
	f.add(1, fakeContainer{status: "running", pid: 77, started: now(), restarts: 2})
	w := followFake(t, f)
	c := w.awaitOne(t, id(1), "running", running)
	if c.Name != "c1" || c.PID != 77 || c.Restarts != 2 || c.Labels["a"] != "b" || c.ImageLabels["a"] != "b" || c.NetworkMode != "default" ||
		c.CgroupParent != "/ecs/x" || c.Hostname != id(1)[52:] || c.HostsPath != "/var/lib/docker/containers/"+id(1)+"/hosts" || c.Started.IsZero() {
		t.Errorf("%+v", c)
	}
	if got := fmt.Sprint(c.Ports); got != "[{80 tcp 0.0.0.0 32768} {80 tcp :: 32768}]" {
		t.Errorf("ports %s", got)
	}
	if s := w.Status(); !s.Connected || s.Err != nil || s.Version != "20.10.24" || s.EarlyStarts+s.LateStarts != 0 {
		t.Errorf("%+v", s)
	}
}

// TestEventsBeforeList: the list is on its way while one of its containers is
// destroyed and another is made.
func TestEventsBeforeList(t *testing.T) {
	f := newFake(t)
	f.add(1, fakeContainer{status: "created"})
	f.add(2, fakeContainer{status: "created"})
	listed, held := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	defer release()
	var again atomic.Bool
	f.onList = func() {
		if !again.Swap(true) {
			close(listed)
			<-held
		}
	}
	w := followWith(t, Params{Host: f.host()})
	<-listed
	f.remove(1)
	f.event(1, "destroy")
	f.add(3, fakeContainer{status: "created"})
	f.event(3, "create")
	w.shows(t, "3 created")
	if _, known := w.Containers(); known {
		t.Error("known before Docker's list")
	}
	release()
	w.await(t, isKnown)
	w.shows(t, "2 created", "3 created")
	if c := w.first(id(1), func(Container) bool { return true }); c.ID != "" {
		t.Errorf("shown after it was destroyed: %+v", c)
	}
	f.remove(2)
	f.event(2, "destroy")
	w.shows(t, "3 created")
}

// TestOldAnswer: what Docker said before an event is not taken after it.
func TestOldAnswer(t *testing.T) {
	f := newFake(t)
	f.add(1, fakeContainer{status: "running", pid: 5, started: now()})
	w := followFake(t, f)
	asked, held := make(chan struct{}, 10), make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	defer release()
	f.mu.Lock()
	f.onInspect = func(string) {
		asked <- struct{}{}
		<-held
	}
	f.mu.Unlock()
	f.event(1, "rename")
	<-asked
	f.set(1, func(c *fakeContainer) { c.status, c.pid = "exited", 0 })
	f.event(1, "die")
	w.shows(t, "1 exited")
	release()
	<-asked // again, so the first answer has been dealt with
	if s := w.Status(); s.LateStarts != 0 {
		t.Error("was taken for started again")
	}
	w.shows(t, "1 exited")
}

// TestReconnect: Docker goes away; what was known stays, and is compared when
// it is back.
func TestReconnect(t *testing.T) {
	f := newFake(t)
	for n := range 3 {
		f.add(n+1, fakeContainer{status: "running", pid: n + 1, started: now()})
	}
	w := followFake(t, f)
	at := time.Now()
	f.eventAt(at, 1, "kill", "signal", "15")
	w.awaitOne(t, id(1), "stopping", func(c Container) bool { return c.Stopping })
	f.stop()
	w.await(t, func([]Container, bool) error {
		if w.Status().Connected {
			return errors.New("connected")
		}
		return nil
	})
	if s := w.Status(); s.Err == nil || s.Errors == 0 {
		t.Errorf("%+v", s)
	}
	w.shows(t, "1 running", "2 running", "3 running")
	f.set(1, func(c *fakeContainer) { c.status, c.pid = "exited", 0 })
	f.remove(2)
	f.set(3, func(c *fakeContainer) { c.pid, c.started = 33, now() })
	f.add(4, fakeContainer{status: "running", pid: 4, started: now()})
	f.start()
	w.shows(t, "1 exited", "3 running", "4 running")
	w.awaitOne(t, id(3), "another process", func(c Container) bool { return c.PID == 33 })
	w.await(t, func([]Container, bool) error {
		if s := w.Status(); !s.Connected || s.Reconnects != 1 || s.Err != nil {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if want := fmt.Sprintf("%d.%09d", at.Unix(), at.Nanosecond()); f.since[len(f.since)-1] != want {
		t.Errorf("events are asked for since %q, want %s", f.since, want)
	}
}

// TestStopSignals: what marks a container as stopping, and what takes it back.
func TestStopSignals(t *testing.T) {
	for _, test := range []struct {
		stop, sent string
		want       bool
	}{
		{"", "15", true},
		{"", "1", false},
		{"", "9", true},
		{"", "3", false},
		{"SIGQUIT", "3", true},
		{"SIGQUIT", "15", false},
		{"3", "3", true},
		{"SIGHUP", "1", true},
		{"SIGRTMIN+3", "37", true},
		{"", "nonsense", false},
		{"", "", false},
	} {
		t.Run(test.stop+" "+test.sent, func(t *testing.T) {
			f := newFake(t)
			f.add(1, fakeContainer{status: "running", pid: 5, started: now(), stopSignal: test.stop})
			f.add(2, fakeContainer{status: "created"})
			w := followFake(t, f)
			f.eventAt(time.Now().Add(-time.Hour), 1, "kill", "signal", "9") // of an earlier run
			f.event(1, "kill", "signal", test.sent)
			f.remove(2)
			f.event(2, "destroy") // when it has gone, the others have been taken
			w.shows(t, "1 running")
			if list, _ := w.Containers(); list[0].Stopping != test.want {
				t.Errorf("stopping: %v", list[0].Stopping)
			}
			f.set(1, func(c *fakeContainer) { c.status, c.pid = "exited", 0 })
			f.event(1, "die")
			w.shows(t, "1 exited")
			f.set(1, func(c *fakeContainer) { c.status, c.pid, c.started = "running", 6, now() })
			f.event(1, "start")
			if c := w.awaitOne(t, id(1), "running", running); c.Stopping || c.PID != 6 {
				t.Errorf("after a new start: %+v", c)
			}
		})
	}
}

// TestRestartingIsCreated, and a die event of the run before says nothing of
// the one that is.
func TestRestartingIsCreated(t *testing.T) {
	f := newFake(t)
	f.add(1, fakeContainer{status: "running", pid: 5, started: now()})
	w := followFake(t, f)
	died := time.Now()
	f.set(1, func(c *fakeContainer) { c.status, c.pid, c.restarts = "restarting", 0, 1 })
	f.eventAt(died, 1, "die")
	w.shows(t, "1 created")
	f.set(1, func(c *fakeContainer) { c.status, c.pid, c.started = "running", 6, now() })
	f.event(1, "start")
	w.shows(t, "1 running")
	f.eventAt(died, 1, "die")
	f.set(1, func(c *fakeContainer) { c.health = "healthy" })
	f.event(1, "health_status: healthy")
	c := w.awaitOne(t, id(1), "healthy", func(c Container) bool { return c.Health == "healthy" || c.State != Running })
	if c.State != Running || c.PID != 6 || c.Restarts != 1 {
		t.Errorf("%+v", c)
	}
}

// TestGarbage: nothing that cannot be read keeps others from being shown.
func TestGarbage(t *testing.T) {
	for name, garbage := range map[string]map[string]string{
		"not JSON":  {"/containers/" + id(1) + "/json": "<html>"},
		"empty":     {"/containers/" + id(1) + "/json": "{}"},
		"bad types": {"/containers/" + id(1) + "/json": `{"Id": 7, "Config": []}`},
		"null":      {"/containers/" + id(1) + "/json": "null"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.garbage = garbage
			f.add(1, fakeContainer{status: "running", pid: 5, started: now()})
			f.add(2, fakeContainer{status: "running", pid: 6, started: now()})
			w := followFake(t, f)
			w.shows(t, "1 created", "2 running") // the list told of the first
			if s := w.Status(); s.Errors == 0 || !s.Connected {
				t.Errorf("%+v", s)
			}
			f.mu.Lock()
			f.garbage = nil
			f.mu.Unlock()
			for _, text := range []string{
				`{"Type":"container","Action":"start","Actor":{}}`, `{"Type":"network","Action":"start"}`, `null`, `{}`,
				`{"Type":"container","Action":"start","Actor":{"ID":"../x","Attributes":{"` + labelTask + `":"a"}}}`,
			} {
				f.send(text)
			}
			f.send("this is no JSON") // the stream begins anew, and all is compared
			w.shows(t, "1 running", "2 running")
		})
	}
}

// TestLocked: Docker holds a container's lock while it starts it. It is shown
// meanwhile, and so are others.
func TestLocked(t *testing.T) {
	f := newFake(t)
	w := followFake(t, f)
	held := make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	defer release()
	f.mu.Lock()
	f.onInspect = func(c string) {
		if c == id(1) {
			<-held
		}
	}
	f.mu.Unlock()
	f.add(1, fakeContainer{status: "created"})
	f.event(1, "create")
	f.add(2, fakeContainer{status: "running", pid: 6, started: now()})
	f.event(2, "create")
	f.event(2, "start")
	w.shows(t, "1 created", "2 running")
	if list, _ := w.Containers(); list[0].Labels["a"] != "b" || list[0].NetworkMode != "default" || list[0].HostsPath == "" {
		t.Errorf("%+v", list[0])
	}
	f.set(1, func(c *fakeContainer) { c.status, c.pid, c.started = "running", 7, now() })
	release()
	f.event(1, "start")
	w.shows(t, "1 running", "2 running")
	if s := w.Status(); s.EarlyStarts != 0 || s.LateStarts != 2 {
		t.Errorf("%+v", s)
	}
}

// TestGoneMeanwhile: an inspection finds no container any more.
func TestGoneMeanwhile(t *testing.T) {
	f := newFake(t)
	f.add(1, fakeContainer{status: "running", pid: 5, started: now()})
	w := followFake(t, f)
	f.event(2, "create") // which was gone before anybody asked
	f.event(2, "start")
	f.event(2, "die")
	f.remove(1)
	f.event(1, "rename") // any event has Docker asked
	w.shows(t)
	if s := w.Status(); s.Errors != 0 {
		t.Errorf("%+v", s)
	}
}

// TestMany: 500 starts at once are followed with few questions at a time.
func TestMany(t *testing.T) {
	f := newFake(t)
	w := followFake(t, f)
	const n = 500
	for i := range n {
		f.add(i, fakeContainer{status: "created"})
		f.event(i, "create")
	}
	for i := range n {
		f.set(i, func(c *fakeContainer) { c.status, c.pid, c.started = "running", i+1, now() })
		f.event(i, "start")
	}
	w.await(t, func(list []Container, _ bool) error {
		up := 0
		for _, c := range list {
			if c.State == Running && c.PID != 0 {
				up++
			}
		}
		if up != n {
			return fmt.Errorf("%d run", up)
		}
		return nil
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mostAsking > maxAsking {
		t.Errorf("%d inspections at once", f.mostAsking)
	}
	if s := w.Status(); s.LateStarts != n || s.Errors != 0 {
		t.Errorf("%+v", s)
	}
}

func TestSignalNumber(t *testing.T) {
	for s, want := range map[string]int{
		"15": 15, "SIGTERM": 15, "term": 15, "sigquit": 3, "SIGRTMIN": 34, "SIGRTMIN+3": 37, "RTMAX-1": 63, "SIGRTMAX": 64,
		"": 0, "SIGNOPE": 0, "SIGRTMIN3": 0, "SIGRTMIN+x": 0,
	} {
		if got := signalNumber(s); got != want {
			t.Errorf("signalNumber(%q) = %d, want %d", s, got, want)
		}
	}
}

func TestBadHost(t *testing.T) {
	if _, err := New(Params{Host: "nonsense"}); err == nil || !strings.Contains(err.Error(), `"nonsense"`) {
		t.Errorf("New says %v", err)
	}
}

// TestEqual: whatever a container carries makes it another when it differs.
func TestEqual(t *testing.T) {
	full := func() Container {
		return Container{ID: "i", Name: "n", Labels: map[string]string{"a": "b"}, ImageLabels: map[string]string{"a": "b"}, NetworkMode: "m",
			CgroupParent: "p", Hostname: "h", ResolvConfPath: "r", HostsPath: "o", PID: 1, Cgroup: "c", State: Running, Started: time.Unix(1, 0),
			Stopping: true, Health: "healthy", Ports: []Port{{Host: 1}}, Restarts: 1}
	}
	if a, b := full(), full(); !a.Equal(&b) {
		t.Error("equal containers are not")
	}
	for name, change := range map[string]func(*Container){
		"ID": func(c *Container) { c.ID = "" }, "Name": func(c *Container) { c.Name = "" }, "Labels": func(c *Container) { c.Labels = nil },
		"ImageLabels": func(c *Container) { c.ImageLabels = nil }, "NetworkMode": func(c *Container) { c.NetworkMode = "" },
		"CgroupParent": func(c *Container) { c.CgroupParent = "" }, "Hostname": func(c *Container) { c.Hostname = "" },
		"ResolvConfPath": func(c *Container) { c.ResolvConfPath = "" }, "HostsPath": func(c *Container) { c.HostsPath = "" },
		"PID": func(c *Container) { c.PID = 0 }, "Cgroup": func(c *Container) { c.Cgroup = "" }, "State": func(c *Container) { c.State = Exited },
		"Started": func(c *Container) { c.Started = time.Time{} }, "Stopping": func(c *Container) { c.Stopping = false },
		"Health": func(c *Container) { c.Health = "" }, "Ports": func(c *Container) { c.Ports = nil }, "Restarts": func(c *Container) { c.Restarts = 0 },
	} {
		a, b := full(), full()
		if change(&b); a.Equal(&b) {
			t.Errorf("containers that differ in %s are equal", name)
		}
	}
}
