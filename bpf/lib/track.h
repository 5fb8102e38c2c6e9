/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The life of a tracked connection. Written at connect, armed at
 * TCP_CONNECT_CB, counted and deleted at TCP_CLOSE. sock_release comes before
 * the close events, so it deletes only what sockops never saw. Every reader
 * compares the socket's peer with the stored endpoint first: a socket may have
 * been connected elsewhere since. */
#pragma once

#include "events.h"
#include "exchange.h"
#include "forward.h"
#include "legacy.h"
#include "socket.h"

#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_FIN_WAIT2 5
#define TCP_CLOSE 7
#define TCP_LAST_ACK 9
#define TCP_CLOSING 11

#define SOCK_DONE 1 /* enum sock_flags: the peer's FIN came */

#define ECONNRESET 104
#define ECONNABORTED 103
#define ETIMEDOUT 110
#define ECONNREFUSED 111
#define EHOSTUNREACH 113
#define ENETUNREACH 101

static __always_inline struct connection *connection_of(__u64 cookie)
{
	struct connection *c = bpf_map_lookup_elem(&connections_v1, &cookie);

	return c ? c : legacy_take(cookie);
}

/* The counters of a connection's endpoint. What the forwarder does with a
 * request is counted by itself. */
static __always_inline struct endpoint_stats *endpoint_of(const struct connection *c)
{
	return c->flags & CONNECTION_FORWARDED ? NULL : stats_of(c->endpoint);
}

static __always_inline void fail(const struct connection *c, enum failure reason)
{
	struct service_stats *s = bpf_map_lookup_elem(&service_stats_v1, &c->service);
	struct endpoint_stats *e = stats_of(c->endpoint);

	if (s && reason < FAILURE_COUNT)
		add(&s->failures[reason], 1);
	if (e)
		add(&e->failed, 1);
}

static __always_inline void release_quota(const struct connection *c)
{
	__u64 *held = bpf_map_lookup_elem(&task_connections_v1, &c->task);

	if (held)
		add(held, -1);
}

/* Forgets a connection that sockops does not follow (UDP, or before its SYN). */
static __always_inline void forget(__u64 cookie, const struct connection *c)
{
	struct endpoint_stats *e = stats_of(c->endpoint);

	if (c->protocol == IPPROTO_UDP && e)
		add(&e->active, -1);
	if (c->protocol == IPPROTO_TCP && !(c->flags & CONNECTION_FORWARDED))
		fail(c, FAILURE_LOCAL);
	release_quota(c);
	bpf_map_delete_elem(&connections_v1, &cookie);
}

static __always_inline bool store(__u64 cookie, const struct connection *c, const __u64 *held, __u64 how)
{
	return held && *held < max_task_connections && !bpf_map_update_elem(&connections_v1, &cookie, c, how);
}

/* Writes the state of a connection about to be made. false: there is no room,
 * for this task or at all. */
static __always_inline bool track(__u64 cookie, const struct connection *c, bool subflow)
{
	__u64 *held = bpf_map_lookup_elem(&task_connections_v1, &c->task);
	struct connection *old;
	struct endpoint_stats *e;

	if (subflow)
		return held && *held < max_task_connections && !bpf_map_update_elem(&subflows_v1, &cookie, c, BPF_ANY);
	if (!store(cookie, c, held, BPF_NOEXIST)) {
		old = bpf_map_lookup_elem(&connections_v1, &cookie);
		if (!old)
			return false;
		if (!(old->flags & CONNECTION_ARMED))
			forget(cookie, old); /* the socket's earlier, other destination */
		if (!store(cookie, c, held, BPF_ANY))
			return false;
	}
	add(held, 1);
	e = stats_of(c->endpoint);
	if (c->protocol == IPPROTO_UDP && e) {
		add(&e->active, 1);
		add(&e->opened, 1);
	}
	return true;
}

static __always_inline struct addr remote_of(const struct bpf_sock_ops *ops)
{
	if (ops->family == AF_INET)
		return mapped(ops->remote_ip4);
	return (struct addr){ { ops->remote_ip6[0], ops->remote_ip6[1],
				ops->remote_ip6[2], ops->remote_ip6[3] } };
}

static __always_inline struct addr local_of(const struct bpf_sock_ops *ops)
{
	if (ops->family == AF_INET)
		return mapped(ops->local_ip4);
	return (struct addr){ { ops->local_ip6[0], ops->local_ip6[1],
				ops->local_ip6[2], ops->local_ip6[3] } };
}

/* The local end, known from TCP_CONNECT_CB on. */
static __always_inline void locate(const struct bpf_sock_ops *ops, struct connection *c)
{
	c->local = local_of(ops);
	c->local_port = bpf_htons(ops->local_port);
}

/* Callbacks are added to those of other programs on the same socket; setting
 * them plainly would take theirs away. */
static __always_inline void arm(struct bpf_sock_ops *ops, const struct connection *c)
{
	__u32 flags = ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTO_CB_FLAG;

	if (c->flags & CONNECTION_DIRECT)
		flags |= CALLBACK_OF_DIRECT;
	bpf_sock_ops_cb_flags_set(ops, flags);
}

static __always_inline struct connection *adopt_subflow(struct bpf_sock_ops *ops, __u64 cookie)
{
	struct connection *c = bpf_map_lookup_elem(&subflows_v1, &cookie);

	if (!c)
		return NULL;
	if (!track(cookie, c, false)) {
		refused(OUTCOME_UNTRACKED, c->task, &c->vip, c->vip_port, c->protocol);
		/* Too late to send it to an endpoint. */
		if (c->flags & CONNECTION_FORWARDED) {
			locate(ops, c);
			admit(c);
		}
	}
	bpf_map_delete_elem(&subflows_v1, &cookie);
	return bpf_map_lookup_elem(&connections_v1, &cookie);
}

static __always_inline void on_connect(struct bpf_sock_ops *ops)
{
	__u64 cookie = bpf_get_socket_cookie(ops);
	struct connection *c = connection_of(cookie);
	struct addr remote = remote_of(ops);
	struct endpoint_stats *e;

	if (!c)
		c = adopt_subflow(ops, cookie);
	if (!c || c->protocol != IPPROTO_TCP || (c->flags & CONNECTION_ARMED))
		return;
	/* remote_port holds a __be16 in its upper half. */
	if (!same_addr(&c->remote, &remote) || c->remote_port != (__be16)(ops->remote_port >> 16)) {
		forget(cookie, c);
		return;
	}
	locate(ops, c);
	c->started_ns = bpf_ktime_get_ns();
	c->flags |= CONNECTION_ARMED;
	arm(ops, c);
	follow(cookie, c);
	if (c->flags & CONNECTION_FORWARDED)
		admit(c);
	e = endpoint_of(c);
	if (e) {
		add(&e->active, 1);
		add(&e->opened, 1);
	}
}

static __always_inline struct connection *followed(__u64 cookie)
{
	struct connection *c = connection_of(cookie);

	return c && (c->flags & CONNECTION_ARMED) ? c : NULL;
}

static __always_inline void on_established(struct bpf_sock_ops *ops)
{
	__u64 cookie = bpf_get_socket_cookie(ops);
	struct connection *c = followed(cookie);
	struct endpoint_stats *e;
	struct service_stats *s;

	if (!c)
		return;
	arm(ops, c); /* an agent that replaced the flags since would leak our entry */
	c->flags |= CONNECTION_ESTABLISHED;
	if (c->flags & CONNECTION_FORWARDED)
		return;
	s = bpf_map_lookup_elem(&service_stats_v1, &c->service);
	if (s)
		observe(&s->connect_time, (bpf_ktime_get_ns() - c->started_ns) / 1000);
	e = stats_of(c->endpoint);
	if (e) {
		add(&e->established, 1);
		forgive(c, e);
	}
}

/* A black hole shows at the first retransmit of the SYN, a second after the
 * connect, instead of two minutes later. */
static __always_inline void on_timeout(struct bpf_sock_ops *ops)
{
	__u64 cookie;
	struct connection *c;
	struct endpoint_stats *e;

	if (ops->state != TCP_SYN_SENT)
		return;
	cookie = bpf_get_socket_cookie(ops);
	c = followed(cookie);
	if (!c || (c->flags & CONNECTION_STRUCK))
		return;
	c->flags |= CONNECTION_STRUCK;
	e = endpoint_of(c);
	if (e)
		strike(c, e);
}

static __always_inline enum failure failure_of(struct bpf_sock_ops *ops, const struct connection *c)
{
	struct bpf_sock *sk = ops->sk;
	struct tcp_sock *tp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;

	switch (tp ? tp->inet_conn.icsk_inet.sk.sk_err : 0) {
	case ECONNREFUSED:
		return FAILURE_REFUSED;
	case ETIMEDOUT:
		return FAILURE_TIMEOUT;
	case EHOSTUNREACH:
	case ENETUNREACH:
		return FAILURE_UNREACHABLE;
	case ECONNRESET:
		return FAILURE_RESET;
	case ECONNABORTED:
		return FAILURE_TERMINATED;
	case 0:
		return FAILURE_ABORTED;
	}
	return c->flags & CONNECTION_CLOSING ? FAILURE_ABORTED : FAILURE_OTHER;
}

static __always_inline void on_failed(struct bpf_sock_ops *ops, const struct connection *c, struct endpoint_stats *e)
{
	enum failure reason = failure_of(ops, c);

	fail(c, reason);
	/* An application that gives up says nothing about the endpoint; its
	 * retransmitted SYN, counted before, did. */
	if (reason != FAILURE_ABORTED && reason != FAILURE_TERMINATED && !(c->flags & CONNECTION_STRUCK))
		strike(c, e);
}

/* Whether the peer's FIN came. The state does not tell: a socket that its
 * application has closed leaves FIN_WAIT2 at once, before that FIN. */
static __always_inline bool peer_finished(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	struct tcp_sock *tp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;

	/* Volatile: a load that the compiler narrows cannot be relocated. */
	return tp && (*(volatile unsigned long *)&tp->inet_conn.icsk_inet.sk.__sk_common.skc_flags & (1UL << SOCK_DONE));
}

static __always_inline void count_for_caller(const struct connection *c, __u64 sent, __u64 received)
{
	struct caller_key key = { .task = c->task, .service = c->service };
	struct caller_bytes *b = bpf_map_lookup_elem(&caller_bytes_v1, &key), none = {};

	if (!b) {
		bpf_map_update_elem(&caller_bytes_v1, &key, &none, BPF_NOEXIST);
		b = bpf_map_lookup_elem(&caller_bytes_v1, &key);
	}
	if (b) {
		add(&b->sent, sent);
		add(&b->received, received);
	}
}

/* bytes_acked counts our SYN and FIN, bytes_received the peer's FIN. */
static __always_inline void count_bytes(struct bpf_sock_ops *ops, const struct connection *c, struct endpoint_stats *e)
{
	__u64 sent = ops->bytes_acked, received = ops->bytes_received;
	__u32 old = ops->args[0];
	bool fin_sent = old == TCP_FIN_WAIT2 || old == TCP_CLOSING || old == TCP_LAST_ACK;

	if (sent > 0)
		sent--;
	if (fin_sent && sent > 0)
		sent--;
	if (received > 0 && peer_finished(ops))
		received--;
	add(&e->bytes_sent, sent);
	add(&e->bytes_received, received);
	if (count_callers)
		count_for_caller(c, sent, received);
}

static __always_inline void on_close(struct bpf_sock_ops *ops)
{
	__u64 cookie = bpf_get_socket_cookie(ops);
	struct connection *c = followed(cookie);
	struct endpoint_stats *e;

	if (!c)
		return;
	if (c->flags & CONNECTION_FORWARDED) {
		dismiss(c);
		release_quota(c);
		bpf_map_delete_elem(&connections_v1, &cookie);
		return;
	}
	e = stats_of(c->endpoint);
	if (e) {
		add(&e->active, -1);
		if (ops->total_retrans)
			add(&e->retransmits, ops->total_retrans);
		if (c->flags & CONNECTION_ESTABLISHED)
			count_bytes(ops, c, e);
		else
			on_failed(ops, c, e);
	}
	if (c->flags & CONNECTION_ESTABLISHED) {
		struct service_stats *s = bpf_map_lookup_elem(&service_stats_v1, &c->service);

		if (s)
			observe(&s->srtt, ops->srtt_us >> 3);
	}
	release_quota(c);
	unfollow(cookie, c);
	bpf_map_delete_elem(&connections_v1, &cookie);
}
