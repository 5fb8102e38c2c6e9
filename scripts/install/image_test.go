package install

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDockerfile: the image is built as the binary is, by the Go of go.mod, on
// nothing.
func TestDockerfile(t *testing.T) {
	text := read(t, "Dockerfile")
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "go.mod"))
	if version == nil || !strings.Contains(text, "ARG GO_IMAGE=golang:"+version[1]+"-") {
		t.Errorf("it is not built by Go %v", version)
	}
	stages := regexp.MustCompile(`(?m)^FROM (.*)$`).FindAllStringSubmatch(text, -1)
	if len(stages) != 2 || stages[1][1] != "scratch" {
		t.Errorf("its stages are %v", stages)
	}
	flags := regexp.MustCompile(`(?m)^LDFLAGS := (.*)$`).FindStringSubmatch(read(t, "Makefile"))[1]
	flags = strings.NewReplacer("$(VERSION)", "${VERSION}", "$(COMMIT)", "${COMMIT}").Replace(flags)
	for _, want := range []string{`CGO_ENABLED=0 go build -trimpath`, `"` + flags + `"`, "./cmd/connectd", "ca-certificates.crt", `ENTRYPOINT ["/connectd"]`, `CMD ["run"]`} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %s", want)
		}
	}
	for _, dir := range []string{"bpf", "cmd", "daemon", "pkg"} {
		if !strings.Contains(read(t, ".dockerignore"), "\n!"+dir+"\n") {
			t.Errorf(".dockerignore leaves %s out", dir)
		}
	}
}

// buildStatic returns the path of a binary built as the image's is.
func buildStatic(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "connectd")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X connectd/daemon.Version=v9.9.9", "-o", path, "./cmd/connectd")
	build.Dir = top
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, code := run(t, build); code != 0 {
		t.Fatal(out)
	}
	return path
}

// TestStatic: the binary runs where there is nothing else, as in the image.
func TestStatic(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root for chroot")
	}
	dir := filepath.Dir(buildStatic(t))
	if out, code := run(t, exec.Command("chroot", dir, "/connectd", "version")); code != 0 || !strings.Contains(out, "v9.9.9") {
		t.Errorf("exit code %d: %s", code, out)
	}
}
