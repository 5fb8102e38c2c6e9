package daemon

import (
	"context"
	"fmt"
	"strings"

	"connectd/pkg/control"
	"connectd/pkg/ecsapi"
	"connectd/pkg/task/docker"
)

// ecs asks those who tell of tasks. Static clients do without them, and the
// agent is needed for the instance's attributes only.
func (x *examination) ecs(ctx context.Context, c *Config) {
	if c.ECS == nil {
		return
	}
	version, err := docker.Version(ctx, c.ECS.Docker)
	x.verdict("docker", err, "version "+version+" answers at "+c.ECS.Docker,
		"start docker, or correct ecs.docker; in a container bind its socket. Until then tasks of ECS are not found, static clients go on")
	agent := &ecsapi.Agent{URL: c.ECS.Introspection}
	switch m, err := agent.Metadata(ctx); {
	case err != nil:
		x.add("ECS agent", control.SeverityWarn, err.Error(),
			"start the ECS agent, or correct ecs.introspection; until then the instance attributes connectd.ready and connectd.off are not used")
	case m.ContainerInstanceARN == "":
		x.add("ECS agent", control.SeverityWarn, "version "+m.Version+" has not registered this node with cluster "+m.Cluster+" yet",
			"see the agent's log, /var/log/ecs/ecs-agent.log")
	case c.ECS.Cluster != ecsAuto && !sameCluster(c.ECS.Cluster, m.Cluster):
		x.add("ECS agent", control.SeverityWarn, fmt.Sprintf("the agent is in cluster %s, the config says %s", m.Cluster, c.ECS.Cluster),
			"correct ecs.cluster, or use auto")
	default:
		x.add("ECS agent", control.SeverityOK, "version "+m.Version+" in cluster "+m.Cluster, "")
	}
}

// sameCluster compares a name or ARN with a name.
func sameCluster(ref, name string) bool {
	return ref[strings.LastIndexByte(ref, '/')+1:] == name
}
