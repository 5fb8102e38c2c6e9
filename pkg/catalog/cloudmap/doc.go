// Package cloudmap joins nodes through AWS Cloud Map: it publishes what local
// tasks serve (the registrar) and lists what they may call (a catalog source).
//
// Of a service x, connectd writes instances of a Cloud Map service of its own,
// cd--x, and never those of a service that ECS made. The two are merged under
// one name. What a node asks for is bounded by demand, by one index for each
// namespace, whose revision says whether anything changed at all, and by a
// token bucket.
//
// A Source is a state machine: pick chooses the one call that is due and most
// urgent, run makes it and takes its answer. Run drives it with timers and a
// few goroutines; the simulator drives many of them with Step and a clock of
// its own.
//
// # Weights
//
// While a service has endpoints of both origins, each endpoint counts by its
// own weight. To move traffic, say how many percent of new connections those
// of connectd take: an instance of the index whose id begins with "weights"
// maps discoveryNames to percent, so that one command moves all nodes within a
// poll, from 1 to 100 and back:
//
//	aws servicediscovery register-instance --service-id <that of cd--index> \
//	    --instance-id weights --attributes orders=10
//
// Params.Weights (the node's config) goes before it, and after it comes the
// Share of the newest instance (the task's label). At 0 and 100 the endpoints
// of the other origin are draining: a last resort.
package cloudmap
