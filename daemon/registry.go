package daemon

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectd/pkg/catalog"
	"connectd/pkg/catalog/cloudmap"
	"connectd/pkg/control"
	"connectd/pkg/instance"
	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

const (
	// identityWait bounds what a first start waits for the instance's metadata:
	// the node's id in the registry is kept from then on.
	identityWait = 3 * time.Second
)

// openRegistry makes the parts that share services with other nodes, if the
// config has them. It writes nothing, and reads nothing but who this node is.
func (d *daemon) openRegistry(c *Config) (err error) {
	if c.CloudMap == nil {
		return nil
	}
	node, id, err := d.identity(c)
	if err != nil {
		return err
	}
	region := c.CloudMap.Region
	if region == regionAuto {
		region = id.Region
	}
	in := zone{cmp.Or(c.Zone, id.ZoneID), id.Zone}
	if c.Zone == zoneAuto {
		if id.ZoneID != "" { // then the first plan has it
			d.zone.zone = zone{id.ZoneID, id.Zone}
		}
		in = d.zone.zone
	}
	api, ecs := cloudmap.Dial(region)
	d.registry, err = cloudmap.New(cloudmap.Params{
		Log: d.log, API: api, ECS: ecs, Node: node, Instance: d.instanceARN, Zone: in.name, ZoneID: in.id,
		Prefix: c.CloudMap.ServicePrefix, Register: c.CloudMap.Register, CreateNamespaces: c.CloudMap.CreateNamespaces,
		PollEvery: c.CloudMap.Poll, CallsPerSecond: c.CloudMap.CallsPerSecond, StateDir: c.StateDir,
		Forbidden:  []netip.Prefix{c.VIPCIDR, c.VIPCIDR6},
		Namespaces: d.usedNamespaces, Changed: d.catalogChanged,
	})
	return err
}

func (d *daemon) catalogChanged() {
	if d.loop != nil {
		d.loop.CatalogChanged()
	}
}

// identity returns by what name the registry knows this node: its instance id,
// or else its host name; the same for ever, for what it has registered is found
// again by it.
func (d *daemon) identity(c *Config) (node string, id instance.Identity, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), identityWait)
	defer cancel()
	id, ierr := d.instance.Identity(ctx)
	path := filepath.Join(c.StateDir, "node-id")
	if text, err := os.ReadFile(path); err == nil && len(strings.TrimSpace(string(text))) > 0 {
		return strings.TrimSpace(string(text)), id, nil
	}
	node = id.InstanceID
	if ierr != nil || node == "" {
		if node, err = os.Hostname(); err != nil {
			return "", id, fmt.Errorf("name this node: %w", err)
		}
		d.log.Warn("the instance's metadata does not say who this is: the registry knows it by its host name", "node", node, "error", ierr)
	}
	if err := os.WriteFile(path, []byte(node+"\n"), 0o600); err != nil {
		return "", id, fmt.Errorf("keep this node's name: %w", err)
	}
	return node, id, nil
}

// instanceARN is the node's container instance, "" until the agent has said.
func (d *daemon) instanceARN() string {
	if arn := d.containerInstance.Load(); arn != nil {
		return *arn
	}
	return ""
}

// usedNamespaces are those of the config, or else of who runs here. A name is
// all that a label says of a namespace, so one of another account is found by
// the config's ARN only.
func (d *daemon) usedNamespaces() []cloudmap.Namespace {
	names := d.config.Load().CloudMap.Namespaces
	if names == nil {
		for _, t := range d.localTasks() {
			names = append(names, t.Namespaces...)
		}
		slices.Sort(names)
		names = slices.Compact(names)
	}
	out := make([]cloudmap.Namespace, len(names))
	for i, name := range names {
		out[i] = cloudmap.Namespace{Name: name}
	}
	return out
}

// offer hands what local tasks serve to the registrar.
func (d *daemon) offer(p *plan.Desired) {
	if d.registry != nil {
		d.registry.Offer(cloudmap.OffersOf(p, d.merged.undivided), d.tasks.node == nil || d.tasks.node.Known())
	}
}

// inRegistry says whether all that a ready task serves is in the registry, for
// the first time: other nodes find it. From then on it stays so.
func (d *daemon) inRegistry(p *plan.Desired, name string) (ok bool, detail string) {
	if d.registry == nil {
		return true, ""
	}
	if _, once := d.everRegistered.Load(name); once {
		return true, ""
	}
	if missing := d.unregistered(p, name); missing != "" {
		return false, missing
	}
	d.everRegistered.Store(name, true)
	return true, ""
}

// unregistered says what of a task is not in the registry yet; "" is nothing.
func (d *daemon) unregistered(p *plan.Desired, task string) string {
	if !d.config.Load().CloudMap.Register {
		return ""
	}
	for _, s := range p.Serves(task) {
		if !d.registry.Registered(s.Service.Name.Namespace, cloudmap.OfferID(s)) {
			return fmt.Sprintf("%s at %s: is being registered", s.Service.Name, s.Endpoint.Address)
		}
	}
	return ""
}

// demanded notes that a task asks for a name, and says whether the registry has
// yet to be asked.
func (d *daemon) demanded(name string, namespaces []string) (cold bool) {
	return d.registry.Demand(name, namespaces)
}

// awaitName returns when the registry has said what a name leads to and the
// kernel has it, or when ctx ends.
func (d *daemon) awaitName(ctx context.Context, name string, namespaces []string) {
	d.registry.Wait(ctx, name, namespaces)
	d.loop.CatalogChanged()
	_ = d.loop.Settle(ctx) // then the name is answered as far as it is known
}

// noteUse forgets who has gone, and keeps services in demand whose names are
// not asked for any more, as they stand in hosts files or in the memory of
// programs.
func (d *daemon) noteUse() {
	p := d.loop.Desired()
	if d.registry == nil || p == nil {
		return
	}
	d.everRegistered.Range(func(name, _ any) bool {
		if !slices.ContainsFunc(p.Tasks, func(t *plan.Task) bool { return t.Name == name }) {
			d.everRegistered.Delete(name)
		}
		return true
	})
	for _, s := range p.Services {
		if slices.ContainsFunc(s.Endpoints, func(e plan.Endpoint) bool { return d.active(e.ID) > 0 }) {
			d.registry.Use(s.Name)
		}
	}
}

// struck tells the registry that a connect failed, so that it looks more often
// for a while.
func (d *daemon) struck(s lb.Strike) {
	d.loop.Strike(s)
	if d.registry == nil || s.Count == 0 {
		return
	}
	for _, service := range d.plan().Services {
		for i := range service.Endpoints {
			if e := &service.Endpoints[i]; e.ID == s.Endpoint {
				d.registry.Failed(e.Address)
				return
			}
		}
	}
}

// instanceChanged puts local endpoints on their way out, or back.
func (d *daemon) instanceChanged() {
	leaving, reason := d.instance.Leaving()
	if leaving {
		d.log.Warn("the instance is going away: local endpoints drain", "reason", reason)
		d.events.Add(control.Event{Kind: control.EventLeaving, Reason: reason})
	} else {
		d.log.Warn("the instance stays after all")
		d.events.Add(control.Event{Kind: control.EventStaying})
	}
	if d.tasks.node != nil {
		d.tasks.node.SetLeaving(leaving)
	}
	if d.registry != nil {
		if leaving {
			d.registry.GoAway()
		} else {
			d.registry.Stay()
		}
	}
}

// registryStatus is what status says of the registry.
func (d *daemon) registryStatus() (out []control.Problem, listed []catalog.Status) {
	if d.registry == nil {
		return nil, nil
	}
	_, listed = d.registry.Snapshot()
	for _, p := range d.registry.Problems() {
		out = append(out, control.Problem{Name: "registry", Message: fmt.Sprintf("%s of %s is not registered: %s (%s)", p.ID, p.Service, p.Err, p.Reason),
			Fix: "see connectd events and the role's policy, scripts/iam-policy.json"})
	}
	return out, listed
}
