/*
 * What the offline tasks print: a list of findings and a summary, as lines for people or as one JSON
 * document. It is written as it comes about, because a log has any number of records and a check takes its
 * time.
 *
 * Thread-safety: none.
 */
#ifndef VEX_DAEMON_REPORT_H
#define VEX_DAEMON_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct vex_report {
    FILE *to;
    bool json;
    bool comma; /* the next member or item needs one in front */
    bool in_list;
};

/* A member of an object: exactly one of the three counts. */
struct vex_field {
    const char *key;
    const char *text; /* not NULL: a string */
    uint64_t number;  /* else a number, or with `boolean` true or false */
    bool boolean;
};

#define VEX_TEXT(name, value)                                                                      \
    {                                                                                              \
        .key = (name), .text = (value)                                                             \
    }
#define VEX_NUMBER(name, value)                                                                    \
    {                                                                                              \
        .key = (name), .number = (value)                                                           \
    }
#define VEX_BOOL(name, value)                                                                      \
    {                                                                                              \
        .key = (name), .number = (value), .boolean = true                                          \
    }

/* The document begins: in JSON an object whose member `list` is the list of items; NULL: it has none. */
void vex_report_begin(struct vex_report *report, const char *list);
/* An item: in JSON an object with these members, else the line. Control characters and bytes that are no
 * UTF-8 are shown as '?', since names and messages may come from files. */
void vex_report_item(struct vex_report *report, const struct vex_field *fields, size_t count,
                     const char *line, ...) __attribute__((format(printf, 4, 5)));
/* The last line, or the other members of the document; ends it. False if it could not all be written. */
bool vex_report_end(struct vex_report *report, const struct vex_field *fields, size_t count,
                    const char *line, ...) __attribute__((format(printf, 4, 5)));

#endif
