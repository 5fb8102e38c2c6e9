package dns

import (
	"bytes"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"
)

// testView is how task web sees testPlan.
func testView(ipv6 bool) view {
	st := (&state{table: newTable()}).next(testPlan())
	return view{table: st.table, scope: st.scopes[7], ipv6: ipv6}
}

func TestAnswers(t *testing.T) {
	const forward = "forwarded"
	for _, test := range []struct {
		name  string
		qtype uint16
		ipv6  bool
		want  string // addresses, "nodata" or "forwarded"
	}{
		{"orders", mdns.TypeA, true, "127.254.0.1"},
		{"ORDers", mdns.TypeA, true, "127.254.0.1"},
		{"orders", mdns.TypeAAAA, true, "nodata"},
		{"orders", mdns.TypeHTTPS, true, "nodata"},
		{"orders", mdns.TypeTXT, true, "nodata"},
		{"orders", mdns.TypeANY, true, "127.254.0.1"},
		{"orders.prod", mdns.TypeA, true, "127.254.0.2"},
		{"cache", mdns.TypeA, true, "127.254.1.1"},
		{"both", mdns.TypeA, true, "127.254.0.3"},
		{"both", mdns.TypeAAAA, true, "fd00::3"},
		{"both", mdns.TypeANY, true, "127.254.0.3 fd00::3"},
		{"both", mdns.TypeAAAA, false, "nodata"},
		{"both", mdns.TypeANY, false, "127.254.0.3"},
		{"six", mdns.TypeA, true, "nodata"},
		{"six", mdns.TypeAAAA, true, "fd00::6"},
		// Outside the scope, unknown, and names that only look alike.
		{"vault", mdns.TypeA, true, forward},
		{"nothing", mdns.TypeA, true, forward},
		{"order", mdns.TypeA, true, forward},
		{"orders.shared", mdns.TypeA, true, forward},
		{`orders\.prod`, mdns.TypeA, true, forward},
		{".", mdns.TypeNS, true, forward},
		{"orders.orders", mdns.TypeA, true, forward},
		// Search domains.
		{"orders.corp.example", mdns.TypeA, true, "127.254.0.1"},
		{"orders.CORP.example", mdns.TypeA, true, "127.254.0.1"},
		{"orders.example", mdns.TypeA, true, "127.254.0.1"},
		{"orders.prod.corp.example", mdns.TypeA, true, "127.254.0.2"},
		{"orders.corp.example", mdns.TypeAAAA, true, "nodata"},
		{"vault.corp.example", mdns.TypeA, true, forward},
		{"orders.other.example", mdns.TypeA, true, forward},
		{"orders.corn.example", mdns.TypeA, true, forward},
		{"ordersxcorp.example", mdns.TypeA, true, forward},
		{"corp.example", mdns.TypeA, true, forward},
		{"ordersexample", mdns.TypeA, true, forward},
		// The full name is itself a service's name.
		{"full.corp.example", mdns.TypeA, true, "127.254.1.2"},
		{"full", mdns.TypeA, true, "127.254.1.3"},
	} {
		q := query(test.name, test.qtype)
		got, o, _ := handle(testView(test.ipv6), pack(t, q), nil)
		text := forward
		if o != forwarded {
			text = describe(t, q, got)
		}
		if text != test.want {
			t.Errorf("%s %s (IPv6 %v): %s, want %s", test.name, mdns.TypeToString[test.qtype], test.ipv6, text, test.want)
		}
	}
}

// describe checks all that holds for every answer and returns the addresses.
func describe(t *testing.T, q *mdns.Msg, raw []byte) string {
	t.Helper()
	m := unpack(t, raw)
	if m.Id != q.Id || !m.Response || m.Rcode != mdns.RcodeSuccess || !m.Authoritative || !m.RecursionAvailable ||
		m.RecursionDesired != q.RecursionDesired || m.CheckingDisabled != q.CheckingDisabled || m.Truncated || m.AuthenticatedData {
		t.Errorf("header of the answer: %v", m)
	}
	if len(m.Question) != 1 || m.Question[0] != q.Question[0] {
		t.Errorf("question echoed as %v, asked was %v", m.Question, q.Question)
	}
	if len(raw) > mdns.MinMsgSize {
		t.Errorf("answer has %d bytes", len(raw))
	}
	var text []string
	for _, rr := range m.Answer {
		if h := rr.Header(); h.Name != q.Question[0].Name || h.Ttl != answerTTL {
			t.Errorf("record %v", rr)
		}
		switch rr := rr.(type) {
		case *mdns.A:
			text = append(text, rr.A.String())
		case *mdns.AAAA:
			text = append(text, rr.AAAA.String())
		}
	}
	if len(m.Answer) > 0 {
		if len(m.Ns) != 0 {
			t.Errorf("authority beside an answer: %v", m.Ns)
		}
		return strings.Join(text, " ")
	}
	if len(m.Ns) != 1 {
		t.Fatalf("authority of NODATA: %v", m.Ns)
	}
	soa, ok := m.Ns[0].(*mdns.SOA)
	if !ok || soa.Minttl != answerTTL || soa.Hdr.Ttl != answerTTL || soa.Hdr.Name != q.Question[0].Name {
		t.Errorf("authority of NODATA: %v", m.Ns[0])
	}
	return "nodata"
}

func TestFlagsAreCopied(t *testing.T) {
	for _, rd := range []bool{true, false} {
		for _, cd := range []bool{true, false} {
			q := query("orders", mdns.TypeA)
			q.RecursionDesired, q.CheckingDisabled, q.AuthenticatedData = rd, cd, true
			raw, _, _ := handle(testView(true), pack(t, q), nil)
			describe(t, q, raw)
		}
	}
}

func TestEDNS(t *testing.T) {
	q := query("orders", mdns.TypeA)
	raw, _, _ := handle(testView(true), pack(t, q), nil)
	if unpack(t, raw).IsEdns0() != nil {
		t.Error("OPT in the answer to a query without")
	}
	for _, do := range []bool{true, false} {
		q := query("orders", mdns.TypeAAAA)
		q.SetEdns0(4096, do)
		opt := q.IsEdns0()
		opt.Option = append(opt.Option, &mdns.EDNS0_COOKIE{Code: mdns.EDNS0COOKIE, Cookie: "0102030405060708"})
		raw, o, _ := handle(testView(true), pack(t, q), nil)
		got := unpack(t, raw).IsEdns0()
		if o != nodata || got == nil || got.UDPSize() != ednsSize || got.Do() != do || got.Version() != 0 || len(got.Option) != 0 {
			t.Errorf("OPT of the answer: %v (DO %v)", got, do)
		}
	}
	q.SetEdns0(512, false)
	q.IsEdns0().SetVersion(1)
	raw, o, _ := handle(testView(true), pack(t, q), nil)
	m := unpack(t, raw)
	if o != badVersion || m.Rcode != mdns.RcodeBadVers || m.IsEdns0() == nil || m.IsEdns0().Version() != 0 || len(m.Answer) != 0 {
		t.Errorf("answer to EDNS version 1: %v", m)
	}
	// Of others' names the version is the resolver's business.
	q.Question[0].Name = "example.org."
	if _, o, _ := handle(testView(true), pack(t, q), nil); o != forwarded {
		t.Errorf("EDNS version 1 for a foreign name: outcome %d", o)
	}
}

func TestMessages(t *testing.T) {
	good := pack(t, query("orders", mdns.TypeA))
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	set := func(i int, v ...byte) []byte {
		return edit(func(b []byte) []byte { copy(b[i:], v); return b })
	}
	opt := []byte{0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0}
	twoNames := edit(func(b []byte) []byte {
		b[5] = 2
		return append(b, 0xc0, headerSize, 0, 1, 0, 1)
	})
	long := append(bytes.Clone(good[:headerSize]), bytes.Repeat(append([]byte{63}, make([]byte, 63)...), 4)...)
	for name, test := range map[string]struct {
		msg  []byte
		want outcome
	}{
		"good":                         {good, answered},
		"empty":                        {nil, dropped},
		"no header":                    {good[:11], dropped},
		"response":                     {set(2, 0x80), dropped},
		"header alone":                 {good[:12], formErr},
		"name cut":                     {good[:15], formErr},
		"type cut":                     {good[:len(good)-3], formErr},
		"compressed name":              {set(12, 0xc0, 0), formErr},
		"label of 64 bytes":            {set(12, 64), formErr},
		"label past the end":           {set(12, 63), formErr},
		"name of 257 bytes":            {append(long, 0, 0, 1, 0, 1), formErr},
		"class CH":                     {set(len(good)-1, 3), forwarded},
		"class ANY":                    {set(len(good)-1, 255), forwarded},
		"no question":                  {set(5, 0), forwarded},
		"two questions, one missing":   {set(5, 2), formErr},
		"two questions":                {twoNames, forwarded},
		"opcode NOTIFY":                {set(2, 4<<3), forwarded},
		"opcode UPDATE, unreadable":    {set(2, 5<<3)[:14], forwarded},
		"one additional, missing":      {set(11, 1), formErr},
		"OPT":                          {append(set(11, 1), opt...), answered},
		"OPT cut":                      {append(set(11, 1), opt[:7]...), formErr},
		"two OPT":                      {append(append(set(11, 2), opt...), opt...), formErr},
		"OPT with options past end":    {append(set(11, 1), 0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 9), formErr},
		"OPT not at the root":          {append(set(11, 1), 0xc0, 12, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0), formErr},
		"bytes after the last section": {append(bytes.Clone(good), 1, 2, 3), answered},
	} {
		raw, o, _ := handle(testView(true), test.msg, nil)
		if o != test.want {
			t.Errorf("%s: outcome %d, want %d", name, o, test.want)
		}
		if (raw == nil) != (o == forwarded || o == dropped) {
			t.Errorf("%s: answer %x for outcome %d", name, raw, o)
		}
		if o == formErr {
			if m := unpack(t, raw); m.Rcode != mdns.RcodeFormatError || !m.Response || !bytes.Equal(raw[:2], good[:2]) || len(raw) != headerSize {
				t.Errorf("%s: answer %v", name, m)
			}
		}
	}
}

func TestServerFailure(t *testing.T) {
	q := query("example.org", mdns.TypeA)
	m := unpack(t, serverFailure(pack(t, q), nil))
	if m.Rcode != mdns.RcodeServerFailure || m.Id != q.Id || !m.Response || len(m.Question) != 1 || m.Question[0] != q.Question[0] {
		t.Errorf("answer %v", m)
	}
	m = unpack(t, serverFailure(pack(t, q)[:headerSize], nil))
	if m.Rcode != mdns.RcodeServerFailure || len(m.Question) != 0 {
		t.Errorf("answer without a question: %v", m)
	}
}

// The answer path must not allocate: it runs for every query of every task.
func TestAnswerAllocates(t *testing.T) {
	v, msg, out := testView(true), pack(t, query("orders.corp.example", mdns.TypeA)), make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { handle(v, msg, out) }); n != 0 {
		t.Errorf("%v allocations per answer", n)
	}
}

func FuzzHandler(f *testing.F) {
	q := query("orders", mdns.TypeA)
	f.Add(pack(f, q))
	q.SetEdns0(4096, true)
	f.Add(pack(f, q))
	f.Add(pack(f, query("both.corp.example", mdns.TypeANY)))
	f.Add(pack(f, query("example.org", mdns.TypeAAAA)))
	f.Add(pack(f, query("ORDERS", mdns.TypeHTTPS))[:20])
	f.Add([]byte{0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1})
	f.Add([]byte{0, 1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0})
	v := testView(true)
	f.Fuzz(func(t *testing.T, msg []byte) {
		before := bytes.Clone(msg)
		answer, o, m := handle(v, msg, make([]byte, 0, 64))
		if !bytes.Equal(before, msg) {
			t.Fatal("the query was changed")
		}
		if (answer == nil) != (o == forwarded || o == dropped) {
			t.Fatalf("outcome %d with answer %x", o, answer)
		}
		if answer != nil {
			m := unpack(t, answer)
			if !m.Response || !bytes.Equal(answer[:2], msg[:2]) || len(answer) > mdns.MinMsgSize {
				t.Fatalf("answer %x", answer)
			}
		}
		if o == forwarded {
			unpack(t, serverFailure(msg, nil))
		}
		asked := new(mdns.Msg)
		if asked.Unpack(msg) != nil || asked.Response || asked.Opcode != mdns.OpcodeQuery || len(asked.Question) != 1 {
			return
		}
		// What another parser reads in full must lead to the same name.
		if m.name != nil {
			labels := mdns.CanonicalName(asked.Question[0].Name)
			if !strings.HasPrefix(labels, m.name.DNSName+".") {
				t.Fatalf("%q answered as %q", labels, m.name.DNSName)
			}
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	v, msg, out := testView(true), pack(b, query("orders", mdns.TypeA)), make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		handle(v, msg, out)
	}
}
