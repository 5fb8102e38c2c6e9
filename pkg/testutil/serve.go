package testutil

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// askTimeout bounds one question to a named server: long enough for two lost
// SYNs, short enough for a table of addresses that must not answer.
const askTimeout = 4 * time.Second

// Answer is what a client learned by asking a named server.
type Answer struct {
	Name   string         // the server's name
	Peer   netip.AddrPort // the client's address as the server saw it
	Local  netip.AddrPort // the client's address as the client sees it
	Remote netip.AddrPort // getpeername, or for unconnected UDP the reply's sender
}

// ServeName runs a TCP and a UDP server on one address of the host, such as
// "10.66.0.3:8080", until the test or the host ends. A TCP client is sent one
// line "NAME PEER", then its own bytes back until it closes; a datagram is
// answered with "NAME PEER" and then its own bytes after a newline.
// It returns the address, useful when the port asked for was 0.
func (h *Host) ServeName(name, address string) netip.AddrPort {
	h.tb.Helper()
	ln := h.Listen("tcp", address)
	at := addrPort(ln.Addr())
	conn := h.ListenPacket("udp", at.String())
	h.goAtClose(func() { serveTCP(ln, name) }, func() { ln.Close() })
	h.goAtClose(func() { serveUDP(conn, name) }, func() { conn.Close() })
	return at
}

// goAtClose runs serve in a goroutine that the host's end stops and waits for.
func (h *Host) goAtClose(serve, stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		serve()
	}()
	h.OnClose(func() {
		stop()
		<-done
	})
}

func serveTCP(ln net.Listener, name string) {
	var conns connSet
	defer conns.closeAll()
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		conns.serve(c, func() {
			fmt.Fprintf(c, "%s %s\n", name, addrPort(c.RemoteAddr()))
			io.Copy(c, c)
		})
	}
}

func serveUDP(conn net.PacketConn, name string) {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier answer
		}
		reply := fmt.Appendf(nil, "%s %s\n", name, addrPort(from))
		conn.WriteTo(append(reply, buf[:n]...), from)
	}
}

// Ask dials from the host and returns what the named server there says.
// network is any that net.Dialer takes for TCP or UDP.
func (h *Host) Ask(ctx context.Context, network, address string) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := h.Dial(ctx, network, address)
	if err != nil {
		return Answer{}, err
	}
	defer conn.Close()
	a, err := AskConn(conn)
	if err == nil && strings.HasPrefix(network, "tcp") {
		// Without this reset, thousands of questions would each leave a port
		// in TIME_WAIT.
		if tcp, ok := conn.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
	}
	return a, err
}

// AskConn asks over a connection to a named server that was just made.
func AskConn(conn net.Conn) (Answer, error) {
	conn.SetDeadline(time.Now().Add(askTimeout))
	a := Answer{Local: addrPort(conn.LocalAddr()), Remote: addrPort(conn.RemoteAddr())}
	if _, udp := conn.(*net.UDPConn); udp {
		if _, err := conn.Write([]byte("who")); err != nil {
			return a, err
		}
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return a, fmt.Errorf("read answer of %s: %w", conn.RemoteAddr(), err)
	}
	return a, a.parse(line)
}

// AskPacket asks over an unconnected socket.
func AskPacket(conn net.PacketConn, to netip.AddrPort) (Answer, error) {
	conn.SetDeadline(time.Now().Add(askTimeout))
	a := Answer{Local: addrPort(conn.LocalAddr())}
	if _, err := conn.WriteTo([]byte("who"), net.UDPAddrFromAddrPort(to)); err != nil {
		return a, err
	}
	buf := make([]byte, 1024)
	n, from, err := conn.ReadFrom(buf)
	if err != nil {
		return a, fmt.Errorf("read answer of %s: %w", to, err)
	}
	a.Remote = addrPort(from)
	return a, a.parse(string(buf[:n]))
}

func (a *Answer) parse(text string) error {
	line, _, _ := strings.Cut(text, "\n")
	name, peer, ok := strings.Cut(line, " ")
	if !ok {
		return fmt.Errorf("parse answer %q: not from a named server", line)
	}
	at, err := netip.ParseAddrPort(peer)
	if err != nil {
		return fmt.Errorf("parse answer %q: %w", line, err)
	}
	a.Name, a.Peer = name, at
	return nil
}

// WhoAnswers returns the name of the server that a client on the host reaches
// at address, or "" when there is none; why is then in the test's log.
func WhoAnswers(tb testing.TB, h *Host, network, address string) string {
	tb.Helper()
	a, err := h.Ask(context.Background(), network, address)
	if err != nil {
		tb.Logf("nobody answers %s at %s %s: %s", h.Name(), network, address, err)
	}
	return a.Name
}

// addrPort converts an address of net, unmapping IPv4.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
