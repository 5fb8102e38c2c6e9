package demo

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"connectd/daemon/demo/report"
)

const (
	ordersPort = 8080
	apiPort    = 8080
	echoPort   = 7007
	redisPort  = 6379
	dnsPort    = 53
)

// servers are everything that the clients can reach.
type servers struct {
	world   *world
	log     *os.File
	nginx   map[string]*process
	redis   *process
	api     map[string]*httpServer
	builtin []io.Closer
}

// startServers starts all servers and returns when they accept.
func startServers(ctx context.Context, w *world) (*servers, error) {
	s := &servers{world: w, nginx: map[string]*process{}, api: map[string]*httpServer{}}
	var err error
	if s.log, err = os.Create(filepath.Join(w.dir, serversLog)); err != nil {
		return s, err
	}
	for name := range w.orders {
		if err := s.startNginx(name); err != nil {
			return s, err
		}
	}
	for name, p := range w.api {
		if s.api[name], err = serveHTTP(p, name); err != nil {
			return s, err
		}
		s.builtin = append(s.builtin, s.api[name])
		echo, err := serveEcho(p, name)
		if err != nil {
			return s, err
		}
		s.builtin = append(s.builtin, echo)
	}
	upstream, err := serveDNS(w.upstream)
	if err != nil {
		return s, err
	}
	s.builtin = append(s.builtin, upstream)
	s.redis, err = w.redis.run(s.log, "redis-server", "--bind", w.redis.addr.String(), "--port", fmt.Sprint(redisPort),
		"--save", "", "--appendonly", "no", "--protected-mode", "no", "--dir", w.dir)
	if err != nil {
		return s, err
	}
	return s, s.wait(ctx)
}

func (s *servers) startNginx(name string) (err error) {
	p := s.world.orders[name]
	dir := filepath.Join(s.world.dir, "nginx-"+name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	config := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, dir, p.addr, ordersPort, name), 0o644); err != nil {
		return err
	}
	s.nginx[name], err = p.run(s.log, "nginx", "-p", dir, "-e", "stderr", "-c", config)
	return err
}

const nginxConfig = `daemon off;
master_process off;
error_log stderr;
pid %[1]s/pid;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path %[1]s/body;
    proxy_temp_path %[1]s/proxy;
    fastcgi_temp_path %[1]s/fastcgi;
    uwsgi_temp_path %[1]s/uwsgi;
    scgi_temp_path %[1]s/scgi;
    keepalive_requests 1000000;
    server {
        listen %[2]s:%[3]d;
        location = /healthz { return 200 "ok\n"; }
        location / { return 200 "%[4]s $remote_addr\n"; }
    }
}
`

// wait returns when programs of others accept connections; built-in servers do
// from the start.
func (s *servers) wait(ctx context.Context) error {
	for name, p := range s.world.orders {
		if err := s.accepts(ctx, s.nginx[name], netip.AddrPortFrom(p.addr, ordersPort)); err != nil {
			return fmt.Errorf("nginx %s: %w", name, err)
		}
	}
	if err := s.accepts(ctx, s.redis, netip.AddrPortFrom(s.world.redis.addr, redisPort)); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	return nil
}

func (s *servers) accepts(ctx context.Context, pr *process, addr netip.AddrPort) error {
	return report.Until(ctx, 10*time.Second, func() error {
		if err := pr.running(); err != nil {
			return err
		}
		conn, err := s.world.node.ns.DialMarked(ctx, "tcp", addr.String())
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

func (s *servers) close(ctx context.Context) {
	for _, pr := range s.nginx {
		pr.stop(ctx, syscall.SIGKILL)
	}
	if s.redis != nil {
		s.redis.stop(ctx, syscall.SIGKILL)
	}
	for _, b := range s.builtin {
		b.Close()
	}
	if s.log != nil {
		s.log.Close()
	}
}
