package h2

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// TestReactions: what a session makes of one thing its peer does. Each case
// runs with the bytes in one piece and one by one.
func TestReactions(t *testing.T) {
	server, client := Config{Server: true}, Config{}
	post := []string{":method POST", ":scheme http", ":path /", ":authority a"}
	for _, test := range []struct {
		name string
		cfg  Config
		do   func(p *peer)
		say  string // what the session says, frames joined by "; "
		told string // what its handler is told
		fail bool   // Feed returns an error
	}{
		{name: "request", cfg: server, do: func(p *peer) { p.headers(1, true, get...) },
			told: "head 1 4 fields end=true"},
		{name: "request with a body and trailers", cfg: server, do: func(p *peer) {
			p.headers(1, false, post...)
			p.fr.WriteData(1, false, []byte("x"))
			p.headers(1, true, "x-sum 1")
		}, told: "head 1 4 fields end=false; data 1 1 end=false; trailers 1 1 fields end=true"},
		{name: "padding", cfg: server, do: func(p *peer) {
			p.headers(1, false, post...)
			p.fr.WriteDataPadded(1, true, []byte("x"), make([]byte, 200))
		}, told: "head 1 4 fields end=false; data 1 1 end=true"},
		{name: "padding alone", cfg: server, do: func(p *peer) {
			p.headers(1, false, post...)
			p.fr.WriteDataPadded(1, true, nil, make([]byte, 0))
		}, told: "head 1 4 fields end=false; data 1 0 end=true"},
		{name: "continuation", cfg: server, do: func(p *peer) {
			b := p.block(get...)
			p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:2], EndStream: true})
			p.fr.WriteContinuation(1, false, nil)
			p.fr.WriteContinuation(1, true, b[2:])
		}, told: "head 1 4 fields end=true"},
		{name: "unknown frames, PRIORITY", cfg: server, do: func(p *peer) {
			p.fr.WriteRawFrame(0x42, 0xff, 7, make([]byte, 100))
			p.fr.WritePriority(1, http2.PriorityParam{StreamDep: 3})
		}},
		{name: "ping", cfg: server, do: func(p *peer) { p.fr.WritePing(false, [8]byte{1}) }, say: "ping ack=true"},
		{name: "ping acknowledged unasked", cfg: server, do: func(p *peer) { p.fr.WritePing(true, [8]byte{1}) }},
		{name: "settings", cfg: server, do: func(p *peer) { p.fr.WriteSettings() }, say: "settings ack"},
		{name: "bad ENABLE_PUSH", cfg: server, do: func(p *peer) { p.fr.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 2}) },
			say: "goaway 0 PROTOCOL_ERROR", fail: true},
		{name: "an endpoint that pushes", cfg: client, do: func(p *peer) { p.fr.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 1}) },
			say: "goaway 0 PROTOCOL_ERROR", fail: true},
		{name: "bad INITIAL_WINDOW_SIZE", cfg: server, do: func(p *peer) {
			p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31})
		}, say: "goaway 0 FLOW_CONTROL_ERROR", fail: true},
		{name: "bad MAX_FRAME_SIZE", cfg: server, do: func(p *peer) { p.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 100}) },
			say: "goaway 0 PROTOCOL_ERROR", fail: true},
		{name: "frame too long", cfg: server, do: func(p *peer) { p.fr.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, maxFrame+1)) },
			say: "goaway 0 FRAME_SIZE_ERROR", fail: true},
		{name: "ping of 7 bytes", cfg: server, do: func(p *peer) { p.fr.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 7)) },
			say: "goaway 0 FRAME_SIZE_ERROR", fail: true},
		{name: "PUSH_PROMISE by a client", cfg: server, do: func(p *peer) {
			p.headers(1, false, post...)
			p.fr.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: p.block(get...), EndHeaders: true})
		}, say: "goaway 1 PROTOCOL_ERROR", told: "head 1 4 fields end=false", fail: true},
		{name: "even stream", cfg: server, do: func(p *peer) { p.headers(2, true, get...) }, say: "goaway 0 PROTOCOL_ERROR", fail: true},
		{name: "stream number going down", cfg: server, do: func(p *peer) {
			p.headers(5, true, get...)
			p.headers(3, true, get...)
		}, say: "goaway 5 STREAM_CLOSED", told: "head 5 4 fields end=true", fail: true},
		{name: "DATA on an idle stream", cfg: server, do: func(p *peer) { p.fr.WriteData(1, true, nil) }, say: "goaway 0 PROTOCOL_ERROR", fail: true},
		{name: "DATA after the end", cfg: server, do: func(p *peer) {
			p.headers(1, true, get...)
			p.fr.WriteData(1, true, nil)
		}, say: "rst 1 STREAM_CLOSED", told: "head 1 4 fields end=true; reset 1 STREAM_CLOSED local"},
		{name: "second head without end", cfg: server, do: func(p *peer) {
			p.headers(1, false, post...)
			p.headers(1, false, "x-sum 1")
		}, say: "rst 1 PROTOCOL_ERROR", told: "head 1 4 fields end=false; reset 1 PROTOCOL_ERROR local"},
		{name: "pseudo field in trailers", cfg: server, do: func(p *peer) {
			p.headers(1, false, post...)
			p.headers(1, true, ":path /")
		}, say: "rst 1 PROTOCOL_ERROR", told: "head 1 4 fields end=false; reset 1 PROTOCOL_ERROR local"},
		{name: "window overflow of a stream", cfg: server, do: func(p *peer) {
			p.headers(1, false, post...)
			p.fr.WriteWindowUpdate(1, maxWindow)
		}, say: "rst 1 FLOW_CONTROL_ERROR", told: "head 1 4 fields end=false; reset 1 FLOW_CONTROL_ERROR local"},
		{name: "window overflow of the connection", cfg: server, do: func(p *peer) { p.fr.WriteWindowUpdate(0, maxWindow) },
			say: "goaway 0 FLOW_CONTROL_ERROR", fail: true},
		{name: "window overflow by SETTINGS", cfg: server, do: func(p *peer) {
			p.headers(1, false, post...)
			p.fr.WriteWindowUpdate(1, maxWindow-protocolWindow)
			p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: protocolWindow + 1})
		}, say: "settings ack; goaway 1 FLOW_CONTROL_ERROR", told: "head 1 4 fields end=false", fail: true},
		{name: "window update by 0", cfg: server, do: func(p *peer) {
			p.headers(1, false, post...)
			p.fr.WriteWindowUpdate(1, 0)
		}, say: "rst 1 PROTOCOL_ERROR", told: "head 1 4 fields end=false; reset 1 PROTOCOL_ERROR local"},
		{name: "DATA beyond the stream's window", cfg: Config{Server: true, StreamWindow: protocolWindow}, do: func(p *peer) {
			p.headers(1, false, post...)
			for range 4 {
				p.fr.WriteData(1, false, make([]byte, maxFrame))
			}
			p.rec.onData = func(*Stream, []byte, bool) {}
		}, say: "rst 1 FLOW_CONTROL_ERROR", told: "head 1 4 fields end=false; reset 1 FLOW_CONTROL_ERROR local"},
		{name: "DATA beyond the connection's window", cfg: Config{Server: true, StreamWindow: protocolWindow, ConnWindow: protocolWindow}, do: func(p *peer) {
			p.headers(1, false, post...)
			p.headers(3, false, post...)
			p.rec.onData = func(*Stream, []byte, bool) {}
			p.fr.WriteData(1, false, make([]byte, maxFrame))
			for range 3 {
				p.fr.WriteData(3, false, make([]byte, maxFrame))
			}
		}, say: "goaway 3 FLOW_CONTROL_ERROR", told: "head 1 4 fields end=false; head 3 4 fields end=false", fail: true},
		{name: "body longer than content-length", cfg: server, do: func(p *peer) {
			p.headers(1, false, append(post, "content-length 2")...)
			p.fr.WriteData(1, true, []byte("abc"))
		}, say: "rst 1 PROTOCOL_ERROR", told: "head 1 5 fields end=false; reset 1 PROTOCOL_ERROR local"},
		{name: "body shorter than content-length", cfg: server, do: func(p *peer) {
			p.headers(1, false, append(post, "content-length 2")...)
			p.headers(1, true, "x-sum 1")
		}, say: "rst 1 PROTOCOL_ERROR", told: "head 1 5 fields end=false; reset 1 PROTOCOL_ERROR local"},
		{name: "no body with content-length", cfg: server, do: func(p *peer) { p.headers(1, true, append(post, "content-length 2")...) },
			say: "rst 1 PROTOCOL_ERROR"},
		{name: "uppercase name", cfg: server, do: func(p *peer) { p.headers(1, true, append(post, "X-Up 1")...) }, say: "rst 1 PROTOCOL_ERROR"},
		{name: "transfer-encoding", cfg: server, do: func(p *peer) { p.headers(1, true, append(post, "transfer-encoding chunked")...) }, say: "rst 1 PROTOCOL_ERROR"},
		{name: "header block interrupted", cfg: server, do: func(p *peer) {
			p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(get...)})
			p.fr.WritePing(false, [8]byte{})
		}, say: "goaway 0 PROTOCOL_ERROR", fail: true},
		{name: "CONTINUATION of another stream", cfg: server, do: func(p *peer) {
			p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(get...)})
			p.fr.WriteContinuation(3, true, nil)
		}, say: "goaway 0 PROTOCOL_ERROR", fail: true},
		{name: "bad hpack", cfg: server, do: func(p *peer) {
			p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x80}, EndHeaders: true})
		}, say: "goaway 0 COMPRESSION_ERROR", fail: true},
		{name: "list too large", cfg: server, do: func(p *peer) {
			value := strings.Repeat("v", 10_000)
			b := p.block(append(get, "a "+value, "b "+value, "c "+value, "d "+value, "e "+value, "f "+value, "g "+value, "h 1")...)
			p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:maxFrame], EndStream: true})
			for b = b[maxFrame:]; len(b) > maxFrame; b = b[maxFrame:] {
				p.fr.WriteContinuation(1, false, b[:maxFrame])
			}
			p.fr.WriteContinuation(1, true, b)
			p.headers(3, true, append(get, "h 1")...) // the table is still in step
		}, say: "headers 1 :status 431 end=true", told: "head 3 5 fields end=true"},
		{name: "rst of a stream", cfg: server, do: func(p *peer) {
			p.headers(1, true, get...)
			p.fr.WriteRSTStream(1, http2.ErrCodeCancel)
			p.fr.WriteRSTStream(1, http2.ErrCodeCancel)
			p.fr.WriteWindowUpdate(1, 1)
		}, told: "head 1 4 fields end=true; reset 1 CANCEL"},
		{name: "rst of an idle stream", cfg: server, do: func(p *peer) { p.fr.WriteRSTStream(1, http2.ErrCodeCancel) },
			say: "goaway 0 PROTOCOL_ERROR", fail: true},
		{name: "HEADERS from an endpoint, unasked", cfg: client, do: func(p *peer) { p.headers(1, true, ":status 200") },
			say: "goaway 0 PROTOCOL_ERROR", fail: true},
	} {
		for _, step := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s/%d", test.name, step), func(t *testing.T) {
				p := greeted(t, test.cfg)
				p.step = step
				test.do(p)
				err := p.say()
				if (err != nil) != test.fail {
					t.Errorf("Feed: %v", err)
				}
				if got := strings.Join(p.heard(), "; "); got != test.say {
					t.Errorf("said %q, want %q", got, test.say)
				}
				// Data comes in as many pieces as it was fed in.
				told := slices.DeleteFunc(p.rec.log, func(s string) bool { return step > 0 && strings.HasPrefix(s, "data") })
				want := slices.DeleteFunc(strings.Split(test.told, "; "), func(s string) bool {
					return s == "" || step > 0 && strings.HasPrefix(s, "data")
				})
				if !slices.Equal(told, want) {
					t.Errorf("told %q, want %q", told, want)
				}
				p.sess.Close()
			})
		}
	}
}

// TestGreeting: both sides begin as RFC 9113 3.4 says, and insist on it.
func TestGreeting(t *testing.T) {
	for _, test := range []struct {
		name string
		cfg  Config
		do   func(p *peer)
		ok   bool
	}{
		{"client", Config{Server: true}, func(p *peer) { p.out.WriteString(http2.ClientPreface); p.fr.WriteSettings() }, true},
		{"not HTTP/2", Config{Server: true}, func(p *peer) { p.out.WriteString("GET / HTTP/1.1\r\n\r\n") }, false},
		{"no SETTINGS", Config{Server: true}, func(p *peer) { p.out.WriteString(http2.ClientPreface); p.fr.WritePing(false, [8]byte{}) }, false},
		{"acknowledgement first", Config{Server: true}, func(p *peer) { p.out.WriteString(http2.ClientPreface); p.fr.WriteSettingsAck() }, false},
		{"endpoint", Config{}, func(p *peer) { p.fr.WriteSettings() }, true},
		{"endpoint of HTTP/1", Config{}, func(p *peer) { p.out.WriteString("HTTP/1.1 400 Bad Request\r\n\r\n") }, false},
	} {
		for _, step := range []int{0, 1} {
			p := newPeer(t, test.cfg)
			p.step = step
			test.do(p)
			if err := p.say(); (err == nil) != test.ok {
				t.Errorf("%s: %v", test.name, err)
			}
			said := p.heard()
			if said[0] != "settings" || test.ok != slices.Contains(said, "settings ack") {
				t.Errorf("%s: said %q", test.name, said)
			}
			p.sess.Close()
		}
	}
}

func TestIsPreface(t *testing.T) {
	for _, test := range []struct {
		p              string
		yes, needsMore bool
	}{
		{"", false, true},
		{"P", false, true},
		{"PRI * HTTP/2.0\r\n\r\n", false, true},
		{http2.ClientPreface, true, false},
		{http2.ClientPreface + "more", true, false},
		{"PUT / HTTP/1.1", false, false},
		{"PRI * HTTP/2.0\r\n\r\nXX", false, false},
	} {
		if yes, more := IsPreface([]byte(test.p)); yes != test.yes || more != test.needsMore {
			t.Errorf("%q: %v %v", test.p, yes, more)
		}
	}
}

// TestRoomBeforeSettings: one stream is opened towards an endpoint that has not
// said how many it takes, and as many as it says then.
func TestRoomBeforeSettings(t *testing.T) {
	p := newPeer(t, Config{})
	if _, err := p.sess.Open(getFields, true); err != nil {
		t.Fatal(err)
	}
	if _, err := p.sess.Open(getFields, true); err != ErrBusy || p.sess.Greeted() {
		t.Errorf("second stream before SETTINGS: %v", err)
	}
	p.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 3})
	if err := p.say(); err != nil {
		t.Fatal(err)
	}
	if got := p.sess.Room(); got != 2 || !p.sess.Greeted() {
		t.Errorf("room for %d after SETTINGS, want 2", got)
	}
}
