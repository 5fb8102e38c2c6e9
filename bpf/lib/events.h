/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Strikes: what callers learn about endpoints. A run of failures in a row is
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
