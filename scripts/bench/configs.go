package main

import (
	"fmt"
	"net/netip"
	"strings"
)

// Ports of the servers, in both of their namespaces.
const (
	nginxPort      = 9000
	nginxHTTP2Port = 9001
	grpcPort       = 9002
	sidecarPort    = 9100 // HAProxy in front of nginxPort
)

// Ports of what stands before the servers in the client's namespace, on
// loopback. Each contender has its own hundred.
const (
	frontHTTP  = 1
	frontHTTP2 = 2
	frontGRPC  = 3
)

var serverAddresses = []string{serverAddress, secondAddress}

func frontAddress(base, kind int) string { return fmt.Sprintf("127.0.0.1:%d", base+kind) }

// nginxConfig serves / with a few bytes and /mib with 1 MiB of a file, over
// HTTP/1.1 and over HTTP/2 with prior knowledge. It never ends a connection of
// its own.
func nginxConfig(dir, name string) string {
	return fmt.Sprintf(`daemon off; master_process off; worker_processes 1;
pid %[1]s/%[2]s.pid; error_log stderr error; worker_rlimit_nofile 20000;
events { worker_connections 16384; }
http {
  access_log off; sendfile on; tcp_nodelay on;
  keepalive_requests 1000000000; keepalive_timeout 1h; http2_max_concurrent_streams 1024;
  client_body_temp_path %[1]s/%[2]s-body; proxy_temp_path %[1]s/%[2]s-proxy; fastcgi_temp_path %[1]s/%[2]s-fastcgi;
  uwsgi_temp_path %[1]s/%[2]s-uwsgi; scgi_temp_path %[1]s/%[2]s-scgi;
  server {
    listen %[3]d backlog=16384; listen %[4]d http2 backlog=16384;
    location / { return 200 "hello\n"; }
    location = /mib { root %[1]s; default_type application/octet-stream; }
  }
}
`, dir, name, nginxPort, nginxHTTP2Port)
}

// haproxyGlobal is what all HAProxies have: what connectd's forwarder does by
// default, in HAProxy's words. One forwarded-for, one request id, two tries
// more at another server, connections kept on both sides.
const haproxyGlobal = `global
  nbthread 1
  maxconn 9000
  maxpipes 256
defaults
  mode http
  balance roundrobin
  retries 2
  retry-on conn-failure 503
  option redispatch
  option forwardfor
  option splice-auto
  http-reuse always
  unique-id-format %[uuid()]
  unique-id-header x-request-id
  timeout connect 1s
  timeout client 300s
  timeout server 300s
`

// haproxyListen is one HAProxy listener and its servers.
func haproxyListen(name, bind, protocol string, servers []string) string {
	var out strings.Builder
	fmt.Fprintf(&out, "listen %s\n  bind %s %s\n", name, bind, protocol)
	for i, s := range servers {
		fmt.Fprintf(&out, "  server s%d %s %s\n", i, s, protocol)
	}
	return out.String()
}

// haproxyFront is a HAProxy in the client's namespace. webPort is the port of
// the servers, or of the HAProxies before them.
func haproxyFront(base, webPort int) string {
	return haproxyGlobal +
		haproxyListen("web", frontAddress(base, frontHTTP), "", servers(webPort)) +
		haproxyListen("web2", frontAddress(base, frontHTTP2), "proto h2", servers(nginxHTTP2Port)) +
		haproxyListen("grpc", frontAddress(base, frontGRPC), "proto h2", servers(grpcPort))
}

// haproxySidecar is the one before a server.
func haproxySidecar(address string) string {
	return haproxyGlobal +
		haproxyListen("web", fmt.Sprintf("%s:%d", address, sidecarPort), "", []string{fmt.Sprintf("127.0.0.1:%d", nginxPort)})
}

func servers(port int) []string {
	var all []string
	for _, a := range serverAddresses {
		all = append(all, netip.AddrPortFrom(netip.MustParseAddr(a), uint16(port)).String())
	}
	return all
}

// Services of the stage's catalog.
const (
	serviceHTTP   = "web"
	serviceHTTP2  = "web2"
	serviceGRPC   = "grpc"
	serviceDirect = "web-direct" // mode: direct, first server only
	servicePlain  = "web-plain"  // no appProtocol, first server only
)

const stageCatalog = "services-stage.yaml"

// stageServices is the catalog file of what the forwarder and direct mode are
// measured by.
func stageServices() string {
	var out strings.Builder
	out.WriteString("namespace: prod\nservices:\n")
	add := func(name, extra string, endpoints []string) {
		fmt.Fprintf(&out, "  - discoveryName: %[1]s\n    clientAliases: [{dnsName: %[1]s, port: 80}]\n    endpoints:\n", name)
		for _, e := range endpoints {
			at := netip.MustParseAddrPort(e)
			fmt.Fprintf(&out, "      - {address: %s, port: %d}\n", at.Addr(), at.Port())
		}
		out.WriteString(extra)
	}
	add(serviceHTTP, "    appProtocol: http\n", servers(nginxPort))
	add(serviceHTTP2, "    appProtocol: http2\n", servers(nginxHTTP2Port))
	add(serviceGRPC, "    appProtocol: grpc\n", servers(grpcPort))
	add(serviceDirect, "    appProtocol: http\n    mode: direct\n", servers(nginxPort)[:1])
	add(servicePlain, "", servers(nginxPort)[:1])
	return out.String()
}
