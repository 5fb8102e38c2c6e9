package strictyaml

import (
	"slices"
	"time"

	"go.yaml.in/yaml/v3"
)

// Map is a mapping with known keys. The zero Map has no keys: every getter
// returns its default.
type Map struct {
	doc  *Document
	node *yaml.Node
}

// Map returns a mapping and reports its unknown and duplicate keys. There may
// be at most 64 known ones.
func (v Value) Map(known ...string) Map {
	if v.node == nil || v.null() {
		return Map{}
	}
	if v.node.Kind != yaml.MappingNode || v.node.Tag != "!!map" {
		v.mismatch("a mapping")
		return Map{}
	}
	m := Map{v.doc, v.node}
	var seen uint64 // bit i is known[i]
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key := v.node.Content[i]
		if key.Kind != yaml.ScalarNode || key.Tag != "!!str" {
			if key.Tag == "!!merge" {
				m.keyError(key, "merge keys are not supported")
			} else {
				m.keyError(key, "key is not a string")
			}
			continue
		}
		switch k := slices.Index(known, key.Value); {
		case k < 0:
			m.keyError(key, "unknown key"+suggestion(key.Value, known))
		case seen&(1<<k) != 0:
			m.keyError(key, "duplicate key")
		default:
			seen |= 1 << k
		}
	}
	return m
}

func (m Map) keyError(key *yaml.Node, detail string) {
	m.doc.report(finding{at: m.node, key: describeKey(key), line: key.Line, detail: detail})
}

func describeKey(key *yaml.Node) string {
	if key.Kind == yaml.ScalarNode && plainKey(key.Value) {
		return key.Value
	}
	return describe(key)
}

func plainKey(s string) bool {
	for _, r := range s {
		if r <= ' ' || r > '~' || r == '.' || r == '[' {
			return false
		}
	}
	return s != "" && len(s) <= 80
}

// Get returns the value of a key.
func (m Map) Get(key string) Value {
	if m.node == nil {
		return Value{}
	}
	for i := 0; i+1 < len(m.node.Content); i += 2 {
		if k := m.node.Content[i]; k.Value == key && k.Kind == yaml.ScalarNode && k.Tag == "!!str" {
			return Value{m.doc, m.node.Content[i+1]}
		}
	}
	return Value{}
}

// Exists reports whether the mapping is in the file.
func (m Map) Exists() bool { return m.node != nil }

// Has reports whether the key is in the mapping.
func (m Map) Has(key string) bool { return m.Get(key).Exists() }

// Require reports each key that is absent.
func (m Map) Require(keys ...string) {
	if m.node == nil {
		return
	}
	for _, key := range keys {
		if !m.Has(key) {
			m.doc.report(finding{at: m.node, key: key, line: m.node.Line, detail: "is missing"})
		}
	}
}

// Checked is Value.Checked of the key.
func (m Map) Checked(key, def string, check func(string) string) string {
	return m.Get(key).Checked(def, check)
}

// Int is Value.Int of the key.
func (m Map) Int(key string, def, lo, hi int64) int64 { return m.Get(key).Int(def, lo, hi) }

// Seconds is Value.Seconds of the key.
func (m Map) Seconds(key string, def, lo, hi time.Duration) time.Duration {
	return m.Get(key).Seconds(def, lo, hi)
}

// Bool is Value.Bool of the key.
func (m Map) Bool(key string, def bool) bool { return m.Get(key).Bool(def) }

// Enum is Value.Enum of the key.
func (m Map) Enum(key, def string, words ...string) string { return m.Get(key).Enum(def, words...) }

// List is Value.List of the key.
func (m Map) List(key string) []Value { return m.Get(key).List() }

// Map is Value.Map of the key.
func (m Map) Map(key string, known ...string) Map { return m.Get(key).Map(known...) }
