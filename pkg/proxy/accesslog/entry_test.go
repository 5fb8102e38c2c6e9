package accesslog

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"connectd/pkg/lb"
	"connectd/pkg/testutil"
)

func TestMain(m *testing.M) { os.Exit(testutil.Main(m)) }

var (
	text = lb.AccessLog{Path: "-", Format: lb.LogText}
	js   = lb.AccessLog{Path: "-", Format: lb.LogJSON}
)

// whole is an entry with everything.
func whole(kind lb.AppProtocol) *Entry {
	e := &Entry{
		Kind: kind, Start: time.Date(2026, 11, 25, 13, 4, 5, 67_890_000, time.FixedZone("CET", 3600)),
		Method: []byte("GET"), Path: []byte("/cart/7?token=secret"), Protocol: "HTTP/1.1", Authority: []byte("cart.shop"),
		UserAgent: []byte("curl/8.1"), ForwardedFor: []byte("10.0.0.9"), RequestID: []byte("0f8fad5b-d9cb-469f-a165-70867728950e"),
		Status: 200, Received: 3, Sent: 4096, Duration: 12*time.Millisecond + 999*time.Microsecond, UpstreamTime: 7 * time.Millisecond,
		UpstreamHost: netip.MustParseAddrPort("10.0.1.2:8080"), GRPCStatus: -1, Tries: 1,
	}
	if kind != lb.AppHTTP {
		e.Protocol = "HTTP/2"
	}
	if kind == lb.AppGRPC {
		e.Method, e.Path, e.GRPCStatus = []byte("POST"), []byte("/shop.Cart/Get"), 0
	}
	return e
}

// nothing is an entry of a client that left, before any endpoint was chosen.
func nothing(kind lb.AppProtocol) *Entry {
	return &Entry{Kind: kind, Start: whole(kind).Start, UpstreamTime: -1, GRPCStatus: -1}
}

func changed(e *Entry, change func(*Entry)) *Entry {
	change(e)
	return e
}

// The formats are those of the page "Amazon ECS Service Connect access logs" of
// the developer guide; values that are absent, and the types of those of JSON,
// are Envoy's.
func TestAppend(t *testing.T) {
	query := func(c lb.AccessLog) lb.AccessLog { c.QueryParameters = true; return c }
	tries := func(e *Entry) { e.Tries = 3 }
	for _, c := range []struct {
		name string
		conf lb.AccessLog
		e    *Entry
		want string
	}{
		{"http", text, whole(lb.AppHTTP),
			`[2026-11-25T12:04:05.067Z] "GET /cart/7 HTTP/1.1" 200 3 4096 12 7 "10.0.0.9" "curl/8.1" "0f8fad5b-d9cb-469f-a165-70867728950e" "cart.shop" "10.0.1.2:8080"`},
		{"http2", text, whole(lb.AppHTTP2),
			`[2026-11-25T12:04:05.067Z] "GET /cart/7 HTTP/2" 200 3 4096 12 7 "10.0.0.9" "curl/8.1" "0f8fad5b-d9cb-469f-a165-70867728950e" "cart.shop" "10.0.1.2:8080" "0f8fad5b-d9cb-469f-a165-70867728950e"`},
		{"grpc", text, whole(lb.AppGRPC),
			`[2026-11-25T12:04:05.067Z] "POST /shop.Cart/Get HTTP/2" 200 OK 3 4096 12 7 "10.0.0.9" "curl/8.1" "0f8fad5b-d9cb-469f-a165-70867728950e" "cart.shop" "10.0.1.2:8080" "0f8fad5b-d9cb-469f-a165-70867728950e"`},
		{"http, absent", text, nothing(lb.AppHTTP),
			`[2026-11-25T12:04:05.067Z] "- - -" 0 0 0 0 - "-" "-" "-" "-" "-"`},
		{"http2, absent", text, nothing(lb.AppHTTP2),
			`[2026-11-25T12:04:05.067Z] "- - -" 0 0 0 0 - "-" "-" "-" "-" "-" "-"`},
		{"grpc, absent", text, nothing(lb.AppGRPC),
			`[2026-11-25T12:04:05.067Z] "- - -" 0 - 0 0 0 - "-" "-" "-" "-" "-" "-"`},
		{"query", query(text), whole(lb.AppHTTP),
			`[2026-11-25T12:04:05.067Z] "GET /cart/7?token=secret HTTP/1.1" 200 3 4096 12 7 "10.0.0.9" "curl/8.1" "0f8fad5b-d9cb-469f-a165-70867728950e" "cart.shop" "10.0.1.2:8080"`},
		{"tries", text, changed(whole(lb.AppHTTP), tries),
			`[2026-11-25T12:04:05.067Z] "GET /cart/7 HTTP/1.1" 200 3 4096 12 7 "10.0.0.9" "curl/8.1" "0f8fad5b-d9cb-469f-a165-70867728950e" "cart.shop" "10.0.1.2:8080" tries=3`},
		{"IPv6", text, changed(nothing(lb.AppHTTP), func(e *Entry) { e.UpstreamHost = netip.MustParseAddrPort("[fd00::7]:80") }),
			`[2026-11-25T12:04:05.067Z] "- - -" 0 0 0 0 - "-" "-" "-" "-" "[fd00::7]:80"`},
		{"status with a name", text, changed(nothing(lb.AppGRPC), func(e *Entry) { e.GRPCStatus = 16 }),
			`[2026-11-25T12:04:05.067Z] "- - -" 0 Unauthenticated 0 0 0 - "-" "-" "-" "-" "-" "-"`},
		{"status without", text, changed(nothing(lb.AppGRPC), func(e *Entry) { e.GRPCStatus = 17 }),
			`[2026-11-25T12:04:05.067Z] "- - -" 0 17 0 0 0 - "-" "-" "-" "-" "-" "-"`},

		{"JSON http", js, whole(lb.AppHTTP),
			`{"start_time":"2026-11-25T12:04:05.067Z","method":"GET","path":"/cart/7","protocol":"HTTP/1.1","response_code":200,"bytes_received":3,"bytes_sent":4096,"duration_ms":12,"upstream_service_time":"7","forwarded_for":"10.0.0.9","user_agent":"curl/8.1","request_id":"0f8fad5b-d9cb-469f-a165-70867728950e","authority":"cart.shop","upstream_host":"10.0.1.2:8080"}`},
		{"JSON http2", js, whole(lb.AppHTTP2),
			`{"start_time":"2026-11-25T12:04:05.067Z","method":"GET","path":"/cart/7","protocol":"HTTP/2","response_code":200,"bytes_received":3,"bytes_sent":4096,"duration":12,"upstream_service_time":"7","forwarded_for":"10.0.0.9","user_agent":"curl/8.1","request_id":"0f8fad5b-d9cb-469f-a165-70867728950e","authority":"cart.shop","upstream_host":"10.0.1.2:8080","stream_id":"0f8fad5b-d9cb-469f-a165-70867728950e"}`},
		{"JSON grpc", js, whole(lb.AppGRPC),
			`{"start_time":"2026-11-25T12:04:05.067Z","method":"POST","path":"/shop.Cart/Get","protocol":"HTTP/2","response_code":200,"grpc_status":"OK","bytes_received":3,"bytes_sent":4096,"duration":12,"upstream_service_time":"7","forwarded_for":"10.0.0.9","user_agent":"curl/8.1","request_id":"0f8fad5b-d9cb-469f-a165-70867728950e","authority":"cart.shop","upstream_host":"10.0.1.2:8080","stream_id":"0f8fad5b-d9cb-469f-a165-70867728950e"}`},
		{"JSON http, absent", js, nothing(lb.AppHTTP),
			`{"start_time":"2026-11-25T12:04:05.067Z","method":null,"path":null,"protocol":"-","response_code":0,"bytes_received":0,"bytes_sent":0,"duration_ms":0,"upstream_service_time":null,"forwarded_for":null,"user_agent":null,"request_id":null,"authority":null,"upstream_host":null}`},
		{"JSON grpc, absent", js, nothing(lb.AppGRPC),
			`{"start_time":"2026-11-25T12:04:05.067Z","method":null,"path":null,"protocol":"-","response_code":0,"grpc_status":null,"bytes_received":0,"bytes_sent":0,"duration":0,"upstream_service_time":null,"forwarded_for":null,"user_agent":null,"request_id":null,"authority":null,"upstream_host":null,"stream_id":null}`},
		{"JSON query and tries", query(js), changed(changed(nothing(lb.AppHTTP2), tries), func(e *Entry) { e.Path = []byte("/?a=?") }),
			`{"start_time":"2026-11-25T12:04:05.067Z","method":null,"path":"/?a=?","protocol":"-","response_code":0,"bytes_received":0,"bytes_sent":0,"duration":0,"upstream_service_time":null,"forwarded_for":null,"user_agent":null,"request_id":null,"authority":null,"upstream_host":null,"stream_id":null,"tries":3}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := string(Append([]byte("before "), c.conf, c.e)); got != "before "+c.want+"\n" {
				t.Errorf("\n got %q\nwant %q", got, "before "+c.want+"\n")
			}
		})
	}
}

func TestEscape(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"plain", "plain"},
		{"a\r\nb", `a\u000d\u000ab`},
		{`" 200 0 "`, `\" 200 0 \"`},
		{`\`, `\\`},
		{"\x1b[2J\x7f\x00", `\u001b[2J\u007f\u0000`},
		{"grün €", "grün €"},
		{"\xff\xc3(", "\ufffd\ufffd("},
		{"\u2028\u2029\u0085\u009b31m", "\ufffd\ufffd\ufffd\ufffd31m"},
		{"\u00a0\ufffd", "\u00a0\ufffd"},
	} {
		if got := string(escape(nil, []byte(c.in))); got != c.want {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
}

// FuzzAppend: whatever a client sends, an entry is one line of printable text,
// from which its values can be read again.
func FuzzAppend(f *testing.F) {
	f.Add(uint8(0), "GET", "/a?b", "host", "agent", "10.0.0.1", "id")
	f.Add(uint8(1), "GET\"", "/\r\n[2026-11-25T12:04:05.067Z] \"GET / HTTP/1.1\" 200", "\xff", "\u2028\x00", "\\", "")
	f.Add(uint8(5), "", "?", "\"}\n{\"", "\x7f\u0085", "é", "\\u000a")
	f.Fuzz(func(t *testing.T, shape uint8, method, path, authority, agent, forwarded, id string) {
		e := whole(lb.AppProtocol(shape % 3))
		e.Method, e.Path, e.Authority = []byte(method), []byte(path), []byte(authority)
		e.UserAgent, e.ForwardedFor, e.RequestID = []byte(agent), []byte(forwarded), []byte(id)
		e.Tries = int(shape >> 4)
		conf := lb.AccessLog{Format: lb.AccessLogFormat(shape / 3 % 2), QueryParameters: shape&8 != 0}
		line, ok := bytes.CutSuffix(Append(nil, conf, e), []byte("\n"))
		if !ok || !utf8.Valid(line) || bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' || 0x7f <= r && r < 0xa0 || r == 0x2028 || r == 0x2029 }) {
			t.Fatalf("not one line of text: %q", line)
		}
		if !conf.QueryParameters {
			path, _, _ = strings.Cut(path, "?")
		}
		if conf.Format == lb.LogJSON {
			checkJSON(t, line, map[string]string{
				"method": method, "path": path, "authority": authority, "user_agent": agent, "forwarded_for": forwarded, "request_id": id,
			})
			return
		}
		first := path
		for _, s := range []*string{&method, &first} {
			if *s == "" {
				*s = "-"
			}
		}
		got := quoted(t, line)
		want := []string{readable(method) + " " + readable(first) + " " + e.Protocol}
		for _, s := range []string{forwarded, agent, id, authority} {
			if s == "" {
				s = "-"
			}
			want = append(want, readable(s))
		}
		want = append(want, e.UpstreamHost.String())
		if e.Kind != lb.AppHTTP {
			want = append(want, want[3])
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Fatalf("%q\nreads %q\n want %q", line, got, want)
		}
	})
}

// quoted are the values between quotes of a TEXT line, unescaped.
func quoted(t *testing.T, line []byte) (out []string) {
	t.Helper()
	for {
		at := bytes.IndexByte(line, '"')
		if at < 0 {
			return out
		}
		end := at + 1
		for end < len(line) && line[end] != '"' {
			if line[end] == '\\' {
				end++
			}
			end++
		}
		var s string
		if end >= len(line) {
			t.Fatalf("a quote is open in %q", line)
		}
		if err := json.Unmarshal(line[at:end+1], &s); err != nil {
			t.Fatalf("%s: %s", line[at:end+1], err)
		}
		out = append(out, s)
		line = line[end+1:]
	}
}

func checkJSON(t *testing.T, line []byte, want map[string]string) {
	t.Helper()
	var got map[string]any
	d := json.NewDecoder(bytes.NewReader(line))
	if err := d.Decode(&got); err != nil || d.InputOffset() != int64(len(line)) {
		t.Fatalf("%s: %v", line, err)
	}
	for key, s := range want {
		if s == "" && got[key] != nil || s != "" && got[key] != readable(s) {
			t.Fatalf("%s: %q, want %q in %s", key, got[key], readable(s), line)
		}
	}
}

// readable is what a reader gets of text: all but bytes that are no text, and
// characters that move a terminal or end a line.
func readable(s string) string {
	var b strings.Builder
	for _, r := range s { // an invalid byte is U+FFFD
		if 0x80 <= r && r < 0xa0 || r == 0x2028 || r == 0x2029 {
			r = utf8.RuneError
		}
		b.WriteRune(r)
	}
	return b.String()
}

func BenchmarkAppend(b *testing.B) {
	for name, conf := range map[string]lb.AccessLog{"text": text, "json": js} {
		b.Run(name, func(b *testing.B) {
			e := whole(lb.AppHTTP)
			buf := make([]byte, 0, 1024)
			b.ReportAllocs()
			for b.Loop() {
				buf = Append(buf[:0], conf, e)
			}
		})
	}
}
