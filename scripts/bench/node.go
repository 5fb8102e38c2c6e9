package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"connectd/pkg/control"
)

// Ports of what the catalog has beside its many services.
const (
	httpPort  = 8080
	probePort = 5353
)

const perFile = 100 // services in one catalog file

// node is the real daemon, over a folder of its own.
type node struct {
	binary  string
	dir     string
	bpffs   string
	metrics string // host:port
	cmd     *exec.Cmd
	peak    atomic.Uint64 // greatest anonymous memory seen over this catalog, in bytes
	exited  chan error
}

// started says how long a start took.
type started struct {
	process time.Duration // from exec to the line that says ready
	load    time.Duration // from reading the catalog to ready, as that line says
}

func newNode(binary string, w world) (*node, error) {
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("%w (make build makes it)", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ln.Close()
	name := strings.TrimSuffix(w.prefix, "-")
	n := &node{binary: binary, dir: filepath.Join(os.TempDir(), name), bpffs: filepath.Join(bpffsDir, name), metrics: ln.Addr().String()}
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`stateDir: %[1]s/state
bpffs: %[2]s
controlSocket: %[1]s/sock
metrics: {listen: "%[3]s"}
clients:
  - {name: client, netns: %[4]s/%[5]s, namespaces: [prod]}
catalog:
  files: ["services-*.yaml"]
`, n.dir, n.bpffs, n.metrics, netnsDir, w.netns("client"))
	_, err = n.write("connectd.yaml", config)
	return n, err
}

// write puts a file in place as an editor or a configuration tool does: by a
// rename, before which is the time returned.
func (n *node) write(name, content string) (time.Time, error) {
	tmp := filepath.Join(n.dir, ".new")
	if err := os.WriteFile(tmp, []byte(content), 0o644); err != nil {
		return time.Time{}, err
	}
	now := time.Now()
	return now, os.Rename(tmp, filepath.Join(n.dir, name))
}

// catalog replaces the catalog files by such with that many services of 10
// endpoints.
func (n *node) catalog(services int) error {
	n.peak.Store(0)
	old, err := filepath.Glob(filepath.Join(n.dir, "services-*.yaml"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	for i := range services / perFile {
		if _, err := n.write(fileName(i), fileContent(i, 8080, false)); err != nil {
			return err
		}
	}
	return nil
}

func fileName(i int) string { return fmt.Sprintf("services-%03d.yaml", i) }

// fileContent is one catalog file, its endpoints on that port. The first one
// also has the service that is measured by HTTP, and one whose only endpoint
// comes and goes.
func fileContent(i, port int, probe bool) string {
	var out strings.Builder
	out.WriteString("namespace: prod\nservices:\n")
	if i == 0 {
		fmt.Fprintf(&out, "  - discoveryName: http\n    clientAliases: [{dnsName: http, port: 80}]\n    endpoints: [{address: %s, port: %d}]\n", serverAddress, httpPort)
		endpoint := ""
		if probe {
			endpoint = fmt.Sprintf("{address: %s, port: %d}", serverAddress, probePort)
		}
		fmt.Fprintf(&out, "  - discoveryName: probe\n    protocol: udp\n    clientAliases: [{dnsName: probe, port: %d}]\n    endpoints: [%s]\n", probePort, endpoint)
	}
	for s := i * perFile; s < (i+1)*perFile; s++ {
		fmt.Fprintf(&out, "  - discoveryName: service-%05d\n    clientAliases: [{dnsName: service-%05d, port: 80}]\n    endpoints:\n", s, s)
		for e := range 10 {
			at := s*10 + e
			fmt.Fprintf(&out, "      - {address: 10.%d.%d.%d, port: %d, zone: use1-az%d}\n", 100+at>>16, at>>8&255, at&255, port, e%3+1)
		}
	}
	return out.String()
}

func (n *node) control() *control.Client { return control.NewClient(filepath.Join(n.dir, "sock")) }

func (n *node) configPath() string { return filepath.Join(n.dir, "connectd.yaml") }

// start starts the daemon and waits until it is ready.
func (n *node) start(ctx context.Context) (started, error) {
	var s started
	cmd := exec.Command(n.binary, "run", "-c", n.configPath())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return s, err
	}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return s, fmt.Errorf("start daemon: %w", err)
	}
	n.cmd, n.exited = cmd, make(chan error, 1)
	ready := make(chan started, 1)
	go func() {
		var said strings.Builder
		for in := bufio.NewScanner(stderr); in.Scan(); {
			now := time.Since(begun)
			line := in.Text()
			if took, ok := readyLine(line); ok {
				ready <- started{now, took}
			}
			if strings.Contains(line, "level=ERROR") || !strings.Contains(line, "level=") {
				said.WriteString("\n" + line)
			}
		}
		err := cmd.Wait()
		if said.Len() > 0 {
			err = errors.Join(err, errors.New("daemon said:"+said.String()))
		}
		n.exited <- err
	}()
	go n.watchMemory(cmd.Process.Pid)
	select {
	case s = <-ready:
		return s, nil
	case err := <-n.exited:
		n.cmd = nil
		return s, fmt.Errorf("start daemon: it ended: %w", err)
	case <-ctx.Done():
		return s, ctx.Err()
	}
}

func readyLine(line string) (time.Duration, bool) {
	if !strings.Contains(line, "msg=ready ") {
		return 0, false
	}
	_, after, _ := strings.Cut(line, "took=")
	took, _, _ := strings.Cut(after, " ")
	d, err := time.ParseDuration(took)
	return d, err == nil
}

// stop stops the daemon; its pins stay.
func (n *node) stop() error {
	if n.cmd == nil {
		return nil
	}
	n.cmd.Process.Signal(syscall.SIGTERM)
	err := <-n.exited
	n.cmd = nil
	return err
}

// reset stops the daemon and makes it forget everything.
func (n *node) reset() error {
	err := n.stop()
	if _, statErr := os.Stat(n.bpffs); statErr == nil {
		err = errors.Join(err, command(context.Background(), n.binary, "unload", "-c", n.configPath()))
	}
	return errors.Join(err, os.RemoveAll(filepath.Join(n.dir, "state")))
}

func (n *node) close() error {
	return errors.Join(n.reset(), os.RemoveAll(n.dir))
}

// watchMemory notes the peak of anonymous memory while the daemon lives.
func (n *node) watchMemory(pid int) {
	for {
		now, err := anonymous(pid)
		if err != nil || now == 0 {
			return // it ended
		}
		if now > n.peak.Load() {
			n.peak.Store(now)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// anonymous is RssAnon of a process in bytes: maps of BPF arrays that it
// shares with the kernel are not in it.
func anonymous(pid int) (uint64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(status), "RssAnon:")
	number, _, _ := strings.Cut(strings.TrimSpace(after), " ")
	kb, err := strconv.ParseUint(number, 10, 64)
	return kb << 10, err
}

// mapBytes is what the kernel charges for the daemon's maps.
func (n *node) mapBytes() (float64, error) { return n.metric("connectd_map_bytes") }

// metric is the sum of a family's series, which must not be 0.
func (n *node) metric(family string) (float64, error) {
	resp, err := http.Get("http://" + n.metrics + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	var sum float64
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, family)
		if !ok || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' '):]), 64)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", family, err)
		}
		sum += v
	}
	if sum == 0 {
		return 0, fmt.Errorf("read %s: no such metric, or 0", family)
	}
	return sum, nil
}

// vip is the IPv4 address that a service's own name resolves to.
func (n *node) vip(ctx context.Context, service string) (netip.Addr, error) {
	services, err := n.control().Services(ctx, control.ServiceFilter{Service: "prod/" + service})
	if err != nil {
		return netip.Addr{}, err
	}
	for _, s := range services {
		for _, name := range s.Names {
			for _, a := range name.Addresses {
				if a.Is4() && name.DNSName == service {
					return a, nil
				}
			}
		}
	}
	return netip.Addr{}, fmt.Errorf("find VIP of %s: not there", service)
}
