package testutil

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// leaveEnv makes the test binary a process that leaves something behind: what
// TestLeave finds in it.
const leaveEnv = "TESTUTIL_LEAVE"

func TestMain(m *testing.M) {
	if os.Getenv(leaveEnv) != "" {
		// As a test, for only those have a testing.TB.
		os.Args = []string{os.Args[0], "-test.run=^TestLeave$", "-test.timeout=1m"}
	}
	os.Exit(Main(m))
}

func TestWhoAnswers(t *testing.T) {
	w := NewWorld(t)
	web, a, b := w.Host("web"), w.Host("a"), w.Host("b")
	a.ServeName("a", "0.0.0.0:8080")
	a.ServeName("a6", "[::]:8081")
	b.ServeName("b", netip.AddrPortFrom(b.Addr4(), 8080).String())
	b.ServeName("b-lo", "127.0.0.1:9090")
	for _, tc := range []struct {
		from             *Host
		network, address string
		want             string
	}{
		{web, "tcp", "10.66.0.3:8080", "a"},
		{web, "udp", "10.66.0.3:8080", "a"},
		{web, "tcp", "10.66.0.4:8080", "b"},
		{web, "udp", "10.66.0.4:8080", "b"},
		{web, "tcp", "[fd66::3]:8081", "a6"},
		{web, "udp", "[fd66::3]:8081", "a6"},
		{b, "tcp", "127.0.0.1:9090", "b-lo"},
		{a, "tcp", "127.0.0.1:9090", ""},
		{web, "tcp", "127.0.0.1:8080", ""},
		{web, "tcp", "10.66.0.3:8082", ""},
		{web, "udp", "10.66.0.3:8082", ""},
	} {
		if got := WhoAnswers(t, tc.from, tc.network, tc.address); got != tc.want {
			t.Errorf("%s asks %s %s: %q answers, want %q", tc.from.Name(), tc.network, tc.address, got, tc.want)
		}
	}
}

// TestPeer: hosts of two worlds reach one another by their own addresses
// through the router, and no other world.
func TestPeer(t *testing.T) {
	w := NewWorld(t)
	before := w.Host("before")
	far, router := w.Peer(netip.MustParsePrefix("10.67.0.0/24"), netip.MustParsePrefix("fd67::/64"))
	here := w.Host("here")
	far.Host("first") // with the number that the router has in its own world
	there := far.Host("there")
	for _, h := range []*Host{here, there} {
		for _, a := range []netip.Addr{h.Addr4(), h.Addr6()} {
			h.ServeName(h.Name(), netip.AddrPortFrom(a, 8080).String())
		}
	}
	if a := there.Addr4(); !far.subnet4.Contains(a) {
		t.Errorf("the far host has %s", a)
	}
	for _, each := range []struct{ from, to *Host }{{here, there}, {there, here}} {
		for _, a := range []netip.Addr{each.to.Addr4(), each.to.Addr6()} {
			got, err := each.from.Ask(t.Context(), "tcp", netip.AddrPortFrom(a, 8080).String())
			if err != nil || got.Name != each.to.Name() || got.Peer.Addr() != each.from.addr(func(b netip.Addr) bool { return a.Is4() == b.Is4() }) {
				t.Errorf("%s asks %s: %+v (%v)", each.from.Name(), a, got, err)
			}
		}
	}
	if got := WhoAnswers(t, before, "tcp", netip.AddrPortFrom(there.Addr4(), 8080).String()); got != "" {
		t.Errorf("a host without a route is answered by %s", got)
	}
	if err := router.SetLink(false); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if got, err := here.Ask(ctx, "tcp", netip.AddrPortFrom(there.Addr4(), 8080).String()); err == nil {
		t.Errorf("without the router %s answers", got.Name)
	}
	if err := router.SetLink(true); err != nil {
		t.Fatal(err)
	}
	if got := WhoAnswers(t, there, "tcp", netip.AddrPortFrom(here.Addr4(), 8080).String()); got != "here" {
		t.Errorf("with the router again %q answers", got)
	}
}

func TestAnswerSaysWhoAsked(t *testing.T) {
	w := NewWorld(t)
	web, a := w.Host("web"), w.Host("a")
	at := a.ServeName("a", "10.66.0.3:0")
	for _, network := range []string{"tcp", "udp"} {
		got, err := web.Ask(t.Context(), network, at.String())
		if err != nil {
			t.Fatal(err)
		}
		if got.Peer != got.Local || got.Peer.Addr() != web.Addr4() || got.Remote != at {
			t.Errorf("%s: %+v", network, got)
		}
	}
	conn := web.ListenPacket("udp", "0.0.0.0:0")
	got, err := AskPacket(conn, at)
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "a" || got.Remote != at || got.Peer.Addr() != web.Addr4() {
		t.Errorf("unconnected: %+v", got)
	}
}

func TestServerEchoes(t *testing.T) {
	w := NewWorld(t)
	web, a := w.Host("web"), w.Host("a")
	conn, err := web.Dial(t.Context(), "tcp", a.ServeName("a", "10.66.0.3:0").String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := AskConn(conn); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	if _, err := conn.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(buf); err != nil || string(buf) != "ping" {
		t.Errorf("echo: %q, %v", buf, err)
	}
}

func TestLinkDownIsABlackHole(t *testing.T) {
	w := NewWorld(t)
	web, a := w.Host("web"), w.Host("a")
	at := a.ServeName("a", "10.66.0.3:0").String()
	if err := a.SetLink(false); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if got, err := web.Ask(ctx, "tcp", at); err == nil {
		t.Errorf("link down: %q answers", got.Name)
	}
	if err := a.SetLink(true); err != nil {
		t.Fatal(err)
	}
	if got := WhoAnswers(t, web, "tcp", at); got != "a" {
		t.Errorf("link up again: %q answers", got)
	}
}

func TestDefaultRoute(t *testing.T) {
	w := NewWorld(t)
	web := w.Host("web")
	unreachable := func() error {
		// A datagram needs a route and no answer.
		conn, err := web.Dial(t.Context(), "udp", "192.0.2.1:9")
		if err == nil {
			conn.Close()
		}
		return err
	}
	if err := unreachable(); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("without a route: %v", err)
	}
	web.DefaultRoute(netip.MustParseAddr("10.66.0.1"))
	if err := unreachable(); err != nil {
		t.Errorf("with a route: %v", err)
	}
}

func TestAddressMovesToAnotherHost(t *testing.T) {
	w := NewWorld(t)
	web := w.Host("web")
	addr := netip.MustParsePrefix("10.66.0.77/24")
	first := w.Host("first", addr)
	first.ServeName("first", "10.66.0.77:80")
	first.Close()
	second := w.Host("second", addr)
	second.ServeName("second", "10.66.0.77:80")
	if got := WhoAnswers(t, web, "tcp", "10.66.0.77:80"); got != "second" {
		t.Errorf("%q answers", got)
	}
}

func TestCommandRunsInside(t *testing.T) {
	w := NewWorld(t)
	web := w.Host("web")
	inode := func(path string) string {
		link, err := os.Readlink(path)
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	got, err := web.Command(t.Context(), "readlink", "/proc/self/ns/net").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("net:[%d]", web.NS().Inode())
	if strings.TrimSpace(string(got)) != want || want == inode("/proc/self/ns/net") {
		t.Errorf("netns of the program is %s, want %s", got, want)
	}
}

func TestResolvConf(t *testing.T) {
	w := NewWorld(t)
	web, plain := w.Host("web"), w.Host("plain")
	cat := func(h *Host) string {
		out, err := h.Command(t.Context(), "cat", "/etc/resolv.conf").CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %s", err, out)
		}
		return string(out)
	}
	machine, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	if got := cat(web); got != string(machine) {
		t.Errorf("before: %q", got)
	}
	web.ResolvConf("nameserver 10.66.0.1\n")
	for range 2 { // mounted by the first, found mounted by the second
		if got := cat(web); got != "nameserver 10.66.0.1\n" {
			t.Errorf("after: %q", got)
		}
	}
	if got := cat(plain); got != string(machine) {
		t.Errorf("another host: %q", got)
	}
	if now, _ := os.ReadFile("/etc/resolv.conf"); !bytes.Equal(now, machine) {
		t.Error("the machine's own file changed")
	}
}

func TestCommandEnds(t *testing.T) {
	for _, by := range []string{"context", "host"} {
		t.Run(by, func(t *testing.T) {
			web := NewWorld(t).Host("web")
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			// The shell's child is in its group and holds the pipe, so that
			// the pipe ends only when the child is gone too.
			cmd := web.Command(ctx, "sh", "-c", "sleep 1000 & echo up; wait")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			up := make([]byte, 3)
			if _, err := io.ReadFull(out, up); err != nil {
				t.Fatal(err)
			}
			if by == "context" {
				cancel()
			} else {
				web.Close()
			}
			if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 {
				t.Errorf("read on: %q, %v", rest, err)
			}
			if err := cmd.Wait(); err == nil {
				t.Error("the program ended well, want it killed")
			}
		})
	}
}

func TestCgroup(t *testing.T) {
	w := NewWorld(t)
	web := w.Host("web")
	g := NewCgroup(t)
	child := g.Child("inner")
	cmd := web.Command(t.Context(), "sleep", "1000").In(child)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	procs, err := os.ReadFile(filepath.Join(child.Path(), "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.TrimSpace(string(procs)), fmt.Sprint(cmd.Process.Pid); got != want {
		t.Errorf("members %q, want %q", got, want)
	}
	if g.ID() == 0 || g.ID() == child.ID() {
		t.Errorf("ids %d and %d", g.ID(), child.ID())
	}
	g.Add(os.Getpid())
	g.Close()
	if err := cmd.Wait(); err == nil {
		t.Error("member ended well, want it killed")
	}
	if _, err := os.Stat(g.Path()); !os.IsNotExist(err) {
		t.Errorf("cgroup after Close: %v", err)
	}
	if own, _ := os.ReadFile("/proc/self/cgroup"); bytes.Contains(own, []byte(filepath.Base(g.Path()))) {
		t.Errorf("the test is still in it: %s", own)
	}
}

// recorder is a testing.TB that fails without ending the test that uses it.
type recorder struct {
	testing.TB
	fatal string
}

func (r *recorder) Helper()           {}
func (r *recorder) Fatal(args ...any) { r.fatal = fmt.Sprint(args...) }

func TestEventually(t *testing.T) {
	var r recorder
	Eventually(&r, 10*time.Millisecond, func() error { return errors.New("map still holds 3 entries") })
	if !strings.Contains(r.fatal, "map still holds 3 entries") || !strings.Contains(r.fatal, "tries") {
		t.Errorf("message: %q", r.fatal)
	}
	r.fatal = ""
	tries := 0
	Eventually(&r, time.Minute, func() error {
		if tries++; tries < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	if r.fatal != "" || tries != 3 {
		t.Errorf("fatal %q after %d tries", r.fatal, tries)
	}
}

func TestListenerIsNotMultipath(t *testing.T) {
	w := NewWorld(t)
	ln := w.Host("a").Listen("tcp", "127.0.0.1:0").(*net.TCPListener)
	raw, err := ln.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		const soProtocol = 0x26
		if got, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, soProtocol); err != nil || got != syscall.IPPROTO_TCP {
			t.Errorf("SO_PROTOCOL %d, %v", got, err)
		}
	})
}
