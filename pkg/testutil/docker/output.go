package docker

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/moby/moby/client"
)

// Output returns what a container has written so far, standard error among
// standard output as it came.
func (e *Engine) Output(ctx context.Context, id string) (string, error) {
	logs, err := e.ContainerLogs(ctx, id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		return "", err
	}
	defer logs.Close()
	out, err := Demux(logs)
	if err != nil {
		return "", fmt.Errorf("read output of %.12s: %w", id, err)
	}
	return out, nil
}

// Demux reads what a container or a command in it writes until its end.
func Demux(r io.Reader) (string, error) {
	// Each piece has 8 bytes before it: the stream, three zeros, the length.
	var out bytes.Buffer
	for {
		var head [8]byte
		if _, err := io.ReadFull(r, head[:]); err == io.EOF {
			return out.String(), nil
		} else if err != nil {
			return "", err
		}
		if _, err := io.CopyN(&out, r, int64(binary.BigEndian.Uint32(head[4:]))); err != nil {
			return "", err
		}
	}
}
