/*
 * What every verb is given: the global options, the place for its output, and the ways to fail.
 *
 * Output is collected in memory and reaches standard output only when the verb has succeeded, so
 * that a script never reads half a document. Failing means: one line on standard error, which is a
 * JSON object if the output would have been JSON, and the exit code of the status.
 */
#ifndef VEX_VEXCTL_CONTEXT_H
#define VEX_VEXCTL_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <vex/vex.h>

#include "libclient/vexctl/exit.h"

struct vex_context {
    const char *directory;    /* NULL = libvex's default */
    bool json;                /* -o json */
    bool no_spawn;            /* --no-spawn */
    bool creates;             /* this verb may make an instance; others only mistyped its name */
    uint32_t timeout_ms;      /* --timeout; 0 = libvex's default */
    uint32_t idle_timeout_ms; /* --idle; 0 = libvex's default */
    const char *verb;         /* for messages that point at the help */
    FILE *out;                /* collects what goes to standard output */
    struct vex_db *db;        /* once vex_context_open() was called */
};

/* Makes `out`. */
void vex_context_init(struct vex_context *context);
/* Closes the connection. Writes the output if `code` is 0, and returns `code`, or 1 if that failed.
 */
enum vex_exit vex_context_finish(struct vex_context *context, enum vex_exit code);

/* Connects; starts a daemon if none runs and `spawn` and the options allow it. */
enum vex_status vex_context_open(struct vex_context *context, bool spawn, struct vex_error *error);
/* Connects and opens the collection. */
enum vex_status vex_context_open_collection(struct vex_context *context, const char *name,
                                            struct vex_collection **out_collection,
                                            struct vex_error *error);

/* All collections; *out_infos is to be freed. */
enum vex_status vex_context_list(struct vex_context *context,
                                 struct vex_collection_info **out_infos, size_t *out_count,
                                 struct vex_error *error);

/*
 * Says why there is no output: "vexctl: <message>" on standard error, or with -o json
 * {"error": <name of a status, or null>, "exit_code": ..., "message": ...}. Returns `code`.
 */
enum vex_exit vex_context_say(enum vex_exit code, const char *status_name, const char *message);
/* Says the error's message; returns the exit code of its status. */
enum vex_exit vex_context_fail(const struct vex_error *error);
/* As above for wrong usage, with a pointer to the verb's help. Returns VEX_EXIT_USAGE. */
enum vex_exit vex_context_usage(const struct vex_context *context, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Memory or the end of the program: a command line tool has nothing to tidy up that is worth a path
 * of its own. The readers, which run on foreign input, return VEX_ERR_NOMEM instead. `count` and
 * `bytes` may both be 0. */
_Noreturn void vex_context_end_without_memory(void);
void *vex_context_alloc(size_t count, size_t bytes);
void *vex_context_realloc(void *memory, size_t count, size_t bytes);

#endif
