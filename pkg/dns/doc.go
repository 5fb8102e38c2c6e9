// Package dns answers a task's queries for service names from inside the
// task's own network namespace and passes every other query on, unchanged, to
// the resolver the task meant.
//
// The connect hooks rewrite the task's traffic to port 53 of each resolver in
// its resolv.conf to a pair of sockets (UDP and TCP, same port) that a Seat
// holds in that namespace; one port per resolver tells which resolver was
// meant. A heartbeat from the UDP loop tells the kernel that someone answers:
// when it stops, the kernel leaves the task's DNS alone.
//
// Answers come from an immutable table of names that Publish swaps in whole,
// so a query takes no lock.
package dns
