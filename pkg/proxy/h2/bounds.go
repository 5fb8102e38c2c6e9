package h2

import (
	"time"

	"golang.org/x/net/http2"
)

// What one peer may cost. Each of them ends the connection with a GOAWAY but
// where it says otherwise.
const (
	// maxFrame is SETTINGS_MAX_FRAME_SIZE both ways: the protocol's default.
	// Longer frames would save nothing, since DATA is passed on as it arrives.
	maxFrame = 16 << 10

	// maxHeaderList bounds a field list as RFC 9113 6.5.2 counts it, 32 bytes
	// more for each field. A request over it is answered 431, a response over
	// it ends its stream; the connection goes on, for the block is decoded to
	// its end without keeping anything (an hpack bomb costs no memory).
	maxHeaderList = 64 << 10

	// maxBlock bounds the same list as it came, encoded and over all
	// CONTINUATION frames. Twice the list leaves room for what is thrown away
	// with a 431; beyond it the peer is not worth keeping in step with.
	maxBlock = 2 * maxHeaderList

	// maxContinuations bounds the frames of one list. 128 KiB in frames of
	// full size are eight; small frames are no reason to wait for ever.
	maxContinuations = 128

	// maxTable is the dynamic table our encoder keeps, in the bytes of RFC 7541
	// 4.1. The protocol's default costs up to 10 KiB of x/net's maps for each of
	// a session pair's two encoders; 1 KiB holds the fields that repeat.
	maxTable = 1 << 10

	// decodeTable is the one a peer may have: the default. Filled to the brim by
	// both peers they take a pair of sessions to 35 KiB; what clients and
	// servers do leaves it at half of that (TestIdleMemory).
	decodeTable = 4 << 10

	// maxAcks bounds acknowledgements of PING and SETTINGS that wait to be
	// written: a peer that asks and does not read.
	maxAcks = 1000

	// maxOutput bounds DATA that waits to be written to one peer, bytes.
	maxOutput = 64 << 10

	// outputSlack is how far what is not DATA, response heads mostly, may go
	// beyond it before Blocked asks the owner to read no more of this peer.
	outputSlack = 128 << 10

	// quantum is what one stream may write while others wait, bytes.
	quantum = 32 << 10

	// maxOwnResets is how many streams that we reset are remembered, so that
	// frames that were under way are dropped and not answered as an error.
	maxOwnResets = 64
)

// Requests taken back. A client that cancels makes work upstream that nobody
// waits for (CVE-2023-44487, rapid reset), and so does one that makes us reset
// (CVE-2025-8671). Clients with a deadline of their own cancel in bursts as
// wide as what they have in flight; those that hedge cancel what came second
// for as long as they run, so an answer that a client takes whole pays for
// earnedAnswer of them. Who takes nothing runs out.
var resetBudget = budget{burst: 1000, perSecond: 200}

// Frames that carry nothing: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, unknown
// ones, DATA without data, RST_STREAM of a stream that is over. Each costs 1. A
// request pays for earnedRequest of them and a frame of data, either way, for
// earnedData, so that only who sends nothing else runs out: gRPC pings once
// for each burst of data, and some clients update windows for every read.
var chatterBudget = budget{burst: 10_000, perSecond: 500}

const (
	earnedRequest = 8
	earnedData    = 4
	earnedAnswer  = 2
)

// budget is a token bucket's size.
type budget struct {
	burst, perSecond float64
}

// bucket is a token bucket: full when new.
type bucket struct {
	spent float64 // 0 when full
	at    time.Time
}

// take spends n tokens and reports whether they were there.
func (b *bucket) take(of budget, n float64, now time.Time) bool {
	if passed := now.Sub(b.at); b.spent > 0 && passed > 0 {
		b.spent = max(0, b.spent-passed.Seconds()*of.perSecond)
	}
	b.at = now
	b.spent += n
	return b.spent <= of.burst
}

// earn gives n tokens back.
func (b *bucket) earn(n float64) { b.spent = max(0, b.spent-n) }

// ConnectionError ends a connection. By the time Feed returns it, the GOAWAY
// that tells the peer is in Output.
type ConnectionError struct {
	Code   http2.ErrCode
	Reason string // for logs and the GOAWAY's debug data
}

func (e *ConnectionError) Error() string { return "http2: " + e.Code.String() + ": " + e.Reason }

func fail(code http2.ErrCode, reason string) error {
	return &ConnectionError{Code: code, Reason: reason}
}
