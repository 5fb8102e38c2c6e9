/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Counting. Adds never read their result: BPF_FETCH is 5.12+. */
#pragma once

#include "maps.h"

static __always_inline void count(enum outcome what)
{
	__u32 key = what;
	__u64 *n = bpf_map_lookup_elem(&outcomes_v2, &key);

	if (n)
		*n += 1; /* per CPU */
}

static __always_inline void add(__u64 *counter, __s64 n)
{
	__sync_fetch_and_add(counter, n);
}

static __always_inline struct endpoint_stats *stats_of(__u32 endpoint)
{
	return bpf_map_lookup_elem(&endpoint_stats_v1, &endpoint);
}

static __always_inline void observe(struct histogram *h, __u64 us)
{
	__u32 bucket = 0;
	__u64 bound = us >> HISTOGRAM_SHIFT;

	for (int i = 0; i < HISTOGRAM_BUCKETS - 1; i++) {
		if (!bound)
			break;
		bound >>= 1;
		bucket++;
	}
	if (bucket < HISTOGRAM_BUCKETS)
		add(&h->buckets[bucket], 1);
	add(&h->sum_us, us);
}
