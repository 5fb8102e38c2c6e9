package daemon

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"connectd/pkg/control"
	"connectd/pkg/datapath"
	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

func TestEventLog(t *testing.T) {
	l := newEventLog()
	empty := l.After("")
	if len(empty.Events) != 0 || empty.Missed != 0 {
		t.Errorf("empty: %+v", empty)
	}
	begun := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	refused := func(after time.Duration, port uint16, times uint64) control.Event {
		return control.Event{Kind: control.EventRefused, At: begun.Add(after), Times: times, Task: "web", Name: "orders", Reason: "no_frontend",
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 254, 0, 1}), port)}
	}
	for i, add := range []struct {
		event control.Event
		new   bool
	}{
		{refused(0, 81, 0), true},
		{refused(59*time.Second, 82, 5), false}, // counted, whatever the port
		{control.Event{Kind: "draining", Name: "prod/orders"}, true},
		{control.Event{Kind: "draining", Name: "prod/orders"}, true}, // changes are not counted together
		{refused(time.Minute, 83, 1), true},                          // another minute
		{control.Event{Kind: control.EventProblem, Task: "web", Reason: "label"}, true},
		{control.Event{Kind: control.EventProblem, Task: "web", Reason: "label"}, false},
		{control.Event{Kind: control.EventProblem, Task: "web", Reason: "port"}, true},
	} {
		if got := l.Add(add.event); got != add.new {
			t.Errorf("event %d: new is %v", i, got)
		}
	}
	select {
	case <-empty.Changed:
	default:
		t.Error("who waits for the first event hears nothing")
	}
	all := l.After("")
	if len(all.Events) != 6 {
		t.Fatalf("%d events: %+v", len(all.Events), all.Events)
	}
	first := refused(0, 82, 6)
	first.Seq, first.Last = 1, begun.Add(59*time.Second)
	if all.Events[0] != first {
		t.Errorf("got  %+v\nwant %+v", all.Events[0], first)
	}
	for i, e := range all.Events {
		if e.Seq != uint64(i+1) || e.Times == 0 || e.At.IsZero() {
			t.Errorf("event %d: %+v", i, e)
		}
	}
	if again := l.After(all.Cursor); len(again.Events) != 0 || again.Cursor != all.Cursor {
		t.Errorf("after the last: %+v", again)
	}
	counts := map[string]uint64{}
	for _, c := range l.counters() {
		counts[c.Reason] = c.Value
	}
	if fmt.Sprint(counts) != "map[draining:2 problem:3 refused:7]" {
		t.Errorf("counted %v", counts)
	}

	// More than are held: the oldest go, and who follows is told.
	for range maxEvents + 10 {
		l.Add(control.Event{Kind: "active"})
	}
	late := l.After(all.Cursor)
	if len(late.Events) != maxEvents || late.Missed != 10 || late.Events[0].Seq != 6+10+1 {
		t.Errorf("%d events from %d on, %d missed", len(late.Events), late.Events[0].Seq, late.Missed)
	}
	// One to count with that is not held any more.
	if !l.Add(refused(61*time.Second, 84, 1)) {
		t.Error("counted with an event that nobody can see")
	}
	// A cursor of another daemon, and rubbish.
	for _, cursor := range []string{newEventLog().After("").Cursor, "x", "/", "1/2/3", strings.SplitAfter(all.Cursor, "/")[0] + "-1"} {
		if got := l.After(cursor); len(got.Events) != maxEvents {
			t.Errorf("after %q: %d events", cursor, len(got.Events))
		}
	}
	if got := l.After(strings.SplitAfter(all.Cursor, "/")[0] + "99999999"); len(got.Events) != 0 || got.Missed != 0 {
		t.Errorf("after what is to come: %d events, %d missed", len(got.Events), got.Missed)
	}
}

// What a node may be refused is not known in advance: what is remembered to
// count by stays bounded.
func TestEventLogIsBounded(t *testing.T) {
	l := newEventLog()
	for i := range 10 * maxEvents {
		l.Add(control.Event{Kind: control.EventRefused, Task: fmt.Sprint(i), Reason: "no_frontend"})
	}
	if n := len(l.recent); n > 2*maxEvents+1 {
		t.Errorf("%d are remembered", n)
	}
}

func TestVIPIndex(t *testing.T) {
	v4, v6 := netip.MustParseAddr("127.254.0.1"), netip.MustParseAddr("fd63::1")
	web := &plan.Service{Service: &lb.Service{Name: lb.ServiceName{Namespace: "prod", DiscoveryName: "web"}, Protocol: lb.TCP},
		Names: []plan.Name{{DNSName: "shop", V4: v4, V6: v6, Ports: []uint16{80}}, {DNSName: "shop.prod", V4: netip.MustParseAddr("127.254.0.2"), Ports: []uint16{80}}}}
	admin := &plan.Service{Service: &lb.Service{Name: lb.ServiceName{Namespace: "prod", DiscoveryName: "admin"}, Protocol: lb.TCP},
		Names: []plan.Name{{DNSName: "shop", V4: v4, Ports: []uint16{81}}}}
	p := &plan.Desired{Services: []*plan.Service{admin, web}}
	var x vipIndex
	for _, test := range []struct {
		address  string
		protocol lb.Protocol
		name     string
		service  *plan.Service
		reason   string
		explain  string
	}{
		{"127.254.0.1:80", lb.TCP, "shop", web, "no_endpoint", "service prod/web has no usable endpoint"},
		{"127.254.0.1:81", lb.TCP, "shop", admin, "stale", "service prod/admin was being changed"},
		{"127.254.0.1:80", lb.UDP, "shop", nil, "no_frontend", "the name has no port 80/udp"},
		{"127.254.0.1:82", lb.TCP, "shop", nil, "no_frontend", "the name has no port 82/tcp"},
		{"127.254.0.2:80", lb.TCP, "shop.prod", web, "out_of_scope", "of namespace prod, which the task may not use"},
		{"[fd63::1]:80", lb.TCP, "shop", web, "untracked", "it went on untracked: the connection map is full, or the task's share of it"},
		{"127.254.0.9:80", lb.TCP, "", nil, "no_frontend", "no name has this address"},
		{"127.254.0.9:80", lb.TCP, "", nil, "out_of_scope", "of a namespace that the task may not use"},
		{"127.254.0.9:80", lb.TCP, "", nil, "no_endpoint", "its service has no usable endpoint"},
	} {
		at := netip.MustParseAddrPort(test.address)
		got := x.find(p, at, test.protocol)
		if got.name != test.name || got.service != test.service {
			t.Errorf("%s/%s is %+v, want %s", test.address, test.protocol, got, test.name)
		}
		if text := got.explain(datapath.Refusal{Address: at, Protocol: test.protocol, Reason: test.reason}); text != test.explain {
			t.Errorf("%s: %q, want %q", test.address, text, test.explain)
		}
	}
	if got := x.find(&plan.Desired{}, netip.AddrPortFrom(v4, 80), lb.TCP); got.name != "" {
		t.Errorf("in a plan without it: %+v", got)
	}
}

func TestBrakeFile(t *testing.T) {
	dir := t.TempDir()
	if since, _, err := readBrake(dir); err != nil || !since.IsZero() {
		t.Errorf("without a file: %s, %v", since, err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := writeBrake(dir, at, false); err != nil {
		t.Fatal(err)
	}
	if since, _, err := readBrake(dir); err != nil || !since.Equal(at) {
		t.Errorf("%s, %v", since, err)
	}
	if err := writeBrake(dir, at, true); err != nil {
		t.Fatal(err)
	}
	if since, attribute, err := readBrake(dir); err != nil || !since.Equal(at) || !attribute {
		t.Errorf("by the attribute: %s, %v, %v", since, attribute, err)
	}
	if err := os.WriteFile(brakePath(dir), []byte("?"), 0o600); err != nil {
		t.Fatal(err)
	}
	if since, _, err := readBrake(dir); err != nil || since.IsZero() {
		t.Errorf("made by hand: %s, %v; want off", since, err)
	}
	if err := writeBrake(dir+"/missing", at, false); err == nil {
		t.Error("written into a folder that is not there")
	}
}
