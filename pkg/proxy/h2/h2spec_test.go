package h2

import (
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"connectd/pkg/testutil/h2spec"
)

// answerer answers every request, when it is complete, with a small page.
type answerer struct {
	loop *loop
}

var page = []byte("the page\n")

func (a *answerer) answer(st *Stream) {
	st.Headers([]hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "content-type", Value: "text/plain"}}, false)
	a.Writable(st)
}

func (a *answerer) Writable(st *Stream) {
	sent, _ := st.User.(int)
	sent += st.Write(page[sent:], true)
	st.User = sent
	if sent == len(page) {
		st.Close(http2.ErrCodeNo)
	}
}

func (a *answerer) Headers(st *Stream, _ Kind, _ []hpack.HeaderField, end bool) {
	if end {
		a.answer(st)
	}
}

func (a *answerer) Data(st *Stream, p []byte, end bool) {
	st.Release(len(p))
	if end {
		a.answer(st)
	}
}

func (a *answerer) Reset(st *Stream, _ Cause) { st.Close(http2.ErrCodeNo) }
func (a *answerer) Flush(s *Session)          { a.loop.flushed(s) }

// listen serves sessions on a loopback socket, all on one loop.
func (l *loop) listen(cfg Config, h Handler) net.Addr {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			if !l.do(func() { l.serve(nc, cfg, h) }) {
				nc.Close()
				return
			}
			l.t.Cleanup(func() { nc.Close() })
		}
	}()
	return ln.Addr()
}

// TestH2Spec runs the conformance suite h2spec against a server session.
func TestH2Spec(t *testing.T) {
	l := newLoop(t)
	addr := l.listen(Config{Server: true}, &answerer{loop: l}).(*net.TCPAddr)
	h2spec.Run(t, addr.AddrPort())
}
