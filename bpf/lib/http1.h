/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* HTTP/1. What starts a client's segment while nothing is awaited is a request.
 * Its segment acknowledges all that came before, so its ACK number is where the
 * response will begin: retransmitted and reordered segments do not matter. A
 * connection on which a second request begins while one is awaited pipelines;
 * its responses may begin anywhere, so it is left out from then on. */
#pragma once

#include "firstline.h"
#include "http.h"

/* Loads the beginning of so many bytes, most of them. Returns how much, 0 if it
 * cannot be. */
static __always_inline __u32 load(struct __sk_buff *skb, __u32 at, __u32 n, union head *h, __u32 most)
{
	if (n > most)
		n = most;
	/* There is always one, which the verifier cannot know. */
	n = ((n - 1) & (HEAD_BYTES - 1)) + 1;
	asm volatile("" : "+r"(n));
	if (n < 1 || n > HEAD_BYTES)
		return 0;
	return bpf_skb_load_bytes(skb, at, h->bytes, n) ? 0 : n;
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

static __always_inline void begin(struct __sk_buff *skb, struct exchange *x, const struct segment *seg)
{
	__u64 now = skb->tstamp; /* TCP's, of the same clock, so that it need not be read again */

	x->mode = HTTP_1;
	x->asked_ns = now ? now : bpf_ktime_get_ns();
	x->answer = seg->ack;
	x->response = R_START;
	x->status = 0;
}

/* Reads the first HEAD_BYTES of rest bytes that a client sends. Returns the
 * state after them. Not static: so it is verified once, and not for each part of
 * a long head. */
__noinline __u64 read_request(struct __sk_buff *skb, __u32 at, __u32 rest, __u64 state)
{
	__u32 zero = 0;
	union head *h = bpf_map_lookup_elem(&heads_v1, &zero);
	__u64 n;

	if (!h)
		return Q_NONE;
	n = load(skb, at, rest, h, HEAD_BYTES);
#pragma clang loop unroll(disable)
	for (__u64 i = 0; i < HEAD_BYTES; i++) {
		__u64 left = n - i;

		/* Compared in place of n, of which the verifier would learn
		 * something else by each way that leads here. */
		asm volatile("" : "+r"(left));
		if (!left || state >= Q_STOP)
			break;
		/* The greatest part of a head, eight times as fast. */
		if (!(i & 7) && state == Q_HEAD && left >= 8 && is_inside(h->words[i / 8])) {
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
	__u32 before = resume(x), off = 0;
	__u64 state = before;

#pragma clang loop unroll(disable)
	for (int i = 0; i < READS; i++) {
		state = read_request(skb, seg->at + off, seg->len - off, state);
		off += HEAD_BYTES;
		if (state >= Q_STOP || off >= seg->len)
			break;
	}
	if (off < seg->len && state < Q_STOP && state >= Q_BEGUN)
		state = Q_BODY; /* where the head ends is not seen */
	x->request = state;
	if (before < Q_BEGUN && state >= Q_BEGUN && state != Q_NONE && state != Q_PREFACE)
		begin(skb, x, seg);
	if (state == Q_PIPELINED)
		leave_out(x);
	if (state == Q_PREFACE && x->mode == HTTP_UNKNOWN) {
		x->mode = HTTP_2;
		x->answer = seg->ack;
	}
}

#define RESPONSE_BYTES 512 /* a status line is short, interim heads are seldom long */
#define STATUS_SHIFT 8     /* of the status's digits, above the state */

/* Reads the first RESPONSE_BYTES of rest bytes that a server sends, up to a final
 * status. Returns the state and the digits after them. */
__noinline __u64 read_response(struct __sk_buff *skb, __u32 at, __u32 rest, __u64 before)
{
	__u32 zero = 0, state = before & 0xff, status = before >> STATUS_SHIFT, n;
	union head *h = bpf_map_lookup_elem(&heads_v1, &zero);

	if (!h)
		return R_BAD;
	n = load(skb, at, rest, h, RESPONSE_BYTES);
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < RESPONSE_BYTES; i++) {
		__u8 b;

		if (i >= n)
			break;
		b = h->bytes[i];
		state = step(response_next, state, b);
		if (state >= R_DIGIT2 && state <= R_END)
			status = status * 10 + (b & 15);
		if (state == R_BAD)
			break;
		if (state != R_STATUS)
			continue;
		if (status / 100 != 1 || status == 101)
			break;
		status = 0; /* an interim answer: the final one follows its head */
		state = R_HEAD;
	}
	return (__u64)status << STATUS_SHIFT | state;
}

#define STATUS_LINE 13 /* bytes of it up to what ends the status */

/* What read_response returns of a segment that begins as almost all answers do,
 * without a step for each byte; 0: it begins in another way. */
static __always_inline __u64 read_status_line(struct __sk_buff *skb, const struct segment *seg)
{
	__u8 b[16] __attribute__((aligned(8)));
	__u64 status = 0;

	if (seg->len < STATUS_LINE || bpf_skb_load_bytes(skb, seg->at, b, STATUS_LINE))
		return 0;
	if (*(__u64 *)b != *(const __u64 *)"HTTP/1.1" || b[8] != ' ' || (b[12] != ' ' && b[12] != '\r'))
		return 0;
	for (int i = 9; i < 12; i++) {
		if (b[i] < '0' || b[i] > '9')
			return 0;
		status = status * 10 + b[i] - '0';
	}
	return status / 100 == 1 ? 0 : status << STATUS_SHIFT | R_STATUS;
}

/* Something from the server, where the response begins or goes on. */
static __always_inline void received(struct __sk_buff *skb, struct exchange *x, struct segment *seg)
{
	__u64 read = x->response == R_START ? read_status_line(skb, seg) : 0;
	__u32 off = 0, state = read & 0xff;

	if (!read)
		read = (__u64)x->status << STATUS_SHIFT | x->response;
#pragma clang loop unroll(disable)
	for (int i = 0; i < READS; i++) {
		if (state == R_STATUS || state == R_BAD || off >= seg->len)
			break;
		read = read_response(skb, seg->at + off, seg->len - off, read);
		state = read & 0xff;
		off += RESPONSE_BYTES;
	}
	x->status = read >> STATUS_SHIFT;
	x->answer = seg->seq + seg->len; /* if it goes on, it does there */
	x->response = state;
	if (state == R_STATUS) {
		answered(x, x->status / 100);
		if (x->status == 101)
			x->mode = HTTP_LEFT_OUT; /* another protocol from here on */
		return;
	}
	if (state == R_BAD || off < seg->len)
		leave_out(x); /* no HTTP, or pipelined in a way that was not seen */
}
