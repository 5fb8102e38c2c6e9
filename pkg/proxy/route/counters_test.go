package route

import (
	"os"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"
)

// TestHistogramIsTheKernels: proxy and direct mode fill the same metric.
func TestHistogramIsTheKernels(t *testing.T) {
	source, err := os.ReadFile("../../../bpf/lib/types.h")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"HISTOGRAM_BUCKETS": Buckets, "HISTOGRAM_SHIFT": shift} {
		m := regexp.MustCompile(`(?m)^#define ` + name + ` (\d+)\b`).FindSubmatch(source)
		if m == nil {
			t.Fatalf("%s is not in bpf/lib/types.h", name)
		}
		if n, _ := strconv.Atoi(string(m[1])); n != want {
			t.Errorf("%s is %d in the kernel and %d here", name, n, want)
		}
	}
}

// kernelBucket is observe of bpf/lib/metrics.h.
func kernelBucket(us uint64) (bucket int) {
	bound := us >> shift
	for range Buckets - 1 {
		if bound == 0 {
			break
		}
		bound >>= 1
		bucket++
	}
	return bucket
}

func TestDoneDuration(t *testing.T) {
	took := []time.Duration{-time.Second, 0, time.Nanosecond, time.Hour, 1<<63 - 1}
	for n := range 40 {
		at := time.Microsecond << n
		took = append(took, at-time.Microsecond, at, at+time.Microsecond)
	}
	for _, d := range took {
		var c Counters
		c.Done(200, -1, d, 0, 0)
		us := uint64(max(0, d.Microseconds()))
		for i := range c.Duration {
			want := uint64(0)
			if i == kernelBucket(us) {
				want = 1
			}
			if got := c.Duration[i].Load(); got != want {
				t.Errorf("%s: bucket %d holds %d", d, i, got)
			}
		}
		if c.Sum.Load() != us {
			t.Errorf("%s: sum is %d us", d, c.Sum.Load())
		}
	}
	// The twin agrees with itself; these are the bounds as documented.
	for us, want := range map[uint64]int{0: 0, 15: 0, 16: 1, 31: 1, 32: 2, 1 << 22 / 2: 18, 1<<22 - 1: 18, 1 << 22: 19, 1 << 40: 19} {
		if got := kernelBucket(us); got != want {
			t.Errorf("%d us is in bucket %d, want %d", us, got, want)
		}
	}
}

func TestDone(t *testing.T) {
	for _, c := range []struct {
		status, grpc int
		class, code  int // code -1: none
	}{
		{0, -1, 0, -1}, {200, -1, 2, -1}, {101, -1, 1, -1}, {304, -1, 3, -1}, {499, -1, 4, -1}, {500, -1, 5, -1}, {599, -1, 5, -1},
		{600, -1, 0, -1}, {999, -1, 0, -1}, {99, -1, 0, -1}, {-1, -1, 0, -1}, {-200, -1, 0, -1},
		{200, 0, 2, 0}, {200, 14, 2, 14}, {200, 16, 2, 16}, {200, 17, 2, 17}, {200, 1 << 30, 2, 17}, {0, 14, 0, 14},
	} {
		var got Counters
		got.Done(c.status, c.grpc, 0, 3, 5)
		for i := range got.Classes {
			if n := got.Classes[i].Load(); (n == 1) != (i == c.class) || n > 1 {
				t.Errorf("status %d: class %d has %d", c.status, i, n)
			}
		}
		for i := range got.GRPC {
			if n := got.GRPC[i].Load(); (n == 1) != (i == c.code) || n > 1 {
				t.Errorf("gRPC status %d: code %d has %d", c.grpc, i, n)
			}
		}
		if got.Received.Load() != 3 || got.Sent.Load() != 5 {
			t.Errorf("%d bytes received, %d sent", got.Received.Load(), got.Sent.Load())
		}
	}
}

// TestDoneOnlyGrows: a negative count of bytes is nobody's.
func TestDoneOnlyGrows(t *testing.T) {
	var c Counters
	c.Done(200, -1, time.Second, 10, 20)
	c.Done(200, -1, -time.Second, -1, -1)
	if c.Received.Load() != 10 || c.Sent.Load() != 20 || c.Sum.Load() != 1e6 {
		t.Errorf("received %d, sent %d, sum %d", c.Received.Load(), c.Sent.Load(), c.Sum.Load())
	}
}

func TestDoneConcurrent(t *testing.T) {
	var c Counters
	var wg sync.WaitGroup
	const each = 1000
	for range 8 {
		wg.Go(func() {
			for range each {
				c.Done(200, 0, time.Millisecond, 1, 2)
			}
		})
	}
	wg.Wait()
	if c.Classes[2].Load() != 8*each || c.Sum.Load() != 8*each*1000 || c.Sent.Load() != 16*each || c.Duration[kernelBucket(1000)].Load() != 8*each {
		t.Error("counts are lost")
	}
}

func BenchmarkDone(b *testing.B) {
	var c Counters
	b.ReportAllocs()
	for b.Loop() {
		c.Done(200, -1, 300*time.Microsecond, 100, 1000)
	}
}
