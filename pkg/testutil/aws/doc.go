// Package aws is AWS for tests: Cloud Map, ECS, CloudWatch, the instance
// metadata service and the ECS agent's introspection, as far as connectd
// knows them, with the limits, refusals and delays of the services.
//
// Cloud is the state of all accounts of one region. It has no goroutine and
// no timer: what is due happens when somebody calls, by the clock of Params.
// Cloud.As gives clients whose methods have the signatures of the SDK's, for
// programs that run on a virtual clock; Start serves the same over HTTP, for
// the SDK and the AWS CLI.
//
// # Setting up a daemon
//
// Server.Env lists the environment variables that lead the SDK, and so a
// daemon, here. The access key says who calls (Caller.AccessKey), signatures
// are not checked.
//
// DiscoverInstances and DiscoverInstancesRevision are the exception: the SDK
// puts "data-" before the endpoint's host, before 127.0.0.1 too, and knows no
// variable against it. A client for an endpoint that is an address has to say
// smithyhttp.DisableEndpointHostPrefix. Programs that do not, as the AWS CLI,
// get Server.ProxyEnv as well: the server takes proxy requests, whatever their
// host. A Go program reads that variable once only.
package aws
