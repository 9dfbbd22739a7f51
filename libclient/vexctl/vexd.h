/*
 * Work on an instance that no daemon runs on, which vexd does in place of serving: only the daemon knows the
 * files. Its output goes where vexctl's would; its exit code becomes one of vexctl's. What it says on
 * standard error is passed on, with -o json as the objects that vexctl's own errors are.
 */
#ifndef VEX_VEXCTL_VEXD_H
#define VEX_VEXCTL_VEXD_H

#include "libclient/vexctl/context.h"

#define VEX_VEXD_WORDS_MAX 8u

/*
 * Runs "vexd --dir DIRECTORY words..." (at most VEX_VEXD_WORDS_MAX, NULL-ended), with --json if the output
 * is to be JSON, and waits for its end. `directory` NULL: the instance of the global options.
 */
enum vex_exit vex_vexd_run(const struct vex_context *context, const char *directory,
                           const char *const *words);

#endif
