package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectd/pkg/control"
	"connectd/pkg/testutil"
	"connectd/pkg/testutil/aws"
)

// metadata leads the SDK to an instance's metadata; with no params to nobody.
func metadata(t *testing.T, p *aws.NodeParams) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "false")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"+l.Addr().String())
	if p == nil {
		l.Close()
		return
	}
	p.Name, p.InstanceID = "node", "i-1"
	s := aws.Start(l, aws.New(aws.Params{}), aws.NewNode(*p))
	t.Cleanup(s.Close)
}

const twoZones = `namespace: prod
services:
  - discoveryName: web
    clientAliases: [{dnsName: web, port: 80}]
    endpoints:
      - {address: 10.0.0.1, port: 80, zone: use1-az1}
      - {address: 10.0.0.2, port: 80, zone: use1-az2}
      - {address: 10.0.0.3, port: 80, zone: use1-az1}
      - {address: 10.0.0.4, port: 80, zone: use1-az2}
`

// preferred is the zone of all endpoints that new connections go to, "" when
// there are several.
func (n *node) preferred() string {
	s := n.d.loop.Desired().Services[0]
	zones := map[string]bool{}
	last := ""
	for i := range s.Endpoints {
		if e := &s.Endpoints[i]; slices.Contains(s.SlotsV4, e.ID) {
			zones[e.Zone], last = true, e.Zone
		}
	}
	if len(zones) != 1 {
		return ""
	}
	return last
}

func (n *node) noZone() (out []control.Problem) {
	return slices.DeleteFunc(n.d.status().Problems, func(p control.Problem) bool { return p.Name != "noZone" })
}

// TestZoneAuto: off EC2 no zone is preferred and status says why; on it the plan
// follows what the instance says, after the start; and a start without an answer
// goes on with what was said before.
func TestZoneAuto(t *testing.T) {
	n := newNode(t)
	n.configure(testutil.BPFFS(t), "  []\n")
	config, err := os.ReadFile(n.config)
	if err != nil {
		t.Fatal(err)
	}
	n.write("connectd.yaml", string(config)+"zone: auto\n")
	n.write("catalog.yaml", twoZones)
	kept := filepath.Join(n.dir, "state", "zone")

	metadata(t, nil)
	n.start()
	testutil.Eventually(t, 10*time.Second, func() error {
		if got := n.noZone(); len(got) != 1 || got[0].Fix == "" {
			return fmt.Errorf("off EC2 status says %v", got)
		}
		return nil
	})
	if zone := n.preferred(); zone != "" || n.d.status().Zone != "" {
		t.Errorf("off EC2 zone %q is preferred", zone)
	}
	n.stop()
	if _, err := os.Stat(kept); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("off EC2 a zone is kept: %v", err)
	}

	expect := func(zone string) {
		t.Helper()
		n.start()
		defer n.stop()
		testutil.Eventually(t, 10*time.Second, func() error {
			if got := n.preferred(); got != zone || n.d.status().Zone != zone || len(n.noZone()) > 0 {
				return fmt.Errorf("zone %q is preferred, status says %q %v, want %s", got, n.d.status().Zone, n.noZone(), zone)
			}
			text, err := os.ReadFile(kept)
			if !strings.HasPrefix(string(text), zone+" ") {
				return fmt.Errorf("kept is %q: %v", text, err)
			}
			return nil
		})
	}
	metadata(t, &aws.NodeParams{Zone: "us-east-1d", ZoneID: "use1-az2"})
	expect("use1-az2")
	metadata(t, nil)
	n.start()
	if zone := n.preferred(); zone != "use1-az2" {
		t.Errorf("the first plan of a start without metadata prefers %q", zone)
	}
	n.stop()
	expect("use1-az2")
	// The disk of an instance in another zone.
	metadata(t, &aws.NodeParams{Zone: "us-east-1a", ZoneID: "use1-az1"})
	expect("use1-az1")
}

// TestZoneIsMissedOnce: the log does not repeat what does not change.
func TestZoneIsMissedOnce(t *testing.T) {
	for _, test := range []struct{ kept, want string }{
		{"", "none is preferred"}, {"use1-az1", "going on with the one it said earlier"},
	} {
		var text bytes.Buffer
		d := &daemon{log: slog.New(slog.NewTextHandler(&text, nil))}
		d.zone.zone.id = test.kept
		for range 3 {
			d.missZone(errors.New("nobody answers"))
		}
		if got := text.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, test.want) {
			t.Errorf("kept %q: logged %q", test.kept, got)
		}
		if got := d.zone.status(); (len(got) == 0) != (test.kept != "") {
			t.Errorf("kept %q: status says %v", test.kept, got)
		}
	}
}

// TestKeptZone: a file that names no zone is no zone.
func TestKeptZone(t *testing.T) {
	for _, text := range []string{"", " \n", "use1-az1 us-east-1a more", "Zone!", strings.Repeat("z", 65)} {
		dir := t.TempDir()
		if err := os.WriteFile(zonePath(dir), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if z, err := readZone(dir); err == nil || z != (zone{}) {
			t.Errorf("%q: %v, %v", text, z, err)
		}
	}
	for _, want := range []zone{{"use1-az1", "us-east-1a"}, {"use1-az1", ""}} {
		dir := t.TempDir()
		if err := writeZone(dir, want); err != nil {
			t.Fatal(err)
		}
		if got, err := readZone(dir); got != want || err != nil {
			t.Errorf("kept %v, read %v, %v", want, got, err)
		}
	}
}

// TestDoctorZone: doctor asks the instance too.
func TestDoctorZone(t *testing.T) {
	for name, test := range map[string]struct {
		node     *aws.NodeParams
		kept     string
		severity control.Severity
		detail   string
	}{
		"on EC2":       {&aws.NodeParams{Zone: "us-east-1a", ZoneID: "use1-az1"}, "", control.SeverityOK, "the instance is in use1-az1"},
		"no zone id":   {&aws.NodeParams{Zone: "us-east-1a"}, "", control.SeverityWarn, "none is preferred: get the instance's zone"},
		"off EC2":      {nil, "", control.SeverityWarn, "none is preferred: get instance identity"},
		"out of reach": {nil, "use1-az2", control.SeverityOK, "said earlier that it is in use1-az2"},
	} {
		t.Run(name, func(t *testing.T) {
			metadata(t, test.node)
			c := &Config{Zone: zoneAuto, StateDir: t.TempDir()}
			if test.kept != "" {
				if err := writeZone(c.StateDir, zone{test.kept, ""}); err != nil {
					t.Fatal(err)
				}
			}
			x := &examination{}
			x.zone(t.Context(), c)
			if len(x.checks) != 1 || x.checks[0].Severity != test.severity || !strings.Contains(x.checks[0].Detail, test.detail) {
				t.Errorf("doctor says %v", x.checks)
			}
		})
	}
	for _, zone := range []string{"", "use1-az1"} {
		x := &examination{}
		if x.zone(t.Context(), &Config{Zone: zone}); len(x.checks) > 0 {
			t.Errorf("zone %q: doctor says %v", zone, x.checks)
		}
	}
}
