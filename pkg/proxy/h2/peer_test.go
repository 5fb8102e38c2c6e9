package h2

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// peer is the other end of a session, in memory, which may say what it likes.
type peer struct {
	t    testing.TB
	sess *Session
	rec  *recorder
	now  time.Time
	out  bytes.Buffer // what it is about to say
	fr   *http2.Framer
	enc  *hpack.Encoder
	hbuf bytes.Buffer
	dec  *hpack.Decoder
	step int // how many bytes are fed at once; 0 is all
}

// recorder is a Handler that writes down what it is told.
type recorder struct {
	log     []string
	streams map[uint32]*Stream
	onData  func(*Stream, []byte, bool)
	onWrite func(*Stream)
	keep    bool // leave streams that were reset to the test
}

func (r *recorder) Headers(st *Stream, kind Kind, fields []hpack.HeaderField, end bool) {
	r.streams[st.ID] = st
	r.log = append(r.log, fmt.Sprintf("%s %d %d fields end=%v", [...]string{"head", "info", "trailers"}[kind], st.ID, len(fields), end))
}

func (r *recorder) Data(st *Stream, p []byte, end bool) {
	if r.onData != nil {
		r.onData(st, p, end)
		return
	}
	r.log = append(r.log, fmt.Sprintf("data %d %d end=%v", st.ID, len(p), end))
}

func (r *recorder) Reset(st *Stream, c Cause) {
	words := []string{fmt.Sprintf("reset %d %v", st.ID, c.Code)}
	for _, w := range []struct {
		is   bool
		word string
	}{{c.Local, "local"}, {c.Unprocessed, "unprocessed"}, {c.Lost, "lost"}, {c.Unsent, "unsent"}} {
		if w.is {
			words = append(words, w.word)
		}
	}
	r.log = append(r.log, strings.Join(words, " "))
	delete(r.streams, st.ID)
	if !r.keep {
		st.Close(http2.ErrCodeCancel)
	}
}

func (r *recorder) Writable(st *Stream) {
	if r.onWrite != nil {
		r.onWrite(st)
		return
	}
	r.log = append(r.log, fmt.Sprintf("writable %d", st.ID))
}

func (r *recorder) Flush(*Session) {}

// newPeer returns a peer that has not said anything.
func newPeer(t testing.TB, cfg Config) *peer {
	p := &peer{t: t, rec: &recorder{streams: map[uint32]*Stream{}}, now: time.Unix(1e9, 0)}
	p.sess = New(cfg, p.rec)
	p.fr = http2.NewFramer(&p.out, nil)
	p.fr.AllowIllegalWrites = true
	p.enc = hpack.NewEncoder(&p.hbuf)
	p.dec = hpack.NewDecoder(4096, nil)
	return p
}

// greeted returns a peer with the greetings behind it.
func greeted(t testing.TB, cfg Config, set ...http2.Setting) *peer {
	p := newPeer(t, cfg)
	if cfg.Server {
		p.out.WriteString(http2.ClientPreface)
	}
	p.fr.WriteSettings(set...)
	p.fr.WriteSettingsAck()
	if err := p.say(); err != nil {
		t.Fatal(err)
	}
	p.heard()
	return p
}

// say feeds what was written.
func (p *peer) say() error {
	b := bytes.Clone(p.out.Bytes())
	p.out.Reset()
	for step := p.step; step > 0 && len(b) > step; b = b[step:] {
		part := bytes.Clone(b[:step])
		if err := p.sess.Feed(part, p.now); err != nil {
			return err
		}
		clear(part) // the session must not have kept it
	}
	return p.sess.Feed(b, p.now)
}

// block encodes fields, "name value" each.
func (p *peer) block(fields ...string) []byte {
	p.hbuf.Reset()
	for _, f := range fields {
		name, value, _ := strings.Cut(f, " ")
		p.enc.WriteField(hpack.HeaderField{Name: name, Value: value})
	}
	return bytes.Clone(p.hbuf.Bytes())
}

var get = []string{":method GET", ":scheme http", ":path /", ":authority a"}

// headers writes a HEADERS frame that needs no CONTINUATION.
func (p *peer) headers(id uint32, end bool, fields ...string) {
	p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.block(fields...), EndStream: end, EndHeaders: true})
}

// heard is what the session said since the last time, one line a frame.
func (p *peer) heard() []string {
	out := bytes.Clone(p.sess.Output())
	p.sess.Sent(len(out), p.now)
	return p.read(out)
}

func (p *peer) read(out []byte) []string {
	out = bytes.TrimPrefix(out, []byte(http2.ClientPreface))
	fr := http2.NewFramer(nil, bytes.NewReader(out))
	fr.SetMaxReadFrameSize(maxFrame)
	var lines []string
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			if len(lines) == 0 && len(out) > 0 {
				p.t.Errorf("cannot read output: %v", err)
			}
			return lines
		}
		id := f.Header().StreamID
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if f.IsAck() {
				lines = append(lines, "settings ack")
			} else {
				lines = append(lines, "settings")
			}
		case *http2.PingFrame:
			lines = append(lines, fmt.Sprintf("ping ack=%v", f.IsAck()))
		case *http2.GoAwayFrame:
			lines = append(lines, fmt.Sprintf("goaway %d %v", f.LastStreamID, f.ErrCode))
		case *http2.RSTStreamFrame:
			lines = append(lines, fmt.Sprintf("rst %d %v", id, f.ErrCode))
		case *http2.WindowUpdateFrame:
			lines = append(lines, fmt.Sprintf("window %d %d", id, f.Increment))
		case *http2.DataFrame:
			lines = append(lines, fmt.Sprintf("data %d %d end=%v", id, len(f.Data()), f.StreamEnded()))
		case *http2.HeadersFrame:
			fields, err := p.dec.DecodeFull(f.HeaderBlockFragment())
			if err != nil {
				p.t.Errorf("cannot decode a header block: %v", err)
				continue
			}
			first := ""
			if len(fields) > 0 {
				first = fields[0].Name + " " + fields[0].Value
			}
			lines = append(lines, fmt.Sprintf("headers %d %s end=%v", id, first, f.StreamEnded()))
		default:
			lines = append(lines, f.Header().Type.String())
		}
	}
}
