/*
 * Reading .fvecs, .bvecs and .ivecs; the form is in vectors.h.
 *
 * The first row says how long all rows are, and the file's size then says how many there are, so
 * memory is asked for once and a file of another kind is found out before anything is read.
 */
#include "tests/bench/vectors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <vex/types.h>

#include "tests/bench/common.h"

enum kind { KIND_FLOATS, KIND_BYTES, KIND_INTEGERS };

struct source {
    const char *option;
    const char *path;
    FILE *file;
    enum kind kind;
    size_t value_bytes;
};

static bool has_ending(const char *path, const char *ending)
{
    size_t length = strlen(path);
    size_t ending_length = strlen(ending);
    return length > ending_length && strcmp(path + length - ending_length, ending) == 0;
}

static bool find_kind(struct source *source, bool integers)
{
    static const struct {
        const char *ending;
        enum kind kind;
        size_t value_bytes;
    } kinds[] = {
        {".fvecs", KIND_FLOATS, sizeof(float)},
        {".bvecs", KIND_BYTES, 1},
        {".ivecs", KIND_INTEGERS, sizeof(int32_t)},
    };
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
        if (has_ending(source->path, kinds[i].ending) &&
            integers == (kinds[i].kind == KIND_INTEGERS)) {
            source->kind = kinds[i].kind;
            source->value_bytes = kinds[i].value_bytes;
            return true;
        }
    }
    return vex_bench_fail("--%s: %s: the name must end in %s", source->option, source->path,
                          integers ? ".ivecs" : ".fvecs or .bvecs");
}

/* Learns dimension and number of rows; the file is at its beginning again. */
static bool measure(const struct source *source, struct vex_vectors *out)
{
    struct stat info;
    int32_t dim = 0;
    if (fstat(fileno(source->file), &info) != 0 || !S_ISREG(info.st_mode) ||
        fread(&dim, sizeof(dim), 1, source->file) != 1) {
        return vex_bench_fail("--%s: %s: is no file with a row in it", source->option,
                              source->path);
    }
    rewind(source->file);
    if (dim < 1 || dim > (int32_t)VEX_DIM_MAX) {
        return vex_bench_fail("--%s: %s: the first row says it has %d values; 1 to %u are possible",
                              source->option, source->path, dim, VEX_DIM_MAX);
    }
    size_t row_bytes = sizeof(dim) + (size_t)dim * source->value_bytes;
    if ((size_t)info.st_size % row_bytes != 0) {
        return vex_bench_fail("--%s: %s: its %lld bytes are no whole number of rows of %d values",
                              source->option, source->path, (long long)info.st_size, dim);
    }
    out->dim = (uint32_t)dim;
    out->rows = (size_t)info.st_size / row_bytes;
    return true;
}

static void take_row(const struct source *source, const uint8_t *row, struct vex_vectors *out,
                     size_t at)
{
    switch (source->kind) {
    case KIND_FLOATS:
        memcpy(out->values + at * out->dim, row, out->dim * sizeof(float));
        break;
    case KIND_INTEGERS:
        memcpy(out->integers + at * out->dim, row, out->dim * sizeof(int32_t));
        break;
    case KIND_BYTES:
        for (uint32_t i = 0; i < out->dim; i++) {
            out->values[at * out->dim + i] = row[i];
        }
        break;
    }
}

static bool read_rows(const struct source *source, struct vex_vectors *out)
{
    size_t values_bytes = out->dim * source->value_bytes;
    uint8_t *row = vex_bench_alloc(values_bytes, 1);
    bool sound = true;
    for (size_t i = 0; i < out->rows && sound; i++) {
        int32_t dim = 0;
        if (fread(&dim, sizeof(dim), 1, source->file) != 1 ||
            fread(row, 1, values_bytes, source->file) != values_bytes) {
            sound = vex_bench_fail("--%s: %s: row %zu: cannot be read", source->option,
                                   source->path, i);
        } else if (dim != (int32_t)out->dim) {
            sound = vex_bench_fail("--%s: %s: row %zu says it has %d values; the first has %u",
                                   source->option, source->path, i, dim, out->dim);
        } else {
            take_row(source, row, out, i);
        }
    }
    free(row);
    return sound;
}

bool vex_vectors_read(struct vex_vectors *vectors, const char *option, const char *path,
                      bool integers, size_t rows_max)
{
    *vectors = (struct vex_vectors){0};
    struct source source = {.option = option, .path = path};
    if (!find_kind(&source, integers)) {
        return false;
    }
    source.file = fopen(path, "rbe");
    if (!source.file) {
        return vex_bench_fail("--%s: %s: %s", option, path, strerror(errno));
    }
    bool sound = measure(&source, vectors);
    if (sound) {
        vectors->rows = vectors->rows < rows_max ? vectors->rows : rows_max;
        size_t count = vectors->rows * vectors->dim;
        if (integers) {
            vectors->integers = vex_bench_alloc(count, sizeof(*vectors->integers));
        } else {
            vectors->values = vex_bench_alloc(count, sizeof(*vectors->values));
        }
        sound = read_rows(&source, vectors);
    }
    (void)fclose(source.file);
    if (!sound) {
        vex_vectors_free(vectors);
    }
    return sound;
}

void vex_vectors_free(struct vex_vectors *vectors)
{
    free(vectors->values);
    free(vectors->integers);
    *vectors = (struct vex_vectors){0};
}
