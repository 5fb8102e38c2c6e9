package h2

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

var getFields = []hpack.HeaderField{
	{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/"}, {Name: ":authority", Value: "a"},
}

// TestShutdown: no request that was under way is lost.
func TestShutdown(t *testing.T) {
	p := greeted(t, Config{Server: true})
	p.headers(1, true, get...)
	p.say()
	p.sess.Shutdown()
	if got := strings.Join(p.heard(), "; "); got != "goaway 2147483647 NO_ERROR; ping ack=false" {
		t.Errorf("said %q", got)
	}
	if !p.sess.Closing() || p.sess.Finished() {
		t.Error("nothing more is awaited of a client that has not read it")
	}
	p.headers(3, true, get...) // sent before the client read it
	p.fr.WritePing(true, drainPing)
	p.headers(5, true, get...) // a client that does not care
	p.headers(7, false, get...)
	p.fr.WriteData(7, true, make([]byte, 10))
	if err := p.say(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(p.heard(), "; "); got != "goaway 3 NO_ERROR" {
		t.Errorf("said %q", got)
	}
	for _, id := range []uint32{1, 3} {
		st := p.rec.streams[id]
		if st == nil {
			t.Fatalf("stream %d was not taken", id)
		}
		st.Headers(ok200, true)
		st.Close(http2.ErrCodeNo)
	}
	if p.rec.streams[5] != nil || !p.sess.Finished() || p.sess.Streams() != 0 {
		t.Errorf("streams %v", p.rec.streams)
	}
	if got := p.heard(); len(got) != 2 {
		t.Errorf("said %q", got)
	}
}

// TestShutdownTwice: the second call does not wait for the client's answer.
func TestShutdownTwice(t *testing.T) {
	p := greeted(t, Config{Server: true})
	p.headers(1, true, get...)
	p.say()
	p.sess.Shutdown()
	p.sess.Shutdown()
	p.sess.Shutdown()
	if got := strings.Join(p.heard(), "; "); got != "goaway 2147483647 NO_ERROR; ping ack=false; goaway 1 NO_ERROR" {
		t.Errorf("said %q", got)
	}
}

// TestGoAway: an endpoint's GOAWAY ends what it did not take, as unprocessed,
// and nothing else.
func TestGoAway(t *testing.T) {
	p := greeted(t, Config{})
	for range 3 {
		if _, err := p.sess.Open(getFields, true); err != nil {
			t.Fatal(err)
		}
	}
	p.heard()
	p.rec.streams[1] = p.sess.streams[1]
	p.fr.WriteGoAway(1, http2.ErrCodeNo, nil)
	p.headers(1, true, ":status 200")
	if err := p.say(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(p.rec.log)
	want := []string{"head 1 1 fields end=true", "reset 3 NO_ERROR unprocessed", "reset 5 NO_ERROR unprocessed"}
	if !slices.Equal(p.rec.log, want) {
		t.Errorf("told %q", p.rec.log)
	}
	if _, err := p.sess.Open(getFields, true); !errors.Is(err, ErrClosing) || !p.sess.Closing() || p.sess.Room() != 0 {
		t.Errorf("opened one more: %v", err)
	}
}

// TestOpenBounds: an endpoint's MAX_CONCURRENT_STREAMS and our own.
func TestOpenBounds(t *testing.T) {
	for _, test := range []struct{ ours, theirs, want int }{{2, 100, 2}, {100, 2, 2}, {5, 0, 0}} {
		p := greeted(t, Config{MaxStreams: test.ours}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(test.theirs)})
		if got := p.sess.Room(); got != test.want {
			t.Errorf("%+v: room %d", test, got)
		}
		for range test.want {
			if _, err := p.sess.Open(getFields, true); err != nil {
				t.Errorf("%+v: %v", test, err)
			}
		}
		if _, err := p.sess.Open(getFields, true); !errors.Is(err, ErrBusy) {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// TestLost: what a connection's end says of its streams.
func TestLost(t *testing.T) {
	p := greeted(t, Config{})
	p.sess.Open(getFields, true)
	p.heard()
	p.sess.Open(getFields, true)
	p.sess.Sent(1, p.now) // a byte of it left
	p.sess.Open(getFields, true)
	p.sess.Close()
	slices.Sort(p.rec.log)
	want := []string{"reset 1 INTERNAL_ERROR lost", "reset 3 INTERNAL_ERROR lost", "reset 5 INTERNAL_ERROR lost unsent"}
	if !slices.Equal(p.rec.log, want) {
		t.Errorf("told %q", p.rec.log)
	}
}

// TestResponses: what an endpoint may answer.
func TestResponses(t *testing.T) {
	for _, test := range []struct {
		name   string
		method string
		do     func(p *peer)
		told   string
	}{
		{"informational first", "GET", func(p *peer) {
			p.headers(1, false, ":status 100")
			p.headers(1, false, ":status 103", "link x")
			p.headers(1, true, ":status 200")
		}, "info 1 1 fields end=false; info 1 2 fields end=false; head 1 1 fields end=true"},
		{"trailers", "GET", func(p *peer) {
			p.headers(1, false, ":status 200")
			p.headers(1, true, "grpc-status 0")
		}, "head 1 1 fields end=false; trailers 1 1 fields end=true"},
		{"head with a length", "HEAD", func(p *peer) { p.headers(1, true, ":status 200", "content-length 10") }, "head 1 2 fields end=true"},
		{"head with an empty end", "HEAD", func(p *peer) {
			p.headers(1, false, ":status 200", "content-length 10")
			p.fr.WriteData(1, true, nil)
		}, "head 1 2 fields end=false; data 1 0 end=true"},
		{"head with a body", "HEAD", func(p *peer) {
			p.headers(1, false, ":status 200")
			p.fr.WriteData(1, true, []byte("x"))
		}, "head 1 1 fields end=false; reset 1 PROTOCOL_ERROR local"},
		{"304 with a length", "GET", func(p *peer) { p.headers(1, true, ":status 304", "content-length 10") }, "head 1 2 fields end=true"},
		{"short", "GET", func(p *peer) { p.headers(1, true, ":status 200", "content-length 10") }, "reset 1 PROTOCOL_ERROR local"},
		{"body first", "GET", func(p *peer) { p.fr.WriteData(1, true, []byte("x")) }, "reset 1 PROTOCOL_ERROR local"},
		{"no status", "GET", func(p *peer) { p.headers(1, true, "a b") }, "reset 1 PROTOCOL_ERROR local"},
		{"two of them", "GET", func(p *peer) { p.headers(1, true, ":status 200", ":status 200") }, "reset 1 PROTOCOL_ERROR local"},
		{"599", "GET", func(p *peer) { p.headers(1, true, ":status 599") }, "head 1 1 fields end=true"},
		{"600", "GET", func(p *peer) { p.headers(1, true, ":status 600") }, "reset 1 PROTOCOL_ERROR local"},
		{"099", "GET", func(p *peer) { p.headers(1, true, ":status 099") }, "reset 1 PROTOCOL_ERROR local"},
		{"101", "GET", func(p *peer) { p.headers(1, false, ":status 101") }, "reset 1 PROTOCOL_ERROR local"},
		{"100 at the end", "GET", func(p *peer) { p.headers(1, true, ":status 100") }, "reset 1 PROTOCOL_ERROR local"},
		{"connection field", "GET", func(p *peer) { p.headers(1, true, ":status 200", "connection close") }, "reset 1 PROTOCOL_ERROR local"},
		{"refused", "GET", func(p *peer) { p.fr.WriteRSTStream(1, http2.ErrCodeRefusedStream) }, "reset 1 REFUSED_STREAM unprocessed"},
		{"late frames", "GET", func(p *peer) {
			p.fr.WriteRSTStream(1, http2.ErrCodeInternal)
			p.fr.WriteData(1, true, []byte("x"))
			p.headers(1, true, ":status 200")
		}, "reset 1 INTERNAL_ERROR"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := greeted(t, Config{})
			fields := slices.Clone(getFields)
			fields[0].Value = test.method
			slices.Reverse(fields[:2]) // the method need not come first
			if _, err := p.sess.Open(fields, true); err != nil {
				t.Fatal(err)
			}
			p.heard()
			test.do(p)
			if err := p.say(); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(p.rec.log, "; "); got != test.told {
				t.Errorf("told %q, want %q", got, test.told)
			}
		})
	}
}
