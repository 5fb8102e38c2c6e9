/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps. Names end in their layout's version: a new layout is a new name
 * (bpffs names carry no dots). User space sets max_entries of those that show
 * 1 here. "Written by" says who may. */
#pragma once

#include "types.h"
#include <bpf/bpf_helpers.h>

#define MAP(map_name, map_type, key_type, value_type, entries) \
	struct {                                               \
		__uint(type, map_type);                        \
		__type(key, key_type);                         \
		__type(value, value_type);                     \
		__uint(max_entries, entries);                  \
	} map_name SEC(".maps")

/* An array that user space reads and writes in place, without a call. */
#define SHARED(map_name, value_type, entries)         \
	struct {                                      \
		__uint(type, BPF_MAP_TYPE_ARRAY);     \
		__uint(map_flags, BPF_F_MMAPABLE);    \
		__type(key, __u32);                   \
		__type(value, value_type);            \
		__uint(max_entries, entries);         \
	} map_name SEC(".maps")

/* Written by user space. */
MAP(settings_v1, BPF_MAP_TYPE_ARRAY, __u32, struct settings, 1);
MAP(frontends_v1, BPF_MAP_TYPE_HASH, struct frontend_key, struct frontend, 1);
SHARED(slots_v1, struct slot, 1);
SHARED(endpoints_v1, struct endpoint, 1);
MAP(tasks_netns_v1, BPF_MAP_TYPE_HASH, __u64, struct task, 4096);
MAP(tasks_cgroup_v1, BPF_MAP_TYPE_HASH, __u64, struct task, 4096);
MAP(avoids_v1, BPF_MAP_TYPE_HASH, struct task_endpoint, __u8, 65536);
MAP(resolvers_v1, BPF_MAP_TYPE_HASH, struct resolver_key, struct resolver, 8192);
MAP(forwarders_v1, BPF_MAP_TYPE_HASH, __u64, struct forwarder, 4096);

/* The one SOCKMAP: listeners only, never a data socket. A slot empties itself
 * when its socket is closed or its process killed, and that is how the hooks
 * know whether somebody is there. */
MAP(listeners_v1, BPF_MAP_TYPE_SOCKMAP, __u32, __u64, 8192);

/* Monotonic time of the last beat of the loop behind a listener. */
SHARED(heartbeats_v1, __u64, 8192);

/* Written by the programs. */

/* A HASH, not LRU: an eviction would make us forget, and later confuse,
 * sockets that live. */
MAP(connections_v1, BPF_MAP_TYPE_HASH, __u64, struct connection, 1);
/* MPTCP: the cookie in connect is the subflow's and no other hook but sockops
 * sees it, so a subflow waits here for its TCP_CONNECT_CB. Losing one costs
 * its tracking, nothing else. */
MAP(subflows_v1, BPF_MAP_TYPE_LRU_HASH, __u64, struct connection, 1024);
/* LRU: losing one only shows the endpoint's address instead of the VIP. */
MAP(datagrams_v1, BPF_MAP_TYPE_LRU_HASH, struct datagram_key, struct datagram, 65536);
SHARED(task_connections_v1, __u64, 8192);
SHARED(endpoint_stats_v1, struct endpoint_stats, 1);
SHARED(service_stats_v1, struct service_stats, 1);
MAP(strikes_v1, BPF_MAP_TYPE_LRU_HASH, struct task_endpoint, __u64, 8192);
/* Who moved the bytes of endpoint_stats_v1, written once at a connection's end.
 * LRU: what one counted since it was read last goes with it. */
MAP(caller_bytes_v1, BPF_MAP_TYPE_LRU_HASH, struct caller_key, struct caller_bytes, 8192);
MAP(turns_v1, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, __u32, 1);
MAP(outcomes_v2, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, __u64, OUTCOME_COUNT);
/* Who is let through to the forwarder's listener, from SYN to accept. LRU: what
 * a dead daemon never accepted must not fill it, and losing one costs a connect
 * of whoever had 65,536 others on their way at once. */
MAP(admissions_v1, BPF_MAP_TYPE_LRU_HASH, struct admission_key, struct admission, 65536);
/* When user space was told of a refusal last. LRU: losing one tells it once
 * too often. */
MAP(refused_v1, BPF_MAP_TYPE_LRU_HASH, struct refusal_key, struct refusal_count, 2048);
MAP(learned_v1, BPF_MAP_TYPE_LRU_HASH, __u64, __u64, 64);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events_v1 SEC(".maps");

/* A ring of their own, so that a task that is refused over and over takes no
 * strike's room. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} refusals_v1 SEC(".maps");
