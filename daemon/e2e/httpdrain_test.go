package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// reply is what became of a request.
type reply struct {
	status int
	body   string
	reason string
	err    error // of the request, or of the body
}

// sendAsync makes a request and returns where its answer will be.
func sendAsync(c *http.Client, method, url string) <-chan reply {
	out := make(chan reply, 1)
	go func() {
		req, err := http.NewRequest(method, url, strings.NewReader("body"))
		if err != nil {
			out <- reply{err: err}
			return
		}
		r, err := c.Do(req)
		if err != nil {
			out <- reply{err: err}
			return
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		out <- reply{r.StatusCode, string(body), r.Header.Get("X-Connectd-Reason"), err}
	}()
	return out
}

// within takes an answer that should come in time.
func within(t *testing.T, what string, answer <-chan reply) reply {
	t.Helper()
	select {
	case r := <-answer:
		return r
	case <-time.After(15 * time.Second):
		t.Fatalf("%s: no answer", what)
		return reply{}
	}
}

// slowServers has b hold requests back by their path: /head for ever, /body
// after the first part of an answer, /late until that is allowed.
func slowServers(webs map[string]*web) (arrived, allow chan struct{}) {
	arrived, allow = make(chan struct{}, 16), make(chan struct{})
	for name, w := range webs {
		w.answer(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body) // or it does not hear of the end of its connection
			if r.URL.Path == "/" || name != "b" {
				fmt.Fprint(w, name)
				return
			}
			if r.URL.Path == "/body" {
				fmt.Fprint(w, "first ")
				w.(http.Flusher).Flush()
			}
			arrived <- struct{}{}
			if r.URL.Path == "/late" {
				<-allow
				fmt.Fprint(w, name)
				return
			}
			<-r.Context().Done()
		})
	}
	return arrived, allow
}

// TestHTTPDrain: requests to an endpoint that goes away finish until its
// deadline; then they end, or are made elsewhere if nobody can tell.
func TestHTTPDrain(t *testing.T) {
	t.Parallel()
	const fields = "appProtocol: http\ndrain: {deadlineSeconds: 2, connections: terminate}\n" + patient
	s, webs := newHTTPShop(t, "a", "b")
	arrived, allow := slowServers(webs)
	s.begin(service("orders", fields, "b"))
	url := "http://" + s.at80("orders")
	c := httpClient(t, s.web)
	begin := func(method, path string) <-chan reply {
		t.Helper()
		answer := sendAsync(c, method, url+path)
		select {
		case <-arrived:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s %s did not arrive", method, path)
		}
		return answer
	}
	late, head, post, body := begin("GET", "/late"), begin("GET", "/head"), begin("POST", "/head"), begin("GET", "/body")
	begun := time.Now()
	s.catalog(service("orders", fields, "a"))
	s.inState("prod/orders", s.endpoint("b"), "removed")
	for range 10 {
		if _, got, err := get(c, url+"/"); got != "a" {
			t.Errorf("b is removed: %q answers (%v)", got, err)
		}
	}
	allow <- struct{}{}
	checkReply(t, "before the deadline", within(t, "late", late), reply{status: 200, body: "b"})
	if took := time.Since(begun); took > 1900*time.Millisecond {
		t.Logf("too slow a machine to have looked before the deadline: %s", took)
	}
	checkReply(t, "GET at the deadline", within(t, "GET", head), reply{status: 200, body: "a"})
	if took := time.Since(begun); took < 1900*time.Millisecond {
		t.Errorf("ended after %s, before the deadline", took)
	}
	checkReply(t, "POST at the deadline", within(t, "POST", post), reply{status: 503, reason: "reset"})
	if r := within(t, "body", body); r.status != 200 || r.body != "first " || r.err == nil {
		t.Errorf("half an answer at the deadline: %+v, want a cut", r)
	}
	// The idle one that carried the request that has finished may be among them.
	if n := s.metric("connectd_terminated_connections_total"); n != 3 && n != 4 {
		t.Errorf("%v terminated connections counted, want 3 with a request", n)
	}
}

func checkReply(t *testing.T, what string, got, want reply) {
	t.Helper()
	if want.status == 503 {
		got.body = "" // ours
	}
	if got != want {
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

// TestHTTPDeadEndpoint: when a health check fails that had passed, requests of
// that endpoint end at once.
func TestHTTPDeadEndpoint(t *testing.T) {
	t.Parallel()
	s, webs := newHTTPShop(t, "a", "b")
	arrived, _ := slowServers(webs)
	s.healthServer("a")
	b := s.healthServer("b")
	s.begin(service("orders", "appProtocol: http\nhealthCheck: {protocol: http, path: /healthz, "+fastCheck, "a", "b"))
	s.inState("prod/orders", s.endpoint("a"), "active")
	s.inState("prod/orders", s.endpoint("b"), "active")
	url := "http://" + s.at80("orders")
	c := httpClient(t, s.web)
	begin := func(method, path string) <-chan reply {
		t.Helper()
		for range 4 { // a answers at once
			answer := sendAsync(c, method, url+path)
			select {
			case <-arrived:
				return answer
			case r := <-answer:
				checkReply(t, "a", r, reply{status: 200, body: "a"})
			}
		}
		t.Fatal("b gets no request")
		return nil
	}
	head, post, body := begin("GET", "/head"), begin("POST", "/head"), begin("GET", "/body")
	b.sick.Store(true)
	checkReply(t, "GET", within(t, "GET", head), reply{status: 200, body: "a"})
	checkReply(t, "POST", within(t, "POST", post), reply{status: 503, reason: "reset"})
	if r := within(t, "body", body); r.status != 200 || r.body != "first " || r.err == nil {
		t.Errorf("half an answer: %+v, want a cut", r)
	}
}
