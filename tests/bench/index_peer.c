/*
 * Finding the module of a library; the idea is in index_peer.h.
 *
 * Modules are beside the program. They stay loaded to the end: a library of threads and exceptions is
 * not made for being unloaded.
 */
#include "tests/bench/index_peer.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MODULE_SYMBOL "index_peer_library"

static bool find_directory(char *out, size_t bytes)
{
    ssize_t length = readlink("/proc/self/exe", out, bytes - 1);
    if (length <= 0) {
        return false;
    }
    out[length] = 0;
    char *slash = strrchr(out, '/');
    if (slash) {
        *slash = 0;
    }
    return slash != NULL;
}

static const struct index_peer_library *load(const char *directory, const char *name,
                                             const char *ending)
{
    char path[PATH_MAX + 64];
    (void)snprintf(path, sizeof(path), "%s/peer_%s%s.so", directory, name, ending);
    if (access(path, R_OK) != 0) {
        return NULL;
    }
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!module) {
        (void)fprintf(stderr, "%s\n", dlerror());
        return NULL;
    }
    return dlsym(module, MODULE_SYMBOL);
}

const struct index_peer_library *index_peer_load(const char *name, const char *isa)
{
    char directory[PATH_MAX];
    if (!find_directory(directory, sizeof(directory))) {
        return NULL;
    }
    /* AVX-512, with whatever more, is as wide as a compiler may go on the processors there are. */
    const struct index_peer_library *narrow =
        strncmp(isa, "avx512", strlen("avx512")) == 0 ? NULL : load(directory, name, "_avx2");
    return narrow ? narrow : load(directory, name, "");
}
