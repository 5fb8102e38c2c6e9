package e2e

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

// TestHTTPNamespaceGoes: clients' namespaces vanish while requests are in
// flight. The sockets in them go, so the namespaces really go, and nothing stays
// open in the daemon. (The endpoint hears nothing: the link is gone as well.)
func TestHTTPNamespaceGoes(t *testing.T) {
	t.Parallel()
	const guests, requests = 5, 4
	s, webs := newHTTPShop(t, "a")
	arrived := make(chan struct{}, guests*requests)
	webs["a"].answer(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/":
			return
		case "/body":
			fmt.Fprint(w, "first ")
			w.(http.Flusher).Flush()
		}
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	s.begin(service("orders", "appProtocol: http", "a"))
	url := "http://" + s.at80("orders")
	only := s.clients
	round := func() {
		t.Helper()
		var hosts []*testutil.Host
		var answers []<-chan reply
		var alive []func() bool
		for i := range guests {
			h := s.another(fmt.Sprintf("guest%d", i), "prod")
			hosts = append(hosts, h)
			alive = append(alive, mark(t, h, s.host, fmt.Sprintf("mark%d", i)))
		}
		s.configure()
		s.eventually(20*time.Second, func() error { // before that connections go direct
			tasks := s.status().Tasks
			if len(tasks) != guests+1 {
				return fmt.Errorf("%d tasks", len(tasks))
			}
			for _, task := range tasks {
				if !task.Attached {
					return fmt.Errorf("%s is not attached", task.Name)
				}
			}
			return nil
		})
		for _, h := range hosts {
			c := httpClient(t, h)
			s.eventually(10*time.Second, func() error { _, _, err := get(c, url+"/"); return err }) // leaves one in the pool
			for range requests / 2 {
				answers = append(answers, sendAsync(c, "GET", url+"/head"), sendAsync(c, "GET", url+"/body"))
			}
		}
		for i := range guests * requests {
			select {
			case <-arrived:
			case <-time.After(20 * time.Second):
				t.Fatalf("%d of %d requests arrived", i, guests*requests)
			}
		}
		for _, h := range hosts {
			h.Close()
		}
		for _, a := range answers {
			if r := within(t, "a request from a namespace that is gone", a); r.err == nil {
				t.Errorf("answered: %+v", r)
			}
		}
		s.eventually(20*time.Second, func() error {
			for i, there := range alive {
				if there() {
					return fmt.Errorf("the namespace of %s still has its interface", hosts[i].Name())
				}
			}
			return nil
		})
		s.clients = only
		s.configure()
		s.eventually(20*time.Second, func() error {
			if n := len(s.status().Tasks); n != len(only) {
				return fmt.Errorf("%d tasks", n)
			}
			return nil
		})
	}
	round() // pools and maps reach their size
	files, goroutines := s.metric("process_open_fds"), s.metric("go_goroutines")
	round()
	s.eventually(20*time.Second, func() error {
		f, g := s.metric("process_open_fds"), s.metric("go_goroutines")
		if f > files || g > goroutines+2 { // the scrape's own may overlap
			return fmt.Errorf("%v open files and %v goroutines, were %v and %v", f, g, files, goroutines)
		}
		return nil
	})
	if status, _, err := get(httpClient(t, s.web), url+"/"); err != nil || status != 200 {
		t.Errorf("the other client: %d, %v", status, err)
	}
}
