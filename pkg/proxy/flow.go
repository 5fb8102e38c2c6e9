package proxy

import "connectd/pkg/proxy/http1"

// flow is a body on its way from one socket to another. Only what one of them
// has given and the other not yet taken is held.
type flow struct {
	from, to *sock
	held     []byte // read and not yet written from off on
	off      int

	framing framing
	left    int64         // byLength: bytes to come
	chunks  http1.Chunked // byChunks: where in the body we are
	dechunk bool          // byChunks: pass on the data alone
	done    bool          // everything has been read
	slow    bool          // to has left something lying: read little at once
	bytes   int64         // body bytes read
	over    []byte        // byChunks: read beyond the end, in a buffer of its own
}

type framing uint8

const (
	byLength framing = iota
	byChunks
	byEnd // until from shuts down its side
)

type flowResult uint8

const (
	flowStuck  flowResult = iota // waits for one of the sockets
	flowMoved                    // something moved, more may
	flowCut                      // from ended before the body did
	flowBroken                   // to takes nothing any more
	flowBad                      // not the framing that was announced
)

// empty says whether everything read was passed on.
func (f *flow) empty() bool { return f.off == len(f.held) }

func (f *flow) finished() bool { return f.done && f.empty() }

// wants says what from and to must be ready for.
func (f *flow) wants() (from, to uint8) {
	switch {
	case !f.empty():
		return 0, wantOut
	case f.done:
		return 0, 0
	case !f.to.out:
		return 0, wantOut
	}
	return wantIn, 0
}

// move passes on what it can, up to a turn of bytes: other connections wait.
func (l *loop) move(f *flow) flowResult {
	moved := flowStuck
	if !f.empty() {
		if res := l.flush(f); res != flowMoved || !f.empty() {
			return res
		}
		moved = flowMoved
	}
	for budget := turnBytes; budget > 0 && !f.done && f.from.in && f.to.out; {
		n, res := l.pass(f, budget)
		if n == 0 {
			if res != flowStuck {
				return res
			}
			break
		}
		budget -= n
		moved = flowMoved
		if res != flowMoved {
			return res
		}
	}
	return moved
}

// flush writes what is held.
func (l *loop) flush(f *flow) flowResult {
	if !f.to.out {
		return flowStuck
	}
	n, res := f.to.write(f.held[f.off:], false)
	if res == resultFailed {
		return flowBroken
	}
	f.off += n
	if f.empty() {
		l.letGo(f)
	}
	if n == 0 {
		return flowStuck
	}
	return flowMoved
}

// letGo gives back a buffer that is larger than what the flow began with.
func (l *loop) letGo(f *flow) {
	l.holding -= int64(cap(f.held))
	l.free.put(f.held)
	f.held, f.off = nil, 0
}

func (l *loop) hold(f *flow, rest []byte) {
	f.slow = true
	f.held = append(l.free.get(len(rest)), rest...)
	f.off = 0
	l.holding += int64(cap(f.held))
}

// pass reads once and writes what it read.
func (l *loop) pass(f *flow, budget int) (int, flowResult) {
	want := min(budget, len(l.scratch))
	if f.slow || l.holding+l.h2pool.Held() > maxHolding {
		want = slowRead
	}
	if f.framing == byLength {
		want = int(min(int64(want), f.left))
	}
	n, res := f.from.read(l.scratch[:want])
	switch {
	case res == resultAgain:
		return 0, flowStuck
	case res == resultEOF && f.framing == byEnd:
		f.done = true
		return 0, flowMoved
	case res != resultOK:
		return 0, flowCut
	}
	data, ok := f.accept(l, l.scratch[:n])
	if !ok {
		return n, flowBad
	}
	if len(data) == 0 {
		return n, flowMoved
	}
	sent, res := f.to.write(data, n == want && !f.done)
	if res == resultFailed {
		return n, flowBroken
	}
	if sent < len(data) {
		l.hold(f, data[sent:])
	} else {
		f.slow = false
	}
	return n, flowMoved
}

// accept checks the framing of what was read and returns what is to be passed
// on.
func (f *flow) accept(l *loop, p []byte) (data []byte, ok bool) {
	switch f.framing {
	case byLength:
		f.left -= int64(len(p))
		f.done = f.left == 0
	case byChunks:
		return f.acceptChunks(l, p)
	}
	f.bytes += int64(len(p))
	return p, true
}

func (f *flow) acceptChunks(l *loop, p []byte) (data []byte, ok bool) {
	var n int
	var err error
	if f.dechunk {
		// In place: data never gets ahead of what it came in.
		data, n, f.done, err = f.chunks.Decode(p[:0], p)
		f.bytes += int64(len(data))
	} else {
		var size int64
		n, size, f.done, err = f.chunks.Scan(p)
		data = p[:n]
		f.bytes += size
	}
	if err != nil {
		return nil, false
	}
	if n < len(p) {
		f.over = append(l.free.get(len(p)-n), p[n:]...)
	}
	return data, true
}
