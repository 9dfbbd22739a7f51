/*
 * The worker: one thread that does the long work (checkpoints, merges, backups), one job at a time, so that
 * the main thread never waits for more than a commit.
 *
 * It keeps out of the way: a lower scheduling priority, and while commits are under way it sleeps as long as
 * it works. Jobs hand everything over in a struct that belongs to the worker from vex_worker_run until
 * vex_worker_finished.
 *
 * Thread-safety: all functions belong to the main thread.
 */
#ifndef VEX_DAEMON_WORKER_H
#define VEX_DAEMON_WORKER_H

#include <stdbool.h>

#include <vex/status.h>

#include "ioengine/segment_file.h"

struct vex_worker;

typedef void (*vex_work)(void *job, const struct vex_pace *pace);

/* `nice`: 0 to 19, how far its thread stands back. Errors: NOMEM, IO. */
enum vex_status vex_worker_start(int nice, struct vex_worker **out_worker, struct vex_error *error);
/* Tells a running job to give up, waits for it, and frees. NULL is allowed. */
void vex_worker_stop(struct vex_worker *worker);

/* Readable when a job has ended. */
int vex_worker_event_fd(const struct vex_worker *worker);
bool vex_worker_is_running(const struct vex_worker *worker);
/* Nothing is running. */
void vex_worker_run(struct vex_worker *worker, vex_work work, void *job);
/* True once after each job. */
bool vex_worker_finished(struct vex_worker *worker);
/* Whether commits are under way: then the worker leaves half of the time to them. */
void vex_worker_set_polite(struct vex_worker *worker, bool polite);

#endif
