package lb

import (
	"strings"
	"unique"
)

// Owner is the ECS service that a task or an endpoint belongs to. The zero
// Owner is none, or one that is not known. Owners of one service are equal, and
// each is as small as a pointer: there is one in every endpoint.
type Owner struct{ names unique.Handle[ownerNames] }

type ownerNames struct{ service, cluster string }

// NewOwner takes the names of a service and its cluster, of which the latter
// may be an ARN. It is the zero Owner unless both are known.
func NewOwner(service, cluster string) Owner {
	cluster = cluster[strings.LastIndexByte(cluster, '/')+1:]
	if service == "" || cluster == "" {
		return Owner{}
	}
	return Owner{unique.Make(ownerNames{service, cluster})}
}

// Service is the service's name, "" for the zero Owner.
func (o Owner) Service() string { return o.get().service }

// Cluster is the name of its cluster, "" for the zero Owner.
func (o Owner) Cluster() string { return o.get().cluster }

// String is "cluster/service", "" for the zero Owner.
func (o Owner) String() string {
	if o == (Owner{}) {
		return ""
	}
	return o.Cluster() + "/" + o.Service()
}

func (o Owner) get() ownerNames {
	if o == (Owner{}) {
		return ownerNames{} // a zero Handle has no value
	}
	return o.names.Value()
}

// Owner is the service that started a task; nil is a task of no service.
func (t *ECSTask) Owner() Owner {
	if t == nil {
		return Owner{}
	}
	return NewOwner(t.Service, t.Cluster)
}
