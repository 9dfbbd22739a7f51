/*
 * Making and wrapping error messages. The message is made where the error is born and gets context
 * in front on the way up: "open snapshot: control page: layout 2, this library reads 1". All
 * functions return the status, so that `return vex_error_set(...)` reads as one thought, and accept
 * error == NULL. struct vex_error itself is public, see <vex/status.h>.
 */
#ifndef VEX_BASE_ERROR_H
#define VEX_BASE_ERROR_H

#include <vex/status.h>

#define VEX_PRINTF(format_index, first) __attribute__((format(printf, format_index, first)))

enum vex_status vex_error_set(struct vex_error *error, enum vex_status status, const char *format,
                              ...) VEX_PRINTF(3, 4);
/* As vex_error_set, and appends ": <text of os_errno>". */
enum vex_status vex_error_os(struct vex_error *error, enum vex_status status, int os_errno,
                             const char *format, ...) VEX_PRINTF(4, 5);
/* Puts context in front of the message that is there; keeps and returns its status. */
enum vex_status vex_error_wrap(struct vex_error *error, enum vex_status status, const char *format,
                               ...) VEX_PRINTF(3, 4);
/* Status for an errno: ENOSPC -> NO_SPACE, ENOMEM -> NOMEM, EACCES/EPERM -> PERMISSION, else IO. */
enum vex_status vex_status_from_errno(int os_errno);

const char *vex_base_status_text(enum vex_status status);
const char *vex_base_status_name(enum vex_status status);

#endif
