/*
 * Writing one JSON document, value after value, with the commas put where they belong.
 *
 * Why not trees of jansson: its integers are signed, and an id may be any 64-bit number; a payload
 * that is JSON is passed on as its own bytes, so that no number in it loses a digit; and a search
 * may have millions of hits.
 */
#ifndef VEX_VEXCTL_JSON_H
#define VEX_VEXCTL_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct vex_json {
    FILE *to;
    bool comma; /* the next value needs one in front */
};

/* `bracket` is '{' or '[', and '}' or ']'. */
void vex_json_open(struct vex_json *json, char bracket);
void vex_json_close(struct vex_json *json, char bracket);
void vex_json_key(struct vex_json *json, const char *key);

void vex_json_u64(struct vex_json *json, uint64_t value);
void vex_json_bool(struct vex_json *json, bool value);
void vex_json_null(struct vex_json *json);
/* As many digits as it takes to get the same float back; null if it is not finite. */
void vex_json_float(struct vex_json *json, float value);
/* Seconds and rates: three decimals. */
void vex_json_decimal(struct vex_json *json, double value);
/* Bytes that are no UTF-8 become U+FFFD. */
void vex_json_string(struct vex_json *json, const char *text, size_t bytes);
void vex_json_text(struct vex_json *json, const char *text);
/* Bytes that are a JSON value already. */
void vex_json_raw(struct vex_json *json, const void *value, size_t bytes);

#endif
