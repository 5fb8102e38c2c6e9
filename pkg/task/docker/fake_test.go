package docker

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// fake answers as Docker 20.10 does, on a unix socket.
type fake struct {
	t    *testing.T
	path string

	mu         sync.Mutex
	server     *httptest.Server
	containers map[string]*fakeContainer
	streams    map[chan string]bool
	since      []string // of the requests for events
	asking     int      // inspections under way
	mostAsking int
	// Hooks, called without the lock; nil is none.
	onList    func()
	onInspect func(id string)
	garbage   map[string]string // answers by path, instead of the right ones
}

type fakeContainer struct {
	name, status, stopSignal, started, health string
	pid, restarts                             int
	labels                                    map[string]string
}

func id(n int) string { return fmt.Sprintf("%064x", n) }

func newFake(t *testing.T) *fake {
	f := &fake{
		t: t, path: filepath.Join(t.TempDir(), "sock"), containers: map[string]*fakeContainer{},
		streams: map[chan string]bool{}, garbage: map[string]string{},
	}
	f.start()
	t.Cleanup(f.stop)
	return f
}

func (f *fake) host() string { return "unix://" + f.path }

func (f *fake) start() {
	ln, err := net.Listen("unix", f.path)
	if err != nil {
		f.t.Fatal(err)
	}
	f.server = httptest.NewUnstartedServer(f)
	f.server.Listener = ln
	f.server.Start()
}

// stop ends the server and all streams.
func (f *fake) stop() {
	f.server.CloseClientConnections()
	f.server.Close()
}

func (f *fake) add(n int, c fakeContainer) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.name == "" {
		c.name = fmt.Sprintf("c%d", n)
	}
	if c.labels == nil {
		c.labels = map[string]string{labelTask: "arn", "a": "b"}
	}
	f.containers[id(n)] = &c
	return id(n)
}

func (f *fake) set(n int, fn func(*fakeContainer)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn(f.containers[id(n)])
}

func (f *fake) remove(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.containers, id(n))
}

// event sends an event of now, with attributes as pairs.
func (f *fake) event(n int, action string, attributes ...string) {
	f.eventAt(time.Now(), n, action, attributes...)
}

func (f *fake) eventAt(at time.Time, n int, action string, attributes ...string) {
	attr := map[string]string{labelTask: "arn", "image": "x", "name": "x"}
	for i := 0; i+1 < len(attributes); i += 2 {
		attr[attributes[i]] = attributes[i+1]
	}
	text, _ := json.Marshal(map[string]any{
		"status": action, "id": id(n), "Type": "container", "Action": action, "scope": "local",
		"Actor": map[string]any{"ID": id(n), "Attributes": attr}, "time": at.Unix(), "timeNano": at.UnixNano(),
	})
	f.send(string(text))
}

func (f *fake) send(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.streams {
		s <- text
	}
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", "1.41")
	w.Header().Set("Content-Type", "application/json")
	path := r.URL.Path
	if i := strings.Index(path[1:], "/"); i > 0 && strings.HasPrefix(path, "/v1.") {
		path = path[1+i:]
	}
	f.mu.Lock()
	bad, isBad := f.garbage[path]
	f.mu.Unlock()
	switch {
	case isBad:
		fmt.Fprint(w, bad)
	case path == "/_ping":
		fmt.Fprint(w, "OK")
	case path == "/info":
		fmt.Fprint(w, `{"DockerRootDir":"/var/lib/docker","ServerVersion":"20.10.24"}`)
	case path == "/events":
		f.events(w, r)
	case path == "/containers/json":
		f.list(w, r)
	case strings.HasPrefix(path, "/containers/"):
		f.inspect(w, strings.Split(path, "/")[2])
	case strings.HasPrefix(path, "/images/"):
		fmt.Fprint(w, `{"Id":"sha256:1","Config":{"Labels":{"a":"b"}}}`)
	default:
		http.NotFound(w, r)
	}
}

func (f *fake) events(w http.ResponseWriter, r *http.Request) {
	s := make(chan string, 10000)
	f.mu.Lock()
	f.streams[s] = true
	f.since = append(f.since, r.URL.Query().Get("since"))
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.streams, s)
		f.mu.Unlock()
	}()
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	for {
		select {
		case text := <-s:
			if text == "end" {
				return
			}
			fmt.Fprintln(w, text)
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

func (f *fake) list(w http.ResponseWriter, r *http.Request) {
	var filters struct{ ID map[string]bool }
	json.Unmarshal([]byte(r.URL.Query().Get("filters")), &filters)
	list := []map[string]any{}
	f.mu.Lock()
	for id, c := range f.containers {
		if len(filters.ID) > 0 && !filters.ID[id] {
			continue
		}
		list = append(list, map[string]any{
			"Id": id, "Names": []string{"/" + c.name}, "ImageID": "sha256:1", "Labels": c.labels, "State": c.status,
			"HostConfig": map[string]any{"NetworkMode": "default"},
		})
	}
	hook := f.onList
	f.mu.Unlock()
	if hook != nil {
		hook()
	}
	json.NewEncoder(w).Encode(list)
}

// inspect answers what is there when it is asked, after the hook.
func (f *fake) inspect(w http.ResponseWriter, id string) {
	f.mu.Lock()
	f.asking++
	f.mostAsking = max(f.mostAsking, f.asking)
	hook, status, answer := f.onInspect, http.StatusNotFound, map[string]any{"message": "No such container: " + id}
	if c := f.containers[id]; c != nil {
		status, answer = http.StatusOK, c.inspected(id)
	}
	f.mu.Unlock()
	if hook != nil {
		hook(id)
	}
	f.mu.Lock()
	f.asking--
	f.mu.Unlock()
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(answer)
}

func (c *fakeContainer) inspected(id string) map[string]any {
	if c.started == "" {
		c.started = "0001-01-01T00:00:00Z"
	}
	return map[string]any{
		"Id": id, "Name": "/" + c.name, "Image": "sha256:1", "RestartCount": c.restarts,
		"Config":     map[string]any{"Labels": c.labels, "Hostname": id[52:], "StopSignal": c.stopSignal},
		"HostConfig": map[string]any{"NetworkMode": "default", "CgroupParent": "/ecs/x"},
		"State": map[string]any{
			"Status": c.status, "Running": c.status == "running" || c.status == "restarting", "Restarting": c.status == "restarting",
			"Pid": c.pid, "StartedAt": c.started, "Health": map[string]any{"Status": c.health},
		},
		"NetworkSettings": map[string]any{"Ports": map[string]any{
			"80/tcp": []map[string]string{{"HostIp": "0.0.0.0", "HostPort": "32768"}, {"HostIp": "::", "HostPort": "32768"}}, "81/tcp": nil,
		}},
	}
}
