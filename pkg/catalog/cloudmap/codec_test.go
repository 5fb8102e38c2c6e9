package cloudmap

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	sdtypes "github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"

	"connectd/pkg/lb"
)

func fullInstance() instance {
	return instance{
		ID: "t1-8080", V4: netip.MustParseAddr("10.0.0.1"), V6: netip.MustParseAddr("fd00::1"), Port: 8080, ZoneName: "us-east-1a",
		Zone: "use1-az1", State: stateDraining, Weight: 7, Node: "i-1", Task: "arn:aws:ecs:us-east-1:1:task/main/t1", Share: 10, UDP: true,
		Aliases:    []lb.ClientAlias{{DNSName: "orders", Port: 80}, {DNSName: "orders.corp", Port: 8080}},
		ECSService: "orders-v2", Cluster: "main",
		Settings: `{"appProtocol":"http"}`, Since: 1764331200000, Sequence: 1764331201,
	}
}

func TestInstanceRoundTrip(t *testing.T) {
	in := fullInstance()
	attrs, err := in.encode("main", "orders-v2", "orders")
	if err != nil {
		t.Fatal(err)
	}
	got, reason := decodeInstance(in.ID, attrs, "")
	if reason != "" || !reflect.DeepEqual(got, in) {
		t.Errorf("%s\n got %+v\nwant %+v", reason, got, in)
	}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var kept instance
	if err := json.Unmarshal(text, &kept); err != nil || !reflect.DeepEqual(kept, in) {
		t.Errorf("state file: %v\n got %+v\nwant %+v", err, kept, in)
	}
}

func TestDecodeInstance(t *testing.T) {
	base := map[string]string{attrIPv4: "10.0.0.1", attrPort: "8080"}
	for _, tt := range []struct {
		name   string
		change map[string]string
		want   string
	}{
		{"as ECS makes it", map[string]string{attrZoneName: "us-east-1a", "REGION": "us-east-1", attrCluster: "main"}, ""},
		{"no port", map[string]string{attrPort: ""}, reasonNoPort},
		{"port 0", map[string]string{attrPort: "0"}, reasonBadAttribute},
		{"port of five digits", map[string]string{attrPort: "70000"}, reasonBadAttribute},
		{"no address", map[string]string{attrIPv4: ""}, reasonNoAddress},
		{"IPv6 only", map[string]string{attrIPv4: "", attrIPv6: "fd00::1"}, ""},
		{"name for an address", map[string]string{attrIPv4: "host"}, reasonBadAddress},
		{"IPv6 in IPv4's place", map[string]string{attrIPv4: "fd00::1"}, reasonBadAddress},
		{"mapped", map[string]string{attrIPv6: "::ffff:10.0.0.1"}, reasonBadAddress},
		{"zoned", map[string]string{attrIPv6: "fe80::1%eth0"}, reasonBadAddress},
		{"unspecified", map[string]string{attrIPv4: "0.0.0.0"}, reasonBadAddress},
		{"broadcast", map[string]string{attrIPv4: "255.255.255.255"}, reasonBadAddress},
		{"weight 0", map[string]string{attrWeight: "0"}, reasonBadAttribute},
		{"share of more than all", map[string]string{attrShare: "101"}, reasonBadAttribute},
		{"a state nobody knows", map[string]string{attrState: "sleepy"}, reasonBadAttribute},
		{"zone of capitals", map[string]string{attrZone: "USE1"}, reasonBadAttribute},
		{"alias without port", map[string]string{attrAliases: "orders"}, reasonBadAttribute},
		{"alias that is an address", map[string]string{attrAliases: "10.0.0.1:80"}, reasonBadAttribute},
		{"sequence of words", map[string]string{attrSequence: "many"}, reasonBadAttribute},
		{"negative time", map[string]string{attrSince: "-1"}, reasonBadAttribute},
	} {
		attrs := maps.Clone(base)
		for k, v := range tt.change {
			if attrs[k] = v; v == "" {
				delete(attrs, k)
			}
		}
		if _, reason := decodeInstance("id", attrs, sdtypes.HealthStatusHealthy); reason != tt.want {
			t.Errorf("%s: reason %q, want %q", tt.name, reason, tt.want)
		}
	}
	if in, _ := decodeInstance("id", base, sdtypes.HealthStatusUnhealthy); in.State != stateUnhealthy {
		t.Error("ECS's health does not count")
	}
}

func TestAttributeLimits(t *testing.T) {
	many := map[string]string{}
	for i := range maxAttributes + 1 {
		many[fmt.Sprint(i)] = "x"
	}
	big := map[string]string{}
	for i := range 5 {
		big[fmt.Sprint(i)] = strings.Repeat("x", 1000)
	}
	for name, attrs := range map[string]map[string]string{
		"31 attributes": many, "5,005 characters": big,
		"a long value": {"a": strings.Repeat("x", maxValue+1)}, "a long key": {strings.Repeat("x", maxKey+1): "a"},
		"a character that is not ASCII": {"a": "ö"}, "a space at the end": {"a": "b "}, "a new line": {"a": "b\nc"},
	} {
		if checkAttributes(attrs) == nil {
			t.Errorf("%s passes", name)
		}
	}
}

func TestIndexRoundTrip(t *testing.T) {
	e := &indexEntry{Node: "i-1", Instance: "arn:aws:ecs:us-east-1:1:container-instance/main/1", More: 99, Services: map[string]served{}}
	for i := range 40 {
		e.Services[fmt.Sprintf("service-%02d", i)] = served{Sequence: uint64(1764331200 + i), Count: i, Aliases: []lb.ClientAlias{{DNSName: "a.b", Port: uint16(i + 1)}}}
	}
	attrs := e.encode()
	if err := checkAttributes(attrs); err != nil {
		t.Fatal(err)
	}
	got, err := decodeIndex("i-1", attrs)
	want := *e
	want.More, want.raw = 0, attrs // all found room
	if err != nil || !reflect.DeepEqual(got, &want) {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, want)
	}
	// What finds no room is represented by More, and the newest are listed.
	for i := range 1000 {
		e.Services[fmt.Sprintf("more-%03d-%s", i, strings.Repeat("x", i%50))] = served{Sequence: uint64(2000000000 + i), Count: 1}
	}
	attrs = e.encode()
	if err := checkAttributes(attrs); err != nil {
		t.Fatal(err)
	}
	if got, err = decodeIndex("i-1", attrs); err != nil || got.More != 99 {
		t.Errorf("%v, more %d", err, got.More)
	}
	if _, ok := got.Services["more-999-"+strings.Repeat("x", 49)]; !ok || len(got.Services) < 50 {
		t.Errorf("%d services, the newest: %v", len(got.Services), ok)
	}
}

func FuzzInstance(f *testing.F) {
	in := fullInstance()
	attrs, _ := in.encode("c", "s", "f")
	f.Add(attrs[attrIPv4], attrs[attrIPv6], attrs[attrPort], attrs[attrState], attrs[attrAliases], attrs[attrSettings], attrs[attrSince], attrs[attrWeight], attrs[attrZone])
	f.Add("", "::1", "0", "x", "a:b,c", "{", "-1", "99999", "Z")
	f.Fuzz(func(t *testing.T, v4, v6, port, state, aliases, text, since, weight, zone string) {
		attrs := map[string]string{
			attrIPv4: v4, attrIPv6: v6, attrPort: port, attrState: state, attrAliases: aliases, attrSettings: text,
			attrSince: since, attrSequence: since, attrWeight: weight, attrShare: weight, attrZone: zone,
		}
		in, reason := decodeInstance("id", attrs, "")
		if reason != "" {
			return
		}
		if in.Port == 0 || in.Weight == 0 || len(in.addrPorts()) == 0 || len(in.Aliases) > maxAliases {
			t.Errorf("accepted: %+v", in)
		}
		for _, a := range in.Aliases {
			if a.Port == 0 || a.DNSName == "" || len(a.DNSName) > lb.MaxDNSName {
				t.Errorf("accepted alias %+v", a)
			}
		}
		if s, err := decodeSettings(in.Settings); err == nil && s.LoadBalancing.PanicThresholdPercent > 100 {
			t.Errorf("accepted settings %+v", s)
		}
		again, err := in.encode("", "", "")
		if err != nil {
			return // what somebody else wrote may be more than we would
		}
		if back, reason := decodeInstance("id", again, ""); reason != "" || !reflect.DeepEqual(back, in) {
			t.Errorf("%s\n got %+v\nwant %+v", reason, back, in)
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add("1", "arn:x", "zz", "orders=abc.1!orders@80,x.y@81;cart=1.2", "a=1.0")
	f.Add("2", "", "-", "=.;", "a=1.-1!@")
	f.Fuzz(func(t *testing.T, version, arn, more, s0, s1 string) {
		e, err := decodeIndex("n", map[string]string{attrVersion: version, attrInstance: arn, attrMore: more, "s0": s0, "s1": s1})
		if err != nil {
			return
		}
		again, err := decodeIndex("n", e.encode())
		if err != nil {
			t.Fatalf("%s: %+v", err, e)
		}
		if again.More == 0 && !reflect.DeepEqual(again.Services, e.Services) {
			t.Errorf("\n got %+v\nwant %+v", again.Services, e.Services)
		}
	})
}
