/*
 * Making and removing the instance of a run; the idea is in instance.h.
 */
#include "tests/bench/instance.h"

#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/common.h"

#define ROOT_TEMPLATE "/vexbench.XXXXXX"
/* Should this program be killed, its daemon ends by itself after so long. */
#define IDLE_TIMEOUT_MS 20000u
#define FILL_BYTES (4u << 20) /* of one batch */
#define SETTLE_POLL_NS 20000000
#define SETTLE_POLLS_MAX 150
#define REST_POLL_NS 50000000

/* ---- where ----------------------------------------------------------------------------------- */

static const char *file_system_of(const char *path, bool *out_in_memory)
{
    static const struct {
        long magic;
        const char *name;
        bool in_memory;
    } known[] = {
        {EXT4_SUPER_MAGIC, "ext4", false},   {XFS_SUPER_MAGIC, "xfs", false},
        {BTRFS_SUPER_MAGIC, "btrfs", false}, {OVERLAYFS_SUPER_MAGIC, "overlay", false},
        {F2FS_SUPER_MAGIC, "f2fs", false},   {TMPFS_MAGIC, "tmpfs", true},
        {RAMFS_MAGIC, "ramfs", true},
    };
    struct statfs info;
    *out_in_memory = false;
    if (statfs(path, &info) != 0) {
        return "other";
    }
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if ((long)info.f_type == known[i].magic) {
            *out_in_memory = known[i].in_memory;
            return known[i].name;
        }
    }
    return "other";
}

/* The directory of this program; /var/tmp if that is in memory or cannot be written to. */
static void default_parent(char *out)
{
    bool in_memory = true;
    ssize_t length = readlink("/proc/self/exe", out, PATH_MAX - 1);
    if (length > 0) {
        out[length] = 0;
        char *slash = strrchr(out, '/');
        slash[slash == out] = 0;
        (void)file_system_of(out, &in_memory);
    }
    if (length <= 0 || in_memory || access(out, W_OK) != 0) {
        (void)snprintf(out, PATH_MAX, "/var/tmp");
    }
}

static bool make_root(struct vex_instance *instance, const struct vex_bench_value *dir)
{
    char parent[PATH_MAX];
    if (!dir->given) {
        default_parent(parent);
    } else if (!realpath(dir->text, parent)) {
        return vex_bench_fail("--dir %s: %s", dir->text, strerror(errno));
    }
    if (strlen(parent) > PATH_MAX - 64) {
        return vex_bench_fail("--dir: the name is too long");
    }
    (void)strcat(parent, ROOT_TEMPLATE);
    if (!mkdtemp(parent)) {
        return vex_bench_fail("make a directory %s: %s", parent, strerror(errno));
    }
    (void)strcpy(instance->root, parent);
    (void)strcpy(instance->directory, parent);
    (void)strcat(instance->directory, "/db");
    instance->file_system = file_system_of(instance->root, &instance->in_memory);
    return true;
}

/* ---- life ------------------------------------------------------------------------------------ */

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info;
    (void)kind;
    (void)place;
    if (remove(path) != 0 && errno != ENOENT) {
        vex_bench_note("remove %s: %s", path, strerror(errno));
    }
    return 0;
}

bool vex_instance_connect(const struct vex_instance *instance, struct vex_db **out_db)
{
    struct vex_open_options options = VEX_OPEN_OPTIONS_INIT;
    options.idle_timeout_ms = IDLE_TIMEOUT_MS;
    struct vex_error error;
    return vex_open(instance->directory, &options, out_db, &error) == VEX_OK ||
           vex_bench_fail("open %s: %s", instance->directory, error.message);
}

bool vex_instance_stats(const struct vex_instance *instance, struct vex_stats *out)
{
    *out = (struct vex_stats){.size = sizeof(*out)};
    struct vex_error error;
    return vex_get_stats(instance->db, out, &error) == VEX_OK ||
           vex_bench_fail("stats: %s", error.message);
}

static bool learn_daemon(struct vex_instance *instance)
{
    struct vex_stats stats;
    if (!vex_instance_stats(instance, &stats)) {
        return false;
    }
    instance->daemon_pid = stats.daemon_pid;
    return true;
}

/* Stopping the daemon is what we do with it, so nobody else may be served by it. */
static bool check_alone(const struct vex_instance *instance)
{
    struct vex_stats stats;
    if (!vex_instance_stats(instance, &stats)) {
        return false;
    }
    return (stats.embedded && stats.clients == 1) ||
           vex_bench_fail("%s is in use: vexd (process %u) serves it; stop it first",
                          instance->directory, stats.daemon_pid);
}

/* Below `root` there may be a file that stands for the disk of `directory`. */
static bool check_same_disk(const char *root, const char *directory)
{
    struct stat a;
    struct stat b;
    if (stat(root, &a) != 0 || stat(directory, &b) != 0) {
        return vex_bench_fail("%s: %s", directory, strerror(errno));
    }
    return a.st_dev == b.st_dev || vex_bench_fail("%s and %s are on different file systems; give "
                                                  "a --dir on that of the latter",
                                                  root, directory);
}

bool vex_instance_take(struct vex_instance *instance, const struct vex_bench_value *dir,
                       const char *directory)
{
    *instance = (struct vex_instance){0};
    char path[PATH_MAX + 16];
    (void)snprintf(path, sizeof(path), "%s/MANIFEST", directory);
    if (access(path, R_OK) != 0) {
        return vex_bench_fail("%s holds no instance: %s: %s", directory, path, strerror(errno));
    }
    bool sound = make_root(instance, dir) && check_same_disk(instance->root, directory);
    if (sound && !realpath(directory, instance->directory)) {
        sound = vex_bench_fail("%s: %s", directory, strerror(errno));
    }
    if (sound && vex_instance_connect(instance, &instance->db) && check_alone(instance) &&
        learn_daemon(instance)) {
        return true;
    }
    /* The daemon may be somebody else's. */
    vex_close(instance->db);
    instance->db = NULL;
    vex_instance_close(instance);
    return false;
}

bool vex_instance_open(struct vex_instance *instance, const struct vex_bench_value *dir)
{
    *instance = (struct vex_instance){0};
    if (make_root(instance, dir) && vex_instance_connect(instance, &instance->db) &&
        learn_daemon(instance)) {
        return true;
    }
    vex_instance_close(instance);
    return false;
}

bool vex_instance_stop(struct vex_instance *instance)
{
    if (!instance->db) {
        return true;
    }
    struct vex_error error;
    bool stopped = vex_shutdown(instance->db, &error) == VEX_OK ||
                   vex_bench_fail("stop vexd: %s", error.message);
    vex_close(instance->db);
    instance->db = NULL;
    return stopped;
}

void vex_instance_close(struct vex_instance *instance)
{
    (void)vex_instance_stop(instance);
    if (instance->root[0]) {
        (void)nftw(instance->root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    }
    *instance = (struct vex_instance){0};
}

/* ---- what is in it --------------------------------------------------------------------------- */

bool vex_instance_collection(struct vex_db *db, const char *name, uint32_t dim,
                             enum vex_metric metric, struct vex_collection **out_collection)
{
    struct vex_collection_options options = VEX_COLLECTION_OPTIONS_INIT;
    options.dim = dim;
    options.metric = metric;
    options.index = VEX_INDEX_FLAT; /* no graph is built beside what is measured */
    struct vex_error error;
    if (vex_collection_create(db, name, &options, &error) != VEX_OK ||
        vex_collection_open(db, name, out_collection, &error) != VEX_OK) {
        return vex_bench_fail("collection %s: %s", name, error.message);
    }
    return true;
}

bool vex_instance_fill(struct vex_collection *collection, uint32_t dim, uint64_t rows,
                       uint64_t *seed)
{
    size_t batch_rows = FILL_BYTES / (dim * sizeof(float) + sizeof(uint64_t)) + 1;
    float *vectors = vex_bench_alloc(batch_rows * dim, sizeof(*vectors));
    uint64_t *ids = vex_bench_alloc(batch_rows, sizeof(*ids));
    bool filled = true;
    for (uint64_t row = 0; row < rows && filled && !vex_bench_stopped(); row += batch_rows) {
        size_t count = rows - row < batch_rows ? (size_t)(rows - row) : batch_rows;
        vex_data_fill(vectors, count * dim, seed);
        for (size_t i = 0; i < count; i++) {
            ids[i] = row + i;
        }
        struct vex_batch batch = VEX_BATCH_INIT;
        batch.count = count;
        batch.ids = ids;
        batch.vectors = vectors;
        batch.dim = dim;
        struct vex_error error;
        filled = vex_write(collection, VEX_WRITE_INSERT, &batch, NULL, &error) == VEX_OK ||
                 vex_bench_fail("fill: %s", error.message);
    }
    free(ids);
    free(vectors);
    return filled && !vex_bench_stopped();
}

double vex_instance_daemon_seconds(const struct vex_instance *instance)
{
    clockid_t clock;
    struct timespec used;
    if (clock_getcpuclockid((pid_t)instance->daemon_pid, &clock) != 0 ||
        clock_gettime(clock, &used) != 0) {
        return NAN;
    }
    return (double)used.tv_sec + (double)used.tv_nsec * 1e-9;
}

bool vex_instance_rest(const struct vex_instance *instance, double still_s, double most_s,
                       bool *out_rested)
{
    struct vex_stats before;
    struct vex_stats now;
    uint64_t start_ns = vex_bench_clock_ns();
    uint64_t moved_ns = start_ns;
    uint64_t now_ns = start_ns;
    if (!vex_instance_stats(instance, &before)) {
        return false;
    }
    *out_rested = false;
    while (!*out_rested && (double)(now_ns - start_ns) < most_s * 1e9 && !vex_bench_stopped()) {
        (void)nanosleep(&(struct timespec){0, REST_POLL_NS}, NULL);
        if (!vex_instance_stats(instance, &now)) {
            return false;
        }
        now_ns = vex_bench_clock_ns();
        if (now.upkeep_running != VEX_JOB_NONE || now.generation != before.generation ||
            now.merges != before.merges || now.checkpoints != before.checkpoints) {
            moved_ns = now_ns;
        }
        before = now;
        *out_rested = (double)(now_ns - moved_ns) >= still_s * 1e9;
    }
    return !vex_bench_stopped();
}

struct vex_process_io vex_process_io(uint32_t pid)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%u/io", pid);
    FILE *file = fopen(path, "re");
    struct vex_process_io io = {0};
    char line[128];
    while (file && fgets(line, sizeof(line), file)) {
        (void)sscanf(line, "read_bytes: %" SCNu64, &io.read_bytes);
        (void)sscanf(line, "write_bytes: %" SCNu64, &io.write_bytes);
    }
    if (file) {
        (void)fclose(file);
    }
    return io;
}

void vex_process_settle(uint32_t pid)
{
    uint64_t before = vex_process_io(pid).write_bytes;
    for (int i = 0; i < SETTLE_POLLS_MAX && !vex_bench_stopped(); i++) {
        (void)nanosleep(&(struct timespec){0, SETTLE_POLL_NS}, NULL);
        uint64_t now = vex_process_io(pid).write_bytes;
        if (now == before) {
            return;
        }
        before = now;
    }
}

void vex_instance_settle(const struct vex_instance *instance)
{
    vex_process_settle(instance->daemon_pid);
}
