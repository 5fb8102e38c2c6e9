package aws

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
)

// Server serves a Cloud, and one node's metadata and ECS agent, over HTTP.
type Server struct {
	URL string // http://address:port

	cloud *Cloud
	node  *Node
	http  *http.Server
	done  chan struct{}
	stop  context.CancelFunc
}

// Start serves on a listener, which may be in another network namespace,
// until Close. node may be nil: then IMDS and the agent answer 404.
func Start(l net.Listener, c *Cloud, node *Node) *Server {
	// Calls that hang end with ctx.
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{URL: "http://" + l.Addr().String(), cloud: c, node: node, done: make(chan struct{}), stop: stop}
	s.http = &http.Server{
		Handler:     s,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    log.New(io.Discard, "", 0),
	}
	go func() {
		defer close(s.done)
		s.http.Serve(l)
	}()
	return s
}

// Close ends the server and its connections.
func (s *Server) Close() {
	s.stop()
	s.http.Close()
	<-s.done
}

// Env is the environment of a program that is to find this server, and
// nothing of the machine's own configuration, as the caller who.
func (s *Server) Env(who Caller) []string {
	return []string{
		"AWS_ENDPOINT_URL=" + s.URL,
		"AWS_EC2_METADATA_SERVICE_ENDPOINT=" + s.URL,
		"AWS_EC2_METADATA_DISABLED=false",
		"AWS_ACCESS_KEY_ID=" + who.AccessKey(),
		"AWS_SECRET_ACCESS_KEY=secret",
		"AWS_SESSION_TOKEN=",
		"AWS_REGION=" + s.cloud.params.Region,
		"AWS_DEFAULT_REGION=" + s.cloud.params.Region,
		"AWS_PROFILE=",
		"AWS_CONFIG_FILE=" + os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
	}
}

// ProxyEnv is what a program needs besides Env when it cannot be told to leave
// hosts alone, as the AWS CLI: see the package's doc.
func (s *Server) ProxyEnv() []string { return []string{"HTTP_PROXY=" + s.URL, "http_proxy=" + s.URL} }

// ServeHTTP tells the protocols apart: AWS's by their headers, IMDS and the
// agent by path.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch {
	case strings.HasPrefix(path, "/latest/") && s.node != nil:
		s.serveIMDS(w, r)
	case r.Method == http.MethodGet && (path == "/v1/metadata" || path == "/v1/tasks") && s.node != nil:
		s.serveAgent(w, r)
	case r.Method == http.MethodPost:
		s.serveAPI(w, r)
	default:
		http.NotFound(w, r)
	}
}

// admit counts a request to IMDS or the agent; ok is false when a fault has
// taken it.
func (s *Server) admit(w http.ResponseWriter, r *http.Request, service string) (ok bool) {
	c := s.cloud
	call := Call{Service: service, Action: r.URL.Path, Account: DefaultAccount, Caller: s.node.name}
	c.mu.Lock()
	fault := c.fault(call)
	if fault == nil {
		c.record(call, nil)
		c.mu.Unlock()
		return true
	}
	c.record(call, fault)
	c.mu.Unlock()
	if fault.Kind == Hang {
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
	if !spoil(w, r, fault.err(call)) {
		http.Error(w, fault.Error(), http.StatusInternalServerError)
	}
	return false
}

// spoil does to the connection what a fault wants; ok is false when err is an
// ordinary refusal.
func spoil(w http.ResponseWriter, r *http.Request, err error) (ok bool) {
	switch {
	case errors.Is(err, errReset):
		reset(w)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		panic(http.ErrAbortHandler) // it hung until the caller or the server went
	case errors.Is(err, errGarbage):
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		w.Write([]byte("\x00\xffgarbage{"))
	case errors.Is(err, errBroken):
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusInternalServerError)
		w.Write([]byte("<html><body>Service Unavailable</body></html>"))
	default:
		return false
	}
	return true
}

// reset closes a connection with a RST.
func reset(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}
