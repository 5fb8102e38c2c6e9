package strictyaml

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const (
	// MaxJSON bounds a text that ParseJSON takes, in bytes: an ECS task
	// definition, labels included, has no more.
	MaxJSON = 64 << 10
	// maxDepth bounds how deep a JSON text nests; what is decoded nests five
	// levels, and objects that are passed over a few more.
	maxDepth = 32
)

// ParseJSON parses a JSON text of at most MaxJSON bytes as strictly as Parse
// does a file. Its values have no lines. JSON is nearly YAML, but not quite
// (tabs, escapes of surrogate pairs, long keys), hence a parser of its own.
func ParseJSON(name string, text []byte) (*Document, error) {
	d := &Document{name: name}
	if err := d.parseJSON(text); err != nil {
		return nil, Errors{d.lineError(0, err.Error())}
	}
	return d, nil
}

func (d *Document) parseJSON(text []byte) error {
	switch {
	case len(text) > MaxJSON:
		return fmt.Errorf("larger than %d bytes", MaxJSON)
	case len(bytes.TrimSpace(text)) == 0:
		return errors.New("is empty")
	case !utf8.Valid(text):
		return errors.New("invalid UTF-8")
	}
	// The decoder of tokens overlooks some errors that this does not.
	var valid json.RawMessage
	var syntax *json.SyntaxError
	switch err := json.Unmarshal(text, &valid); {
	case errors.As(err, &syntax):
		return fmt.Errorf("parse json: %s (at byte %d)", syntax, syntax.Offset)
	case err != nil:
		return fmt.Errorf("parse json: %s", err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	token, err := dec.Token()
	if err != nil {
		return fmt.Errorf("parse json: %s", err)
	}
	d.root, err = jsonNode(dec, token, maxDepth)
	return err
}

// jsonNode makes a node of the value that begins with token.
func jsonNode(dec *json.Decoder, token json.Token, depth int) (*yaml.Node, error) {
	switch t := token.(type) {
	case json.Delim:
		if depth == 0 {
			return nil, fmt.Errorf("nested deeper than %d levels", maxDepth)
		}
		return jsonNodes(dec, t, depth-1)
	case string:
		return scalar("!!str", t), nil
	case json.Number:
		if strings.ContainsAny(t.String(), ".eE") {
			return scalar("!!float", t.String()), nil
		}
		return scalar("!!int", t.String()), nil
	case bool:
		return scalar("!!bool", fmt.Sprint(t)), nil
	}
	return scalar("!!null", "null"), nil
}

// jsonNodes makes the node of a list or mapping. To dec a key is a value like
// any other.
func jsonNodes(dec *json.Decoder, opened json.Delim, depth int) (*yaml.Node, error) {
	n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	if opened == '{' {
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
	}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("parse json: %s", err)
		}
		inner, err := jsonNode(dec, token, depth)
		if err != nil {
			return nil, err
		}
		n.Content = append(n.Content, inner)
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("parse json: %s", err)
	}
	return n, nil
}

func scalar(tag, value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
}
