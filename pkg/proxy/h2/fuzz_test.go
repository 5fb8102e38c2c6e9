package h2

import (
	"bytes"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// actor is a Handler that does something with every stream, by its number, and
// keeps account.
type actor struct {
	t    *testing.T
	open map[*Stream]int // bytes it has to write
	held map[*Stream]int
}

func (a *actor) Headers(st *Stream, kind Kind, _ []hpack.HeaderField, end bool) {
	if kind != Head {
		return
	}
	if _, known := a.open[st]; !known {
		a.open[st] = int(st.ID) * 1000 % 200_000
		switch st.ID % 8 {
		case 1:
			a.close(st, http2.ErrCodeCancel)
		case 3:
			st.Headers(ok200, true)
		default:
			st.Headers(ok200, false)
			a.Writable(st)
		}
	}
}

func (a *actor) Data(st *Stream, p []byte, end bool) {
	if _, known := a.open[st]; !known {
		a.t.Fatal("data of a stream that is not open")
	}
	a.held[st] += len(p)
	if st.ID%8 == 5 && !end {
		return // a slow reader
	}
	st.Release(a.held[st])
	a.held[st] = 0
}

func (a *actor) Reset(st *Stream, _ Cause) {
	if _, known := a.open[st]; !known {
		a.t.Fatal("reset of a stream that is not open")
	}
	a.close(st, http2.ErrCodeNo)
}

func (a *actor) Writable(st *Stream) {
	n := a.open[st]
	a.open[st] -= st.Write(make([]byte, n), true)
}

func (a *actor) close(st *Stream, code http2.ErrCode) {
	st.Close(code)
	delete(a.open, st)
	delete(a.held, st)
}

func (a *actor) Flush(*Session) {}

// FuzzSession: whatever comes, a session does not panic, keeps what it keeps
// within bounds, and accounts for every stream; how the bytes are cut does not
// decide about errors. The first byte says how the rest is read: as the
// connection's bytes, or as frames that are mostly in order.
func FuzzSession(f *testing.F) {
	var seed bytes.Buffer
	fr := http2.NewFramer(&seed, nil)
	fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
	p := newPeer(f, Config{Server: true})
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 7, BlockFragment: p.block(get...), EndHeaders: true})
	fr.WriteData(7, true, []byte("some data"))
	fr.WriteWindowUpdate(0, 1000)
	fr.WritePing(false, [8]byte{})
	for mode := range byte(8) {
		f.Add(append([]byte{mode}, seed.Bytes()...))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) == 0 {
			return
		}
		mode, in := in[0], in[1:]
		server := mode&1 == 0
		if mode&2 != 0 {
			in = frames(in)
		}
		if server {
			in = append([]byte(http2.ClientPreface), in...)
		}
		step := len(in) + 1
		if mode&4 != 0 {
			step = 1 + int(mode>>3)
		}
		whole, cut := run(t, server, in, len(in)+1), run(t, server, in, step)
		if whole != cut {
			t.Errorf("in one piece %q, cut by %d %q", whole, step, cut)
		}
	})
}

// frames turns bytes into frames: a type, flags, a small stream number and a
// small length for each.
func frames(in []byte) []byte {
	out := []byte{0, 0, 0, byte(http2.FrameSettings), 0, 0, 0, 0, 0}
	for len(in) >= 4 {
		n := min(int(in[3]), len(in)-4)
		out = append(out, 0, 0, byte(n), in[0]%12, in[1], 0, 0, 0, in[2]%32)
		out = append(out, in[4:4+n]...)
		in = in[4+n:]
	}
	return out
}

// run feeds a session and returns the error code it ended with.
func run(t *testing.T, server bool, in []byte, step int) string {
	a := &actor{t: t, open: map[*Stream]int{}, held: map[*Stream]int{}}
	s := New(Config{Server: server, MaxStreams: 20}, a)
	if !server {
		// Until then there is room for one.
		if err := s.Feed([]byte{0, 0, 0, byte(http2.FrameSettings), 0, 0, 0, 0, 0}, time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			st, err := s.Open(getFields, false)
			if err != nil {
				t.Fatal(err)
			}
			a.open[st] = 1000
			a.Writable(st)
		}
	}
	now := time.Unix(1e9, 0)
	code := ""
	for turn := 0; len(in) > 0 && code == ""; turn++ {
		n := min(step, len(in))
		if err := s.Feed(in[:n], now); err != nil {
			code = err.(*ConnectionError).Code.String()
		}
		in = in[n:]
		if len(s.in) > maxFrame+headerLen || len(s.block.p) > maxBlock || cap(s.pool.fields) > 4*maxFreeFields {
			t.Fatalf("kept %d, %d and %d", len(s.in), len(s.block.p), cap(s.pool.fields))
		}
		if len(s.Output()) > maxOutput+outputSlack+len(in) {
			t.Fatalf("%d bytes of output", len(s.Output()))
		}
		if code == "" && s.sendWindow > maxWindow || s.recvWindow > maxWindow || s.owed < 0 {
			t.Fatalf("windows %d %d, owed %d", s.sendWindow, s.recvWindow, s.owed)
		}
		if len(s.streams) > 20 {
			t.Fatalf("%d streams", len(s.streams))
		}
	}
	s.Sent(len(s.Output()), now)
	s.Close()
	for st := range a.open {
		if !st.Gone() {
			t.Fatalf("stream %d is open on a closed session", st.ID)
		}
	}
	return code
}
