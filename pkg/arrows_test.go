// Package arrows holds the test that keeps the import arrows of ARCHITECTURE:
//
//	cmd -> daemon -> pkg/* (L2) -> pkg/plan -> pkg/lb
//
// The packages of L2 never import one another: daemon passes functions and
// plain values between them.
package arrows

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "connectd/"

// layers is who may import whom, from the top: a package imports only what
// stands on a lower level. More folders than these are a decision to make.
var layers = []struct {
	prefix string
	level  int
}{
	{"cmd/", 5},
	{"scripts/", 5},
	{"daemon", 4},
	{"pkg/plan", 2},
	{"pkg/lb", 1},
	{"pkg/", 3},
}

// allowed are the imports inside the module that the layers forbid. A pattern
// that ends in * stands for whatever begins so.
var allowed = []struct{ from, to, reason string }{
	{"pkg/*", "pkg/netns", "a leaf: sockets inside another network namespace, which nearly every room makes"},
	{"pkg/*", "pkg/wholefile", "a leaf: files that are replaced as a whole"},
	{"pkg/*", "pkg/strictyaml", "a leaf: YAML that names file, line and field of an error"},
	{"pkg/catalog/*", "pkg/settings", "a leaf: the optional fields of a service, which files and Cloud Map attributes say in the same words"},
	{"pkg/task/*", "pkg/settings", "a leaf: the optional fields of a service, which labels say in the same words"},
	{"pkg/catalog/*", "pkg/catalog", "the sources of a catalog fill its types"},
	{"pkg/task", "pkg/task/docker", "one room: containers become tasks"},
	{"pkg/task", "pkg/task/join", "one room: what a task's labels say"},
	{"pkg/proxy", "pkg/proxy/http1", "one room: the forwarder reads heads by it"},
	{"pkg/proxy", "pkg/proxy/route", "one room: the forwarder decides by it"},
	{"pkg/proxy", "pkg/proxy/accesslog", "one room: the forwarder fills its entries"},
	{"pkg/proxy", "pkg/proxy/h2", "one room: the forwarder carries its sessions"},
	{"pkg/testutil*", "pkg/testutil/owned", "a leaf: names of what tests and demos leave, and its removal"},
	{"daemon/demo", "daemon/demo/report", "one room: a demo is shown step by step by it"},
	{"cmd/*", "pkg/control", "the commands are clients of the control socket, and its wire types are what they print"},
	{"scripts/*", "pkg/control", "measuring programs ask the daemon when a change is in force"},
	{"scripts/demo-ecs", "pkg/testutil/docker", "the demo shows connectd with a Docker of its own, and is no part of the program"},
	{"scripts/demo-ecs", "pkg/testutil/owned", "the same: what it makes is named and removed as tests' is"},
	{"scripts/demo-ecs", "pkg/netns", "a leaf: sockets on the node that it makes"},
	{"scripts/demo-cluster", "pkg/testutil/aws", "a demonstration on one machine has the AWS of the tests; connectd itself has none"},
	{"cmd/*", "pkg/lb", "the commands name services in the vocabulary"},
	{"scripts/cloudsim", "pkg/catalog/cloudmap", "it runs the real polling code of many nodes"},
	{"scripts/cloudsim", "pkg/metrics/cloudwatch", "it prices the metrics that there are"},
	{"scripts/cloudsim", "pkg/lb", "it tells that code what tasks serve"},
}

// restricted are modules that only some packages import.
var restricted = []struct {
	module string
	only   []string
	reason string
}{
	{"github.com/cilium/ebpf", []string{"pkg/datapath"}, "one room knows maps and programs"},
	{"github.com/miekg/dns", []string{"pkg/dns"}, "one room knows the DNS format"},
	{"github.com/aws/", []string{"pkg/catalog/cloudmap", "pkg/ecsapi", "pkg/instance", "pkg/metrics*", "pkg/testutil/aws", "scripts/cloudsim"}, "one room each knows Cloud Map, ECS, CloudWatch and the instance's metadata, and tests and the simulator have an AWS of their own"},
	{"github.com/moby/", []string{"pkg/task/docker", "pkg/testutil/docker"}, "one room knows containers, and tests have a Docker of their own"},
	{"github.com/prometheus/", []string{"pkg/metrics"}, "the others hand out plain numbers"},
	{"github.com/spf13/cobra", []string{"cmd/*"}, "commands are parsed in one place"},
	{"google.golang.org/grpc", []string{"scripts/bench"}, "tests and measurements only: the probe speaks its few messages itself"},
}

// standardOnly import nothing but the standard library and lower layers.
var standardOnly = []string{"pkg/lb", "pkg/plan"}

type goPackage struct {
	ImportPath   string
	ForTest      string
	Standard     bool
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func (p *goPackage) name() string { return strings.TrimPrefix(p.ImportPath, module) }

func (p *goPackage) ours() bool { return strings.HasPrefix(p.ImportPath, module) }

func TestArrows(t *testing.T) {
	packages := list(t)
	for _, p := range packages {
		if !p.ours() {
			continue
		}
		for _, to := range p.Imports {
			if why := forbidden(packages, p.name(), to); why != "" {
				t.Errorf("%s imports %s: %s", p.name(), to, why)
			}
		}
		for _, to := range slices.Concat(p.TestImports, p.XTestImports) {
			if why := forbiddenInTests(p.name(), to); why != "" {
				t.Errorf("a test of %s imports %s: %s", p.name(), to, why)
			}
		}
	}
}

// TestAllowedAreUsed: an exception that nobody needs is taken off the list.
func TestAllowedAreUsed(t *testing.T) {
	packages := list(t)
	for _, a := range allowed {
		used := slices.ContainsFunc(packages, func(p *goPackage) bool {
			return p.ours() && matches(p.name(), a.from) && slices.Contains(p.Imports, module+a.to)
		})
		if !used {
			t.Errorf("nobody uses the exception %s -> %s", a.from, a.to)
		}
	}
}

// TestForbidden: the rules refuse what they are for.
func TestForbidden(t *testing.T) {
	packages := list(t)
	for _, test := range []struct {
		from, to string
		ok       bool
	}{
		{"cmd/connectd", module + "daemon", true},
		{"daemon", module + "pkg/dns", true},
		{"pkg/dns", module + "pkg/plan", true},
		{"pkg/dns", module + "pkg/netns", true},
		{"pkg/catalog/file", module + "pkg/catalog", true},
		{"pkg/datapath", "github.com/cilium/ebpf/asm", true},
		{"pkg/lb", "net/netip", true},
		{"daemon", module + "cmd/connectd", false},
		{"pkg/dns", module + "daemon", false},
		{"pkg/dns", module + "pkg/health", false},
		{"pkg/catalog", module + "pkg/catalog/file", false},
		{"pkg/plan", module + "pkg/dns", false},
		{"pkg/plan", module + "pkg/netns", false},
		{"pkg/lb", module + "pkg/plan", false},
		{"cmd/connectd", module + "pkg/datapath", false},
		{"daemon", module + "pkg/testutil", false},
		{"daemon", "github.com/cilium/ebpf", false},
		{"pkg/health", "github.com/miekg/dns", false},
		{"pkg/plan", "golang.org/x/sys/unix", false},
		{"pkg/task", "github.com/aws/aws-sdk-go-v2/aws", false},
		{"elsewhere", module + "pkg/lb", false},
	} {
		if why := forbidden(packages, test.from, test.to); (why == "") != test.ok {
			t.Errorf("%s imports %s: %q", test.from, test.to, why)
		}
	}
}

// forbidden says why a package may not import another, or "".
func forbidden(packages []*goPackage, from, to string) string {
	name, inside := strings.CutPrefix(to, module)
	if name == "pkg/testutil" && inside {
		return "it is for tests"
	}
	if !inside {
		return foreign(packages, from, to)
	}
	upper, lower := level(from), level(name)
	if upper == 0 {
		return "its folder is in no layer"
	}
	for _, a := range allowed {
		if matches(from, a.from) && name == a.to && upper >= level("pkg/dns") && from != name {
			return ""
		}
	}
	switch {
	case upper == lower:
		return "packages of one layer do not import one another"
	case upper < lower:
		return "the arrow points upwards"
	case upper == level("cmd/") && lower != level("daemon"):
		return "programs know the daemon and its control socket only"
	}
	return ""
}

func foreign(packages []*goPackage, from, to string) string {
	if slices.Contains(standardOnly, from) && !isStandard(packages, to) {
		return "it imports the standard library only"
	}
	for _, r := range restricted {
		if (to == r.module || strings.HasPrefix(to, strings.TrimSuffix(r.module, "/")+"/")) &&
			!slices.ContainsFunc(r.only, func(pattern string) bool { return matches(from, pattern) }) {
			return r.reason
		}
	}
	return ""
}

// forbiddenInTests: tests may use any library and testutil, but rooms stay
// apart in them as well: what needs two rooms is tested in daemon.
func forbiddenInTests(from, to string) string {
	name, inside := strings.CutPrefix(to, module)
	if !inside || name == "pkg/testutil" || strings.HasPrefix(name, "pkg/testutil/") || name == from {
		return ""
	}
	return forbidden(nil, from, to)
}

func isStandard(packages []*goPackage, path string) bool {
	i := slices.IndexFunc(packages, func(p *goPackage) bool { return p.ImportPath == path })
	return i >= 0 && packages[i].Standard
}

func level(name string) int {
	for _, l := range layers {
		if name == l.prefix || strings.HasPrefix(name, strings.TrimSuffix(l.prefix, "/")+"/") {
			return l.level
		}
	}
	return 0
}

func matches(name, pattern string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return name == pattern
}

// list returns the module's packages and all that they import.
func list(t *testing.T) []*goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,ForTest,Standard,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %s\n%s", err, &stderr)
	}
	var packages []*goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(goPackage)
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("read go list: %s", err)
		}
		packages = append(packages, p)
	}
	if len(packages) < 50 {
		t.Fatalf("go list names %d packages only", len(packages))
	}
	return packages
}
