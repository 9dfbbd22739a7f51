/*
 * Naming a file that is not what it was said to be. Wrong guesses cost nothing but a misleading
 * word, so only clear marks count.
 */
#include <string.h>

#include "libclient/vexctl/reader_priv.h"

static const struct {
    const char *mark;
    size_t bytes;
    const char *name;
} marks[] = {
    {"\x93NUMPY", 6, "a numpy array (--format npy)"},
    {"PK\x03\x04", 4, "a zip or numpy .npz archive: unpack it first"},
    {"\x1f\x8b", 2, "a gzip archive: unpack it first"},
    {"\x28\xb5\x2f\xfd", 4, "a zstd archive: unpack it first"},
    {"\xfd\x37zXZ", 5, "an xz archive: unpack it first"},
    {"BZh", 3, "a bzip2 archive: unpack it first"},
    {"\x89HDF\r\n", 6, "an HDF5 file: save its array as .npy"},
    {"PAR1", 4, "a Parquet file: save its column as .npy"},
    {"ARROW1", 6, "an Arrow file: save its column as .npy"},
    {"SQLite format 3", 15, "an SQLite database"},
    {"\x7f"
     "ELF",
     4, "a program"},
    {"%PDF", 4, "a PDF document"},
    {"\x89PNG", 4, "a PNG image"},
    {"\x80\x04\x95", 3, "a Python pickle: save the array with numpy.save"},
    {"IxF", 3, "a faiss index: its vectors must be exported first"},
    {"IxM", 3, "a faiss index: its vectors must be exported first"},
};

static bool looks_like_text(const uint8_t *data, size_t bytes)
{
    size_t looked_at = bytes < 512 ? bytes : 512;
    for (size_t i = 0; i < looked_at; i++) {
        if (data[i] < 0x20 && !memchr("\t\r\n", data[i], 3)) {
            return false;
        }
    }
    return true;
}

/* fbin and u8bin: uint32 rows, uint32 dim, then the numbers. */
static bool looks_like_bin(const uint8_t *data, size_t bytes, size_t element_bytes)
{
    uint32_t shape[2];
    if (bytes < sizeof(shape)) {
        return false;
    }
    memcpy(shape, data, sizeof(shape));
    uint64_t numbers = (uint64_t)shape[0] * shape[1];
    return shape[1] > 0 && shape[1] <= VEX_DIM_MAX && numbers < SIZE_MAX / 8 &&
           bytes - sizeof(shape) == numbers * element_bytes;
}

const char *vex_reader_sniff(const void *data, size_t bytes)
{
    const uint8_t *from = data;
    for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
        if (bytes >= marks[i].bytes && memcmp(from, marks[i].mark, marks[i].bytes) == 0) {
            return marks[i].name;
        }
    }
    if (looks_like_text(from, bytes)) {
        size_t at = 0;
        while (at < bytes && memchr(" \t\r\n", from[at], 4)) {
            at++;
        }
        if (at < bytes && from[at] == '{') {
            return "JSON text (--format jsonl, if there is one object a line)";
        }
        return at < bytes && from[at] == '['
                   ? "a JSON array: write one object a line, {\"vector\": [...]}"
                   : "plain text";
    }
    if (bytes > 0 && vex_reader_looks_like_vecs(from, bytes, 4)) {
        return "fvecs or ivecs (--format fvecs)";
    }
    if (bytes > 0 && vex_reader_looks_like_vecs(from, bytes, 1)) {
        return "bvecs (--format bvecs)";
    }
    if (looks_like_bin(from, bytes, 4) || looks_like_bin(from, bytes, 1)) {
        return "a .fbin or .u8bin file (rows and dim in front)";
    }
    return NULL;
}
