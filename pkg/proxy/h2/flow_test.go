package h2

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

var ok200 = []hpack.HeaderField{{Name: ":status", Value: "200"}}

// TestSendWindow: Write takes what the stream's window allows, and the rest
// once it grows, by WINDOW_UPDATE or by SETTINGS, from below zero, too.
func TestSendWindow(t *testing.T) {
	p := greeted(t, Config{Server: true}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	p.headers(1, true, get...)
	p.say()
	st := p.rec.streams[1]
	st.Headers(ok200, false)
	body := make([]byte, 100)
	if n := st.Write(body, true); n != 10 {
		t.Fatalf("took %d", n)
	}
	want := func(lines ...string) {
		t.Helper()
		if got := p.heard(); !slices.Equal(got, lines) {
			t.Errorf("said %q, want %q", got, lines)
		}
	}
	want("headers 1 :status 200 end=false", "data 1 10 end=false")
	left := body[10:]
	p.rec.onWrite = func(st *Stream) { left = left[st.Write(left, true):] }
	p.fr.WriteWindowUpdate(1, 5)
	p.say()
	want("data 1 5 end=false")
	p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}) // the window is -10 now
	p.fr.WriteWindowUpdate(1, 8)
	p.say()
	want("settings ack")
	p.fr.WriteWindowUpdate(1, 4)
	p.say()
	want("data 1 2 end=false")
	p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000})
	p.say()
	want("settings ack", "data 1 83 end=true")
	if !st.Gone() || p.sess.Streams() != 0 {
		t.Error("the stream is not over")
	}
	st.Close(http2.ErrCodeNo)
	want()
}

// TestTurns: streams that wait for the connection's room get it in turn.
func TestTurns(t *testing.T) {
	p := greeted(t, Config{Server: true}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	body := make([]byte, 300<<10)
	left := map[*Stream][]byte{}
	for id := uint32(1); id < 8; id += 2 {
		p.headers(id, true, get...)
		p.say()
		st := p.rec.streams[id]
		st.Headers(ok200, false)
		left[st] = body
	}
	p.fr.WriteWindowUpdate(0, 10<<20)
	p.say()
	p.heard()
	var took []string
	p.rec.onWrite = func(st *Stream) {
		n := st.Write(left[st], true)
		left[st] = left[st][n:]
		took = append(took, fmt.Sprint(st.ID))
	}
	for id := uint32(1); id < 8; id += 2 {
		p.rec.onWrite(p.rec.streams[id])
	}
	most := 0
	for range 100 {
		most = max(most, len(p.sess.Output()))
		p.sess.Sent(min(len(p.sess.Output()), 40_000), p.now)
	}
	for st, rest := range left {
		if len(rest) > 0 {
			t.Errorf("%d bytes of stream %d are left", len(rest), st.ID)
		}
	}
	if most > maxOutput+10*headerLen {
		t.Errorf("%d bytes waited in the output", most)
	}
	// After the first, which found the output empty, nobody comes twice before
	// another came once.
	for i := 4; i < 12; i++ {
		if slices.Contains(took[i+1:min(i+3, len(took))], took[i]) {
			t.Errorf("turns %s", strings.Join(took, " "))
			break
		}
	}
}

// TestReceiveWindow: windows are given back when half of one was released, and
// not for what is not released; a stream that is given up gives its share of
// the connection's back.
func TestReceiveWindow(t *testing.T) {
	p := greeted(t, Config{Server: true, StreamWindow: 100_000, ConnWindow: 200_000})
	p.headers(1, false, get...)
	p.rec.onData = func(*Stream, []byte, bool) {}
	for range 6 {
		p.fr.WriteData(1, false, make([]byte, 16_000))
	}
	p.say()
	st := p.rec.streams[1]
	if got := p.heard(); len(got) != 0 {
		t.Errorf("said %q with nothing released", got)
	}
	st.Release(49_999)
	if got := p.heard(); len(got) != 0 {
		t.Errorf("said %q below half a window", got)
	}
	st.Release(1)
	if got := p.heard(); !slices.Equal(got, []string{"window 1 50000"}) {
		t.Errorf("said %q", got)
	}
	p.fr.WriteData(1, false, make([]byte, 16_000))
	p.say()
	st.Close(http2.ErrCodeCancel)
	p.fr.WriteData(1, false, make([]byte, 16_000)) // was under way
	p.say()
	if got := p.heard(); !slices.Equal(got, []string{"rst 1 CANCEL", "window 0 112000"}) {
		t.Errorf("said %q", got)
	}
}

// TestWindowsBothFull: two sessions back to back that send to each other more
// than all windows hold, with a reader that begins only when nothing moves any
// more: everything arrives, in bounded memory.
func TestWindowsBothFull(t *testing.T) {
	const streams, size = 20, 1 << 20
	a, b := newPeer(t, Config{MaxStreams: streams}), newPeer(t, Config{Server: true, ConnWindow: 256 << 10})
	left, held, got := map[*Stream]int{}, map[*Stream]int{}, map[*Stream]int{}
	reading := false
	chunk := make([]byte, size)
	write := func(st *Stream) {
		n := st.Write(chunk[:left[st]], true)
		left[st] -= n
	}
	read := func(st *Stream, p []byte, _ bool) {
		got[st] += len(p)
		if held[st] += len(p); reading {
			st.Release(held[st])
			held[st] = 0
		}
	}
	a.rec.onWrite, b.rec.onWrite, a.rec.onData, b.rec.onData = write, write, read, read
	// exchange moves bytes until neither side has any.
	exchange := func() {
		for moved := true; moved; {
			moved = false
			for _, d := range [][2]*peer{{a, b}, {b, a}} {
				out := d[0].sess.Output()
				if len(out) > maxOutput+outputSlack {
					t.Fatalf("%d bytes of output", len(out))
				}
				if n := min(len(out), 10_000); n > 0 {
					moved = true
					if err := d[1].sess.Feed(slices.Clone(out[:n]), a.now); err != nil {
						t.Fatal(err)
					}
					d[0].sess.Sent(n, a.now)
				}
			}
		}
	}
	exchange()
	for range streams {
		st, err := a.sess.Open([]hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/"}}, false)
		if err != nil {
			t.Fatal(err)
		}
		left[st] = size
		write(st)
	}
	exchange()
	for _, st := range b.rec.streams {
		st.Headers(ok200, false)
		left[st] = size
		write(st)
	}
	exchange() // now both are full
	for st, n := range got {
		if n >= size {
			t.Fatalf("stream %d was not stopped by its window", st.ID)
		}
	}
	reading = true
	for st, n := range held {
		st.Release(n)
		held[st] = 0
	}
	exchange()
	for st := range left {
		if got[st] != size {
			t.Errorf("stream %d got %d bytes", st.ID, got[st])
		}
	}
	if a.sess.Streams() != 0 || b.sess.Streams() != 0 {
		t.Errorf("%d and %d streams are left", a.sess.Streams(), b.sess.Streams())
	}
}
