package demo

import (
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// httpServer says its name and whom it sees. It can be told to fail its health
// check while it goes on serving, and to refuse every other request to cart.
type httpServer struct {
	http.Server
	name  string
	sick  atomic.Bool
	flaky atomic.Bool
	done  chan struct{}

	tries, refused atomic.Int64 // of requests to cart
}

func serveHTTP(p *place, name string) (*httpServer, error) {
	ln, err := p.listen(apiPort)
	if err != nil {
		return nil, err
	}
	s := &httpServer{name: name, done: make(chan struct{})}
	s.ErrorLog = log.New(io.Discard, "", 0)
	s.Handler = http.HandlerFunc(s.answer)
	go func() {
		defer close(s.done)
		s.Serve(ln)
	}()
	return s, nil
}

func (s *httpServer) answer(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/healthz" && s.sick.Load() {
		http.Error(w, "told to fail", http.StatusServiceUnavailable)
		return
	}
	if r.Host == "cart" && s.tries.Add(1)%2 == 1 && s.flaky.Load() {
		s.refused.Add(1)
		http.Error(w, "told to refuse", http.StatusServiceUnavailable)
		return
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	fmt.Fprintf(w, "%s %s\n", s.name, host)
}

func (s *httpServer) Close() error {
	err := s.Server.Close()
	<-s.done
	return err
}

// packetServer answers each datagram until it is closed.
type packetServer struct {
	conn net.PacketConn
	wg   sync.WaitGroup
}

func servePackets(p *place, port uint16, answer func(from net.Addr, message []byte) []byte) (*packetServer, error) {
	conn, err := p.listenPacket(port)
	if err != nil {
		return nil, err
	}
	s := &packetServer{conn: conn}
	s.wg.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply := answer(from, buf[:n]); reply != nil {
				conn.WriteTo(reply, from)
			}
		}
	})
	return s, nil
}

func (s *packetServer) Close() error {
	err := s.conn.Close()
	s.wg.Wait()
	return err
}

// serveEcho is the UDP service: it answers with its name, whom it sees, and
// what it got.
func serveEcho(p *place, name string) (io.Closer, error) {
	return servePackets(p, echoPort, func(from net.Addr, message []byte) []byte {
		host, _, _ := net.SplitHostPort(from.String())
		return fmt.Appendf(nil, "%s %s %s", name, host, message)
	})
}

// dnsServer is the resolver that the clients had before connectd: it knows
// one name.
type dnsServer struct {
	*packetServer
	ln net.Listener
}

// outsideName is what the upstream resolver knows, and outsideAddr its address.
const outsideName = "example.test"

var outsideAddr = netip.MustParseAddr("192.0.2.80")

func serveDNS(p *place) (io.Closer, error) {
	udp, err := servePackets(p, dnsPort, func(_ net.Addr, message []byte) []byte { return answerDNS(message) })
	if err != nil {
		return nil, err
	}
	s := &dnsServer{packetServer: udp}
	if s.ln, err = p.listen(dnsPort); err != nil {
		udp.Close()
		return nil, err
	}
	s.wg.Go(func() {
		for {
			conn, err := s.ln.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { answerTCP(conn) })
		}
	})
	return s, nil
}

// answerTCP answers one question.
func answerTCP(conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Second))
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return
	}
	message := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, message); err != nil {
		return
	}
	reply := answerDNS(message)
	conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
}

func (s *dnsServer) Close() error {
	s.ln.Close()
	return s.packetServer.Close()
}

// answerDNS is nil for what is no question.
func answerDNS(message []byte) []byte {
	var parser dnsmessage.Parser
	header, err := parser.Start(message)
	if err != nil || header.Response {
		return nil
	}
	question, err := parser.Question()
	if err != nil {
		return nil
	}
	reply := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: header.ID, Response: true, RecursionDesired: header.RecursionDesired, RecursionAvailable: true},
		Questions: []dnsmessage.Question{question},
	}
	switch {
	case question.Name.String() != outsideName+".":
		reply.RCode = dnsmessage.RCodeNameError
	case question.Type == dnsmessage.TypeA:
		reply.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: 60},
			Body:   &dnsmessage.AResource{A: outsideAddr.As4()},
		}}
	}
	packed, err := reply.Pack()
	if err != nil {
		return nil
	}
	return packed
}
