package join

import (
	"slices"
	"strings"

	"connectd/pkg/lb"
	"connectd/pkg/settings"
	"connectd/pkg/strictyaml"
)

// The keys of ECS's serviceConnectConfiguration, all of them: what connectd
// does not do is refused or reported by name.
var (
	connectKeys = []string{"enabled", "namespace", "services", "logConfiguration", "accessLogConfiguration"}
	serviceKeys = []string{"portName", "discoveryName", "clientAliases", "ingressPortOverride", "timeout", "tls"}
)

const testTrafficRules = "testTrafficRules" // of a client alias

// serviceConnect decodes the label connectd.serviceConnect.
func (d *decoder) serviceConnect(text string) {
	root, doc := d.parse(labelServiceConnect, text)
	if doc == nil {
		return
	}
	m := root.Map(connectKeys...)
	m.Require("enabled")
	if !m.Bool("enabled", false) {
		d.report(labelServiceConnect, InvalidField, doc.Err())
		return
	}
	ref, ok := m.Get("namespace").Text()
	switch {
	case m.Has("namespace") && !ok: // its document says why
	case m.Has("namespace") && ref == "":
		m.Get("namespace").Errorf(`"" is no name, leave it out for the cluster's default`)
	default:
		d.Namespace = d.namespace(field(labelServiceConnect, "namespace"), ref)
	}
	b := &block{decoder: d, aliases: map[lb.ClientAlias]string{}, names: map[string]bool{}}
	services := m.List("services")
	if len(services) > 0 {
		b.ports = d.portMappings()
		d.NeedsPorts = !b.ports.known
	}
	for _, v := range services {
		b.service(v)
	}
	b.strangers()
	d.proxyOnly(m)
	d.report(labelServiceConnect, InvalidField, doc.Err())
	if d.Namespace == "" {
		d.Services = nil
		return
	}
	d.Client, d.Namespaces = true, []string{d.Namespace}
}

// proxyOnly notes what only Service Connect's proxy has.
func (d *decoder) proxyOnly(m strictyaml.Map) {
	if v := m.Get("logConfiguration"); v.Exists() {
		d.note(at(labelServiceConnect, v), NotApplied, "is not applied, there is no proxy container whose output it could be for")
	}
	if v := m.Get("accessLogConfiguration"); v.Exists() {
		d.note(at(labelServiceConnect, v), NotApplied, "is not applied, use accessLog in label %s", labelService)
	}
}

// block decodes the services of one serviceConnectConfiguration.
type block struct {
	*decoder
	ports   ports
	aliases map[lb.ClientAlias]string // the service that has it
	names   map[string]bool           // discoveryNames
}

func (b *block) service(v strictyaml.Value) {
	m := v.Map(serviceKeys...)
	m.Require("portName")
	b.unsupported(m)
	portName := m.Checked("portName", "", settings.CheckDiscoveryName)
	name := lb.ServiceName{
		Namespace:     b.Namespace,
		DiscoveryName: m.Checked("discoveryName", portName, settings.CheckDiscoveryName),
	}
	idle, perRequest := settings.Timeouts(m.Get("timeout"))
	override := m.Int("ingressPortOverride", 0, 0, maxPort)
	s := &lb.Service{Name: name, Protocol: lb.TCP, ClientAliases: settings.Aliases(m.Get("clientAliases"), name, testTrafficRules)}
	b.unique(v, s)
	if portName == "" || !b.ports.known {
		return
	}
	port, http, ok := b.find(b.ports, at(labelServiceConnect, m.Get("portName")), portName)
	if !ok {
		return
	}
	if s.HTTP = http; http != nil {
		http.IdleTimeout, http.RequestTimeout = idle, perRequest
	}
	if port.Protocol == lb.UDP {
		s.Protocol = lb.UDP
	}
	if len(m.List("clientAliases")) == 0 {
		s.ClientAliases = b.defaultAlias(m.Get("portName"), name, port)
	}
	b.settings(s)
	b.timeouts(m.Get("timeout"), s)
	if override != 0 && override != int64(port.ContainerPort) && override != int64(port.HostPort) {
		b.note(at(labelServiceConnect, m.Get("ingressPortOverride")), NotApplied,
			"%d is not applied, for nothing but the container listens: port %d of the container is what is published", override, port.ContainerPort)
	}
	b.Services = append(b.Services, Service{s, port})
}

// unsupported refuses what would be plaintext, or all traffic, if it were
// passed over.
func (b *block) unsupported(m strictyaml.Map) {
	if v := m.Get("tls"); v.Exists() {
		b.problem(at(labelServiceConnect, v), TLS, "is not supported: what it asks to encrypt would be plaintext")
	}
	keys := slices.Concat(settings.Objects()["clientAliases[]"], []string{testTrafficRules})
	for _, alias := range m.List("clientAliases") {
		if v := alias.Map(keys...).Get(testTrafficRules); v.Exists() {
			b.problem(at(labelServiceConnect, v), TestTrafficRules, "are not supported: this task would get all traffic")
		}
	}
}

// unique reports a name or alias that another service of the task has, and a
// name that it may not have.
func (b *block) unique(v strictyaml.Value, s *lb.Service) {
	name := s.Name.DiscoveryName
	if name == "" {
		return
	}
	if b.names[name] {
		b.problem(at(labelServiceConnect, v), DuplicateName, "two services have the discoveryName %s", quote(name))
	}
	b.names[name] = true
	for _, a := range s.ClientAliases {
		b.claim(v, a, name)
	}
	if !b.policy.mayPublish(b.task.Family, name) {
		b.problem(at(labelServiceConnect, v), NameNotAllowed, "%s may not be published by family %s on this node (ecs.publish)", quote(name), quote(b.task.Family))
	}
}

func (b *block) claim(v strictyaml.Value, a lb.ClientAlias, name string) {
	if other, ok := b.aliases[a]; ok && other != name {
		b.problem(at(labelServiceConnect, v), DuplicateAlias, "services %s and %s have the client alias %s:%d", quote(other), quote(name), a.DNSName, a.Port)
	}
	b.aliases[a] = name
}

// defaultAlias is for a service without client aliases: its full name, on the
// container's port, as for services of others whose aliases are not known.
func (b *block) defaultAlias(v strictyaml.Value, name lb.ServiceName, port lb.PortMapping) []lb.ClientAlias {
	if name.Namespace == "" {
		return nil
	}
	a := lb.ClientAlias{DNSName: name.FQDN(), Port: port.ContainerPort}
	if wrong := settings.CheckLabels(a.DNSName); wrong != "" {
		b.problem(at(labelServiceConnect, v), InvalidField, "the default dnsName %s %s", quote(a.DNSName), wrong)
	}
	b.claim(v, a, name.DiscoveryName)
	return []lb.ClientAlias{a}
}

// timeouts says which timeouts mean nothing to s, whose settings are read. ECS
// takes an idle timeout for TCP, so a block that was pasted may have it.
func (b *block) timeouts(v strictyaml.Value, s *lb.Service) {
	m := v.Map(settings.Objects()["timeout"]...)
	switch {
	case s.HTTP == nil:
		if t := m.Get("perRequestTimeoutSeconds"); t.Exists() {
			t.Errorf("is only for port mappings with appProtocol")
		}
		if t := m.Get("idleTimeoutSeconds"); t.Exists() {
			b.note(at(labelServiceConnect, t), NotApplied, "is not applied, connections of services without appProtocol have no timeout")
		}
	case s.HTTP.Direct && m.Exists():
		b.note(at(labelServiceConnect, v), NotApplied, "is not applied in mode direct, which has no forwarder")
	}
}

// settings decodes the service's own connectd.service label, or else the one
// for all services of the task.
func (b *block) settings(s *lb.Service) {
	label := labelServicePrefix + s.Name.DiscoveryName
	text, ok := b.one(label)
	if !ok {
		label = labelService
		if text, ok = b.one(label); !ok {
			text = "{}"
		}
	}
	root, doc := b.parse(label, text)
	if doc == nil {
		return
	}
	settings.Decoder{}.DecodeOver(root.Map(settings.Keys()...), s, "labels "+labelPorts+" and "+labelServiceConnect)
	b.report(label, InvalidField, doc.Err())
}

// strangers reports settings of services that the task does not have.
func (b *block) strangers() {
	var labels []string
	for label := range b.labels {
		if name, ok := strings.CutPrefix(label, labelServicePrefix); ok && !b.names[name] {
			labels = append(labels, label)
		}
	}
	slices.Sort(labels)
	for _, label := range labels {
		b.problem("label "+label, UnknownService, "is for a service that the task does not have")
	}
	if len(b.names) == 0 && len(b.labels[labelService]) > 0 {
		b.note("label "+labelService, UnusedLabel, "means nothing to a task that serves nothing")
	}
}
