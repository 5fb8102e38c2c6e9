package proxy

import (
	"bytes"
	"net/netip"

	"connectd/pkg/proxy/http1"
)

// maxReadyDetail bounds what a task is told of why it is not ready, in bytes.
const maxReadyDetail = 1024

// asksReady says whether a connection is to no service, but to us.
func (p *Proxy) asksReady(vip netip.AddrPort) bool {
	return p.params.Ready != nil && vip == p.params.ReadyAt
}

// tellReady answers a task that asks whether it is ready. It is asked every
// few seconds by each task, so neither log nor metrics of services see it.
func (x *exchange) tellReady() ending {
	h := &x.head
	if !h.Chunked && h.ContentLength <= 0 {
		// Without a body the connection is good for the next request.
		x.body, x.after, x.replayable = flow{done: true}, x.size, true
	}
	if path, _, _ := bytes.Cut(h.Target.Of(x.req), []byte("?")); string(path) != "/ready" {
		return x.answerSelf(404, "", "connectd: ask for /ready\n")
	}
	if h.Method != http1.Get && h.Method != http1.Head {
		return x.answerSelf(405, "allow: GET, HEAD\r\n", "connectd: ask with GET or HEAD\n")
	}
	ok, detail := x.l.p.params.Ready(x.c.task)
	if ok {
		return x.answerSelf(200, "cache-control: no-store\r\n", "ready\n")
	}
	return x.answerSelf(503, "cache-control: no-store\r\nx-connectd-reason: "+reasonNotReady+"\r\n",
		"not ready: "+detail[:min(len(detail), maxReadyDetail)]+"\n")
}
