/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The way to the forwarder. The connect hook leaves a VIP alone while the
 * forwarder stands, sockops admits the connection before its SYN, and sk_lookup
 * (forward.bpf.c) gives the SYN to the listener. */
#pragma once

#include "seat.h"
#include "socket.h"

static __always_inline bool has_forwarder(__u64 netns, bool v4)
{
	struct forwarder *f = bpf_map_lookup_elem(&forwarders_v1, &netns);
	__u32 seat;

	if (!f)
		return false;
	seat = v4 ? f->seat4 : f->seat6;
	barrier();
	return *(const volatile __u64 *)&f->netns == netns && is_alive(seat);
}

static __always_inline struct admission_key admission_of(const struct connection *c)
{
	return (struct admission_key){
		.netns = c->netns,
		.local = c->local,
		.vip = c->vip,
		.local_port = c->local_port,
		.vip_port = c->vip_port,
	};
}

static __always_inline void admit(const struct connection *c)
{
	struct admission_key key = admission_of(c);
	struct admission value = { .task = c->task };

	bpf_map_update_elem(&admissions_v1, &key, &value, BPF_ANY);
}

/* The client's socket is gone. One that was never established will not be
 * accepted; another may wait in the accept queue with its request. If it fell
 * from there, what is left must not admit whoever gets the port next. */
static __always_inline void dismiss(const struct connection *c)
{
	struct admission_key key = admission_of(c);
	struct admission ended = { .task = c->task, .ended = 1 };

	if (!(c->flags & CONNECTION_ESTABLISHED)) {
		bpf_map_delete_elem(&admissions_v1, &key);
		return;
	}
	/* Replaced and not written in place: the value may become another's. */
	if (bpf_map_lookup_elem(&admissions_v1, &key))
		bpf_map_update_elem(&admissions_v1, &key, &ended, BPF_EXIST);
}
