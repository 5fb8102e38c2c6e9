package proxy

import (
	"runtime"
	"testing"
)

// TestOneProcessor: a loop that has the only processor leaves it to others
// while it waits, and serves as any does.
func TestOneProcessor(t *testing.T) {
	was := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(was) })
	w := newWorld(t, serve(t, named("good")))
	for range 20 {
		if status, body := w.get("/"); status != 200 || body != "good" {
			t.Fatalf("got %d %q", status, body)
		}
	}
	for _, l := range w.p.loops {
		if l.park == nil {
			t.Error("a loop keeps the processor while it waits")
		}
	}
}
