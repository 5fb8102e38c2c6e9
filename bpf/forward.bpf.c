// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Gives connections that were left to the forwarder to its listener in their
 * namespace. The accepted socket's local address is the VIP and port, so no
 * table of original destinations exists.
 *
 * Loaded once for each network namespace: sk_lookup cannot ask for its netns
 * cookie (kernels 5.10 to 6.18), and a listener of another namespace would be
 * taken without an error and then time out. */

#include "lib/forward.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

volatile const __u64 netns_cookie;
volatile const __u32 listener4;
volatile const __u32 listener6;

/* The node's own namespace: what is no client's passes there, and reaches
 * whatever has bound the address. In a task's own it is dropped, or the task
 * would silently call itself at any port that it listens on. */
volatile const __u8 is_node;

/* Our DNS sockets, which may lie in the VIP range. */
volatile const __be32 socket_addr;

SEC("sk_lookup")
int forward(struct bpf_sk_lookup *ctx)
{
	struct admission_key key = { .netns = netns_cookie };
	struct admission *admitted = NULL;
	struct bpf_sock *sk;
	__u32 seat;
	long err;

	if (ctx->family == AF_INET) {
		if (!is_vip4(ctx->local_ip4) || ctx->local_ip4 == socket_addr)
			return SK_PASS;
		key.local = mapped(ctx->remote_ip4);
		key.vip = mapped(ctx->local_ip4);
		seat = listener4;
	} else {
		if (ctx->local_ip6[0] != vip6_net[0] || ctx->local_ip6[1] != vip6_net[1])
			return SK_PASS;
		key.local = (struct addr){ { ctx->remote_ip6[0], ctx->remote_ip6[1], ctx->remote_ip6[2], ctx->remote_ip6[3] } };
		key.vip = (struct addr){ { ctx->local_ip6[0], ctx->local_ip6[1], ctx->local_ip6[2], ctx->local_ip6[3] } };
		seat = listener6;
	}
	/* Two bytes: the field is wider before 5.18, and has its port there. */
	key.local_port = ctx->remote_port;
	key.vip_port = bpf_htons(ctx->local_port);
	if (ctx->protocol == IPPROTO_TCP)
		admitted = bpf_map_lookup_elem(&admissions_v1, &key);
	if (!admitted || admitted->ended)
		return is_node ? SK_PASS : SK_DROP;
	sk = bpf_map_lookup_elem(&listeners_v1, &seat);
	if (!sk)
		return SK_DROP;
	err = bpf_sk_assign(ctx, sk, 0);
	bpf_sk_release(sk);
	return err ? SK_DROP : SK_PASS;
}
