package h2

import (
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// relay is a forwarder between a client and an endpoint in memory.
type relay struct {
	fwd          *Forwarder
	client, down *Session
	up, endpoint *Session
}

func (r *relay) Request(*Exchange) (Origin, int) {
	return Origin{For: "192.0.2.1", Proto: "http", RequestID: "0f8fad5b-d9cb-469f-a165-70867728950e"}, 0
}
func (r *relay) Dial(x *Exchange)              { x.Connected(r.up) }
func (r *relay) Abandon(*Exchange)             {}
func (r *relay) Judge(*Exchange, Failure) bool { return false }
func (r *relay) Active(*Exchange)              {}
func (r *relay) Done(*Exchange)                {}

// sink is a client that counts what comes back.
type sink struct{ bytes, ended int }

func (s *sink) Headers(st *Stream, _ Kind, _ []hpack.HeaderField, end bool) { s.end(st, end) }
func (s *sink) Data(st *Stream, p []byte, end bool) {
	s.bytes += len(p)
	st.Release(len(p))
	s.end(st, end)
}
func (s *sink) end(st *Stream, end bool) {
	if end {
		s.ended++
		st.Close(http2.ErrCodeNo)
	}
}
func (s *sink) Reset(st *Stream, _ Cause) { st.Close(http2.ErrCodeNo) }
func (s *sink) Writable(*Stream)          {}
func (s *sink) Flush(*Session)            {}

// source answers every request with a body of so many bytes.
type source struct {
	size int
	left map[*Stream]int
	body []byte
}

var sourceHead = []hpack.HeaderField{
	{Name: ":status", Value: "200"}, {Name: "server", Value: "nginx"}, {Name: "content-type", Value: "text/plain"},
	{Name: "date", Value: "Mon, 02 Jan 2006 15:04:05 GMT"},
}

func (s *source) Headers(st *Stream, _ Kind, _ []hpack.HeaderField, _ bool) {
	st.Headers(sourceHead, false)
	s.left[st] = s.size
	s.Writable(st)
}
func (s *source) Writable(st *Stream) {
	left := s.left[st]
	left -= st.Write(s.body[:left], true)
	if s.left[st] = left; left == 0 {
		delete(s.left, st)
		st.Close(http2.ErrCodeNo)
	}
}
func (s *source) Data(*Stream, []byte, bool) {}
func (s *source) Reset(st *Stream, _ Cause)  { delete(s.left, st); st.Close(http2.ErrCodeNo) }
func (s *source) Flush(*Session)             {}

// BenchmarkExchange is a request and its response through a forwarder, with
// the work of client and endpoint, which is about as much again.
func BenchmarkExchange(b *testing.B) {
	for _, bench := range []struct {
		name string
		size int
	}{{"100B", 100}, {"64KiB", 64 << 10}, {"1MiB", 1 << 20}} {
		b.Run(bench.name, func(b *testing.B) {
			pool := NewPool()
			r, got := &relay{}, &sink{}
			r.fwd = NewForwarder(pool, r, func(*Session) {})
			r.client = New(Config{}, got)
			r.down = New(Config{Server: true, Pool: pool}, r.fwd)
			r.up = New(Config{Pool: pool}, r.fwd)
			r.endpoint = New(Config{Server: true}, &source{size: bench.size, left: map[*Stream]int{}, body: make([]byte, bench.size)})
			request := append(getFields[:4:4], hpack.HeaderField{Name: "user-agent", Value: "a client/1.0"}, hpack.HeaderField{Name: "accept", Value: "*/*"})
			b.SetBytes(int64(bench.size))
			b.ReportAllocs()
			now := time.Unix(1e9, 0)
			for b.Loop() {
				want := got.ended + 1
				if _, err := r.client.Open(request, true); err != nil {
					b.Fatal(err)
				}
				for got.ended < want {
					for _, hop := range [][2]*Session{{r.client, r.down}, {r.up, r.endpoint}, {r.endpoint, r.up}, {r.down, r.client}} {
						if out := hop[0].Output(); len(out) > 0 {
							if err := hop[1].Feed(out, now); err != nil {
								b.Fatal(err)
							}
							hop[0].Sent(len(out), now)
						}
					}
				}
			}
			if got.bytes != got.ended*bench.size {
				b.Errorf("%d bytes in %d responses", got.bytes, got.ended)
			}
		})
	}
}
