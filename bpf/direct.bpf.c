// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Mode direct: metrics of HTTP services whose connections go straight to their
 * endpoints. Loaded and attached only while such a service exists. */

#include "lib/http1.h"
#include "lib/http2.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const enum request_state *unused_request_state __attribute__((unused));
const enum response_state *unused_response_state __attribute__((unused));

/* Finds a segment's payload. false: there is none, as in acknowledgements, half
 * of all packets, or this is no TCP. Comes before the look into the socket's
 * storage, for it costs less. */
static __always_inline bool parse(struct __sk_buff *skb, struct segment *seg)
{
	const __u8 *ip = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u8 first, next, bytes[14];
	__be32 numbers[2];
	__u32 at = 20;

	if (ip + 40 <= end && ip[0] == 0x45) {
		if (ip[9] != IPPROTO_TCP)
			return false;
		numbers[0] = *(const __be32 *)(ip + 24);
		numbers[1] = *(const __be32 *)(ip + 28);
		at += (ip[32] >> 4) * 4;
		seg->syn = ip[33] & 2;
	} else {
		if (bpf_skb_load_bytes(skb, 0, &first, 1))
			return false;
		/* Extension headers stand before a segment only if somebody
		 * wants them to. */
		if (bpf_skb_load_bytes(skb, first >> 4 == 6 ? 6 : 9, &next, 1) || next != IPPROTO_TCP)
			return false;
		at = first >> 4 == 6 ? 40 : (first & 15) * 4;
		if (bpf_skb_load_bytes(skb, at, bytes, sizeof(bytes)))
			return false;
		__builtin_memcpy(numbers, bytes + 4, sizeof(numbers));
		at += (bytes[12] >> 4) * 4;
		seg->syn = bytes[13] & 2;
	}
	if (skb->len <= at)
		return false;
	seg->at = at;
	seg->len = skb->len - at;
	seg->seq = bpf_ntohl(numbers[0]);
	seg->ack = bpf_ntohl(numbers[1]);
	return true;
}

SEC("cgroup_skb/egress")
int http_egress(struct __sk_buff *skb)
{
	struct segment seg;
	struct exchange *x;

	if (!parse(skb, &seg))
		return 1;
	x = exchange_of(skb);
	if (!x || x->mode == HTTP_2)
		return 1;
	if (seg.syn) { /* TCP Fast Open: what it acknowledges is not known */
		leave_out(x);
		return 1;
	}
	if (x->begun && (__s32)(seg.seq - x->sent) < 0)
		return 1; /* sent again */
	x->begun = 1;
	x->sent = seg.seq + seg.len;
	sent(skb, x, &seg);
	return 1;
}

SEC("cgroup_skb/ingress")
int http_ingress(struct __sk_buff *skb)
{
	struct segment seg;
	struct exchange *x;
	__u32 off;

	if (!parse(skb, &seg))
		return 1;
	x = exchange_of(skb);
	if (!x || (x->mode == HTTP_1 && !x->asked_ns))
		return 1;
	if (x->mode == HTTP_UNKNOWN) {
		if (x->asked_ns || !is_settings(skb, &seg))
			return 1;
		x->mode = HTTP_2;
		x->answer = seg.seq;
	}
	if (x->mode == HTTP_2) {
		frames(skb, x, &seg);
		return 1;
	}
	/* What came before may have been sent again, and merged with it. */
	off = x->answer - seg.seq;
	if (off >= seg.len)
		return 1;
	seg.at += off;
	seg.seq += off;
	seg.len -= off;
	received(skb, x, &seg);
	return 1;
}
