package metrics

import "time"

// Registry is what the registry of services, AWS Cloud Map, has done and knows.
type Registry struct {
	Calls      []Call
	Tokens     float64              // of the node's budget of calls, now; negative is a debt
	AsOf       map[string]time.Time // by namespace: as of when all that is in demand is known; zero is never
	Demanded   int                  // services that tasks here asked for within a day
	Ignored    []Counter            // instances now that do not count, or in part, by reason
	Offered    int                  // that local tasks serve
	Registered int                  // of it, as written
	Seen       int                  // of it, as read back
	Cleaned    uint64               // instances of others that this node deregistered
	Stale      uint64               // answers that were older than what was known
}

// Call counts calls of one API, as IAM names it, with one outcome.
type Call struct {
	API, Outcome string
	Count        uint64
}

func emitRegistry(f *families, out *scrape, r Registry) {
	out.add(f.registryTokens, r.Tokens, nil)
	for namespace, at := range r.AsOf {
		out.add(f.registryAsOf, unixSeconds(at), pairs("namespace", namespace))
	}
	out.add(f.registryDemanded, float64(r.Demanded), nil)
	for _, c := range r.Ignored {
		out.add(f.registryIgnored, float64(c.Value), pairs("reason", c.Reason))
	}
	for state, n := range map[string]int{"offered": r.Offered, "registered": r.Registered, "seen": r.Seen} {
		out.add(f.registryEndpoints, float64(n), pairs("state", state))
	}
	out.add(f.registryCleaned, float64(r.Cleaned), nil)
	out.add(f.registryStale, float64(r.Stale), nil)
}

func emitCalls(f *families, out *scrape, calls []Call) {
	for _, c := range calls {
		out.add(f.awsCalls, float64(c.Count), pairs("api", c.API, "outcome", c.Outcome))
	}
}

func (f *families) addRegistry(add adder) {
	f.awsCalls = add(counter, "aws_calls_total",
		"Calls of Cloud Map and ECS by API and outcome. Source: registry, lookups.", "api", "outcome")
	f.registryTokens = add(gauge, "registry_call_tokens",
		"Calls of the registry that the budget allows now; negative is a debt. Source: registry.")
	f.registryAsOf = add(gauge, "registry_as_of_timestamp_seconds",
		"As of when all that is in demand of a namespace is known, in Unix seconds; 0 is never. Source: registry.", "namespace")
	f.registryDemanded = add(gauge, "registry_demanded_services",
		"Services that tasks here have asked for within a day. Source: registry.")
	f.registryIgnored = add(gauge, "registry_ignored_instances",
		"Instances now that do not count, or in part, by reason. Source: registry.", "reason")
	f.registryEndpoints = add(gauge, "registry_local_endpoints",
		"What local tasks serve: offered, registered, and seen when read back. Source: registrar.", "state")
	f.registryCleaned = add(counter, "registry_cleaned_instances_total",
		"Instances of nodes and tasks that are gone which this node deregistered. Source: registrar.")
	f.registryStale = add(counter, "registry_stale_answers_total",
		"Answers that were older than what was known, and not taken. Source: registry.")
}
