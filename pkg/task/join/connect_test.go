package join

import (
	"strings"
	"testing"

	"connectd/pkg/lb"
)

// TestServices: each text is the service of a task with two port mappings.
func TestServices(t *testing.T) {
	ports := `[{"name": "http", "containerPort": 8080, "appProtocol": "http"}, {"name": "tcp", "containerPort": 6379, "hostPort": 7000},
		{"name": "dns", "containerPort": 53, "protocol": "udp"}, {"name": "range", "containerPortRange": "9000-9010"}, {"containerPort": 1}]`
	at := "label connectd.serviceConnect: services[0]"
	names := `there are "http", "tcp", "dns", "range"`
	for in, want := range map[string]string{
		`"portName": "http", "clientAliases": [{"port": 80}]`: "client of prod\nserves prod/http on tcp app:8080 as http.prod:80 {\"appProtocol\":\"http\"}\n",
		`"portName": "http"`: "client of prod\nserves prod/http on tcp app:8080 as http.prod:8080 {\"appProtocol\":\"http\"}\n",
		`"portName": "tcp", "discoveryName": "_c-1", "clientAliases": []`:                    "client of prod\nserves prod/_c-1 on tcp app:6379 (host port 7000) as _c-1.prod:6379 {}\n",
		`"portName": "dns", "clientAliases": [{"port": 53, "dnsName": "dns.internal"}]`:      "client of prod\nserves prod/dns on udp app:53 as dns.internal:53 {\"protocol\":\"udp\"}\n",
		`"portName": "tcp", "clientAliases": [{"port": 1, "dnsName": "a"}, {"port": 65535}]`: "client of prod\nserves prod/tcp on tcp app:6379 (host port 7000) as a:1,tcp.prod:65535 {}\n",

		``:                    "refused invalid_field: " + at + ".portName: is missing\n",
		`"portName": "none"`:  "refused unknown_port: " + at + ".portName: \"none\" is the name of no port mapping; " + names + "\n",
		`"portName": 80`:      "refused invalid_field: " + at + ".portName: 80 is not a string (put it in quotes)\n",
		`"portName": "HTTP"`:  "refused invalid_field: " + at + ".portName: \"HTTP\" has upper-case letters, write \"http\"\n",
		`"portName": "range"`: "refused unusable_port: " + at + ".portName: \"range\" is a range of ports\n",
		`"portName": "http", "discoveryName": "-a"`:                                                         "refused invalid_field: " + at + ".discoveryName: \"-a\" begins with -\n",
		`"portName": "http", "discoveryName": "` + strings.Repeat("a", 64) + `"`:                            "refused invalid_field: " + at + ".portName: the default dnsName \"" + strings.Repeat("a", 64) + ".prod\" has a label longer than 63 characters\n",
		`"portName": "http", "discoveryName": null`:                                                         "refused invalid_field: " + at + ".discoveryName: has no value\n",
		`"portName": "http", "port": 80`:                                                                    "refused invalid_field: " + at + ".port: unknown key\n",
		`"portName": "http", "PortName": "http"`:                                                            "refused invalid_field: " + at + ".PortName: unknown key (did you mean portName?)\n",
		`"portName": "http", "portName": "http"`:                                                            "refused invalid_field: " + at + ".portName: duplicate key\n",
		`"portName": "http", "clientAliases": {"port": 80}`:                                                 "refused invalid_field: " + at + ".clientAliases: a mapping is not a list\n",
		`"portName": "http", "clientAliases": [{"dnsName": "a"}]`:                                           "refused invalid_field: " + at + ".clientAliases[0].port: is missing\n",
		`"portName": "http", "clientAliases": [{"port": 0}]`:                                                "refused invalid_field: " + at + ".clientAliases[0].port: 0 is not in 1-65535\n",
		`"portName": "http", "clientAliases": [{"port": "80"}]`:                                             "refused invalid_field: " + at + ".clientAliases[0].port: \"80\" is not a whole number in decimal\n",
		`"portName": "http", "clientAliases": [{"port": 8e1}]`:                                              "refused invalid_field: " + at + ".clientAliases[0].port: 8e1 is not a whole number in decimal\n",
		`"portName": "http", "clientAliases": [{"port": 80, "dnsName": "a..b"}]`:                            "refused invalid_field: " + at + ".clientAliases[0].dnsName: \"a..b\" has an empty label\n",
		`"portName": "http", "clientAliases": [{"port": 80, "dnsName": "10.0.0.1"}]`:                        "refused invalid_field: " + at + ".clientAliases[0].dnsName: \"10.0.0.1\" is an address, programs would not look it up\n",
		`"portName": "http", "clientAliases": [{"port": 80, "dnsName": "a b"}]`:                             "refused invalid_field: " + at + ".clientAliases[0].dnsName: \"a b\" may have only lower-case letters, digits, _, - and .\n",
		`"portName": "http", "clientAliases": [{"port": 80, "dnsName": "a"}, {"port": 80, "dnsName": "a"}]`: "refused invalid_field: " + at + ".clientAliases[1]: a:80 stands here twice\n",

		`"portName": "http", "tls": {"issuerCertificateAuthority": {"awsPcaAuthorityArn": "x"}}`: "refused tls: " + at + ".tls: is not supported: what it asks to encrypt would be plaintext\n",
		`"portName": "http", "tls": {}`: "refused tls: " + at + ".tls: is not supported: what it asks to encrypt would be plaintext\n",
		`"portName": "http", "clientAliases": [{"port": 80, "testTrafficRules": {"header": {"name": "a", "value": {"exact": "b"}}}}]`: "refused test_traffic_rules: " + at + ".clientAliases[0].testTrafficRules: are not supported: this task would get all traffic\n",

		`"portName": "http", "timeout": {"idleTimeoutSeconds": 0, "perRequestTimeoutSeconds": 2147483647}`: "client of prod\nserves prod/http on tcp app:8080 as http.prod:8080 {\"appProtocol\":\"http\",\"timeout\":{\"idleTimeoutSeconds\":0,\"perRequestTimeoutSeconds\":2147483647}}\n",
		`"portName": "http", "timeout": {"perRequestTimeoutSeconds": 2147483648}`:                          "refused invalid_field: " + at + ".timeout.perRequestTimeoutSeconds: 2147483648 is not in 0-2147483647 seconds\n",
		`"portName": "http", "timeout": {"requestTimeoutSeconds": 1}`:                                      "refused invalid_field: " + at + ".timeout.requestTimeoutSeconds: unknown key (did you mean perRequestTimeoutSeconds?)\n",
		`"portName": "tcp", "timeout": {"perRequestTimeoutSeconds": 1}`:                                    "refused invalid_field: " + at + ".timeout.perRequestTimeoutSeconds: is only for port mappings with appProtocol\n",
		`"portName": "tcp", "timeout": {"idleTimeoutSeconds": 3600}`:                                       "client of prod\nserves prod/tcp on tcp app:6379 (host port 7000) as tcp.prod:6379 {}\nnoted not_applied: " + at + ".timeout.idleTimeoutSeconds: is not applied, connections of services without appProtocol have no timeout\n",

		`"portName": "tcp", "ingressPortOverride": 6379`:  "client of prod\nserves prod/tcp on tcp app:6379 (host port 7000) as tcp.prod:6379 {}\n",
		`"portName": "tcp", "ingressPortOverride": 7000`:  "client of prod\nserves prod/tcp on tcp app:6379 (host port 7000) as tcp.prod:6379 {}\n",
		`"portName": "tcp", "ingressPortOverride": 15000`: "client of prod\nserves prod/tcp on tcp app:6379 (host port 7000) as tcp.prod:6379 {}\nnoted not_applied: " + at + ".ingressPortOverride: 15000 is not applied, for nothing but the container listens: port 6379 of the container is what is published\n",
		`"portName": "tcp", "ingressPortOverride": 65536`: "refused invalid_field: " + at + ".ingressPortOverride: 65536 is not in 0-65535\n",
	} {
		if got := show(Decode(task("connectd.serviceConnect", connect(in), "connectd.ports", ports), Policy{})); got != want {
			t.Errorf("%s: got\n%swant\n%s", in, got, want)
		}
	}
}

func TestConnect(t *testing.T) {
	at := "refused invalid_field: label connectd.serviceConnect"
	for in, want := range map[string]string{
		``:                  "refused invalid_json: label connectd.serviceConnect: is empty\n",
		`enabled: true`:     "refused invalid_json: label connectd.serviceConnect: parse json: invalid character 'e' looking for beginning of value (at byte 1)\n",
		`{"enabled": true,`: "refused invalid_json: label connectd.serviceConnect: parse json: unexpected end of JSON input (at byte 17)\n",
		`{"enabled": true, "namespace": "prod", "logConfiguration": ` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`: "refused invalid_json: label connectd.serviceConnect: nested deeper than 32 levels\n",
		`[]`:                                 at + ": a list is not a mapping\n",
		`{}`:                                 at + ": enabled: is missing\n",
		`{"enabled": "true"}`:                at + ": enabled: \"true\" is not true or false\n",
		`{"enabled": false, "enable": true}`: at + ": enable: unknown key (did you mean enabled?)\n",
		`{"enabled": true, "namespace": "prod", "services": {}}`:        at + ": services: a mapping is not a list\n",
		`{"enabled": true, "namespace": "prod", "services": ["http"]}`:  at + ": services[0]: \"http\" is not a mapping\n",
		`{"enabled": true, "namespace": "prod", "Services": []}`:        at + ": Services: unknown key (did you mean services?)\n",
		`{"enabled": true, "namespace": "prod", "serviceRegistries":1}`: at + ": serviceRegistries: unknown key\n",
		`{"enabled": true, "namespace": "prod", "logConfiguration": {"logDriver": "awslogs", "options": {"a": "\ud83d\ude00"}}, "accessLogConfiguration": {"format": "JSON"}}`: `client of prod
noted not_applied: label connectd.serviceConnect: logConfiguration: is not applied, there is no proxy container whose output it could be for
noted not_applied: label connectd.serviceConnect: accessLogConfiguration: is not applied, use accessLog in label connectd.service
`,
		// Two services, and one bad field refuses both, and the client.
		`{"enabled": true, "namespace": "prod", "services": [{"portName": "http", "clientAliases": [{"port": 80}]}, {"portName": "http", "discoveryName": "b", "clientAliases": [{"port": 0}]}]}`:                                                                at + ": services[1].clientAliases[0].port: 0 is not in 1-65535\n",
		`{"enabled": true, "namespace": "prod", "services": [{"portName": "http", "clientAliases": [{"port": 80}]}, {"portName": "http", "clientAliases": [{"port": 81}]}]}`:                                                                                     "refused duplicate_name: label connectd.serviceConnect: services[1]: two services have the discoveryName \"http\"\n",
		`{"enabled": true, "namespace": "prod", "services": [{"portName": "http", "clientAliases": [{"port": 80, "dnsName": "a"}]}, {"portName": "http", "discoveryName": "b", "clientAliases": [{"port": 81, "dnsName": "a"}, {"port": 80, "dnsName": "a"}]}]}`: "refused duplicate_alias: label connectd.serviceConnect: services[1]: services \"http\" and \"b\" have the client alias a:80\n",
		`{"enabled": true, "namespace": "prod", "services": [{"portName": "http", "discoveryName": "b", "clientAliases": [{"port": 8080, "dnsName": "http.prod"}]}, {"portName": "http"}]}`:                                                                      "refused duplicate_alias: label connectd.serviceConnect: services[1].portName: services \"b\" and \"http\" have the client alias http.prod:8080\n",
		`{"enabled": true, "namespace": "prod", "services": [{"portName": "http", "clientAliases": [{"port": 80}]}, {"portName": "http", "discoveryName": "b", "clientAliases": [{"port": 80}]}]}`: `client of prod
serves prod/http on tcp app:8080 as http.prod:80 {"appProtocol":"http"}
serves prod/b on tcp app:8080 as b.prod:80 {"appProtocol":"http"}
`,
	} {
		if got := show(Decode(task("connectd.serviceConnect", in, "connectd.ports", ordersPorts), Policy{})); got != want {
			t.Errorf("%s: got\n%swant\n%s", in, got, want)
		}
	}
}

func TestPorts(t *testing.T) {
	at := "refused invalid_field: label connectd.ports: [0]"
	for in, want := range map[string]string{
		``:                                       "refused invalid_json: label connectd.ports: is empty\n",
		`{}`:                                     "refused invalid_field: label connectd.ports: a mapping is not a list\n",
		`[80]`:                                   at + ": 80 is not a mapping\n",
		`[{}]`:                                   at + ".containerPort: is missing\n",
		`[{"name": "http", "containerPort": 0}]`: at + ".containerPort: 0 is not in 1-65535\n",
		`[{"name": "http", "containerPort": 65536}]`:                                        at + ".containerPort: 65536 is not in 1-65535\n",
		`[{"name": "http", "containerPort": "80"}]`:                                         at + ".containerPort: \"80\" is not a whole number in decimal\n",
		`[{"name": "http", "containerPort": 80, "hostPort": -1}]`:                           at + ".hostPort: -1 is not in 0-65535\n",
		`[{"name": "http", "containerPort": 80, "protocol": "TCP"}]`:                        at + ".protocol: \"TCP\" is not one of tcp, udp\n",
		`[{"name": "http", "containerPort": 80, "appProtocol": "https"}]`:                   at + ".appProtocol: \"https\" is not one of http, http2, grpc\n",
		`[{"name": "http", "containerPort": 80, "protocol": "udp", "appProtocol": "http"}]`: at + ".appProtocol: is only for protocol tcp\n",
		`[{"name": "a.b", "containerPort": 80}]`:                                            at + ".name: \"a.b\" may have only lower-case letters, digits, _ and -\n",
		`[{"Name": "http", "ContainerPort": 80}]`:                                           at + ".Name: unknown key (did you mean name?)\n",
		`[{"name": "http", "containerPort": 80, "containerPortRange": "1-2"}]`:              at + ".containerPortRange: contradicts containerPort\n",
		`[{"name": "x", "containerPortRange": "2-1"}]`:                                      at + ".containerPortRange: \"2-1\" is no range such as 8000-8010\n",
		`[{"name": "x", "containerPortRange": "80"}]`:                                       at + ".containerPortRange: \"80\" is no range such as 8000-8010\n",
		`[{"name": "x", "containerPortRange": "+1-2"}]`:                                     at + ".containerPortRange: \"+1-2\" is no range such as 8000-8010\n",
		`[{"name": "x", "containerPortRange": "0-65536"}]`:                                  at + ".containerPortRange: \"0-65536\" is no range such as 8000-8010\n",
		`[{"name": "http", "containerPort": 1}, {"name": "http", "containerPort": 2}]`:      "refused duplicate_port: label connectd.ports: two port mappings have the name \"http\"\n",
		`[]`: "refused unknown_port: label connectd.serviceConnect: services[0].portName: \"http\" is the name of no port mapping; there is none with a name\n",
	} {
		got := show(Decode(task("connectd.serviceConnect", ordersConnect, "connectd.ports", in), Policy{}))
		if first, _, _ := strings.Cut(got, "\n"); first+"\n" != want {
			t.Errorf("%s: got\n%swant first\n%s", in, got, want)
		}
	}
}

// TestLookedUp: what ECS says was not checked as a label is.
func TestLookedUp(t *testing.T) {
	at := "label connectd.serviceConnect: services[0].portName: \"http\""
	for want, m := range map[string]lb.PortMapping{
		"client of prod\n" + strings.Replace(ordersServed, ":8080 as", ":8080 (host port 80) as", 1): {Container: "app", Name: "http", ContainerPort: 8080, HostPort: 80, Protocol: lb.TCP, AppProtocol: "http"},
		"refused unusable_port: " + at + " has appProtocol \"https\", which is not known\n":          {Name: "http", ContainerPort: 8080, Protocol: lb.TCP, AppProtocol: "https"},
		"refused unusable_port: " + at + " has appProtocol http over udp\n":                          {Name: "http", ContainerPort: 8080, Protocol: lb.UDP, AppProtocol: "http"},
		"refused unusable_port: " + at + " is a range of ports\n":                                    {Name: "http", Protocol: lb.TCP},
	} {
		task := task("connectd.serviceConnect", ordersConnect)
		task.PortMappings, task.PortsKnown = []lb.PortMapping{m}, true
		if got := show(Decode(task, Policy{})); got != want {
			t.Errorf("%+v: got\n%swant\n%s", m, got, want)
		}
	}
}

func TestSettings(t *testing.T) {
	connect := `{"enabled": true, "namespace": "prod", "services": [
		{"portName": "http", "discoveryName": "web", "clientAliases": [{"port": 80}], "timeout": {"idleTimeoutSeconds": 9}},
		{"portName": "tcp", "discoveryName": "cache", "clientAliases": [{"port": 6379}]}]}`
	ports := `[{"name": "http", "containerPort": 8080, "appProtocol": "http"}, {"name": "tcp", "containerPort": 6379}]`
	serves := func(web, cache string) string {
		return "client of prod\nserves prod/web on tcp app:8080 as web.prod:80 " + web + "\nserves prod/cache on tcp app:6379 as cache.prod:6379 " + cache + "\n"
	}
	idle := `"timeout":{"idleTimeoutSeconds":9}`
	settings := func(pairs ...string) Task {
		return task(append(pairs, "connectd.serviceConnect", connect, "connectd.ports", ports)...)
	}
	apart := settings("connectd.service", `{"drain": {"deadlineSeconds": 5}}`)
	apart.Containers = append(apart.Containers, container("b", "connectd.service", `{"drain": {"deadlineSeconds": 6}}`))
	cases{
		{"none", settings(), Policy{}, serves(`{"appProtocol":"http",`+idle+`}`, `{}`)},
		{"for all", settings("connectd.service", `{"drain": {"deadlineSeconds": 5}}`), Policy{},
			serves(`{"appProtocol":"http","drain":{"deadlineSeconds":5},`+idle+`}`, `{"drain":{"deadlineSeconds":5}}`)},
		{"for one, in place of those for all", settings("connectd.service", `{"drain": {"deadlineSeconds": 5}}`, "connectd.service.web", `{"retry": {"attempts": 1}}`), Policy{},
			serves(`{"appProtocol":"http","retry":{"attempts":1},`+idle+`}`, `{"drain":{"deadlineSeconds":5}}`)},
		{"direct", settings("connectd.service.web", `{"mode": "direct"}`), Policy{},
			serves(`{"appProtocol":"http","mode":"direct"}`, `{}`) + "noted not_applied: label connectd.serviceConnect: services[0].timeout: is not applied in mode direct, which has no forwarder\n"},
		{"of http for tcp", settings("connectd.service", `{"retry": {"attempts": 1}}`), Policy{},
			"refused invalid_field: label connectd.service: retry: is only for services with appProtocol\n"},
		{"said elsewhere", settings("connectd.service.web", `{"appProtocol": "http", "timeout": {}}`), Policy{},
			"refused invalid_field: label connectd.service.web: appProtocol: is said by labels connectd.ports and connectd.serviceConnect\nrefused invalid_field: label connectd.service.web: timeout: is said by labels connectd.ports and connectd.serviceConnect\n"},
		{"bad for both, told once", settings("connectd.service", `{"drain": 5}`), Policy{}, "refused invalid_field: label connectd.service: drain: 5 is not a mapping\n"},
		{"unknown", settings("connectd.service", `{"healthcheck": {}}`), Policy{}, "refused invalid_field: label connectd.service: healthcheck: unknown key (did you mean healthCheck?)\n"},
		{"no json", settings("connectd.service.web", `drain: 1`), Policy{}, "refused invalid_json: label connectd.service.web: parse json: invalid character 'd' looking for beginning of value (at byte 1)\n"},
		{"a file of the node", settings("connectd.service.web", `{"accessLog": {"format": "TEXT", "path": "/etc/passwd"}}`), Policy{},
			"refused invalid_field: label connectd.service.web: accessLog.path: \"/etc/passwd\" is only for catalog files, it names a file of the node; - is the daemon's output\n"},
		{"for nobody", settings("connectd.service.wbe", `{}`, "connectd.service.", `{}`), Policy{},
			"refused unknown_service: label connectd.service.wbe: is for a service that the task does not have\nnoted unknown_label: label connectd.service.: of container \"app\" means nothing, did you mean connectd.service?\n"},
		{"differing", apart, Policy{}, "refused labels_differ: label connectd.service: containers \"app\" and \"b\" say it differently\n"},
		{"client only", task("connectd.serviceConnect", `{"enabled": true, "namespace": "prod"}`, "connectd.service", `{}`), Policy{},
			"client of prod\nnoted unused_label: label connectd.service: means nothing to a task that serves nothing\n"},
	}.run(t)
}
