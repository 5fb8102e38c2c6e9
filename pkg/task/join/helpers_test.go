package join

import (
	"fmt"
	"strings"

	"connectd/pkg/lb"
	"connectd/pkg/settings"
)

// The labels of a task that serves orders and is a client.
const (
	ordersConnect = `{"enabled": true, "namespace": "prod", "services": [{"portName": "http", "discoveryName": "orders", "clientAliases": [{"port": 80, "dnsName": "orders"}]}]}`
	ordersPorts   = `[{"name": "http", "containerPort": 8080, "hostPort": 8080, "protocol": "tcp", "appProtocol": "http"}]`
	ordersServed  = "serves prod/orders on tcp app:8080 as orders:80 " + `{"appProtocol":"http"}` + "\n"
)

// task is one with a container app; pairs are labels and their values.
func task(pairs ...string) Task {
	return Task{Family: "orders-blue", Containers: []Container{container("app", pairs...)}}
}

func container(name string, pairs ...string) Container {
	return Container{Name: name, Labels: labels(pairs...)}
}

func labels(pairs ...string) map[string]string {
	l := map[string]string{"com.amazonaws.ecs.container-name": "x"}
	for i := 0; i < len(pairs); i += 2 {
		l[pairs[i]] = pairs[i+1]
	}
	return l
}

// connect is the label of a task in prod with a service; inner are the fields
// of that service.
func connect(inner string) string {
	return `{"enabled": true, "namespace": "prod", "services": [{` + inner + `}]}`
}

// show writes a result in words.
func show(r Result) string {
	var b strings.Builder
	if r.Off {
		b.WriteString("off\n")
	}
	if r.Client {
		fmt.Fprintf(&b, "client of %s\n", strings.Join(r.Namespaces, ", "))
	}
	if r.NeedsNamespace != "" {
		fmt.Fprintf(&b, "needs namespace %s\n", r.NeedsNamespace)
	}
	if r.NeedsPorts {
		b.WriteString("needs ports\n")
	}
	for _, s := range r.Services {
		port := fmt.Sprintf("%s:%d", s.Port.Container, s.Port.ContainerPort)
		if s.Port.HostPort != 0 && s.Port.HostPort != s.Port.ContainerPort {
			port += fmt.Sprintf(" (host port %d)", s.Port.HostPort)
		}
		fmt.Fprintf(&b, "serves %s on %s %s as %s %s\n", s.Name, s.Protocol, port, aliases(s.Service), settings.Encode(s.Service))
	}
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "refused %s: %s\n", p.Reason, p)
	}
	for _, p := range r.Notes {
		fmt.Fprintf(&b, "noted %s: %s\n", p.Reason, p)
	}
	return b.String()
}

func aliases(s *lb.Service) string {
	var names []string
	for _, a := range s.ClientAliases {
		names = append(names, fmt.Sprintf("%s:%d", a.DNSName, a.Port))
	}
	return strings.Join(names, ",")
}

// cases are the rows of a table.
type cases []struct {
	name   string
	task   Task
	policy Policy
	want   string
}
