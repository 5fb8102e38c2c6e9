/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The layout before this one. A daemon with a new layout finds connections
 * that its predecessor's programs wrote, and goes on reading them until they
 * end. There is no earlier layout yet; daemon/e2e/layout_test.go makes a later
 * one and shows what then stands here. */
#pragma once

#include "maps.h"

/* Reads an entry of the old map without touching it: the old sockops program
 * may still follow the connection. */
static __always_inline bool legacy_peek(__u64 cookie, struct connection *out)
{
	(void)cookie;
	(void)out;
	return false;
}

/* Moves an entry from the old map to the new one. */
static __always_inline struct connection *legacy_take(__u64 cookie)
{
	(void)cookie;
	return NULL;
}
