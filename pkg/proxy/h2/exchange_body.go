package h2

import (
	"slices"
	"strconv"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// active tells the carrier that something has moved, when that counts.
func (x *Exchange) active() {
	if x.Answered() {
		x.f.carrier.Active(x)
	}
}

// requestData takes a part of the request's body.
func (x *Exchange) requestData(p []byte, end bool) {
	r := &x.req
	x.Received += int64(len(p))
	x.Fed = x.f.now()
	x.active()
	if x.own || x.up != nil && x.up.Gone() {
		x.down.Release(len(p)) // nobody wants it
		r.end = r.end || end
		x.settle()
		return
	}
	r.end = end
	if r.keep && (len(r.buf)+len(p) > maxReplay || x.f.replay+len(p) > maxReplayTotal) {
		x.forget()
	}
	if r.keep {
		x.f.replay += len(p)
	}
	if !r.keep && len(r.buf) == 0 && x.up != nil {
		// Nothing waits: straight through.
		n := x.up.Write(p, end && r.trailers == nil)
		x.down.Release(n)
		r.lost = r.lost || n > 0
		if n == len(p) {
			r.finished = end
			x.settle()
			return
		}
		p = p[n:]
	}
	x.buffer(r, p)
	x.pumpRequest()
}

func (x *Exchange) buffer(m *message, p []byte) {
	if len(p) > 0 {
		m.buf = append(x.f.pool.room(m.buf, len(p)), p...)
	}
}

// forget ends the keeping of the request for another try.
func (x *Exchange) forget() {
	r := &x.req
	if !r.keep {
		return
	}
	r.keep = false
	x.f.replay -= len(r.buf)
	x.compact(r)
}

// compact drops what was sent of a message that is not kept.
func (x *Exchange) compact(m *message) {
	if m.keep || m.sent == 0 {
		return
	}
	m.lost = true
	if m.sent == len(m.buf) {
		x.f.pool.putBuffer(m.buf)
		m.buf = nil
	} else if m.sent >= len(m.buf)/2 {
		m.buf = m.buf[:copy(m.buf, m.buf[m.sent:])]
	} else {
		return
	}
	m.released -= m.sent
	m.sent = 0
}

// dropRequest gives the client credit for what nobody will read.
func (x *Exchange) dropRequest() {
	r := &x.req
	x.forget()
	if rest := len(r.buf) - r.released; rest > 0 {
		x.down.Release(rest)
	}
	x.f.pool.putBuffer(r.buf)
	r.buf, r.sent, r.released, r.trailers, r.lost = nil, 0, 0, nil, true
}

// requestTrailers takes the request's end.
func (x *Exchange) requestTrailers(fields []hpack.HeaderField) {
	r := &x.req
	x.Fed = x.f.now()
	r.end = true
	if x.own || x.up != nil && x.up.Gone() {
		x.settle()
		return
	}
	if r.trailers = slices.Clone(fields); r.trailers == nil {
		r.trailers = []hpack.HeaderField{} // an empty list is an end, too
	}
	x.pumpRequest()
}

// pumpRequest sends what the endpoint's side takes.
func (x *Exchange) pumpRequest() {
	r := &x.req
	if x.up == nil || r.finished {
		return
	}
	last := r.end && r.trailers == nil
	if rest := r.buf[r.sent:]; len(rest) > 0 || last {
		n := x.up.Write(rest, last)
		r.sent += n
		if n > 0 {
			x.active()
		}
		if r.sent > r.released {
			x.down.Release(r.sent - r.released)
			r.released = r.sent
		}
		if n < len(rest) {
			x.compact(r)
			return
		}
		r.finished = last
		x.compact(r)
	}
	if r.end && !last {
		r.finished = true
		x.up.Headers(r.trailers, true)
	}
	x.settle()
}

// informational passes a 1xx on. It is nothing of the final response, so another
// try may be made, and bring others.
func (x *Exchange) informational(fields []hpack.HeaderField) {
	x.down.Headers(fields, false)
}

// response takes the final response's head, which may be reason for another
// try.
func (x *Exchange) response(fields []hpack.HeaderField, end bool) {
	status, _ := strconv.Atoi(fields[0].Value)
	grpc := -1
	if x.GRPC && end {
		grpc = grpcStatus(fields)
	}
	if status == 503 || grpc == CallUnavailable {
		why := Unavailable
		if grpc == CallUnavailable {
			why = GRPCUnavailable
		}
		if x.f.carrier.Judge(x, why) && x.Replayable() {
			x.hangUp(http2.ErrCodeCancel)
			x.dial()
			return
		}
	}
	x.Status, x.GRPCStatus = status, grpc
	x.heard, x.HeadAt = true, x.f.now()
	x.active()
	x.forget()
	x.res.end, x.res.finished = end, end
	x.down.Headers(fields, end)
	x.settle()
}

// responseData takes a part of the response's body.
func (x *Exchange) responseData(p []byte, end bool) {
	m := &x.res
	m.end = end
	x.active()
	if len(m.buf) == 0 {
		n := x.down.Write(p, end)
		x.Sent += int64(n)
		x.up.Release(n)
		if n == len(p) {
			m.finished = end
			x.settle()
			return
		}
		p = p[n:]
	}
	x.buffer(m, p)
}

// responseTrailers takes the response's end.
func (x *Exchange) responseTrailers(fields []hpack.HeaderField) {
	m := &x.res
	m.end = true
	if x.GRPC {
		x.GRPCStatus = grpcStatus(fields)
	}
	if len(m.buf) == 0 {
		m.finished = true
		x.down.Headers(fields, true)
		x.settle()
		return
	}
	if m.trailers = slices.Clone(fields); m.trailers == nil {
		m.trailers = []hpack.HeaderField{}
	}
}

// pumpResponse sends what the client's side takes.
func (x *Exchange) pumpResponse() {
	m := &x.res
	if m.finished {
		return
	}
	last := m.end && m.trailers == nil
	if rest := m.buf[m.sent:]; len(rest) > 0 || last {
		n := x.down.Write(rest, last)
		x.Sent += int64(n)
		m.sent += n
		if n > 0 {
			x.active()
		}
		if x.up != nil {
			x.up.Release(n)
		}
		done := n == len(rest)
		x.compact(m)
		if !done {
			return
		}
		m.finished = last
	}
	if m.end && !last {
		m.finished = true
		x.down.Headers(m.trailers, true)
	}
	x.settle()
}

// grpcStatus reads a call's result, 0 to 16, or 2, UNKNOWN, which is what
// clients make of a missing one.
func grpcStatus(fields []hpack.HeaderField) int {
	for _, f := range fields {
		if f.Name == "grpc-status" {
			if n, err := strconv.Atoi(f.Value); err == nil && n >= 0 && n <= 16 {
				return n
			}
			break
		}
	}
	return 2
}

// add appends to a request what a forwarder tells of it. fields is the
// exchange's own copy.
func (o Origin) add(fields []hpack.HeaderField) []hpack.HeaderField {
	forwarded, proto, id := -1, false, false
	for i, f := range fields {
		switch f.Name {
		case "x-forwarded-for":
			forwarded = i // the last one is the one to be continued
		case "x-forwarded-proto":
			proto = true
		case "x-request-id":
			id = true
		}
	}
	if o.For != "" && forwarded >= 0 {
		fields[forwarded].Value += ", " + o.For
	} else if o.For != "" {
		fields = append(fields, hpack.HeaderField{Name: "x-forwarded-for", Value: o.For})
	}
	if o.Proto != "" && !proto {
		fields = append(fields, hpack.HeaderField{Name: "x-forwarded-proto", Value: o.Proto})
	}
	if o.RequestID != "" && !id {
		fields = append(fields, hpack.HeaderField{Name: "x-request-id", Value: o.RequestID})
	}
	return fields
}
