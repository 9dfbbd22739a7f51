/*
 * Writing the codes of a segment whose rows are all there.
 *
 *     vex_code_build_begin(&build, writer, error);
 *     every row, by any thread: vex_code_build_row(&build, row, rotated);
 *     vex_code_build_end(&build);
 *
 * Centre, scale and the units of the factors come from a sample, so a row's code needs nothing of the
 * other rows. The head goes last: a segment has its codes whole or not at all.
 *
 * Thread-safety: vex_code_build_row for different rows by different threads; the rest by one thread,
 * while no row is under way.
 */
#ifndef VEX_INDEX_CODE_BUILD_H
#define VEX_INDEX_CODE_BUILD_H

#include "index/code_space.h"
#include "index/segment.h"

#define VEX_CODE_SAMPLE_ROWS 4096u

/* What the codes of a segment are made by. head.blur is known after begin. */
struct vex_code_build {
    struct vex_segment_writer *writer;
    const struct vex_segment *segment;
    struct vex_code_space space;
    float *centre; /* these five in the segment's sections */
    uint8_t *signs;
    uint8_t *codes;
    uint32_t *factors;
    uint16_t *angles;
    struct vex_codes_head head; /* written last */
};

/* Called every few milliseconds of work, by every thread: may sleep, or return false to give up.
 * NULL = full speed. */
struct vex_build_pace {
    bool (*pause)(void *context);
    void *context;
};

/* Row number `i` of the sample; the sample has vex_code_sample_count rows. */
uint32_t vex_code_sample_count(const struct vex_segment_writer *writer);
uint32_t vex_code_sample_row(const struct vex_segment_writer *writer, uint32_t i);

/* `writer` is borrowed, has rows and a shape with codes, and gets no more rows. Errors: NOMEM,
 * INVALID. */
enum vex_status vex_code_build_begin(struct vex_code_build *build,
                                     struct vex_segment_writer *writer, struct vex_error *error);
/*
 * Takes centre, scale and units from older codes, so that rows that had one of those keep it; and so that
 * one rotated query serves both sets. False, with nothing changed, if they fit these rows no longer.
 * After begin, before the first row.
 */
bool vex_code_build_keep(struct vex_code_build *build, const struct vex_codes *from);
/* After keep was true: the code that row `old` has in `from`. By any thread, instead of building it. */
void vex_code_build_copy(const struct vex_code_build *build, uint32_t row,
                         const struct vex_codes *from, uint32_t old);
/* Leaves the row as codes see it in `rotated` [padded, aligned to 64]. */
void vex_code_build_row(struct vex_code_build *build, uint32_t row, float *rotated);
/* Writes the head and attaches the codes to the writer's segment. */
void vex_code_build_end(struct vex_code_build *build);

/* All of it in this thread. Errors: as begin, and UNAVAILABLE (`pace` gave up: no codes). */
enum vex_status vex_code_build(struct vex_segment_writer *writer, const struct vex_build_pace *pace,
                               struct vex_error *error);

#endif
