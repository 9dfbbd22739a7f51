/*
 * The verbs of vexctl: one constant each, in the file of its family, and the list of them all.
 */
#ifndef VEX_VEXCTL_VERBS_H
#define VEX_VEXCTL_VERBS_H

#include <stdbool.h>
#include <stddef.h>

#include "libclient/vexctl/context.h"
#include "libclient/vexctl/options.h"

struct vex_arguments {
    char **words; /* what stands behind the verb, options taken out */
    size_t words_count;
    const char *const *values; /* by position in the verb's option table; NULL = not given */
};

struct vex_verb {
    const char *name;     /* one word, or two: "coll create" */
    const char *synopsis; /* what follows the name */
    const char *summary;  /* one line */
    const char *text;     /* paragraphs, then an example; ends with '\n' */
    const struct vex_option *options;
    size_t options_count;
    size_t words_min;
    size_t words_max; /* SIZE_MAX = any number */
    enum vex_exit (*run)(struct vex_context *context, const struct vex_arguments *arguments);
};

extern const struct vex_verb vex_verb_status;
extern const struct vex_verb vex_verb_coll_create;
extern const struct vex_verb vex_verb_coll_list;
extern const struct vex_verb vex_verb_coll_show;
extern const struct vex_verb vex_verb_coll_alter;
extern const struct vex_verb vex_verb_coll_drop;
extern const struct vex_verb vex_verb_put;
extern const struct vex_verb vex_verb_get;
extern const struct vex_verb vex_verb_delete;
extern const struct vex_verb vex_verb_count;
extern const struct vex_verb vex_verb_search;
extern const struct vex_verb vex_verb_recall;
extern const struct vex_verb vex_verb_import;
extern const struct vex_verb vex_verb_index_status;
extern const struct vex_verb vex_verb_checkpoint;
extern const struct vex_verb vex_verb_compact_run;
extern const struct vex_verb vex_verb_compact_status;
extern const struct vex_verb vex_verb_backup_create;
extern const struct vex_verb vex_verb_backup_list;
extern const struct vex_verb vex_verb_backup_verify;
extern const struct vex_verb vex_verb_backup_restore;
extern const struct vex_verb vex_verb_fsck;
extern const struct vex_verb vex_verb_log_dump;
extern const struct vex_verb vex_verb_log_repair;
extern const struct vex_verb vex_verb_stop;
extern const struct vex_verb vex_verb_help;
extern const struct vex_verb vex_verb_version;

/* All of them, in the order of the help; NULL ends the list. */
extern const struct vex_verb *const vex_verbs[];
/* The options that every verb takes. */
enum {
    VEX_GLOBAL_DIRECTORY,
    VEX_GLOBAL_OUTPUT,
    VEX_GLOBAL_TIMEOUT,
    VEX_GLOBAL_IDLE,
    VEX_GLOBAL_NO_SPAWN,
    VEX_GLOBAL_HELP,
    VEX_GLOBAL_VERSION,
    VEX_GLOBALS_COUNT
};
extern const struct vex_option vex_globals[VEX_GLOBALS_COUNT];

/* The verb that `words` begin with, or NULL. *out_used is the number of words of its name. */
const struct vex_verb *vex_verb_find(char *const *words, size_t words_count, size_t *out_used);
/*
 * True if `word` begins verbs of two words ("coll"); out_text, which has 128 bytes, then lists the second
 * ones: "create, list, show, alter or drop".
 */
bool vex_verb_is_group(const char *word, char *out_text);
/* Help on one verb; NULL = the overview. */
void vex_verb_print_help(FILE *to, const struct vex_verb *verb);

#endif
