package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseBenchmark(t *testing.T) {
	const out = "goos: linux\n" +
		"BenchmarkHook/hot_connection-2  20  1.0 empty-ns  3.0 max-ns  2.0 median-ns  1.5 min-ns\n" +
		"BenchmarkHook/hot-16  \t 30\t 34.1 empty-ns\t 296.1 max-ns\t 280.5 median-ns\t 262.4 min-ns\nPASS\n"
	got, err := parseBenchmark(out, "BenchmarkHook/hot")
	if want := (row{n: 30, median: 280.5, min: 262.4, max: 296.1}); err != nil || got != want {
		t.Errorf("read %+v (%v), want %+v", got, err, want)
	}
	if _, err := parseBenchmark(out, "BenchmarkHook/cold"); err == nil {
		t.Error("found a benchmark that did not run")
	}
}

func TestVerdict(t *testing.T) {
	for _, tc := range []struct {
		bound   bound
		samples []float64
		want    string
	}{
		{atMost(5), []float64{9, 5, 1}, "met"},
		{atMost(5), []float64{9, 6, 1, 5}, "MISSED"}, // 5.5
		{atLeast(5), []float64{9, 5, 1}, "met"},
		{atLeast(5), []float64{9, 4, 1}, "MISSED"},
		{atLeast(5), nil, "not measured"},
		{reported, []float64{1}, ""},
	} {
		if got := newRow("x", "ms", tc.bound, tc.samples).verdict(); got != tc.want {
			t.Errorf("%v against %+v: %q, want %q", tc.samples, tc.bound, got, tc.want)
		}
	}
}

func TestWriteBlock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "doc.md")
	if err := os.WriteFile(path, []byte("before\n"+blockBegin+"old\n"+blockEnd+"after\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"new\n", "newer\n"} {
		if err := writeBlock(path, text); err != nil {
			t.Fatal(err)
		}
		got, _ := os.ReadFile(path)
		if want := "before\n" + blockBegin + text + blockEnd + "after\n"; string(got) != want {
			t.Errorf("wrote %q, want %q", got, want)
		}
	}
	os.WriteFile(path, []byte("no marks\n"), 0o644)
	if err := writeBlock(path, "x"); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("wrote into a file without marks: %v", err)
	}
	// The marks of the document that -write means.
	doc, err := os.ReadFile(filepath.Join("..", "..", document))
	if err != nil || !strings.Contains(string(doc), blockBegin) || !strings.Contains(string(doc), blockEnd) {
		t.Errorf("%s lacks the marks (%v)", document, err)
	}
}
