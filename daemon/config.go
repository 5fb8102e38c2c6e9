package daemon

import (
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"

	"connectd/pkg/catalog/file"
	"connectd/pkg/lb"
	"connectd/pkg/settings"
	"connectd/pkg/strictyaml"
)

// Config is connectd.yaml, complete and valid: docs/configuration.md
// describes every field, and what a reload can change.
type Config struct {
	StateDir      string       // absolute
	BPFFS         string       // absolute; the daemon's own directory on a bpf file system
	ControlSocket string       // absolute
	VIPCIDR       netip.Prefix // inside 127.0.0.0/8
	VIPCIDR6      netip.Prefix // a /64 inside fc00::/7
	Cgroup        string       // "auto" or an absolute path
	Zone          string       // "auto", an id, or "" for none
	Metrics       Metrics
	Limits        Limits
	LogLevel      slog.Level
	LogFormat     string // "text" or "json"
	Clients       []Client
	Catalog       Catalog
	ECS           *ECS        // nil: tasks are not looked for
	CloudMap      *CloudMap   // nil: no registry
	CloudWatch    *CloudWatch // nil: nothing goes there

	cgroupAt strictyaml.Origin
}

// Metrics is the HTTP server of /metrics, /livez and /readyz.
type Metrics struct {
	Listen string // host:port; port 0 is any free one
}

// Limits size the kernel's maps.
type Limits struct {
	MaxConnections int // tracked at once
	MaxEndpoints   int // known at once, those being drained included
	MaxServices    int
	MaxSlots       int // over all services; a service takes at least one for each endpoint and address family
}

// Client is a static client. Exactly one of Netns, PID and Cgroup is set.
type Client struct {
	Name       string
	Netns      string   // path of a network namespace
	PID        int      // process whose network namespace it is
	Cgroup     string   // path of a cgroup2 directory
	Namespaces []string // what it may resolve and reach, in order of preference
	HostsFile  string   // "" is none
	ResolvConf string   // "" is the one its processes would read by default

	// Where the fields stand in the file.
	at, hostsFileAt, resolvConfAt strictyaml.Origin
}

// Catalog is where services come from.
type Catalog struct {
	Dir   string // of the config file: what relative patterns are relative to
	Files []file.Glob
}

// The keys of each object of connectd.yaml.
var (
	configKeys  = []string{"stateDir", "bpffs", "controlSocket", "vipCIDR", "vipCIDR6", "cgroup", "zone", "metrics", "limits", "logLevel", "logFormat", "clients", "catalog", "ecs", "cloudMap", "cloudWatch"}
	metricsKeys = []string{"listen"}
	limitsKeys  = []string{"maxConnections", "maxEndpoints", "maxServices", "maxSlots"}
	clientKeys  = []string{"name", "netns", "pid", "cgroup", "namespaces", "hostsFile", "resolvConf"}
	catalogKeys = []string{"files"}
)

// LoadConfig reads and checks a config file; it looks at nothing else on the
// machine (CheckHost does). Its error is strictyaml.Errors with everything
// that is wrong, or a *strictyaml.Error if the file cannot be read.
func LoadConfig(path string) (*Config, error) {
	data, err := strictyaml.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return decodeConfig(path, data)
}

func decodeConfig(path string, data []byte) (*Config, error) {
	doc, err := strictyaml.Parse(path, data)
	if err != nil {
		return nil, err
	}
	m := doc.Root().Map(configKeys...)
	if !m.Has("ecs") && !m.Has("cloudMap") {
		m.Require("catalog")
	}
	c := &Config{
		StateDir:      m.Checked("stateDir", "/var/lib/connectd", checkPath),
		BPFFS:         m.Checked("bpffs", "/sys/fs/bpf/connectd", checkBPFFS),
		ControlSocket: m.Checked("controlSocket", "/run/connectd/connectd.sock", checkSocket),
		VIPCIDR:       prefix(m.Get("vipCIDR"), defaultVIPs, checkVIPs),
		VIPCIDR6:      prefix(m.Get("vipCIDR6"), defaultVIPs6, checkVIPs6),
		Cgroup:        m.Checked("cgroup", cgroupAuto, checkCgroup),
		Zone:          m.Checked("zone", "", settings.CheckZone),
		Metrics:       Metrics{Listen: m.Map("metrics", metricsKeys...).Checked("listen", "127.0.0.1:9464", checkListen)},
		Limits:        limits(m.Map("limits", limitsKeys...)),
		LogLevel:      logLevel(m.Enum("logLevel", "info", "debug", "info", "warn", "error")),
		LogFormat:     m.Enum("logFormat", "text", "text", "json"),
		Clients:       clients(m.Get("clients")),
		ECS:           ecs(m.Map("ecs", ecsKeys...)),
		CloudMap:      cloudMap(m.Map("cloudMap", cloudMapKeys...)),
		CloudWatch:    cloudWatch(m.Map("cloudWatch", cloudWatchKeys...)),
		cgroupAt:      m.Get("cgroup").Origin(),
	}
	if m.Has("catalog") {
		c.Catalog = catalogFiles(m.Map("catalog", catalogKeys...))
	}
	c.Catalog.Dir = filepath.Dir(path)
	if err := doc.Err(); err != nil {
		return nil, err
	}
	return c, nil
}

func prefix(v strictyaml.Value, def netip.Prefix, check func(netip.Prefix) string) netip.Prefix {
	s, ok := v.Text()
	if !ok {
		return def
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		v.Errorf("%q is not a CIDR such as %s", s, def)
		return def
	}
	wrong := check(p)
	if wrong == "" && p != p.Masked() {
		wrong = fmt.Sprintf("has bits after its length, write %s", p.Masked())
	}
	if wrong != "" {
		v.Errorf("%q %s", s, wrong)
		return def
	}
	return p
}

func limits(m strictyaml.Map) Limits {
	return Limits{
		MaxConnections: int(m.Int("maxConnections", 65536, 1024, 1<<22)),
		MaxEndpoints:   int(m.Int("maxEndpoints", 131072, 1024, 1<<20)),
		MaxServices:    int(m.Int("maxServices", 16384, 64, 1<<18)),
		MaxSlots:       int(m.Int("maxSlots", 524288, 1024, 1<<24)),
	}
}

func logLevel(s string) slog.Level {
	var l slog.Level
	l.UnmarshalText([]byte(s)) // one of the words of the enum
	return l
}

func clients(v strictyaml.Value) []Client {
	var out []Client
	names := map[string]bool{}
	namespaces := map[string]bool{}
	for _, v := range v.List() {
		c := client(v)
		if c.Name != "" && names[c.Name] {
			v.Errorf("name %q stands here twice", c.Name)
		}
		names[c.Name] = true
		for _, ns := range c.Namespaces {
			namespaces[ns] = true
		}
		out = append(out, c)
	}
	if len(namespaces) > lb.MaxNamespaces {
		v.Errorf("more than %d namespaces", lb.MaxNamespaces)
	}
	return out
}

func client(v strictyaml.Value) Client {
	m := v.Map(clientKeys...)
	m.Require("name", "namespaces")
	c := Client{
		Name:         m.Checked("name", "", checkClientName),
		Netns:        m.Checked("netns", "", checkPath),
		PID:          int(m.Int("pid", 0, 1, maxPID)),
		Cgroup:       m.Checked("cgroup", "", checkPath),
		Namespaces:   namespaces(m.Get("namespaces")),
		HostsFile:    m.Checked("hostsFile", "", checkPath),
		ResolvConf:   m.Checked("resolvConf", "", checkPath),
		hostsFileAt:  m.Get("hostsFile").Origin(),
		resolvConfAt: m.Get("resolvConf").Origin(),
	}
	given := 0
	for _, key := range []string{"netns", "pid", "cgroup"} {
		if m.Has(key) {
			given++
			c.at = m.Get(key).Origin()
		}
	}
	if m.Exists() && given != 1 {
		v.Errorf("must have exactly one of netns, pid and cgroup")
	}
	return c
}

func namespaces(v strictyaml.Value) []string {
	var out []string
	list := v.List()
	for _, v := range list {
		ns := v.Checked("", settings.CheckNamespace)
		if ns != "" && slices.Contains(out, ns) {
			v.Errorf("%q stands here twice", ns)
		}
		out = append(out, ns)
	}
	if v.IsList() && len(list) == 0 {
		v.Errorf("is empty, name at least one")
	}
	return out
}

func catalogFiles(m strictyaml.Map) Catalog {
	m.Require("files")
	var c Catalog
	files := m.Get("files")
	list := files.List()
	for _, v := range list {
		pattern := v.Checked("", checkPattern)
		c.Files = append(c.Files, file.Glob{Pattern: pattern, Origin: v.Origin()})
	}
	if files.IsList() && len(list) == 0 {
		files.Errorf("is empty, name at least one file")
	}
	return c
}
