/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A seat is a place for one of our listeners: an entry of the socket map, which
 * empties itself when the socket goes, and a heartbeat of the loop behind it. */
#pragma once

#include "config.h"
#include "metrics.h"

static __always_inline bool is_alive(__u32 seat)
{
	__u64 *beat = bpf_map_lookup_elem(&heartbeats_v1, &seat);
	struct bpf_sock *sk;

	/* Signed: a beat that comes between the two reads is ahead of ours. */
	if (!beat || (__s64)(bpf_ktime_get_ns() - *beat) > (__s64)HEARTBEAT_NS)
		return false;
	sk = bpf_map_lookup_elem(&listeners_v1, &seat);
	if (!sk)
		return false;
	bpf_sk_release(sk);
	return true;
}
