package h2

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	h2hpack "github.com/summerwind/h2spec/hpack"
	h2http2 "github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
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
	if testing.Short() {
		t.Skip("takes seconds: h2spec waits for silence")
	}
	l := newLoop(t)
	addr := l.listen(Config{Server: true}, &answerer{loop: l}).(*net.TCPAddr)
	c := &config.Config{
		Host: addr.IP.String(), Port: addr.Port, Path: "/",
		Timeout: time.Second, MaxHeaderLen: 4000, Strict: true,
	}
	ran := 0
	for _, group := range []*spec.TestGroup{generic.Spec(), h2http2.Spec(), h2hpack.Spec()} {
		group.Test(c)
		ran += report(t, group)
	}
	if ran < 140 {
		t.Errorf("only %d cases ran", ran)
	}
}

func report(t *testing.T, group *spec.TestGroup) (ran int) {
	for _, test := range group.Tests {
		if test.Result == nil {
			continue
		}
		ran++
		if test.Result.Failed || test.Result.Skipped {
			t.Errorf("%s %s: %s: %v", group.ID(), group.Name, strings.TrimSpace(test.Desc), test.Result.Error)
		}
	}
	for _, sub := range group.Groups {
		ran += report(t, sub)
	}
	return ran
}
