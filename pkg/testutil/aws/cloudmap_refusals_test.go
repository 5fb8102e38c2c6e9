package aws

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
)

func many(n, size int) map[string]string {
	all := make(map[string]string)
	for i := range n {
		all[fmt.Sprintf("k%04d", i)] = strings.Repeat("v", size)
	}
	return all
}

// TestAttributes: what may be registered, and what is refused.
func TestAttributes(t *testing.T) {
	both(t, nil, func(t *testing.T, w *world, api cloudMapAPI) {
		ns, _ := w.AddNamespace(Namespace{Name: "prod"})
		svc := w.AddService(ns, "cd--orders", false)
		register := func(id string, attributes map[string]string) error {
			_, err := api.RegisterInstance(t.Context(), &sd.RegisterInstanceInput{ServiceId: &svc, InstanceId: &id, Attributes: attributes})
			return err
		}
		for name, attributes := range map[string]map[string]string{
			"31 custom attributes":     many(31, 1),
			"a key of 256":             {strings.Repeat("k", 256): "v"},
			"a value of 1025":          {"k": strings.Repeat("v", 1025)},
			"5001 characters":          many(5, 996),
			"a key with a blank":       {"a key": "v"},
			"a value that is no ASCII": {"k": "größe"},
			"a leading blank":          {"k": " v"},
			"a bad address":            {"AWS_INSTANCE_IPV4": "10.0.0"},
			"an IPv6 address as IPv4":  {"AWS_INSTANCE_IPV4": "::1"},
			"an IPv4 address as IPv6":  {"AWS_INSTANCE_IPV6": "10.0.0.1"},
			"port 0":                   {"AWS_INSTANCE_PORT": "0"},
			"port 65536":               {"AWS_INSTANCE_PORT": "65536"},
			"an initial status":        {"AWS_INIT_HEALTH_STATUS": "HEALTHY"},
			"an unknown AWS_ key":      {"AWS_CONNECTD": "1"},
			"no attributes":            {},
		} {
			if attributes["k0000"] != "" && len(attributes) == 5 {
				attributes["k0000"] += "v"
			}
			t.Run(name, func(t *testing.T) { wantCode(t, register("x", attributes), "InvalidInput") })
		}
		for _, ok := range []map[string]string{
			many(30, 1), many(5, 995), {strings.Repeat("k", 255): "v"}, {"k": strings.Repeat("v", 1024)}, {"k": "a b\tc", "l": ""},
		} {
			if err := register("x", ok); err != nil {
				t.Errorf("within the limits: %v", err)
			}
		}
		wantCode(t, register("a b", many(1, 1)), "InvalidInput")
		wantCode(t, register(strings.Repeat("i", 65), many(1, 1)), "InvalidInput")
	})
}

// TestRefusals: what else Cloud Map refuses, and the code it says.
func TestRefusals(t *testing.T) {
	both(t, func(p *Params) { p.Quotas = map[string]Quota{"CloudMapModify": {100, 1}} }, func(t *testing.T, w *world, api cloudMapAPI) {
		ns, _ := w.AddNamespace(Namespace{Name: "prod"})
		dns, _ := w.AddNamespace(Namespace{Name: "corp.example", Type: types.NamespaceTypeDnsPrivate})
		svc := w.AddService(ns, "cd--orders", false)
		ctx := t.Context()
		_, err := api.RegisterInstance(ctx, &sd.RegisterInstanceInput{ServiceId: new("srv-nobody"), InstanceId: new("x"), Attributes: many(1, 1)})
		wantCode(t, err, "ServiceNotFound")
		create := func(name, ns string, change func(*sd.CreateServiceInput)) error {
			in := &sd.CreateServiceInput{Name: &name, NamespaceId: &ns}
			if change != nil {
				change(in)
			}
			_, err := api.CreateService(ctx, in)
			return err
		}
		wantCode(t, create("cd--orders", ns, nil), "ServiceAlreadyExists")
		wantCode(t, create("a b", ns, nil), "InvalidInput")
		wantCode(t, create("x", "ns-nobody", nil), "NamespaceNotFound")
		wantCode(t, create("x", dns, nil), "InvalidInput")
		if err := create("x", dns, func(in *sd.CreateServiceInput) { in.Type = types.ServiceTypeOptionHttp }); err != nil {
			t.Errorf("a service without records in a DNS namespace: %v", err)
		}
		records := &types.DnsConfig{DnsRecords: []types.DnsRecord{{Type: types.RecordTypeA, TTL: new(int64(60))}}}
		wantCode(t, create("y", ns, func(in *sd.CreateServiceInput) { in.DnsConfig = records }), "InvalidInput")
		y := must[*sd.CreateServiceOutput](t)(api.CreateService(ctx, &sd.CreateServiceInput{Name: new("y"), NamespaceId: &dns, DnsConfig: records}))
		_, err = api.RegisterInstance(ctx, &sd.RegisterInstanceInput{ServiceId: y.Service.Id, InstanceId: new("x"), Attributes: many(1, 1)})
		wantCode(t, err, "InvalidInput")
		_, err = api.CreateHttpNamespace(ctx, &sd.CreateHttpNamespaceInput{Name: new("prod")})
		wantCode(t, err, "NamespaceAlreadyExists")
		_, err = api.CreateHttpNamespace(ctx, &sd.CreateHttpNamespaceInput{Name: new("a b")})
		wantCode(t, err, "InvalidInput")
		_, err = api.CreatePrivateDnsNamespace(ctx, &sd.CreatePrivateDnsNamespaceInput{Name: new("-"), Vpc: new("vpc-1")})
		wantCode(t, err, "InvalidInput")
		discover := func(namespace, service string, most int32) error {
			_, err := api.DiscoverInstances(ctx, &sd.DiscoverInstancesInput{NamespaceName: &namespace, ServiceName: &service, MaxResults: &most})
			return err
		}
		wantCode(t, discover("prod", "nobody", 1), "ServiceNotFound")
		wantCode(t, discover("nobody", "nobody", 1), "NamespaceNotFound")
		wantCode(t, discover("prod", "cd--orders", 1001), "InvalidInput")
		_, err = api.GetNamespace(ctx, &sd.GetNamespaceInput{Id: new("ns-nobody")})
		wantCode(t, err, "NamespaceNotFound")
		_, err = api.GetService(ctx, &sd.GetServiceInput{Id: new("srv-nobody")})
		wantCode(t, err, "ServiceNotFound")
		_, err = api.GetOperation(ctx, &sd.GetOperationInput{OperationId: new("nobody")})
		wantCode(t, err, "OperationNotFound")
		_, err = api.ListServices(ctx, &sd.ListServicesInput{NextToken: new("nonsense")})
		wantCode(t, err, "InvalidInput")
		exists, _ := errors.AsType[*types.ServiceAlreadyExists](create("cd--orders", ns, nil))
		if exists == nil || *exists.ServiceId != svc {
			t.Errorf("a service that exists is refused without its id: %+v", exists)
		}
	})
}

// TestLimits: counts of namespaces and instances.
func TestLimits(t *testing.T) {
	w := newWorld(t, func(p *Params) {
		p.MaxDelay = time.Second // what is under way counts too
		p.Quotas = map[string]Quota{"CloudMapRegister": {1e6, 1e6}, "CloudMapModify": {1e6, 1e6}}
	})
	api := w.As(Caller{}).CloudMap
	ctx := t.Context()
	ns, _ := w.AddNamespace(Namespace{Name: "ns-0"})
	register := func(svc, id string) error {
		_, err := api.RegisterInstance(ctx, &sd.RegisterInstanceInput{ServiceId: &svc, InstanceId: &id, Attributes: map[string]string{"AWS_INSTANCE_IPV4": "10.0.0.1"}})
		return err
	}
	for i := range 2 {
		name := fmt.Sprintf("s%d", i)
		svc := w.AddService(ns, name, false)
		for j := range 1000 {
			if err := register(svc, fmt.Sprint(j)); err != nil {
				t.Fatal(err)
			}
		}
		wantCode(t, register(svc, "more"), "ResourceLimitExceeded")
		w.clock.Advance(time.Second)
		wantCode(t, register(svc, "more"), "ResourceLimitExceeded")
		if err := register(svc, "7"); err != nil {
			t.Errorf("an instance that is there: %v", err)
		}
		some := must[*sd.DiscoverInstancesOutput](t)(api.DiscoverInstances(ctx, &sd.DiscoverInstancesInput{NamespaceName: new("ns-0"), ServiceName: &name}))
		all := must[*sd.DiscoverInstancesOutput](t)(api.DiscoverInstances(ctx, &sd.DiscoverInstancesInput{NamespaceName: new("ns-0"), ServiceName: &name, MaxResults: new(int32(1000))}))
		if len(some.Instances) != 100 || len(all.Instances) != 1000 {
			t.Errorf("got %d and %d instances", len(some.Instances), len(all.Instances))
		}
	}
	wantCode(t, register(w.AddService(ns, "third", false), "x"), "ResourceLimitExceeded")
	for i := 1; i < 50; i++ {
		must[*sd.CreateHttpNamespaceOutput](t)(api.CreateHttpNamespace(ctx, &sd.CreateHttpNamespaceInput{Name: new(fmt.Sprintf("ns-%d", i))}))
	}
	_, err := api.CreateHttpNamespace(ctx, &sd.CreateHttpNamespaceInput{Name: new("one-too-many")})
	wantCode(t, err, "ResourceLimitExceeded")
	w.clock.Advance(time.Second)
	first := must[*sd.ListNamespacesOutput](t)(api.ListNamespaces(ctx, &sd.ListNamespacesInput{MaxResults: new(int32(30))}))
	second := must[*sd.ListNamespacesOutput](t)(api.ListNamespaces(ctx, &sd.ListNamespacesInput{MaxResults: new(int32(30)), NextToken: first.NextToken}))
	if len(first.Namespaces) != 30 || len(second.Namespaces) != 20 || second.NextToken != nil {
		t.Errorf("pages of %d and %d namespaces", len(first.Namespaces), len(second.Namespaces))
	}
}
