/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reading first lines of HTTP/1 and :status of HTTP/2 off translated
 * connections, without a hop and without parsing bodies.
 *
 * HTTP/1: what starts a client's segment while nothing is awaited is a request.
 * Its segment acknowledges all that came before, so its ACK number is where the
 * response will begin: retransmitted and reordered segments do not matter. A
 * connection on which a second request begins while one is awaited pipelines;
 * its responses may begin anywhere, so it is left out from then on. */
#pragma once

#include "metrics.h"
#include "socket.h"
#include <bpf/bpf_endian.h>

enum http_class {
	HTTP_OTHER = 0, /* an HTTP/2 status outside HPACK's static table */
	HTTP_CLASSES = 6,
};

enum http_mode {
	HTTP_UNKNOWN = 0, /* nothing was sent yet */
	HTTP_1,
	HTTP_2,
	HTTP_LEFT_OUT,
};

enum head_end {
	HEAD_OPEN = 0,
	HEAD_ENDED,
	HEAD_UNKNOWN, /* longer than what is looked at */
};

/* One connection, in its socket's storage. */
struct exchange {
	__u64 asked_ns; /* when the request that is awaited began; 0: none */
	__u32 service;
	__u32 endpoint;
	__u32 task;
	__u32 sent;    /* sequence number after the last byte sent */
	__u32 asked_at; /* sequence number of the segment that the awaited request began in */
	__u32 answer;  /* where the response, or the next HTTP/2 frame, begins */
	__u8 mode;     /* enum http_mode */
	__u8 bodiless; /* the awaited request's method has no body */
	__u8 have;     /* bytes of first */
	__u8 end;      /* of the awaited request's head: enum head_end */
	__u8 begun;    /* sent is known */
	__u8 pad[3];
	__u32 window; /* the last four bytes of that head so far */
	__u8 first[16]; /* of a request line, or of a status line or frame header, while it is short */
};

struct http_key {
	__u32 endpoint; /* 0: of the service */
	__u32 service;
};

struct http_stats {
	__u64 classes[HTTP_CLASSES]; /* by the status's first digit */
	struct histogram time;       /* request line to status line */
	__u64 left_out;              /* connections that pipeline */
	__u64 struck;                /* not 0: some task has a run of 5xx with it */
};

/* Entries exist only for services and endpoints in direct mode with traffic. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct http_key);
	__type(value, struct http_stats);
	__uint(max_entries, 1);
} http_stats_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct exchange);
} exchanges_v1 SEC(".maps");

MAP(http_strikes_v1, BPF_MAP_TYPE_LRU_HASH, struct task_endpoint, __u64, 8192);

/* Room for a head: the stack is too small, and kernels before 5.12 do not index
 * it by a variable. */
#define HEAD_BYTES 1024
struct head {
	__u8 bytes[HEAD_BYTES];
};
MAP(heads_v1, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct head, 1);

static __always_inline struct http_stats *http_stats_of(__u32 endpoint, __u32 service)
{
	struct http_key key = { .endpoint = endpoint, .service = service };
	struct http_stats none = {}, *s = bpf_map_lookup_elem(&http_stats_v1, &key);

	if (s)
		return s;
	bpf_map_update_elem(&http_stats_v1, &key, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&http_stats_v1, &key);
}

/* Runs of 5xx are told as those of failed connects are (events.h). */
static __always_inline void tell_http(__u32 kind, struct task_endpoint who, __u32 run)
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
	e->count = run;
	bpf_ringbuf_submit(e, 0);
}

static __always_inline void judge(const struct exchange *x, struct http_stats *e, __u32 class)
{
	struct task_endpoint who = { .task = x->task, .endpoint = x->endpoint };
	__u64 one = 1, *run;
	__u32 n = 1;

	if (class != 5) {
		if (e->struck && bpf_map_delete_elem(&http_strikes_v1, &who) == 0)
			tell_http(EVENT_HTTP_CLEARED, who, 0);
		return;
	}
	run = bpf_map_lookup_elem(&http_strikes_v1, &who);
	if (run) {
		add(run, 1);
		n = *run;
	} else {
		bpf_map_update_elem(&http_strikes_v1, &who, &one, BPF_ANY);
	}
	e->struck = 1;
	tell_http(EVENT_HTTP_STRIKE, who, n);
}

static __always_inline void answered(struct exchange *x, __u32 class)
{
	struct http_stats *e = http_stats_of(x->endpoint, x->service);
	struct http_stats *s = http_stats_of(0, x->service);
	__u64 us = (bpf_ktime_get_ns() - x->asked_ns) / 1000;

	if (class >= HTTP_CLASSES)
		class = HTTP_OTHER;
	if (s) {
		add(&s->classes[class], 1);
		observe(&s->time, us);
	}
	if (e) {
		add(&e->classes[class], 1);
		observe(&e->time, us);
		judge(x, e, class);
	}
}

/* Responses of one HTTP/2 segment by class. Which requests they are to is not
 * known, so they have no time. */
static __always_inline void answered_many(struct exchange *x, const __u8 *classes)
{
	struct http_stats *e = http_stats_of(x->endpoint, x->service);
	struct http_stats *s = http_stats_of(0, x->service);

	for (int i = 0; i < HTTP_CLASSES; i++) {
		if (!classes[i])
			continue;
		if (s)
			add(&s->classes[i], classes[i]);
		if (e)
			add(&e->classes[i], classes[i]);
	}
}

static __always_inline void leave_out(struct exchange *x)
{
	struct http_stats *s = http_stats_of(0, x->service);

	x->mode = HTTP_LEFT_OUT;
	if (s)
		add(&s->left_out, 1);
}
