package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// Config is what an image says of its containers.
type Config = container.Config

// HealthCheck is a check as an image or a container has it.
type HealthCheck = container.HealthConfig

// Image makes an image from files: path in the image to file on the node. The
// same file under a second path becomes a link. No registry and no Dockerfile is
// needed.
func (e *Engine) Image(ctx context.Context, name string, files map[string]string, c Config) error {
	layer, err := layer(files)
	if err != nil {
		return fmt.Errorf("make image %s: %w", name, err)
	}
	archive, err := archive(name, layer, c)
	if err != nil {
		return fmt.Errorf("make image %s: %w", name, err)
	}
	answer, err := e.ImageLoad(ctx, bytes.NewReader(archive), client.ImageLoadWithQuiet(true))
	if err != nil {
		return fmt.Errorf("load image %s: %w", name, err)
	}
	defer answer.Close()
	text, err := io.ReadAll(answer)
	if err != nil {
		return fmt.Errorf("load image %s: %w", name, err)
	}
	if strings.Contains(string(text), `"error"`) { // Docker tells after its 200
		return fmt.Errorf("load image %s: %s", name, text)
	}
	return nil
}

// layer packs files and the folders above them.
func layer(files map[string]string) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	have, first := map[string]bool{"/": true}, map[string]string{}
	for _, to := range slices.Sorted(maps.Keys(files)) {
		for _, dir := range above(to) {
			if !have[dir] {
				have[dir] = true
				w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimPrefix(dir, "/") + "/", Mode: 0o755})
			}
		}
		h := &tar.Header{Name: strings.TrimPrefix(to, "/"), Mode: 0o755}
		from := files[to]
		if link, ok := first[from]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, link
			w.WriteHeader(h)
			continue
		}
		first[from] = h.Name
		text, err := os.ReadFile(from)
		if err != nil {
			return nil, err
		}
		h.Typeflag, h.Size = tar.TypeReg, int64(len(text))
		w.WriteHeader(h)
		w.Write(text)
	}
	err := w.Close() // and any error before
	return out.Bytes(), err
}

// above lists the folders over a path, outermost first.
func above(file string) (dirs []string) {
	for dir := path.Dir(path.Clean("/" + file)); dir != "/"; dir = path.Dir(dir) {
		dirs = append([]string{dir}, dirs...)
	}
	return dirs
}

// archive is what `docker save` would have written of the image.
func archive(name string, layer []byte, c Config) ([]byte, error) {
	if !strings.Contains(name, ":") {
		name += ":latest"
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"created":      time.Unix(0, 0).UTC().Format(time.RFC3339), // equal images are one
		"config":       c,
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest(layer)}},
		"history":      []map[string]any{{"created_by": "connectd tests"}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal([]map[string]any{{
		"Config": digest(config) + ".json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"},
	}})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range []struct {
		name string
		text []byte
	}{{digest(config) + ".json", config}, {"layer.tar", layer}, {"manifest.json", manifest}} {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o644, Size: int64(len(f.text))})
		w.Write(f.text)
	}
	err = w.Close()
	return out.Bytes(), err
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Build compiles a Go program that runs in an image without libraries, and
// writes it to the file out. pkg is an import path or a folder as `go build`
// takes it.
func Build(ctx context.Context, pkg, out string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", pkg, err, text)
	}
	return nil
}
