package file

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// BenchmarkDecode decodes one file of 100 services of 10 endpoints.
func BenchmarkDecode(b *testing.B) {
	data := generate(0, 100, 10)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := testDecoder().Decode("catalog.yaml", data); err != nil {
			b.Fatal(err)
		}
	}
}

func catalogOf(b *testing.B, files int) string {
	dir := b.TempDir()
	for i := range files {
		write(b, filepath.Join(dir, fmt.Sprintf("c%02d.yaml", i)), string(generate(100*i, 100, 10)))
	}
	return dir
}

// BenchmarkLoad loads 10,000 services of 10 endpoints from 100 files.
func BenchmarkLoad(b *testing.B) {
	dir := catalogOf(b, 100)
	var s *Source
	for b.Loop() {
		s = New(Params{Dir: dir, Globs: globs("*.yaml"), Log: slog.New(slog.DiscardHandler)})
		if err := s.Load(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	if services, _ := s.Snapshot(); len(services) != 10_000 {
		b.Fatal(len(services))
	}
	s = nil
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(before.HeapAlloc-after.HeapAlloc)/(1<<20), "MiB-at-rest")
}

// BenchmarkChange renames one of 100 files over its old version and waits for
// Changed.
func BenchmarkChange(b *testing.B) {
	dir := catalogOf(b, 100)
	changed := make(chan struct{}, 100)
	s := New(Params{Dir: dir, Globs: globs("*.yaml"), Log: slog.New(slog.DiscardHandler), Changed: func() { changed <- struct{}{} }})
	if err := s.Load(b.Context()); err != nil {
		b.Fatal(err)
	}
	<-changed
	done := make(chan error)
	go func() { done <- s.Run(b.Context()) }()
	b.Cleanup(func() { <-done })
	versions := []string{string(generate(4200, 100, 10)), string(generate(4200, 100, 9))}
	tmp := filepath.Join(b.TempDir(), "new")
	change := func(i int) {
		write(b, tmp, versions[i%2])
		if err := os.Rename(tmp, dir+"/c42.yaml"); err != nil {
			b.Fatal(err)
		}
		<-changed
	}
	change(1) // until here, the first look may be running
	i := 0
	for b.Loop() {
		change(i)
		i++
		b.StopTimer()
		time.Sleep(2 * restless) // a lone change is what is measured
		b.StartTimer()
	}
}
