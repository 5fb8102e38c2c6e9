package main

import (
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// reverseCommand is the argument that makes this program a proxy of the
// standard library: for each further argument "listen=server,server" or
// "h2:listen=server,server" one httputil.ReverseProxy that keeps connections.
const reverseCommand = "reverse"

func runReverse(fronts []string) error {
	failed := make(chan error)
	for _, f := range fronts {
		f, http2 := strings.CutPrefix(f, "h2:")
		listen, servers, _ := strings.Cut(f, "=")
		ln, err := net.Listen("tcp4", listen)
		if err != nil {
			return err
		}
		var protocols http.Protocols
		protocols.SetHTTP1(!http2)
		protocols.SetUnencryptedHTTP2(http2)
		server := &http.Server{Handler: reverseProxy(strings.Split(servers, ","), &protocols), Protocols: &protocols}
		go func() { failed <- server.Serve(ln) }()
	}
	return <-failed
}

// reverseProxy takes servers in turn.
func reverseProxy(servers []string, protocols *http.Protocols) http.Handler {
	var turn atomic.Uint64
	targets := make([]*url.URL, len(servers))
	for i, s := range servers {
		targets[i] = &url.URL{Scheme: "http", Host: s}
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(targets[turn.Add(1)%uint64(len(targets))])
			r.SetXForwarded()
		},
		Transport: &http.Transport{
			Protocols: protocols, DisableCompression: true,
			MaxIdleConnsPerHost: 1024, IdleConnTimeout: time.Minute,
		},
	}
}
