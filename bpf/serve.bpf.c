// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What local tasks serve: connections accepted at ports of theirs. Loaded and
 * attached only while somebody wants the counts, for every connection that
 * anybody on the node accepts passes here. Kernel 5.15 and later. */

#include "lib/track.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct served_key {
	__u64 netns;
	__u32 port; /* host byte order */
	__u32 pad;
};

struct served {
	__u64 active;
	__u64 accepted;
	__u64 bytes_sent; /* of connections that ended */
	__u64 bytes_received;
};

/* Written by user space, which puts zeros in; the programs count. Not allocated
 * ahead: a value is not another key's before all readers have left it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct served_key);
	__type(value, struct served);
	__uint(max_entries, 8192);
} served_v1 SEC(".maps");

/* Written by the programs: at which port a socket was accepted. Goes with the
 * socket; losing one leaves its port's count of open connections too high. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct served_key);
} accepted_v1 SEC(".maps");

static __always_inline void on_accepted(struct bpf_sock_ops *ops)
{
	struct served_key key = { .netns = bpf_get_netns_cookie(ops), .port = ops->local_port };
	struct served *s = bpf_map_lookup_elem(&served_v1, &key);
	struct bpf_sock *sk = ops->sk;

	if (!s || !sk || !bpf_sk_storage_get(&accepted_v1, sk, &key, BPF_SK_STORAGE_GET_F_CREATE))
		return;
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	add(&s->active, 1);
	add(&s->accepted, 1);
}

static __always_inline void on_ended(struct bpf_sock_ops *ops)
{
	__u64 sent = ops->bytes_acked, received = ops->bytes_received;
	__u32 old = ops->args[0];
	struct bpf_sock *sk = ops->sk;
	struct served_key *at, key;
	struct served *s;

	if (!sk)
		return;
	at = bpf_sk_storage_get(&accepted_v1, sk, NULL, 0);
	if (!at)
		return;
	key = *at;
	s = bpf_map_lookup_elem(&served_v1, &key);
	if (!s)
		return;
	/* bytes_acked counts our FIN, bytes_received the peer's; the SYN of a
	 * socket that was accepted is in neither. */
	if (sent > 0 && (old == TCP_FIN_WAIT2 || old == TCP_CLOSING || old == TCP_LAST_ACK))
		sent--;
	if (received > 0 && peer_finished(ops))
		received--;
	add(&s->active, -1);
	add(&s->bytes_sent, sent);
	add(&s->bytes_received, received);
}

/* Always 1, and never a reply: a 0 turns every other program's reply into -1. */
SEC("sockops")
int serve_sockops(struct bpf_sock_ops *ops)
{
	if (ops->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		on_accepted(ops);
	else if (ops->op == BPF_SOCK_OPS_STATE_CB && ops->args[1] == TCP_CLOSE)
		on_ended(ops);
	return 1;
}
