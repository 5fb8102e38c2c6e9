package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectd/pkg/control"
)

// happened returns the events of a kind about a task; "" is any.
func (n *node) happened(kind control.EventKind, task string) []control.Event {
	n.Helper()
	page, err := n.control().Events(context.Background(), control.EventFilter{Task: task, Kinds: []string{string(kind)}})
	if err != nil {
		n.Fatal(err)
	}
	return page.Events
}

// refusal waits for the refusal of a task by reason.
func (n *node) refusal(task, reason string) (found control.Event) {
	n.Helper()
	n.eventually(10*time.Second, func() error {
		list := n.happened(control.EventRefused, task)
		i := slices.IndexFunc(list, func(e control.Event) bool { return e.Reason == reason })
		if i < 0 {
			return fmt.Errorf("no %s of %s in %+v", reason, task, list)
		}
		found = list[i]
		return nil
	})
	return found
}

// TestRefusalEvents: what clients are refused stands in the list of events, in
// the log and with who follows, with task, name and reason; what they get does
// not.
func TestRefusalEvents(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a")
	tools, stranger := s.another("tools", "tools"), s.w.Host("stranger")
	s.begin(service("orders", "", "a"), "  - discoveryName: empty\n    clientAliases: [{dnsName: empty, port: 80}]\n")
	orders, empty := s.at80("orders"), s.at80("empty")
	vip := netip.MustParseAddrPort(orders)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	follower := s.host.Command(ctx, s.program(), "events", "--follow", "-o", "json", "--kind", "refused", "--config", s.path("connectd.yaml"))
	out, err := follower.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follower.Start(); err != nil {
		t.Fatal(err)
	}
	followed := make(chan control.Event, 64)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for in := json.NewDecoder(out); ; {
			var e control.Event
			if in.Decode(&e) != nil {
				return
			}
			followed <- e
		}
	}()
	defer func() { follower.Process.Kill(); <-read }()

	// Nobody is refused anything here.
	if got := spread(s.web, "tcp", orders, 3); got["a"] != 3 {
		t.Errorf("web: %v", got)
	}
	if _, err := stranger.Dial(ctx, "tcp", orders); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("stranger: %v", err)
	}
	if _, err := lookup(s.web, s.dns.Host, "outside.example"); err != nil {
		t.Error(err)
	}
	if got := s.happened(control.EventRefused, ""); len(got) > 0 {
		t.Errorf("nobody was refused anything, but there is %+v", got)
	}

	tools.Dial(ctx, "tcp", orders)
	got := s.refusal("tools", "out_of_scope")
	if got.Name != "orders" || got.Address != vip || got.Times != 1 || !strings.Contains(got.Detail, "prod") || time.Since(got.At) > time.Minute {
		t.Errorf("out of scope: %+v", got)
	}
	select {
	case e := <-followed:
		if e.Task != "tools" || e.Reason != "out_of_scope" || e.Name != "orders" {
			t.Errorf("followed: %+v", e)
		}
	case <-time.After(10 * time.Second):
		t.Error("who follows hears nothing")
	}
	lookup(tools, s.dns.Host, "orders")
	if got := s.refusal("tools", "name_out_of_scope"); got.Name != "orders" || !strings.Contains(got.Detail, "prod") {
		t.Errorf("name out of scope: %+v", got)
	}
	s.web.Dial(ctx, "tcp", at(vip.Addr(), 81))
	if got := s.refusal("web", "no_frontend"); got.Name != "orders" || got.Address.Port() != 81 || !strings.Contains(got.Detail, "81/tcp") {
		t.Errorf("no frontend: %+v", got)
	}
	s.web.Dial(ctx, "tcp", empty)
	if got := s.refusal("web", "no_endpoint"); got.Name != "empty" || !strings.Contains(got.Detail, "prod/empty") {
		t.Errorf("no endpoint: %+v", got)
	}
	s.eventually(10*time.Second, func() error { // again and again is one that counts
		s.web.Dial(ctx, "tcp", empty)
		list := s.happened(control.EventRefused, "web")
		i := slices.IndexFunc(list, func(e control.Event) bool { return e.Name == "empty" })
		if list[i].Times < 3 || list[i].Last.IsZero() || len(list) != 2 {
			return fmt.Errorf("after some more: %+v", list)
		}
		return nil
	})
	for _, words := range [][]string{{"refused", "task=tools", "name=orders", "out_of_scope"}, {"refused", "task=web", "no_endpoint", "empty"}} {
		if !s.daemon.logged(words...) {
			t.Errorf("nothing in the log of %q", words)
		}
	}
	if n := s.metric("connectd_events_total", "kind", "refused"); n < 6 {
		t.Errorf("%v refusals counted", n)
	}
	out2, code := s.cli("events", "--task", "tools")
	if code != 0 || strings.Count(out2, "refused") != 2 || strings.Contains(out2, "empty") {
		t.Errorf("connectd events: exit %d\n%s", code, out2)
	}

	follower.Process.Signal(syscall.SIGTERM)
	<-read
	if err := follower.Wait(); err != nil {
		t.Errorf("who follows and is interrupted ends with %v", err)
	}

	// What was refused while nobody was there is told by the next daemon.
	s.daemon.kill()
	s.web.Dial(ctx, "tcp", at(vip.Addr(), 82))
	s.start()
	if got := s.refusal("web", "no_frontend"); got.Name != "orders" || got.Address.Port() != 82 {
		t.Errorf("while nobody was there: %+v", got)
	}
}

// TestEventsOfChanges: tasks that come and go, and what becomes of endpoints.
func TestEventsOfChanges(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a", "b")
	s.begin(service("orders", "", "a", "b"))
	s.at80("orders")
	if _, err := s.control().Drain(t.Context(), "prod/orders", s.endpoint("b")); err != nil {
		t.Fatal(err)
	}
	s.another("late", "prod, tools")
	s.configure()
	s.eventually(10*time.Second, func() error {
		for kind, want := range map[control.EventKind]control.Event{
			control.EventJoined: {Task: "late", Reason: "may use prod, tools"},
			"draining":          {Name: "prod/orders", Address: s.endpoint("b"), Reason: "drained by command", Detail: "was active"},
		} {
			list := s.happened(kind, "")
			if len(list) != 1 {
				return fmt.Errorf("%s: %+v", kind, list)
			}
			want.Kind, want.Seq, want.At, want.Times = kind, list[0].Seq, list[0].At, 1
			if list[0] != want {
				t.Errorf("got  %+v\nwant %+v", list[0], want)
			}
		}
		return nil
	})
	s.clients = s.clients[:1]
	s.configure()
	s.eventually(10*time.Second, func() error {
		if list := s.happened(control.EventLeft, "late"); len(list) != 1 {
			return fmt.Errorf("left: %+v", list)
		}
		return nil
	})
}

// listed waits until a task has so many connections and returns them.
func (n *node) listed(f control.ConnectionFilter, want int) (list []control.Connection) {
	n.Helper()
	n.eventually(10*time.Second, func() error {
		all, err := n.control().Connections(context.Background(), f)
		if err != nil {
			n.Fatal(err)
		}
		if list = all.Connections; len(list) != want || all.Total != want {
			return fmt.Errorf("%d connections, want %d: %+v", all.Total, want, list)
		}
		return nil
	})
	return list
}

// TestConnectionList: what tasks are connected to, to the byte, direct and
// through the forwarder; what is no task's or has ended is not there.
func TestConnectionList(t *testing.T) {
	t.Parallel()
	s, webs := newHTTPShop(t, "b")
	a := s.w.Host("a")
	a.ServeName("a", at(a.Addr4(), 8080))
	s.servers["a"] = a
	other, stranger := s.another("other", "prod"), s.w.Host("stranger")
	hold2, goOn := make(chan struct{}), make(chan struct{})
	webs["b"].answer(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/wait" {
			close(hold2)
			<-goOn
		}
		io.WriteString(w, strings.Repeat("x", 5000))
	})
	s.begin(service("plain", "", "a"), service("shop", "appProtocol: http\n"+patient, "b"))
	plain, shop := s.at80("plain"), s.at80("shop")
	begun := time.Now()
	c := hold(t, s.web, plain)
	payload := make([]byte, 3000)
	if _, err := c.Write(payload); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, payload); err != nil {
		t.Fatal(err)
	}
	hold(t, other, plain)
	hold(t, stranger, at(a.Addr4(), 8080))

	list := s.listed(control.ConnectionFilter{Task: "web"}, 1)
	local := netip.MustParseAddrPort(c.LocalAddr().String())
	want := control.Connection{
		Task: "web", Name: "plain", Service: "prod/plain", Protocol: "tcp", VIP: netip.MustParseAddrPort(plain), Endpoint: s.endpoint("a"),
		Local: local, State: "established",
	}
	got := list[0]
	if age := got.Started.Sub(begun); age < -time.Second || age > 30*time.Second {
		t.Errorf("started %s after it was begun", age)
	}
	if bytes := (control.Transferred{Sent: 3000, Received: uint64(len(fmt.Sprintf("a %s\n", local)) + 3000)}); got.Bytes == nil || *got.Bytes != bytes {
		t.Errorf("bytes %+v, want %+v", got.Bytes, bytes)
	}
	if got.Started, got.Bytes = (time.Time{}), nil; got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	s.listed(control.ConnectionFilter{}, 2)
	s.listed(control.ConnectionFilter{Service: "shop"}, 0)

	// Through the forwarder, between requests and in one.
	conn, err := s.web.Dial(t.Context(), "tcp", shop)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answers, sent := bufio.NewReader(conn), 0
	send := func(path string) {
		n, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: shop\r\n\r\n", path)
		if err != nil {
			t.Fatal(err)
		}
		sent += n
	}
	hear := func() {
		r, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r.Body); n != 5000 || err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
	}
	for range 2 {
		send("/")
		hear()
	}
	h := s.listed(control.ConnectionFilter{Service: "shop"}, 1)[0]
	if h.Task != "web" || h.Name != "shop" || h.Protocol != "http/1.1" || h.VIP.String() != shop || h.Endpoint.IsValid() ||
		h.Forwarder == nil || *h.Forwarder != (control.Forwarded{Requests: 2}) {
		t.Errorf("between requests: %+v, %+v", h, h.Forwarder)
	}
	if h.Bytes == nil || h.Bytes.Sent != uint64(sent) || h.Bytes.Received < 10000 || h.Bytes.Received > 12000 {
		t.Errorf("between requests: %+v, sent %d", h.Bytes, sent)
	}
	send("/wait")
	<-hold2
	h = s.listed(control.ConnectionFilter{Service: "prod/shop", Task: "web"}, 1)[0]
	if h.Endpoint != s.endpoint("b") || h.Forwarder == nil || *h.Forwarder != (control.Forwarded{Requests: 3, InFlight: 1}) {
		t.Errorf("in a request: %+v, %+v", h, h.Forwarder)
	}
	tasks, err := s.control().Tasks(t.Context())
	if err != nil || len(tasks) != 2 || tasks[1].Name != "web" || tasks[1].Connections != 2 || tasks[0].Connections != 1 ||
		!tasks[1].Attached || tasks[1].Mode != "netns" || tasks[1].Kind != "static" || len(tasks[1].Problems) > 0 || fmt.Sprint(tasks[1].Resolvers) != fmt.Sprintf("[%s]", s.dns.Addr4()) {
		t.Errorf("tasks: %+v, %v", tasks, err)
	}
	close(goOn)
	hear()
	conn.Close()
	c.Close()
	s.listed(control.ConnectionFilter{Task: "web"}, 0)
	if out, code := s.cli("connections", "--task", "stranger"); code != 1 || !strings.Contains(out, "no task stranger") {
		t.Errorf("a stranger: exit %d\n%s", code, out)
	}
	out, code := s.cli("connections", "--task", "other")
	if code != 0 || strings.Count(out, "\n") != 2 || !strings.Contains(out, s.endpoint("a").String()) {
		t.Errorf("connectd connections: exit %d\n%s", code, out)
	}
}
