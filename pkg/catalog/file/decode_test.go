package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"connectd/pkg/catalog"
	"connectd/pkg/lb"
	"connectd/pkg/settings"
)

var rewrite = flag.Bool("rewrite", false, "write what is got into the golden files; then read the diff")

func testDecoder() Decoder {
	return Decoder{
		Forbidden: []netip.Prefix{netip.MustParsePrefix("127.254.0.0/16"), netip.MustParsePrefix("fd63:6f6e:6e65:6374::/64")},
		CheckCA: func(path string) error {
			if strings.HasSuffix(path, "missing.pem") {
				return errors.New("open: no such file or directory")
			}
			return nil
		},
	}
}

// TestGolden decodes each catalog file in testdata/*.txtar; the file after it
// with the ending .want is the error or the services in JSON.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, path := range files {
		ar, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(ar.Files); i += 2 {
			in, want := ar.Files[i], &ar.Files[i+1]
			t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar")+"/"+in.Name, func(t *testing.T) {
				if want.Name != in.Name+".want" {
					t.Fatalf("%s is followed by %s", in.Name, want.Name)
				}
				got := outcome(testDecoder().Decode(in.Name, in.Data))
				if !bytes.Equal(got, want.Data) && !*rewrite {
					t.Errorf("got:\n%s\nwant:\n%s", got, want.Data)
				}
				want.Data = got
			})
		}
		if *rewrite {
			if err := os.WriteFile(path, txtar.Format(ar), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func outcome(entries []catalog.Entry, err error) []byte {
	if err != nil {
		return []byte(err.Error() + "\n")
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", " ")
	for _, e := range entries {
		if err := enc.Encode(e.Service); err != nil {
			return []byte(err.Error())
		}
	}
	return b.Bytes()
}

func TestExample(t *testing.T) {
	data, err := os.ReadFile("../../../docs/examples/catalog.yaml")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := testDecoder().Decode("catalog.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 3 || entries[1].Service.Endpoints[1].Weight != 3 || entries[2].Service.Protocol != lb.UDP || entries[1].Line != 6 {
		t.Errorf("got %s", outcome(entries, nil))
	}
}

func TestHTTPExample(t *testing.T) {
	data, err := os.ReadFile("../../../docs/examples/http.yaml")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := testDecoder().Decode("http.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, fmt.Sprint(e.Service.Name.DiscoveryName, " ", e.Service.HTTP.Protocol, " ", e.Service.HTTP.Mode()))
	}
	want := []string{"orders http proxy", "events http proxy", "ledger grpc proxy", "search http direct"}
	if !slices.Equal(got, want) || entries[0].Service.HTTP.AccessLog.Format != lb.LogJSON {
		t.Errorf("got %s", outcome(entries, nil))
	}
}

func FuzzDecode(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txtar")
	for _, path := range files {
		ar, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for i := 0; i < len(ar.Files); i += 2 {
			f.Add(ar.Files[i].Data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := testDecoder().Decode("f.yaml", data)
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "f.yaml:") {
					t.Errorf("error without file: %q", line)
				}
			}
			return
		}
		for _, e := range entries {
			checkService(t, e.Service)
		}
		again, err := testDecoder().Decode("f.yaml", data)
		if err != nil || len(again) != len(entries) {
			t.Fatalf("decoded again: %v", err)
		}
		for i := range entries {
			if !catalog.Equal(entries[i].Service, again[i].Service) {
				t.Errorf("decoded again, %s differs", entries[i].Service.Name)
			}
		}
	})
}

// checkService holds a decoded service to what lb.Service promises; package
// settings does so for the optional fields.
func checkService(t *testing.T, s *lb.Service) {
	t.Helper()
	if settings.CheckNamespace(s.Name.Namespace) != "" || settings.CheckDiscoveryName(s.Name.DiscoveryName) != "" {
		t.Errorf("name %q", s.Name)
	}
	for _, a := range s.ClientAliases {
		if a.Port == 0 || settings.CheckLabels(a.DNSName) != "" || len(a.DNSName) > 253 {
			t.Errorf("alias %v", a)
		}
	}
	for i, e := range s.Endpoints {
		addr := e.Address.Addr()
		if !addr.IsValid() || addr.Is4In6() || addr.Zone() != "" || e.Address.Port() == 0 || e.Weight == 0 {
			t.Errorf("endpoint %v", e)
		}
		if i > 0 && s.Endpoints[i-1].Address.Compare(e.Address) >= 0 {
			t.Errorf("endpoints are not sorted or not distinct: %v", s.Endpoints)
		}
	}
}

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.1":                  "10.0.0.1",
		"::ffff:10.0.0.1":           "10.0.0.1",
		"2001:DB8::1":               "2001:db8::1",
		"127.0.0.1":                 "127.0.0.1",
		"::1":                       "::1",
		"fd63:6f6e:6e65:6375::1":    "fd63:6f6e:6e65:6375::1",
		"":                          "is not an IP address",
		"010.0.0.1":                 "is not an IP address",
		"10.0.0":                    "is not an IP address",
		"10.0.0.1:80":               "is not an IP address",
		"host.example":              "is not an IP address",
		"fe80::1%eth0":              "has a zone",
		"0.0.0.0":                   "is the unspecified address",
		"::":                        "is the unspecified address",
		"::ffff:0.0.0.0":            "is the unspecified address",
		"224.0.0.1":                 "is a multicast address",
		"ff02::1":                   "is a multicast address",
		"255.255.255.255":           "is the broadcast address",
		"127.254.0.7":               "is inside the VIP range 127.254.0.0/16",
		"::ffff:127.254.0.7":        "is inside the VIP range 127.254.0.0/16",
		"fd63:6f6e:6e65:6374::abcd": "is inside the VIP range fd63:6f6e:6e65:6374::/64",
	} {
		got, err := ParseAddress(in, testDecoder().Forbidden)
		if err != nil && err.Error() != want || err == nil && got.String() != want {
			t.Errorf("%q: got %v, %v, want %s", in, got, err, want)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "127.254.0.7", "0.0.0.0", "[::1]", "1.2.3.4.5", "::ffff:255.255.255.255"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		addr, err := ParseAddress(s, testDecoder().Forbidden)
		if err != nil {
			return
		}
		if addr.Is4In6() || addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast() {
			t.Errorf("%q gives %s", s, addr)
		}
		if again, err := ParseAddress(addr.String(), testDecoder().Forbidden); err != nil || again != addr {
			t.Errorf("%q gives %s, which gives %s, %v", s, addr, again, err)
		}
	})
}
