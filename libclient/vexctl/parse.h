/*
 * Values from the command line: numbers, seconds, vectors, and "@file". Strict: no sign, no blanks,
 * no rest behind a number; the message names the option and what it takes.
 */
#ifndef VEX_VEXCTL_PARSE_H
#define VEX_VEXCTL_PARSE_H

#include <stddef.h>
#include <stdint.h>

#include <vex/status.h>

/* A decimal number within least..most. Error: INVALID. */
enum vex_status vex_parse_number(const char *what, const char *text, uint64_t least, uint64_t most,
                                 uint64_t *out, struct vex_error *error);
/* As above; text == NULL leaves *out as it is. */
enum vex_status vex_parse_option(const char *what, const char *text, uint64_t least, uint64_t most,
                                 uint64_t *out, struct vex_error *error);
/* "2" or "0.25" to milliseconds, at least 1 and at most about 49 days; NULL leaves *out_ms alone.
 */
enum vex_status vex_parse_seconds(const char *what, const char *text, uint32_t *out_ms,
                                  struct vex_error *error);
/* "0.95": a decimal fraction above 0 and below 1, of at most six digits; NULL leaves *out alone. Error:
 * INVALID. */
enum vex_status vex_parse_fraction(const char *what, const char *text, float *out,
                                   struct vex_error *error);
/* The position of `text` in the NULL-ended `words`. Error: INVALID. */
enum vex_status vex_parse_choice(const char *what, const char *text, const char *const *words,
                                 size_t *out, struct vex_error *error);
/*
 * A vector as a JSON array of numbers: the text itself, "@FILE", or "-" or "@-" for standard input.
 * *out_vector is to be freed. Errors: INVALID, FORMAT, LIMIT, IO, PERMISSION.
 */
enum vex_status vex_parse_vector(const char *what, const char *text, float **out_vector,
                                 size_t *out_dim, struct vex_error *error);
/* A payload: the text itself, "@FILE" or "@-". *out_data is to be freed. Errors as above. */
enum vex_status vex_parse_payload(const char *what, const char *text, void **out_data,
                                  size_t *out_bytes, struct vex_error *error);

#endif
