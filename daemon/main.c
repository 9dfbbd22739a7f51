/*
 * vexd: the writer daemon of one instance.
 *
 * Start: take the lock, recover, publish, listen, say "ready". A client that starts a private
 * daemon passes a pipe (--ready-fd) and learns the outcome as one line: "ready", or "error", a
 * status number and the message. Exit codes: 0 stopped in order, 1 failed, 2 usage, 3 another
 * daemon has the directory.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "daemon/coordinator.h"
#include "daemon/lock.h"
#include "daemon/offline.h"
#include "daemon/server.h"
#include "daemon/trace.h"

enum exit_code { EXIT_STOPPED = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_TAKEN = 3 };

struct options {
    const char *directory;
    struct vex_server_options server;
    struct vex_coordinator_options coordinator;
    struct vex_offline_options offline;
    int ready_fd;
};

static void print_help(void)
{
    printf(
        "usage: vexd --dir DIR [options]\n"
        "\n"
        "Serves the VexDB instance in DIR, creating it if there is none: the only process that\n"
        "changes it. Stop it with SIGTERM, SIGINT or 'vexctl -d DIR stop'.\n"
        "\n"
        "  --dir DIR              the instance's directory\n"
        "  --io uring|sync        I/O backend; default: uring, or sync where it is refused\n"
        "                         (the environment variable VEX_IO does the same)\n"
        "  --embedded             end when no client has been connected for the idle time-out\n"
        "  --idle-timeout-ms N    that time-out; default 10000\n"
        "  --log-file-mib N       largest log file; default 64\n"
        "  --checkpoint-mib N     write a checkpoint after so much log; default: a quarter of the\n"
        "                         data, 32 to 256\n"
        "  --quarantine           start without the collections whose segment files are damaged\n"
        "  --ready-fd N           write one line there: 'ready', or 'error STATUS MESSAGE'\n"
        "  --version, --help\n"
        "\n"
        "In place of serving, while no vexd serves DIR:\n"
        "\n"
        "  --check                read and verify every file\n"
        "  --verify               also open a scratch copy, and check every row\n"
        "  --log-dump             show the log [--from LSN] [--records]\n"
        "  --log-repair           say what cutting a damaged log would lose; with --accept-loss: "
        "cut\n"
        "  --restore FROM         make DIR from the backup FROM [--copy]\n"
        "  --list-backups         those below DIR/backup; also while DIR is served\n"
        "  --json                 the result as a JSON document\n"
        "\n"
        "exit codes: 0 stopped in order, or sound; 1 failed; 2 usage; 3 another vexd serves DIR;\n"
        "4 damaged; 5 no instance; 6 no space; 7 exists; 8 not permitted\n");
}

static bool parse_number(const char *text, unsigned long least, unsigned long most,
                         unsigned long *out)
{
    char *end = NULL;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-' || value < least || value > most) {
        return false;
    }
    *out = value;
    return true;
}

/* -1 = go on, else the exit code. */
static int parse_options(int count, char **words, struct options *out)
{
    enum {
        DIRECTORY = 256,
        IO,
        EMBEDDED,
        IDLE,
        LOG_FILE,
        CHECKPOINT,
        QUARANTINE,
        READY,
        FROM,
        RESTORE,
        VERSION,
        HELP
    };
    static int task;
    static int flags[4]; /* getopt sets them: records, accept_loss, copy, json */
    static const struct option known[] = {
        {"dir", required_argument, NULL, DIRECTORY},
        {"io", required_argument, NULL, IO},
        {"embedded", no_argument, NULL, EMBEDDED},
        {"idle-timeout-ms", required_argument, NULL, IDLE},
        {"log-file-mib", required_argument, NULL, LOG_FILE},
        {"checkpoint-mib", required_argument, NULL, CHECKPOINT},
        {"quarantine", no_argument, NULL, QUARANTINE},
        {"ready-fd", required_argument, NULL, READY},
        {"check", no_argument, &task, VEX_OFFLINE_CHECK},
        {"verify", no_argument, &task, VEX_OFFLINE_VERIFY},
        {"log-dump", no_argument, &task, VEX_OFFLINE_LOG_DUMP},
        {"log-repair", no_argument, &task, VEX_OFFLINE_LOG_REPAIR},
        {"list-backups", no_argument, &task, VEX_OFFLINE_LIST_BACKUPS},
        {"restore", required_argument, NULL, RESTORE},
        {"from", required_argument, NULL, FROM},
        {"records", no_argument, &flags[0], 1},
        {"accept-loss", no_argument, &flags[1], 1},
        {"copy", no_argument, &flags[2], 1},
        {"json", no_argument, &flags[3], 1},
        {"version", no_argument, NULL, VERSION},
        {"help", no_argument, NULL, HELP},
        {NULL, 0, NULL, 0},
    };
    unsigned long number = 0;
    int option;
    while ((option = getopt_long(count, words, "", known, NULL)) != -1) {
        switch (option) {
        case 0: /* a task or a flag */
            break;
        case DIRECTORY:
            out->directory = optarg;
            break;
        case IO:
            out->coordinator.io_backend = optarg;
            break;
        case EMBEDDED:
            out->server.embedded = true;
            break;
        case IDLE:
            if (!parse_number(optarg, 1, UINT32_MAX, &number)) {
                fprintf(stderr, "vexd: --idle-timeout-ms: '%s' is not a number of milliseconds\n",
                        optarg);
                return EXIT_USAGE;
            }
            out->server.idle_timeout_ms = (uint32_t)number;
            break;
        case LOG_FILE:
            if (!parse_number(optarg, 1, 4096, &number)) {
                fprintf(stderr, "vexd: --log-file-mib: '%s' is not within 1 to 4096\n", optarg);
                return EXIT_USAGE;
            }
            out->coordinator.log_file_bytes_max = (uint64_t)number << 20;
            break;
        case CHECKPOINT:
            if (!parse_number(optarg, 1, 65536, &number)) {
                fprintf(stderr, "vexd: --checkpoint-mib: '%s' is not within 1 to 65536\n", optarg);
                return EXIT_USAGE;
            }
            out->coordinator.checkpoint_bytes = (uint64_t)number << 20;
            break;
        case QUARANTINE:
            out->coordinator.quarantine = true;
            break;
        case READY:
            if (!parse_number(optarg, 0, 1u << 20, &number)) {
                fprintf(stderr, "vexd: --ready-fd: '%s' is not a descriptor\n", optarg);
                return EXIT_USAGE;
            }
            out->ready_fd = (int)number;
            (void)fcntl(out->ready_fd, F_SETFD, FD_CLOEXEC);
            break;
        case FROM:
            if (!parse_number(optarg, 0, UINT64_MAX, &number)) {
                fprintf(stderr, "vexd: --from: '%s' is not an LSN\n", optarg);
                return EXIT_USAGE;
            }
            out->offline.from_lsn = number;
            break;
        case RESTORE:
            task = VEX_OFFLINE_RESTORE;
            out->offline.source = optarg;
            break;
        case VERSION:
            printf("vexd %s\n", VEX_VERSION);
            return EXIT_STOPPED;
        case HELP:
            print_help();
            return EXIT_STOPPED;
        default:
            fprintf(stderr, "try 'vexd --help'\n");
            return EXIT_USAGE;
        }
    }
    if (!out->directory || optind != count) {
        fprintf(stderr, "vexd: --dir DIR is needed, and nothing else; try 'vexd --help'\n");
        return EXIT_USAGE;
    }
    if (task == VEX_OFFLINE_NONE && (flags[0] || flags[1] || flags[2] || flags[3])) {
        fprintf(stderr, "vexd: --records, --accept-loss, --copy and --json go with what is done in "
                        "place of serving\n");
        return EXIT_USAGE;
    }
    out->offline.task = (enum vex_offline_task)task;
    out->offline.records = flags[0];
    out->offline.accept_loss = flags[1];
    out->offline.copy = flags[2];
    out->offline.json = flags[3];
    if (out->coordinator.log_file_bytes_max && out->coordinator.log_file_bytes_max < (4u << 20)) {
        out->coordinator.log_file_bytes_min = out->coordinator.log_file_bytes_max;
    }
    return -1;
}

/* mkdir -p, with the last part private to user and group. */
static int make_directory(const char *path)
{
    char copy[4096];
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof(copy)) {
        return ENAMETOOLONG;
    }
    memcpy(copy, path, length + 1);
    for (char *at = copy + 1; *at; at++) {
        if (*at == '/') {
            *at = 0;
            if (mkdir(copy, 0755) != 0 && errno != EEXIST) {
                return errno;
            }
            *at = '/';
        }
    }
    return mkdir(copy, 0750) == 0 || errno == EEXIST ? 0 : errno;
}

static void report(const struct options *options, const char *line)
{
    if (options->ready_fd >= 0) {
        (void)!write(options->ready_fd, line, strlen(line));
        (void)!write(options->ready_fd, "\n", 1);
        (void)close(options->ready_fd);
    }
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

struct instance {
    int lock;
    struct vex_coordinator *coordinator;
    struct vex_server *server;
};

static enum vex_status start(const struct options *options, struct instance *instance,
                             struct vex_error *error)
{
    int failure = make_directory(options->directory);
    if (failure == 0 && chdir(options->directory) != 0) {
        failure = errno;
    }
    if (failure) {
        return vex_error_os(error, vex_status_from_errno(failure), failure, "directory %s",
                            options->directory);
    }
    enum vex_status status = vex_lock_take(VEX_LOCK_SERVE, &instance->lock, error);
    if (status == VEX_OK) {
        struct vex_coordinator_options coordinator = options->coordinator;
        coordinator.lock_fd = &instance->lock;
        status = vex_coordinator_open(AT_FDCWD, &coordinator, &instance->coordinator, error);
    }
    if (status == VEX_OK) {
        status = vex_server_open(instance->coordinator, &options->server, &instance->server, error);
    }
    return status;
}

int main(int count, char **words)
{
    struct options options = {.ready_fd = -1, .server.idle_timeout_ms = 10000};
    int usage = parse_options(count, words, &options);
    if (usage >= 0) {
        return usage;
    }
    raise_descriptor_limit();
    if (options.offline.task != VEX_OFFLINE_NONE) {
        return vex_offline_run(options.directory, &options.offline);
    }
    /* Whoever waits for the ready line may have gone. */
    (void)signal(SIGPIPE, SIG_IGN);
    /* A file size limit is an error to report, not a reason to die. */
    (void)signal(SIGXFSZ, SIG_IGN);
    struct instance instance = {.lock = -1};
    struct vex_error error = {0};
    enum vex_status status = start(&options, &instance, &error);
    if (status == VEX_OK) {
        struct vex_stats_body stats = {0};
        vex_coordinator_stats(instance.coordinator, &stats);
        vex_trace("serving %s: I/O %s, %llu records replayed, %llu torn tails dropped, LSN %llu",
                  options.directory, stats.io_backend, (unsigned long long)stats.replayed,
                  (unsigned long long)stats.torn_tails, (unsigned long long)stats.lsn);
        report(&options, "ready");
        vex_server_run(instance.server);
    } else {
        vex_trace("%s: %s", options.directory, error.message);
        char line[sizeof(error.message) + 32];
        (void)snprintf(line, sizeof(line), "error %d %s", (int)status, error.message);
        report(&options, line);
    }
    vex_coordinator_close(instance.coordinator);
    vex_server_close(instance.server);
    if (status == VEX_OK) {
        vex_trace("stopped");
        return EXIT_STOPPED;
    }
    return status == VEX_ERR_BUSY ? EXIT_TAKEN : EXIT_FAILED;
}
