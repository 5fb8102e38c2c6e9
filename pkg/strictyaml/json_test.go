package strictyaml

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseJSON(t *testing.T) {
	for in, want := range map[string]string{
		"{\"name\":\t\"a\",\r\n\t\"port\": 80}":              "a 80",
		`{"name": "\u0061\/\ud83d\ude00 # x: y", "port": 1}`: "a/\U0001F600 # x: y 1",
		`{"name": "*a", "port": 65535}`:                      "*a 65535",
		`{"name": "&a"}`:                                     "&a 0",
		`{"name": "true"}`:                                   "true 0",
		"":                                                   "j: is empty",
		" \n":                                                "j: is empty",
		"{name: a}":                                          "j: parse json: invalid character 'n' looking for beginning of object key string (at byte 2)",
		`{"name": "a"`:                                       "j: parse json: unexpected end of JSON input (at byte 12)",
		`{"name": "a"} {}`:                                   "j: parse json: invalid character '{' after top-level value (at byte 15)",
		`{"name" "a"}`:                                       "j: parse json: invalid character '\"' after object key (at byte 9)",
		"{\"name\": \"\xff\"}":                               "j: invalid UTF-8",
		`{"name": 1, "port": "80"}`:                          "j: name: 1 is not a string (put it in quotes)\nj: port: \"80\" is not a whole number in decimal",
		`{"name": null, "port": 1.0}`:                        "j: name: has no value\nj: port: 1.0 is not a whole number in decimal",
		`{"port": 1E2}`:                                      "j: port: 1E2 is not a whole number in decimal",
		`{"port": -1}`:                                       "j: port: -1 is not in 0-65535",
		`{"port": 123456789012345678901234567890}`:        "j: port: 123456789012345678901234567890 is not in 0-65535",
		`{"port": 1, "port": 2, "<<": {}}`:                "j: port: duplicate key\nj: <<: unknown key",
		`null`:                                            "j: has no value",
		`{"port": {"a": [1]}}`:                            "j: port: a mapping is not a whole number in decimal",
		strings.Repeat("[", 33) + strings.Repeat("]", 33): "j: nested deeper than 32 levels",
		strings.Repeat("[", 20000):                        "j: parse json: invalid character '[' exceeded max depth (at byte 10001)",
		`"` + strings.Repeat("a", MaxJSON) + `"`:          "j: larger than 65536 bytes",
	} {
		if got := readJSON(in); got != want {
			t.Errorf("%.80q: got\n%s\nwant\n%s", in, got, want)
		}
	}
}

func readJSON(in string) string {
	doc, err := ParseJSON("j", []byte(in))
	if err != nil {
		return err.Error()
	}
	m := doc.Root().Map("name", "port")
	out := fmt.Sprint(text(m, "name", ""), " ", m.Int("port", 0, 0, 65535))
	if err := doc.Err(); err != nil {
		return err.Error()
	}
	return out
}

// FuzzParseJSON: what the standard library calls JSON is accepted, within the
// bounds, and nothing else is.
func FuzzParseJSON(f *testing.F) {
	f.Add([]byte(`{"a": [1, 2.5e3, true, null, "\u00e9"]}`))
	f.Add([]byte(`[1 2]`))
	f.Add([]byte(`{"a" 1}`))
	f.Add([]byte("[[[[]]]] "))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := ParseJSON("f", data)
		valid := json.Valid(data) && utf8.Valid(data)
		if err == nil && !valid {
			t.Errorf("accepted %q", data)
		}
		if err != nil && valid && len(data) <= MaxJSON && !strings.HasSuffix(err.Error(), "levels") {
			t.Errorf("%q: %s", data, err)
		}
	})
}
