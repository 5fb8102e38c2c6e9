package dns

import (
	"encoding/binary"

	mdns "github.com/miekg/dns"
)

// outcome is what became of one query; it indexes the counters.
type outcome uint8

const (
	answered outcome = iota
	nodata
	forwarded
	formErr
	badVersion
	dropped
	upstreamError
	timedOut
	outcomes // how many there are
)

// handle decides on one message from a task. It returns the bytes to send
// back, built in out's storage, or nil when the outcome is forwarded or
// dropped. m is set when the message asked for a name of ours; when the outcome
// is forwarded, for one that the task may not use.
func handle(v view, msg, out []byte) (answer []byte, o outcome, m match) {
	if len(msg) < headerSize || msg[2]&bitQR != 0 {
		return nil, dropped, m
	}
	if msg[2]&maskOpcode != 0 { // not a query: the resolver's business
		return nil, forwarded, m
	}
	if count := int(binary.BigEndian.Uint16(msg[4:])); count != 1 {
		if skipQuestions(msg, count) {
			return nil, forwarded, m
		}
		return formatError(msg, out), formErr, m
	}
	var q question
	if !q.parse(msg) {
		return formatError(msg, out), formErr, m
	}
	if q.class != mdns.ClassINET || q.hidden {
		return nil, forwarded, m
	}
	m, _, ok := v.find(q.name())
	if !ok {
		return nil, forwarded, v.elsewhere(q.name())
	}
	e, ok := parseEDNS(msg, q.end)
	if !ok {
		return formatError(msg, out), formErr, match{}
	}
	answer, o = v.answer(m, &q, e, msg, out)
	return answer, o, m
}

func (v view) answer(m match, q *question, e edns, msg, out []byte) ([]byte, outcome) {
	r := newReply(out, msg, q.end, mdns.RcodeSuccess)
	if e.version != 0 {
		return r.finish(e, mdns.RcodeBadVers>>4), badVersion
	}
	r.msg[2] |= bitAA
	if m.v4.IsValid() && (q.qtype == mdns.TypeA || q.qtype == mdns.TypeANY) {
		r.address(m.v4)
	}
	if m.v6.IsValid() && v.ipv6 && (q.qtype == mdns.TypeAAAA || q.qtype == mdns.TypeANY) {
		r.address(m.v6)
	}
	if r.answers == 0 {
		r.nodata()
		return r.finish(e, 0), nodata
	}
	return r.finish(e, 0), answered
}

// formatError answers with the header alone: what could not be read is not
// echoed.
func formatError(msg, out []byte) []byte {
	r := newReply(out, msg, headerSize, mdns.RcodeFormatError)
	return r.finish(edns{}, 0)
}

// serverFailure answers a query that the resolver did not take.
func serverFailure(msg, out []byte) []byte {
	end := headerSize
	var q question
	if binary.BigEndian.Uint16(msg[4:]) == 1 && q.parse(msg) {
		end = q.end
	}
	r := newReply(out, msg, end, mdns.RcodeServerFailure)
	return r.finish(edns{}, 0)
}
