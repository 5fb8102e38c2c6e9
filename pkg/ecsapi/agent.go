package ecsapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	agentTimeout = 5 * time.Second // the agent is on this machine
	maxAgentBody = 1 << 20
)

// Agent is the introspection endpoint of the node's ECS agent.
type Agent struct {
	URL string // http://127.0.0.1:51678
}

// Metadata is what the agent says of itself.
type Metadata struct {
	Cluster              string // name
	ContainerInstanceARN string // "" until the agent has registered the node
	Version              string
}

// Metadata asks the agent who it is. It takes at most 5 s.
func (a *Agent) Metadata(ctx context.Context) (Metadata, error) {
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	url := strings.TrimSuffix(a.URL, "/") + "/v1/metadata"
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Metadata{}, fmt.Errorf("ask ECS agent: %w", err)
	}
	// A proxy of the environment is for calls that leave the machine, and a
	// connection that idles is not worth keeping between a few calls a day.
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		return Metadata{}, fmt.Errorf("ask ECS agent: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Metadata{}, fmt.Errorf("ask ECS agent: GET %s: status %d", url, resp.StatusCode)
	}
	var body struct{ Cluster, ContainerInstanceArn, Version string }
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAgentBody)).Decode(&body); err != nil {
		return Metadata{}, fmt.Errorf("ask ECS agent: read answer to GET %s: %w", url, err)
	}
	if body.Cluster == "" {
		return Metadata{}, fmt.Errorf("ask ECS agent: GET %s: answer names no cluster", url)
	}
	return Metadata{Cluster: body.Cluster, ContainerInstanceARN: body.ContainerInstanceArn, Version: body.Version}, nil
}
