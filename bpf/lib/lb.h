/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Choosing an endpoint: O(1) over the slot table that user space built, in
 * which weights and zones have become slots. */
#pragma once

#include "metrics.h"
#include "socket.h"

/* How often an endpoint ejected for this task alone is stepped over. A task
 * for which so many neighbours are ejected takes what it gets. */
#define MAX_AVOIDS 8

struct choice {
	struct addr addr;
	__be16 port;
	__u16 weight;
	__u32 id;
};

static __always_inline __u32 turn(__u32 service)
{
	__u32 *n = bpf_map_lookup_elem(&turns_v1, &service);

	/* Preemption between read and write costs a turn, no more. */
	return n ? (*n)++ : bpf_get_prandom_u32();
}

static __always_inline bool read_slot(const struct frontend *fe, __u32 n, struct choice *out)
{
	__u32 index = fe->base + n % fe->count;
	struct slot *slot = bpf_map_lookup_elem(&slots_v1, &index);
	struct endpoint *ep;
	__u32 id;

	if (!slot || slot->service != fe->service)
		return false;
	id = slot->endpoint;
	ep = bpf_map_lookup_elem(&endpoints_v1, &id);
	if (!ep || ep->service != fe->service)
		return false;
	out->id = id;
	out->addr = ep->addr;
	out->port = ep->port;
	out->weight = ep->weight;
	return true;
}

/* Whether a carries fewer connections for its weight than b. */
static __always_inline bool less_loaded(const struct choice *a, const struct choice *b)
{
	struct endpoint_stats *sa = stats_of(a->id), *sb = stats_of(b->id);

	return sa && sb && sa->active * b->weight < sb->active * a->weight;
}

static __always_inline bool is_avoided(const struct task *task, __u32 endpoint)
{
	struct task_endpoint key = { .task = task->id, .endpoint = endpoint };

	return (task->flags & TASK_AVOIDS) && bpf_map_lookup_elem(&avoids_v1, &key);
}

static __always_inline __u32 first_index(const struct frontend *fe, const struct task *task, const __u32 *sticky)
{
	if (sticky)
		return *sticky;
	if (fe->policy == POLICY_SOURCE_HASH)
		return task->hash_key;
	if (fe->policy == POLICY_ROUND_ROBIN)
		return turn(fe->service);
	return bpf_get_prandom_u32();
}

/* Picks an endpoint. sticky, when given, replaces the policy: an unconnected
 * UDP socket must stay on one endpoint. Returns false when slots and frontend
 * disagree because a publish is under way. */
static __always_inline bool choose(const struct frontend *fe, const struct task *task, const __u32 *sticky,
				   struct choice *out)
{
	__u32 n = first_index(fe, task, sticky);

	if (!read_slot(fe, n, out))
		return false;
	if (fe->policy == POLICY_LEAST_CONNECTIONS && !sticky) {
		struct choice other;

		if (read_slot(fe, bpf_get_prandom_u32(), &other) && less_loaded(&other, out))
			*out = other;
	}
	if (!is_avoided(task, out->id))
		return true;
	for (int i = 1; i <= MAX_AVOIDS; i++) {
		struct choice next;

		if (!read_slot(fe, n + i, &next))
			return false;
		if (!is_avoided(task, next.id)) {
			*out = next;
			return true;
		}
	}
	return true;
}
