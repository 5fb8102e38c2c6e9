package http1

import "bytes"

// recognise finds the fields that must be understood, by length first.
func recognise(name []byte) known {
	word, k := "", plain
	switch len(name) {
	case 2:
		word, k = "te", te
	case 4:
		word, k = "host", host
	case 6:
		word, k = "expect", expect
	case 7:
		word, k = "trailer", trailer
		if name[0]|0x20 == 'u' {
			word, k = "upgrade", upgrade
		}
	case 10:
		word, k = "connection", connection
		switch name[0] | 0x20 {
		case 'k':
			word, k = "keep-alive", keepAlive
		case 'u':
			word, k = "user-agent", userAgent
		}
	case 12:
		word, k = "x-request-id", requestID
	case 14:
		word, k = "content-length", contentLength
	case 15:
		word, k = "x-forwarded-for", forwardedFor
	case 16:
		word, k = "proxy-connection", proxyConnection
	case 17:
		word, k = "transfer-encoding", transferEncoding
		if name[0]|0x20 == 'x' {
			word, k = "x-forwarded-proto", forwardedProto
		}
	}
	if k == plain || !equalFold(name, word) {
		return plain
	}
	return k
}

// understand takes in what a field says of its message.
func (m *Message) understand(f *field, value []byte) *Error {
	switch f.known {
	case contentLength:
		if m.Status > 0 && m.ContentLength >= 0 {
			// A response's may be said twice (RFC 9110 8.6), and is passed on once.
			f.hop = true
			return m.sameLength(value)
		}
		f.hop = m.bare()
		return m.takeLength(value)
	case transferEncoding:
		f.hop = true
		return m.takeEncoding(value)
	case host:
		return m.takeHost(f.value, value)
	case connection:
		f.hop = true
		return m.takeConnection(value)
	case upgrade:
		f.hop = true
		eachElement(value, func(e []byte) {
			m.upgrades = true
			m.h2c = m.h2c || isHTTP(e)
		})
	case keepAlive, proxyConnection:
		f.hop = true
	case te:
		f.hop = true
		eachElement(value, func(e []byte) { m.trailersOK = m.trailersOK || equalFold(e, "trailers") })
	case expect:
		if !equalFold(value, "100-continue") {
			return errExpect
		}
		m.ExpectContinue = true
	case requestID:
		first(&m.RequestID, f.value)
	case forwardedFor:
		m.ForwardedFor = f.value // the last: what the endpoint sees of it ends there
	case userAgent:
		first(&m.UserAgent, f.value)
	case forwardedProto:
		m.hasProto = true
	}
	return nil
}

// isHTTP says that an element of Upgrade, a name and perhaps a version, is a
// version of HTTP.
func isHTTP(e []byte) bool {
	if i := bytes.IndexByte(e, '/'); i >= 0 {
		e = trim(e[:i])
	}
	return equalFold(e, "h2c") || equalFold(e, "h2") || equalFold(e, "http")
}

func first(s *Span, v Span) {
	if s.Empty() {
		*s = v
	}
}

func (m *Message) takeLength(value []byte) *Error {
	if m.ContentLength >= 0 {
		return errTwoLengths // even of one value: which one did the others take?
	}
	// A leading zero is octal for some.
	if len(value) == 0 || len(value) > 18 || value[0] == '0' && len(value) > 1 {
		return errLength
	}
	n := int64(0)
	for _, b := range value {
		if b < '0' || b > '9' {
			return errLength
		}
		n = n*10 + int64(b-'0')
	}
	m.ContentLength = n
	return nil
}

func (m *Message) sameLength(value []byte) *Error {
	was := m.ContentLength
	m.ContentLength = -1
	if err := m.takeLength(value); err != nil {
		return err
	}
	if m.ContentLength != was {
		return errTwoLengths
	}
	return nil
}

func (m *Message) takeEncoding(value []byte) *Error {
	if m.encoded {
		return errTwoEncoding
	}
	m.encoded = true
	if equalFold(value, "chunked") {
		m.Chunked = true
		return nil
	}
	if bytes.IndexByte(value, ',') >= 0 || len(value) == 0 {
		return errTwoEncoding
	}
	return errEncoding
}

func (m *Message) takeHost(at Span, value []byte) *Error {
	if m.hasHost {
		return errTwoHosts
	}
	m.hasHost = true
	if len(value) == 0 {
		// RFC 9112 3.2: sent when the target has no authority. An endpoint
		// could not be asked with it.
		return errHost
	}
	if !validAuthority(value) {
		return errHost
	}
	first(&m.Host, at) // an absolute target goes before
	return nil
}

// takeConnection notes the options that are understood here; connectionNames
// looks for the fields that it names.
func (m *Message) takeConnection(value []byte) (err *Error) {
	eachElement(value, func(e []byte) {
		switch {
		case !all(e, isToken):
			err = errConnection
		case equalFold(e, "close"):
			m.Close = true
		case equalFold(e, "keep-alive"):
			m.KeepAlive = true
		case equalFold(e, "upgrade"):
			m.asksUp = true
		}
	})
	return err
}

// connectionNames marks the fields that Connection says are for this hop only
// (RFC 9110 7.6.1). Naming one that delimits or routes the message would make
// the endpoint read another message than we did.
func (m *Message) connectionNames(buf []byte) (err *Error) {
	named := 0
	for i := range m.fields {
		if m.fields[i].known != connection {
			continue
		}
		eachElement(m.fields[i].value.Of(buf), func(e []byte) {
			if equalFold(e, "close") || equalFold(e, "keep-alive") || equalFold(e, "upgrade") {
				return
			}
			if named++; named > maxOptions {
				err = errConnection // each costs a look at all fields
				return
			}
			for k := range m.fields {
				f := &m.fields[k]
				if !equalNames(f.name.Of(buf), e) {
					continue
				}
				switch f.known {
				case contentLength, transferEncoding, trailer, host, expect, requestID, forwardedFor, forwardedProto:
					err = errConnection
				default:
					f.hop = true
				}
			}
		})
	}
	return err
}

func equalNames(a, b []byte) bool { return len(a) == len(b) && bytes.EqualFold(a, b) }

// eachElement visits the elements of a list that is separated by commas.
func eachElement(value []byte, visit func([]byte)) {
	for len(value) > 0 {
		e := value
		if i := bytes.IndexByte(value, ','); i >= 0 {
			e, value = value[:i], value[i+1:]
		} else {
			value = nil
		}
		if e = trim(e); len(e) > 0 {
			visit(e)
		}
	}
}

// checkRequest looks at what only the whole head shows.
func (m *Message) checkRequest(buf []byte) *Error {
	if m.Minor == 0 && m.encoded {
		return errOldEncoding
	}
	if m.Minor > 0 && !m.hasHost {
		return errNoHost
	}
	// To HTTP/2 nobody upgrades here: requests would pass unseen. Of several
	// protocols the endpoint might choose that one.
	m.Upgrade = m.asksUp && m.upgrades && !m.h2c && m.Minor > 0
	if m.Upgrade && m.RequestBody() != NoBody {
		return errUpgradeBody // where would the other protocol begin?
	}
	if m.Minor == 0 {
		m.ExpectContinue = false
	}
	return nil
}
