/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Port 53 of a task's own resolvers goes to our DNS socket while that socket
 * lives and its loop beats; else DNS works as if we had never been there. */
#pragma once

#include "seat.h"
#include "socket.h"

/* Returns our socket for this destination, or NULL: not a resolver of this
 * task, or we are away. */
static __always_inline struct resolver *find_resolver(void *ctx, const struct addr *addr)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	struct resolver_key key = { .addr = *addr };
	struct resolver *r;
	struct task *task;
	__u64 caller;

	task = find_task(ctx, netns, &caller);
	if (!task)
		return NULL;
	key.task = task->id;
	if (!is_same_task(task, caller))
		return NULL;
	r = bpf_map_lookup_elem(&resolvers_v1, &key);
	if (!r || r->netns != netns)
		return NULL;
	if (!is_alive(r->seat)) {
		count(OUTCOME_DNS_AWAY);
		return NULL;
	}
	count(OUTCOME_DNS);
	return r;
}
