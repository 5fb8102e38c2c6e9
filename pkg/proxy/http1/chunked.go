package http1

const (
	maxSizeDigits = 15       // of a chunk size: below 2^60
	maxExtension  = 1 << 10  // bytes of chunk extensions in one line
	maxTrailers   = 16 << 10 // bytes of all trailer lines
)

var (
	errChunkSize = &Error{400, "malformed chunk size"}
	errChunkEnd  = &Error{400, "chunk does not end in CRLF"}
	errExtension = &Error{400, "malformed chunk extension"}
	errTrailer   = &Error{400, "malformed trailer"}
)

// Chunked follows a chunked body to its end. The zero value is at the
// beginning.
type Chunked struct {
	left   int64 // of the size being read, or of the data to come
	length int   // digits of the size, bytes of its extensions, or of all trailers
	state  chunkState
	name   uint8    // bytes of the trailer's name
	word   [17]byte // the name, if it is not longer than those that are known
}

type chunkState uint8

const (
	chunkSize     chunkState = iota // digits
	chunkExt                        // to the end of the line
	chunkExtQuote                   // in a quoted string
	chunkExtEscape
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	trailerStart
	trailerName
	trailerValue
	trailerLF
	trailerLastLF
	chunkDone
)

// Scan reads on. It returns how many bytes of buf belong to the body and are
// well formed, which may be passed on as they are, how many of them are data,
// and whether the body has ended there.
func (c *Chunked) Scan(buf []byte) (n int, data int64, done bool, err error) {
	for n < len(buf) && c.state != chunkDone {
		if c.state == chunkData {
			k := min(c.left, int64(len(buf)-n))
			n += int(k)
			data += k
			if c.left -= k; c.left == 0 {
				c.state = chunkDataCR
			}
			continue
		}
		if e := c.step(buf[n]); e != nil {
			return n, data, false, e
		}
		n++
	}
	return n, data, c.state == chunkDone, nil
}

// Decode is Scan that appends the data alone to dst. dst may share its memory
// with buf, from the same beginning: data never gets ahead of what it came in.
func (c *Chunked) Decode(dst, buf []byte) (out []byte, n int, done bool, err error) {
	for n < len(buf) && c.state != chunkDone {
		if c.state == chunkData {
			k := int(min(c.left, int64(len(buf)-n)))
			dst = append(dst, buf[n:n+k]...)
			n += k
			if c.left -= int64(k); c.left == 0 {
				c.state = chunkDataCR
			}
			continue
		}
		if e := c.step(buf[n]); e != nil {
			return dst, n, false, e
		}
		n++
	}
	return dst, n, c.state == chunkDone, nil
}

func (c *Chunked) step(b byte) error {
	switch c.state {
	case chunkSize, chunkExt, chunkExtQuote, chunkExtEscape, chunkSizeLF:
		return c.sizeLine(b)
	case chunkDataCR:
		if b != '\r' {
			return errChunkEnd
		}
		c.state = chunkDataLF
	case chunkDataLF:
		if b != '\n' {
			return errChunkEnd
		}
		c.state, c.length = chunkSize, 0
	default:
		return c.trailerLine(b)
	}
	return nil
}

func (c *Chunked) sizeLine(b byte) error {
	switch c.state {
	case chunkSize:
		switch {
		case classes[b]&isHex != 0:
			if c.length == maxSizeDigits {
				return errChunkSize
			}
			c.left = c.left<<4 | int64(unhex(b))
			c.length++
			return nil
		case c.length == 0:
			return errChunkSize
		}
		c.length = 0
		switch b {
		case '\r':
			c.state = chunkSizeLF
		case ';':
			c.state = chunkExt
		default:
			return errChunkSize // white space too, which not everybody reads alike
		}
		return nil
	case chunkSizeLF:
		if b != '\n' {
			return errChunkSize
		}
		c.length = 0
		if c.left == 0 {
			c.state = trailerStart
		} else {
			c.state = chunkData
		}
		return nil
	}
	return c.extension(b)
}

func (c *Chunked) extension(b byte) error {
	if c.length++; c.length > maxExtension {
		return errExtension
	}
	if b == '\r' && c.state == chunkExt {
		c.state = chunkSizeLF
		return nil
	}
	if classes[b]&isText == 0 {
		return errExtension
	}
	switch {
	case c.state == chunkExtEscape:
		c.state = chunkExtQuote
	case c.state == chunkExtQuote && b == '\\':
		c.state = chunkExtEscape
	case b == '"' && c.state == chunkExt:
		c.state = chunkExtQuote
	case b == '"':
		c.state = chunkExt
	}
	return nil
}

func (c *Chunked) trailerLine(b byte) error {
	if c.length++; c.length > maxTrailers {
		return errTrailer
	}
	switch c.state {
	case trailerStart:
		if b == '\r' {
			c.state = trailerLastLF
			return nil
		}
		c.state, c.name = trailerName, 0
		return c.trailerByte(b)
	case trailerName:
		return c.trailerByte(b)
	case trailerValue:
		if b == '\r' {
			c.state = trailerLF
		} else if classes[b]&isText == 0 {
			return errTrailer
		}
	case trailerLF, trailerLastLF:
		if b != '\n' {
			return errTrailer
		}
		if c.state == trailerLastLF {
			c.state = chunkDone
		} else {
			c.state = trailerStart
		}
	}
	return nil
}

// trailerByte takes a byte of a trailer's name. Names that would delimit or
// route the message are refused: somebody might merge them into its head
// (RFC 9110 6.5.1).
func (c *Chunked) trailerByte(b byte) error {
	if b == ':' && c.name > 0 {
		c.state = trailerValue
		if int(c.name) <= len(c.word) {
			switch recognise(c.word[:c.name]) {
			case contentLength, transferEncoding, host, connection, te, upgrade, expect, trailer, keepAlive, proxyConnection:
				return errTrailer
			}
		}
		return nil
	}
	if classes[b]&isToken == 0 {
		return errTrailer
	}
	if int(c.name) < len(c.word) {
		c.word[c.name] = b
	}
	if int(c.name) <= len(c.word) {
		c.name++
	}
	return nil
}

func unhex(b byte) byte {
	switch {
	case b <= '9':
		return b - '0'
	case b <= 'F':
		return b - 'A' + 10
	}
	return b - 'a' + 10
}
