package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// hold makes connections that each do one request and then stay idle. Count 0
// closes all that are held.
type hold struct {
	Address string
	Count   int
	HTTP2   bool
}

// holdAtOnce connections are made before one is waited for: no listener's
// backlog may overflow.
const holdAtOnce = 64

// run returns what is held: of before, and more.
func (h *hold) run(before []net.Conn) ([]net.Conn, error) {
	if h.Count == 0 {
		for _, c := range before {
			c.Close()
		}
		return nil, nil
	}
	for len(before) < h.Count {
		batch := make([]net.Conn, 0, holdAtOnce)
		for range min(holdAtOnce, h.Count-len(before)) {
			c, err := net.Dial("tcp4", h.Address)
			if err != nil {
				return before, fmt.Errorf("hold connection %d: %w", len(before), err)
			}
			batch = append(batch, c)
			before = append(before, c)
		}
		for _, c := range batch {
			if err := h.request(c); err != nil {
				return before, fmt.Errorf("request on connection %d: %w", len(before), err)
			}
		}
	}
	return before, nil
}

func (h *hold) request(c net.Conn) error {
	c.SetDeadline(time.Now().Add(answerLimit))
	if h.HTTP2 {
		return requestHTTP2(c)
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return err
}

// Of RFC 9113: as much as one GET takes.
const (
	frameData     = 0
	frameHeaders  = 1
	frameReset    = 3
	frameSettings = 4
	frameGoAway   = 7
	flagEndStream = 1
	flagAck       = 1
	flagEndHead   = 4
)

// getHTTP2 is the preface, empty settings and the head of stream 1: GET, http
// and / from HPACK's static table, the authority "bench" as a literal that is
// not indexed.
const getHTTP2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" +
	"\x00\x00\x00\x04\x00\x00\x00\x00\x00" +
	"\x00\x00\x0a\x01\x05\x00\x00\x00\x01" + "\x82\x86\x84\x01\x05bench"

// requestHTTP2 does one GET as the first of a connection.
func requestHTTP2(c net.Conn) error {
	if _, err := io.WriteString(c, getHTTP2); err != nil {
		return err
	}
	in := bufio.NewReader(c)
	for {
		var head [9]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return err
		}
		length, kind, flags := int(binary.BigEndian.Uint32(head[:4])>>8), head[3], head[4]
		payload := make([]byte, length)
		if _, err := io.ReadFull(in, payload); err != nil {
			return err
		}
		switch kind {
		case frameSettings:
			if flags&flagAck == 0 {
				if _, err := c.Write([]byte{0, 0, 0, frameSettings, flagAck, 0, 0, 0, 0}); err != nil {
					return err
				}
			}
		case frameReset, frameGoAway:
			return fmt.Errorf("answered by a frame of type %d: %q", kind, payload)
		case frameHeaders:
			if length == 0 || payload[0] != 0x88 && payload[0] != 0x20 && payload[0] != 0x3f {
				return fmt.Errorf("answer without status 200: %x", payload)
			}
			if flags&flagEndStream != 0 {
				return nil
			}
		case frameData:
			if flags&flagEndStream != 0 {
				return nil
			}
		}
	}
}
