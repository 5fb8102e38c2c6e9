package aws

import (
	"encoding/json"
	"strings"
	"sync"
	"time"
)

// NodeParams says who a container instance is.
type NodeParams struct {
	Name       string // label of its requests in Cloud.Calls
	InstanceID string // i-...
	Region     string // "" means DefaultRegion
	Zone       string // us-east-1a
	ZoneID     string // use1-az1
	IPv4       string
	Role       string    // of the instance profile; "" is none
	Who        Caller    // whom the role's credentials stand for
	Expires    time.Time // of the role's credentials
}

// Node is what a container instance knows of itself: its metadata and the
// tasks of its ECS agent. All of it may be changed while it is served.
type Node struct {
	name string

	mu       sync.Mutex
	metadata map[string]string    // by path below /latest/
	tokens   map[string]time.Time // when they expire
	agent    AgentMetadata
	tasks    []AgentTask
}

// NewNode makes a node whose metadata are those of p and whose agent has no
// tasks.
func NewNode(p NodeParams) *Node {
	if p.Region == "" {
		p.Region = DefaultRegion
	}
	n := &Node{name: p.Name, metadata: make(map[string]string), tokens: make(map[string]time.Time)}
	for path, value := range map[string]string{
		"meta-data/instance-id":                        p.InstanceID,
		"meta-data/local-ipv4":                         p.IPv4,
		"meta-data/placement/region":                   p.Region,
		"meta-data/placement/availability-zone":        p.Zone,
		"meta-data/placement/availability-zone-id":     p.ZoneID,
		"meta-data/autoscaling/target-lifecycle-state": "InService",
		"meta-data/iam/security-credentials/" + p.Role: encode(map[string]string{
			"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": p.Who.AccessKey(), "SecretAccessKey": "secret",
			"Token": "token", "Expiration": p.Expires.UTC().Format(time.RFC3339),
		}),
		"dynamic/instance-identity/document": encode(map[string]string{
			"region": p.Region, "availabilityZone": p.Zone, "instanceId": p.InstanceID,
			"privateIp": p.IPv4, "accountId": p.Who.account(),
		}),
	} {
		if value != "" && !strings.HasSuffix(path, "/") {
			n.metadata[path] = value
		}
	}
	return n
}

func encode(v map[string]string) string {
	b, _ := json.Marshal(v) // strings always encode
	return string(b)
}

// SetMetadata sets what /latest/meta-data/<path> answers; "" takes it away, so
// that it answers 404.
func (n *Node) SetMetadata(path, value string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if value == "" {
		delete(n.metadata, "meta-data/"+path)
		return
	}
	n.metadata["meta-data/"+path] = value
}

// SpotInterruption announces that the instance goes at a time.
func (n *Node) SpotInterruption(at time.Time) {
	n.SetMetadata("spot/instance-action", encode(map[string]string{"action": "terminate", "time": at.UTC().Format(time.RFC3339)}))
}

// Rebalance announces that the instance may go soon.
func (n *Node) Rebalance(noticed time.Time) {
	n.SetMetadata("events/recommendations/rebalance", encode(map[string]string{"noticeTime": noticed.UTC().Format(time.RFC3339)}))
}

// LifecycleState sets what Auto Scaling wants of the instance: InService,
// Terminated, Standby and so on.
func (n *Node) LifecycleState(state string) {
	n.SetMetadata("autoscaling/target-lifecycle-state", state)
}

// ForgetTokens makes every token invalid.
func (n *Node) ForgetTokens() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.tokens)
}
