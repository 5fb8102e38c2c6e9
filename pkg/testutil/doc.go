// Package testutil makes the worlds that connectd's kernel tests run in: hosts
// that are network namespaces on one bridge, servers that say who they are,
// cgroups, and a TestMain that finds what a test left behind.
//
//	       world's own netns
//	+--------------------------+
//	|  br0 10.66.0.1 fd66::1   |
//	+---+----------+-------+---+
//	  veth       veth    veth
//	+---+---+  +---+---+ +-+-----+
//	| web   |  | a     | | b     |   one netns each, eth0 and lo up
//	+-------+  +-------+ +-------+
//
// Nothing is made in the netns of the machine. Names of namespaces and cgroups
// carry the pid and start time of the process that made them, so that the next
// run finds and removes what a killed one left (see Sweep), and two runs at
// once leave one another alone. Everything is done by netlink and system
// calls, never by ip(8): the kernel matrix runs these tests on a machine that
// has no such program.
package testutil
