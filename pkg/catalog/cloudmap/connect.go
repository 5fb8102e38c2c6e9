package cloudmap

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"connectd/pkg/lb"
)

const (
	// aliasesEvery is how often Service Connect's aliases are asked for, and
	// aliasesEveryNode how much longer it gets with each node: an account may
	// call ListServicesByNamespace once a second.
	aliasesEvery     = time.Hour
	aliasesEveryNode = 30 * time.Second
	describeServices = 10 // of one DescribeServices
)

// aliasTable is what ECS says of a namespace's Service Connect services: Cloud
// Map knows their instances, and only ECS their aliases.
type aliasTable struct {
	aliases map[string][]lb.ClientAlias // by discoveryName
	listed  time.Time
	due     time.Time
	back    retry
	busy    bool
}

// sooner asks for the table no later than at, but not more than once a minute.
func (t *aliasTable) sooner(at time.Time) {
	if t.due.IsZero() || at.Before(t.due) {
		t.due = latest(at, t.listed.Add(time.Minute))
	}
}

func (s *Source) aliasJobs(c *chooser, sp *space) {
	if s.p.ECS == nil || !sp.listed || s.p.Prefix == "" {
		return
	}
	for name := range sp.targets {
		if !s.writable(name) {
			c.offer(job{
				call: callByNamespace, class: classSlow, due: latest(sp.connect.due, sp.connect.back.until), busy: &sp.connect.busy,
				space: sp, do: (*Source).readAliases,
			})
			return
		}
	}
}

// readAliases asks ECS for the services of a namespace and their aliases. What
// comes in part is not taken.
func (s *Source) readAliases(ctx context.Context, j *job) {
	sp := j.space
	aliases, err := s.listAliases(ctx, j)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.p.Now()
	if err != nil {
		sp.connect.back.fail(now, s.random, time.Minute, aliasesEvery)
		return
	}
	sp.connect.aliases, sp.connect.listed, sp.connect.back = aliases, now, retry{}
	sp.connect.due = now.Add(jitter(s.random, aliasesEvery+time.Duration(s.fleet())*aliasesEveryNode))
	s.directory(sp)
	for _, sv := range sp.services {
		s.dirty[sv] = struct{}{}
	}
	s.soon(time.Minute)
}

func (s *Source) listAliases(ctx context.Context, j *job) (map[string][]lb.ClientAlias, error) {
	s.mu.Lock()
	namespace := j.space.arn
	if namespace == "" {
		namespace = j.space.name
	}
	s.mu.Unlock()
	clusters := map[string][]string{} // services by cluster
	var token *string
	for page := 0; ; page++ {
		if page == maxPages {
			return nil, errPages
		}
		var out *ecs.ListServicesByNamespaceOutput
		if _, err := s.invoke(ctx, j, callByNamespace, func(ctx context.Context) (err error) {
			out, err = s.p.ECS.ListServicesByNamespace(ctx, &ecs.ListServicesByNamespaceInput{Namespace: &namespace, MaxResults: new(int32(pageSize)), NextToken: token})
			return err
		}); err != nil {
			return nil, err
		}
		for _, arn := range out.ServiceArns {
			cluster := clusterOf(arn)
			clusters[cluster] = append(clusters[cluster], arn)
		}
		if token = out.NextToken; token == nil {
			break
		}
	}
	aliases := map[string][]lb.ClientAlias{}
	for cluster, arns := range clusters {
		for batch := range slices.Chunk(arns, describeServices) {
			var out *ecs.DescribeServicesOutput
			if _, err := s.invoke(ctx, j, callServices, func(ctx context.Context) (err error) {
				in := &ecs.DescribeServicesInput{Services: batch}
				if cluster != "" {
					in.Cluster = &cluster
				}
				out, err = s.p.ECS.DescribeServices(ctx, in)
				return err
			}); err != nil {
				return nil, err
			}
			for i := range out.Services {
				takeAliases(j.space, &out.Services[i], aliases)
			}
		}
	}
	return aliases, nil
}

// takeAliases reads the Service Connect configuration of a service's
// deployments. A service that is deployed in two halves, blue and green, is
// taken as one: both halves are in Cloud Map under one name.
func takeAliases(sp *space, service *ecstypes.Service, into map[string][]lb.ClientAlias) {
	for i := range service.Deployments {
		c := service.Deployments[i].ServiceConnectConfiguration
		if c == nil || !c.Enabled || !sp.isNamed(deref(c.Namespace)) {
			continue
		}
		for _, each := range c.Services {
			name := deref(each.DiscoveryName)
			if name == "" {
				name = deref(each.PortName)
			}
			if !checkDiscoveryName(name) {
				continue
			}
			for _, a := range each.ClientAliases {
				alias := lb.ClientAlias{DNSName: strings.ToLower(deref(a.DnsName))}
				if alias.DNSName == "" {
					alias.DNSName = name + "." + sp.name
				}
				if a.Port == nil || *a.Port < 1 || *a.Port > 65535 || !checkDNSName(alias.DNSName) {
					continue
				}
				alias.Port = uint16(*a.Port)
				if list := into[name]; len(list) < maxAliases && !slices.Contains(list, alias) {
					into[name] = append(list, alias)
				}
			}
		}
	}
}

// isNamed says whether a serviceConnectConfiguration's namespace is this one:
// it holds a name or an ARN, or nothing where it is the cluster's default.
func (sp *space) isNamed(ref string) bool {
	return ref == "" || ref == sp.name || ref == sp.arn || sp.id != "" && strings.HasSuffix(ref, "/"+sp.id)
}

// clusterOf returns the cluster's ARN of an ARN of ECS that names it, as those
// of tasks, services and container instances do; "" if it does not.
func clusterOf(arn string) string {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" {
		return ""
	}
	path := strings.Split(parts[5], "/")
	if len(path) != 3 {
		return ""
	}
	return strings.Join(parts[:5], ":") + ":cluster/" + path[1]
}
