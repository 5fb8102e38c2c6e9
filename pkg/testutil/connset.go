package testutil

import (
	"net"
	"sync"
)

// connSet is a server's live connections, so that its end can close them.
type connSet struct {
	wg    sync.WaitGroup
	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// serve runs fn in a goroutine and closes c after it.
func (s *connSet) serve(c net.Conn, fn func()) {
	s.mu.Lock()
	if s.conns == nil {
		s.conns = make(map[net.Conn]struct{})
	}
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	s.wg.Go(func() {
		fn()
		c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	})
}

// closeAll closes every connection and waits for their goroutines. serve must
// not be called any more.
func (s *connSet) closeAll() {
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}
