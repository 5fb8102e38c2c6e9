package daemon

import (
	"fmt"
	"net/url"
	"path"
	"strings"

	"connectd/pkg/settings"
	"connectd/pkg/strictyaml"
)

// ECS says that tasks of Amazon ECS run here, and what they may be.
type ECS struct {
	Cluster       string // "auto" is what the agent says
	Introspection string // URL of the agent
	Docker        string // unix:///path
	JoinAll       bool   // every task is a client, labels or not
	Namespaces    []string
	Publish       []Publish // nil: any family may publish any name
}

// Publish says what tasks of some families may publish.
type Publish struct {
	Family         string // a pattern as of path.Match
	DiscoveryNames []string
}

const (
	ecsAuto         = "auto"
	agentURL        = "http://127.0.0.1:51678"
	dockerSocket    = "unix:///var/run/docker.sock"
	maxFamily       = 255 // characters of a task definition's family (ECS API)
	maxClusterName  = 255
	maxPublishRules = 1000
)

var (
	ecsKeys     = []string{"cluster", "introspection", "docker", "join", "namespaces", "publish"}
	publishKeys = []string{"family", "discoveryNames"}
)

// ecs returns nil where tasks of ECS are not looked for.
func ecs(m strictyaml.Map) *ECS {
	if !m.Exists() {
		return nil
	}
	e := &ECS{
		Cluster:       m.Checked("cluster", ecsAuto, checkCluster),
		Introspection: m.Checked("introspection", agentURL, checkURL),
		Docker:        m.Checked("docker", dockerSocket, checkDocker),
		JoinAll:       m.Enum("join", "labels", "labels", "all") == "all",
	}
	if m.Has("namespaces") {
		e.Namespaces = namespaces(m.Get("namespaces"))
	}
	if e.JoinAll && len(e.Namespaces) == 0 {
		m.Get("join").Errorf("all needs namespaces: name those that every task may use")
	}
	rules := m.List("publish")
	if len(rules) > maxPublishRules {
		m.Get("publish").Errorf("more than %d rules", maxPublishRules)
		return e
	}
	for _, v := range rules {
		r := v.Map(publishKeys...)
		r.Require("family", "discoveryNames")
		p := Publish{Family: r.Checked("family", "", checkFamily)}
		for _, name := range r.List("discoveryNames") {
			p.DiscoveryNames = append(p.DiscoveryNames, name.Checked("", settings.CheckDiscoveryName))
		}
		e.Publish = append(e.Publish, p)
	}
	return e
}

func checkCluster(s string) string {
	switch {
	case s == "":
		return "is empty"
	case len(s) > maxClusterName && !strings.HasPrefix(s, "arn:"):
		return fmt.Sprintf("is longer than %d characters", maxClusterName)
	}
	return ""
}

func checkURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" || u.Host == "" || u.Path != "" {
		return "is not http://host:port"
	}
	return ""
}

func checkDocker(s string) string {
	p, ok := strings.CutPrefix(s, "unix://")
	if !ok {
		return "is not unix:///path"
	}
	return checkSocket(p)
}

func checkFamily(s string) string {
	if s == "" {
		return "is empty"
	}
	if len(s) > maxFamily {
		return fmt.Sprintf("is longer than %d characters", maxFamily)
	}
	if _, err := path.Match(s, ""); err != nil {
		return "is not a valid pattern"
	}
	return ""
}

// fixed is what a reload cannot change.
func (e *ECS) fixed() any {
	if e == nil {
		return nil
	}
	return [...]string{e.Cluster, e.Introspection, e.Docker}
}
