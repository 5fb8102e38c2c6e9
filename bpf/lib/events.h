/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is told to user space.
 *
 * Strikes: what callers learn about endpoints. A run of failures in a row is
 * counted per task and endpoint in the kernel, and every change of a run is
 * told to user space, which decides. Successes are told only where a run was
 * open, so a healthy node sends no events. */
#pragma once

#include "metrics.h"

static __always_inline void tell(__u32 kind, struct task_endpoint who, __u32 strikes)
{
	struct event *e = bpf_ringbuf_reserve(&events_v1, sizeof(*e), 0);

	if (!e) {
		count(OUTCOME_EVENT_LOST);
		return;
	}
	e->at_ns = bpf_ktime_get_ns();
	e->kind = kind;
	e->endpoint = who.endpoint;
	e->task = who.task;
	e->count = strikes;
	bpf_ringbuf_submit(e, 0);
}

static __always_inline void strike(const struct connection *c, struct endpoint_stats *s)
{
	struct task_endpoint who = { .task = c->task, .endpoint = c->endpoint };
	__u64 one = 1, *run = bpf_map_lookup_elem(&strikes_v1, &who);
	__u32 strikes = 1;

	if (run) {
		/* Not atomic together: two failures at once may tell the same
		 * number. The next one makes up for it. */
		add(run, 1);
		strikes = *run;
	} else {
		bpf_map_update_elem(&strikes_v1, &who, &one, BPF_ANY);
	}
	s->struck = 1;
	tell(EVENT_STRIKE, who, strikes);
}

static __always_inline void forgive(const struct connection *c, struct endpoint_stats *s)
{
	struct task_endpoint who = { .task = c->task, .endpoint = c->endpoint };

	if (!s->struck)
		return;
	if (bpf_map_delete_elem(&strikes_v1, &who) == 0)
		tell(EVENT_CLEARED, who, 0);
}

/* Refusals: what a task asked for and did not get. The same one is told once a
 * second with how often it was not, and a task has so many records a second in
 * all: a loop costs two lookups a turn, whatever it asks for. */
#define REFUSAL_NS 1000000000ULL
#define TASK_REFUSALS 32

static __always_inline bool is_recent(__u64 now, __u64 told_ns)
{
	/* Signed: another CPU may have told after we read the clock. */
	return (__s64)(now - told_ns) < (__s64)REFUSAL_NS;
}

/* Whether the task has a record left in this second. Neither here nor below do
 * two CPUs at once count exactly; that tells one more or one less. */
static __always_inline bool may_tell(__u32 task, __u64 now)
{
	struct refusal_key key = { .task = task };
	struct refusal_count *told = bpf_map_lookup_elem(&refused_v1, &key);
	struct refusal_count first = { .told_ns = now, .times = 1 };

	if (!told) {
		bpf_map_update_elem(&refused_v1, &key, &first, BPF_ANY);
		return true;
	}
	if (!is_recent(now, told->told_ns)) {
		told->told_ns = now;
		told->times = 1;
		return true;
	}
	if (told->times >= TASK_REFUSALS)
		return false;
	told->times++;
	return true;
}

/* One copy for all hooks: it is no hot path, and refusals are many. */
static __noinline __attribute__((unused)) void tell_refusal(struct refusal_key *what)
{
	struct refusal_count *seen = bpf_map_lookup_elem(&refused_v1, what);
	struct refusal_count first = {};
	__u64 now = bpf_ktime_get_ns();
	struct refusal *r = NULL;

	if (!(seen && is_recent(now, seen->told_ns)) && may_tell(what->task, now))
		r = bpf_ringbuf_reserve(&refusals_v1, sizeof(*r), 0);
	if (!r) {
		if (seen)
			seen->times++;
		return;
	}
	r->at_ns = now;
	r->what = *what;
	r->untold = seen ? seen->times : 0;
	r->pad = 0;
	bpf_ringbuf_submit(r, 0);
	if (seen) {
		seen->told_ns = now;
		seen->times = 0;
		return;
	}
	first.told_ns = now;
	bpf_map_update_elem(&refused_v1, what, &first, BPF_ANY);
}

/* Counts a refusal and tells user space of it. */
static __always_inline void refused(enum outcome reason, __u32 task, const struct addr *vip, __be16 port, __u8 protocol)
{
	struct refusal_key what = { .vip = *vip, .port = port, .protocol = protocol, .reason = reason, .task = task };

	count(reason);
	tell_refusal(&what);
}
