/*
 * Showing a payload, which may be any bytes.
 *
 * JSON output has one key for it: "payload" holds the JSON value if the bytes are one, else the
 * text as a string, or null if there is no payload; bytes that are no UTF-8 stand as
 * "payload_base64" instead. Tables show text in one line; what could disturb a terminal is written
 * as \xNN or \u{N}.
 */
#ifndef VEX_VEXCTL_PAYLOAD_H
#define VEX_VEXCTL_PAYLOAD_H

#include <stddef.h>

#include "libclient/vexctl/json.h"

/* Key and value. payload == NULL = none. */
void vex_payload_json(struct vex_json *json, const void *payload, size_t bytes);
/* One line of text, "-" if there is none; stops after about columns_max columns. To be freed. */
char *vex_payload_line(const void *payload, size_t bytes, size_t columns_max);

#endif
