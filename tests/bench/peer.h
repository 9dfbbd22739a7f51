/*
 * Another store that takes the same durable writes, for scale: a disk's own rate says what is
 * possible, a peer says what is usual.
 *
 * Which one is decided when vexbench is built: one file implements this if its library is there,
 * peer_none.c, which only says what is missing, if not. A peer runs inside this process, without a
 * daemon and a socket between; that is how its users have it.
 */
#ifndef VEX_BENCH_PEER_H
#define VEX_BENCH_PEER_H

#include <stdbool.h>
#include <stddef.h>

struct vex_peer;

/* "rocksdb"; static storage. */
const char *vex_peer_name(void);
/* Makes an empty store in a folder of its own in `root`; whoever removes the root removes it. False
 * after saying why. */
bool vex_peer_open(struct vex_peer **out_peer, const char *root);
/* NULL is allowed. */
void vex_peer_close(struct vex_peer *peer);
/*
 * One durable, atomic write of `count` new records: 8 bytes of key, value_bytes of value, the
 * values one after the other. Keys are numbered through, as the coordinator numbers ids. From any
 * thread.
 */
bool vex_peer_insert(struct vex_peer *peer, size_t count, const void *values, size_t value_bytes);
/* Prints the line that says what it is and how it is set up. */
bool vex_peer_print(const struct vex_peer *peer);

#endif
