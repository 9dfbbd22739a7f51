/*
 * The map from status to exit code.
 *
 * It is written as one enum constant per status, and the array is made from libvex's own table of
 * statuses: a status that is added there and not here does not compile. An array with designated
 * entries alone would leave a hole, and a hole would read as success.
 */
#include "libclient/vexctl/exit.h"

#include <stddef.h>

#include <vex/vex.h>

enum {
    MAP_OK = VEX_EXIT_OK,
    MAP_ERR_INVALID = VEX_EXIT_USAGE,
    MAP_ERR_DIM = VEX_EXIT_USAGE,
    MAP_ERR_NOT_FINITE = VEX_EXIT_USAGE,
    MAP_ERR_ZERO_VECTOR = VEX_EXIT_USAGE,
    MAP_ERR_LIMIT = VEX_EXIT_USAGE,
    MAP_ERR_BUFFER = VEX_EXIT_FAILED,
    MAP_ERR_NO_COLLECTION = VEX_EXIT_NOT_FOUND,
    MAP_ERR_NOT_FOUND = VEX_EXIT_NOT_FOUND,
    MAP_ERR_EXISTS = VEX_EXIT_CONFLICT,
    MAP_ERR_NOMEM = VEX_EXIT_FAILED,
    MAP_ERR_NO_SPACE = VEX_EXIT_NO_SPACE,
    MAP_ERR_IO = VEX_EXIT_FAILED,
    MAP_ERR_CORRUPT = VEX_EXIT_CORRUPT,
    MAP_ERR_FORMAT = VEX_EXIT_USAGE,
    MAP_ERR_UNAVAILABLE = VEX_EXIT_UNREACHABLE,
    MAP_ERR_UNKNOWN_OUTCOME = VEX_EXIT_UNREACHABLE,
    MAP_ERR_TIMEOUT = VEX_EXIT_TIMEOUT,
    MAP_ERR_PROTOCOL = VEX_EXIT_FAILED,
    MAP_ERR_VERSION = VEX_EXIT_FAILED,
    MAP_ERR_BUSY = VEX_EXIT_CONFLICT,
    MAP_ERR_READ_ONLY = VEX_EXIT_DENIED,
    MAP_ERR_GONE = VEX_EXIT_NOT_FOUND,
    MAP_ERR_PERMISSION = VEX_EXIT_DENIED,
};

static const unsigned char map[] = {
#define MAP_ENTRY(name, number, text) [number] = MAP_##name,
    VEX_STATUS_TABLE(MAP_ENTRY)
#undef MAP_ENTRY
};

#define COUNT_ENTRY(name, number, text) +1
_Static_assert(sizeof(map) == 0 VEX_STATUS_TABLE(COUNT_ENTRY), "status numbers have a gap");
#undef COUNT_ENTRY

static const char *const meanings[] = {
    [VEX_EXIT_OK] = "done",
    [VEX_EXIT_FAILED] = "the operation failed",
    [VEX_EXIT_USAGE] = "wrong usage, or invalid input",
    [VEX_EXIT_NOT_FOUND] = "no such collection or id; no instance or backup there",
    [VEX_EXIT_CONFLICT] = "exists already, or in use by another process",
    [VEX_EXIT_UNREACHABLE] = "the daemon cannot be reached, or the connection was lost",
    [VEX_EXIT_CORRUPT] = "integrity failure: data is damaged",
    [VEX_EXIT_TIMEOUT] = "timed out",
    [VEX_EXIT_PARTIAL] = "an import stopped part-way: some batches are written",
    [VEX_EXIT_DENIED] = "not permitted, or the instance is read-only",
    [VEX_EXIT_NO_SPACE] = "no space left on disk or in shared memory",
};

enum vex_exit vex_exit_of(enum vex_status status)
{
    size_t number = (size_t)status;
    return number < sizeof(map) ? (enum vex_exit)map[number] : VEX_EXIT_FAILED;
}

void vex_exit_print(FILE *to)
{
    fputs("Exit codes of vexctl, the same in every version:\n", to);
    for (size_t code = 0; code < sizeof(meanings) / sizeof(meanings[0]); code++) {
        fprintf(to, "\n%4zu  %s\n", code, meanings[code]);
        for (size_t number = 0; number < sizeof(map); number++) {
            if (map[number] == code) {
                enum vex_status status = (enum vex_status)number;
                fprintf(to, "        %-24s %s\n", vex_status_name(status), vex_status_text(status));
            }
        }
    }
    fputs(
        "\nOn any code but 0 nothing is written to standard output; the reason is one line on\n"
        "standard error: 'vexctl: MESSAGE', or with -o json an object with the members \"error\",\n"
        "which is the status or null, \"exit_code\" and \"message\". The exceptions are the "
        "reports of\n"
        "fsck, backup verify, log dump and log repair, which are there with code 6, too. A lost\n"
        "connection (VEX_ERR_UNKNOWN_OUTCOME) leaves open whether the write happened: read it\n"
        "back, or repeat it with an upsert.\n",
        to);
}
