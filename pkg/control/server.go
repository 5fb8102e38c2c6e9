package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

const (
	maxHeader = 8 << 10 // bytes; the longest query is a name of 255 bytes and a task ARN
	maxBody   = 4 << 10 // bytes; the longest is a drainRequest
)

// limits of the server. A test makes them smaller.
type limits struct {
	conns int           // at once; more wait in the kernel's backlog
	read  time.Duration // of a request, and between two on one connection
	work  time.Duration // of Backend.Drain and Backend.Reload; less than write
	write time.Duration // from a request's head to its answer's last byte
	grace time.Duration // for requests in flight when the daemon stops
}

func defaultLimits() limits {
	return limits{conns: 32, read: 5 * time.Second, work: 20 * time.Second, write: 30 * time.Second, grace: time.Second}
}

// Params are a Server's.
type Params struct {
	Socket  string // absolute path, at most 107 bytes
	Backend Backend
	Log     *slog.Logger
}

// Server answers on the control socket.
type Server struct {
	backend  Backend
	log      *slog.Logger
	limits   limits
	socket   string
	file     fs.FileInfo // of the socket, to know it again
	listener *net.UnixListener
	close    sync.Once
}

// Listen takes the socket; clients wait until Serve. It replaces a socket file
// that nobody answers on, and returns ErrInUse, with the other's process id,
// if somebody does.
func Listen(p Params) (*Server, error) {
	ln, err := listenSocket(p.Socket)
	if err != nil {
		return nil, fmt.Errorf("listen on control socket %s: %w", p.Socket, err)
	}
	file, err := os.Lstat(p.Socket)
	if err != nil {
		ln.Close()
		return nil, fmt.Errorf("listen on control socket: %w", err)
	}
	return &Server{
		backend:  p.Backend,
		log:      p.Log,
		limits:   defaultLimits(),
		socket:   p.Socket,
		file:     file,
		listener: ln,
	}, nil
}

// Serve answers until ctx ends, and then returns nil when the requests in
// flight are answered, or cut after a second. It closes the Server.
func (s *Server) Serve(ctx context.Context) error {
	defer s.Close()
	server := &http.Server{
		Handler:           s.handler(),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: s.limits.read,
		ReadTimeout:       s.limits.read,
		WriteTimeout:      s.limits.write,
		IdleTimeout:       s.limits.read,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(netutil.LimitListener(s.listener, s.limits.conns)) }()
	select {
	case err := <-done:
		server.Close()
		return fmt.Errorf("serve control socket %s: %w", s.socket, err)
	case <-ctx.Done():
	}
	s.Close() // first, so that a new client is told that nobody is there
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.limits.grace)
	defer cancel()
	if server.Shutdown(grace) != nil {
		server.Close()
	}
	<-done
	return nil
}

// Close stops listening and removes the socket file, unless it has become
// another's. Calling it again does nothing.
func (s *Server) Close() error {
	var err error
	s.close.Do(func() {
		if now, gone := os.Lstat(s.socket); gone == nil && os.SameFile(now, s.file) {
			err = os.Remove(s.socket)
		}
		err = errors.Join(err, s.listener.Close())
	})
	return err
}
