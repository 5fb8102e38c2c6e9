package main

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"connectd/pkg/control"
	"connectd/pkg/lb"
)

// now is the fixtures' fixed time.
var now = time.Date(2025, 3, 1, 3, 0, 0, 0, time.UTC)

func before(d time.Duration) time.Time { return now.Add(-d) }

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// worlds returns the daemon of a world: "healthy", "degraded" (much is wrong),
// "starting", "empty" (nothing configured). Any other has no daemon.
func worlds(name string) (b control.Backend, ok bool) {
	b = control.Backend{
		Status:    func() control.Status { return healthyStatus() },
		Names:     names3,
		Services:  healthyServices,
		Endpoints: func(of lb.ServiceName) []control.Endpoint { return of3(healthyEndpoints(), of) },
		Resolve:   resolve,
		Drain:     func(context.Context, lb.ServiceName, netip.AddrPort, bool) error { return nil },
		Reload:    func(context.Context) error { return nil },
		Events:    events,
		Tasks:     taskDetails,
		Connections: func(task func(string) bool, service lb.ServiceName) (control.Connections, error) {
			return connections(task, service), nil
		},
		Off: func(_ context.Context, off bool) (control.Brake, error) {
			if off {
				return control.Brake{Off: now, Tasks: 2}, nil
			}
			return control.Brake{Tasks: 2}, nil
		},
	}
	switch name {
	case "healthy":
	case "draining": // as it is just after a drain
		b.Endpoints = func(of lb.ServiceName) []control.Endpoint {
			list := healthyEndpoints()
			list[2].State, list[2].Reason, list[2].DrainDeadline = "draining", "drained by command", now.Add(30*time.Second)
			return of3(list, of)
		}
	case "off":
		b.Status = func() control.Status {
			s := healthyStatus()
			s.Off = before(10 * time.Minute)
			s.Tasks[0].Attached, s.Tasks[1].Attached = false, false
			return s
		}
		b.Tasks = func() []control.TaskDetail {
			list := taskDetails()
			for i := range list {
				list[i].Attached, list[i].Connections, list[i].Problems = false, 0, []string{"connectd is off on this node, by command"}
			}
			return list
		}
	case "degraded":
		b.Off = func(context.Context, bool) (control.Brake, error) {
			return control.Brake{}, errors.New("write map tasks_netns: no space left on device")
		}
		b.Connections = func(func(string) bool, lb.ServiceName) (control.Connections, error) {
			list := connections(func(string) bool { return true }, lb.ServiceName{})
			list.Total = 23456
			return list, nil
		}
		b.Status = degradedStatus
		b.Services = degradedServices
		b.Endpoints = func(of lb.ServiceName) []control.Endpoint { return of3(degradedEndpoints(), of) }
		b.Reload = func(context.Context) error {
			return errors.New("/etc/connectd/catalog.yaml:12: services[1].endpoints[0].port: 70000 is not in 1-65535")
		}
		b.Drain = func(context.Context, lb.ServiceName, netip.AddrPort, bool) error {
			return errors.New("drain: the kernel does not have it yet: context deadline exceeded")
		}
	case "restart": // the config changed in what a reload cannot change
		b.Status = func() control.Status {
			s := healthyStatus()
			s.Config.RestartNeeded = []string{"zone", "metrics"}
			return s
		}
	case "starting":
		b.Status = func() control.Status {
			s := healthyStatus()
			s.NotReady = []string{"catalog file /etc/connectd/catalog.yaml", "first reconcile"}
			return s
		}
	case "empty":
		b = control.Backend{
			Status: func() control.Status {
				return control.Status{Version: "0.1.0", PID: 4242, Started: now, Config: control.Config{Path: "/etc/connectd/connectd.yaml"}}
			},
			Names:     func() []lb.ServiceName { return nil },
			Services:  func() []control.Service { return nil },
			Endpoints: func(lb.ServiceName) []control.Endpoint { return nil },
			Resolve:   func(string, string) []control.Resolution { return nil },
			Events:    func(string) control.Events { return control.Events{Events: []control.Event{}, Cursor: "1/0"} },
			Tasks:     func() []control.TaskDetail { return nil },
			Connections: func(func(string) bool, lb.ServiceName) (control.Connections, error) {
				return control.Connections{Connections: []control.Connection{}}, nil
			},
		}
	default:
		return control.Backend{}, false
	}
	return b, true
}

func names3() []lb.ServiceName {
	return []lb.ServiceName{{Namespace: "prod", DiscoveryName: "cache"}, {Namespace: "prod", DiscoveryName: "orders"}, {Namespace: "tools", DiscoveryName: "orders"}}
}

func of3(list []control.Endpoint, of lb.ServiceName) []control.Endpoint {
	var out []control.Endpoint
	for _, e := range list {
		if of == (lb.ServiceName{}) || e.Service == of.String() {
			out = append(out, e)
		}
	}
	return out
}

func healthyStatus() control.Status {
	return control.Status{
		Version: "0.1.0", PID: 4242, Started: before(2*time.Hour + 14*time.Minute), UptimeSeconds: 8040,
		Config:    control.Config{Path: "/etc/connectd/connectd.yaml", Loaded: before(2*time.Hour + 14*time.Minute)},
		Catalog:   []control.CatalogFile{{Path: "/etc/connectd/catalog.yaml", Services: 3, Loaded: before(95 * time.Second)}},
		Reconcile: control.Reconcile{Revision: 7, Applied: 7},
		Tasks: []control.Task{
			{Name: "cron", Kind: "cgroup", Target: "/sys/fs/cgroup/unified/cron", Namespaces: []string{"tools"}, Attached: true},
			{Name: "web", Kind: "netns", Target: "/run/netns/web", Namespaces: []string{"prod"}, Attached: true},
		},
		Kernel: control.Kernel{
			Release: "6.12.0", Cgroup: "/sys/fs/cgroup",
			Programs: []control.Program{{Name: "connect4", Attached: true}, {Name: "connect6", Attached: true}, {Name: "sockops", Attached: true}},
			Maps: []control.MapFill{{Name: "connections", Entries: 214, MaxEntries: 65536, Bytes: 9 << 20},
				{Name: "frontends", Entries: 8, MaxEntries: 16384, Bytes: 655360}, {Name: "settings", Bytes: 4096}},
		},
		Services: control.ServiceCounts{Total: 3}, Endpoints: control.StateCounts{"active": 4},
	}
}

func degradedStatus() control.Status {
	s := healthyStatus()
	s.Config.Failed = before(40 * time.Second)
	s.Config.Error = "/etc/connectd/connectd.yaml:4: vipCIDR: \"10.0.0.0/8\" is not inside 127.0.0.0/8\n/etc/connectd/connectd.yaml:9: clients[0].netns: /run/netns/web: no such file or directory"
	s.Config.RestartNeeded = []string{"zone", "metrics"}
	s.Catalog[0].Errors = []string{"/etc/connectd/catalog.yaml:12: services[1].endpoints[0].port: 70000 is not in 1-65535"}
	s.Reconcile = control.Reconcile{Revision: 9, Applied: 7, LagSeconds: 12.3, Errors: 41, Failing: true, LastError: "write map connections: no space left on device",
		LastErrorAt: before(time.Second), Repaired: 3}
	s.Tasks[1].Attached, s.Tasks[1].Error = false, "open /run/netns/web: no such file or directory"
	s.Kernel.Programs[2] = control.Program{Name: "sockops", Error: "link is gone"}
	s.Kernel.Maps[0].Entries = 65000
	s.Services.Panic, s.Services.LastResort, s.Services.NoEndpoint = 1, 1, 1
	s.Endpoints = control.StateCounts{"active": 1, "unhealthy": 1, "ejected": 1, "draining": 1, "pending": 1, "removed": 1}
	s.Problems = []control.Problem{{Name: "kernelOld", Message: "kernel 5.10 cannot choose the error of a refused connect", Fix: "use 5.18 or newer"}}
	return s
}

func vips(ss ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range ss {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func healthyServices() []control.Service {
	return []control.Service{
		{Name: "prod/cache", Protocol: "tcp", Policy: "roundRobin", Endpoints: control.StateCounts{"active": 1}, ActiveConnections: 12,
			Names: []control.Name{{DNSName: "cache", Addresses: vips("127.254.91.3"), Ports: []uint16{6379}}, {DNSName: "cache.prod", Addresses: vips("127.254.7.18")}}},
		{Name: "prod/orders", Protocol: "tcp", AppProtocol: "http", Mode: "proxy", Policy: "roundRobin", HealthCheck: "http", Endpoints: control.StateCounts{"active": 2}, ActiveConnections: 202,
			Names: []control.Name{{DNSName: "orders", Addresses: vips("127.254.183.9"), Ports: []uint16{80, 8080}}, {DNSName: "orders.prod", Addresses: vips("127.254.20.1", "fd66::7")}}},
		{Name: "tools/orders", Protocol: "udp", Policy: "sourceHash", Endpoints: control.StateCounts{"active": 1},
			Names: []control.Name{{DNSName: "orders.tools", Addresses: vips("127.254.5.5"), Ports: []uint16{53}}}},
	}
}

func degradedServices() []control.Service {
	list := healthyServices()
	list[0].Endpoints, list[0].LastResort = control.StateCounts{"draining": 1}, true
	list[1].Mode = "direct"
	list[1].Endpoints, list[1].Panic = control.StateCounts{"removed": 1, "pending": 1, "active": 1, "unhealthy": 1, "ejected": 1}, true
	list[2].Endpoints = nil
	return list
}

func healthyEndpoints() []control.Endpoint {
	probe := &control.Probe{At: before(time.Second), DurationSeconds: 0.0012}
	return []control.Endpoint{
		{Service: "prod/cache", Address: addrPort("10.66.0.5:6379"), Weight: 1, State: "active", Since: before(26 * time.Hour), Verdict: "unknown", ActiveConnections: 12, TotalConnections: 31},
		{Service: "prod/orders", Address: addrPort("10.66.0.3:8080"), Zone: "use1-az1", Weight: 1, State: "active", Since: before(2 * time.Hour), Verdict: "healthy", LastProbe: probe, ActiveConnections: 50, TotalConnections: 10231, Failures: 1},
		{Service: "prod/orders", Address: addrPort("10.66.0.4:8080"), Zone: "use1-az2", Weight: 3, State: "active", Since: before(272 * time.Second), Verdict: "healthy", LastProbe: probe, ActiveConnections: 152, TotalConnections: 30688},
		{Service: "tools/orders", Address: addrPort("[fd66::9]:53"), Weight: 1, State: "active", Verdict: "unknown"},
	}
}

func degradedEndpoints() []control.Endpoint {
	list := healthyEndpoints()
	list[0].State, list[0].Reason, list[0].DrainDeadline = "draining", "drained by command", now.Add(18*time.Second)
	list[1].State, list[1].Reason, list[1].Verdict = "unhealthy", "probe: status 503", "unhealthy"
	list[1].LastProbe = &control.Probe{At: before(time.Second), DurationSeconds: 0.2, Error: "status 503"}
	list[2].State, list[2].Reason, list[2].EjectedUntil, list[2].Failures = "ejected", "5 connects failed in a row", now.Add(25*time.Second), 5
	list[2].AvoidedBy = []string{"cron", "web"}
	list[2].LastProbe = &control.Probe{At: before(time.Second), DurationSeconds: 1, Error: "read: \x1b[31mrubbish\x1b[0m\nmore"}
	return append(list[:3],
		control.Endpoint{Service: "prod/orders", Address: addrPort("10.66.0.7:8080"), Weight: 1, State: "pending", Reason: "no probe has passed yet", Since: before(3 * time.Second), Verdict: "unknown"},
		control.Endpoint{Service: "prod/orders", Address: addrPort("10.66.0.8:8080"), Weight: 1, State: "removed", Reason: "not in the catalog any more", Since: before(12 * time.Second), Verdict: "healthy",
			ActiveConnections: 2, DrainDeadline: before(time.Second)})
}

func resolve(name, task string) []control.Resolution {
	all := []control.Resolution{
		{Task: "cron", Namespaces: []string{"tools"}, Reason: name + " is a name of namespace prod, task cron may use tools"},
		{Task: "web", Namespaces: []string{"prod"}, Reason: name + " is no service's name: passed on to the task's own resolver"},
	}
	switch strings.TrimSuffix(name, ".prod") {
	case "orders":
		all[1].Found, all[1].Reason, all[1].Addresses = true, "name of namespace prod", vips("127.254.183.9")
		all[1].Targets = []control.Target{{Service: "prod/orders", Protocol: "tcp", Ports: []uint16{80, 8080}, Policy: "roundRobin", Panic: name == "orders.prod",
			Endpoints: []control.Share{
				{Address: addrPort("10.66.0.3:8080"), Zone: "use1-az1", State: "active", Percent: 100.0 / 3},
				{Address: addrPort("10.66.0.4:8080"), Zone: "use1-az2", State: "active", Percent: 200.0 / 3},
			}}, {Service: "prod/orders-admin", Protocol: "tcp", Ports: []uint16{9000}, Policy: "random"}}
	case "cache":
	default:
		all[0].Reason = all[1].Reason
	}
	if task == "" {
		return all
	}
	for _, r := range all {
		if r.Task == task {
			return []control.Resolution{r}
		}
	}
	return nil
}

// checks are named and worded as package daemon does.
func checks(world string) []control.Check {
	if world == "healthy" {
		return []control.Check{
			{Name: "config", Severity: control.SeverityOK, Detail: "/etc/connectd/connectd.yaml"},
			{Name: "cgroup2", Severity: control.SeverityOK, Detail: "mounted at /sys/fs/cgroup"},
			{Name: "canary connection", Severity: control.SeverityOK, Detail: "a VIP led to its endpoint and was counted"},
		}
	}
	return []control.Check{
		{Name: "clients", Severity: control.SeverityFail,
			Detail: "/etc/connectd/connectd.yaml:9: clients[0].netns: /run/netns/web: no such file or directory\n" +
				"/etc/connectd/connectd.yaml:10: clients[1].cgroup: /sys/fs/cgroup/cron: no such file or directory",
			Fix: "make what is missing, or take the client out of the config"},
		{Name: "errno of a refused connect", Severity: control.SeverityWarn,
			Detail: "a service without endpoints gives ENETUNREACH (UDP: EPERM), not EHOSTUNREACH: not supported",
			Fix:    "use a kernel that has it (since 5.18)"},
		{Name: "hooks", Severity: control.SeveritySkip, Detail: "none pinned in /sys/fs/bpf/connectd: no daemon has run since boot or unload"},
		{Name: "memory limit", Severity: control.SeverityOK, Detail: "none", Fix: "not shown"},
	}
}

const webARN = "arn:aws:ecs:us-east-1:123456789012:task/main/0f9de17a6465404e8b1b2356dc13c2f8"

func events(string) control.Events {
	return control.Events{Cursor: "1/6", Events: []control.Event{
		{Seq: 1, At: before(time.Hour), Times: 1, Kind: control.EventJoined, Task: webARN, Reason: "may use prod"},
		{Seq: 2, At: before(10 * time.Minute), Last: before(9*time.Minute + 8*time.Second), Times: 214, Kind: control.EventRefused, Task: "cron", Name: "orders",
			Address: addrPort("127.254.183.9:80"), Reason: "out_of_scope", Detail: "of namespace prod, which the task may not use"},
		{Seq: 3, At: before(10 * time.Minute), Times: 2, Kind: control.EventRefused, Task: "cron", Name: "orders", Reason: "name_out_of_scope",
			Detail: "a name of namespace prod, which the task may not use: its own resolver was asked"},
		{Seq: 4, At: before(5 * time.Minute), Times: 1, Kind: "unhealthy", Name: "prod/orders", Address: addrPort("10.66.0.3:8080"), Reason: "probe: status 503", Detail: "was active"},
		{Seq: 5, At: before(4 * time.Minute), Times: 1, Kind: control.EventRefused, Task: webARN, Name: "cache", Address: addrPort("127.254.91.3:6380"),
			Reason: "no_frontend", Detail: "the name has no port 6380/tcp"},
		{Seq: 6, At: before(3 * time.Minute), Times: 1, Kind: control.EventProblem, Task: webARN, Name: "orders", Reason: "label", Detail: "connectd.serviceConnect: \x1b[31mrubbish"},
	}}
}

func taskDetails() []control.TaskDetail {
	return []control.TaskDetail{
		{Name: webARN, Kind: "ecs", Mode: "netns", Family: "web:7", Service: "web", Namespaces: []string{"prod", "tools"}, Resolvers: vips("10.66.0.2"), Connections: 3, Attached: true},
		{Name: "cron", Kind: "static", Mode: "cgroup", Namespaces: []string{"tools"}, Resolvers: vips("10.66.0.2", "fd00:ec2::253"),
			Problems: []string{"attach DNS of task cron: address already in use"}},
	}
}

func connections(task func(string) bool, service lb.ServiceName) control.Connections {
	var out control.Connections
	for _, c := range []control.Connection{
		{Task: webARN, Name: "cache", Service: "prod/cache", Protocol: "tcp", VIP: addrPort("127.254.91.3:6379"), Endpoint: addrPort("10.66.0.5:6379"),
			Local: addrPort("10.66.0.9:40112"), State: "established", Started: before(95 * time.Second), Bytes: &control.Transferred{Sent: 5120, Received: 1 << 20}},
		{Task: webARN, Name: "cache", Service: "prod/cache", Protocol: "tcp", VIP: addrPort("127.254.91.3:6379"), Endpoint: addrPort("10.66.0.5:6379"), State: "connecting", Started: now},
		{Task: webARN, Name: "orders", Service: "prod/orders", Protocol: "http/1.1", VIP: addrPort("127.254.183.9:80"), Endpoint: addrPort("10.66.0.3:8080"),
			Local: addrPort("127.0.0.1:51000"), State: "established", Started: before(4 * time.Second), Bytes: &control.Transferred{Sent: 812, Received: 40960},
			Forwarder: &control.Forwarded{Requests: 7, InFlight: 1}},
		{Task: "cron", Protocol: "udp", VIP: addrPort("127.254.5.5:53"), Endpoint: addrPort("10.66.0.9:53"), State: "connected"},
	} {
		if task(c.Task) && (service == lb.ServiceName{} || c.Service == service.String()) {
			out.Connections = append(out.Connections, c)
		}
	}
	out.Total = len(out.Connections)
	return out
}
