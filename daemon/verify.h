/*
 * Checking what an open instance holds, row by row: that what the registry would answer is what the rows say.
 * Checksums tell that bytes are those that were written; this tells that they were right.
 *
 * For each collection: every live id is found at its row, and nowhere else; every payload reference leads
 * into the payloads; vectors are finite and their norms right; dead rows and live rows add up to the counts;
 * no id is above those that are given out next; every link of a graph leads to a row, and a walk reaches all that
 * the graph says it does.
 *
 * Thread-safety: the daemon's main thread; nothing else changes the registry meanwhile.
 */
#ifndef VEX_DAEMON_VERIFY_H
#define VEX_DAEMON_VERIFY_H

#include <stdint.h>

#include "daemon/registry.h"

struct vex_verify_result {
    uint64_t live_rows;
    uint64_t dead_rows;
    uint64_t segments;
    uint64_t payload_bytes; /* of live rows */
    uint64_t faults;
    char first_fault[160]; /* empty if there is none */
};

void vex_verify_collection(const struct vex_live_collection *collection,
                           struct vex_verify_result *out);

#endif
