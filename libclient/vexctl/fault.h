/*
 * Filling a struct vex_error: libvex fills those of its own calls, vexctl those of its readers and
 * parsers. Returns the status, so that `return vex_fault(...)` reads as one thought.
 */
#ifndef VEX_VEXCTL_FAULT_H
#define VEX_VEXCTL_FAULT_H

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <vex/status.h>

__attribute__((format(printf, 3, 4))) static inline enum vex_status
vex_fault(struct vex_error *error, enum vex_status status, const char *format, ...)
{
    if (error) {
        error->status = status;
        error->os_errno = 0;
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(error->message, sizeof(error->message), format, arguments);
        va_end(arguments);
    }
    return status;
}

/* Puts "<name>: " in front of the message; a message that grows too long loses its end. */
static inline enum vex_status vex_fault_in(struct vex_error *error, const char *name)
{
    char message[sizeof(error->message)];
    memcpy(message, error->message, sizeof(message));
    size_t name_bytes = strlen(name);
    /* The end of a path tells more than its beginning. */
    const char *shown = name_bytes > 90 ? name + name_bytes - 90 : name;
    (void)snprintf(error->message, sizeof(error->message), "%s%.90s: %.150s",
                   shown == name ? "" : "...", shown, message);
    return error->status;
}

#endif
