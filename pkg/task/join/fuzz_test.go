package join

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"connectd/pkg/lb"
	"connectd/pkg/settings"
)

func FuzzServiceConnect(f *testing.F) {
	f.Add(ordersConnect)
	f.Add(`{"enabled": true, "services": [{"portName": "http", "clientAliases": [{"port": 80, "dnsName": "a", "testTrafficRules": {}}], "tls": {}}]}`)
	f.Add(`{"enabled": true, "namespace": "` + anARN + `", "services": [{"portName": "tcp", "ingressPortOverride": 1, "timeout": {"idleTimeoutSeconds": 1}}]}`)
	f.Add(`{"enabled": true, "namespace": "prod", "logConfiguration": {}, "accessLogConfiguration": {}}`)
	f.Fuzz(func(t *testing.T, text string) {
		checkDecode(t, task("connectd.serviceConnect", text, "connectd.ports", ordersPorts))
		lookUp := task("connectd.serviceConnect", text)
		checkDecode(t, lookUp)
		lookUp.PortsKnown, lookUp.PortMappings = true, []lb.PortMapping{{Name: "http", ContainerPort: 1, Protocol: lb.UDP}, {Name: "tcp", Protocol: lb.TCP}}
		lookUp.DefaultNamespace, lookUp.NamespaceName = "tools", func(string) (string, bool) { return "prod", true }
		checkDecode(t, lookUp)
	})
}

func FuzzPorts(f *testing.F) {
	f.Add(ordersPorts, "")
	f.Add(`[{"name": "http", "containerPort": 53, "protocol": "udp"}]`, `[{"containerPortRange": "1-2", "hostPort": 0}]`)
	f.Add(`[]`, ordersPorts)
	f.Fuzz(func(t *testing.T, app, other string) {
		two := task("connectd.serviceConnect", ordersConnect, "connectd.ports", app)
		two.Containers = append(two.Containers, container("other", "connectd.ports", other))
		checkDecode(t, two)
	})
}

func FuzzService(f *testing.F) {
	f.Add(`{}`, `{"mode": "direct"}`)
	f.Add(`{"healthCheck": {"protocol": "http", "path": "/a"}, "retry": {"attempts": 0}}`, `{"drain": {"connections": "leave"}}`)
	f.Add(`{"accessLog": {"format": "TEXT", "path": "-"}, "outlier": {}, "loadBalancing": {"policy": "random"}}`, ``)
	f.Fuzz(func(t *testing.T, all, one string) {
		checkDecode(t, task("connectd.serviceConnect", ordersConnect, "connectd.ports", ordersPorts, "connectd.service", all))
		checkDecode(t, task("connectd.serviceConnect", ordersConnect, "connectd.ports", ordersPorts, "connectd.service", all, "connectd.service.orders", one))
	})
}

// FuzzLabels: any key, any value, in two containers, with an image.
func FuzzLabels(f *testing.F) {
	f.Add("connectd.off", "true", "connectd.off", "false")
	f.Add("connectd.service.orders", "{}", "connectd.serviceConnect", ordersConnect)
	f.Add("connectd.serviceconnect", "", "CONNECTD.", "\xff")
	f.Fuzz(func(t *testing.T, key, value, key2, value2 string) {
		checkDecode(t, Task{Family: value, Containers: []Container{
			{Name: key, Labels: map[string]string{key: value}, ImageLabels: map[string]string{key2: value2}},
			{Name: value2, Labels: map[string]string{key2: value2}, ImageLabels: map[string]string{key: value2}},
		}})
	})
}

// checkDecode holds a result to what Result and lb.Service promise.
func checkDecode(t *testing.T, task Task) {
	t.Helper()
	for _, policy := range []Policy{
		{},
		{JoinAll: true, Namespaces: []string{"prod", "tools"}, Publish: []PublishRule{{"orders-*", []string{"orders", "http"}}}},
	} {
		r := Decode(task, policy)
		if again := Decode(task, policy); !reflect.DeepEqual(again, r) {
			t.Errorf("decoded again:\n%swas\n%s", show(again), show(r))
		}
		checkProblems(t, r.Problems, Refusals())
		checkProblems(t, r.Notes, Remarks())
		joins := r.Client || len(r.Services) > 0 || len(r.Namespaces) > 0
		switch {
		case joins && (r.Off || len(r.Problems) > 0 || r.NeedsNamespace != "" || r.Namespace == "" || !slices.Contains(r.Namespaces, r.Namespace)):
			t.Errorf("joins all the same:\n%s", show(r))
		case len(r.Services) > 0 && (r.NeedsPorts || !r.Client):
			t.Errorf("serves all the same:\n%s", show(r))
		}
		for _, ns := range r.Namespaces {
			if settings.CheckNamespace(ns) != "" || !policy.mayJoin(ns) {
				t.Errorf("namespace %q", ns)
			}
		}
		checkServices(t, task, r, policy)
	}
}

func checkServices(t *testing.T, task Task, r Result, policy Policy) {
	t.Helper()
	names, aliases := map[lb.ServiceName]bool{}, map[lb.ClientAlias]bool{}
	for _, s := range r.Services {
		name := s.Name.DiscoveryName
		if names[s.Name] || s.Name.Namespace != r.Namespace || settings.CheckDiscoveryName(name) != "" || !policy.mayPublish(task.Family, name) {
			t.Errorf("name %q", s.Name)
		}
		names[s.Name] = true
		if s.Protocol != s.Port.Protocol || s.Port.ContainerPort == 0 || (s.HTTP != nil) != (s.Port.AppProtocol != "") || len(s.Endpoints) != 0 {
			t.Errorf("service %+v at %+v", s.Service, s.Port)
		}
		if len(s.ClientAliases) == 0 {
			t.Errorf("service %s has no alias", s.Name)
		}
		for _, a := range s.ClientAliases {
			if aliases[a] || a.Port == 0 || settings.CheckLabels(a.DNSName) != "" || len(a.DNSName) > 253 {
				t.Errorf("alias %v", a)
			}
			aliases[a] = true
		}
		// Other nodes must be able to read what this one says of it.
		if _, err := settings.Parse("s", []byte(settings.Encode(s.Service))); err != nil {
			t.Errorf("settings of %s: %s", s.Name, err)
		}
	}
}

func checkProblems(t *testing.T, list []Problem, reasons []string) {
	t.Helper()
	if len(list) > maxProblems {
		t.Errorf("%d problems", len(list))
	}
	for _, p := range list {
		if !slices.Contains(reasons, p.Reason) || p.Field == "" || p.Detail == "" || len(p.Field) > maxText || len(p.Detail) > maxText ||
			!strings.HasPrefix(p.Field, "label ") && p.Field != "ecs.join" || !utf8.ValidString(p.Detail) {
			t.Errorf("problem %+v", p)
		}
	}
}
