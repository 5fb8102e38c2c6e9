package strictyaml

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Value is one value of a document, or an absent one, whose getters return
// zero values and report nothing (Map.Require reports absent keys).
type Value struct {
	doc  *Document
	node *yaml.Node
}

// Root is the document's value.
func (d *Document) Root() Value { return Value{d, d.root} }

// Exists reports whether the value is in the file.
func (v Value) Exists() bool { return v.node != nil }

// Line is the line the value starts on, 0 for an absent value.
func (v Value) Line() int {
	if v.node == nil {
		return 0
	}
	return v.node.Line
}

// Origin is the place of the value. It searches the document: for a few
// values, not for each.
func (v Value) Origin() Origin {
	if v.node == nil {
		return Origin{}
	}
	paths := v.doc.paths(map[*yaml.Node]bool{v.node: true})
	return Origin{File: v.doc.name, Line: v.node.Line, Field: paths[v.node]}
}

// Errorf reports that the value is wrong; what it says follows the field's
// name and should begin with the value.
func (v Value) Errorf(format string, args ...any) {
	v.doc.report(finding{at: v.node, line: v.node.Line, detail: fmt.Sprintf(format, args...)})
}

// mismatch reports that the value is not what was wanted.
func (v Value) mismatch(want string) {
	v.mistake("is not " + want)
}

func (v Value) mistake(detail string) { v.Errorf("%s %s", describe(v.node), detail) }

// Text returns a string; ok is false if the value is absent or wrong.
func (v Value) Text() (s string, ok bool) {
	if v.node == nil || v.null() {
		return "", false
	}
	switch {
	case v.node.Kind == yaml.ScalarNode && v.node.Tag == "!!str":
		return v.node.Value, true
	case v.node.Kind == yaml.ScalarNode && slices.Contains([]string{"!!int", "!!float", "!!bool", "!!timestamp"}, v.node.Tag):
		v.mismatch("a string (put it in quotes)")
	default:
		v.mismatch("a string")
	}
	return "", false
}

// Checked returns a string with which check finds nothing wrong, or def if
// the value is absent or wrong. What check says follows the value in the
// error: "is longer than 64 characters".
func (v Value) Checked(def string, check func(string) string) string {
	s, ok := v.Text()
	if !ok {
		return def
	}
	if wrong := check(s); wrong != "" {
		v.mistake(wrong)
		return def
	}
	return s
}

// Int returns a whole number from lo to hi, written in decimal, or def if the
// value is absent or wrong.
func (v Value) Int(def, lo, hi int64) int64 {
	if v.node == nil || v.null() {
		return def
	}
	s := v.node.Value
	if v.node.Tag != "!!int" || !decimal(strings.TrimPrefix(s, "-")) {
		v.mismatch("a whole number in decimal")
		return def
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < lo || n > hi {
		v.mismatch(fmt.Sprintf("in %d-%d", lo, hi))
		return def
	}
	return n
}

// Seconds returns a number of seconds from lo to hi, whole or with decimals,
// or def if the value is absent or wrong.
func (v Value) Seconds(def, lo, hi time.Duration) time.Duration {
	if v.node == nil || v.null() {
		return def
	}
	if !v.number() {
		v.mismatch("a number of seconds")
		return def
	}
	d, err := time.ParseDuration(v.node.Value + "s")
	if err != nil || d < lo || d > hi {
		v.mismatch(fmt.Sprintf("in %s-%s seconds", seconds(lo), seconds(hi)))
		return def
	}
	return d
}

// Float returns a number from lo to hi, whole or with decimals, or def if the
// value is absent or wrong.
func (v Value) Float(def, lo, hi float64) float64 {
	if v.node == nil || v.null() {
		return def
	}
	if !v.number() {
		v.mismatch("a number")
		return def
	}
	f, err := strconv.ParseFloat(v.node.Value, 64)
	if err != nil || f < lo || f > hi {
		v.mismatch(fmt.Sprintf("in %g-%g", lo, hi))
		return def
	}
	return f
}

// number reports whether the value is digits, or digits with a point between:
// no exponent, no infinity.
func (v Value) number() bool {
	whole, frac, point := strings.Cut(v.node.Value, ".")
	return (v.node.Tag == "!!int" || v.node.Tag == "!!float") && decimal(strings.TrimPrefix(whole, "-")) && (!point || digits(frac))
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// decimal reports whether s is digits without a leading zero: YAML reads 010
// as eight.
func decimal(s string) bool { return digits(s) && (s[0] != '0' || s == "0") }

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// Bool returns true or false, or def if the value is absent or wrong.
func (v Value) Bool(def bool) bool {
	if v.node == nil || v.null() {
		return def
	}
	if v.node.Tag == "!!bool" {
		switch v.node.Value {
		case "true":
			return true
		case "false":
			return false
		}
	}
	v.mismatch("true or false")
	return def
}

// Enum returns one of the words, or def if the value is absent or wrong.
func (v Value) Enum(def string, words ...string) string {
	if v.node == nil || v.null() {
		return def
	}
	if v.node.Kind == yaml.ScalarNode && v.node.Tag == "!!str" && slices.Contains(words, v.node.Value) {
		return v.node.Value
	}
	v.mismatch("one of " + strings.Join(words, ", "))
	return def
}

// IsList reports whether the value is a list, so that an empty one can be
// told from one that is absent or wrong.
func (v Value) IsList() bool {
	return v.node != nil && v.node.Kind == yaml.SequenceNode && v.node.Tag == "!!seq"
}

// List returns the values of a list.
func (v Value) List() []Value {
	if v.node == nil || v.null() {
		return nil
	}
	if !v.IsList() {
		v.mismatch("a list")
		return nil
	}
	list := make([]Value, len(v.node.Content))
	for i, n := range v.node.Content {
		list[i] = Value{v.doc, n}
	}
	return list
}

// null reports a value left out behind its key. YAML makes no difference
// between that and null.
func (v Value) null() bool {
	if v.node.Kind != yaml.ScalarNode || v.node.Tag != "!!null" {
		return false
	}
	v.Errorf("has no value")
	return true
}

// describe shows a value in an error.
func describe(n *yaml.Node) string {
	tagged := n.Style&yaml.TaggedStyle != 0
	switch {
	case n.Kind != yaml.ScalarNode && tagged:
		return "a value tagged " + n.Tag
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	}
	const most = 80 // bytes of a value worth showing
	s := n.Value
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	if tagged {
		return n.Tag + " " + strconv.Quote(s)
	}
	if n.Tag == "!!str" {
		return strconv.Quote(s)
	}
	return s
}
