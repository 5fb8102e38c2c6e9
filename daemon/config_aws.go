package daemon

import (
	"fmt"
	"slices"
	"time"

	"connectd/pkg/metrics/cloudwatch"
	"connectd/pkg/settings"
	"connectd/pkg/strictyaml"
)

// CloudMap says that the node shares its services through AWS Cloud Map.
type CloudMap struct {
	Region           string   // "auto": the environment's, then the instance's
	Namespaces       []string // nil: those of local tasks and static clients
	Register         bool     // local tasks are published
	ServicePrefix    string   // of the Cloud Map services that connectd writes
	CreateNamespaces bool
	Poll             time.Duration // of a namespace's index
	CallsPerSecond   float64       // budget of this node, all calls
}

// CloudWatch says which metrics go to CloudWatch.
type CloudWatch struct {
	Enabled   bool
	Namespace string
	Period    time.Duration
	Metrics   []string // nil is all
}

const (
	servicePrefix    = "cd--"
	pollSeconds      = 10 * time.Second
	minPoll          = time.Second
	maxPoll          = time.Hour
	callsPerSecond   = 0.2
	maxCalls         = 100 // a second: no node needs a tenth of it
	maxServicePrefix = 32  // characters, of the 127 of a Cloud Map service name
	metricsNamespace = "ECS/Connect"
	minPeriod        = 10 * time.Second // CloudWatch keeps no finer one without being asked to
	defaultPeriod    = time.Minute
	maxPeriod        = time.Hour
)

var (
	cloudMapKeys   = []string{"region", "namespaces", "register", "servicePrefix", "createNamespaces", "pollSeconds", "callsPerSecond"}
	cloudWatchKeys = []string{"enabled", "namespace", "periodSeconds", "metrics"}
)

// cloudMap returns nil where there is no registry.
func cloudMap(m strictyaml.Map) *CloudMap {
	if !m.Exists() {
		return nil
	}
	c := &CloudMap{
		Region:           m.Checked("region", regionAuto, checkRegion),
		Register:         m.Bool("register", true),
		ServicePrefix:    m.Checked("servicePrefix", servicePrefix, checkServicePrefix),
		CreateNamespaces: m.Bool("createNamespaces", false),
		Poll:             m.Get("pollSeconds").Seconds(pollSeconds, minPoll, maxPoll),
		CallsPerSecond:   m.Get("callsPerSecond").Float(callsPerSecond, 0.01, maxCalls),
	}
	if m.Has("namespaces") {
		c.Namespaces = namespaces(m.Get("namespaces"))
	}
	return c
}

const regionAuto = "auto"

func checkRegion(s string) string {
	if s == "" {
		return "is empty"
	}
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-') {
			return "is no region such as eu-west-1"
		}
	}
	return ""
}

// checkServicePrefix allows none: where no Service Connect is left, nothing
// needs telling apart.
func checkServicePrefix(s string) string {
	if s == "" {
		return ""
	}
	if len(s) > maxServicePrefix {
		return fmt.Sprintf("is longer than %d characters", maxServicePrefix)
	}
	return settings.CheckDiscoveryName(s)
}

// cloudWatch returns nil where nothing goes to CloudWatch.
func cloudWatch(m strictyaml.Map) *CloudWatch {
	if !m.Exists() {
		return nil
	}
	c := &CloudWatch{
		Enabled:   m.Bool("enabled", false),
		Namespace: m.Checked("namespace", metricsNamespace, checkMetricsNamespace),
		Period:    m.Get("periodSeconds").Seconds(defaultPeriod, minPeriod, maxPeriod),
	}
	v := m.Get("metrics")
	if text, ok := v.Text(); ok && text == "all" || !v.Exists() {
		return c
	}
	if !v.IsList() {
		v.Errorf("is neither all nor a list of metrics")
		return c
	}
	for _, v := range v.List() {
		name := v.Checked("", func(s string) string {
			if !slices.Contains(cloudwatch.Names(), s) {
				return "is no metric of Service Connect"
			}
			return ""
		})
		c.Metrics = append(c.Metrics, name)
	}
	if len(c.Metrics) == 0 {
		v.Errorf("is empty, write all, or enabled: false")
	}
	return c
}

func checkMetricsNamespace(s string) string {
	if err := cloudwatch.CheckNamespace(s); err != nil {
		return err.Error()
	}
	return ""
}
