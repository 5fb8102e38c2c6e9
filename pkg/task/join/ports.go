package join

import (
	"strconv"
	"strings"

	"connectd/pkg/lb"
	"connectd/pkg/settings"
	"connectd/pkg/strictyaml"
)

const maxPort = 65535

// ports are the port mappings of a task.
type ports struct {
	list  []lb.PortMapping
	known bool
}

// portMappings returns those of all connectd.ports labels or, without any,
// those that were looked up.
func (d *decoder) portMappings() ports {
	p := ports{d.task.PortMappings, d.task.PortsKnown}
	if said := d.labels[labelPorts]; len(said) > 0 {
		p = ports{known: true}
		for _, l := range said {
			p.list = append(p.list, d.decodePorts(l)...)
		}
	}
	if !p.known {
		return ports{}
	}
	seen := map[string]bool{}
	for _, m := range p.list {
		if m.Name != "" && seen[m.Name] {
			d.problem("label "+labelPorts, DuplicatePort, "two port mappings have the name %s", quote(m.Name))
		}
		seen[m.Name] = true
	}
	return p
}

var portKeys = []string{"name", "containerPort", "containerPortRange", "hostPort", "protocol", "appProtocol"}

// decodePorts decodes the port mappings of one container.
func (d *decoder) decodePorts(l labelled) []lb.PortMapping {
	root, doc := d.parse(labelPorts, l.text)
	if doc == nil {
		return nil
	}
	var out []lb.PortMapping
	for _, v := range root.List() {
		m := v.Map(portKeys...)
		out = append(out, lb.PortMapping{
			Container:     l.container,
			Name:          m.Checked("name", "", settings.CheckDiscoveryName),
			ContainerPort: containerPort(m),
			HostPort:      uint16(m.Int("hostPort", 0, 0, maxPort)),
			Protocol:      protocol(m),
			AppProtocol:   m.Enum("appProtocol", "", lb.AppHTTP.String(), lb.AppHTTP2.String(), lb.AppGRPC.String()),
		})
	}
	d.report(labelPorts, InvalidField, doc.Err())
	return out
}

func protocol(m strictyaml.Map) lb.Protocol {
	if m.Enum("protocol", "tcp", "tcp", "udp") == "tcp" {
		return lb.TCP
	}
	if m.Has("appProtocol") {
		m.Get("appProtocol").Errorf("is only for protocol tcp")
	}
	return lb.UDP
}

// containerPort is 0 for a range of ports, which no service can be at.
func containerPort(m strictyaml.Map) uint16 {
	if !m.Has("containerPortRange") {
		m.Require("containerPort")
		return uint16(m.Int("containerPort", 0, 1, maxPort))
	}
	if m.Has("containerPort") {
		m.Get("containerPortRange").Errorf("contradicts containerPort")
	}
	m.Checked("containerPortRange", "", func(s string) string {
		first, last, ok := strings.Cut(s, "-")
		lo, err1 := strconv.ParseUint(first, 10, 16)
		hi, err2 := strconv.ParseUint(last, 10, 16)
		if !ok || err1 != nil || err2 != nil || lo == 0 || lo > hi {
			return "is no range such as 8000-8010"
		}
		return ""
	})
	return 0
}

// find returns the port mapping of a name, and what it says of HTTP; or it
// reports that no service can be there.
func (d *decoder) find(p ports, field, name string) (m lb.PortMapping, http *lb.HTTP, ok bool) {
	var names []string
	for _, m := range p.list {
		if m.Name != name {
			if m.Name != "" {
				names = append(names, quote(m.Name))
			}
			continue
		}
		app, known := lb.ParseAppProtocol(m.AppProtocol)
		switch {
		case m.ContainerPort == 0:
			d.problem(field, UnusablePort, "%s is a range of ports", quote(name))
		case m.AppProtocol != "" && !known:
			d.problem(field, UnusablePort, "%s has appProtocol %s, which is not known", quote(name), quote(m.AppProtocol))
		case known && m.Protocol == lb.UDP:
			d.problem(field, UnusablePort, "%s has appProtocol %s over udp", quote(name), m.AppProtocol)
		case known:
			return m, &lb.HTTP{Protocol: app}, true
		default:
			return m, nil, true
		}
		return lb.PortMapping{}, nil, false
	}
	if d.task.Arriving && len(d.labels[labelPorts]) > 0 {
		d.Awaits = true // the container that has the port starts later
		return lb.PortMapping{}, nil, false
	}
	there := "there is none with a name"
	if len(names) > 0 {
		there = "there are " + strings.Join(names, ", ")
	}
	d.problem(field, UnknownPort, "%s is the name of no port mapping; %s", quote(name), there)
	return lb.PortMapping{}, nil, false
}
