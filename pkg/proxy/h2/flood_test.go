package h2

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestFloods: who makes work and brings nothing is sent away, at a count that
// is known, and costs little memory until then.
func TestFloods(t *testing.T) {
	post := []string{":method POST", ":scheme http", ":path /", ":authority a"}
	for _, test := range []struct {
		name   string
		prior  func(p *peer)
		one    func(p *peer, i int)
		reads  bool // the peer reads what it is told
		atMost int  // of one, until the session has enough
	}{
		{"rapid reset", nil, func(p *peer, i int) {
			id := uint32(2*i + 1)
			p.headers(id, true, get...)
			p.fr.WriteRSTStream(id, http2.ErrCodeCancel)
		}, true, 1001},
		{"rapid reset behind some answers", nil, func(p *peer, i int) { p.hedge(uint32(8*i+1), 3) }, true, 1001},
		{"made to reset", nil, func(p *peer, i int) {
			id := uint32(2*i + 1)
			p.headers(id, false, get...)
			p.fr.WriteWindowUpdate(id, 0)
		}, true, 1001},
		{"malformed requests", nil, func(p *peer, i int) { p.headers(uint32(2*i+1), true, append(get, "Upper 1")...) }, true, 1001},
		{"PING", nil, func(p *peer, _ int) { p.fr.WritePing(false, [8]byte{}) }, true, 10_001},
		{"PING unread", nil, func(p *peer, _ int) { p.fr.WritePing(false, [8]byte{}) }, false, maxAcks + 1},
		{"SETTINGS", nil, func(p *peer, _ int) { p.fr.WriteSettings() }, true, 10_001},
		{"SETTINGS unread", nil, func(p *peer, _ int) { p.fr.WriteSettings() }, false, maxAcks + 1},
		{"PRIORITY", nil, func(p *peer, _ int) { p.fr.WritePriority(1, http2.PriorityParam{}) }, true, 10_001},
		{"unknown frames", nil, func(p *peer, _ int) { p.fr.WriteRawFrame(0x42, 0, 0, nil) }, true, 10_001},
		{"WINDOW_UPDATE", nil, func(p *peer, _ int) { p.fr.WriteWindowUpdate(0, 1) }, true, 10_001},
		{"empty DATA", func(p *peer) { p.headers(1, false, post...) }, func(p *peer, _ int) { p.fr.WriteData(1, false, nil) }, true, 10_001},
		{"padding alone", func(p *peer) { p.headers(1, false, post...) }, func(p *peer, _ int) { p.fr.WriteDataPadded(1, false, nil, []byte{0}) }, true, 10_001},
		{"RST_STREAM", func(p *peer) { p.headers(1, true, get...); p.fr.WriteRSTStream(1, 0) },
			func(p *peer, _ int) { p.fr.WriteRSTStream(1, 0) }, true, 10_001},
		{"empty CONTINUATION", func(p *peer) { p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1}) },
			func(p *peer, _ int) { p.fr.WriteContinuation(1, false, nil) }, true, maxContinuations + 1},
		{"CONTINUATION", func(p *peer) { p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1}) },
			func(p *peer, _ int) { p.fr.WriteContinuation(1, false, make([]byte, maxFrame)) }, true, maxBlock/maxFrame + 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := greeted(t, Config{Server: true})
			if test.prior != nil {
				test.prior(p)
				if err := p.say(); err != nil {
					t.Fatal(err)
				}
			}
			for i := range test.atMost + 100 {
				test.one(p, i)
				err := p.say()
				if test.reads {
					out := len(p.sess.Output())
					if err == nil {
						p.sess.Sent(out, p.now)
					}
				}
				if n := len(p.sess.Output()); n > maxOutput {
					t.Fatalf("%d bytes of output", n)
				}
				var fatal *ConnectionError
				if errors.As(err, &fatal) {
					if fatal.Code != http2.ErrCodeEnhanceYourCalm {
						t.Errorf("%v", err)
					}
					if i+1 < test.atMost-20 || i+1 > test.atMost {
						t.Errorf("enough after %d, want %d", i+1, test.atMost)
					}
					p.sess.Close()
					return
				}
			}
			t.Errorf("not enough after %d", test.atMost+100)
		})
	}
}

// TestNotFloods: what busy but honest clients do goes on for ever.
func TestNotFloods(t *testing.T) {
	for _, test := range []struct {
		name string
		one  func(p *peer, i int)
	}{
		{"cancels at 150 a second", func(p *peer, i int) {
			id := uint32(2*i + 1)
			p.headers(id, true, get...)
			p.fr.WriteRSTStream(id, http2.ErrCodeCancel)
			p.now = p.now.Add(time.Second / 150)
		}},
		{"hedges at 1,000 a second", func(p *peer, i int) {
			p.hedge(uint32(6*i+1), 2)
			p.now = p.now.Add(time.Millisecond)
		}},
		{"a request, a PING, SETTINGS, and five window updates", func(p *peer, i int) {
			id := uint32(2*i + 1)
			p.headers(id, true, get...)
			p.fr.WritePing(false, [8]byte{})
			p.fr.WriteSettings()
			for range 5 {
				p.fr.WriteWindowUpdate(0, 1)
			}
			p.say()
			st := p.rec.streams[id]
			st.Headers(ok200, true)
			st.Close(http2.ErrCodeNo)
			delete(p.rec.streams, id)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := greeted(t, Config{Server: true})
			for i := range 20_000 {
				test.one(p, i)
				if err := p.say(); err != nil {
					t.Fatalf("after %d: %v", i, err)
				}
				p.sess.Sent(len(p.sess.Output()), p.now)
				p.rec.log = p.rec.log[:0]
			}
		})
	}
}

// hedge makes a request that is answered, after so many that it takes back.
func (p *peer) hedge(id uint32, more int) {
	for range more {
		p.headers(id, true, get...)
		p.fr.WriteRSTStream(id, http2.ErrCodeCancel)
		id += 2
	}
	p.headers(id, true, get...)
	p.say()
	if st := p.rec.streams[id]; st != nil {
		st.Headers(ok200, true)
		st.Close(http2.ErrCodeNo)
		delete(p.rec.streams, id)
	}
}

// TestTooManyStreams: beyond the bound streams are refused, as the client was
// told, and the connection goes on.
func TestTooManyStreams(t *testing.T) {
	p := greeted(t, Config{Server: true, MaxStreams: 3})
	for id := uint32(1); id <= 9; id += 2 {
		p.headers(id, true, get...)
	}
	p.say()
	if got := strings.Join(p.heard(), "; "); got != "rst 7 REFUSED_STREAM; rst 9 REFUSED_STREAM" {
		t.Errorf("said %q", got)
	}
	if n := p.sess.Streams(); n != 3 {
		t.Errorf("%d streams", n)
	}
}

// TestHpackBomb: a small block that stands for a long list costs no memory.
func TestHpackBomb(t *testing.T) {
	p := greeted(t, Config{Server: true})
	p.headers(1, true, append(get, "bomb "+strings.Repeat("x", 4000))...)
	p.say()
	bomb := p.block(append(get, "bomb "+strings.Repeat("x", 4000))...)
	for range 12_000 {
		bomb = append(bomb, bomb[len(bomb)-1]) // the indexed field again: 48 MB
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for id := uint32(3); id < 23; id += 2 {
		p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: bomb, EndStream: true, EndHeaders: true})
		if err := p.say(); err != nil {
			t.Fatal(err)
		}
		if got := p.heard(); len(got) != 1 || !strings.HasSuffix(got[0], ":status 431 end=true") {
			t.Fatalf("said %q", got)
		}
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
		t.Errorf("%d bytes were allocated", grown)
	}
}

// TestBlocked: a client that asks and never reads stops being read.
func TestBlocked(t *testing.T) {
	p := greeted(t, Config{Server: true})
	for id := uint32(1); !p.sess.Blocked(); id += 2 {
		p.headers(id, true, get...)
		if err := p.say(); err != nil {
			t.Fatal(err)
		}
		st := p.rec.streams[id]
		st.Headers(append(ok200[:1:1], ok200[0], ok200[0]), false)
		st.Write(make([]byte, 4000), true)
		st.Close(http2.ErrCodeNo)
		if len(p.sess.Output()) > 2*(maxOutput+outputSlack) {
			t.Fatal("never blocked")
		}
	}
	p.sess.Sent(len(p.sess.Output()), p.now)
	if p.sess.Blocked() {
		t.Error("blocked with nothing to say")
	}
}
