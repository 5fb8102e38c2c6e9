package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
)

type kind uint8

const (
	gauge kind = iota
	counter
	histogram
)

// family is one metric name. Its labels are sorted, as the registry wants
// those of a sample.
type family struct {
	name string
	kind kind
	desc *prometheus.Desc
}

type families struct {
	endpointActive      *family
	endpointConnections *family
	endpointFailures    *family
	endpointSent        *family
	endpointReceived    *family
	endpointRetransmits *family

	failures    *family
	connectTime *family
	srtt        *family
	endpoints   *family
	panicking   *family
	ejections   *family
	probes      *family
	probeTime   *family

	httpRequests      *family
	httpTime          *family
	grpcResponses     *family
	httpRetries       *family
	httpTimeouts      *family
	httpReceived      *family
	httpSent          *family
	httpLeftOut       *family
	endpointRequests  *family
	endpointTime      *family
	endpointGRPC      *family
	endpointBodiesIn  *family
	endpointBodiesOut *family

	forwarderClients  *family
	forwarderUpstream *family
	forwarderRefused  *family
	logLines          *family
	logDrops          *family

	outcomes   *family
	eventsLost *family
	terminated *family
	dns        *family
	events     *family
	off        *family
	taskProbs  *family
	dockerUp   *family
	kernelErrs *family
	mapEntries *family
	mapMax     *family
	mapFill    *family
	mapBytes   *family

	desired      *family
	programmed   *family
	problems     *family
	planRevision *family
	revision     *family
	lag          *family
	passes       *family
	passErrors   *family
	lastPass     *family

	catalogFiles   *family
	catalogFailing *family
	catalogReload  *family
	catalogSuccess *family
	catalogOK      *family
	configReload   *family
	configSuccess  *family
	configOK       *family

	awsCalls          *family
	registryTokens    *family
	registryAsOf      *family
	registryDemanded  *family
	registryIgnored   *family
	registryEndpoints *family
	registryCleaned   *family
	registryStale     *family
	cloudWatchCalls   *family
	cloudWatchSent    *family
	cloudWatchDropped *family
	cloudWatchQueued  *family
	cloudWatchSuccess *family
	instanceNotice    *family
	instanceErrs      *family
	instanceSuccess   *family

	heartbeat *family
	folded    *family
	series    *family
	build     *family

	all []*family
}

func newFamilies() *families {
	f := &families{}
	add := func(k kind, name, help string, labels ...string) *family {
		name = "connectd_" + name
		m := &family{name: name, kind: k, desc: prometheus.NewDesc(name, help, labels, nil)}
		f.all = append(f.all, m)
		return m
	}
	f.addTraffic(add)
	f.addHTTP(add)
	f.addNode(add)
	f.addDaemon(add)
	f.addAWS(add)
	f.addRegistry(add)
	return f
}

type adder func(k kind, name, help string, labels ...string) *family

func (f *families) addTraffic(add adder) {
	endpoint := []string{"endpoint", "namespace", "service"}
	service := []string{"namespace", "service"}
	f.endpointActive = add(gauge, "endpoint_active_connections",
		"Connections open to the endpoint. Source: sockops.", endpoint...)
	f.endpointConnections = add(counter, "endpoint_connections_total",
		"Connections opened to the endpoint, failed ones included. Source: sockops.", endpoint...)
	f.endpointFailures = add(counter, "endpoint_connect_failures_total",
		"Connects to the endpoint that failed. Source: sockops.", endpoint...)
	f.endpointSent = add(counter, "endpoint_sent_bytes_total",
		"Bytes that the endpoint acknowledged. Source: sockops for closed connections, inet_diag for live ones.", endpoint...)
	f.endpointReceived = add(counter, "endpoint_received_bytes_total",
		"Bytes received from the endpoint. Source: sockops for closed connections, inet_diag for live ones.", endpoint...)
	f.endpointRetransmits = add(counter, "endpoint_retransmits_total",
		"TCP segments sent again to the endpoint. Source: sockops.", endpoint...)

	f.failures = add(counter, "connect_failures_total",
		"Connects that failed, by reason. Source: socket error seen by sockops.", "namespace", "reason", "service")
	f.connectTime = add(histogram, "connect_duration_seconds",
		"Time from connect to established in seconds. Source: sockops.", service...)
	f.srtt = add(histogram, "srtt_seconds",
		"Smoothed round trip time of a connection when it closed, in seconds. Source: sockops.", service...)
	f.endpoints = add(gauge, "endpoints",
		"Endpoints by state. Source: plan.", "namespace", "service", "state")
	f.panicking = add(gauge, "panic",
		"1 while too few endpoints are healthy and health is ignored, else absent; of the service other: how many do. Source: plan.", service...)
	f.ejections = add(counter, "ejections_total",
		"Endpoints ejected for all because connects or requests failed. Source: plan.", service...)
	f.probes = add(counter, "probes_total",
		"Active checks by result. Source: prober.", "namespace", "result", "service")
	f.probeTime = add(histogram, "probe_duration_seconds",
		"Duration of active checks in seconds, of whatever result. Source: prober.", service...)
}

func (f *families) addNode(add adder) {
	f.outcomes = add(counter, "hook_outcomes_total",
		"What became of calls to a VIP or a task's resolver, by reason. Source: cgroup hooks.", "reason")
	f.eventsLost = add(counter, "events_lost_total",
		"Events for which the ring buffer had no room. Source: BPF programs.")
	f.terminated = add(counter, "terminated_connections_total",
		"Connections ended by connectd, by reason. Source: inet_diag destroy.", "reason")
	f.dns = add(counter, "dns_queries_total",
		"DNS messages from tasks by outcome. Source: responder.", "outcome")
	f.events = add(counter, "events_total",
		"Events of the node by kind, those counted together included. Source: daemon.", "kind")
	f.off = add(gauge, "off",
		"1 while connectd is off on this node, by command or by its instance attribute, and serves no task, else 0. Source: daemon.")
	f.taskProbs = add(counter, "task_problems_total",
		"What was not as tasks of ECS ask for, each counted once as long as it stands, by reason. Source: daemon.", "reason")
	f.dockerUp = add(gauge, "docker_up",
		"1 while Docker answers, else 0; absent where ECS is not looked at. Source: daemon.")
	f.kernelErrs = add(counter, "kernel_read_errors_total",
		"Scrapes that could not read the BPF maps and show what was read before. Source: exporter.")
	f.mapEntries = add(gauge, "map_entries",
		"Entries in a BPF map. Source: BPF map.", "map")
	f.mapMax = add(gauge, "map_max_entries",
		"Entries that a BPF map has room for. Source: BPF map.", "map")
	f.mapFill = add(gauge, "map_fill_ratio",
		"Entries in a BPF map divided by its room, 0 to 1. Source: BPF map.", "map")
	f.mapBytes = add(gauge, "map_bytes",
		"Memory charged for a BPF map in bytes. Source: BPF map.", "map")
}

func (f *families) addDaemon(add adder) {
	f.desired = add(gauge, "desired_objects",
		"Services, endpoints and tasks planned. Source: plan.", "kind")
	f.programmed = add(gauge, "programmed_objects",
		"Services, endpoints and tasks in the kernel. Source: reconcile.", "kind")
	f.problems = add(gauge, "plan_problems",
		"Services, endpoints and tasks left out of the plan for want of room. Source: plan.")
	f.planRevision = add(gauge, "desired_revision",
		"Revision of the newest plan. Source: plan.")
	f.revision = add(gauge, "reconcile_revision",
		"Revision of the newest plan that is whole in the kernel. Source: reconcile.")
	f.lag = add(gauge, "reconcile_lag_seconds",
		"How long the newest plan has waited to be in the kernel, in seconds; 0 when it is. Source: reconcile.")
	f.passes = add(histogram, "reconcile_duration_seconds",
		"Duration of passes that write the kernel in seconds. Source: reconcile.")
	f.passErrors = add(counter, "reconcile_errors_total",
		"Passes that ended in an error. Source: reconcile.")
	f.lastPass = add(gauge, "reconcile_last_success_timestamp_seconds",
		"When a pass last ended without error, in Unix seconds; 0 is never. Source: reconcile.")

	f.catalogFiles = add(gauge, "catalog_files",
		"Catalog files in force, those kept from an earlier reading included. Source: catalog.")
	f.catalogFailing = add(gauge, "catalog_files_failing",
		"Catalog files whose present content is not in force. Source: catalog.")
	f.catalogReload = add(gauge, "catalog_last_reload_timestamp_seconds",
		"When the catalog was last read, in Unix seconds; 0 is never. Source: catalog.")
	f.catalogSuccess = add(gauge, "catalog_last_reload_success_timestamp_seconds",
		"When the catalog was last read without error, in Unix seconds; 0 is never. Source: catalog.")
	f.catalogOK = add(gauge, "catalog_last_reload_successful",
		"1 if the catalog was last read without error, else 0. Source: catalog.")
	f.configReload = add(gauge, "config_last_reload_timestamp_seconds",
		"When the configuration was last read, in Unix seconds; 0 is never. Source: daemon.")
	f.configSuccess = add(gauge, "config_last_reload_success_timestamp_seconds",
		"When the configuration was last read without error, in Unix seconds; 0 is never. Source: daemon.")
	f.configOK = add(gauge, "config_last_reload_successful",
		"1 if the configuration was last read without error, else 0. Source: daemon.")

	f.heartbeat = add(gauge, "heartbeat_timestamp_seconds",
		"When the main loop last went round, in Unix seconds. Source: daemon.")
	f.folded = add(gauge, "series_folded",
		"Services and endpoints summed into other because their series would be too many, by block of series. Source: exporter.", "block")
	f.series = add(gauge, "series_reserved",
		"Series handed out to services and endpoints. Source: exporter.")
	f.build = add(gauge, "build_info",
		"Always 1; what runs is in the labels. Source: linker.", "goversion", "revision", "version")
}
