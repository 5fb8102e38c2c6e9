package h2

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

func list(fields ...string) (l []hpack.HeaderField) {
	for _, f := range fields {
		name, value, _ := strings.Cut(f, "=")
		l = append(l, hpack.HeaderField{Name: name, Value: value})
	}
	return l
}

func TestCheckRequest(t *testing.T) {
	head := []string{":method=GET", ":scheme=http", ":authority=a:80", ":path=/p?q"}
	with := func(more ...string) []hpack.HeaderField { return list(append(slices.Clone(head), more...)...) }
	without := func(i int) []hpack.HeaderField { return list(slices.Delete(slices.Clone(head), i, i+1)...) }
	for _, test := range []struct {
		name   string
		fields []hpack.HeaderField
		length int64
		ok     bool
	}{
		{"plain", with(), -1, true},
		{"with fields", with("a=b", "te=trailers", "cookie=a", "cookie=b", "content-length=12"), 12, true},
		{"no authority", without(2), -1, true},
		{"host alone", append(without(2), list("host=a")...), -1, true},
		{"host that agrees", with("host=a:80"), -1, true},
		{"OPTIONS *", list(":method=OPTIONS", ":scheme=http", ":path=*"), -1, true},
		{"CONNECT", list(":method=CONNECT", ":authority=a:80"), -1, true},
		{"empty value", with("a="), -1, true},
		{"bytes over 127", with("a=\xc3\xa4"), -1, true},
		{"no method", without(0), 0, false},
		{"no scheme", without(1), 0, false},
		{"no path", without(3), 0, false},
		{"nothing", nil, 0, false},
		{"method twice", with(":method=GET"), 0, false},
		{"status", with(":status=200"), 0, false},
		{"unknown pseudo field", with(":protocol=websocket"), 0, false},
		{"pseudo field behind", append(with("a=b"), list(":authority=b")...), 0, false},
		{"empty path", append(without(3), list(":path=")...), 0, false},
		{"path without slash", append(without(3), list(":path=p")...), 0, false},
		{"GET *", append(without(3), list(":path=*")...), 0, false},
		{"space in path", append(without(3), list(":path=/ HTTP/1.1")...), 0, false},
		{"newline in path", append(without(3), list(":path=/\r\nx: y")...), 0, false},
		{"space in method", append(without(0)[:0:0], list(":method=GET /", ":scheme=http", ":path=/")...), 0, false},
		{"empty method", list(":method=", ":scheme=http", ":path=/"), 0, false},
		{"user in authority", list(":method=GET", ":scheme=http", ":path=/", ":authority=u@a"), 0, false},
		{"CONNECT with a path", with(), 0, false},
		{"host that differs", with("host=b"), 0, false},
		{"two hosts", with("host=a:80", "host=a:80"), 0, false},
		{"uppercase", with("A=b"), 0, false},
		{"empty name", with("=b"), 0, false},
		{"space in name", with("a b=c"), 0, false},
		{"colon in name", with("a:b=c"), 0, false},
		{"NUL", with("a=b\x00"), 0, false},
		{"CR", with("a=b\rc"), 0, false},
		{"LF", with("a=b\nc"), 0, false},
		{"DEL", with("a=b\x7fc"), 0, false},
		{"leading space", with("a= b"), 0, false},
		{"trailing tab", with("a=b\t"), 0, false},
		{"connection", with("connection=close"), 0, false},
		{"keep-alive", with("keep-alive=1"), 0, false},
		{"proxy-connection", with("proxy-connection=close"), 0, false},
		{"transfer-encoding", with("transfer-encoding=chunked"), 0, false},
		{"upgrade", with("upgrade=h2c"), 0, false},
		{"te", with("te=gzip"), 0, false},
		{"lengths", with("content-length=1", "content-length=1"), 0, false},
		{"signed length", with("content-length=+1"), 0, false},
		{"list of lengths", with("content-length=1, 1"), 0, false},
		{"empty length", with("content-length="), 0, false},
		{"length over 63 bits", with("content-length=99999999999999999999"), 0, false},
	} {
		if test.name == "CONNECT with a path" {
			test.fields[0].Value = "CONNECT"
		}
		length, ok := checkRequest(test.fields)
		if ok != test.ok || ok && length != test.length {
			t.Errorf("%s: %d %v", test.name, length, ok)
		}
	}
}

// TestEncode: what is encoded is decoded as the same fields, whatever their
// kind, and never-indexed ones stay never-indexed.
func TestEncode(t *testing.T) {
	fields := []hpack.HeaderField{
		{Name: ":method", Value: "GET"},
		{Name: "x-request-id", Value: strings.Repeat("i", 36)},
		{Name: "authorization", Value: "secret", Sensitive: true},
		{Name: "etag", Value: "secret", Sensitive: true},
		{Name: "etag", Value: ""},
		{Name: "long", Value: strings.Repeat("l", 126)},
		{Name: "longer", Value: strings.Repeat("l", 127)},
		{Name: "longest", Value: strings.Repeat("l", 40_000)},
		{Name: "last", Value: "one"},
	}
	s := New(Config{}, &recorder{})
	var dec *hpack.Decoder
	var got []hpack.HeaderField
	dec = hpack.NewDecoder(4096, func(f hpack.HeaderField) { got = append(got, f) })
	for _, size := range []uint32{4096, 0, 100} { // as the endpoint's SETTINGS change
		s.enc.SetMaxDynamicTableSize(size)
		for range 2 {
			got = nil
			s.encode(fields)
			if _, err := dec.Write(s.pool.block.Bytes()); err != nil {
				t.Fatal(err)
			}
			if err := dec.Close(); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, fields) {
				t.Errorf("got %v", got)
			}
		}
	}
}

func TestOrigin(t *testing.T) {
	for _, test := range []struct {
		from   Origin
		fields []hpack.HeaderField
		want   []hpack.HeaderField
	}{
		{Origin{}, list("a=b"), list("a=b")},
		{Origin{For: "c", Proto: "http", RequestID: "i"}, list("a=b"),
			list("a=b", "x-forwarded-for=c", "x-forwarded-proto=http", "x-request-id=i")},
		{Origin{For: "c", Proto: "http", RequestID: "i"},
			list("x-forwarded-for=a", "x-forwarded-for=b", "x-forwarded-proto=https", "x-request-id=j"),
			list("x-forwarded-for=a", "x-forwarded-for=b, c", "x-forwarded-proto=https", "x-request-id=j")},
	} {
		if got := test.from.add(slices.Clone(test.fields)); !slices.Equal(got, test.want) {
			t.Errorf("%+v: got %v", test.from, got)
		}
	}
}
