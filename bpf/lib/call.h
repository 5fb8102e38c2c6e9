/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One call of an application, from what it asked for to what it gets: the same
 * for connect and sendmsg, IPv4 and IPv6. */
#pragma once

#include "dns.h"
#include "forward.h"
#include "lb.h"
#include "track.h"

#define DNS_PORT 53

enum verdict {
	PASS,          /* untouched */
	REWRITE,       /* to call.dst */
	REFUSE,        /* ECONNREFUSED */
	UNREACHABLE,   /* EHOSTUNREACH */
	OUT_OF_SCOPE,  /* EPERM */
};

/* One call, IPv4 or IPv6, away from its context. */
struct call {
	struct addr dst;
	__be16 port;
	__u8 protocol;
	bool connected; /* connect, not sendmsg */
};

static __always_inline bool in_scope(const struct task *task, __u8 namespace)
{
	return task->scope[(namespace >> 6) & 3] & (1ULL << (namespace & 63));
}

static __always_inline bool same_frontend(const volatile struct frontend_key *a, const struct frontend_key *b)
{
	return a->addr.w[3] == b->addr.w[3] && a->addr.w[2] == b->addr.w[2] && a->addr.w[1] == b->addr.w[1] &&
	       a->addr.w[0] == b->addr.w[0] && a->port == b->port && a->protocol == b->protocol;
}

static __always_inline bool pick(const struct frontend_key *key, const struct task *task, const __u32 *sticky,
				 struct frontend *fe, struct choice *to)
{
	struct frontend *found = bpf_map_lookup_elem(&frontends_v1, key);

	if (!found)
		return false;
	/* Before and after: it may become another's while it is copied. */
	if (!same_frontend(&found->key, key))
		return false;
	fe->service = found->service;
	fe->base = found->base;
	fe->count = found->count;
	fe->policy = found->policy;
	fe->namespace = found->namespace;
	fe->flags = found->flags;
	barrier();
	if (!same_frontend(&found->key, key)) {
		fe->service = 0;
		return false;
	}
	if (fe->count == 0)
		return true;
	return choose(fe, task, sticky, to);
}

static __always_inline void remember_datagram(__u64 cookie, const struct addr *remote, __be16 port,
					      const struct addr *shown, __be16 shown_port)
{
	struct datagram_key key = { .cookie = cookie, .remote = *remote, .port = port };
	struct datagram value = { .addr = *shown, .port = shown_port };

	bpf_map_update_elem(&datagrams_v1, &key, &value, BPF_ANY);
}

static __always_inline void record(struct bpf_sock_addr *ctx, const struct call *call, const struct frontend *fe,
				   __u32 task, const struct choice *to, __u64 netns, __u64 cookie)
{
	struct connection c = {
		.vip = call->dst,
		.remote = to->addr,
		.vip_port = call->port,
		.remote_port = to->port,
		.protocol = call->protocol,
		.flags = fe->flags & FRONTEND_DIRECT ? CONNECTION_DIRECT : 0,
		.endpoint = to->id,
		.service = fe->service,
		.task = task,
		.netns = netns,
	};

	if (call->protocol == IPPROTO_UDP)
		remember_datagram(cookie, &to->addr, to->port, &call->dst, call->port);
	if (call->connected && !track(cookie, &c, call->protocol == IPPROTO_TCP && is_subflow(ctx)))
		refused(OUTCOME_UNTRACKED, task, &call->dst, call->port, call->protocol);
}

/* Leaves a connect to an HTTP service as it is, so that it reaches the
 * forwarder's listener in the caller's namespace. false: it goes to an endpoint
 * as any other does. That is also what becomes of it when it cannot be tracked,
 * for sk_lookup lets nothing through that is not. */
static __always_inline bool leave(struct bpf_sock_addr *ctx, const struct call *call, const struct frontend *fe,
				  __u32 task, __u64 netns, __u64 cookie)
{
	struct connection c = {
		.vip = call->dst,
		.remote = call->dst,
		.vip_port = call->port,
		.remote_port = call->port,
		.protocol = IPPROTO_TCP,
		.flags = CONNECTION_FORWARDED,
		.service = fe->service,
		.task = task,
		.netns = netns,
	};
	struct bpf_sock *sk = ctx->sk;

	/* A socket bound to a device never reaches loopback. */
	if (!(fe->flags & FRONTEND_PROXIED) || call->protocol != IPPROTO_TCP || (sk && sk->bound_dev_if))
		return false;
	if (!has_forwarder(netns, is_mapped(&call->dst))) {
		if (!(fe->flags & FRONTEND_BUILT_IN))
			count(OUTCOME_FORWARDER_AWAY);
		return false;
	}
	if (!track(cookie, &c, is_subflow(ctx)))
		return false;
	count(OUTCOME_FORWARDED);
	return true;
}

static __always_inline enum verdict deny(enum verdict v, enum outcome reason, __u32 task, const struct call *call)
{
	refused(reason, task, &call->dst, call->port, call->protocol);
	return v;
}

static __always_inline enum verdict translate(struct bpf_sock_addr *ctx, struct call *call)
{
	struct frontend_key key = { .addr = call->dst, .port = call->port, .protocol = call->protocol };
	__u64 netns = bpf_get_netns_cookie(ctx), cookie = bpf_get_socket_cookie(ctx);
	struct frontend fe = {};
	struct choice to = {};
	bool picked = false, allowed = false;
	__u32 id = 0;
	__u32 hash = ((__u32)cookie ^ bpf_ntohl(key.addr.w[3])) * 0x9e3779b1U >> 8;
	__u32 *sticky = call->connected ? NULL : &hash;

	/* Once more on a miss: a publish may have replaced what was read. */
#pragma clang loop unroll(disable)
	for (int tries = 0; tries < 2 && !picked; tries++) {
		__u64 caller;
		struct task *task = find_task(ctx, netns, &caller);

		if (!task)
			return PASS; /* a stranger: VIPs are handed out only to clients */
		picked = pick(&key, task, sticky, &fe, &to);
		id = task->id;
		allowed = (fe.flags & FRONTEND_BUILT_IN) || in_scope(task, fe.namespace);
		picked = is_same_task(task, caller) && picked;
	}
	if (!picked) {
		if (!fe.service) {
			/* getaddrinfo sorts addresses by connecting UDP sockets to them. */
			if (call->protocol == IPPROTO_UDP && call->connected) {
				count(OUTCOME_NO_FRONTEND);
				return PASS;
			}
			return deny(REFUSE, OUTCOME_NO_FRONTEND, id, call);
		}
		return deny(UNREACHABLE, OUTCOME_STALE, id, call);
	}
	if (!allowed)
		return deny(OUT_OF_SCOPE, OUTCOME_OUT_OF_SCOPE, id, call);
	if (leave(ctx, call, &fe, id, netns, cookie))
		return PASS;
	if (fe.flags & FRONTEND_BUILT_IN)
		return REFUSE;
	if (fe.count == 0)
		return deny(UNREACHABLE, OUTCOME_NO_ENDPOINT, id, call);
	record(ctx, call, &fe, id, &to, netns, cookie);
	count(OUTCOME_TRANSLATED);
	call->dst = to.addr;
	call->port = to.port;
	return REWRITE;
}

static __always_inline enum verdict to_resolver(struct bpf_sock_addr *ctx, struct call *call)
{
	struct resolver *r;

	r = find_resolver(ctx, &call->dst);
	if (!r)
		return PASS;
	/* TCP too: getpeername finds the resolver here. */
	remember_datagram(bpf_get_socket_cookie(ctx), &r->addr, r->port, &call->dst, call->port);
	call->dst = r->addr;
	call->port = r->port;
	return REWRITE;
}

/* An application that turns to an endpoint directly must see the endpoint. */
static __always_inline void forget_datagram(struct bpf_sock_addr *ctx, const struct call *call)
{
	__u32 zero = 0;
	struct settings *set = bpf_map_lookup_elem(&settings_v1, &zero);
	struct datagram_key key = { .remote = call->dst, .port = call->port };

	if (!set || !set->has_datagrams)
		return;
	key.cookie = bpf_get_socket_cookie(ctx);
	bpf_map_delete_elem(&datagrams_v1, &key);
}

static __always_inline enum verdict decide(struct bpf_sock_addr *ctx, struct call *call)
{
	call->protocol = transport(ctx);
	if (!call->protocol || is_own(ctx))
		return PASS;
	if (is_vip(&call->dst))
		return translate(ctx, call);
	return to_resolver(ctx, call);
}

/* What a refusal looks like to the application. Kernels before 5.18 know only
 * EPERM, which many clients take as final, so there a TCP connect is sent
 * where the kernel refuses it by itself: port 0 of loopback, or broadcast. */
static __always_inline int refuse(struct call *call, enum verdict v)
{
	if (v == OUT_OF_SCOPE)
		return 0;
	if (has_set_retval) {
		bpf_set_retval(v == REFUSE ? -ECONNREFUSED : -EHOSTUNREACH);
		return 0;
	}
	if (call->protocol != IPPROTO_TCP)
		return 0;
	call->dst = mapped(v == REFUSE ? bpf_htonl(0x7f000001) : 0xffffffff);
	call->port = v == REFUSE ? 0 : call->port;
	return 1;
}

static __always_inline int finish4(struct bpf_sock_addr *ctx, struct call *call, enum verdict v)
{
	if (v == PASS)
		return 1;
	if (v != REWRITE && !refuse(call, v))
		return 0;
	ctx->user_ip4 = call->dst.w[3];
	ctx->user_port = call->port;
	return 1;
}

static __always_inline void store6(struct bpf_sock_addr *ctx, const struct addr *a, __be16 port)
{
	ctx->user_ip6[0] = a->w[0];
	ctx->user_ip6[1] = a->w[1];
	ctx->user_ip6[2] = a->w[2];
	ctx->user_ip6[3] = a->w[3];
	ctx->user_port = port;
}

static __always_inline int finish6(struct bpf_sock_addr *ctx, struct call *call, enum verdict v)
{
	if (v == PASS)
		return 1;
	if (v != REWRITE && !refuse(call, v))
		return 0;
	store6(ctx, &call->dst, call->port);
	return 1;
}

static __always_inline struct addr dst6(const struct bpf_sock_addr *ctx)
{
	return (struct addr){ { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] } };
}
