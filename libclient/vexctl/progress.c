/*
 * The progress line. The time left is told from the average so far: batches are many and alike, so
 * a moving average would only jitter.
 */
#include "libclient/vexctl/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define BAR_CELLS 16
#define LINE_BYTES 256
#define EVERY_NS 100000000u

uint64_t vex_progress_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int screen_columns(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 80;
}

void vex_progress_begin(struct vex_progress *progress, const char *label, uint64_t rows_total)
{
    *progress = (struct vex_progress){
        .label = label,
        .rows_total = rows_total,
        .started_ns = vex_progress_now_ns(),
        .visible = isatty(STDERR_FILENO) == 1,
    };
}

void vex_progress_show(struct vex_progress *progress, uint64_t rows, uint64_t bytes)
{
    uint64_t now = vex_progress_now_ns();
    if (!progress->visible || now - progress->shown_ns < EVERY_NS) {
        return;
    }
    progress->shown_ns = now;
    progress->drawn = true;
    double seconds = (double)(now - progress->started_ns) / 1e9;
    double share = progress->rows_total ? (double)rows / (double)progress->rows_total : 1;
    double rate = seconds > 0 ? (double)rows / seconds : 0;
    uint64_t left = rate > 0 ? (uint64_t)((double)(progress->rows_total - rows) / rate + 0.5) : 0;
    char bar[BAR_CELLS + 1];
    for (int i = 0; i < BAR_CELLS; i++) {
        bar[i] = share * BAR_CELLS > i ? '#' : '.';
    }
    bar[BAR_CELLS] = 0;
    char line[LINE_BYTES];
    int bytes_drawn =
        snprintf(line, sizeof(line),
                 "%s [%s] %3.0f%% %" PRIu64 "/%" PRIu64 " rows, %.0f rows/s, %.1f MB/s, %" PRIu64
                 ":%02" PRIu64 " left",
                 progress->label, bar, share * 100, rows, progress->rows_total, rate,
                 seconds > 0 ? (double)bytes / seconds / 1e6 : 0, left / 60, left % 60);
    /* A line that wraps could not be overwritten. */
    int columns = screen_columns() - 1;
    fprintf(stderr, "\r%.*s\033[K", bytes_drawn < columns ? bytes_drawn : columns, line);
    fflush(stderr);
}

void vex_progress_end(struct vex_progress *progress)
{
    if (progress->drawn) {
        fputs("\r\033[K", stderr);
        progress->drawn = false;
    }
}
