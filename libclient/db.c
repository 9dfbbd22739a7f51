#include "libclient/client.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "libclient/spawn.h"
#include "shm/wire.h"

#define OPEN_TIMEOUT_MS 30000u
#define IDLE_TIMEOUT_MS 10000u
#define READER_ATTACH_TIMEOUT_MS 1000u /* a read does not wait longer for a daemon that hangs */
#define HANG_PAUSE_NS UINT64_C(10000000000)
#define CONNECT_PAUSE_NS 5000000
#define WAIT_SLICE_NS 100000000u

/* ---- attaching ------------------------------------------------------------------------------- */

enum vex_status vex_db_check(const struct vex_db *db, struct vex_error *error)
{
    if (!db) {
        return vex_error_set(error, VEX_ERR_INVALID, "the handle is NULL");
    }
    if (db->fork_count != vex_fork_count()) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "this handle was opened before fork(): open the instance again in "
                             "the child");
    }
    return VEX_OK;
}

static struct attachment *current_of(struct vex_db *db)
{
    /* pairs: ATTACHMENT with replace_attachment. seq_cst: see attachment.h, "Letting go". */
    return atomic_load_explicit(&db->current, memory_order_seq_cst);
}

/* With the lock held. */
static void hibernate_idle(struct vex_db *db)
{
    for (struct attachment *idle = db->old; idle; idle = idle->next) {
        if (idle->connection && idle->calls == 0) {
            (void)vex_attachment_hibernate(idle);
        }
    }
}

/* With the lock held. */
static void replace_attachment(struct vex_db *db, struct attachment *attachment)
{
    struct attachment *old = current_of(db);
    /* pairs: ATTACHMENT with current_of. seq_cst: before the look at the slots. */
    atomic_store_explicit(&db->current, attachment, memory_order_seq_cst);
    if (old) {
        old->next = db->old;
        db->old = old;
    }
    hibernate_idle(db);
}

static enum vex_status attach_locked(struct vex_db *db, uint32_t timeout_ms,
                                     struct vex_error *error)
{
    struct attachment *attachment = NULL;
    enum vex_status status = vex_attachment_open(db->directory, timeout_ms, &attachment, error);
    const struct attachment *before = current_of(db);
    if (status == VEX_OK && before &&
        memcmp(before->uuid, attachment->uuid, sizeof(before->uuid)) != 0) {
        /* Its collections have the numbers of ours, so handles would lead to strangers. */
        vex_attachment_close(attachment);
        return vex_error_set(error, VEX_ERR_UNAVAILABLE,
                             "%s holds another instance than when it was opened: open it again",
                             db->directory);
    }
    if (status == VEX_OK) {
        replace_attachment(db, attachment);
    }
    return status;
}

static void make_parents(const char *directory)
{
    char path[PATH_MAX];
    size_t length = strlen(directory);
    if (length == 0 || length >= sizeof(path)) {
        return;
    }
    memcpy(path, directory, length + 1);
    for (char *at = path + 1; *at; at++) {
        if (*at == '/') {
            *at = 0;
            (void)mkdir(path, 0755);
            *at = '/';
        }
    }
    /* For the daemon's diagnostics, before it runs; it reports what is wrong with the directory. */
    (void)mkdir(path, 0750);
}

/* A daemon that is starting or ending shows as a refused or broken connection for a moment. */
static bool may_pass(enum vex_status status)
{
    return status == VEX_ERR_UNAVAILABLE || status == VEX_ERR_BUSY;
}

uint64_t vex_db_deadline_ns(const struct vex_db *db)
{
    return vex_clock_ns() + db->options.timeout_ms * UINT64_C(1000000);
}

static enum vex_status attach_or_spawn_locked(struct vex_db *db, struct vex_error *error)
{
    uint64_t deadline_ns = vex_db_deadline_ns(db);
    for (;;) {
        uint64_t now_ns = vex_clock_ns();
        uint32_t left_ms =
            now_ns < deadline_ns ? (uint32_t)((deadline_ns - now_ns) / 1000000u) + 1 : 1;
        enum vex_status status = attach_locked(db, left_ms, error);
        if (!may_pass(status) || db->options.no_spawn) {
            return status;
        }
        make_parents(db->directory);
        status = vex_spawn_daemon(db->directory, db->vexd_path, db->options.idle_timeout_ms,
                                  deadline_ns, error);
        if (status != VEX_OK && status != VEX_ERR_BUSY) {
            return status;
        }
        status = attach_locked(db, left_ms, error);
        if (!may_pass(status) || vex_clock_ns() >= deadline_ns) {
            return status;
        }
        (void)nanosleep(&(struct timespec){0, CONNECT_PAUSE_NS}, NULL);
    }
}

enum vex_status vex_db_ensure(struct vex_db *db, struct attachment **out_attachment,
                              struct vex_error *error)
{
    (void)pthread_mutex_lock(&db->lock);
    struct attachment *attachment = current_of(db);
    enum vex_status status = VEX_OK;
    /* Asked before the frame is sent: afterwards its outcome would be unknown. */
    if (!attachment || vex_attachment_is_stale(attachment) ||
        vex_connection_has_ended(attachment->connection)) {
        struct vex_error failure; /* of an attempt, which is not yet one of the call */
        status = attach_or_spawn_locked(db, &failure);
        if (status != VEX_OK && error) {
            *error = failure;
        }
    }
    *out_attachment = NULL;
    if (status == VEX_OK) {
        *out_attachment = current_of(db);
        (*out_attachment)->calls++;
    }
    (void)pthread_mutex_unlock(&db->lock);
    return status;
}

void vex_db_done(struct vex_db *db, struct attachment *attachment)
{
    (void)pthread_mutex_lock(&db->lock);
    attachment->calls--;
    (void)pthread_mutex_unlock(&db->lock);
}

/* The successor did not answer a moment ago. */
static bool hangs(struct vex_db *db)
{
    /* relaxed: only paces. */
    uint64_t until_ns = atomic_load_explicit(&db->hangs_until_ns, memory_order_relaxed);
    return until_ns != 0 && vex_clock_ns() < until_ns;
}

void vex_db_try_attach(struct vex_db *db)
{
    /* Without the lock: with a stopped daemon every read comes here. The key never changes. The name
     * appears when the successor is ready, before it acknowledges anything; from then on a read has to
     * wait for whoever attaches, or it would miss what has been acknowledged before it began. */
    if (!vex_attachment_has_successor(current_of(db)) || hangs(db)) {
        return;
    }
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += READER_ATTACH_TIMEOUT_MS / 1000;
    if (pthread_mutex_timedlock(&db->lock, &until) != 0) {
        return;
    }
    struct attachment *attachment = current_of(db);
    /* Another thread may have done it. */
    if (vex_attachment_is_over(attachment) && !hangs(db) &&
        attach_locked(db, READER_ATTACH_TIMEOUT_MS, NULL) == VEX_ERR_TIMEOUT) {
        /* relaxed: only paces. */
        atomic_store_explicit(&db->hangs_until_ns, vex_clock_ns() + HANG_PAUSE_NS,
                              memory_order_relaxed);
    }
    (void)pthread_mutex_unlock(&db->lock);
}

/* ---- pinning --------------------------------------------------------------------------------- */

/* A reader looks at a handle's cache whatever attachment it has pinned, so all of them count. */
bool vex_db_passed(struct vex_db *db, uint64_t epoch)
{
    if (pthread_mutex_trylock(&db->lock) != 0) {
        return false;
    }
    hibernate_idle(db);
    bool passed = vex_attachment_passed(current_of(db), epoch);
    for (struct attachment *old = db->old; passed && old; old = old->next) {
        passed = vex_attachment_passed(old, epoch);
    }
    (void)pthread_mutex_unlock(&db->lock);
    return passed;
}

bool vex_db_has_replaced(struct vex_db *db, const struct attachment *attachment)
{
    return current_of(db) != attachment;
}

bool vex_db_unpin(struct reader_slot *slot)
{
    return vex_unpin(slot->page, slot->slot);
}

enum vex_status vex_db_pin(struct vex_db *db, bool own, struct attachment **out_attachment,
                           struct reader_slot **out_slot, struct vex_error *error)
{
    for (;;) {
        struct attachment *attachment = current_of(db);
        enum vex_status status = VEX_OK;
        struct reader_slot *slot = own ? vex_attachment_thread_slot(attachment, &status, error)
                                       : vex_attachment_take_slot(attachment, &status, error);
        if (!slot) {
            if (status == VEX_ERR_UNAVAILABLE) {
                vex_db_try_attach(db);
            }
            if (current_of(db) == attachment) {
                return status;
            }
            continue;
        }
        /* pairs: EPOCH with replace_cache: who sees an epoch sees the cache that began it. */
        uint64_t epoch = atomic_load_explicit(&db->epoch, memory_order_seq_cst);
        /* pairs: SLOT_EPOCH with vex_attachment_passed: this slot's earlier reads are over. */
        atomic_store_explicit(&slot->epoch, epoch, memory_order_release);
        vex_pin_enter(slot->slot, slot->last_generation);
        /* After the slot, not before: see attachment.h, "Letting go". */
        if (current_of(db) == attachment) {
            slot->last_generation =
                vex_pin_refresh(attachment->control.memory, slot->slot, slot->last_generation);
            *out_attachment = attachment;
            *out_slot = slot;
            return VEX_OK;
        }
        (void)vex_db_unpin(slot);
        if (!own) {
            vex_attachment_give_slot(slot);
        }
    }
}

/* ---- public ---------------------------------------------------------------------------------- */

static char *default_directory(void)
{
    const char *given = getenv("VEXDB_DIR");
    if (given && *given) {
        return strdup(given);
    }
    const char *home = getenv("HOME");
    char *path = NULL;
    return home && *home && asprintf(&path, "%s/.local/share/vexdb", home) > 0 ? path : NULL;
}

static enum vex_status set_options(struct vex_db *db, const struct vex_open_options *options,
                                   struct vex_error *error)
{
    if (options) {
        if (options->size != sizeof(*options)) {
            return vex_error_set(error, VEX_ERR_INVALID, "open options: size is %zu, expected %zu",
                                 options->size, sizeof(*options));
        }
        db->options = *options;
    }
    db->options.timeout_ms = db->options.timeout_ms ? db->options.timeout_ms : OPEN_TIMEOUT_MS;
    db->options.idle_timeout_ms =
        db->options.idle_timeout_ms ? db->options.idle_timeout_ms : IDLE_TIMEOUT_MS;
    if (db->options.vexd_path && !(db->vexd_path = strdup(db->options.vexd_path))) {
        return vex_error_set(error, VEX_ERR_NOMEM, "out of memory");
    }
    return VEX_OK;
}

enum vex_status vex_db_absolute(const char *path, char **out_path, struct vex_error *error)
{
    char *here = NULL;
    if (path[0] != '/' && !(here = getcwd(NULL, 0))) {
        return vex_error_os(error, VEX_ERR_INVALID, errno, "working directory");
    }
    int length = asprintf(out_path, "%s%s%s", here ? here : "", here ? "/" : "", path);
    free(here);
    if (length < 0) {
        *out_path = NULL;
        return vex_error_set(error, VEX_ERR_NOMEM, "out of memory");
    }
    return VEX_OK;
}

static enum vex_status find_directory(const char *dir, char **out_path, struct vex_error *error)
{
    if (dir && !*dir) {
        return vex_error_set(error, VEX_ERR_INVALID, "the directory's name is empty");
    }
    char *given = dir ? strdup(dir) : default_directory();
    if (!given) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "no directory: give one, or set VEXDB_DIR or HOME");
    }
    enum vex_status status = VEX_ERR_INVALID;
    if (strlen(given) > PATH_MAX - 64) {
        (void)vex_error_set(error, status, "the directory's name is too long");
    } else {
        /* The caller may change its working directory later. */
        status = vex_db_absolute(given, out_path, error);
    }
    free(given);
    return status;
}

enum vex_status vex_open(const char *dir, const struct vex_open_options *options,
                         struct vex_db **out_db, struct vex_error *error)
{
    if (!out_db) {
        return vex_error_set(error, VEX_ERR_INVALID, "out_db is NULL");
    }
    *out_db = NULL;
    struct vex_db *db = calloc(1, sizeof(*db));
    if (!db) {
        return vex_error_set(error, VEX_ERR_NOMEM, "out of memory");
    }
    (void)pthread_mutex_init(&db->lock, NULL);
    db->fork_count = vex_fork_count();
    struct attachment *attachment = NULL;
    enum vex_status status = set_options(db, options, error);
    status = status == VEX_OK ? find_directory(dir, &db->directory, error) : status;
    status = status == VEX_OK ? vex_db_ensure(db, &attachment, error) : status;
    if (status != VEX_OK) {
        vex_close(db);
        return status;
    }
    vex_db_done(db, attachment);
    *out_db = db;
    return VEX_OK;
}

void vex_close(struct vex_db *db)
{
    if (!db) {
        return;
    }
    struct attachment *attachment = current_of(db);
    if (db->fork_count != vex_fork_count()) {
        /* The mappings did not come along (MADV_DONTFORK) and the locks may be held: leave them. */
        if (attachment) {
            vex_attachment_abandon(attachment);
        }
        return;
    }
    vex_attachment_close(attachment);
    while (db->old) {
        struct attachment *next = db->old->next;
        vex_attachment_close(db->old);
        db->old = next;
    }
    (void)pthread_mutex_destroy(&db->lock);
    free(db->directory);
    free(db->vexd_path);
    free(db);
}

enum vex_status vex_shutdown(struct vex_db *db, struct vex_error *error)
{
    enum vex_status status = vex_db_check(db, error);
    if (status != VEX_OK) {
        return status;
    }
    (void)pthread_mutex_lock(&db->lock);
    if (vex_attachment_is_stale(current_of(db))) {
        /* Perhaps another daemon serves by now; none is started just to be stopped. */
        status = attach_locked(db, db->options.timeout_ms, error);
    }
    struct attachment *attachment = current_of(db);
    attachment->calls++;
    (void)pthread_mutex_unlock(&db->lock);
    struct vex_reply reply;
    if (status == VEX_OK) {
        status = vex_connection_call(attachment->connection, VEX_OP_SHUTDOWN, NULL, 0, false,
                                     vex_db_deadline_ns(db), &reply, error);
    }
    if (status == VEX_OK) {
        vex_buffer_deinit(&reply.body);
        if (!vex_connection_await_end(attachment->connection, vex_db_deadline_ns(db))) {
            status = vex_error_set(error, VEX_ERR_TIMEOUT, "vexd has not stopped yet");
        }
    }
    vex_db_done(db, attachment);
    return status;
}

enum vex_status vex_wait(struct vex_db *db, uint64_t lsn, uint32_t timeout_ms,
                         struct vex_error *error)
{
    enum vex_status status = vex_db_check(db, error);
    uint64_t deadline_ns = vex_clock_ns() + timeout_ms * UINT64_C(1000000);
    while (status == VEX_OK) {
        struct attachment *attachment = NULL;
        struct reader_slot *slot = NULL;
        status = vex_db_pin(db, true, &attachment, &slot, error);
        if (status != VEX_OK) {
            return status;
        }
        /* In slices: a pin that lasts keeps the daemon's memory alive. */
        uint64_t slice_ns = vex_clock_ns() + WAIT_SLICE_NS;
        bool reached = vex_control_wait(attachment->control.memory, lsn,
                                        slice_ns < deadline_ns ? slice_ns : deadline_ns);
        bool over = vex_attachment_is_over(attachment);
        (void)vex_db_unpin(slot);
        if (reached) {
            return VEX_OK;
        }
        if (vex_clock_ns() >= deadline_ns) {
            return vex_error_set(error, VEX_ERR_TIMEOUT, "LSN %llu was not published within %u ms",
                                 (unsigned long long)lsn, timeout_ms);
        }
        if (over) {
            vex_db_try_attach(db);
            (void)nanosleep(&(struct timespec){0, CONNECT_PAUSE_NS}, NULL);
        }
    }
    return status;
}

enum vex_status vex_find_directory(const char *dir, char *out_path, size_t out_path_bytes,
                                   struct vex_error *error)
{
    if (!out_path) {
        return vex_error_set(error, VEX_ERR_INVALID, "out_path is NULL");
    }
    char *path = NULL;
    enum vex_status status = find_directory(dir, &path, error);
    if (status == VEX_OK && strlen(path) >= out_path_bytes) {
        status = vex_error_set(error, VEX_ERR_BUFFER, "the path needs %zu bytes", strlen(path) + 1);
    }
    if (status == VEX_OK) {
        memcpy(out_path, path, strlen(path) + 1);
    }
    free(path);
    return status;
}

enum vex_status vex_find_vexd(const char *vexd_path, char *out_path, size_t out_path_bytes,
                              struct vex_error *error)
{
    if (!out_path) {
        return vex_error_set(error, VEX_ERR_INVALID, "out_path is NULL");
    }
    char path[PATH_MAX];
    enum vex_status status = vex_spawn_find(vexd_path, path, error);
    if (status == VEX_OK && strlen(path) >= out_path_bytes) {
        status = vex_error_set(error, VEX_ERR_BUFFER, "the path needs %zu bytes", strlen(path) + 1);
    }
    if (status == VEX_OK) {
        memcpy(out_path, path, strlen(path) + 1);
    }
    return status;
}

const char *vex_version(void)
{
    return VEX_VERSION;
}

const char *vex_status_text(enum vex_status status)
{
    return vex_base_status_text(status);
}

const char *vex_status_name(enum vex_status status)
{
    return vex_base_status_name(status);
}
