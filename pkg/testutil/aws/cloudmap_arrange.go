package aws

import (
	"maps"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
)

// Namespace is a namespace to put into a Cloud.
type Namespace struct {
	Name     string
	HTTPName string              // "" means Name
	Type     types.NamespaceType // "" means HTTP
	Account  string              // its owner; "" means DefaultAccount
	Shared   []string            // accounts that may use it
}

// AddNamespace puts a namespace there at once and returns its id and ARN. It
// counts no call and minds no limit, as the other functions that arrange.
func (c *Cloud) AddNamespace(n Namespace) (id, arn string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kind := n.Type
	if kind == "" {
		kind = types.NamespaceTypeHttp
	}
	made := c.newNamespace(namespace{name: n.Name, httpName: n.HTTPName, kind: kind, owner: Caller{Account: n.Account}.account()})
	for _, account := range n.Shared {
		made.shared[account] = true
	}
	c.namespaces = append(c.namespaces, made)
	return made.id, made.arn
}

// Share lets an account use a namespace, or no longer.
func (c *Cloud) Share(namespaceID, account string, shared bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.namespaces {
		if n.id == namespaceID {
			n.shared[account] = shared
		}
	}
}

// AddService puts a service into a namespace and returns its id; one that is
// there is left as it is. A custom health check is what ECS Service Discovery
// makes.
func (c *Cloud) AddService(namespaceID, name string, customHealth bool) (id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.namespaces {
		if n.id != namespaceID {
			continue
		}
		if s := n.services[name]; s != nil {
			return s.id
		}
		made := service{name: name, createdBy: n.owner}
		if customHealth {
			made.custom = &types.HealthCheckCustomConfig{FailureThreshold: new(int32(1))}
		}
		return c.newService(n, made).id
	}
	return ""
}

// AddInstance puts an instance there, or replaces it; it shows at once.
func (c *Cloud) AddInstance(serviceID, id string, attributes map[string]string) {
	c.arrange(serviceID, id, &instance{id: id, createdBy: DefaultAccount, attributes: maps.Clone(attributes)})
}

// RemoveInstance takes an instance away; it shows at once.
func (c *Cloud) RemoveInstance(serviceID, id string) { c.arrange(serviceID, id, nil) }

func (c *Cloud) arrange(serviceID, id string, to *instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	s := c.services[serviceID]
	if s == nil {
		return
	}
	if to == nil {
		delete(s.instances, id)
	} else {
		if s.custom != nil {
			to.health = types.CustomHealthStatusHealthy
		}
		s.instances[id] = to
	}
	s.show(id, to, c.params.Now())
}

// Instances is what DiscoverInstances shows at the moment, by service name and
// instance id, of one namespace.
func (c *Cloud) Instances(namespaceID string) map[string]map[string]map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	all := make(map[string]map[string]map[string]string)
	for _, n := range c.namespaces {
		if n.id != namespaceID {
			continue
		}
		for name, s := range n.services {
			all[name] = make(map[string]map[string]string)
			for _, i := range s.visible {
				all[name][i.id] = maps.Clone(i.attributes)
			}
		}
	}
	return all
}

// Services lists the names of the services in a namespace, sorted.
func (c *Cloud) Services(namespaceID string) []string {
	return slices.Sorted(maps.Keys(c.Instances(namespaceID)))
}
