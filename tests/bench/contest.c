/*
 * Measuring searches in turns and comparing them at equal recall; the idea is in contest.h.
 */
#include "tests/bench/contest.h"

#include <math.h>

#include <vex/vex.h>

static const double targets[VEX_CONTEST_TARGETS] = {0.95, 0.99};

static double seconds_since(uint64_t start_ns)
{
    return (double)(vex_bench_clock_ns() - start_ns) * 1e-9;
}

/* ---- sides ----------------------------------------------------------------------------------- */

bool vex_contest_add(struct vex_contest *contest, const struct vex_contest_side *side,
                     const struct vex_bench_value *efforts)
{
    struct vex_contest_side *added = &contest->sides[contest->sides_count++];
    *added = *side;
    for (size_t i = 0; i < efforts->list_count; i++) {
        if (i > 0 && efforts->list[i] <= efforts->list[i - 1]) {
            return vex_bench_fail("the efforts of %s must rise: %s", side->name, efforts->text);
        }
        added->points[added->points_count++].effort = efforts->list[i];
    }
    return true;
}

void vex_contest_deinit(struct vex_contest *contest)
{
    for (size_t s = 0; s < VEX_CONTEST_SIDES; s++) {
        struct vex_contest_side *side = &contest->sides[s];
        for (size_t i = 0; i < side->points_count; i++) {
            vex_samples_deinit(&side->points[i].rates);
            vex_samples_deinit(&side->points[i].shares);
        }
        for (int target = 0; target < VEX_CONTEST_TARGETS; target++) {
            vex_samples_deinit(&side->at_target[target]);
            vex_samples_deinit(&side->ratios[target]);
        }
    }
}

/* ---- passes ---------------------------------------------------------------------------------- */

/* So that what is found is found by the search that follows. */
static void forget_found(struct vex_contest *contest)
{
    for (size_t i = 0; i < contest->truth->queries->rows * contest->truth->k; i++) {
        contest->found[i] = UINT64_MAX;
    }
}

/* The first run of an effort maps pages and says what it finds; it is not measured. */
static bool try_out(struct vex_contest *contest, struct vex_contest_side *side, size_t at)
{
    struct vex_contest_point *point = &side->points[at];
    forget_found(contest);
    if (!side->search_all(side->context, point, true, contest->found)) {
        return false;
    }
    point->recall = vex_truth_recall(contest->truth, contest->found);
    side->last[at].recall = point->recall;
    return true;
}

static bool measure(struct vex_contest *contest, struct vex_contest_side *side, size_t at)
{
    struct vex_contest_point *point = &side->points[at];
    forget_found(contest);
    uint64_t start_ns = vex_bench_clock_ns();
    double start_s = vex_bench_thread_seconds();
    if (!side->search_all(side->context, point, false, contest->found)) {
        return false;
    }
    double cpu_s = vex_bench_thread_seconds() - start_s;
    double wall_s = seconds_since(start_ns);
    side->last[at].rate = (double)contest->truth->queries->rows / cpu_s;
    vex_samples_add(&point->rates, side->last[at].rate);
    vex_samples_add(&point->shares, cpu_s / wall_s);
    /* Nothing changes meanwhile, and all sides are deterministic: rate and recall are of one search. */
    double recall = vex_truth_recall(contest->truth, contest->found);
    return recall == point->recall ||
           vex_bench_fail("%s: effort %llu: a later pass has a recall of %.5f, the first had %.5f",
                          side->name, (unsigned long long)point->effort, recall, point->recall);
}

/* Each effort of every side, the sides in turns; who begins changes from pass to pass. */
static bool make_pass(struct vex_contest *contest, uint64_t pass,
                      bool (*step)(struct vex_contest *, struct vex_contest_side *, size_t))
{
    for (size_t at = 0; at < VEX_BENCH_LIST_MAX; at++) {
        for (size_t s = 0; s < contest->sides_count; s++) {
            struct vex_contest_side *side = &contest->sides[(s + pass) % contest->sides_count];
            if (at >= side->points_count) {
                continue;
            }
            if (vex_bench_stopped() || !step(contest, side, at)) {
                return false;
            }
        }
    }
    return true;
}

static void compare_pass(struct vex_contest *contest, int target)
{
    double first = NAN;
    for (size_t s = 0; s < contest->sides_count; s++) {
        struct vex_contest_side *side = &contest->sides[s];
        double rate = vex_recall_rate(side->last, side->points_count, targets[target],
                                      &side->at_recall[target]);
        if (isfinite(rate)) {
            vex_samples_add(&side->at_target[target], rate);
        }
        first = s == 0 ? rate : first;
        if (isfinite(first / rate)) {
            vex_samples_add(&side->ratios[target], first / rate);
        }
    }
}

bool vex_contest_run(struct vex_contest *contest, uint64_t passes)
{
    (void)vex_core_take(0);
    bool sound = make_pass(contest, 0, try_out);
    for (uint64_t pass = 1; pass <= passes && sound; pass++) {
        vex_bench_note("pass %llu of %llu", (unsigned long long)pass, (unsigned long long)passes);
        sound = make_pass(contest, pass, measure);
        for (int target = 0; target < VEX_CONTEST_TARGETS && sound; target++) {
            compare_pass(contest, target);
        }
    }
    vex_core_release();
    return sound;
}

/* ---- result lines ---------------------------------------------------------------------------- */

void vex_contest_line(const struct vex_truth *truth, struct vex_line *line, const char *what)
{
    vex_line_begin(line, what);
    vex_line_text(line, "metric", vex_metric_name(truth->metric));
    vex_line_count(line, "rows", truth->base->rows);
    vex_line_count(line, "dim", truth->base->dim);
}

static bool print_point(const struct vex_contest *contest, const struct vex_contest_side *side,
                        struct vex_contest_point *point)
{
    struct vex_line line;
    vex_contest_line(contest->truth, &line, "search");
    vex_line_text(&line, "by", side->name);
    vex_line_text(&line, "mode", point->mode);
    vex_line_count(&line, "queries", contest->truth->queries->rows);
    vex_line_count(&line, "k", contest->truth->k);
    vex_line_count(&line, "batch", side->batch);
    vex_line_count(&line, "effort", point->effort);
    vex_line_real(&line, "asked_recall", side->asked_recall);
    vex_line_share(&line, "recall", point->recall);
    vex_line_spread(&line, "queries_s", &point->rates);
    vex_line_real(&line, "rows_visited", point->visited);
    vex_line_count(&line, "passes", point->rates.count);
    vex_line_real(&line, "core_share", vex_samples_median(&point->shares));
    return vex_line_end(&line);
}

static bool print_ratio(struct vex_contest *contest, struct vex_contest_side *peers, int target)
{
    struct vex_contest_side *ours = &contest->sides[0];
    struct vex_line line;
    vex_contest_line(contest->truth, &line, "ratio");
    vex_line_text(&line, "mode", ours->points[0].mode);
    vex_line_count(&line, "batch", ours->batch);
    vex_line_text(&line, "peer", peers->name);
    vex_line_text(&line, "peer_mode", peers->points[0].mode);
    vex_line_count(&line, "peer_batch", peers->batch);
    vex_line_share(&line, "recall", targets[target]);
    vex_line_text(&line, "between_efforts", "log(rate) linear in recall");
    vex_line_real(&line, "vexdb_queries_s", vex_samples_median(&ours->at_target[target]));
    vex_line_share(&line, "vexdb_recall", ours->at_recall[target]);
    vex_line_real(&line, "peer_queries_s", vex_samples_median(&peers->at_target[target]));
    vex_line_share(&line, "peer_recall", peers->at_recall[target]);
    vex_line_spread(&line, "ratio", &peers->ratios[target]);
    return vex_line_end(&line);
}

bool vex_contest_print(struct vex_contest *contest)
{
    bool printed = true;
    for (size_t s = 0; s < contest->sides_count; s++) {
        struct vex_contest_side *side = &contest->sides[s];
        for (size_t i = 0; i < side->points_count && printed; i++) {
            printed = print_point(contest, side, &side->points[i]);
        }
    }
    for (size_t s = 1; s < contest->sides_count; s++) {
        for (int i = 0; i < VEX_CONTEST_TARGETS && printed; i++) {
            printed = print_ratio(contest, &contest->sides[s], i);
        }
    }
    return printed;
}
