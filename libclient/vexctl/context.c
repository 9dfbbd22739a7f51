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

/* The text behind context->out. One context per process, as main.c makes it. */
static char *collected;
static size_t collected_bytes;

void vex_context_end_without_memory(void)
{
    fputs("vexctl: out of memory\n", stderr);
    exit(VEX_EXIT_FAILED);
}

void vex_context_init(struct vex_context *context)
{
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
        fprintf(stderr, "vexctl: standard output: %s\n", strerror(errno));
        code = VEX_EXIT_FAILED;
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

enum vex_exit vex_context_fail(const struct vex_error *error)
{
    fprintf(stderr, "vexctl: %s\n",
            error->message[0] ? error->message : vex_status_text(error->status));
    return vex_exit_of(error->status);
}

enum vex_exit vex_context_usage(const struct vex_context *context, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("vexctl: ", stderr);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "; see 'vexctl help%s%s'\n", context->verb ? " " : "",
            context->verb ? context->verb : "");
    return VEX_EXIT_USAGE;
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
