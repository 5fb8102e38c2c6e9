/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where an HTTP connection in mode direct is between request and response.
 * Begun by sockops with the connection; read and written by cgroup_skb. */
#pragma once

#include "maps.h"

enum http_mode {
	HTTP_UNKNOWN = 0, /* nothing was sent yet */
	HTTP_1,
	HTTP_2,
	HTTP_LEFT_OUT,
};

#define STREAMS 256

/* One connection. */
struct exchange {
	__u64 cookie; /* whose it is; 0: nobody's */
	__u64 asked_ns; /* when the request that is awaited began; 0: none */
	__u32 service;
	__u32 endpoint;
	__u32 task;
	__u32 sent;   /* sequence number after the last byte sent */
	__u32 answer; /* where the response, or the next HTTP/2 frame, begins */
	__u32 hole;   /* HTTP/2: from here up to hole_end a lost segment is yet to come; equal: none is */
	__u32 hole_end;
	__u16 status;  /* its digits so far */
	__u8 mode;     /* enum http_mode */
	__u8 begun;    /* sent is known */
	__u8 request;  /* enum request_state */
	__u8 response; /* enum response_state */
	__u8 have;     /* bytes of frame */
	__u8 pad[13];
	/* A cache line is over: what follows is of HTTP/2 alone. */
	__u8 frame[16];           /* the beginning of an HTTP/2 frame that a segment ends in */
	__u64 open[STREAMS / 64]; /* streams, modulo STREAMS, whose response has begun */
	__u64 pad_line[2];
};

/* By socket cookie, modulo its size. Cookies come in sequence, so the few
 * connections that live side by side have places of their own, and a place is
 * still in a cache when its turn comes again. A hash meets a part of its table
 * that no cache holds at each connection; the socket's storage costs two
 * allocations and frees, more than all else that mode direct does for one.
 * SHARED, because its values begin at a page then, and each has cache lines of
 * its own: request and response are often seen by different CPUs. */
#define NEAR_EXCHANGES 2048
SHARED(exchanges_near_v2, struct exchange, NEAR_EXCHANGES);

/* Connections whose place there another one has. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct exchange);
	__uint(max_entries, 1);
} exchanges_far_v2 SEC(".maps");

static __always_inline struct exchange *near_exchange(__u64 cookie)
{
	__u32 place = cookie & (NEAR_EXCHANGES - 1);

	return bpf_map_lookup_elem(&exchanges_near_v2, &place);
}

static __always_inline struct exchange *exchange_by(__u64 cookie)
{
	struct exchange *x = near_exchange(cookie);

	return x && x->cookie == cookie ? x : bpf_map_lookup_elem(&exchanges_far_v2, &cookie);
}

/* Follows a connection from its SYN on. One for which there is no room is not,
 * nor one of two that take the same place at the same moment. */
static __always_inline void follow(__u64 cookie, const struct connection *c)
{
	struct exchange new = { .cookie = cookie, .service = c->service, .endpoint = c->endpoint, .task = c->task };
	struct exchange *x;

	if (!(c->flags & CONNECTION_DIRECT))
		return;
	x = near_exchange(cookie);
	if (x && (!x->cookie || x->cookie == cookie))
		*x = new;
	else
		bpf_map_update_elem(&exchanges_far_v2, &cookie, &new, BPF_ANY);
}

static __always_inline void unfollow(__u64 cookie, const struct connection *c)
{
	struct exchange *x;

	if (!(c->flags & CONNECTION_DIRECT))
		return;
	x = near_exchange(cookie);
	if (x && x->cookie == cookie)
		x->cookie = 0;
	else
		bpf_map_delete_elem(&exchanges_far_v2, &cookie);
}
