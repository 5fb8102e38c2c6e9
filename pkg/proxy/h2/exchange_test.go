package h2

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// endpoint is an HTTP/2 server with prior knowledge, net/http's.
func endpoint(t testing.TB, h http.HandlerFunc) string {
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// h2client is an HTTP/2 client with prior knowledge, x/net's.
func h2client(t testing.TB) *http.Client {
	tr := &http2.Transport{
		AllowHTTP: true,
		DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

func mustDo(t *testing.T, c *http.Client, r *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestForwardedFields: what the endpoint and the client see of each other.
func TestForwardedFields(t *testing.T) {
	saw := make(chan *http.Request, 1)
	to := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		saw <- r
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("X-Reply", "yes")
		w.WriteHeader(201)
		io.WriteString(w, "hello")
		w.Header().Set("X-Sum", "42")
	})
	_, addr := newCarrier(t, 1, to)
	r := request(t, "GET", "http://"+addr+"/path?q=1", nil)
	r.Host = "orders"
	r.Header.Set("X-Forwarded-For", "203.0.113.9")
	res, body := mustDo(t, h2client(t), r)
	if res.StatusCode != 201 || body != "hello" || res.Header.Get("X-Reply") != "yes" || res.Trailer.Get("X-Sum") != "42" {
		t.Errorf("client got %d %q %v trailers %v", res.StatusCode, body, res.Header, res.Trailer)
	}
	got := <-saw
	for _, want := range []struct{ what, got, want string }{
		{"host", got.Host, "orders"},
		{"uri", got.RequestURI, "/path?q=1"},
		{"x-forwarded-for", got.Header.Get("X-Forwarded-For"), "203.0.113.9, 192.0.2.1"},
		{"x-forwarded-proto", got.Header.Get("X-Forwarded-Proto"), "http"},
		{"x-request-id", got.Header.Get("X-Request-Id"), "an-id"},
	} {
		if want.got != want.want {
			t.Errorf("endpoint got %s %q, want %q", want.what, want.got, want.want)
		}
	}
}

// TestBodies: bodies of any size, both ways at once.
func TestBodies(t *testing.T) {
	to := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	})
	c, addr := newCarrier(t, 1, to)
	client := h2client(t)
	for _, size := range []int{0, 1, 1000, maxReplay - 1, maxReplay, maxReplay + 1, 128 << 10, 5 << 20} {
		var wait sync.WaitGroup
		for range 8 {
			wait.Go(func() {
				sent := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
				res, err := client.Do(request(t, "PUT", "http://"+addr+"/", bytes.NewReader(sent)))
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				got, err := io.ReadAll(res.Body)
				if err != nil || !bytes.Equal(got, sent) {
					t.Errorf("%d bytes: got %d back: %v", size, len(got), err)
				}
			})
		}
		wait.Wait()
	}
	for range 8 * 8 {
		if r := <-c.done; r.Sent != r.Received || r.Aborted || r.Status != 200 {
			t.Errorf("an exchange ended as %+v", r)
		}
	}
	c.loop.do(func() {
		if c.fwd.replay != 0 {
			t.Errorf("%d bytes still counted as kept for replay", c.fwd.replay)
		}
	})
}

// TestRetries: another endpoint gets the whole request, and the client no sign
// of the first.
func TestRetries(t *testing.T) {
	unavailable := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(503)
	}
	early := func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }
	abort := func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }
	good := func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "read %d", n)
	}
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	deadAddr := dead.Addr().String()

	for _, test := range []struct {
		name      string
		endpoints []string
		tries     int
		body      int
		status    int
		reason    string
		failures  []Failure
	}{
		{"503", []string{endpoint(t, unavailable), endpoint(t, good)}, 3, 0, 200, "", []Failure{Unavailable}},
		{"503 with a body", []string{endpoint(t, unavailable), endpoint(t, good)}, 3, 50_000, 200, "", []Failure{Unavailable}},
		{"503 before the body", []string{endpoint(t, early), endpoint(t, good)}, 3, 50_000, 200, "", []Failure{Unavailable}},
		{"503 with a body too large", []string{endpoint(t, unavailable), endpoint(t, good)}, 3, 100_000, 503, "", []Failure{Unavailable}},
		{"503 always", []string{endpoint(t, unavailable)}, 3, 10, 503, "", []Failure{Unavailable, Unavailable, Unavailable}},
		{"reset", []string{endpoint(t, abort), endpoint(t, good)}, 3, 10, 200, "", []Failure{Reset}},
		{"reset always", []string{endpoint(t, abort)}, 2, 0, 503, ReasonReset, []Failure{Reset, Reset}},
		{"connect", []string{deadAddr, endpoint(t, good)}, 2, 100, 200, "", []Failure{ConnectFailed}},
		{"connect always", []string{deadAddr}, 2, 100, 503, ReasonConnect, []Failure{ConnectFailed, ConnectFailed}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, addr := newCarrier(t, test.tries, test.endpoints...)
			var body io.Reader
			if test.body > 0 {
				body = strings.NewReader(strings.Repeat("x", test.body))
			}
			res, text := mustDo(t, h2client(t), request(t, "PUT", "http://"+addr+"/", body))
			if res.StatusCode != test.status || res.Header.Get("X-Connectd-Reason") != test.reason {
				t.Errorf("got %d %v", res.StatusCode, res.Header)
			}
			if want := fmt.Sprintf("read %d", test.body); test.status == 200 && text != want {
				t.Errorf("got %q, want %q", text, want)
			}
			r := <-c.done
			if r.Tries != len(test.failures)+btoi(test.status == 200) && test.status == 200 {
				t.Errorf("%d tries", r.Tries)
			}
			c.loop.do(func() {
				if fmt.Sprint(c.failures) != fmt.Sprint(test.failures) {
					t.Errorf("failures %v, want %v", c.failures, test.failures)
				}
			})
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestCancel: a client that gives up takes the endpoint's work with it.
func TestCancel(t *testing.T) {
	canceled := make(chan error, 1)
	began := make(chan struct{})
	to := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		canceled <- r.Context().Err()
	})
	c, addr := newCarrier(t, 3, to)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-began; cancel() }()
	_, err := h2client(t).Do(request(t, "GET", "http://"+addr+"/", nil).WithContext(ctx))
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := <-canceled; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if r := <-c.done; !r.Aborted || r.Tries != 1 {
		t.Errorf("the exchange ended as %+v", r)
	}
}

// TestEarlyResponse: a response that is whole before the request is ends the
// request, and the connection is good for more.
func TestEarlyResponse(t *testing.T) {
	var handled atomic.Int32
	to := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		handled.Add(1)
		w.WriteHeader(413)
		io.WriteString(w, "too much")
	})
	c, addr := newCarrier(t, 1, to)
	client := h2client(t)
	for range 3 {
		pr, pw := io.Pipe()
		go func() {
			for {
				if _, err := pw.Write(make([]byte, 1000)); err != nil {
					return
				}
			}
		}()
		res, body := mustDo(t, client, request(t, "POST", "http://"+addr+"/", pr))
		pr.Close()
		if res.StatusCode != 413 || body != "too much" {
			t.Errorf("got %d %q", res.StatusCode, body)
		}
		<-c.done
	}
	if n := handled.Load(); n != 3 {
		t.Errorf("%d requests came", n)
	}
}

// TestTimeouts: 504 before the head, a reset after it.
func TestTimeouts(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	to := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			io.WriteString(w, "first")
			w.(http.Flusher).Flush()
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	c, addr := newCarrier(t, 3, to)
	client := h2client(t)
	exchange := func() *Exchange {
		var x *Exchange
		for x == nil {
			c.loop.do(func() {
				for _, s := range c.sessions {
					for _, st := range s.sess.streams {
						x, _ = st.User.(*Exchange)
					}
				}
			})
		}
		return x
	}
	go func() {
		x := exchange()
		c.loop.do(func() { x.Expire(504, ReasonTimeout) })
	}()
	res, body := mustDo(t, client, request(t, "GET", "http://"+addr+"/", nil))
	if res.StatusCode != 504 || res.Header.Get("X-Connectd-Reason") != "timeout" || body != "timeout\n" {
		t.Errorf("got %d %v %q", res.StatusCode, res.Header, body)
	}
	<-c.done

	res, err := client.Do(request(t, "GET", "http://"+addr+"/stream", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	x := exchange()
	c.loop.do(func() { x.Expire(504, ReasonTimeout) }) // too late to matter
	c.loop.do(func() { x.Cut() })
	if got, err := io.ReadAll(res.Body); string(got) != "first" || err == nil {
		t.Errorf("got %q, %v; want a reset behind the first part", got, err)
	}
	if r := <-c.done; !r.Aborted || r.Status != 200 {
		t.Errorf("the exchange ended as %+v", r)
	}
}

// TestHead, 204 and 304 have no body, whatever their length says.
func TestHead(t *testing.T) {
	to := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(204)
		case "/304":
			w.Header().Set("ETag", `"x"`)
			w.WriteHeader(304)
		case "/hints":
			w.WriteHeader(103)
			fallthrough
		default:
			w.Header().Set("Content-Length", "1000")
			if r.Method != "HEAD" {
				w.Write(make([]byte, 1000))
			}
		}
	})
	c, addr := newCarrier(t, 1, to)
	for _, test := range []struct {
		method, path string
		status, body int
	}{{"HEAD", "/", 200, 0}, {"GET", "/", 200, 1000}, {"GET", "/204", 204, 0}, {"GET", "/304", 304, 0}, {"GET", "/hints", 200, 1000}} {
		res, body := mustDo(t, h2client(t), request(t, test.method, "http://"+addr+test.path, nil))
		if res.StatusCode != test.status || len(body) != test.body {
			t.Errorf("%s %s: %d and %d bytes", test.method, test.path, res.StatusCode, len(body))
		}
		if r := <-c.done; r.Aborted {
			t.Errorf("%s %s: the exchange ended as %+v", test.method, test.path, r)
		}
	}
}

// TestGRPCCanceledByEndpoint: a CANCEL before the head, as servers send when a
// deadline is over on their clock, is passed on and not tried again.
func TestGRPCCanceledByEndpoint(t *testing.T) {
	for _, test := range []struct {
		name, contentType string
		code              http2.ErrCode
		want              http2.ErrCode // 0: an answer
		failures          int
	}{
		{"call canceled", "application/grpc", http2.ErrCodeCancel, http2.ErrCodeCancel, 0},
		{"call reset", "application/grpc", http2.ErrCodeInternal, 0, 1},
		{"request canceled", "text/plain", http2.ErrCodeCancel, 0, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			c, addr := newCarrier(t, 1, ln.Addr().String())
			go func() {
				nc, err := ln.Accept()
				if err != nil {
					return
				}
				defer nc.Close()
				io.ReadFull(nc, make([]byte, len(http2.ClientPreface)))
				fr := http2.NewFramer(nc, nc)
				fr.WriteSettings()
				for {
					f, err := fr.ReadFrame()
					if err != nil {
						return
					}
					if f.Header().Type == http2.FrameHeaders {
						fr.WriteRSTStream(f.Header().StreamID, test.code)
					}
				}
			}()
			r := request(t, "POST", "http://"+addr+"/", nil)
			r.Header.Set("Content-Type", test.contentType)
			res, err := h2client(t).Do(r)
			var reset http2.StreamError
			switch {
			case test.want != 0 && (!errors.As(err, &reset) || reset.Code != test.want):
				t.Errorf("got %v", err)
			case test.want == 0 && err != nil:
				t.Error(err)
			case err == nil:
				res.Body.Close()
			}
			<-c.done
			c.loop.do(func() {
				if len(c.failures) != test.failures {
					t.Errorf("failures %v", c.failures)
				}
			})
		})
	}
}
