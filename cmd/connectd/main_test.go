package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/tools/txtar"

	"connectd/pkg/control"
	"connectd/pkg/testutil"
)

var rewrite = flag.Bool("rewrite", false, "write what commands print into testdata and docs/cli.md; then read the diff")

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(testutil.Main(m))
}

// result is what a user sees of one command.
type result struct {
	stdout, stderr string
	exit           int
}

// fakeEnv is an env on the node's fixed time whose local commands answer as
// world says, and whose daemon is behind socket.
func fakeEnv(t *testing.T, socket, world string) env {
	return env{
		ctx:           t.Context(),
		now:           func() time.Time { return now },
		version:       "0.1.0",
		controlSocket: func(string) (string, error) { return socket, nil },
		run: func(context.Context, string) error {
			if world == "healthy" {
				return nil
			}
			return errors.New("lock /var/lib/connectd/lock: held by pid 4242, another connectd is running")
		},
		check: func(string) ([]string, error) {
			if world == "healthy" {
				return nil, nil
			}
			return []string{"clients may use namespace tools, which no catalog file has"},
				errors.New("/etc/connectd/connectd.yaml:4: vipCIDR: \"10.0.0.0/8\" is not inside 127.0.0.0/8\n/etc/connectd/catalog.yaml:12: services[1].endpoints[0].port: 70000 is not in 1-65535")
		},
		doctor: func(context.Context, string) []control.Check { return checks(world) },
		unload: func(context.Context, string) ([]string, error) {
			switch world {
			case "empty":
				return nil, nil
			case "healthy":
				return []string{"links/connect4", "links/connect6", "maps/connections_v1"}, nil
			}
			return []string{"links/connect4"}, errors.New("remove map connections_v1: operation not permitted")
		},
		demo: func(_ context.Context, w io.Writer, opts demoOptions) error {
			fmt.Fprintln(w, "1/7 names resolve: ok, verbose:", opts.verbose)
			return nil
		},
	}
}

// connectd runs one command line in a world: see world_test.go.
func connectd(t *testing.T, world string, args ...string) result {
	t.Helper()
	dir, err := os.MkdirTemp("", "cd") // t.TempDir is too long for a socket address
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	if backend, ok := worlds(world); ok {
		defer startDaemon(t, socket, backend)()
	}
	return connectdAt(t, fakeEnv(t, socket, world), socket, args...)
}

func connectdAt(t *testing.T, e env, socket string, args ...string) result {
	var stdout, stderr bytes.Buffer
	e.args, e.stdout, e.stderr = args, &stdout, &stderr
	exit := execute(e)
	clean := strings.NewReplacer(socket, defaultSocket, runtime.Version(), "go1.26", runtime.GOARCH, "amd64").Replace
	return result{clean(stdout.String()), clean(stderr.String()), exit}
}

func startDaemon(t *testing.T, socket string, b control.Backend) (stop func()) {
	t.Helper()
	server, err := control.Listen(control.Params{Socket: socket, Backend: b, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestGolden runs the command of each testdata/*.txtar. Its first lines are
//
//	world NAME
//	$ connectd ARGS
//	exit CODE
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 20 {
		t.Fatalf("testdata has %d files (%v): where are the others?", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			world, args := header(t, string(txtar.Parse(data).Comment))
			r := connectd(t, world, args...)
			got := txtar.Format(&txtar.Archive{
				Comment: fmt.Appendf(nil, "world %s\n$ connectd %s\nexit %d\n", world, strings.Join(args, " "), r.exit),
				Files:   []txtar.File{{Name: "stdout", Data: []byte(r.stdout)}, {Name: "stderr", Data: []byte(r.stderr)}},
			})
			compare(t, file, data, got)
		})
	}
}

func header(t *testing.T, comment string) (world string, args []string) {
	t.Helper()
	lines := strings.Split(comment, "\n")
	if len(lines) < 2 || !strings.HasPrefix(lines[0], "world ") || !strings.HasPrefix(lines[1], "$ connectd") {
		t.Fatalf("not a world and a command: %q", comment)
	}
	return strings.TrimPrefix(lines[0], "world "), strings.Fields(strings.TrimPrefix(lines[1], "$ connectd"))
}

// compare fails unless got is the content of file, or makes it so.
func compare(t *testing.T, file string, want, got []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	if *rewrite {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s differs (go test -rewrite, then read the diff)\n--- got\n%s\n--- want\n%s", file, got, want)
}

// In docs/cli.md an example is a console block of one command, in the world
// that the comment above it names.
var example = regexp.MustCompile("(?s)(<!-- world ([a-z]+) -->\n```console\n\\$ connectd ?([^\n]*)\n)(.*?)```\n")

// TestDocs runs each example in docs/cli.md, and wants one for each command
// but demo, whose output is all its own.
func TestDocs(t *testing.T) {
	const file = "../../docs/cli.md"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	got := example.ReplaceAllFunc(data, func(block []byte) []byte {
		m := example.FindSubmatch(block)
		args := strings.Fields(string(m[3]))
		seen[strings.Join(args[:min(1, len(args))], "")] = true
		r := connectd(t, string(m[2]), args...)
		text := r.stdout + r.stderr
		if r.exit != 0 {
			text += fmt.Sprintf("$ echo $?\n%d\n", r.exit)
		}
		return []byte(string(m[1]) + text + "```\n")
	})
	compare(t, file, data, got)
	for _, cmd := range newRoot(env{}).Commands() {
		if !seen[cmd.Name()] && cmd.Name() != "demo" {
			t.Errorf("%s has no example of %s", file, cmd.Name())
		}
	}
}

func TestHelp(t *testing.T) {
	root := newRoot(env{})
	for _, cmd := range append(root.Commands(), root) {
		t.Run(cmd.Name(), func(t *testing.T) {
			path := strings.Fields(cmd.CommandPath())[1:]
			r := connectd(t, "away", append(path, "--help")...)
			if r.exit != 0 || r.stderr != "" || !strings.Contains(r.stdout, "Usage:\n  connectd") {
				t.Errorf("%+v", r)
			}
			for _, line := range strings.Split(r.stdout, "\n") {
				if len(line) > 110 {
					t.Errorf("line of %d characters: %s", len(line), line)
				}
			}
		})
	}
}

// Every command refuses surplus arguments and unknown flags with exit code 2
// and does nothing, which in this env would be a nil function's panic.
func TestUsageErrors(t *testing.T) {
	var commands []*cobra.Command
	for _, cmd := range newRoot(env{}).Commands() {
		if cmd.Name() != "help" {
			commands = append(commands, cmd)
		}
	}
	for _, cmd := range commands {
		for _, args := range [][]string{{"a", "b", "c"}, {"--frobnicate"}} {
			t.Run(cmd.Name()+" "+args[0], func(t *testing.T) {
				r := connectdAt(t, env{ctx: t.Context()}, "no socket", append([]string{cmd.Name()}, args...)...)
				if r.exit != exitUsage || r.stdout != "" || !strings.Contains(r.stderr, "See 'connectd "+cmd.Name()+" --help'") {
					t.Errorf("%+v", r)
				}
			})
		}
	}
}

func TestSocketChoice(t *testing.T) {
	guess := func(string) (string, error) { return "", errors.New("connectd.yaml:1: bad") }
	named := func(config string) (string, error) { return config + ".sock", nil }
	for _, tt := range []struct {
		name  string
		named func(string) (string, error)
		args  []string
		want  []string
	}{
		{"of the config", named, []string{"status", "-c", "/nowhere/c.yaml"}, []string{"no socket /nowhere/c.yaml.sock", "--socket"}},
		{"of the flag", named, []string{"status", "--socket", "/nowhere/s"}, []string{"no socket /nowhere/s"}},
		{"guessed", guess, []string{"status"}, []string{defaultSocket, "guess", "connectd.yaml:1: bad"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := fakeEnv(t, "", "away")
			e.controlSocket = tt.named
			r := connectdAt(t, e, "no socket!", tt.args...)
			if r.exit != exitFailure || r.stdout != "" {
				t.Errorf("%+v", r)
			}
			for _, want := range tt.want {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("stderr lacks %q:\n%s", want, r.stderr)
				}
			}
		})
	}
}

// The file of --config is what a local command works with.
func TestConfigReachesLocalCommands(t *testing.T) {
	var got []string
	note := func(config string) { got = append(got, config) }
	e := env{
		ctx:    t.Context(),
		run:    func(_ context.Context, config string) error { note(config); return nil },
		check:  func(config string) ([]string, error) { note(config); return nil, nil },
		doctor: func(_ context.Context, config string) []control.Check { note(config); return nil },
		unload: func(_ context.Context, config string) ([]string, error) { note(config); return nil, nil },
	}
	for _, command := range []string{"run", "check", "doctor", "unload"} {
		got = nil
		for _, args := range [][]string{{command}, {command, "-c", "a.yaml"}, {"--config=b.yaml", command}} {
			if r := connectdAt(t, e, "no socket!", args...); r.exit != exitOK {
				t.Errorf("%q: %+v", args, r)
			}
		}
		if want := []string{defaultConfig, "a.yaml", "b.yaml"}; !slices.Equal(got, want) {
			t.Errorf("%s got configs %q, want %q", command, got, want)
		}
	}
}
