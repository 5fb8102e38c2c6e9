package file

import (
	"os"
	"testing"
	"time"
)

func TestFollow(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/v1/c.yaml", "1")
	write(t, dir+"/v2/c.yaml", "2")
	symlink(t, "v1", dir+"/current")
	path := dir + "/current/c.yaml"
	changes, done := make(chan struct{}, 100), make(chan error, 1)
	go func() { done <- Follow(t.Context(), path, func() { changes <- struct{}{} }) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	seen := func(what string) {
		t.Helper()
		select {
		case <-changes:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s was not seen", what)
		}
		for len(changes) > 0 {
			<-changes
		}
	}
	// Nothing says when Follow stands, so the first change is made until it
	// is seen.
	for first := true; first; {
		replace(t, dir+"/v1/c.yaml", "3")
		select {
		case <-changes:
			first = false
		case <-time.After(10 * time.Millisecond):
		}
	}
	symlink(t, "v2", dir+"/next")
	if err := os.Rename(dir+"/next", dir+"/current"); err != nil {
		t.Fatal(err)
	}
	seen("a switched link")
	write(t, dir+"/v2/c.yaml", "4")
	seen("a write")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	replace(t, path, "5")
	seen("a file made again")
}
