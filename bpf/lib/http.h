/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is known of HTTP on translated connections that are read without a hop:
 * the state of one connection, and the counters. Bodies are never parsed. */
#pragma once

#include "events.h"
#include "exchange.h"
#include "socket.h"
#include <bpf/bpf_endian.h>

enum http_class {
	HTTP_OTHER = 0, /* an HTTP/2 status that stands in HPACK's dynamic table */
	HTTP_CLASSES = 6,
};

struct http_key {
	__u32 endpoint; /* 0: of the service */
	__u32 service;
};

struct http_stats {
	__u64 classes[HTTP_CLASSES]; /* by the status's first digit */
	struct histogram time;       /* request line to status line */
	__u64 left_out;              /* connections that pipeline, or begin in another way than is followed */
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

/* The same by caller. LRU: what one counted since it was read last goes with it. */
MAP(http_callers_v1, BPF_MAP_TYPE_LRU_HASH, struct caller_key, struct http_stats, 4096);

const struct http_stats no_http_stats; /* too much for the stack */

MAP(http_strikes_v1, BPF_MAP_TYPE_LRU_HASH, struct task_endpoint, __u64, 8192);

/* Room for a part of a head: the stack is too small, and kernels before 5.12 do
 * not index it by a variable. */
#define HEAD_BYTES 1024
union head {
	__u8 bytes[HEAD_BYTES];
	__u64 words[HEAD_BYTES / 8];
};
MAP(heads_v1, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, union head, 1);

/* How many parts of a segment are looked at, in which the head's end, or a final
 * status, may come. */
#define READS 8

/* Where the payload of a TCP segment lies, and what its header says. */
struct segment {
	__u32 at;  /* of the payload in the skb */
	__u32 len; /* of the payload */
	__u32 seq;
	__u32 ack;
	bool syn;
};

/* The state of the connection that a packet belongs to, if it is followed. A
 * connection that ends meanwhile on another CPU may leave its state to the
 * next one: that costs an answer, no more. */
static __always_inline struct exchange *exchange_of(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct exchange *x;

	if (!sk || !has_callback(sk, CALLBACK_OF_DIRECT))
		return NULL;
	x = exchange_by(bpf_get_socket_cookie(skb));
	return x && x->mode != HTTP_LEFT_OUT ? x : NULL;
}

static __always_inline struct http_stats *http_stats_of(__u32 endpoint, __u32 service)
{
	struct http_key key = { .endpoint = endpoint, .service = service };
	struct http_stats *s = bpf_map_lookup_elem(&http_stats_v1, &key);

	if (s)
		return s;
	bpf_map_update_elem(&http_stats_v1, &key, (void *)&no_http_stats, BPF_NOEXIST);
	return bpf_map_lookup_elem(&http_stats_v1, &key);
}

static __always_inline struct http_stats *caller_stats_of(const struct exchange *x)
{
	struct caller_key key = { .task = x->task, .service = x->service };
	struct http_stats *s;

	if (!count_callers)
		return NULL;
	s = bpf_map_lookup_elem(&http_callers_v1, &key);
	if (s)
		return s;
	bpf_map_update_elem(&http_callers_v1, &key, (void *)&no_http_stats, BPF_NOEXIST);
	return bpf_map_lookup_elem(&http_callers_v1, &key);
}

/* Runs of 5xx are told as those of failed connects are. */
static __always_inline void judge(const struct exchange *x, struct http_stats *e, __u32 class)
{
	struct task_endpoint who = { .task = x->task, .endpoint = x->endpoint };
	__u64 one = 1, *run;
	__u32 n = 1;

	if (class != 5) {
		if (e->struck && bpf_map_delete_elem(&http_strikes_v1, &who) == 0)
			tell(EVENT_HTTP_CLEARED, who, 0);
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
	tell(EVENT_HTTP_STRIKE, who, n);
}

/* An HTTP/1 response. */
static __always_inline void answered(struct exchange *x, __u32 class)
{
	struct http_stats *e = http_stats_of(x->endpoint, x->service);
	struct http_stats *s = http_stats_of(0, x->service), *c = caller_stats_of(x);
	__u64 now = bpf_ktime_get_ns(), us = 0, i = class;

	if (now > x->asked_ns) /* paced, a request may be meant to leave later than it does */
		us = (now - x->asked_ns) / 1000;
	x->asked_ns = 0;
	asm volatile("" : "+r"(i)); /* 64 bits: the verifier must see used what it sees compared */
	if (i >= HTTP_CLASSES)
		i = HTTP_OTHER;
	if (s) {
		add(&s->classes[i], 1);
		observe(&s->time, us);
	}
	if (c) {
		add(&c->classes[i], 1);
		observe(&c->time, us);
	}
	if (e) {
		add(&e->classes[i], 1);
		observe(&e->time, us);
		judge(x, e, class);
	}
}

/* Numbers of HTTP/2 responses by class, TALLY_BITS each. Which requests they are
 * to is not known, so they have no times and are no strikes. */
#define TALLY_BITS 10

static __always_inline void answered_many(struct exchange *x, __u64 tally)
{
	struct http_stats *e, *s, *c;

	if (!tally)
		return;
	e = http_stats_of(x->endpoint, x->service);
	s = http_stats_of(0, x->service);
	c = caller_stats_of(x);
	for (int class = 0; class < HTTP_CLASSES; class++) {
		__u64 n = tally >> TALLY_BITS * class & ((1 << TALLY_BITS) - 1);

		if (n && s)
			add(&s->classes[class], n);
		if (n && c)
			add(&c->classes[class], n);
		if (n && e)
			add(&e->classes[class], n);
	}
}

static __always_inline void leave_out(struct exchange *x)
{
	struct http_stats *s = http_stats_of(0, x->service);

	x->mode = HTTP_LEFT_OUT;
	if (s)
		add(&s->left_out, 1);
}
