package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const (
	// MaxFileSize bounds a file, in bytes. Parsing takes about 30 times a
	// file's size in memory while it lasts.
	MaxFileSize = 64 << 20
	// maxAliased bounds how many values a document's aliases may add to
	// those written out, so that a few lines cannot expand to billions.
	maxAliased = 1_000_000
	// maxErrors bounds how many errors are kept of one document.
	maxErrors = 1000
)

// Document is one parsed file and what was found wrong with it so far. It is
// not safe for concurrent use.
type Document struct {
	name  string
	root  *yaml.Node
	found []finding
}

// ReadFile reads the regular file at path, at most MaxFileSize bytes. Its
// errors are *Error.
func ReadFile(path string) ([]byte, error) {
	f, err := Open(path, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return Read(path, f)
}

// Open opens path for Read and does not wait for the writer of a pipe; name
// is used in errors, which wrap the cause.
func Open(name, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fileError(name, err)
	}
	return f, nil
}

// Read reads what Open opened.
func Read(name string, f *os.File) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, fileError(name, err)
	}
	if !st.Mode().IsRegular() {
		return nil, Origin{File: name}.Errorf("not a regular file")
	}
	data := bytes.NewBuffer(make([]byte, 0, min(st.Size(), MaxFileSize)+bytes.MinRead))
	n, err := data.ReadFrom(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return nil, fileError(name, err)
	}
	if n > MaxFileSize {
		return nil, Origin{File: name}.Errorf("larger than %d bytes", MaxFileSize)
	}
	return data.Bytes(), nil
}

func fileError(name string, err error) error {
	e := &Error{Origin: Origin{File: name}, Detail: err.Error(), cause: err}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		e.Detail = pe.Op + ": " + pe.Err.Error()
	}
	return e
}

// Parse parses a file's content; name is the file's name in errors. What is
// wrong with the YAML itself, an empty file, a second document, or aliases
// that contain themselves or expand too far, is returned as Errors.
func Parse(name string, data []byte) (*Document, error) {
	d := &Document{name: name}
	if err := d.parse(data); err != nil {
		return nil, Errors{err}
	}
	return d, nil
}

func (d *Document) parse(data []byte) (err *Error) {
	if len(data) > MaxFileSize {
		return Origin{File: d.name}.Errorf("larger than %d bytes", MaxFileSize)
	}
	if offset, detail := unreadable(data); offset >= 0 {
		return d.lineError(lineOf(data, offset), detail)
	}
	// The parser panics on its own defects; a bad file must not end the
	// daemon.
	defer func() {
		if r := recover(); r != nil {
			err = d.lineError(0, fmt.Sprintf("parse yaml: %v", r))
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case err == io.EOF:
		return d.lineError(0, "file is empty")
	case err != nil:
		return d.syntaxError(err, data)
	}
	d.root = doc.Content[0]
	if d.root.Kind == yaml.ScalarNode && d.root.Tag == "!!null" {
		return d.lineError(0, "file is empty")
	}
	var second yaml.Node
	switch err := dec.Decode(&second); {
	case err == nil:
		return d.lineError(second.Line, "more than one YAML document")
	case err != io.EOF:
		return d.syntaxError(err, data)
	}
	return d.resolveAliases()
}

// unreadable finds the first byte that no YAML file may have. The parser finds
// them too, but does not tell where.
func unreadable(data []byte) (offset int, detail string) {
	for i := 0; i < len(data); {
		if c := data[i]; c < utf8.RuneSelf {
			if c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0x7f {
				return i, fmt.Sprintf("control character %#02x", c)
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i, "invalid UTF-8"
		}
		i += n
	}
	return -1, ""
}

func lineOf(data []byte, offset int) int { return 1 + bytes.Count(data[:offset], []byte{'\n'}) }

func (d *Document) lineError(line int, detail string) *Error {
	return &Error{Origin: Origin{File: d.name, Line: line}, Detail: detail}
}

var (
	yamlLine      = regexp.MustCompile(`^yaml: line ([0-9]+): `)
	unknownAnchor = regexp.MustCompile(`^yaml: unknown anchor '(.*)' referenced`)
)

// countedFromZero begins the messages whose line yaml.v3 counts from 0: those
// of its parser, not of its scanner.
var countedFromZero = []string{
	"did not find expected node content", "did not find expected key", "did not find expected ','",
	"did not find expected '-' indicator", "did not find expected <",
}

// syntaxError takes the line out of the parser's message. The parser names no
// line for errors on the first one, nor for unknown anchors.
func (d *Document) syntaxError(err error, data []byte) *Error {
	msg := err.Error()
	if m := unknownAnchor.FindStringSubmatch(msg); m != nil {
		return d.lineError(lineOf(data, max(0, bytes.Index(data, []byte("*"+m[1])))), "unknown anchor "+m[1])
	}
	m := yamlLine.FindStringSubmatch(msg)
	if m == nil {
		return d.lineError(1, strings.TrimPrefix(msg, "yaml: "))
	}
	msg = msg[len(m[0]):]
	line, _ := strconv.Atoi(m[1])
	for _, prefix := range countedFromZero {
		if strings.HasPrefix(msg, prefix) {
			line++
			break
		}
	}
	return d.lineError(line, msg)
}
