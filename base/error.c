#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

VEX_PRINTF(4, 0)
static void fill(struct vex_error *error, enum vex_status status, int os_errno, const char *format,
                 va_list arguments)
{
    error->status = status;
    error->os_errno = os_errno;
    (void)vsnprintf(error->message, sizeof(error->message), format, arguments);
}

enum vex_status vex_error_set(struct vex_error *error, enum vex_status status, const char *format,
                              ...)
{
    if (!error) {
        return status;
    }
    va_list arguments;
    va_start(arguments, format);
    fill(error, status, 0, format, arguments);
    va_end(arguments);
    return status;
}

enum vex_status vex_error_os(struct vex_error *error, enum vex_status status, int os_errno,
                             const char *format, ...)
{
    if (!error) {
        return status;
    }
    va_list arguments;
    va_start(arguments, format);
    fill(error, status, os_errno, format, arguments);
    va_end(arguments);
    size_t used = strlen(error->message);
    (void)snprintf(error->message + used, sizeof(error->message) - used, ": %s",
                   strerrordesc_np(os_errno) ? strerrordesc_np(os_errno) : "unknown error");
    return status;
}

enum vex_status vex_error_wrap(struct vex_error *error, enum vex_status status, const char *format,
                               ...)
{
    if (!error) {
        return status;
    }
    char inner[sizeof(error->message)];
    memcpy(inner, error->message, sizeof(inner));
    int os_errno = error->os_errno;
    va_list arguments;
    va_start(arguments, format);
    fill(error, status, os_errno, format, arguments);
    va_end(arguments);
    size_t used = strlen(error->message);
    (void)snprintf(error->message + used, sizeof(error->message) - used, ": %s", inner);
    return status;
}

enum vex_status vex_status_from_errno(int os_errno)
{
    switch (os_errno) {
    case ENOSPC:
    case EDQUOT:
        return VEX_ERR_NO_SPACE;
    case ENOMEM:
        return VEX_ERR_NOMEM;
    case EACCES:
    case EPERM:
        return VEX_ERR_PERMISSION;
    default:
        return VEX_ERR_IO;
    }
}

const char *vex_base_status_text(enum vex_status status)
{
    switch (status) {
#define STATUS_TEXT(name, number, text)                                                            \
    case VEX_##name:                                                                               \
        return text;
        VEX_STATUS_TABLE(STATUS_TEXT)
#undef STATUS_TEXT
    default:
        return "unknown status";
    }
}

const char *vex_base_status_name(enum vex_status status)
{
    switch (status) {
#define STATUS_NAME(name, number, text)                                                            \
    case VEX_##name:                                                                               \
        return "VEX_" #name;
        VEX_STATUS_TABLE(STATUS_NAME)
#undef STATUS_NAME
    default:
        return "VEX_ERR_UNKNOWN";
    }
}
