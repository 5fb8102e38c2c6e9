package dns

import (
	"encoding/binary"
	"net/netip"
	"time"

	mdns "github.com/miekg/dns"
)

// answerTTL is the TTL, in seconds, of every record connectd makes up,
// positive or negative. A VIP never changes while its service exists, so the
// TTL only bounds how long a new name stays unknown and a deleted one known.
const answerTTL = 5

// AnswerTTL is for how long a client may go on using an answer.
const AnswerTTL = answerTTL * time.Second

const (
	headerSize  = 12
	maxNameSize = 255  // bytes of a name in wire form
	ednsSize    = 1232 // UDP payload size we offer (DNS flag day 2020); our own answers stay below 512
)

// Bits of the third and fourth byte of a message.
const (
	bitQR, bitAA, bitTC, bitRD = 0x80, 0x04, 0x02, 0x01
	bitRA, bitCD               = 0x80, 0x10
	maskOpcode                 = 0x78
)

// question is the only question of a query. Its name is in lower case, labels
// joined by dots, without the last dot. The array makes it allocation free.
type question struct {
	buf    [maxNameSize]byte
	length int
	hidden bool // a label holds a dot itself: no service is called that
	qtype  uint16
	class  uint16
	end    int // offset in the message of what follows the question
}

func (q *question) name() []byte { return q.buf[:q.length] }

// parse reads the question after the header; false means malformed.
// Compression is refused: before the first name there is only the header to
// point at.
func (q *question) parse(msg []byte) bool {
	off := headerSize
	for {
		if off >= len(msg) {
			return false
		}
		n := int(msg[off])
		off++
		if n == 0 {
			break
		}
		if n > 63 || off+n > len(msg) || off+n-headerSize >= maxNameSize {
			return false
		}
		if q.length > 0 {
			q.buf[q.length] = '.'
			q.length++
		}
		for _, c := range msg[off : off+n] {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			q.hidden = q.hidden || c == '.'
			q.buf[q.length] = c
			q.length++
		}
		off += n
	}
	if off+4 > len(msg) {
		return false
	}
	q.qtype = binary.BigEndian.Uint16(msg[off:])
	q.class = binary.BigEndian.Uint16(msg[off+2:])
	q.end = off + 4
	return true
}

// skipName returns the offset after the name at off, or -1.
func skipName(msg []byte, off int) int {
	for off < len(msg) {
		n := int(msg[off])
		switch {
		case n == 0:
			return off + 1
		case n&0xc0 == 0xc0:
			if off+2 > len(msg) {
				return -1
			}
			return off + 2
		case n > 63:
			return -1
		}
		off += 1 + n
	}
	return -1
}

// skipQuestions reports whether count questions can be read after the header.
func skipQuestions(msg []byte, count int) bool {
	off := headerSize
	for range count {
		if off = skipName(msg, off); off < 0 || off+4 > len(msg) {
			return false
		}
		off += 4
	}
	return true
}

// edns is what the OPT record of a query says.
type edns struct {
	present bool
	version uint8
	do      bool
}

// parseEDNS looks for the OPT record in the sections after the question;
// false means malformed, which two OPT records are too (RFC 6891 6.1.1).
func parseEDNS(msg []byte, off int) (e edns, ok bool) {
	records := int(binary.BigEndian.Uint16(msg[6:])) + int(binary.BigEndian.Uint16(msg[8:])) + int(binary.BigEndian.Uint16(msg[10:]))
	for range records {
		start := off
		if off = skipName(msg, off); off < 0 || off+10 > len(msg) {
			return e, false
		}
		if binary.BigEndian.Uint16(msg[off:]) == mdns.TypeOPT {
			if e.present || off != start+1 {
				return e, false
			}
			e = edns{present: true, version: msg[off+5], do: msg[off+6]&0x80 != 0}
		}
		off += 10 + int(binary.BigEndian.Uint16(msg[off+8:]))
		if off > len(msg) {
			return e, false
		}
	}
	return e, true
}

// reply builds one answer to a query. The question is echoed byte for byte,
// so its letters keep their case (0x20).
type reply struct {
	msg     []byte
	answers uint16
	soa     uint16
}

// newReply starts an answer in out's storage: header, and the question up to
// offset end of the query (headerSize leaves it out).
func newReply(out, query []byte, end int, rcode uint8) reply {
	out = append(out[:0], query[:end]...)
	out[2] = bitQR | query[2]&(maskOpcode|bitRD)
	out[3] = bitRA | query[3]&bitCD | rcode
	clear(out[4:headerSize])
	if end > headerSize {
		out[5] = 1
	}
	return reply{msg: out}
}

// record appends a record's fixed part; its owner is the question's name.
func (r *reply) record(rtype uint16, size int) {
	r.msg = append(r.msg, 0xc0, headerSize)
	r.msg = binary.BigEndian.AppendUint16(r.msg, rtype)
	r.msg = binary.BigEndian.AppendUint16(r.msg, mdns.ClassINET)
	r.msg = binary.BigEndian.AppendUint32(r.msg, answerTTL)
	r.msg = binary.BigEndian.AppendUint16(r.msg, uint16(size))
}

func (r *reply) address(a netip.Addr) {
	r.answers++
	if a.Is4() {
		r.record(mdns.TypeA, 4)
		b := a.As4()
		r.msg = append(r.msg, b[:]...)
		return
	}
	r.record(mdns.TypeAAAA, 16)
	b := a.As16()
	r.msg = append(r.msg, b[:]...)
}

// nodata says "the name exists, this type does not" (RFC 2308 2.2): an SOA
// whose zone is the name itself, so that no cache draws conclusions on others.
func (r *reply) nodata() {
	r.soa = 1
	r.record(mdns.TypeSOA, 2+13+5*4)
	r.msg = append(r.msg, 0xc0, headerSize) // MNAME: the name itself
	r.msg = append(r.msg, "\x0ahostmaster\xc0\x0c"...)
	for _, v := range [...]uint32{1, 3600, 600, 86400, answerTTL} { // serial, refresh, retry, expire, minimum
		r.msg = binary.BigEndian.AppendUint32(r.msg, v)
	}
}

// finish fills in the counts and appends an OPT record if the query had one.
// extended is the upper eight bits of the response code.
func (r *reply) finish(e edns, extended uint8) []byte {
	binary.BigEndian.PutUint16(r.msg[6:], r.answers)
	binary.BigEndian.PutUint16(r.msg[8:], r.soa)
	if e.present {
		r.msg[11] = 1
		do := byte(0)
		if e.do {
			do = 0x80
		}
		r.msg = append(r.msg, 0, 0, byte(mdns.TypeOPT), ednsSize>>8, ednsSize&0xff, extended, 0, do, 0, 0, 0)
	}
	return r.msg
}
