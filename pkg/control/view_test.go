package control

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"time"

	"connectd/pkg/lb"
)

// happenings is a list of events to which a test adds.
type happenings struct {
	mu      sync.Mutex
	events  []Event
	changed chan struct{}
	asked   chan struct{} // an element with each question, if there is room
}

func newHappenings(events ...Event) *happenings {
	return &happenings{events: events, changed: make(chan struct{}), asked: make(chan struct{}, 1)}
}

func (h *happenings) add(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *happenings) after(cursor string) Events {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, _ := strconv.Atoi(cursor)
	select {
	case h.asked <- struct{}{}:
	default:
	}
	return Events{Events: append([]Event{}, h.events[n:]...), Cursor: strconv.Itoa(len(h.events)), Changed: h.changed}
}

func event(kind EventKind, task string) Event {
	return Event{Seq: 1, At: start, Times: 1, Kind: kind, Task: task, Name: "orders", Address: netip.MustParseAddrPort("127.254.0.1:80")}
}

func TestEvents(t *testing.T) {
	h := newHappenings(event(EventRefused, "arn:aws:ecs:r:1:task/main/0f9"), event("draining", ""), event(EventRefused, "web"))
	b := newNode().backend()
	b.Events = h.after
	c := serving(t, b)
	for _, test := range []struct {
		filter EventFilter
		want   []int
	}{
		{EventFilter{}, []int{0, 1, 2}},
		{EventFilter{Task: "web"}, []int{2}},
		{EventFilter{Task: "0f9"}, []int{0}},
		{EventFilter{Task: "9"}, nil},
		{EventFilter{Kinds: []string{"draining", "off"}}, []int{1}},
		{EventFilter{Kinds: []string{"refused"}, Task: "arn:aws:ecs:r:1:task/main/0f9"}, []int{0}},
	} {
		want := []Event{}
		for _, i := range test.want {
			want = append(want, h.events[i])
		}
		got, err := c.Events(t.Context(), test.filter)
		if err != nil || !reflect.DeepEqual(got.Events, want) || got.Cursor != "3" {
			t.Errorf("%+v: %+v, %v", test.filter, got, err)
		}
	}
	_, err := c.Events(t.Context(), EventFilter{Kinds: []string{"refusal"}})
	if got, ok := errors.AsType[*Error](err); !ok || got.Code != CodeInvalid {
		t.Errorf("unknown kind: %v", err)
	}
}

// Who follows gets what comes, although he waits for longer than a request may
// take to be read, and hears nothing of what he has not asked for.
func TestFollow(t *testing.T) {
	h := newHappenings(event(EventRefused, "web"))
	b := newNode().backend()
	b.Events = h.after
	socket := narrow(t, b, func(l *limits) { l.read = 30 * time.Millisecond })
	c := NewClient(socket)
	type answer struct {
		page *Events
		err  error
	}
	follow := func(cursor string) <-chan answer {
		out := make(chan answer, 1)
		select { // of an earlier question
		case <-h.asked:
		default:
		}
		go func() {
			page, err := c.Follow(t.Context(), cursor, EventFilter{Task: "web"})
			out <- answer{page, err}
		}()
		<-h.asked
		return out
	}
	got := <-follow("0")
	if got.err != nil || len(got.page.Events) != 1 {
		t.Fatalf("what is there already: %+v, %v", got.page, got.err)
	}
	waiting := follow(got.page.Cursor)
	h.add(event(EventRefused, "cron"))
	<-h.asked // it is asked again, for the one was not for him
	select {
	case got := <-waiting:
		t.Fatalf("of another task: %+v, %v", got.page, got.err)
	case <-time.After(3 * 30 * time.Millisecond): // longer than a read may take
	}
	h.add(event("off", "web"))
	got = <-waiting
	if got.err != nil || len(got.page.Events) != 1 || got.page.Events[0].Kind != EventOff || got.page.Cursor != "3" {
		t.Errorf("%+v, %v", got.page, got.err)
	}
}

// Nothing comes: an empty answer, in the time that was asked for, and a stop
// ends the wait.
func TestFollowNothing(t *testing.T) {
	h := newHappenings()
	b := newNode().backend()
	b.Events = h.after
	socket := narrow(t, b, func(l *limits) { l.work = 20 * time.Millisecond })
	got, err := NewClient(socket).Follow(t.Context(), "", EventFilter{})
	if err != nil || len(got.Events) != 0 || got.Events == nil {
		t.Errorf("%+v, %v", got, err)
	}

	socket = socketPath(t)
	stop := serve(t, mustListen(t, socket, b))
	select {
	case <-h.asked:
	default:
	}
	done := make(chan error, 1)
	go func() {
		_, err := NewClient(socket).Follow(t.Context(), "", EventFilter{})
		done <- err
	}()
	<-h.asked
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Errorf("a stop while somebody waits: %v", err)
	}
}

func TestView(t *testing.T) {
	conns := []Connection{
		{Task: "web", Name: "orders", Service: "prod/orders", Protocol: "http/1.1", VIP: netip.MustParseAddrPort("127.254.0.7:80"),
			Endpoint: netip.MustParseAddrPort("10.66.0.3:8080"), Local: netip.MustParseAddrPort("127.0.0.1:5"), State: "established", Started: start,
			Bytes: &Transferred{1, 2}, Forwarder: &Forwarded{3, 1}},
		{Task: "x/cron", Protocol: "udp", VIP: netip.MustParseAddrPort("127.254.0.8:53"), Endpoint: netip.MustParseAddrPort("10.66.0.9:53"), State: "connected"},
	}
	tasks := []TaskDetail{
		{Name: "web", Kind: "ecs", Mode: "netns", Family: "web:7", Service: "web", Namespaces: []string{"prod"}, Resolvers: []netip.Addr{netip.MustParseAddr("10.66.0.2")}, Connections: 3, Attached: true},
		{Name: "x/cron", Kind: "static", Mode: "cgroup", Namespaces: []string{"tools"}, Problems: []string{"p"}},
	}
	b := newNode().backend()
	b.Tasks = func() []TaskDetail { return tasks }
	b.Connections = func(task func(string) bool, of lb.ServiceName) (Connections, error) {
		out := Connections{Connections: []Connection{}}
		for _, c := range conns {
			if task(c.Task) && (of == lb.ServiceName{} || c.Service == of.String()) {
				out.Connections = append(out.Connections, c)
			}
		}
		out.Total = len(out.Connections)
		return out, nil
	}
	var said []bool
	b.Off = func(_ context.Context, off bool) (Brake, error) {
		said = append(said, off)
		if off {
			return Brake{Off: start, Tasks: 2}, nil
		}
		return Brake{Tasks: 2}, nil
	}
	c := serving(t, b)
	if got, err := c.Tasks(t.Context()); err != nil || !reflect.DeepEqual(got, tasks) {
		t.Errorf("tasks: %+v, %v", got, err)
	}
	for _, test := range []struct {
		filter ConnectionFilter
		want   []Connection
	}{
		{ConnectionFilter{}, conns}, {ConnectionFilter{Task: "web"}, conns[:1]}, {ConnectionFilter{Task: "cron"}, conns[1:]},
		{ConnectionFilter{Service: "prod/orders"}, conns[:1]}, {ConnectionFilter{Service: "prod/orders", Task: "cron"}, []Connection{}},
	} {
		if got, err := c.Connections(t.Context(), test.filter); err != nil || !reflect.DeepEqual(got.Connections, test.want) || got.Total != len(test.want) {
			t.Errorf("connections %+v: %+v, %v", test.filter, got, err)
		}
	}
	for filter, want := range map[ConnectionFilter]Code{{Task: "wbe"}: CodeNotFound, {Service: "orders"}: CodeAmbiguous, {Service: "cash"}: CodeNotFound} {
		_, err := c.Connections(t.Context(), filter)
		if got, ok := errors.AsType[*Error](err); !ok || got.Code != want {
			t.Errorf("connections %+v: %v, want %s", filter, err, want)
		}
	}
	if got, err := c.Off(t.Context()); err != nil || *got != (Brake{Off: start, Tasks: 2}) {
		t.Errorf("off: %+v, %v", got, err)
	}
	if got, err := c.On(t.Context()); err != nil || *got != (Brake{Tasks: 2}) {
		t.Errorf("on: %+v, %v", got, err)
	}
	if !reflect.DeepEqual(said, []bool{true, false}) {
		t.Errorf("said %v", said)
	}
	b.Off = func(context.Context, bool) (Brake, error) { return Brake{}, errors.New("full") }
	_, err := serving(t, b).Off(t.Context())
	if got, ok := errors.AsType[*Error](err); !ok || *got != (Error{CodeFailed, "full"}) {
		t.Errorf("off that fails: %v", err)
	}
}

// A node that is off says so, and does not count its tasks as broken.
func TestOffIsAProblem(t *testing.T) {
	s := newNode().status()
	s.Off, s.Tasks[0].Attached = start, false
	s.judge()
	if s.Verdict != VerdictDegraded || len(s.Problems) != 1 || s.Problems[0].Name != "off" {
		t.Errorf("%s %+v", s.Verdict, s.Problems)
	}
	s = newNode().status()
	s.Tasks[0].Attached = false
	if s.judge(); len(s.Problems) != 1 || s.Problems[0].Name != "taskDetached" {
		t.Errorf("on: %+v", s.Problems)
	}
}
