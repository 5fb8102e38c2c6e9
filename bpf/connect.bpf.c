// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The hooks. Each first asks whether the call is ours (VIP range, port 53, a
 * socket that was armed) and returns when it is not: that path is every
 * bystander's. Return values: 1 lets the call go on, 0 refuses it. */

#include "lib/call.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Types that no map names, kept in BTF for the generated Go. */
const struct event *unused_event __attribute__((unused));
const struct refusal *unused_refusal __attribute__((unused));
const enum outcome *unused_outcome __attribute__((unused));
const enum failure *unused_failure __attribute__((unused));
const enum policy *unused_policy __attribute__((unused));
const enum frontend_flag *unused_frontend_flag __attribute__((unused));

static __always_inline bool learn(struct bpf_sock_addr *ctx)
{
	__u64 cookie, netns;

	if (ctx->user_ip4 != learn_addr || !is_own(ctx))
		return false;
	cookie = bpf_get_socket_cookie(ctx);
	netns = bpf_get_netns_cookie(ctx);
	bpf_map_update_elem(&learned_v1, &cookie, &netns, BPF_ANY);
	return true;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct call call;

	if (!is_vip4(ctx->user_ip4) && ctx->user_port != bpf_htons(DNS_PORT))
		return 1;
	if (learn(ctx))
		return 1;
	call = (struct call){ .dst = mapped(ctx->user_ip4), .port = ctx->user_port, .connected = true };
	return finish4(ctx, &call, decide(ctx, &call));
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	struct call call = { .dst = dst6(ctx), .port = ctx->user_port, .connected = true };

	if (!is_vip(&call.dst) && call.port != bpf_htons(DNS_PORT))
		return 1;
	return finish6(ctx, &call, decide(ctx, &call));
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct call call = { .dst = mapped(ctx->user_ip4), .port = ctx->user_port };
	enum verdict v = PASS;

	if (is_vip(&call.dst) || call.port == bpf_htons(DNS_PORT))
		v = decide(ctx, &call);
	if (v == PASS)
		forget_datagram(ctx, &call);
	return finish4(ctx, &call, v);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct call call = { .dst = dst6(ctx), .port = ctx->user_port };
	enum verdict v = PASS;

	if (is_vip(&call.dst) || call.port == bpf_htons(DNS_PORT))
		v = decide(ctx, &call);
	if (v == PASS)
		forget_datagram(ctx, &call);
	return finish6(ctx, &call, v);
}

static __always_inline struct datagram *shown_as(struct bpf_sock_addr *ctx, const struct addr *from, __be16 port)
{
	struct datagram_key key = { .cookie = bpf_get_socket_cookie(ctx), .remote = *from, .port = port };

	return bpf_map_lookup_elem(&datagrams_v1, &key);
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	struct addr from = mapped(ctx->user_ip4);
	struct datagram *shown = shown_as(ctx, &from, ctx->user_port);

	if (shown) {
		ctx->user_ip4 = shown->addr.w[3];
		ctx->user_port = shown->port;
	}
	return 1;
}

/* Also for v4-mapped sockets, whose questions went out through sendmsg4. */
SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	struct addr from = dst6(ctx);
	struct datagram *shown = shown_as(ctx, &from, ctx->user_port);

	if (shown) {
		struct addr a = shown->addr;
		__be16 port = shown->port;

		store6(ctx, &a, port);
	}
	return 1;
}

/* Whether we may have translated this socket. accept asks for the peer too, so
 * this comes before the look-ups. Our resolvers, which no sockops program
 * follows, are on loopback. An MPTCP socket is not known by its cookie. */
static __always_inline bool may_be_ours(struct bpf_sock_addr *ctx, const struct addr *peer)
{
	struct bpf_sock *sk = ctx->sk;

	if (ctx->type != SOCK_STREAM)
		return true;
	return (sk && has_callback(sk, BPF_SOCK_OPS_STATE_CB_FLAG)) || (is_loopback(peer) && !is_own(ctx));
}

/* The VIP this socket's peer goes by, if we translated it. */
static __always_inline bool peer_of(struct bpf_sock_addr *ctx, const struct addr *peer, __be16 port, struct datagram *out)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct connection *c = bpf_map_lookup_elem(&connections_v1, &cookie), old;
	struct datagram *shown;

	if (!c && legacy_peek(cookie, &old))
		c = &old;
	if (c) {
		if (!same_addr(&c->remote, peer) || c->remote_port != port)
			return false;
		*out = (struct datagram){ .addr = c->vip, .port = c->vip_port };
		return true;
	}
	shown = shown_as(ctx, peer, port);
	if (!shown)
		return false;
	*out = *shown;
	return true;
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	struct addr peer = mapped(ctx->user_ip4);
	struct datagram shown;

	if (may_be_ours(ctx, &peer) && peer_of(ctx, &peer, ctx->user_port, &shown)) {
		ctx->user_ip4 = shown.addr.w[3];
		ctx->user_port = shown.port;
	}
	return 1;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	struct addr peer = dst6(ctx);
	struct datagram shown;

	if (may_be_ours(ctx, &peer) && peer_of(ctx, &peer, ctx->user_port, &shown))
		store6(ctx, &shown.addr, shown.port);
	return 1;
}

/* Runs at every close on the node, accepted sockets too, and before FIN: most
 * leave at the first test. */
SEC("cgroup/sock_release")
int sock_release(struct bpf_sock *ctx)
{
	struct connection *c;
	__u64 cookie;

	if (ctx->type == SOCK_STREAM && ctx->state != TCP_CLOSE && ctx->state != TCP_SYN_SENT)
		return 1;
	cookie = bpf_get_socket_cookie(ctx);
	c = connection_of(cookie);
	if (!c)
		return 1;
	if (c->flags & CONNECTION_ARMED)
		c->flags |= CONNECTION_CLOSING;
	else
		forget(cookie, c);
	return 1;
}

/* Always 1, and never a reply: a 0 turns every other program's reply into -1. */
SEC("sockops")
int sock_ops(struct bpf_sock_ops *ops)
{
	if (ops->op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
		on_connect(ops);
		return 1;
	}
	if (!(ops->bpf_sock_ops_cb_flags & BPF_SOCK_OPS_STATE_CB_FLAG))
		return 1;
	if (ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		on_established(ops);
	else if (ops->op == BPF_SOCK_OPS_RTO_CB)
		on_timeout(ops);
	else if (ops->op == BPF_SOCK_OPS_STATE_CB && ops->args[1] == TCP_CLOSE)
		on_close(ops);
	return 1;
}
