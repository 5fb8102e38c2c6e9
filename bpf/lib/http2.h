/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* HTTP/2: walks the headers of the server's frames, and reads :status where it
 * stands in HPACK's static table or is spelt out (RFC 9113, RFC 7541). */
#pragma once

#include "http.h"

#define FRAMES 1000 /* looked at in one segment: less than a tally holds */
#define FRAME_HEADER 9
#define FRAME_PEEK 8 /* bytes of a header block that are looked at */

#define FRAME_DATA 0
#define FRAME_HEADERS 1
#define FRAME_RST_STREAM 3
#define FRAME_SETTINGS 4
#define FLAG_END_STREAM 1
#define FLAG_PADDED 8
#define FLAG_PRIORITY 32

#define TAKEN 8 /* with a class: one more response */

static __always_inline __u64 tally_of(__u32 taken)
{
	return (__u64)(taken / TAKEN & 1) << TALLY_BITS * (taken & (TAKEN - 1));
}

static __always_inline __u32 frame_size(const __u8 *f)
{
	return f[0] << 16 | f[1] << 8 | f[2];
}

/* Whether these nine bytes may begin a frame. Used where that is not known, so
 * only the types that are common and servers send are believed. */
static __always_inline bool plausible(const __u8 *f)
{
	bool stream = (f[5] | f[6] | f[7] | f[8]) && (f[8] & 1);

	if (f[0] || f[1] > 64 || f[5] & 0x80)
		return false;
	switch (f[3]) {
	case FRAME_DATA:
		return stream && !(f[4] & ~(FLAG_END_STREAM | FLAG_PADDED));
	case FRAME_HEADERS:
		return stream && !(f[4] & ~(FLAG_END_STREAM | 4 | FLAG_PADDED | FLAG_PRIORITY));
	case FRAME_RST_STREAM:
		return stream && !f[4] && !f[1] && f[2] == 4;
	case FRAME_SETTINGS:
		return !stream && !f[8] && !(f[4] & ~1) && frame_size(f) % 6 == 0;
	}
	return false;
}

/* The class of a response whose header block begins with these bytes, the first
 * one lowest. */
static __always_inline __u32 hpack_class(__u64 b)
{
	__u8 first, size, digit;

	/* An encoder that was told of another table size says so first, in up
	 * to four bytes. */
	if ((b & 0xe0) == 0x20) {
		bool more = (b & 0x1f) == 0x1f;

		for (int i = 0; i < 3; i++) {
			if (!more)
				break;
			b >>= 8;
			more = b & 0x80;
		}
		b >>= 8;
	}
	first = b;
	size = b >> 8;
	digit = b >> 16;
	switch (first) {
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
	/* A literal whose name is that of one of these. */
	if (!((first & 0xf0) == 0x00 || (first & 0xf0) == 0x10 || (first & 0xf0) == 0x40) || (first & 15) < 8 || (first & 15) > 14)
		return HTTP_OTHER;
	if (size == 3 && digit >= '1' && digit <= '5')
		return digit - '0';
	if (!(size & 0x80))
		return HTTP_OTHER;
	/* Huffman: 1 and 2 have five bits, the others six. */
	switch (digit >> 3) {
	case 1:
		return 1;
	case 2:
		return 2;
	}
	switch (digit >> 2) {
	case 0x19:
		return 3;
	case 0x1a:
		return 4;
	case 0x1b:
		return 5;
	}
	return HTTP_OTHER;
}

/* What a frame adds to the tally: TAKEN and a class, or 0. Trailers have no :status; they are told from
 * responses whose status is in the dynamic table by what came before them on
 * their stream. */
static __always_inline __u32 take(struct exchange *x, const __u8 *f, __u64 block)
{
	__u32 stream = (f[7] << 8 | f[8]) >> 1, class;
	__u64 *open = &x->open[stream / 64 & (STREAMS / 64 - 1)], bit = 1ULL << (stream & 63);
	bool ends = f[4] & FLAG_END_STREAM, was_open = *open & bit;

	switch (f[3]) {
	case FRAME_DATA:
		if (ends)
			*open &= ~bit;
		return 0;
	case FRAME_RST_STREAM:
		*open &= ~bit;
		return 0;
	case FRAME_HEADERS:
		break;
	default:
		return 0;
	}
	class = hpack_class(block);
	if (class == 1)
		return 0; /* interim */
	if (ends)
		*open &= ~bit;
	else
		*open |= bit;
	return class == HTTP_OTHER && was_open ? 0 : TAKEN | class;
}

/* Bytes of a frame that must be there for it to be taken. */
static __always_inline __u32 needed(const __u8 *f)
{
	__u32 size = frame_size(f);

	if (f[3] != FRAME_HEADERS)
		return FRAME_HEADER;
	return FRAME_HEADER + (size < 7 ? size : 7);
}

/* Goes on with a frame that began in an earlier segment. Returns where the next
 * one begins, or the segment's end. */
static __always_inline __u32 piece(struct __sk_buff *skb, struct exchange *x, const struct segment *seg, __u32 off)
{
	__u64 block = 0;

#pragma clang loop unroll(disable)
	for (int k = 0; k <= 16; k++) {
		__u32 have = x->have;

		if (have >= FRAME_HEADER && have >= needed(x->frame))
			break;
		/* The compiler, which knows it to be small, would leave out the
		 * mask that the verifier needs to know it. */
		asm volatile("" : "+r"(have));
		if (off >= seg->len || bpf_skb_load_bytes(skb, seg->at + off, &x->frame[have & 15], 1))
			return off;
		x->have = have + 1;
		off++;
	}
#pragma clang loop unroll(full)
	for (int k = 6; k >= 0; k--)
		block = block << 8 | x->frame[FRAME_HEADER + k];
	answered_many(x, tally_of(take(x, x->frame, x->frame[4] & (FLAG_PADDED | FLAG_PRIORITY) ? 0 : block)));
	off += frame_size(x->frame) + FRAME_HEADER - x->have;
	x->have = 0;
	return off;
}

/* Loads what is looked at of a header block. */
static __always_inline __u64 peek(struct __sk_buff *skb, const __u8 *f, __u32 at, __u32 rest)
{
	__u64 block = 0;
	__u32 skip = (f[4] & FLAG_PADDED ? 1 : 0) + (f[4] & FLAG_PRIORITY ? 5 : 0), n;

	if (rest <= skip)
		return 0;
	n = rest - skip;
	if (n > FRAME_PEEK)
		n = FRAME_PEEK;
	asm volatile("" : "+r"(n));
	n = ((n - 1) & (FRAME_PEEK - 1)) + 1; /* which it is: for the verifier */
	if (bpf_skb_load_bytes(skb, at + skip, &block, n))
		return 0;
	return block;
}

/* Takes the frame at an offset of the skb, of whose segment so many bytes are
 * left. Returns its length, and in the upper half what take returned; 0: its
 * beginning is cut. Not static: so it is verified once and not for each of the
 * frames. */
__noinline __u64 one_frame(struct __sk_buff *skb, __u32 at, __u32 rest)
{
	struct exchange *x = exchange_of(skb);
	__u8 f[FRAME_HEADER] = {};
	__u64 taken;

	if (!x || rest < sizeof(f) || bpf_skb_load_bytes(skb, at, f, sizeof(f)) || rest < needed(f))
		return 0;
	taken = take(x, f, f[3] == FRAME_HEADERS ? peek(skb, f, at + FRAME_HEADER, rest - FRAME_HEADER) : 0);
	return taken << 32 | (FRAME_HEADER + frame_size(f));
}

/* Walks the frames that begin in a segment from off on, and counts. Returns where
 * the walk ended: at a frame that begins later, or whose beginning the segment's
 * end cuts. Not static either: segments come here by many ways. */
__noinline __u32 walk(struct __sk_buff *skb, __u32 at, __u32 len, __u32 off)
{
	struct exchange *x = exchange_of(skb);
	__u64 tally = 0;

#pragma clang loop unroll(disable)
	for (int i = 0; i < FRAMES; i++) {
		__u64 done;

		if (off >= len)
			break;
		done = one_frame(skb, at + off, len - off);
		if (!done)
			break;
		tally += tally_of(done >> 32);
		off += (__u32)done;
	}
	if (x)
		answered_many(x, tally);
	return off;
}

/* Where in a segment a frame begins that is not known yet. A gap, which a lost
 * segment leaves until it is sent again, hides where the next frame begins: then
 * it is found again in a segment that begins like one. Frames of a lost segment
 * are taken when it comes; those of segments in between that begin within a
 * frame are missed.
 * false: nowhere. */
static __always_inline bool locate_frame(struct __sk_buff *skb, struct exchange *x, const struct segment *seg, __u32 *off, bool *late)
{
	__u8 f[FRAME_HEADER];

	if ((__s32)(seg->seq - x->answer) > 0) {
		if (bpf_skb_load_bytes(skb, seg->at, f, sizeof(f)) || !plausible(f))
			return false;
		x->hole = x->answer;
		x->hole_end = x->have ? x->answer : seg->seq; /* not within a header */
		x->have = 0;
		x->answer = seg->seq;
	}
	*off = x->answer - seg->seq;
	if (*off < seg->len)
		return true;
	*off = x->hole - seg->seq;
	*late = true;
	return x->hole != x->hole_end && *off < seg->len;
}

static __always_inline void frames(struct __sk_buff *skb, struct exchange *x, const struct segment *seg)
{
	bool late = false;
	__u32 off;

	if (!locate_frame(skb, x, seg, &off, &late))
		return;
	if (x->have && !late)
		off = piece(skb, x, seg, off);
	off = walk(skb, seg->at, seg->len, off);
	if (late) {
		x->hole = seg->seq + off;
		if (off < seg->len || (__s32)(x->hole - x->hole_end) > 0)
			x->hole = x->hole_end;
	} else {
		if (off < seg->len)
			off = piece(skb, x, seg, off);
		x->answer = seg->seq + off;
		if (off < seg->len)
			leave_out(x); /* more frames than are looked at */
	}
}

/* Whether a server speaks first, which in HTTP it does with SETTINGS alone. */
static __always_inline bool is_settings(struct __sk_buff *skb, const struct segment *seg)
{
	__u8 f[FRAME_HEADER];

	return !bpf_skb_load_bytes(skb, seg->at, f, sizeof(f)) && f[3] == FRAME_SETTINGS && plausible(f);
}
