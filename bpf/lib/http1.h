/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* HTTP/1. What starts a client's segment while nothing is awaited is a request.
 * Its segment acknowledges all that came before, so its ACK number is where the
 * response will begin: retransmitted and reordered segments do not matter. A
 * connection on which a second request begins while one is awaited pipelines;
 * its responses may begin anywhere, so it is left out from then on. */
#pragma once

#include "firstline.h"
#include "http.h"

/* Loads the beginning of a payload, most bytes of it. Returns how much, 0 if it
 * cannot be. */
static __always_inline __u32 load(struct __sk_buff *skb, const struct segment *seg, union head *h, __u32 most)
{
	__u32 n = seg->len;

	if (n > most)
		n = most;
	/* A payload is never empty, which the verifier cannot know. */
	n = ((n - 1) & (HEAD_BYTES - 1)) + 1;
	asm volatile("" : "+r"(n));
	if (n < 1 || n > HEAD_BYTES)
		return 0;
	return bpf_skb_load_bytes(skb, seg->at, h->bytes, n) ? 0 : n;
}

/* A bit for each of eight bytes that is b, and maybe for bytes above one: the
 * usual test for a zero byte. */
static __always_inline __u64 bytes_that_are(__u8 b, __u64 w)
{
	__u64 ones = 0x0101010101010101ULL;

	w ^= b * ones;
	return (w - ones) & ~w & 0x80 * ones;
}

/* Whether these eight bytes, of the middle of a head, leave it there: in them no
 * line begins that may be empty, the first byte lowest. In doubt no. */
static __always_inline bool is_inside(__u64 w)
{
	__u64 lf = bytes_that_are('\n', w);

	return !lf || !(((lf << 8) & (lf | bytes_that_are('\r', w))) | lf >> 63);
}

/* Where to go on reading at the beginning of a segment. */
static __always_inline __u32 resume(const struct exchange *x)
{
	__u32 state = x->request;

	if (state == Q_NONE || (!x->asked_ns && state >= Q_BEGUN))
		return Q_START; /* or the rest of a body whose answer came early */
	if (state == Q_BODY)
		return Q_NEXT;
	return state;
}

static __always_inline void begin(struct exchange *x, const struct segment *seg)
{
	x->mode = HTTP_1;
	x->asked_ns = bpf_ktime_get_ns();
	x->answer = seg->ack;
	x->response = R_START;
	x->status = 0;
}

/* Reads n bytes of what a client sends. Returns the state after them. */
static __always_inline __u64 read_request(const union head *h, __u64 state, __u64 n)
{
#pragma clang loop unroll(disable)
	for (__u64 i = 0; i < HEAD_BYTES; i++) {
		__u64 rest = n - i;

		/* Compared in place of n, of which the verifier would learn
		 * something else by each way that leads here. */
		asm volatile("" : "+r"(rest));
		if (!rest || state >= Q_STOP)
			break;
		/* The greatest part of a head, eight times as fast. */
		if (!(i & 7) && state == Q_HEAD && rest >= 8 && is_inside(h->words[i / 8])) {
			i += 7;
			continue;
		}
		state = step(request_next, state, h->bytes[i]);
	}
	return state;
}

/* Something new from the client: in order, for this hook sees every segment
 * first when it is sent first. */
static __always_inline void sent(struct __sk_buff *skb, struct exchange *x, struct segment *seg)
{
	__u32 zero = 0, before = resume(x), state, n;
	union head *h = bpf_map_lookup_elem(&heads_v1, &zero);

	if (!h)
		return;
	n = load(skb, seg, h, HEAD_BYTES);
	state = read_request(h, before, n);
	if (n < seg->len && state < Q_STOP && state >= Q_BEGUN)
		state = Q_BODY; /* where the head ends is not seen */
	x->request = state;
	if (before < Q_BEGUN && state >= Q_BEGUN && state != Q_NONE && state != Q_PREFACE)
		begin(x, seg);
	if (state == Q_PIPELINED)
		leave_out(x);
	if (state == Q_PREFACE && x->mode == HTTP_UNKNOWN) {
		x->mode = HTTP_2;
		x->answer = seg->ack;
	}
}

#define RESPONSE_BYTES 512 /* looked at in a segment: a status line is short, interim heads are seldom long */

/* Something from the server, where the response begins or goes on. */
static __always_inline void received(struct __sk_buff *skb, struct exchange *x, struct segment *seg)
{
	__u32 zero = 0, state = x->response, n;
	union head *h = bpf_map_lookup_elem(&heads_v1, &zero);

	if (!h)
		return;
	n = load(skb, seg, h, RESPONSE_BYTES);
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < RESPONSE_BYTES; i++) {
		__u8 b;

		if (i >= n)
			break;
		b = h->bytes[i];
		state = step(response_next, state, b);
		if (state >= R_DIGIT2 && state <= R_END)
			x->status = x->status * 10 + (b & 15);
		if (state == R_BAD)
			break;
		if (state != R_STATUS)
			continue;
		if (x->status / 100 != 1 || x->status == 101)
			break;
		x->status = 0; /* an interim answer: the final one follows its head */
		state = R_HEAD;
	}
	x->answer = seg->seq + seg->len; /* if it goes on, it does there */
	x->response = state;
	if (state == R_STATUS) {
		answered(x, x->status / 100);
		if (x->status == 101)
			x->mode = HTTP_LEFT_OUT; /* another protocol from here on */
		return;
	}
	if (state == R_BAD || n < seg->len)
		leave_out(x); /* no HTTP, or pipelined in a way that was not seen */
}
