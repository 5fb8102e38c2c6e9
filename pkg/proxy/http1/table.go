package http1

// Classes of bytes, by RFC 9110 5.6.2 and 5.5, RFC 3986 3.2.
const (
	isToken     = 1 << iota // tchar
	isText                  // of a field value: VCHAR, obs-text, SP, HTAB
	isTarget                // of a request target: VCHAR
	isAuthority             // of a reg-name, without percent-encoding
	isHex
)

var classes = func() (t [256]uint8) {
	for b := range 256 {
		c := byte(b)
		alnum := c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
		if alnum || within(c, "!#$%&'*+-.^_`|~") {
			t[b] |= isToken
		}
		if c >= ' ' && c != 0x7f || c == '\t' {
			t[b] |= isText
		}
		if c > ' ' && c < 0x7f {
			t[b] |= isTarget
		}
		if alnum || within(c, "-._~!$&'()*+,;=") {
			t[b] |= isAuthority
		}
		if c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' {
			t[b] |= isHex
		}
	}
	return t
}()

func within(c byte, set string) bool {
	for i := range len(set) {
		if set[i] == c {
			return true
		}
	}
	return false
}

// all says whether every byte of p is of the class.
func all(p []byte, class uint8) bool {
	for _, b := range p {
		if classes[b]&class == 0 {
			return false
		}
	}
	return true
}

// equalFold compares p with a lower-case word, ignoring the case of ASCII.
func equalFold(p []byte, lower string) bool {
	if len(p) != len(lower) {
		return false
	}
	for i, b := range p {
		if b >= 'A' && b <= 'Z' {
			b |= 0x20
		}
		if b != lower[i] {
			return false
		}
	}
	return true
}

func trim(p []byte) []byte {
	for len(p) > 0 && (p[0] == ' ' || p[0] == '\t') {
		p = p[1:]
	}
	for n := len(p); n > 0 && (p[n-1] == ' ' || p[n-1] == '\t'); n = len(p) {
		p = p[:n-1]
	}
	return p
}
