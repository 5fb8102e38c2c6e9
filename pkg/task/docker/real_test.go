package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"connectd/pkg/testutil"
	engine "connectd/pkg/testutil/docker"
)

const busybox = "/bin/busybox"

// realDocker starts a dockerd with an image whose shell is busybox.
func realDocker(t *testing.T, labels map[string]string) *engine.Engine {
	t.Helper()
	e := engine.Start(t, engine.Options{})
	files := map[string]string{busybox: busybox, "/bin/sh": busybox}
	if err := e.Image(t.Context(), "busybox", files, engine.Config{Labels: labels, StopSignal: "SIGQUIT"}); err != nil {
		t.Fatal(err)
	}
	return e
}

// follower is a Watcher that runs, and all it showed.
type follower struct {
	*Watcher
	mu      sync.Mutex
	news    chan struct{} // closed and made anew at each change
	history []Container
	cancel  context.CancelFunc
}

func follow(t *testing.T, host string) *follower {
	t.Helper()
	root, err := testutil.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	return followWith(t, Params{Host: host, CgroupRoot: root})
}

func followWith(t *testing.T, p Params) *follower {
	t.Helper()
	f := &follower{news: make(chan struct{})}
	p.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	p.Changed = f.changed
	var err error
	if f.Watcher, err = New(p); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returns %v", err)
		}
	})
	return f
}

func (f *follower) changed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	list, _ := f.Containers()
	for _, c := range list {
		i := slices.IndexFunc(f.history, func(o Container) bool { return o.Equal(&c) })
		if i < 0 {
			f.history = append(f.history, c)
		}
	}
	close(f.news)
	f.news = make(chan struct{})
}

// await waits until want is nil of what is shown.
func (f *follower) await(t *testing.T, want func([]Container, bool) error) {
	t.Helper()
	for deadline := time.After(60 * time.Second); ; {
		f.mu.Lock()
		news := f.news
		f.mu.Unlock()
		list, known := f.Containers()
		err := want(list, known)
		if err == nil {
			return
		}
		select {
		case <-news:
		case <-deadline:
			t.Fatalf("%s; status %+v; shown: %+v", err, f.Status(), list)
		}
	}
}

// awaitOne waits until one container is as wanted, and returns it.
func (f *follower) awaitOne(t *testing.T, id, what string, want func(Container) bool) (c Container) {
	t.Helper()
	f.await(t, func(list []Container, _ bool) error {
		i := slices.IndexFunc(list, func(c Container) bool { return c.ID == id })
		if i < 0 {
			return fmt.Errorf("container %.12s is not shown", id)
		}
		if c = list[i]; !want(c) {
			return fmt.Errorf("container %.12s is not %s", id, what)
		}
		return nil
	})
	return c
}

func running(c Container) bool { return c.State == Running }

func sleeper(name string) engine.ContainerSpec {
	return engine.ContainerSpec{Name: name, Image: "busybox", Cmd: []string{"/bin/sh", "-c", "exec sleep 1000"}}
}

func mustTask(t *testing.T, e *engine.Engine, s engine.TaskSpec) *engine.Task {
	t.Helper()
	task, err := e.Task(t.Context(), s)
	if err != nil {
		t.Fatalf("%s\n%s", err, e.Log(10))
	}
	return task
}

// TestStartTimes tells what of a start is seen when. On Linux 6.18 with Docker
// 20.10, containerd 1.6 and runc 1.1, in ms after the request to start:
//
//	(see the log)
func TestStartTimes(t *testing.T) {
	e := realDocker(t, nil)
	f := follow(t, e.Host())
	f.await(t, func(_ []Container, known bool) error {
		if !known {
			return errors.New("not known")
		}
		return nil
	})
	stream := e.Events(t.Context(), client.EventsListOptions{Filters: make(client.Filters).Add("event", "start")})
	for _, mode := range []string{"host", "bridge", "awsvpc"} {
		for range 3 {
			dir := t.TempDir()
			said := filepath.Join(dir, "said")
			s := engine.ContainerSpec{
				Name: "app", Image: "busybox", Binds: []string{dir + ":/out"},
				Cmd: []string{"/bin/sh", "-c", "read up rest </proc/uptime; echo $up >/out/said; exec sleep 1000"},
			}
			begin := time.Now()
			task := mustTask(t, e, engine.TaskSpec{NetworkMode: mode, Containers: []engine.ContainerSpec{s}})
			id := task.Containers[0].ID
			var event time.Time
			for event.IsZero() {
				select {
				case m := <-stream.Messages:
					if m.Type == events.ContainerEventType && m.Actor.ID == id {
						event = time.Now()
					}
				case err := <-stream.Err:
					t.Fatal(err)
				}
			}
			f.awaitOne(t, id, "running", running)
			testutil.Eventually(t, 10*time.Second, func() error { _, err := os.Stat(said); return err })
			info, err := os.Stat(said)
			if err != nil {
				t.Fatal(err)
			}
			f.Watcher.mu.Lock()
			cgroup := f.cgroups[id]
			f.Watcher.mu.Unlock()
			ms := func(at time.Time) string { return fmt.Sprintf("%.1f", float64(at.Sub(begin).Microseconds())/1000) }
			t.Log(mode, "cgroup", ms(cgroup.at), "pid", ms(cgroup.found), "program", ms(info.ModTime()), "event", ms(event))
		}
	}
	t.Logf("%+v", f.Status())
	if s := f.Status(); s.EarlyStarts == 0 {
		t.Errorf("no start was seen early: %+v", s)
	}
}
