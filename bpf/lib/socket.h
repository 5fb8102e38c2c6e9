/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Addresses, callers and the few kernel fields that UAPI does not show. */
#pragma once

#include "config.h"
#include "maps.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

/* CO-RE definitions: only the members named here, offsets from the running
 * kernel's BTF. */
struct sock_common {
	unsigned long skc_flags;
} __attribute__((preserve_access_index));

struct sock {
	struct sock_common __sk_common;
	int sk_err;
} __attribute__((preserve_access_index));

struct inet_sock {
	struct sock sk;
} __attribute__((preserve_access_index));

struct inet_connection_sock {
	struct inet_sock icsk_inet;
} __attribute__((preserve_access_index));

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u8 is_mptcp : 1;
	__u8 bpf_sock_ops_cb_flags;
} __attribute__((preserve_access_index));

static __always_inline struct addr mapped(__be32 ip4)
{
	return (struct addr){ { 0, 0, bpf_htonl(0xffff), ip4 } };
}

static __always_inline bool is_mapped(const struct addr *a)
{
	return a->w[0] == 0 && a->w[1] == 0 && a->w[2] == bpf_htonl(0xffff);
}

static __always_inline bool same_addr(const struct addr *a, const struct addr *b)
{
	return a->w[3] == b->w[3] && a->w[2] == b->w[2] && a->w[1] == b->w[1] && a->w[0] == b->w[0];
}

static __always_inline bool is_vip4(__be32 ip4)
{
	return (ip4 & vip4_mask) == vip4_net;
}

static __always_inline bool is_vip(const struct addr *a)
{
	if (is_mapped(a))
		return is_vip4(a->w[3]);
	return a->w[0] == vip6_net[0] && a->w[1] == vip6_net[1];
}

/* The transport this call is about, 0 for what is not ours: ping sockets are
 * SOCK_DGRAM too. An MPTCP connect shows its TCP subflow. */
static __always_inline __u8 transport(const struct bpf_sock_addr *ctx)
{
	if (ctx->type == SOCK_STREAM)
		return ctx->protocol == IPPROTO_TCP || ctx->protocol == IPPROTO_MPTCP ? IPPROTO_TCP : 0;
	if (ctx->type == SOCK_DGRAM && ctx->protocol == IPPROTO_UDP)
		return IPPROTO_UDP;
	return 0;
}

static __always_inline bool is_own(const struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	return sk && sk->mark == own_mark;
}

/* The cookie of a subflow names no socket that another hook but sockops will
 * ever see (kernel 6.1 to 6.18). */
static __always_inline bool is_subflow(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct tcp_sock *tp;

	if (!sk || !bpf_core_field_exists(((struct tcp_sock *)0)->is_mptcp))
		return false;
	tp = bpf_skc_to_tcp_sock(sk);
	return tp && BPF_CORE_READ_BITFIELD(tp, is_mptcp);
}

/* Retransmissions, of which nobody here wants to hear. sock_ops asks for them on
 * connections in mode direct, so that cgroup_skb knows those at a glance. */
#define CALLBACK_OF_DIRECT BPF_SOCK_OPS_RETRANS_CB_FLAG

/* Whether some sockops program asked for this callback on a socket: ours, or
 * another agent's. */
static __always_inline bool has_callback(struct bpf_sock *sk, __u8 flag)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);

	return tp && (tp->bpf_sock_ops_cb_flags & flag);
}

static __always_inline bool is_loopback(const struct addr *a)
{
	if (is_mapped(a))
		return (a->w[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return a->w[0] == 0 && a->w[1] == 0 && a->w[2] == 0 && a->w[3] == bpf_htonl(1);
}

/* The caller. What is read of it counts only if is_same_task says so afterwards:
 * its scope is a boundary, and a value may become another task's meanwhile. */
static __always_inline struct task *find_task(void *ctx, __u64 netns, __u64 *key)
{
	struct task *task = bpf_map_lookup_elem(&tasks_netns_v1, &netns);
	struct settings *set;
	__u32 zero = 0;

	*key = netns;
	if (task)
		return task;
	set = bpf_map_lookup_elem(&settings_v1, &zero);
	if (!set || !set->cgroup_levels)
		return NULL;
	for (int level = 1; level < 16; level++) {
		if (!(set->cgroup_levels & (1U << level)))
			continue;
		*key = bpf_get_current_ancestor_cgroup_id(level);
		task = bpf_map_lookup_elem(&tasks_cgroup_v1, key);
		if (task)
			return task;
	}
	return NULL;
}

static __always_inline bool is_same_task(const struct task *task, __u64 key)
{
	barrier();
	return *(const volatile __u64 *)&task->key == key;
}
