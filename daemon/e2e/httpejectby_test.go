package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// badWays are what an endpoint may do wrong, by path.
func badWays(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/error":
		w.WriteHeader(http.StatusInternalServerError)
	case "/cut": // in the middle of a body
		fmt.Fprint(w, "half of ")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	case "/never":
		<-r.Context().Done()
	case "/unavailable":
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(200)
		w.Header().Set("Grpc-Status", "14")
	}
}

// goodWays does all of them well.
func goodWays(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/unavailable" {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(200)
		w.Header().Set("Grpc-Status", "0")
		return
	}
	fmt.Fprint(w, "a whole one")
}

// TestHTTPEjectionBy: whatever an endpoint does wrong, over whichever protocol,
// three times in a row have its caller avoid it.
func TestHTTPEjectionBy(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	for name, handler := range map[string]http.HandlerFunc{"good": goodWays, "bad": badWays} {
		h := s.w.Host(name + "1")
		s.servers[name+"1"] = h
		startWeb(h, name).answer(handler)
		s.servers[name+"2"] = s.w.Host(name + "2")
		serveH2C(s.servers[name+"2"], handler)
	}
	cases := []struct{ name, protocol, path string }{
		{"error", "http", "/error"}, {"cut", "http", "/cut"}, {"never", "http", "/never"},
		{"error2", "http2", "/error"}, {"cut2", "http2", "/cut"}, {"never2", "http2", "/never"},
		{"calls", "grpc", "/unavailable"}, {"calls-cut", "grpc", "/cut"},
	}
	var services []string
	for _, c := range cases {
		number := "1"
		if c.protocol != "http" {
			number = "2"
		}
		services = append(services, service(c.name, "appProtocol: "+c.protocol+
			"\ntimeout: {perRequestTimeoutSeconds: 0.3}\nretry: {attempts: 0}\noutlier: {consecutiveFailures: 3, baseEjectionSeconds: 300}", "good"+number, "bad"+number))
	}
	s.begin(services...)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			client, bad := httpClient(t, s.web), s.endpoint("bad1")
			if c.protocol != "http" {
				client, bad = h2cClient(t, s.web), s.endpoint("bad2")
			}
			send := func() error {
				method := "GET"
				if c.protocol == "grpc" {
					method = "POST"
				}
				r, err := http.NewRequest(method, "http://"+s.at80(c.name)+c.path, strings.NewReader(""))
				if err != nil {
					t.Fatal(err)
				}
				if c.protocol == "grpc" {
					r.Header.Set("Content-Type", "application/grpc")
				}
				res, err := client.Do(r)
				if err != nil {
					return err
				}
				defer res.Body.Close()
				if _, err := io.ReadAll(res.Body); err != nil {
					return err
				}
				if status := res.Trailer.Get("Grpc-Status") + res.Header.Get("Grpc-Status"); res.StatusCode != 200 || status != "" && status != "0" {
					return errors.New(res.Status + status)
				}
				return nil
			}
			failed := 0
			for range 6 {
				if send() != nil {
					failed++
				}
			}
			if failed != 3 {
				t.Errorf("%d of 6 failed before anything was known, want half", failed)
			}
			s.eventually(10*time.Second, func() error {
				if by := s.endpoints("prod/" + c.name)[bad].AvoidedBy; !slices.Equal(by, []string{"web"}) {
					return fmt.Errorf("%s is avoided by %v, want by web", bad, by)
				}
				return nil
			})
			for range 10 {
				if err := send(); err != nil {
					t.Errorf("after the ejection: %s", err)
				}
			}
		})
	}
}
