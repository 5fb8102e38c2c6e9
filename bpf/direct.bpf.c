// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Mode direct: metrics of HTTP services whose connections go straight to their
 * endpoints. Loaded and attached only while such a service exists. */

#include "lib/http.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const struct exchange *unused_exchange __attribute__((unused));

/* Follows a connection from its SYN on. Its state is the socket's storage,
 * which goes with the socket. */
SEC("sockops")
int http_sockops(struct bpf_sock_ops *ops)
{
	struct connection *c;
	struct exchange *x;
	struct bpf_sock *sk;
	__u64 cookie;

	if (ops->op != BPF_SOCK_OPS_TCP_CONNECT_CB)
		return 1;
	cookie = bpf_get_socket_cookie(ops);
	c = bpf_map_lookup_elem(&connections_v1, &cookie);
	if (!c || !(c->flags & CONNECTION_DIRECT))
		return 1;
	sk = ops->sk;
	if (!sk)
		return 1;
	x = bpf_sk_storage_get(&exchanges_v1, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!x)
		return 1;
	x->service = c->service;
	x->endpoint = c->endpoint;
	x->task = c->task;
	return 1;
}

/* Where the payload of a TCP segment lies, and what its header says. */
struct segment {
	__u32 at;  /* of the payload in the skb */
	__u32 len; /* of the payload */
	__u32 seq;
	__u32 ack;
};

/* An IPv4 and a TCP header with timestamps: acknowledgements, half of all
 * packets, go no further. */
#define BARE_HEADERS 52

static __always_inline bool parse(struct __sk_buff *skb, struct segment *seg)
{
	const __u8 *ip = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u8 first, doff;
	__be32 numbers[2];
	__u32 at = 20;

	if (ip + 40 <= end && ip[0] == 0x45) {
		numbers[0] = *(const __be32 *)(ip + 24);
		numbers[1] = *(const __be32 *)(ip + 28);
		doff = ip[32];
	} else {
		if (bpf_skb_load_bytes(skb, 0, &first, 1))
			return false;
		/* Extension headers never stand before what a TCP socket sends. */
		at = first >> 4 == 6 ? 40 : (first & 15) * 4;
		if (bpf_skb_load_bytes(skb, at + 4, numbers, sizeof(numbers)) || bpf_skb_load_bytes(skb, at + 12, &doff, 1))
			return false;
	}
	at += (doff >> 4) * 4;
	if (skb->len <= at)
		return false;
	seg->at = at;
	seg->len = skb->len - at;
	seg->seq = bpf_ntohl(numbers[0]);
	seg->ack = bpf_ntohl(numbers[1]);
	return true;
}

static __always_inline struct exchange *exchange_of(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct exchange *x;

	if (skb->len <= BARE_HEADERS || !sk)
		return NULL;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return NULL;
	x = bpf_sk_storage_get(&exchanges_v1, sk, NULL, 0);
	return x && x->mode != HTTP_LEFT_OUT ? x : NULL;
}

/* An index of exchange.first. The compiler, which knows it to be small, would
 * leave out the mask that the verifier needs to know it. */
static __always_inline __u32 within(__u32 i)
{
	asm volatile("" : "+r"(i));
	return i & 15;
}

/* Loads the beginning of a payload, most bytes of it. */
static __always_inline __u32 load(struct __sk_buff *skb, const struct segment *seg, struct head *h, __u32 most)
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

enum line {
	LINE_SHORT,    /* too little to tell */
	LINE_NONE,     /* no request line */
	LINE_BODILESS, /* GET, HEAD, ...: no body follows, if the client is sane */
	LINE_REQUEST,
	LINE_PREFACE, /* HTTP/2 */
};

/* The first eight bytes of each method with the space and what may follow it,
 * as one number, and which bytes of it count. */
#define WORD(a, b, c, d, e, f, g, h)                                                                                  \
	((__u64)(a) | (__u64)(b) << 8 | (__u64)(c) << 16 | (__u64)(d) << 24 | (__u64)(e) << 32 | (__u64)(f) << 40 | \
	 (__u64)(g) << 48 | (__u64)(h) << 56)
#define BYTES(n) ((n) == 8 ? ~0ULL : (1ULL << 8 * (n)) - 1)
#define IS(word, n) ((w & BYTES(n)) == ((word) & BYTES(n)))

static __always_inline enum line request_line(__u64 w, __u32 have)
{
	if (have < 8)
		return LINE_SHORT;
	if (IS(WORD('G', 'E', 'T', ' ', 0, 0, 0, 0), 4) || IS(WORD('H', 'E', 'A', 'D', ' ', 0, 0, 0), 5) ||
	    IS(WORD('O', 'P', 'T', 'I', 'O', 'N', 'S', ' '), 8) || IS(WORD('T', 'R', 'A', 'C', 'E', ' ', 0, 0), 6))
		return LINE_BODILESS;
	if (IS(WORD('P', 'O', 'S', 'T', ' ', 0, 0, 0), 5) || IS(WORD('P', 'U', 'T', ' ', 0, 0, 0, 0), 4) ||
	    IS(WORD('D', 'E', 'L', 'E', 'T', 'E', ' ', 0), 7) || IS(WORD('P', 'A', 'T', 'C', 'H', ' ', 0, 0), 6))
		return LINE_REQUEST;
	if (IS(WORD('P', 'R', 'I', ' ', '*', ' ', 'H', 'T'), 8))
		return LINE_PREFACE;
	return LINE_NONE;
}

static __always_inline __u64 word_of(const __u8 *b)
{
	return WORD(b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]);
}

#define CRLF_CRLF 0x0d0a0d0a

/* Follows the head of a request without a body to its end. true: bytes follow
 * it, and they are another request. */
static __always_inline bool goes_on(struct exchange *x, const struct head *h, __u32 n, __u32 len)
{
	__u32 window = x->window;

	if (x->end != HEAD_OPEN)
		return x->end == HEAD_ENDED;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < HEAD_BYTES; i++) {
		if (i >= n)
			break;
		window = window << 8 | h->bytes[i];
		if (window == CRLF_CRLF) {
			x->end = HEAD_ENDED;
			return i + 1 < len;
		}
	}
	x->window = window;
	if (n < len)
		x->end = HEAD_UNKNOWN;
	return false;
}

/* Whether a request begins, of which the first bytes are put together from
 * pieces while they are too short to tell. */
static __always_inline bool begins(struct exchange *x, const struct head *h, __u32 n, const struct segment *seg)
{
	enum line line;

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < 8; i++) {
		__u32 to = x->have;

		if (i >= n || to >= 8)
			break;
		x->first[within(to)] = h->bytes[i];
		x->have = to + 1;
	}
	line = request_line(word_of(x->first), x->have);
	if (line == LINE_SHORT)
		return false;
	x->have = 0;
	if (line == LINE_PREFACE && x->mode == HTTP_UNKNOWN) {
		x->mode = HTTP_2;
		x->answer = seg->ack;
	}
	if (line != LINE_BODILESS && line != LINE_REQUEST)
		return false; /* or the rest of a body whose answer came early */
	x->mode = HTTP_1;
	x->asked_ns = bpf_ktime_get_ns();
	x->asked_at = seg->seq;
	x->answer = seg->ack;
	x->bodiless = line == LINE_BODILESS;
	x->end = HEAD_OPEN;
	x->window = 0;
	return true;
}

/* Something new from the client: in order, for this hook sees every segment
 * first when it is sent first. */
static __always_inline void sent(struct __sk_buff *skb, struct exchange *x, struct segment *seg)
{
	__u32 zero = 0, n;
	struct head *h = bpf_map_lookup_elem(&heads_v1, &zero);
	enum line line;

	if (!h)
		return;
	if (x->mode == HTTP_2)
		return;
	n = load(skb, seg, h, HEAD_BYTES);
	if (!n)
		return;
	if (!x->asked_ns && !begins(x, h, n, seg))
		return;
	if (x->bodiless) {
		if (goes_on(x, h, n, seg->len))
			leave_out(x);
		return;
	}
	/* A body, or another request. */
	line = request_line(word_of(h->bytes), n);
	if (seg->seq != x->asked_at && (line == LINE_BODILESS || line == LINE_REQUEST))
		leave_out(x);
}

SEC("cgroup_skb/egress")
int http_egress(struct __sk_buff *skb)
{
	struct exchange *x = exchange_of(skb);
	struct segment seg;

	if (!x || !parse(skb, &seg))
		return 1;
	if (x->begun && (__s32)(seg.seq - x->sent) < 0)
		return 1; /* sent again */
	x->begun = 1;
	x->sent = seg.seq + seg.len;
	sent(skb, x, &seg);
	return 1;
}

#define STATUS_LINE 12 /* bytes of it that are looked at: HTTP/1.1 200 */
#define INTERIM_BYTES 128

/* Where a 1xx answer shares its segment with the final one: that one's class. */
static __always_inline __u32 final_class(struct __sk_buff *skb, const struct segment *seg, struct head *h)
{
	__u32 n = load(skb, seg, h, INTERIM_BYTES);

#pragma clang loop unroll(disable)
	for (__u32 i = 15; i < INTERIM_BYTES; i++) {
		if (i + 13 >= n)
			break;
		if (h->bytes[i] == '\n' && h->bytes[i - 2] == '\n')
			return h->bytes[i + 10] - '0';
	}
	return 1;
}

/* A status line, put together from pieces if need be. */
static __always_inline void status_line(struct __sk_buff *skb, struct exchange *x, struct head *h, const struct segment *seg)
{
	__u32 class, n = load(skb, seg, h, STATUS_LINE);

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < STATUS_LINE; i++) {
		__u32 to = x->have;

		if (i >= n || to >= STATUS_LINE)
			break;
		x->first[within(to)] = h->bytes[i];
		x->have = to + 1;
	}
	x->answer = seg->seq + seg->len; /* if it goes on, it does there */
	if (x->have < STATUS_LINE)
		return;
	x->have = 0;
	if (x->first[0] != 'H' || x->first[5] != '1' || x->first[8] != ' ')
		return;
	class = x->first[9] - '0';
	if (class == 1 && x->first[10] == '0' && x->first[11] == '1') {
		answered(x, class);
		x->mode = HTTP_LEFT_OUT; /* another protocol from here on */
		return;
	}
	if (class == 1)
		class = final_class(skb, seg, h);
	if (class == 1)
		return;
	answered(x, class);
	x->asked_ns = 0;
}

/* The class of a response whose header block begins with these bytes (RFC 7541
 * appendix A): :status by its index, or spelt out. */
static __always_inline __u32 hpack_class(const __u8 *b)
{
	switch (b[0]) {
	case 0x88: /* 200 */
	case 0x89: /* 204 */
	case 0x8a: /* 206 */
		return 2;
	case 0x8b: /* 304 */
		return 3;
	case 0x8c: /* 400 */
	case 0x8d: /* 404 */
		return 4;
	case 0x8e: /* 500 */
		return 5;
	}
	/* A literal with the name :status, not Huffman-coded. */
	if (((b[0] & 0xf0) == 0x00 || (b[0] & 0xf0) == 0x40 || (b[0] & 0xf0) == 0x10) && (b[0] & 15) >= 8 && (b[0] & 15) <= 14 &&
	    b[1] == 3 && b[2] >= '1' && b[2] <= '5')
		return b[2] - '0';
	return HTTP_OTHER;
}

#define FRAMES 16 /* looked at in one segment */
#define FRAME_HEADERS 1
#define FLAG_END_STREAM 1
#define FLAG_PADDED 8
#define FLAG_PRIORITY 32

/* Keeps the beginning of a frame's header that a segment ends in, and puts it
 * together with the rest in the next one. */
static __always_inline __u32 piece(struct __sk_buff *skb, struct exchange *x, const struct segment *seg, __u32 off)
{
#pragma clang loop unroll(disable)
	for (int k = 0; k < 9; k++) {
		__u32 to = x->have;

		if (to >= 9 || off >= seg->len || bpf_skb_load_bytes(skb, seg->at + off, &x->first[within(to)], 1))
			break;
		x->have = to + 1;
		off++;
	}
	return off;
}

/* Takes one frame, whose payload begins at off, and counts what it answers. */
static __always_inline __u32 frame(struct __sk_buff *skb, const struct segment *seg, const __u8 *f, __u32 off, struct head *counts)
{
	__u32 size = f[0] << 16 | f[1] << 8 | f[2];
	__u8 block[5] = {}, flags = f[4];
	__u32 at, class;

	if (f[3] == FRAME_HEADERS) {
		at = seg->at + off + (flags & FLAG_PADDED ? 1 : 0) + (flags & FLAG_PRIORITY ? 5 : 0);
		if (bpf_skb_load_bytes(skb, at, block, 5))
			bpf_skb_load_bytes(skb, at, block, 1);
		class = hpack_class(block);
		/* Trailers end a stream and have no :status. */
		if (class != HTTP_OTHER || !(flags & FLAG_END_STREAM)) {
			counts->bytes[class & 7] += 1;
			counts->bytes[7] = 1;
		}
	}
	return off + size;
}

/* Walks the frames that begin in a segment. x->answer is where the next one, or
 * the rest of its header, does. */
static __always_inline void frames(struct __sk_buff *skb, struct exchange *x, const struct segment *seg, struct head *counts)
{
	__u32 off = x->answer - seg->seq;

	/* In map memory, which the verifier does not follow from state to state. */
	__builtin_memset(counts->bytes, 0, 8);
	if (x->have) {
		off = piece(skb, x, seg, off);
		if (x->have >= 9) {
			x->have = 0;
			off = frame(skb, seg, x->first, off, counts);
		}
	}
#pragma clang loop unroll(disable)
	for (int i = 0; i < FRAMES; i++) {
		__u8 f[9];

		if (off >= seg->len || seg->len - off < sizeof(f) || bpf_skb_load_bytes(skb, seg->at + off, f, sizeof(f)))
			break;
		off = frame(skb, seg, f, off + sizeof(f), counts);
	}
	if (counts->bytes[7])
		answered_many(x, counts->bytes);
	if (off < seg->len) {
		if (seg->len - off >= 9) {
			leave_out(x); /* more frames than are looked at: the next one is lost */
			return;
		}
		off = piece(skb, x, seg, off);
	}
	x->answer = seg->seq + off;
}

SEC("cgroup_skb/ingress")
int http_ingress(struct __sk_buff *skb)
{
	struct exchange *x = exchange_of(skb);
	struct segment seg;
	__u32 zero = 0;
	struct head *h;

	if (!x || (x->mode == HTTP_1 && !x->asked_ns) || x->mode == HTTP_UNKNOWN || !parse(skb, &seg))
		return 1;
	h = bpf_map_lookup_elem(&heads_v1, &zero);
	if (!h)
		return 1;
	if (x->mode == HTTP_2) {
		/* Up to answer it is the rest of a frame. A gap, which a lost segment
		 * leaves until it is sent again, hides where the next one begins. */
		if ((__s32)(seg.seq - x->answer) > 0)
			leave_out(x);
		else if (x->answer - seg.seq < seg.len)
			frames(skb, x, &seg, h);
		return 1;
	}
	if (seg.seq != x->answer)
		return 1;
	status_line(skb, x, h, &seg);
	return 1;
}
