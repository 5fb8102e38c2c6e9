// Package h2 speaks HTTP/2 for a forwarder that runs on epoll loops: bytes in,
// callbacks, bytes out. It has no goroutine, no lock, no clock and no socket.
//
//	socket --Feed--> Session --Headers, Data, Reset, Writable--> Handler
//	socket <--Output, Sent-- Session <--Open, Headers, Write, Release, Close-- Handler
//
// A Session is one connection, towards a client (Server) or towards an
// endpoint; a Stream is one request on it. An Exchange links a stream of one
// with a stream of the other, with flow control from end to end and retries.
//
// Everything of one loop is touched by that loop's goroutine only. Callbacks
// run inside Feed, Sent and Close of a session and nowhere else: a method of a
// Stream never calls back. What a callback is handed, slices of fields and of
// bytes, is valid until it returns; the strings in fields stay valid.
//
// Frames are read by x/net's Framer, DATA excepted, which is passed on as it
// arrives, and header blocks by its hpack. Every bound against a peer that
// means harm is ours, see bounds.go.
package h2
