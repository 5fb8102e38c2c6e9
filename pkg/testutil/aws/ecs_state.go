package aws

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// stoppedFor is how long ECS shows a task that has stopped.
const stoppedFor = time.Hour

// ecsState is what ECS knows, by ARN. What is in it is replaced, never
// changed, for answers hold it.
type ecsState struct {
	clusters    map[string]types.Cluster
	tasks       map[string]types.Task
	definitions map[string]types.TaskDefinition
	instances   map[string]types.ContainerInstance
	services    map[string]types.Service
	revisions   map[string]types.ServiceRevision
}

func newECSState() ecsState {
	return ecsState{
		clusters:    make(map[string]types.Cluster),
		tasks:       make(map[string]types.Task),
		definitions: make(map[string]types.TaskDefinition),
		instances:   make(map[string]types.ContainerInstance),
		services:    make(map[string]types.Service),
		revisions:   make(map[string]types.ServiceRevision),
	}
}

// ARN makes an ARN of this region: of service "ecs", for example, and resource
// "task/prod/0123456789abcdef0123456789abcdef". "" means DefaultAccount.
func (c *Cloud) ARN(service, account, resource string) string {
	return c.arn(service, Caller{Account: account}.account(), resource)
}

// PutCluster puts a cluster there, or replaces it, and returns its ARN. Of
// name and ARN one is enough. A namespace of ServiceConnectDefaults should be
// an ARN, as ECS makes it.
func (c *Cloud) PutCluster(cluster types.Cluster) (arn string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cluster.ClusterArn == nil {
		cluster.ClusterArn = new(c.arn(ServiceECS, DefaultAccount, "cluster/"+value(cluster.ClusterName)))
	}
	if cluster.ClusterName == nil {
		cluster.ClusterName = new(lastOf(*cluster.ClusterArn))
	}
	cluster.Status = cmp.Or(cluster.Status, new("ACTIVE"))
	c.ecs.clusters[*cluster.ClusterArn] = cluster
	return *cluster.ClusterArn
}

// PutTask puts a task there, or replaces it. It needs TaskArn and ClusterArn
// and runs unless it says otherwise.
func (c *Cloud) PutTask(task types.Task) {
	c.mu.Lock()
	defer c.mu.Unlock()
	task.LastStatus = cmp.Or(task.LastStatus, new("RUNNING"))
	task.DesiredStatus = cmp.Or(task.DesiredStatus, new("RUNNING"))
	task.Attachments = append([]types.Attachment{}, task.Attachments...)
	task.Version++
	c.ecs.tasks[*task.TaskArn] = task
}

// StopTask stops a task. ECS shows it for an hour more.
func (c *Cloud) StopTask(arn string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	task, ok := c.ecs.tasks[arn]
	if !ok {
		return
	}
	task.LastStatus, task.DesiredStatus, task.StoppedAt = new("STOPPED"), new("STOPPED"), new(c.params.Now())
	task.Version++
	c.ecs.tasks[arn] = task
	c.later(task.StoppedAt.Add(stoppedFor), func() {
		if now, ok := c.ecs.tasks[arn]; ok && now.StoppedAt == task.StoppedAt {
			delete(c.ecs.tasks, arn)
		}
	})
}

// RemoveTask forgets a task, so that ECS says MISSING.
func (c *Cloud) RemoveTask(arn string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ecs.tasks, arn)
}

// PutTaskDefinition puts a revision there and returns its ARN. It needs Family
// and Revision.
func (c *Cloud) PutTaskDefinition(d types.TaskDefinition) (arn string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.TaskDefinitionArn == nil {
		d.TaskDefinitionArn = new(c.arn(ServiceECS, DefaultAccount, "task-definition/"+*d.Family+":"+strconv.Itoa(int(d.Revision))))
	}
	d.Status = cmp.Or(d.Status, types.TaskDefinitionStatusActive)
	c.ecs.definitions[*d.TaskDefinitionArn] = d
	return *d.TaskDefinitionArn
}

// PutContainerInstance puts a container instance there, or replaces it. It
// needs ContainerInstanceArn, which holds the name of its cluster.
func (c *Cloud) PutContainerInstance(i types.ContainerInstance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i.Status = cmp.Or(i.Status, new("ACTIVE"))
	i.Attributes = append([]types.Attribute{}, i.Attributes...)
	c.ecs.instances[*i.ContainerInstanceArn] = i
}

// RemoveContainerInstance forgets a container instance.
func (c *Cloud) RemoveContainerInstance(arn string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ecs.instances, arn)
}

// PutECSService puts a service of ECS there, or replaces it. It needs
// ServiceArn and ClusterArn; the Service Connect configuration is that of its
// deployments.
func (c *Cloud) PutECSService(s types.Service) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.ServiceName == nil {
		s.ServiceName = new(lastOf(*s.ServiceArn))
	}
	s.Status = cmp.Or(s.Status, new("ACTIVE"))
	c.ecs.services[*s.ServiceArn] = s
}

// RemoveECSService forgets a service of ECS.
func (c *Cloud) RemoveECSService(arn string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ecs.services, arn)
}

// PutServiceRevision puts a service revision there. It needs ServiceRevisionArn.
func (c *Cloud) PutServiceRevision(r types.ServiceRevision) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ecs.revisions[*r.ServiceRevisionArn] = r
}

// Attributes returns the attributes of a container instance by name.
func (c *Cloud) Attributes(containerInstanceARN string) map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[string]string)
	for _, a := range c.ecs.instances[containerInstanceARN].Attributes {
		all[value(a.Name)] = value(a.Value)
	}
	return all
}

// lastOf is what stands behind the last slash.
func lastOf(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }

// accountOf is the account in an ARN.
func accountOf(arn string) string {
	if parts := strings.SplitN(arn, ":", 6); len(parts) == 6 {
		return parts[4]
	}
	return ""
}

// clusterOf is the name of the cluster in the ARN of a task, service or
// container instance: arn:...:task/<cluster>/<id>.
func clusterOf(arn string) string {
	if parts := strings.Split(arn, "/"); len(parts) >= 3 {
		return parts[len(parts)-2]
	}
	return ""
}

// invalidParameter is the refusal of a value.
func invalidParameter(message string) error {
	return &types.InvalidParameterException{Message: new(message)}
}

// findCluster finds a cluster by name or ARN; none is "default".
func (c *Cloud) findCluster(account string, ref *string) (types.Cluster, error) {
	name := cmp.Or(value(ref), "default")
	for arn, cluster := range c.ecs.clusters {
		if accountOf(arn) == account && (arn == name || *cluster.ClusterName == name) {
			return cluster, nil
		}
	}
	return types.Cluster{}, &types.ClusterNotFoundException{Message: new("Cluster not found.")}
}

// pick finds each of refs, ids or ARNs, among what a cluster has.
func pick[T any](all map[string]T, account, cluster string, refs []string) (found []T, failures []types.Failure) {
	found, failures = []T{}, []types.Failure{}
	for _, ref := range refs {
		arn := ref
		if !strings.HasPrefix(ref, "arn:") {
			for candidate := range all {
				if lastOf(candidate) == ref && accountOf(candidate) == account && clusterOf(candidate) == cluster {
					arn = candidate
				}
			}
		}
		v, ok := all[arn]
		if !ok || accountOf(arn) != account || clusterOf(arn) != cluster {
			failures = append(failures, types.Failure{Arn: new(ref), Reason: new("MISSING")})
			continue
		}
		found = append(found, v)
	}
	return found, failures
}

// arns lists the ARNs of what passes, sorted.
func arns[T any](all map[string]T, ok func(arn string, v T) bool) (list []string) {
	for arn, v := range all {
		if ok(arn, v) {
			list = append(list, arn)
		}
	}
	slices.Sort(list)
	return list
}
