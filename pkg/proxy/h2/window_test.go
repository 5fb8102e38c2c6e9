package h2

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/net/http2"
)

// crowd opens n responses, each with a head, on sessions of one pool.
func crowd(t *testing.T, pool *Pool, n int) (peers []*peer, streams []*Stream) {
	for i := range n {
		if i%100 == 0 {
			p := greeted(t, Config{Pool: pool})
			p.rec.onData = func(*Stream, []byte, bool) {} // nothing is released
			peers = append(peers, p)
		}
		p := peers[len(peers)-1]
		st, err := p.sess.Open(getFields, true)
		if err != nil {
			t.Fatal(err)
		}
		p.rec.streams[st.ID] = st
		p.headers(st.ID, false, ":status 200")
		streams = append(streams, st)
	}
	return peers, streams
}

// fill sends on each stream what its window allows.
func fill(t *testing.T, peers []*peer) (sent int64) {
	for _, p := range peers {
		for id, st := range p.rec.streams {
			for st.recvWindow > 0 {
				n := min(st.recvWindow, maxFrame)
				sent += n
				p.fr.WriteData(id, false, make([]byte, n))
				if err := p.say(); err != nil || st.Gone() || p.rec.streams[id] != st {
					t.Fatalf("stream %d is over: %v %q", id, err, p.rec.log)
				}
			}
		}
	}
	return sent
}

// TestHolding: whatever number of responses is not read, what they hold is
// bounded, by little for each beyond the bound; whatever is read goes on.
func TestHolding(t *testing.T) {
	const n = 3000
	pool := NewPool()
	peers, streams := crowd(t, pool, n)
	if sent := fill(t, peers); sent != pool.Held() || sent > tooMany+n*leastWindow {
		t.Errorf("%d bytes were sent, %d are held, and %d a stream", sent, pool.Held(), sent/n)
	}
	for i := range 100 { // the first that came and the last, several times over
		for _, st := range []*Stream{streams[i%3], streams[n-1-i%3]} {
			st.Release(int(st.held))
			if st.recvWindow < leastWindow {
				t.Fatalf("a window of %d after all was taken", st.recvWindow)
			}
		}
		fill(t, peers)
	}
	if most := int64(tooMany + n*leastWindow); pool.Held() > most || pool.open() > most {
		t.Errorf("%d bytes are held, %d may be, more than %d", pool.Held(), pool.open(), most)
	}
	for _, st := range streams {
		st.Close(http2.ErrCodeCancel)
	}
	if pool.open() != 0 || pool.Held() != 0 {
		t.Errorf("%d and %d are counted when all are over", pool.open(), pool.Held())
	}
}

// TestHoldingOfOthers: what the loop holds besides counts too, and a client
// that reads gets more.
func TestHoldingOfOthers(t *testing.T) {
	var others int64
	pool := NewPool()
	pool.Beside(&others)
	for _, c := range []struct{ others, first, then int64 }{
		{0, defaultStreamWindow, defaultStreamWindow},
		{little, someWindow, defaultStreamWindow},
		{many, someWindow, someWindow},
		{tooMany, leastWindow, leastWindow},
		{10 * MaxHolding, leastWindow, leastWindow},
	} {
		others = c.others
		peers, streams := crowd(t, pool, 1)
		st := streams[0]
		if st.recvWindow != c.first {
			t.Errorf("with %d a window of %d, want %d", others, st.recvWindow, c.first)
		}
		fill(t, peers)
		st.Release(int(st.held))
		if st.recvWindow != c.then {
			t.Errorf("with %d a window of %d for a client that reads, want %d", others, st.recvWindow, c.then)
		}
		st.Close(http2.ErrCodeCancel)
	}
}

// TestAnnounce: another window for new streams leaves those that are open as
// they were, and the endpoint and we agree about each.
func TestAnnounce(t *testing.T) {
	var others int64
	pool := NewPool()
	pool.Beside(&others)
	p := greeted(t, Config{Pool: pool})
	p.rec.onData = func(*Stream, []byte, bool) {}
	var opened []*Stream
	theirs := map[*Stream]int64{} // windows as the endpoint knows them
	initial := int64(defaultStreamWindow)
	for i, step := range []struct {
		others int64
		says   []string
		window int64 // told, 0 is none
	}{
		{0, nil, 0},
		{MaxHolding, []string{"settings", "window 1 126976"}, leastWindow},
		{tooMany - 2*defaultStreamWindow, nil, 0}, // less, and still much
		{little, []string{"settings"}, someWindow},
		{little - 5*defaultStreamWindow, nil, 0},
		{0, []string{"settings"}, defaultStreamWindow},
	} {
		others = step.others
		st, err := p.sess.Open(getFields, true)
		if err != nil {
			t.Fatal(err)
		}
		p.rec.streams[st.ID] = st
		if step.window > 0 {
			by := step.window - initial
			initial = step.window
			for _, st := range opened {
				theirs[st] += max(by, 0) // what it falls by is given back
			}
		}
		opened, theirs[st] = append(opened, st), initial
		want := append(step.says, fmt.Sprintf("headers %d :method GET end=true", st.ID))
		if got := p.heard(); !slices.Equal(got, want) {
			t.Errorf("step %d: said %q, want %q", i, got, want)
		}
		for _, st := range opened {
			if st.recvWindow != theirs[st] {
				t.Errorf("step %d: stream %d has a window of %d, and by the endpoint's count of %d", i, st.ID, st.recvWindow, theirs[st])
			}
		}
	}
}

// TestPaddingOnly: frames that are padding alone are never released, and do not
// use a response's window up.
func TestPaddingOnly(t *testing.T) {
	p := greeted(t, Config{})
	st, err := p.sess.Open(getFields, true)
	if err != nil {
		t.Fatal(err)
	}
	p.headers(st.ID, false, ":status 200")
	for range 10 * defaultStreamWindow / 256 {
		p.fr.WriteDataPadded(st.ID, false, nil, make([]byte, 255))
	}
	if err := p.say(); err != nil {
		t.Fatal(err)
	}
	if st.recvWindow < defaultStreamWindow/2 {
		t.Errorf("a window of %d", st.recvWindow)
	}
}
