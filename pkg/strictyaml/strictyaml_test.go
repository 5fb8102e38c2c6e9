package strictyaml

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// decode reads one of everything.
func decode(name string, data []byte) error {
	doc, err := Parse(name, data)
	if err != nil {
		return err
	}
	m := doc.Root().Map("name", "count", "timeout", "on", "mode", "items", "inner")
	m.Require("name")
	text(m, "name", "")
	m.Int("count", 1, 1, 65535)
	m.Seconds("timeout", time.Second, 50*time.Millisecond, time.Hour)
	m.Bool("on", true)
	m.Enum("mode", "fast", "fast", "slow")
	for _, v := range m.List("items") {
		item := v.Map("port", "sub")
		item.Require("port")
		item.Int("port", 0, 1, 65535)
		item.Map("sub", "port").Int("port", 0, 1, 65535)
	}
	text(m.Map("inner", "deep"), "deep", "")
	return doc.Err()
}

func TestErrors(t *testing.T) {
	long := strings.Repeat("x", 100)
	for _, tt := range []struct{ name, in, want string }{
		{"good", "name: a\ncount: 2\ntimeout: 0.05\non: false\nmode: slow\nitems: [{port: 1}]\ninner: {deep: \"1\"}\n", ""},
		{"json", `{"name": "a", "items": [{"port": 80}]}`, ""},
		{"byte order mark", "\ufeffname: a\n", ""},
		{"unknown key", "name: a\ncont: 2\n", "f:2: cont: unknown key (did you mean count?)"},
		{"unknown key, other case", "name: a\nTimeOut: 2\n", "f:2: TimeOut: unknown key (did you mean timeout?)"},
		{"unknown key, nothing near", "name: a\nfrobnicate: 2\n", "f:2: frobnicate: unknown key"},
		{"unknown key, unprintable", "name: a\n\"a b\": 2\n", `f:2: "a b": unknown key`},
		{"duplicate key", "name: a\nname: b\n", "f:2: name: duplicate key"},
		{"duplicate key, quoted", "name: a\n\"name\": b\n", "f:2: name: duplicate key"},
		{"key not a string", "name: a\n1: b\n", "f:2: 1: key is not a string"},
		{"key a list", "name: a\n? [b]\n: c\n", "f:2: a list: key is not a string"},
		{"merge key", "name: a\n<<: {count: 2}\n", "f:2: <<: merge keys are not supported"},
		{"missing", "count: 1\n", "f:1: name: is missing"},
		{"missing in item", "name: a\nitems:\n  - port: 1\n  - sub: {port: 1}\n", "f:4: items[1].port: is missing"},
		{"no value", "name:\ncount: ~\nitems:\n", "f:1: name: has no value\nf:2: count: has no value\nf:3: items: has no value"},
		{"string a number", "name: 1.50\n", "f:1: name: 1.50 is not a string (put it in quotes)"},
		{"string a list", "name: [a]\n", "f:1: name: a list is not a string"},
		{"string a tag", "name: !secret a\n", `f:1: name: !secret "a" is not a string`},
		{"string a binary", "name: !!binary YQ==\n", `f:1: name: !!binary "YQ==" is not a string`},
		{"range", "name: a\nitems: [{port: 80}, {port: 70000}, {port: 0}, {port: -1}]\n", "f:2: items[1].port: 70000 is not in 1-65535\nf:2: items[2].port: 0 is not in 1-65535\nf:2: items[3].port: -1 is not in 1-65535"},
		{"huge number", "name: a\ncount: 99999999999999999999\n", "f:2: count: 99999999999999999999 is not a whole number in decimal"},
		{"octal", "name: a\ncount: 010\n", "f:2: count: 010 is not a whole number in decimal"},
		{"hex", "name: a\ncount: 0x10\n", "f:2: count: 0x10 is not a whole number in decimal"},
		{"quoted number", "name: a\ncount: \"10\"\n", `f:2: count: "10" is not a whole number in decimal`},
		{"fraction", "name: a\ncount: 1.5\n", "f:2: count: 1.5 is not a whole number in decimal"},
		{"seconds short", "name: a\ntimeout: 0.01\n", "f:2: timeout: 0.01 is not in 0.05-3600 seconds"},
		{"seconds text", "name: a\ntimeout: 5s\n", `f:2: timeout: "5s" is not a number of seconds`},
		{"seconds exponent", "name: a\ntimeout: 1e3\n", "f:2: timeout: 1e3 is not a number of seconds"},
		{"seconds infinite", "name: a\ntimeout: .inf\n", "f:2: timeout: .inf is not a number of seconds"},
		{"bool", "name: a\non: yes\n", `f:2: on: "yes" is not true or false`},
		{"enum", "name: a\nmode: Fast\n", `f:2: mode: "Fast" is not one of fast, slow`},
		{"long value", "name: a\nmode: " + long + "\n", `f:2: mode: "` + long[:80] + `..." is not one of fast, slow`},
		{"mapping a list", "name: a\ninner: [1]\n", "f:2: inner: a list is not a mapping"},
		{"mapping tagged", "name: a\ninner: !x {deep: a}\n", "f:2: inner: a value tagged !x is not a mapping"},
		{"root a list", "- a\n", "f:1: a list is not a mapping"},
		{"several", "count: 0\nbogus: 1\nitems: {}\n", "f:1: name: is missing\nf:1: count: 0 is not in 1-65535\nf:2: bogus: unknown key\nf:3: items: a mapping is not a list"},
		{"alias", "name: &n a\nitems: [{port: 1, sub: &s {port: 70000}}, {port: 1, sub: *s}]\n", "f:2: items[0].sub.port: 70000 is not in 1-65535"},
		{"alias in itself", "name: a\nitems: &i [{port: 1}, *i]\n", "f:2: anchor &i contains itself"},
		{"alias unknown", "name: a\ncount: *x\n", "f:2: unknown anchor x"},
		{"empty", "", "f: file is empty"},
		{"only comments", "# a\n\n", "f: file is empty"},
		{"only a marker", "---\n", "f: file is empty"},
		{"two documents", "name: a\n---\nname: b\n", "f:2: more than one YAML document"},
		{"bad second document", "name: a\n---\nname: [\n", "f:4: did not find expected node content"},
		{"invalid utf-8", "name: a\ncount: \xff\n", "f:2: invalid UTF-8"},
		{"utf-16", "\xff\xfen\x00", "f:1: invalid UTF-8"},
		{"nul", "name: a\ncount: \x00\n", "f:2: control character 0x00"},
		{"tab", "name: a\nitems:\n\t- port: 1\n", "f:3: found character that cannot start any token"},
		{"bad indent", "name: a\n  count: 1\n", "f:2: mapping values are not allowed in this context"},
		{"unclosed", "name: a\nitems: [{port: 1}\ncount: 1\n", "f:2: did not find expected ',' or ']'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if err := decode("f", []byte(tt.in)); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
			}
		})
	}
}

func TestValues(t *testing.T) {
	doc, err := Parse("f", []byte("text: a\nint: -7\nseconds: 1.5\nbool: true\nenum: b\nlist: [1, 2]\n"))
	if err != nil {
		t.Fatal(err)
	}
	m := doc.Root().Map("text", "int", "seconds", "bool", "enum", "list", "absent")
	absent := m.Map("absent", "x")
	got := fmt.Sprintln(text(m, "text", ""), m.Int("int", 0, -10, 10), m.Seconds("seconds", 0, 0, time.Minute), m.Bool("bool", false),
		m.Enum("enum", "a", "a", "b"), len(m.List("list")), m.List("list")[1].Int(0, 0, 9), m.Get("list").Line(),
		absent.Exists(), absent.Has("x"), text(absent, "x", "def"), absent.Int("x", 3, 0, 9), absent.List("x"), absent.Get("x").Line())
	if want := "a -7 1.5s true b 2 2 6 false false def 3 [] 0\n"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := m.List("list")[1].Origin().String(); got != "f:6: list[1]" {
		t.Errorf("origin %q", got)
	}
	if err := doc.Err(); err != nil {
		t.Error(err)
	}
}

// TestAliasesExpandTooFar gives a parser the billion laughs.
func TestAliasesExpandTooFar(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 100; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10))
	}
	_, err := Parse("f", []byte(b.String()))
	if err == nil || err.Error() != "f: aliases expand too far" {
		t.Errorf("got %v", err)
	}
}

func TestErrorsAreBounded(t *testing.T) {
	err := decode("f", []byte("name: a\nitems: ["+strings.Repeat("{port: 0}, ", 3*maxErrors)+"]\n"))
	errs, ok := err.(Errors)
	if !ok || len(errs) != maxErrors+1 || !strings.Contains(errs[maxErrors].Error(), "too many errors") {
		t.Errorf("got %d errors, last %v", len(errs), errs[len(errs)-1])
	}
}

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, MaxFileSize+1); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "none: open: no such file or directory",
		dir:                        ": not a regular file",
		big:                        "big: larger than 67108864 bytes",
	} {
		if _, err := ReadFile(path); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("name: a\nitems: [{port: 1, sub: &s {port: 2}}, *s]\n"))
	f.Add([]byte("items: &i [*i]\n"))
	f.Add([]byte("? [a]\n: !!str b\n---\n"))
	f.Add([]byte("name: |\n  a\n# c\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		err := decode("f", data)
		if err == nil {
			return
		}
		for _, line := range strings.Split(err.Error(), "\n") {
			if !strings.HasPrefix(line, "f:") {
				t.Errorf("error without file: %q", line)
			}
		}
	})
}

// text returns the string at key, or def if it is absent or wrong.
func text(m Map, key, def string) string {
	return m.Checked(key, def, func(string) string { return "" })
}

func TestFloat(t *testing.T) {
	for text, want := range map[string]string{
		"0.2": "0.2", "3": "3", "-1": "-1", "": "7 has no value", "1e3": "7 1e3 is not a number", ".5": "7 .5 is not a number", "0x1": "7 0x1 is not a number",
		".inf": "7 .inf is not a number", "010": "7 010 is not a number", "'2'": `7 "2" is not a number`, "101": "7 101 is not in -1-100",
	} {
		doc, err := Parse("f", []byte("a: 1\nx: "+text+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(doc.Root().Map("a", "x").Get("x").Float(7, -1, 100))
		if err := doc.Err(); err != nil {
			got += strings.TrimPrefix(err.Error(), "f:2: x:")
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
