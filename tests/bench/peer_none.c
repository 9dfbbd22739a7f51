/*
 * No peer: its library was not there when this program was built.
 */
#include "tests/bench/common.h"
#include "tests/bench/peer.h"

const char *vex_peer_name(void)
{
    return "none";
}

bool vex_peer_open(struct vex_peer **out_peer, const char *root)
{
    (void)root;
    *out_peer = NULL;
    return vex_bench_fail("--peers rocksdb: this program was built without RocksDB; install it "
                          "('scripts/install-deps --peers'), configure again and build");
}

void vex_peer_close(struct vex_peer *peer)
{
    (void)peer;
}

bool vex_peer_insert(struct vex_peer *peer, size_t count, const void *values, size_t value_bytes)
{
    (void)peer;
    (void)values;
    return vex_bench_fail("no peer takes %zu records of %zu bytes", count, value_bytes);
}

bool vex_peer_print(const struct vex_peer *peer)
{
    (void)peer;
    return vex_bench_fail("no peer to describe");
}
