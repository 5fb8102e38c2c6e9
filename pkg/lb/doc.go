// Package lb is connectd's vocabulary as plain values: services, endpoints,
// tasks and what is observed of them. Every other package speaks in these
// words and none of them imports another to do so; lb itself imports the
// standard library only.
package lb
