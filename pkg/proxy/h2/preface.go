package h2

import "golang.org/x/net/http2"

const preface = http2.ClientPreface

// IsPreface tells whether a connection's first bytes are those of a client
// that knows we speak HTTP/2. needMore is set while p is a beginning of the
// preface and too short to be more. With neither, the caller has HTTP/1 before
// it: PRI is no method of HTTP/1, and its first 18 bytes alone would be a
// request head, so a parser of HTTP/1 may be given whatever is not the preface.
func IsPreface(p []byte) (yes, needMore bool) {
	n := min(len(p), len(preface))
	if string(p[:n]) != preface[:n] {
		return false, false
	}
	return n == len(preface), n < len(preface)
}
