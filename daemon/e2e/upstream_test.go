package e2e

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"

	"connectd/pkg/testutil"

	"golang.org/x/net/dns/dnsmessage"
)

// upstreamAnswer is what the stand-in resolver says for every name it has; no
// VIP and no host's address, so that it shows who answered.
var upstreamAnswer = netip.MustParseAddr("192.0.2.99")

// upstream stands in for the resolver of a task: it knows names, all with one
// address, and says of others that they do not exist. It remembers bytes.
type upstream struct {
	*testutil.Host

	mu      sync.Mutex
	names   map[string]bool // without the last dot
	queries [][]byte
	answers [][]byte
}

func (n *node) upstream(names ...string) *upstream {
	n.Helper()
	u := &upstream{Host: n.w.Host("dns"), names: map[string]bool{}}
	for _, name := range names {
		u.knows(name)
	}
	address := at(u.Addr4(), 53)
	conn, ln := u.ListenPacket("udp", address), u.Listen("tcp", address)
	var wg sync.WaitGroup
	wg.Go(func() { u.serveUDP(conn) })
	wg.Go(func() { u.serveTCP(ln) })
	n.Cleanup(func() { conn.Close(); ln.Close(); wg.Wait() })
	return u
}

func (u *upstream) serveUDP(conn net.PacketConn) {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if answer := u.answer(buf[:n]); answer != nil {
			conn.WriteTo(answer, from)
		}
	}
}

func (u *upstream) serveTCP(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		var size [2]byte
		for {
			if _, err := io.ReadFull(c, size[:]); err != nil {
				break
			}
			query := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(c, query); err != nil {
				break
			}
			answer := u.answer(query)
			c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
		}
		c.Close()
	}
}

// answer is odd on purpose: a Z bit, a private type in the authority section,
// and for names below "odd" bytes after the message. All of it must reach the
// client unchanged.
func (u *upstream) answer(query []byte) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil || h.Response {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	name := q.Name.String()
	u.mu.Lock()
	defer u.mu.Unlock()
	known := u.names[name[:len(name)-1]]
	h.Response, h.RecursionAvailable = true, true
	if !known {
		h.RCode = dnsmessage.RCodeNameError
	}
	b := dnsmessage.NewBuilder(nil, h)
	b.StartQuestions()
	b.Question(q)
	b.StartAnswers()
	if known && (q.Type == dnsmessage.TypeA || q.Type == dnsmessage.TypeALL) {
		b.AResource(dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, dnsmessage.AResource{A: upstreamAnswer.As4()})
	}
	b.StartAuthorities()
	b.UnknownResource(dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 7}, dnsmessage.UnknownResource{Type: 65280, Data: []byte("odd")})
	msg, err := b.Finish()
	if err != nil {
		return nil
	}
	msg[3] |= 0x40
	if strings.HasPrefix(name, "odd.") {
		msg = append(msg, "trailing"...)
	}
	u.queries, u.answers = append(u.queries, append([]byte(nil), query...)), append(u.answers, msg)
	return msg
}

// knows adds a name.
func (u *upstream) knows(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.names[name] = true
}

// last returns the last query and answer.
func (u *upstream) last() (query, answer []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.queries) == 0 {
		return nil, nil
	}
	return u.queries[len(u.queries)-1], u.answers[len(u.answers)-1]
}
