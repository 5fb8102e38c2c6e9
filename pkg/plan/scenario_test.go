package plan

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"connectd/pkg/lb"
)

var rewrite = flag.Bool("rewrite", false, "write what the scenarios print into their files; then read the diff")

// epoch is when scenarios begin.
var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// TestScenarios runs testdata/*.txtar. The comment of an archive is a script,
// "want" is what it prints, other files are catalogs. Commands:
//
//	config KEY=VALUE...          zone, vip4, endpoints, services, slots; starts anew
//	catalog FILE
//	tasks NAME:NAMESPACE,...     each
//	drain|undrain SERVICE ADDRESS
//	verdict SERVICE ADDRESS healthy|unhealthy [REASON...]
//	strike SERVICE ADDRESS TASK COUNT [http]
//	active SERVICE ADDRESS N | idle      idle: everything watched has none
//	step [+DURATION]             plan, and print
//	quiet [+DURATION]            plan, and print only the revision
//	restart [torn]               a new planner from the journal, its last line torn
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := newScenario(t, ar)
			for n, line := range strings.Split(string(ar.Comment), "\n") {
				if words := strings.Fields(line); len(words) > 0 && words[0] != "#" {
					s.where = fmt.Sprintf("%s:%d", file, n+1)
					fmt.Fprintf(&s.out, "> %s\n", strings.Join(words, " "))
					s.run(words[0], words[1:])
				}
			}
			i := slices.IndexFunc(ar.Files, func(f txtar.File) bool { return f.Name == "want" })
			if *rewrite {
				if i < 0 {
					ar.Files = append(ar.Files, txtar.File{Name: "want"})
					i = len(ar.Files) - 1
				}
				ar.Files[i].Data = s.out.Bytes()
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if i < 0 || !bytes.Equal(ar.Files[i].Data, s.out.Bytes()) {
				t.Errorf("%s prints otherwise than wanted (-rewrite, then read the diff):\n%s", file, s.out.Bytes())
			}
		})
	}
}

type scenario struct {
	*testing.T
	where    string
	catalogs map[string][]*lb.Service
	cfg      Config
	p        *Planner
	last     *Desired
	now      time.Time
	journal  []byte
	services []*lb.Service
	tasks    []lb.Task
	out      bytes.Buffer
}

func newScenario(t *testing.T, ar *txtar.Archive) *scenario {
	s := &scenario{T: t, now: epoch, catalogs: make(map[string][]*lb.Service)}
	for _, f := range ar.Files {
		if f.Name != "want" {
			s.catalogs[f.Name] = parseCatalog(t, string(f.Data))
		}
	}
	s.start(nil)
	return s
}

func (s *scenario) start(journal []byte) {
	p, err := New(s.cfg, journal)
	if err != nil {
		s.Fatalf("%s: %v", s.where, err)
	}
	s.p, s.last = p, nil
	if s.services != nil {
		p.SetCatalog(s.services)
	}
	if s.tasks != nil {
		p.SetTasks(s.tasks)
	}
}

func (s *scenario) run(cmd string, args []string) {
	switch cmd {
	case "config":
		s.config(args)
	case "catalog":
		services, ok := s.catalogs[args[0]]
		if !ok {
			s.Fatalf("%s: no catalog %s", s.where, args[0])
		}
		s.services = services
		s.p.SetCatalog(services)
	case "tasks":
		s.tasks = []lb.Task{}
		for i, arg := range args {
			name, spaces, _ := strings.Cut(arg, ":")
			s.tasks = append(s.tasks, lb.Task{Name: name, Namespaces: strings.Split(spaces, ","), NetnsCookie: uint64(100 + i)})
		}
		s.p.SetTasks(s.tasks)
	case "drain", "undrain":
		if err := s.p.Drain(serviceName(args[0]), netip.MustParseAddrPort(args[1]), cmd == "drain"); err != nil {
			fmt.Fprintf(&s.out, "error: %v\n", err)
		}
	case "verdict":
		v := lb.VerdictHealthy
		if args[2] == "unhealthy" {
			v = lb.VerdictUnhealthy
		}
		s.p.Observe([]lb.VerdictChange{{Endpoint: s.id(args), Verdict: v, Reason: strings.Join(args[3:], " ")}}, nil, nil)
	case "strike":
		i := slices.IndexFunc(s.last.Tasks, func(t *Task) bool { return t.Name == args[2] })
		strike := lb.Strike{Endpoint: s.id(args), Task: s.last.Tasks[i].ID, Count: uint32(s.number(args[3])), At: s.now}
		strike.HTTP = slices.Contains(args[4:], "http")
		s.p.Observe(nil, []lb.Strike{strike}, nil)
	case "active":
		s.p.Observe(nil, nil, map[lb.EndpointID]uint32{s.id(args): uint32(s.number(args[2]))})
	case "idle":
		counts := make(map[lb.EndpointID]uint32)
		for _, id := range s.last.Watch {
			counts[id] = 0
		}
		s.p.Observe(nil, nil, counts)
	case "step", "quiet":
		s.step(cmd, args)
	case "restart":
		s.restart(args)
	default:
		s.Fatalf("%s: unknown command %s", s.where, cmd)
	}
}

func (s *scenario) config(args []string) {
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		switch key {
		case "zone":
			s.cfg.Zone = value
		case "vip4":
			s.cfg.VIP4 = netip.MustParsePrefix(value)
		case "endpoints":
			s.cfg.MaxEndpoints = s.number(value)
		case "services":
			s.cfg.MaxServices = s.number(value)
		case "slots":
			s.cfg.MaxSlots = s.number(value)
		default:
			s.Fatalf("%s: unknown setting %s", s.where, key)
		}
	}
	s.start(s.journal)
}

func (s *scenario) step(cmd string, args []string) {
	if len(args) > 0 {
		d, err := time.ParseDuration(args[0])
		if err != nil {
			s.Fatalf("%s: %v", s.where, err)
		}
		s.now = s.now.Add(d)
	}
	d := s.p.Step(s.now)
	if d == s.last {
		fmt.Fprintf(&s.out, "unchanged\n")
		return
	}
	s.last = d
	s.journal = append(s.journal, d.Journal...)
	if cmd == "step" {
		printDesired(&s.out, d)
	} else {
		fmt.Fprintf(&s.out, "revision %d\n", d.Revision)
	}
	if d := s.p.Step(s.now); d != s.last {
		s.Errorf("%s: a second step at the same time is a change", s.where)
	}
}

// restart also checks that the snapshot says what the journal says.
func (s *scenario) restart(args []string) {
	if slices.Contains(args, "torn") {
		s.journal = append(s.journal, `vip "prod" "hal`...)
	}
	s.start(s.journal)
	long := string(s.p.Snapshot())
	s.journal = []byte(long)
	s.start(s.journal)
	if short := string(s.p.Snapshot()); short != long {
		s.Errorf("%s: snapshot of a snapshot differs:\n%s\nnot\n%s", s.where, short, long)
	}
}

func (s *scenario) id(args []string) lb.EndpointID {
	addr := netip.MustParseAddrPort(args[1])
	for _, svc := range s.last.Services {
		for _, e := range svc.Endpoints {
			if svc.Name == serviceName(args[0]) && e.Address == addr {
				return e.ID
			}
		}
	}
	s.Fatalf("%s: no endpoint %s of %s", s.where, args[1], args[0])
	return 0
}

func (s *scenario) number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		s.Fatalf("%s: %v", s.where, err)
	}
	return n
}

func serviceName(text string) lb.ServiceName {
	namespace, name, _ := strings.Cut(text, "/")
	return lb.ServiceName{Namespace: namespace, DiscoveryName: name}
}

// parseCatalog reads services, one a line, each followed by indented
// endpoints:
//
//	prod/orders alias=orders:80 check terminate=30s policy=sourceHash panic=0 max=100 http=proxy udp
//	  10.0.0.1:80 zone=a weight=3 draining task=web declared=pending
func parseCatalog(tb testing.TB, text string) []*lb.Service {
	out := []*lb.Service{}
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if line[0] != ' ' {
			out = append(out, parseService(tb, words))
			continue
		}
		e := lb.Endpoint{Address: netip.MustParseAddrPort(words[0]), Weight: 1}
		for _, w := range words[1:] {
			key, value, _ := strings.Cut(w, "=")
			switch key {
			case "zone":
				e.Zone = value
			case "weight":
				n, _ := strconv.Atoi(value)
				e.Weight = uint16(n)
			case "draining":
				e.Draining = true
			case "task":
				e.Task = value
			case "declared":
				for e.Declared.String() != value {
					if e.Declared++; e.Declared > lb.DeclaredUnhealthy {
						tb.Fatalf("unknown word %s", w)
					}
				}
			default:
				tb.Fatalf("unknown word %s", w)
			}
		}
		s := out[len(out)-1]
		s.Endpoints = append(s.Endpoints, e)
	}
	slices.SortFunc(out, func(a, b *lb.Service) int { return a.Name.Compare(b.Name) })
	for _, s := range out {
		slices.SortFunc(s.Endpoints, func(a, b lb.Endpoint) int { return a.Address.Compare(b.Address) })
	}
	return out
}

func parseService(tb testing.TB, words []string) *lb.Service {
	s := &lb.Service{Name: serviceName(words[0]), Protocol: lb.TCP, Outlier: lb.Outlier{
		ConsecutiveFailures: 5, BaseEjection: 30 * time.Second, MaxEjection: 300 * time.Second, MaxEjectionPercent: 50}}
	s.LoadBalancing.PanicThresholdPercent = 50
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		number, _ := strconv.Atoi(value)
		switch key {
		case "alias":
			name, port, _ := strings.Cut(value, ":")
			n, _ := strconv.Atoi(port)
			s.ClientAliases = append(s.ClientAliases, lb.ClientAlias{DNSName: name, Port: uint16(n)})
		case "check":
			s.HealthCheck = &lb.HealthCheck{Protocol: lb.CheckTCP}
		case "terminate":
			d, err := time.ParseDuration(value)
			if err != nil {
				tb.Fatal(err)
			}
			s.Drain = lb.Drain{Deadline: d, Terminate: true}
		case "policy":
			s.LoadBalancing.Policy, _ = lb.ParsePolicy(value)
		case "panic":
			s.LoadBalancing.PanicThresholdPercent = uint8(number)
		case "max":
			s.Outlier.MaxEjectionPercent = uint8(number)
		case "http":
			s.HTTP = &lb.HTTP{Direct: value == "direct"}
		case "udp":
			s.Protocol = lb.UDP
		default:
			tb.Fatalf("unknown word %s", w)
		}
	}
	return s
}

func printDesired(w *bytes.Buffer, d *Desired) {
	fmt.Fprintf(w, "revision %d%s\n", d.Revision, at(" wake", d.Wake))
	for _, s := range d.Services {
		fmt.Fprintf(w, "%s id %d namespace %d", s.Name, s.ID, s.NamespaceID)
		if s.Panic {
			fmt.Fprint(w, " PANIC")
		}
		if s.LastResort {
			fmt.Fprint(w, " LAST RESORT")
		}
		fmt.Fprintf(w, " v4 %s v6 %s\n", slotText(s.SlotsV4), slotText(s.SlotsV6))
		for _, n := range s.Names {
			fmt.Fprintf(w, "  %s", n.DNSName)
			for _, addr := range []netip.Addr{n.V4, n.V6} {
				if addr.IsValid() {
					fmt.Fprintf(w, " %s", addr)
				}
			}
			fmt.Fprintf(w, " %d\n", n.Ports)
		}
		for _, e := range s.Endpoints {
			fmt.Fprintf(w, "  %d %s %s", e.ID, e.Address, e.State)
			if e.Verdict != lb.VerdictUnknown {
				fmt.Fprintf(w, " %s", e.Verdict)
			}
			if e.Reason != "" {
				fmt.Fprintf(w, " %q", e.Reason)
			}
			fmt.Fprintf(w, "%s%s\n", at(" until", e.DrainUntil), at(" ejected", e.EjectUntil))
		}
	}
	for _, t := range d.Tasks {
		fmt.Fprintf(w, "task %s id %d scope %x", t.Name, t.ID, t.Scope[0])
		if len(t.Avoid) > 0 {
			fmt.Fprintf(w, " avoid %d", t.Avoid)
		}
		for _, s := range d.Serves(t.Name) {
			fmt.Fprintf(w, " serves %d", s.Endpoint.ID)
		}
		if !t.Ready {
			fmt.Fprintf(w, " NOT READY %q", d.Missing(t.Name))
		}
		fmt.Fprintln(w)
	}
	if len(d.Terminate) > 0 {
		fmt.Fprintf(w, "terminate %d\n", d.Terminate)
	}
	if len(d.Watch) > 0 {
		fmt.Fprintf(w, "watch %d\n", d.Watch)
	}
	for _, problem := range d.Problems {
		fmt.Fprintf(w, "problem: %s\n", problem)
	}
}

func at(label string, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return label + " +" + t.Sub(epoch).String()
}

// slotText writes a table, and only the shares of a long one.
func slotText(table []lb.EndpointID) string {
	if len(table) <= 16 {
		return fmt.Sprint(table)
	}
	shares := make(map[lb.EndpointID]int)
	for _, id := range table {
		shares[id]++
	}
	text := fmt.Sprintf("[%d slots:", len(table))
	for _, id := range slices.Sorted(func(yield func(lb.EndpointID) bool) {
		for id := range shares {
			if !yield(id) {
				return
			}
		}
	}) {
		text += fmt.Sprintf(" %dx%d", id, shares[id])
	}
	return text + "]"
}
