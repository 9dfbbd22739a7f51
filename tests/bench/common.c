/*
 * Time, cores, medians, result lines and data; the ideas are in common.h.
 */
#include "tests/bench/common.h"

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include <vex/vex.h>

static const char *bench_name = "";
static volatile sig_atomic_t stop_signal;
static cpu_set_t cores; /* as the process was started */

/* ---- the run --------------------------------------------------------------------------------- */

static void on_signal(int number)
{
    stop_signal = number;
    (void)signal(number, SIG_DFL); /* the second one kills */
}

void vex_bench_begin(const char *bench)
{
    bench_name = bench;
    if (sched_getaffinity(0, sizeof(cores), &cores) != 0) {
        CPU_SET(0, &cores);
    }
    /* RESTART: the call under way need not be interrupted, each loop looks soon enough. */
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

bool vex_bench_stopped(void)
{
    return stop_signal != 0;
}

__attribute__((format(printf, 1, 0))) static void say(const char *format, va_list arguments)
{
    char message[512];
    (void)vsnprintf(message, sizeof(message), format, arguments);
    fprintf(stderr, "vexbench %s: %s\n", bench_name, message);
}

bool vex_bench_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
    return false;
}

void vex_bench_note(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
}

/* "model name" of /proc/cpuinfo, or "unknown". */
static void read_processor(char *out, size_t bytes)
{
    (void)snprintf(out, bytes, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[256];
    while (file && fgets(line, sizeof(line), file)) {
        char *colon = strchr(line, ':');
        if (colon && strncmp(line, "model name", 10) == 0) {
            colon[strcspn(colon, "\n")] = 0;
            (void)snprintf(out, bytes, "%s", colon + (colon[1] == ' ' ? 2 : 1));
            break;
        }
    }
    if (file) {
        (void)fclose(file);
    }
}

bool vex_bench_machine(void)
{
    struct utsname system = {0};
    (void)uname(&system);
    char processor[128];
    read_processor(processor, sizeof(processor));
    double load = NAN;
    (void)getloadavg(&load, 1);
    struct vex_line line;
    vex_line_begin(&line, "machine");
    vex_line_text(&line, "processor", processor);
    vex_line_count(&line, "cores", vex_cores_count());
    vex_line_text(&line, "kernel", system.release);
    vex_line_real(&line, "load", load);
    vex_line_text(&line, "version", vex_version());
    vex_line_text(&line, "isa", vex_isa_name());
    return vex_line_end(&line);
}

/* ---- cores ----------------------------------------------------------------------------------- */

unsigned vex_cores_count(void)
{
    return (unsigned)CPU_COUNT(&cores);
}

/* The number of the index-th core from the end, or -1. */
static int find_core(unsigned index)
{
    unsigned skip = index % vex_cores_count();
    for (int core = CPU_SETSIZE; core-- > 0;) {
        if (CPU_ISSET((size_t)core, &cores) && skip-- == 0) {
            return core;
        }
    }
    return -1;
}

int vex_core_take(unsigned index)
{
    int core = find_core(index);
    cpu_set_t one;
    CPU_ZERO(&one);
    if (core < 0) {
        return -1;
    }
    CPU_SET((size_t)core, &one);
    return sched_setaffinity(0, sizeof(one), &one) == 0 ? core : -1;
}

void vex_core_leave(unsigned index)
{
    int core = find_core(index);
    cpu_set_t others = cores;
    if (core >= 0 && vex_cores_count() > 1) {
        CPU_CLR((size_t)core, &others);
        (void)sched_setaffinity(0, sizeof(others), &others);
    }
}

void vex_core_release(void)
{
    (void)sched_setaffinity(0, sizeof(cores), &cores);
}

/* ---- samples --------------------------------------------------------------------------------- */

void *vex_bench_alloc(size_t count, size_t bytes)
{
    void *memory = calloc(count ? count : 1, bytes);
    if (!memory) {
        (void)vex_bench_fail("out of memory");
        exit(1);
    }
    return memory;
}

void vex_samples_add(struct vex_samples *samples, double value)
{
    if (samples->count == samples->capacity) {
        size_t capacity = samples->capacity ? 2 * samples->capacity : 1024;
        double *values = realloc(samples->values, capacity * sizeof(*values));
        if (!values) {
            (void)vex_bench_fail("out of memory");
            exit(1);
        }
        samples->values = values;
        samples->capacity = capacity;
    }
    samples->values[samples->count++] = value;
}

void vex_samples_append(struct vex_samples *samples, const struct vex_samples *more)
{
    for (size_t i = 0; i < more->count; i++) {
        vex_samples_add(samples, more->values[i]);
    }
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

double vex_samples_quantile(struct vex_samples *samples, double share)
{
    if (samples->count == 0) {
        return NAN;
    }
    qsort(samples->values, samples->count, sizeof(*samples->values), compare);
    double place = share * (double)(samples->count - 1);
    size_t below = (size_t)place;
    size_t above = below + 1 < samples->count ? below + 1 : below;
    double part = place - (double)below;
    return samples->values[below] * (1 - part) + samples->values[above] * part;
}

double vex_samples_median(struct vex_samples *samples)
{
    return vex_samples_quantile(samples, 0.5);
}

void vex_samples_deinit(struct vex_samples *samples)
{
    free(samples->values);
    *samples = (struct vex_samples){0};
}

/* ---- result lines ---------------------------------------------------------------------------- */

static void put(struct vex_line *line, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A line that is too long is a mistake of the program's; vex_line_end sees it. */
static void put(struct vex_line *line, const char *format, ...)
{
    size_t left = sizeof(line->text) - line->bytes;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line->text + line->bytes, left, format, arguments);
    va_end(arguments);
    line->bytes += length < 0 || (size_t)length >= left ? left - 1 : (size_t)length;
}

static void put_string(struct vex_line *line, const char *text)
{
    put(line, "\"");
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte == '"' || byte == '\\' || byte < 0x20 || byte >= 0x7f) {
            /* Bytes above ASCII keep their number and lose their meaning: none are expected. */
            put(line, "\\u%04x", byte);
        } else {
            put(line, "%c", byte);
        }
    }
    put(line, "\"");
}

void vex_line_begin(struct vex_line *line, const char *what)
{
    line->bytes = 0;
    put(line, "{\"bench\":");
    put_string(line, bench_name);
    vex_line_text(line, "what", what);
}

void vex_line_text(struct vex_line *line, const char *key, const char *value)
{
    put(line, ",\"%s\":", key);
    put_string(line, value);
}

void vex_line_count(struct vex_line *line, const char *key, uint64_t value)
{
    put(line, ",\"%s\":%llu", key, (unsigned long long)value);
}

void vex_line_real(struct vex_line *line, const char *key, double value)
{
    if (!isfinite(value)) {
        put(line, ",\"%s\":null", key);
    } else {
        put(line, fabs(value) < 100 ? ",\"%s\":%.3f" : ",\"%s\":%.1f", key, value);
    }
}

void vex_line_share(struct vex_line *line, const char *key, double value)
{
    put(line, isfinite(value) ? ",\"%s\":%.5f" : ",\"%s\":null", key, value);
}

void vex_line_spread(struct vex_line *line, const char *key, struct vex_samples *samples)
{
    char name[64];
    vex_line_real(line, key, vex_samples_median(samples));
    (void)snprintf(name, sizeof(name), "%s_least", key);
    vex_line_real(line, name, vex_samples_quantile(samples, 0));
    (void)snprintf(name, sizeof(name), "%s_greatest", key);
    vex_line_real(line, name, vex_samples_quantile(samples, 1));
}

bool vex_line_end(struct vex_line *line)
{
    put(line, "}");
    if (line->bytes + 1 >= sizeof(line->text)) {
        return vex_bench_fail("a result line is too long");
    }
    if (puts(line->text) < 0 || fflush(stdout) != 0) {
        return vex_bench_fail("standard output: %s", strerror(errno));
    }
    return true;
}

/* ---- data ------------------------------------------------------------------------------------ */

/* SplitMix64 (Steele, Lea, Flood, 2014): one addition and a mixing function. */
static inline uint64_t next_bits(uint64_t *state)
{
    uint64_t bits = *state += UINT64_C(0x9e3779b97f4a7c15);
    bits = (bits ^ (bits >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    bits = (bits ^ (bits >> 27)) * UINT64_C(0x94d049bb133111eb);
    return bits ^ bits >> 31;
}

void vex_data_fill(float *values, size_t count, uint64_t *seed)
{
    uint64_t state = *seed;
    for (size_t i = 0; i < count; i++) {
        values[i] = (float)(int32_t)(next_bits(&state) >> 32) * 0x1p-31f;
    }
    *seed = state;
}

void vex_data_shuffle(uint64_t *numbers, size_t count, uint64_t *seed)
{
    for (size_t i = 0; i < count; i++) {
        /* The remainder favours small places, by less than anybody could measure. */
        size_t place = (size_t)(next_bits(seed) % (i + 1));
        numbers[i] = numbers[place];
        numbers[place] = i;
    }
}
