package aws

import (
	"encoding/json"
	"net/http"
	"slices"
)

// AgentMetadata is what the ECS agent answers for /v1/metadata.
type AgentMetadata struct {
	Cluster              string
	ContainerInstanceArn *string // nil until the agent has registered the instance
	Version              string
}

// AgentTask is a task as the ECS agent shows it.
type AgentTask struct {
	Arn           string
	DesiredStatus string `json:",omitempty"`
	KnownStatus   string
	Family        string
	Version       string // revision of the task definition
	Containers    []AgentContainer
}

// AgentContainer is a container of an AgentTask.
type AgentContainer struct {
	DockerId   string
	DockerName string
	Name       string
	Ports      []AgentPort    `json:",omitempty"`
	Networks   []AgentNetwork `json:",omitempty"`
}

// AgentPort is a port that Docker publishes.
type AgentPort struct {
	ContainerPort uint16
	Protocol      string
	HostPort      uint16 `json:",omitempty"`
}

// AgentNetwork is a container's place in a network.
type AgentNetwork struct {
	NetworkMode   string
	IPv4Addresses []string
}

// SetAgent sets what the agent says of itself.
func (n *Node) SetAgent(m AgentMetadata) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.agent = m
}

// SetTasks sets the tasks that the agent runs.
func (n *Node) SetTasks(tasks []AgentTask) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tasks = slices.Clone(tasks)
}

func (s *Server) serveAgent(w http.ResponseWriter, r *http.Request) {
	if !s.admit(w, r, ServiceAgent) {
		return
	}
	n := s.node
	n.mu.Lock()
	defer n.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	out := json.NewEncoder(w)
	if r.URL.Path == "/v1/metadata" {
		out.Encode(n.agent)
		return
	}
	query := r.URL.Query()
	arn, id := query.Get("taskarn"), query.Get("dockerid")
	if arn == "" && id == "" {
		out.Encode(map[string]any{"Tasks": append([]AgentTask{}, n.tasks...)})
		return
	}
	for _, t := range n.tasks {
		if t.Arn == arn || id != "" && slices.ContainsFunc(t.Containers, func(c AgentContainer) bool { return c.DockerId == id }) {
			out.Encode(t)
			return
		}
	}
	w.WriteHeader(http.StatusNotFound)
	w.Write([]byte("{}"))
}
