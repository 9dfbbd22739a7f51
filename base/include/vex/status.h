/*
 * Status codes and the error struct of every VexDB call that can fail.
 *
 * A code says what the caller can do about it; it is the contract, and its number is never reused.
 * The message says what happened, to which object, and what mends it; its wording may change.
 *
 * Thread-safety: plain values; a struct vex_error belongs to whoever passes it in.
 */
#ifndef VEX_STATUS_H
#define VEX_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, number, short text). The number is on the wire and in exit codes: append only. */
#define VEX_STATUS_TABLE(X)                                                                        \
    X(OK, 0, "ok")                                                                                 \
    X(ERR_INVALID, 1, "invalid argument")                                                          \
    X(ERR_DIM, 2, "wrong vector dimension")                                                        \
    X(ERR_NOT_FINITE, 3, "vector holds NaN or infinity")                                           \
    X(ERR_ZERO_VECTOR, 4, "zero vector has no direction under cosine")                             \
    X(ERR_LIMIT, 5, "over a documented limit")                                                     \
    X(ERR_BUFFER, 6, "caller's buffer is too small")                                               \
    X(ERR_NO_COLLECTION, 7, "no such collection")                                                  \
    X(ERR_NOT_FOUND, 8, "no such id")                                                              \
    X(ERR_EXISTS, 9, "already exists")                                                             \
    X(ERR_NOMEM, 10, "out of memory")                                                              \
    X(ERR_NO_SPACE, 11, "no space left on disk or in shared memory")                               \
    X(ERR_IO, 12, "input/output error")                                                            \
    X(ERR_CORRUPT, 13, "damaged data")                                                             \
    X(ERR_FORMAT, 14, "malformed input file or text")                                              \
    X(ERR_UNAVAILABLE, 15, "daemon cannot be reached")                                             \
    X(ERR_UNKNOWN_OUTCOME, 16, "connection lost: the write may or may not have happened")          \
    X(ERR_TIMEOUT, 17, "timed out")                                                                \
    X(ERR_PROTOCOL, 18, "malformed message")                                                       \
    X(ERR_VERSION, 19, "incompatible version")                                                     \
    X(ERR_BUSY, 20, "in use by another process")                                                   \
    X(ERR_READ_ONLY, 21, "instance is read-only after an I/O error")                               \
    X(ERR_GONE, 22, "collection was dropped")                                                      \
    X(ERR_PERMISSION, 23, "permission denied")

enum vex_status {
#define VEX_STATUS_ENUM(name, number, text) VEX_##name = number,
    VEX_STATUS_TABLE(VEX_STATUS_ENUM)
#undef VEX_STATUS_ENUM
};

/*
 * Caller-owned; nothing in it is to be freed. Every function that takes one accepts NULL and writes
 * it only when it fails.
 */
struct vex_error {
    enum vex_status status;
    int os_errno;      /* errno behind the failure, 0 if none */
    char message[248]; /* NUL-terminated, one line, no trailing period */
};

#ifdef __cplusplus
}
#endif
#endif
