package cloudmap

import (
	"slices"
	"testing"
	"time"

	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"connectd/pkg/testutil/aws"
)

func (w *world) instanceARN(node string) string {
	return w.cloud.ARN("ecs", "", "container-instance/main/"+node)
}

// fleet starts nodes that clean, each a container instance of cluster main.
func (w *world) fleet(names ...string) (nodes []*node) {
	cluster := w.cloud.PutCluster(ecstypes.Cluster{ClusterName: new("main")})
	_ = cluster
	for _, name := range names {
		w.cloud.PutContainerInstance(ecstypes.ContainerInstance{ContainerInstanceArn: new(w.instanceARN(name))})
		nodes = append(nodes, w.node(name, w.cleans(name)))
	}
	return nodes
}

func (w *world) cleans(name string) func(*Params) {
	return func(p *Params) {
		p.ECS = w.cloud.As(aws.Caller{Label: name}).ECS
		p.Instance = func() string { return w.instanceARN(name) }
	}
}

func (w *world) task(o Offer) {
	w.cloud.PutTask(ecstypes.Task{TaskArn: new(o.Task), ClusterArn: new(w.cloud.ARN("ecs", "", "cluster/main"))})
}

// TestDeadNodeIsCleaned: what a node had registered goes after its EC2
// instance was terminated, and its entry with it; the nodes that live stay.
func TestDeadNodeIsCleaned(t *testing.T) {
	w := newWorld(t, 2*time.Second)
	nodes := w.fleet("i-a", "i-b", "i-c")
	a, b, c := nodes[0], nodes[1], nodes[2]
	for _, n := range nodes {
		o, p := n.offer(n.name+"-1", "orders"), n.offer(n.name+"-2", "unused")
		w.task(o)
		w.task(p)
		n.Offer([]Offer{o, p}, true)
	}
	w.run(5 * time.Minute)
	a.Demand("orders", []string{"prod"})
	w.run(5 * time.Minute)
	c.down = true
	w.run(time.Hour)
	if got := len(w.registered("cd--orders")); got != 3 {
		t.Fatalf("%d instances: a node that only does not answer was cleaned", got)
	}
	w.cloud.RemoveContainerInstance(w.instanceARN("i-c"))
	took := w.within(3*time.Hour, "cleaned", func() bool {
		return !slices.Contains(w.registered("cd--index"), "i-c") && len(w.registered("cd--orders")) == 2 && len(w.registered("cd--unused")) == 2
	})
	t.Logf("cleaned after %s", took)
	if took < missingTwice {
		t.Errorf("cleaned after %s: ECS's answers are eventually consistent", took)
	}
	w.within(time.Minute, "a sees it", func() bool { return len(a.service("orders").Endpoints) == 1 })
	w.run(3 * time.Hour)
	if got := len(w.registered("cd--orders")); got != 2 || len(w.registered("cd--index")) != 2 {
		t.Errorf("later: %d instances", got)
	}
	if a.Stats().Cleaned+b.Stats().Cleaned < 3 {
		t.Error("nobody counted")
	}
}

// TestStoppedTaskIsCleaned: a task that stopped while its node's connectd was
// away goes soon after somebody failed to connect.
func TestStoppedTaskIsCleaned(t *testing.T) {
	w := newWorld(t, -1)
	nodes := w.fleet("i-a", "i-b", "i-c")
	a, b := nodes[0], nodes[1]
	o, p := b.offer("t1", "orders"), b.offer("t2", "orders")
	w.task(o)
	w.task(p)
	b.Offer([]Offer{o, p}, true)
	w.run(time.Minute)
	a.Demand("orders", []string{"prod"})
	w.run(time.Minute)
	b.down = true
	w.cloud.StopTask(o.Task)
	a.Failed(a.service("orders").Endpoints[0].Address)
	took := w.within(10*time.Minute, "cleaned", func() bool { return slices.Equal(w.registered("cd--orders"), []string{"t2"}) })
	t.Logf("cleaned after %s", took)
	// Nobody failed to connect to the other: it is found in time.
	w.cloud.RemoveTask(p.Task)
	took = w.within(24*time.Hour, "the missing one cleaned", func() bool { a.Demand("orders", []string{"prod"}); return w.registered("cd--orders") == nil })
	if took < missingTwice {
		t.Errorf("a missing task was cleaned after %s", took)
	}
	t.Logf("the missing one after %s", took)
}

// TestNothingIsCleanedByMistake: errors, another account, another cluster's
// silence, and tasks that are no ECS tasks.
func TestNothingIsCleanedByMistake(t *testing.T) {
	w := newWorld(t, -1)
	nodes := w.fleet("i-a", "i-b")
	a, b := nodes[0], nodes[1]
	mine, other, static := b.offer("t1", "orders"), b.offer("t2", "orders"), b.offer("t3", "orders")
	other.Task = "arn:aws:ecs:us-east-1:444455556666:task/main/t2"
	static.Task = "host-1"
	w.task(mine)
	b.Offer([]Offer{mine, other, static}, true)
	w.run(time.Minute)
	a.Demand("orders", []string{"prod"})
	w.run(time.Minute)
	b.down = true
	w.cloud.Inject(aws.Fault{Call: aws.Call{Service: aws.ServiceECS}, Kind: aws.Refuse, Code: "ClusterNotFoundException"})
	w.cloud.RemoveTask(mine.Task)
	w.cloud.RemoveContainerInstance(w.instanceARN("i-b"))
	for range 10 {
		for _, e := range a.service("orders").Endpoints {
			a.Failed(e.Address)
		}
		w.run(time.Hour)
		a.Demand("orders", []string{"prod"})
	}
	if got := w.registered("cd--orders"); len(got) != 3 {
		t.Errorf("left: %s", got)
	}
}
