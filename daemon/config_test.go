package daemon

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"connectd/pkg/catalog/file"
	"connectd/pkg/lb"
	"connectd/pkg/testutil"
)

var rewriteConfig = flag.Bool("rewrite-config", false, "write what is got into the golden files of the config; then read the diff")

// TestConfigGolden decodes each config in testdata/config*.txtar; the file
// after it with the ending .want is the error or the Config in JSON.
func TestConfigGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/config*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, path := range files {
		ar, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(ar.Files); i += 2 {
			in, want := ar.Files[i], &ar.Files[i+1]
			t.Run(in.Name, func(t *testing.T) {
				if want.Name != in.Name+".want" {
					t.Fatalf("%s is followed by %s", in.Name, want.Name)
				}
				got := configOutcome(decodeConfig(in.Name, in.Data))
				if !bytes.Equal(got, want.Data) && !*rewriteConfig {
					t.Errorf("got:\n%s\nwant:\n%s", got, want.Data)
				}
				want.Data = got
			})
		}
		if *rewriteConfig {
			if err := os.WriteFile(path, txtar.Format(ar), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func configOutcome(c *Config, err error) []byte {
	if err != nil {
		return []byte(err.Error() + "\n")
	}
	b, err := json.MarshalIndent(c, "", " ")
	if err != nil {
		return []byte(err.Error())
	}
	return append(b, '\n')
}

func TestConfigExample(t *testing.T) {
	c, err := LoadConfig("../docs/examples/connectd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if c.VIPCIDR != netip.MustParsePrefix("127.254.0.0/16") || c.Zone != "use1-az1" || len(c.Clients) != 2 ||
		c.Clients[0].HostsFile != "/etc/netns/web/hosts" || c.Clients[1].Cgroup == "" || c.Catalog.Dir != "../docs/examples" {
		t.Errorf("got %s", configOutcome(c, nil))
	}
	if got := c.Catalog.Files[0].Origin.String(); got != "../docs/examples/connectd.yaml:12: catalog.files[0]" {
		t.Errorf("origin %s", got)
	}
}

func TestCheckHost(t *testing.T) {
	dir := t.TempDir()
	root, err := testutil.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`cgroup: /proc
clients:
- {name: a, netns: /run/netns/connectd-none, namespaces: [prod]}
- {name: b, netns: /proc/self/ns/net, namespaces: [prod]}
- {name: c, pid: %d, namespaces: [prod]}
- {name: d, pid: 4194303, namespaces: [prod]}
- {name: e, cgroup: %[2]s, namespaces: [prod]}
- {name: f, netns: %[2]s/file, namespaces: [prod], hostsFile: %[2]s, resolvConf: %[2]s/none}
- {name: g, netns: /run/netns/connectd-none, namespaces: [prod], hostsFile: %[2]s/none/hosts}
- {name: h, netns: /run/netns/connectd-none, namespaces: [prod], hostsFile: %[2]s/hosts, resolvConf: %[2]s/file}
- {name: i, cgroup: %[3]s, namespaces: [prod]}
catalog: {files: [a.yaml]}
`, os.Getpid(), dir, root)
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := decodeConfig("c.yaml", []byte(config))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer("DIR", dir, "ROOT", root, "PID", fmt.Sprint(os.Getpid())).Replace(`c.yaml:1: cgroup: /proc is not a cgroup2 directory
c.yaml:3: clients[0].netns: /run/netns/connectd-none: no such file or directory
c.yaml:4: clients[1].netns: /proc/self/ns/net is the daemon's own network namespace, name the client by its cgroup
c.yaml:5: clients[2].pid: /proc/PID/ns/net is the daemon's own network namespace, name the client by its cgroup
c.yaml:6: clients[3].pid: 4194303 is no process
c.yaml:7: clients[4].cgroup: DIR is not a cgroup2 directory
c.yaml:8: clients[5].netns: open netns DIR/file: not a namespace file
c.yaml:8: clients[5].hostsFile: DIR is not a regular file
c.yaml:8: clients[5].resolvConf: DIR/none: no such file or directory
c.yaml:9: clients[6].netns: /run/netns/connectd-none: no such file or directory
c.yaml:9: clients[6].hostsFile: DIR/none: no such file or directory
c.yaml:10: clients[7].netns: /run/netns/connectd-none: no such file or directory
c.yaml:11: clients[8].cgroup: open cgroup ROOT: the root of the tree holds every process`)
	if err := c.CheckHost(); err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
}

func TestUnknownNamespaces(t *testing.T) {
	c := &Config{Clients: []Client{{Namespaces: []string{"prod", "x"}}, {Namespaces: []string{"dev", "x"}}}}
	services := []*lb.Service{{Name: lb.ServiceName{Namespace: "prod"}}, {Name: lb.ServiceName{Namespace: "test"}}}
	if got := fmt.Sprint(c.UnknownNamespaces(services)); got != "[dev x]" {
		t.Error(got)
	}
}

func TestRestartNeeded(t *testing.T) {
	base := "catalog: {files: [a.yaml]}\n"
	load := func(s string) *Config {
		t.Helper()
		c, err := decodeConfig("c.yaml", []byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for in, want := range map[string]string{
		base:                             "[]",
		"logLevel: info\n" + base:        "[]",
		"clients: []\n" + base:           "[]",
		"catalog: {files: [b.yaml]}\n":   "[]",
		"vipCIDR: 127.1.0.0/16\n" + base: "[vipCIDR]",
		"stateDir: /a\nbpffs: /a\ncontrolSocket: /a\nvipCIDR6: fd00::/64\ncgroup: /a\nzone: a\nmetrics: {listen: \":0\"}\nlimits: {maxServices: 64}\nlogLevel: debug\nlogFormat: json\n" + base: "[stateDir bpffs controlSocket vipCIDR6 cgroup zone metrics limits logLevel logFormat]",
	} {
		if got := fmt.Sprint(RestartNeeded(load(base), load(in))); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

// TestReferenceNamesEveryKey holds docs/configuration.md to the keys that the
// decoders know.
func TestReferenceNamesEveryKey(t *testing.T) {
	doc, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	tables := map[string][]string{
		"connectd.yaml": configKeys, "metrics": metricsKeys, "limits": limitsKeys, "clients[]": clientKeys, "catalog": catalogKeys,
		"ecs": ecsKeys, "publish[]": publishKeys, "cloudMap": cloudMapKeys, "cloudWatch": cloudWatchKeys,
	}
	for object, keys := range file.Keys() {
		tables[object] = keys
	}
	for object, keys := range tables {
		_, section, ok := strings.Cut(string(doc), "### `"+object+"`\n")
		if !ok {
			t.Errorf("no section %q", object)
			continue
		}
		section, _, _ = strings.Cut(section, "\n#")
		var documented []string
		for line := range strings.SplitSeq(section, "\n") {
			if rest, ok := strings.CutPrefix(line, "| `"); ok {
				key, _, _ := strings.Cut(rest, "`")
				documented = append(documented, key)
			}
		}
		if strings.Join(documented, " ") != strings.Join(keys, " ") {
			t.Errorf("%s documents\n%v, known are\n%v", object, documented, keys)
		}
	}
}

// TestReferenceErrors holds the error examples of docs/configuration.md to
// what is really said.
func TestReferenceErrors(t *testing.T) {
	doc, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "\n## Errors\n")
	_, rest, _ = strings.Cut(rest, "```yaml\n")
	in, rest, _ := strings.Cut(rest, "```\n")
	_, rest, _ = strings.Cut(rest, "```text\n")
	want, _, ok := strings.Cut(rest, "\n```")
	if !ok {
		t.Fatal("no example")
	}
	d := file.Decoder{Forbidden: []netip.Prefix{defaultVIPs, defaultVIPs6}}
	if _, err := d.Decode("catalog.yaml", []byte(in)); err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
}

func FuzzConfig(f *testing.F) {
	files, _ := filepath.Glob("testdata/config*.txtar")
	for _, path := range files {
		ar, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for i := 0; i < len(ar.Files); i += 2 {
			f.Add(ar.Files[i].Data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := decodeConfig("c.yaml", data)
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "c.yaml:") {
					t.Errorf("error without file: %q", line)
				}
			}
			return
		}
		if checkVIPs(c.VIPCIDR) != "" || checkVIPs6(c.VIPCIDR6) != "" || c.Limits.MaxServices == 0 || len(c.Catalog.Files) == 0 {
			t.Errorf("got %s", configOutcome(c, nil))
		}
		for _, cl := range c.Clients {
			if cl.Name == "" || len(cl.Namespaces) == 0 || cl.at.Line == 0 {
				t.Errorf("client %+v", cl)
			}
		}
	})
}
