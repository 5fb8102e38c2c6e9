package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestUpgradeLayout makes a later connectd, whose connection map has another
// layout, and upgrades to it under load: nothing breaks, and connections that
// the earlier programs wrote are still shown, drained and counted off.
func TestUpgradeLayout(t *testing.T) {
	t.Parallel()
	need(t, "clang-19")
	next := buildNext(t)
	s := newShop(t, "a", "b")
	s.begin(service("orders", "drain: {deadlineSeconds: 6, connections: terminate}", "a", "b"))
	vip := s.vip(s.web, s.dns.Host, "orders")
	kept, drained := holdAt(t, s.web, at(vip, 80), "a"), holdAt(t, s.web, at(vip, 80), "b")
	s.catalog(service("orders", "drain: {deadlineSeconds: 6, connections: terminate}", "a"))
	s.inState("prod/orders", s.endpoint("b"), "removed")
	deadline := s.endpoints("prod/orders")[s.endpoint("b")].DrainDeadline
	l := s.loaded(s.web, at(vip, 80)) // on a alone
	l.progress(s.node)

	s.daemon.kill()
	s.binary = next
	s.start()
	if _, err := os.Stat(filepath.Join(s.bpffs, "maps", "connections_v2")); err != nil {
		t.Fatalf("the later program has no new map: %s", err)
	}
	l.progress(s.node)
	if got := s.vip(s.web, s.dns.Host, "orders"); got != vip {
		t.Errorf("VIP is %s, was %s", got, vip)
	}
	if got := peer(t, kept); got != netip.AddrPortFrom(vip, 80) {
		t.Errorf("getpeername of an old connection shows %s, want the VIP", got)
	}
	if got := s.endpoints("prod/orders")[s.endpoint("b")].DrainDeadline; !got.Equal(deadline) {
		t.Errorf("b drains until %s, was %s", got, deadline)
	}
	if err := drained.ended(20 * time.Second); err != nil {
		t.Error(err)
	}
	if early := time.Until(deadline); early > 0 {
		t.Errorf("the drained connection ended %s before its deadline", early)
	}
	if err := kept.works(); err != nil {
		t.Errorf("the kept connection: %s", err)
	}
	if errs := l.stop(); len(errs) > 0 {
		t.Errorf("%d failures, first ones:\n%s", len(errs), strings.Join(errs[:min(len(errs), 10)], "\n"))
	}
	kept.Close()
	for _, c := range l.held {
		c.Close()
	}
	// Whichever program wrote them, all of them are counted off.
	s.eventually(10*time.Second, func() error {
		for address, e := range s.endpoints("prod/orders") {
			if e.ActiveConnections != 0 {
				return fmt.Errorf("%s has %d connections", address, e.ActiveConnections)
			}
		}
		return nil
	})
}

// edit is one change of the source, which must be there to be made.
type edit struct {
	file    string
	pattern string
	replace string
}

// buildNext copies the module, gives its connection map another layout as a
// developer would, and builds it. What it writes into legacy.h and legacy.go is
// the example to follow.
func buildNext(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, part := range []string{"go.mod", "go.sum", "bpf", "cmd", "daemon", "pkg"} {
		tool(t, root, "cp", "-r", part, dir)
	}
	types, err := os.ReadFile(filepath.Join(root, "bpf/lib/types.h"))
	if err != nil {
		t.Fatal(err)
	}
	old := regexp.MustCompile(`(?s)struct connection \{(.*?)\n\};`).FindSubmatch(types)
	if old == nil {
		t.Fatal("bpf/lib/types.h has no struct connection")
	}
	for _, e := range []edit{
		{"bpf/lib/types.h", `struct connection \{\n`, "struct connection {\n\t__u64 generation; /* new: everything moves */\n"},
		{"bpf/lib/maps.h", `MAP\(connections_v1,`, "MAP(connections_v2,"},
		{"bpf/lib/track.h", `&connections_v1\b`, "&connections_v2"},
		{"bpf/lib/maps.h", `MAP\(subflows_v1,`, "MAP(subflows_v2,"}, // of the same type; LRU, nothing is carried over
		{"bpf/lib/track.h", `&subflows_v1\b`, "&subflows_v2"},
		{"pkg/datapath/counters.go", `connectMapSubflowsV1:( +)o.SubflowsV1`, "connectMapSubflowsV2: o.SubflowsV2"},
		{"bpf/connect.bpf.c", `&connections_v1\b`, "&connections_v2"},
		{"bpf/lib/legacy.h", `(?s)static.*`, fmt.Sprintf(legacyH, old[1])},
		{"pkg/datapath/gen.go", `-type connection `, "-type connection -type connection_v1 "},
		{"pkg/datapath/datapath.go", `connectMapConnectionsV1`, "connectMapConnectionsV2"},
		{"pkg/datapath/counters.go", `\bConnectionsV1`, "ConnectionsV2"},
		{"pkg/datapath/counters.go", `connectMapConnectionsV1`, "connectMapConnectionsV2"},
		{"pkg/datapath/terminate.go", `\bConnectionsV1`, "ConnectionsV2"},
		{"pkg/datapath/legacy.go", `(?s)\treturn all.*`, legacyGo},
	} {
		path := filepath.Join(dir, e.file)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		re := regexp.MustCompile(e.pattern)
		if !re.Match(b) {
			t.Fatalf("%s has no %s any more: mend this test", e.file, e.pattern)
		}
		if err := os.WriteFile(path, re.ReplaceAllLiteral(b, []byte(e.replace)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tool(t, filepath.Join(dir, "pkg/datapath"), "go", "generate", ".")
	out := filepath.Join(dir, "connectd-next")
	tool(t, dir, "go", "build", "-o", out, "./cmd/connectd")
	return out
}

func tool(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %s\n%s", name, strings.Join(args, " "), err, out)
	}
}

const legacyH = `struct connection_v1 {%s
};

MAP(connections_v1, BPF_MAP_TYPE_HASH, __u64, struct connection_v1, 1);

static __always_inline void upgrade(const struct connection_v1 *old, struct connection *c)
{
	*c = (struct connection){
		.vip = old->vip, .remote = old->remote, .local = old->local, .vip_port = old->vip_port,
		.remote_port = old->remote_port, .local_port = old->local_port, .protocol = old->protocol,
		.flags = old->flags, .endpoint = old->endpoint, .service = old->service, .task = old->task,
		.netns = old->netns, .started_ns = old->started_ns, .generation = 1,
	};
}

static __always_inline bool legacy_peek(__u64 cookie, struct connection *out)
{
	struct connection_v1 *old = bpf_map_lookup_elem(&connections_v1, &cookie);

	if (!old)
		return false;
	upgrade(old, out);
	return true;
}

static __always_inline struct connection *legacy_take(__u64 cookie)
{
	struct connection c;

	if (!legacy_peek(cookie, &c))
		return NULL;
	bpf_map_update_elem(&connections_v2, &cookie, &c, BPF_ANY);
	bpf_map_delete_elem(&connections_v1, &cookie);
	return bpf_map_lookup_elem(&connections_v2, &cookie);
}
`

const legacyGo = `	return func(yield func(entry[uint64, connectConnection], error) bool) {
		for e, err := range all[uint64, connectConnection](d.objs.ConnectionsV2) {
			if !yield(e, err) {
				return
			}
		}
		for e, err := range all[uint64, connectConnectionV1](d.objs.ConnectionsV1) {
			o := e.value
			c := connectConnection{
				Vip: o.Vip, Remote: o.Remote, Local: o.Local, VipPort: o.VipPort, RemotePort: o.RemotePort,
				LocalPort: o.LocalPort, Protocol: o.Protocol, Flags: o.Flags, Endpoint: o.Endpoint,
				Service: o.Service, Task: o.Task, Netns: o.Netns, StartedNs: o.StartedNs,
			}
			if !yield(entry[uint64, connectConnection]{e.key, c}, err) {
				return
			}
		}
	}
}
`

// peer is what getpeername(2) says now; Go's RemoteAddr remembers.
func peer(t *testing.T, c *held) netip.AddrPort {
	t.Helper()
	raw, err := c.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var sa unix.Sockaddr
	if cerr := raw.Control(func(fd uintptr) { sa, err = unix.Getpeername(int(fd)) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	v4, ok := sa.(*unix.SockaddrInet4)
	if !ok {
		t.Fatalf("peer is %T", sa)
	}
	return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), uint16(v4.Port))
}
