package file

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"connectd/pkg/catalog"
	"connectd/pkg/lb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// generate is a catalog file with services of endpoints each.
func generate(first, services, endpoints int) []byte {
	var b strings.Builder
	b.WriteString("namespace: prod\nservices:\n")
	for s := first; s < first+services; s++ {
		fmt.Fprintf(&b, "  - discoveryName: service-%d\n    clientAliases: [{dnsName: service-%d, port: 80}]\n    endpoints:\n", s, s)
		for e := range endpoints {
			fmt.Fprintf(&b, "      - {address: 10.%d.%d.%d, port: 8080, zone: use1-az%d, weight: 1}\n", s>>8, s&255, e+1, e%3+1)
		}
	}
	return []byte(b.String())
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// replace puts content at path by a rename, as configuration tools do.
func replace(t testing.TB, path, content string) {
	t.Helper()
	tmp := filepath.Join(t.TempDir(), "new")
	write(t, tmp, content)
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
}

// one is a file with one service that has one endpoint.
func one(name, address string) string {
	return fmt.Sprintf("namespace: prod\nservices:\n- discoveryName: %s\n  clientAliases: [{dnsName: %s, port: 80}]\n  endpoints: [{address: %s, port: 80}]\n", name, name, address)
}

func globs(patterns ...string) []Glob {
	var out []Glob
	for i, p := range patterns {
		g := Glob{Pattern: p}
		g.Origin.File, g.Origin.Line, g.Origin.Field = "connectd.yaml", i+1, fmt.Sprintf("catalog.files[%d]", i)
		out = append(out, g)
	}
	return out
}

// world is a Source that watches a directory.
type world struct {
	*Source
	t       *testing.T
	dir     string
	changes chan struct{}
}

func start(t *testing.T, dir string, patterns ...string) *world {
	t.Helper()
	w := &world{t: t, dir: dir, changes: make(chan struct{}, 1000)}
	w.Source = New(Params{Dir: dir, Globs: globs(patterns...), Log: slog.New(slog.DiscardHandler), Changed: func() { w.changes <- struct{}{} }})
	if err := w.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.run()
	return w
}

// run starts Run. A file made before it watches is seen by its first look.
func (w *world) run() {
	done := make(chan error, 1)
	ctx := w.t.Context()
	go func() { done <- w.Run(ctx) }()
	w.t.Cleanup(func() {
		if err := <-done; err != nil {
			w.t.Errorf("run: %v", err)
		}
	})
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// list is "cache=10.0.0.1 orders=10.0.0.2" and the files in error.
func (w *world) list() string {
	services, status := w.Snapshot()
	var b []string
	for _, s := range services {
		b = append(b, s.Name.DiscoveryName+"="+addresses(s))
	}
	for _, st := range status {
		if st.Err != nil {
			b = append(b, "!"+filepath.Base(st.Path))
		}
	}
	return strings.Join(b, " ")
}

func addresses(s *lb.Service) string {
	var b []string
	for _, e := range s.Endpoints {
		b = append(b, e.Address.Addr().String())
	}
	return strings.Join(b, ",")
}

// until waits for changes until the list is as wanted.
func (w *world) until(want string) {
	w.t.Helper()
	deadline := time.After(10 * time.Second)
	for w.list() != want {
		select {
		case <-w.changes:
		case <-deadline:
			w.t.Fatalf("got %q, want %q; %v", w.list(), want, w.statuses())
		}
	}
}

func (w *world) statuses() []catalog.Status {
	_, st := w.Snapshot()
	return st
}

func (w *world) service(name string) *lb.Service {
	w.t.Helper()
	services, _ := w.Snapshot()
	for _, s := range services {
		if s.Name.DiscoveryName == name {
			return s
		}
	}
	w.t.Fatalf("no service %s in %q", name, w.list())
	return nil
}
