package join

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"connectd/pkg/lb"
	"connectd/pkg/strictyaml"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const anARN = "arn:aws:servicediscovery:eu-west-1:123456789012:namespace/ns-abc"

func (c cases) run(t *testing.T) {
	t.Helper()
	for _, tt := range c {
		t.Run(tt.name, func(t *testing.T) {
			if got := show(Decode(tt.task, tt.policy)); got != tt.want {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
		})
	}
}

func TestJoin(t *testing.T) {
	both := []string{"connectd.serviceConnect", ordersConnect, "connectd.ports", ordersPorts}
	looked := task("connectd.serviceConnect", ordersConnect)
	looked.PortsKnown, looked.PortMappings = true, []lb.PortMapping{{Container: "app", Name: "http", ContainerPort: 8080, Protocol: lb.TCP, AppProtocol: "http"}}
	none := looked
	none.PortMappings = nil
	over := task(both...)
	over.PortsKnown = true // and none: the label counts
	apart := Task{Containers: []Container{
		container("proxy", "connectd.serviceConnect", ordersConnect),
		container("app", "connectd.ports", ordersPorts),
		container("agent", "connectd.ports", `[{"name": "stats", "containerPort": 9000}]`, "connectd.serviceConnect", " "+ordersConnect+"\n"),
		container("bare"),
	}}
	cases{
		{"no labels", task(), Policy{}, ""},
		{"no containers", Task{}, Policy{}, ""},
		{"client only", task("connectd.serviceConnect", `{"enabled": true, "namespace": "prod"}`), Policy{}, "client of prod\n"},
		{"client only, empty services", task("connectd.serviceConnect", `{"enabled": true, "namespace": "prod", "services": []}`), Policy{}, "client of prod\n"},
		{"server", task(both...), Policy{}, "client of prod\n" + ordersServed},
		{"labels anywhere", apart, Policy{}, "client of prod\n" + ordersServed},
		{"not enabled", task("connectd.serviceConnect", `{"enabled": false}`), Policy{JoinAll: true, Namespaces: []string{"prod"}}, ""},
		{"ports to look up", task("connectd.serviceConnect", ordersConnect), Policy{}, "client of prod\nneeds ports\n"},
		{"ports looked up", looked, Policy{}, "client of prod\n" + ordersServed},
		{"ports looked up in vain", none, Policy{}, "refused unknown_port: label connectd.serviceConnect: services[0].portName: \"http\" is the name of no port mapping; there is none with a name\n"},
		{"label over what was looked up", over, Policy{}, "client of prod\n" + ordersServed},
		{"labels differ", Task{Containers: []Container{container("b", "connectd.serviceConnect", `{"enabled": true, "namespace": "prod"}`), container("a", "connectd.serviceConnect", `{"enabled": false}`)}}, Policy{},
			"refused labels_differ: label connectd.serviceConnect: containers \"a\" and \"b\" say it differently\n"},
		{"mistyped label", task("connectd.serviceconnect", ordersConnect, "connectd.x", "", "Connectd.Off", "true"), Policy{}, `noted unknown_label: label Connectd.Off: of container "app" means nothing, did you mean connectd.off?
noted unknown_label: label connectd.serviceconnect: of container "app" means nothing, did you mean connectd.serviceConnect?
noted unknown_label: label connectd.x: of container "app" means nothing
`},
		{"labels of no use", task("connectd.ports", ordersPorts, "connectd.service", "{}"), Policy{}, `noted unused_label: label connectd.ports: means nothing without connectd.serviceConnect
noted unused_label: label connectd.service: means nothing without connectd.serviceConnect
`},
		{"too large", task("connectd.serviceConnect", strings.Repeat(" ", strictyaml.MaxJSON+1)), Policy{JoinAll: true, Namespaces: []string{"prod"}},
			"refused too_large: label connectd.serviceConnect: of container \"app\" is larger than 65536 bytes\n"},
	}.run(t)
}

func TestOff(t *testing.T) {
	connect := []string{"connectd.serviceConnect", ordersConnect, "connectd.ports", ordersPorts}
	all := Policy{JoinAll: true, Namespaces: []string{"prod"}}
	cases{
		{"off", task(append(connect, "connectd.off", "true")...), Policy{}, "off\n"},
		{"off, join all", task("connectd.off", "true"), all, "off\n"},
		{"one of two containers", Task{Containers: []Container{container("a", connect...), container("b", "connectd.off", "true")}}, Policy{}, "off\n"},
		{"whatever else is said", task("connectd.off", "true", "connectd.serviceConnect", "{"), Policy{}, "off\n"},
		{"not off", task(append(connect, "connectd.off", "false")...), Policy{}, "client of prod\n" + ordersServed},
		{"in doubt", task(append(connect, "connectd.off", "yes")...), Policy{}, "off\nrefused invalid_field: label connectd.off: \"yes\" of container \"app\" is neither true nor false, so the task is off\n"},
	}.run(t)
}

// TestImage: an image cannot name itself orders, nor take its task off.
func TestImage(t *testing.T) {
	image := func(inImage map[string]string) Task {
		task := task("connectd.serviceConnect", ordersConnect, "connectd.ports", ordersPorts)
		task.Containers[0].ImageLabels = inImage
		return task
	}
	off := Task{Containers: []Container{{Name: "app", Labels: labels("connectd.off", "true"), ImageLabels: labels("connectd.off", "true")}}}
	cases{
		{"the same", image(labels("connectd.serviceConnect", ordersConnect)), Policy{}, `noted image_label: label connectd.serviceConnect: of container "app" stands in its image too, so it does not count
noted unused_label: label connectd.ports: means nothing without connectd.serviceConnect
`},
		{"ports", image(labels("connectd.ports", ordersPorts)), Policy{}, "client of prod\nneeds ports\nnoted image_label: label connectd.ports: of container \"app\" stands in its image too, so it does not count\n"},
		{"another", image(labels("connectd.serviceConnect", "{}")), Policy{}, "client of prod\n" + ordersServed},
		{"off", off, Policy{JoinAll: true, Namespaces: []string{"prod"}}, "client of prod\nnoted image_label: label connectd.off: of container \"app\" stands in its image too, so it does not count\n"},
	}.run(t)
}

func TestNamespace(t *testing.T) {
	client := func(namespace, byDefault string, known bool, lookup func(string) (string, bool)) Task {
		text := `{"enabled": true}`
		if namespace != "" {
			text = `{"enabled": true, "namespace": "` + namespace + `"}`
		}
		c := task("connectd.serviceConnect", text)
		c.DefaultNamespace, c.DefaultKnown, c.NamespaceName = byDefault, known, lookup
		return c
	}
	is := func(name string, ok bool) func(string) (string, bool) {
		return func(arn string) (string, bool) { return name, ok && arn == anARN }
	}
	server := client("", "", false, nil)
	server.Containers[0].Labels["connectd.serviceConnect"] = `{"enabled": true, "services": [{"portName": "http", "clientAliases": [{"port": 80}]}]}`
	served := server
	served.DefaultNamespace, served.PortsKnown, served.PortMappings = "tools", true, []lb.PortMapping{{Name: "http", ContainerPort: 8080, Protocol: lb.TCP}}
	at := "label connectd.serviceConnect: namespace: "
	prod := Policy{Namespaces: []string{"prod", "tools"}}
	cases{
		{"name", client("prod", "tools", true, nil), Policy{}, "client of prod\n"},
		{"arn", client(anARN, "", false, is("prod", true)), prod, "client of prod\n"},
		{"arn to look up", client(anARN, "", false, is("", false)), Policy{}, "needs namespace " + anARN + "\n"},
		{"arn, no lookup", client(anARN, "", false, nil), Policy{}, "needs namespace " + anARN + "\n"},
		{"arn of none", client(anARN, "", false, is("", true)), Policy{}, "refused unknown_namespace: " + at + `"` + anARN + "\" names no namespace\n"},
		{"no arn of a namespace", client("arn:aws:sns:eu-west-1:1:namespace/ns-abc", "", false, nil), Policy{}, "refused invalid_field: " + at + "\"arn:aws:sns:eu-west-1:1:namespace/ns-abc\" is no ARN of a namespace\n"},
		{"arn too short", client("arn:aws:servicediscovery", "", false, nil), Policy{}, "refused invalid_field: " + at + "\"arn:aws:servicediscovery\" is no ARN of a namespace\n"},
		{"default", client("", "tools", false, nil), Policy{}, "client of tools\n"},
		{"default is an arn", client("", anARN, true, is("tools", true)), Policy{}, "client of tools\n"},
		{"default is an arn to look up", client("", anARN, true, nil), Policy{}, "needs namespace " + anARN + "\n"},
		{"default to look up", client("", "", false, nil), Policy{}, "needs namespace default\n"},
		{"no default", client("", "", true, nil), Policy{}, "refused no_namespace: " + at + "names none, and the cluster has no default\n"},
		{"not allowed", client("dev", "", false, nil), prod, "refused namespace_not_allowed: " + at + "\"dev\" may not be joined on this node (ecs.namespaces)\n"},
		{"default not allowed", client("", "dev", false, nil), prod, "refused namespace_not_allowed: " + at + "\"dev\" may not be joined on this node (ecs.namespaces)\n"},
		{"arn not allowed", client(anARN, "", false, is("dev", true)), prod, "refused namespace_not_allowed: " + at + "\"dev\" may not be joined on this node (ecs.namespaces)\n"},
		{"no dns name", client("Prod", "", false, nil), Policy{}, "refused invalid_field: " + at + "\"Prod\" has upper-case letters, write \"prod\"\n"},
		{"empty", task("connectd.serviceConnect", `{"enabled": true, "namespace": ""}`), Policy{}, "refused invalid_field: " + at + "\"\" is no name, leave it out for the cluster's default\n"},
		{"no text", task("connectd.serviceConnect", `{"enabled": true, "namespace": 7}`), Policy{}, "refused invalid_field: " + at + "7 is not a string (put it in quotes)\n"},
		{"server to look up all for", server, Policy{}, "needs namespace default\nneeds ports\n"},
		{"name by default", served, Policy{}, "client of tools\nserves tools/http on tcp :8080 as http.tools:80 {}\n"},
	}.run(t)
}

func TestJoinAll(t *testing.T) {
	known := Task{DefaultNamespace: "tools"}
	all := Policy{JoinAll: true, Namespaces: []string{"prod", "dev"}}
	cases{
		{"namespaces", task(), all, "client of prod, dev\n"},
		{"default", known, Policy{JoinAll: true}, "client of tools\n"},
		{"default to look up", Task{}, Policy{JoinAll: true}, "needs namespace default\n"},
		{"no default", Task{DefaultKnown: true}, Policy{JoinAll: true}, "refused no_namespace: ecs.join: names none, and the cluster has no default\n"},
		{"label goes first", task("connectd.serviceConnect", `{"enabled": true, "namespace": "dev"}`), all, "client of dev\n"},
		{"bad label", task("connectd.serviceConnect", `{}`), all, "refused invalid_field: label connectd.serviceConnect: enabled: is missing\n"},
	}.run(t)
}

func TestPublish(t *testing.T) {
	server := task("connectd.serviceConnect", ordersConnect, "connectd.ports", ordersPorts)
	rule := func(family string, names ...string) PublishRule { return PublishRule{family, names} }
	refused := "refused name_not_allowed: label connectd.serviceConnect: services[0]: \"orders\" may not be published by family \"orders-blue\" on this node (ecs.publish)\n"
	cases{
		{"any", server, Policy{}, "client of prod\n" + ordersServed},
		{"allowed", server, Policy{Publish: []PublishRule{rule("web", "web"), rule("orders-*", "x", "orders")}}, "client of prod\n" + ordersServed},
		{"another name", server, Policy{Publish: []PublishRule{rule("orders-*", "order")}}, refused},
		{"another family", server, Policy{Publish: []PublishRule{rule("orders", "orders"), rule("web-*", "orders")}}, refused},
		{"bad pattern", server, Policy{Publish: []PublishRule{rule("[", "orders")}}, refused},
		{"clients need none", task("connectd.serviceConnect", `{"enabled": true, "namespace": "prod"}`), Policy{Publish: []PublishRule{rule("web", "web")}}, "client of prod\n"},
	}.run(t)
}

func TestPolicyEqual(t *testing.T) {
	p := Policy{JoinAll: true, Namespaces: []string{"a"}, Publish: []PublishRule{{"f", []string{"n"}}}}
	same := Policy{JoinAll: true, Namespaces: []string{"a"}, Publish: []PublishRule{{"f", []string{"n"}}}}
	if !p.Equal(same) || !(Policy{}).Equal(Policy{Namespaces: []string{}}) {
		t.Error("equal policies differ")
	}
	for _, o := range []Policy{
		{},
		{Namespaces: p.Namespaces, Publish: p.Publish},
		{JoinAll: true, Namespaces: []string{"b"}, Publish: p.Publish},
		{JoinAll: true, Namespaces: p.Namespaces, Publish: []PublishRule{{"g", []string{"n"}}}},
		{JoinAll: true, Namespaces: p.Namespaces, Publish: []PublishRule{{"f", []string{"n", "m"}}}},
	} {
		if p.Equal(o) || o.Equal(p) {
			t.Errorf("%+v equals %+v", o, p)
		}
	}
}

// TestBounds: what anybody may write is told in bounded words.
func TestBounds(t *testing.T) {
	many := `{"enabled": true, "namespace": "prod"` + strings.Repeat(`, "`+strings.Repeat("ü", 200)+`": 1`, 100) + `}`
	r := Decode(task("connectd.serviceConnect", many, "connectd."+strings.Repeat("ü", 500), ""), Policy{})
	for range 100 {
		r.Notes = append(r.Notes, Decode(task("connectd."+strings.Repeat("x", 1000), ""), Policy{}).Notes...)
	}
	if len(r.Problems) == 0 || len(r.Problems) > maxProblems {
		t.Errorf("%d problems", len(r.Problems))
	}
	for _, p := range append(r.Problems, r.Notes...) {
		if len(p.Field) > maxText || len(p.Detail) > maxText {
			t.Errorf("long problem %s", p)
		}
	}
	var unknown []string
	for i := range 100 {
		unknown = append(unknown, "connectd."+strings.Repeat("y", i+20), "")
	}
	if n := len(Decode(task(unknown...), Policy{}).Notes); n != maxProblems {
		t.Errorf("%d notes, want %d", n, maxProblems)
	}
}
