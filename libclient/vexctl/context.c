/*
 * Collecting the output, connecting, failing: see the header. The collected text is a static of
 * this file because open_memstream() writes the addresses of its buffer whenever it is flushed, so
 * they must not move.
 */
#include "libclient/vexctl/context.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libclient/vexctl/fault.h"
#include "libclient/vexctl/json.h"

/* The text behind context->out. One context per process, as main.c makes it. */
static char *collected;
static size_t collected_bytes;
/* The one context, for those who fail far from it. */
static const struct vex_context *only;

void vex_context_end_without_memory(void)
{
    exit((int)vex_context_say(VEX_EXIT_FAILED, vex_status_name(VEX_ERR_NOMEM), "out of memory"));
}

void vex_context_init(struct vex_context *context)
{
    only = context;
    context->out = open_memstream(&collected, &collected_bytes);
    if (!context->out) {
        vex_context_end_without_memory();
    }
}

enum vex_exit vex_context_finish(struct vex_context *context, enum vex_exit code)
{
    vex_close(context->db);
    context->db = NULL;
    if (fclose(context->out) != 0) {
        vex_context_end_without_memory();
    }
    context->out = NULL;
    if (code == VEX_EXIT_OK &&
        (fwrite(collected, 1, collected_bytes, stdout) != collected_bytes || fflush(stdout) != 0)) {
        char message[128];
        (void)snprintf(message, sizeof(message), "standard output: %s", strerror(errno));
        code = vex_context_say(VEX_EXIT_FAILED, vex_status_name(VEX_ERR_IO), message);
    }
    free(collected);
    collected = NULL;
    return code;
}

/* OK if there is one. A daemon that were started in an empty or a wrong directory would make one. */
static enum vex_status find_instance(const struct vex_context *context, struct vex_error *error)
{
    char directory[PATH_MAX];
    char manifest[PATH_MAX + sizeof("/MANIFEST")];
    enum vex_status status =
        vex_find_directory(context->directory, directory, sizeof(directory), error);
    if (status != VEX_OK) {
        return status;
    }
    (void)snprintf(manifest, sizeof(manifest), "%s/MANIFEST", directory);
    if (access(manifest, F_OK) != 0 && errno == ENOENT) {
        return vex_fault(error, VEX_ERR_NOT_FOUND,
                         "no instance in %.150s; 'coll create' and 'import --create' make one",
                         directory);
    }
    return VEX_OK;
}

enum vex_status vex_context_open(struct vex_context *context, bool spawn, struct vex_error *error)
{
    if (spawn && !context->no_spawn && !context->creates) {
        enum vex_status status = find_instance(context, error);
        if (status != VEX_OK) {
            return status;
        }
    }
    struct vex_open_options options = VEX_OPEN_OPTIONS_INIT;
    options.no_spawn = context->no_spawn || !spawn;
    options.timeout_ms = context->timeout_ms;
    options.idle_timeout_ms = context->idle_timeout_ms;
    return vex_open(context->directory, &options, &context->db, error);
}

enum vex_status vex_context_open_collection(struct vex_context *context, const char *name,
                                            struct vex_collection **out_collection,
                                            struct vex_error *error)
{
    enum vex_status status = vex_context_open(context, true, error);
    if (status != VEX_OK) {
        return status;
    }
    return vex_collection_open(context->db, name, out_collection, error);
}

enum vex_status vex_context_list(struct vex_context *context,
                                 struct vex_collection_info **out_infos, size_t *out_count,
                                 struct vex_error *error)
{
    size_t capacity = VEX_COLLECTIONS_MAX;
    struct vex_collection_info *infos = vex_context_alloc(capacity, sizeof(*infos));
    memset(infos, 0, capacity * sizeof(*infos));
    for (size_t i = 0; i < capacity; i++) {
        infos[i].size = sizeof(infos[i]);
    }
    size_t count = 0;
    enum vex_status status = vex_collection_list(context->db, infos, capacity, &count, error);
    if (status != VEX_OK) {
        free(infos);
        return status;
    }
    *out_infos = infos;
    *out_count = count < capacity ? count : capacity;
    return VEX_OK;
}

enum vex_exit vex_context_say(enum vex_exit code, const char *status_name, const char *message)
{
    if (!only->json) {
        fprintf(stderr, "vexctl: %s\n", message);
        return code;
    }
    struct vex_json json = {.to = stderr};
    vex_json_open(&json, '{');
    vex_json_key(&json, "error");
    if (status_name) {
        vex_json_text(&json, status_name);
    } else {
        vex_json_null(&json);
    }
    vex_json_key(&json, "exit_code");
    vex_json_u64(&json, code);
    vex_json_key(&json, "message");
    vex_json_text(&json, message);
    vex_json_close(&json, '}');
    fputc('\n', stderr);
    return code;
}

enum vex_exit vex_context_fail(const struct vex_error *error)
{
    return vex_context_say(vex_exit_of(error->status), vex_status_name(error->status),
                           error->message[0] ? error->message : vex_status_text(error->status));
}

enum vex_exit vex_context_usage(const struct vex_context *context, const char *format, ...)
{
    char message[768];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(message, sizeof(message) - 64, format, arguments);
    va_end(arguments);
    size_t used = strlen(message);
    (void)snprintf(message + used, sizeof(message) - used, "; see 'vexctl help%s%s'",
                   context->verb ? " " : "", context->verb ? context->verb : "");
    return vex_context_say(VEX_EXIT_USAGE, vex_status_name(VEX_ERR_INVALID), message);
}

void *vex_context_realloc(void *memory, size_t count, size_t bytes)
{
    size_t total;
    if (__builtin_mul_overflow(count, bytes, &total)) {
        vex_context_end_without_memory();
    }
    void *moved = realloc(memory, total ? total : 1);
    if (!moved) {
        vex_context_end_without_memory();
    }
    return moved;
}

void *vex_context_alloc(size_t count, size_t bytes)
{
    return vex_context_realloc(NULL, count, bytes);
}
