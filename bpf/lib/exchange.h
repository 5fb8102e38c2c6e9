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
	__u8 pad[5];
	__u8 frame[16];            /* the beginning of an HTTP/2 frame that a segment ends in */
	__u64 open[STREAMS / 64]; /* streams, modulo STREAMS, whose response has begun */
};

/* By socket cookie. Not the socket's storage, whose two allocations and frees
 * cost a connection more than all else that is done for it in mode direct. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct exchange);
	__uint(max_entries, 1);
} exchanges_v2 SEC(".maps");

/* Follows a connection from its SYN on. One for which there is no room is not. */
static __always_inline void follow(__u64 cookie, const struct connection *c)
{
	struct exchange x = { .service = c->service, .endpoint = c->endpoint, .task = c->task };

	if (c->flags & CONNECTION_DIRECT)
		bpf_map_update_elem(&exchanges_v2, &cookie, &x, BPF_ANY);
}

static __always_inline void unfollow(__u64 cookie, const struct connection *c)
{
	if (c->flags & CONNECTION_DIRECT)
		bpf_map_delete_elem(&exchanges_v2, &cookie);
}
