/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What user space and the programs share. The Go side is generated from these
 * by bpf2go; there is no hand-made mirror. Addresses are 128 bits, IPv4 as
 * v4-mapped IPv6, and everything __be is network byte order. */
#pragma once

/* Context fields must be accessed at constant offsets from the context pointer
 * itself. Without this the compiler computes addresses inside it first, and the
 * verifier refuses to follow. */
#pragma clang attribute push(__attribute__((preserve_static_offset)), apply_to = record)
#include <linux/bpf.h>
#pragma clang attribute pop
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>

#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_MPTCP 262

struct addr {
	__be32 w[4];
};

enum policy {
	POLICY_ROUND_ROBIN = 0,
	POLICY_LEAST_CONNECTIONS = 1,
	POLICY_RANDOM = 2,
	POLICY_SOURCE_HASH = 3,
};

/* What became of a call, for the calls that are ours. Also the metric label
 * (lower case, without the prefix). */
enum outcome {
	OUTCOME_TRANSLATED = 0,
	OUTCOME_NO_FRONTEND,   /* a VIP, but no such port */
	OUTCOME_NO_ENDPOINT,   /* nothing to choose from */
	OUTCOME_OUT_OF_SCOPE,  /* a VIP of a namespace the task may not use */
	OUTCOME_UNTRACKED,     /* translated, but the connection map or quota is full */
	OUTCOME_STALE,         /* slot and frontend disagreed twice: a publish was under way */
	OUTCOME_DNS,           /* sent to our DNS socket */
	OUTCOME_DNS_AWAY,      /* our DNS socket is gone or hangs: left alone */
	OUTCOME_EVENT_LOST,    /* ring buffer full */
	OUTCOME_FORWARDED,     /* left to the forwarder */
	OUTCOME_FORWARDER_AWAY, /* would have been, but it is gone or hangs: sent to an endpoint */
	OUTCOME_COUNT,
};

/* Why a connect failed, from the socket's error. Also the metric label. */
enum failure {
	FAILURE_REFUSED = 0,
	FAILURE_TIMEOUT,
	FAILURE_UNREACHABLE,
	FAILURE_RESET,
	FAILURE_ABORTED,    /* the application gave up */
	FAILURE_TERMINATED, /* connectd ended it */
	FAILURE_LOCAL,      /* failed before the first SYN */
	FAILURE_OTHER,
	FAILURE_COUNT,
};

struct frontend_key {
	struct addr addr;
	__be16 port;
	__u8 protocol;
	__u8 pad;
};

enum frontend_flag {
	FRONTEND_PROXIED = 1, /* left to the forwarder while that stands */
	FRONTEND_DIRECT = 2,  /* HTTP, of which cgroup_skb reads first lines */
	FRONTEND_BUILT_IN = 4, /* the forwarder's own: every task may, and no endpoint stands in for it */
};

/* One VIP:port. base and count name a range of the slots array that is
 * immutable while published. */
struct frontend {
	struct frontend_key key; /* its own key: hash values are recycled under a reader */
	__u32 service;
	__u32 base;
	__u32 count; /* 0: no endpoint */
	__u8 policy;
	__u8 namespace;
	__u8 flags;
	__u8 pad;
};

/* One choice. The service is repeated so that a reader of a recycled range
 * sees that it is not its own any more. */
struct slot {
	__u32 endpoint;
	__u32 service;
};

/* Immutable while any slot, connection or counter holds its id. */
struct endpoint {
	struct addr addr;
	__be16 port;
	__u16 weight;
	__u32 service;
};

#define TASK_AVOIDS 1 /* some endpoint is ejected for this task alone */

struct task {
	__u64 key; /* its own key: hash values are recycled under a reader */
	__u32 id;
	__u32 hash_key;
	__u64 scope[4]; /* bit n: may use namespace n */
	__u32 flags;
	__u32 pad;
};

struct task_endpoint {
	__u32 task;
	__u32 endpoint;
};

struct resolver_key {
	struct addr addr;
	__u32 task;
};

/* Our DNS socket for one resolver of one task. */
struct resolver {
	struct addr addr;
	__be16 port;
	__u16 pad;
	__u32 seat;  /* index into listeners and heartbeats */
	__u64 netns; /* where the socket is; a caller elsewhere cannot reach it */
};

#define CONNECTION_ARMED 1   /* sockops follows it: STATE_CB deletes it */
#define CONNECTION_CLOSING 2 /* the application closed it */
#define CONNECTION_ESTABLISHED 4
#define CONNECTION_STRUCK 8 /* its SYN was retransmitted, and that was counted */
#define CONNECTION_DIRECT 16 /* HTTP, of which cgroup_skb reads first lines */
#define CONNECTION_FORWARDED 32 /* goes to the forwarder: remote is the VIP, endpoint 0 */

/* A translated connection, by socket cookie. */
struct connection {
	struct addr vip;
	struct addr remote; /* the endpoint */
	struct addr local;  /* known from TCP_CONNECT_CB on */
	__be16 vip_port;
	__be16 remote_port;
	__be16 local_port;
	__u8 protocol;
	__u8 flags;
	__u32 endpoint;
	__u32 service;
	__u32 task;
	__u32 pad;
	__u64 netns;
	__u64 started_ns; /* monotonic: connect */
};

/* The forwarder's listeners in one network namespace, as seats. */
struct forwarder {
	__u64 netns; /* its own key: hash values are recycled under a reader */
	__u32 seat4;
	__u32 seat6; /* NO_SEAT: no IPv6 there */
};

#define NO_SEAT 0xffffffff

/* A connection on its way to the forwarder. The VIP belongs to the key, for
 * connections to several VIPs may share a local port. */
struct admission_key {
	__u64 netns;
	struct addr local;
	struct addr vip;
	__be16 local_port;
	__be16 vip_port;
	__u32 pad;
};

struct admission {
	__u32 task;
	__u32 ended; /* its socket is gone: good for the accept queue, not for another SYN */
};

struct datagram_key {
	__u64 cookie;
	struct addr remote;
	__be16 port;
	__u16 pad[3];
};

/* Where an unconnected UDP socket believes its answers come from. */
struct datagram {
	struct addr addr;
	__be16 port;
	__u16 pad;
};

/* One cache line an endpoint, written with plain atomic adds: a per-CPU array
 * of this length would cost 800 MiB on 96 cores. */
struct endpoint_stats {
	__u64 active;
	__u64 opened;
	__u64 established;
	__u64 failed;
	__u64 bytes_sent;
	__u64 bytes_received;
	__u64 retransmits;
	__u64 struck; /* not 0: some task has strikes against it */
};

/* A task and a service that it calls. */
struct caller_key {
	__u32 task;
	__u32 service;
};

/* Payload of the connections that have ended. */
struct caller_bytes {
	__u64 sent;
	__u64 received;
};

#define HISTOGRAM_BUCKETS 20
#define HISTOGRAM_SHIFT 4 /* bucket n holds up to 2^(n+4) microseconds; the last one everything above */

struct histogram {
	__u64 buckets[HISTOGRAM_BUCKETS];
	__u64 sum_us;
};

struct service_stats {
	struct histogram connect_time;
	struct histogram srtt;
	__u64 failures[FAILURE_COUNT];
};

#define EVENT_STRIKE 1  /* a connect failed or its first SYN was retransmitted */
#define EVENT_CLEARED 2 /* a run of strikes ended with an established connection */
#define EVENT_HTTP_STRIKE 3  /* mode direct: a response was a 5xx */
#define EVENT_HTTP_CLEARED 4 /* a run of them ended with another response */

struct event {
	__u64 at_ns; /* monotonic */
	__u32 kind;
	__u32 endpoint;
	__u32 task;
	__u32 count; /* strikes in a row */
};

/* What a task asked for and was refused, or what went on untracked. */
struct refusal_key {
	struct addr vip;
	__be16 port;
	__u8 protocol;
	__u8 reason; /* enum outcome; 0: what the task was told of in all */
	__u32 task;
};

/* When user space was told last, and how often not since. Of a whole task:
 * since when records are counted, and how many those are. */
struct refusal_count {
	__u64 told_ns;
	__u32 times;
	__u32 pad;
};

struct refusal {
	__u64 at_ns; /* monotonic */
	struct refusal_key what;
	__u32 untold; /* the same since the last record */
	__u32 pad;
};

struct settings {
	__u32 cgroup_levels; /* bit n: some task is known by its cgroup at depth n */
	__u32 has_datagrams; /* some UDP frontend exists */
};
