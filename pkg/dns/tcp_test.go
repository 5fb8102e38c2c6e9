package dns

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"connectd/pkg/plan"
)

func TestTCPPipelining(t *testing.T) {
	w := newWorld(t)
	seen := make(chan []byte, 10)
	newUpstream(t, w.ns, resolver4, func(q []byte) [][]byte {
		seen <- q
		return [][]byte{oddResponse(q)}
	})
	conn := w.dial(t, "tcp")
	var stream []byte
	want := make(map[uint16][]byte) // id -> answer of the resolver; nil is ours
	for i := range uint16(20) {
		name := "orders"
		if i%3 == 0 {
			name = "ExAmPlE.org"
		}
		q := query(name, mdns.TypeA)
		q.Id = i
		want[i] = nil
		if i%3 == 0 {
			want[i] = oddResponse(pack(t, q))
		}
		stream = append(stream, frame(pack(t, q))...)
	}
	// Cut inside a length and inside a message.
	for _, part := range [][]byte{stream[:1], stream[1:30], stream[30:]} {
		if _, err := conn.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	// The last query is sent: the answers must come all the same.
	conn.(*net.TCPConn).CloseWrite()
	for len(want) > 0 {
		raw, err := readFrame(conn)
		if err != nil {
			t.Fatalf("%v with %d answers to come", err, len(want))
		}
		id := uint16(raw[0])<<8 | uint16(raw[1])
		expected, ok := want[id]
		if !ok {
			t.Fatalf("answer %x", raw)
		}
		delete(want, id)
		if expected == nil {
			if m := unpack(t, raw); len(m.Answer) != 1 || m.Question[0].Name != "orders." {
				t.Errorf("answer %v", m)
			}
		} else if !bytes.Equal(raw, expected) {
			t.Errorf("answer %x, resolver sent %x", raw, expected)
		}
	}
	if _, err := readFrame(conn); err != io.EOF {
		t.Errorf("after the last answer: %v", err)
	}
	q := query("ExAmPlE.org", mdns.TypeA)
	q.Id = 0
	if raw := pack(t, q); !bytes.Equal(<-seen, raw) {
		t.Error("the resolver got another query")
	}
	if s := w.Stats(); s != (Stats{Answered: 13, Forwarded: 7}) {
		t.Errorf("stats %+v", s)
	}
}

func TestTCPMalformed(t *testing.T) {
	w := newWorld(t)
	conn := w.dial(t, "tcp")
	raw := pack(t, query("orders", mdns.TypeA))
	conn.Write(frame(nil))
	conn.Write(frame(raw[:7]))
	conn.Write(frame(raw[:15]))
	answer, err := readFrame(conn)
	if err != nil {
		t.Fatal(err)
	}
	if m := unpack(t, answer); m.Rcode != mdns.RcodeFormatError {
		t.Errorf("answer %v", m)
	}
	if s := w.Stats(); s != (Stats{FormErr: 1, Dropped: 2}) {
		t.Errorf("stats %+v", s)
	}
}

func TestTCPIdle(t *testing.T) {
	w := newWorld(t, func(p *Params, _ *plan.Desired) { p.Idle = 50 * time.Millisecond })
	conn := w.dial(t, "tcp")
	conn.Write([]byte{0, 40, 1}) // a message that never ends
	if b, err := io.ReadAll(conn); len(b) != 0 {
		t.Errorf("%x, %v", b, err)
	}
}

// When the resolver hangs up, so do we.
func TestTCPResolverCloses(t *testing.T) {
	w := newWorld(t, func(p *Params, _ *plan.Desired) { p.Idle = time.Hour })
	var l net.Listener
	if err := w.ns.Do(func() (err error) { l, err = net.Listen("tcp", "127.0.0.53:53"); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.Accept(); err == nil {
			readFrame(c)
			c.Close()
		}
	}()
	conn := w.dial(t, "tcp")
	conn.Write(frame(pack(t, query("example.org", mdns.TypeA))))
	if b, err := io.ReadAll(conn); len(b) != 0 || err != nil {
		t.Errorf("%x, %v, want the end", b, err)
	}
	<-done
}

func TestTCPConnectionsAreBounded(t *testing.T) {
	w := newWorld(t)
	for range seatStreams {
		w.seat.streams <- struct{}{}
	}
	conn, err := w.ns.DialMarked(t.Context(), "tcp", w.redirects[0].Local.String())
	if err == nil { // else the reset came before the dial returned
		defer conn.Close()
		if b, err := io.ReadAll(conn); err == nil {
			t.Errorf("one connection too many ended with %x, want a reset", b)
		}
	}
	for range seatStreams {
		<-w.seat.streams
	}
	conn = w.dial(t, "tcp")
	conn.Write(frame(pack(t, query("orders", mdns.TypeA))))
	if _, err := readFrame(conn); err != nil {
		t.Error(err)
	}
}
