package testutil

import (
	"io"
	"strings"
)

// OnText calls Do when a text is written, as a whole within one Write.
type OnText struct {
	io.Writer
	Text string
	Do   func()
}

func (w *OnText) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.Text) {
		w.Do()
	}
	return w.Writer.Write(p)
}
