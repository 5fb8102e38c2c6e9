/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Load-time knobs. User space sets them before the programs are loaded, so
 * the verifier prunes what they turn off: no #ifdef per feature. */
#pragma once

#include "types.h"

/* IPv4 VIPs: vip4_net/vip4_mask, network byte order. */
volatile const __be32 vip4_net;
volatile const __be32 vip4_mask;

/* IPv6 VIPs: the first 64 bits, network byte order. */
volatile const __be32 vip6_net[2];

/* A UDP connect to this address by connectd itself records the caller's netns
 * cookie: SO_NETNS_COOKIE exists from 5.14 only. */
volatile const __be32 learn_addr;

/* SO_MARK of connectd's own sockets: never translated. */
volatile const __u32 own_mark;

/* bpf_set_retval exists from 5.18 on. Without it a refused connect is EPERM
 * or is sent where the kernel itself refuses it. */
volatile const __u8 has_set_retval;

/* Connections one task may have tracked at once: a quarter of the map, so
 * that one task cannot take the tracking away from the others. */
volatile const __u32 max_task_connections;

/* Whether somebody asks what each task has had of each service. */
volatile const __u8 count_callers;

/* A forwarder or DNS socket whose loop has not beaten for so long is away. */
#define HEARTBEAT_NS 2000000000ULL
