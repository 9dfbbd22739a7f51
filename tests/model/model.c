/*
 * The protocol of the shared memory, and of the mappings inside a client, explored to the end in small
 * scenarios on a memory that is as weak as C17 allows (machine.h). Nothing may go wrong as the code is.
 * Something must go wrong if a step is left out or moved (faults.c), and if the order of an access is
 * weakened, one access at a time, to each weaker order that it could have. The few orders that are
 * stronger than needed are named, with the reason, and weakened all at once nothing may go wrong.
 *
 * The accesses are those of the sources: see accesses.h.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/panic.h"
#include "tests/model/faults.h"
#include "tests/model/scenarios.h"

/* The two large ones come last: what a small one finds is found in no time. */
static const struct scenario *const scenarios[] = {
    &scenario_ready,      &scenario_references, &scenario_wait,
    &scenario_attachment, &scenario_collection, &scenario_cell,
    &scenario_cache,      &scenario_cut,        &scenario_reclaim,
};
#define SCENARIOS_COUNT (sizeof(scenarios) / sizeof(scenarios[0]))
#define LARGE_COUNT 2u

struct run {
    struct machine rules; /* as the sources have them */
    bool used[SCENARIOS_COUNT][ACCESSES_COUNT];
    size_t scenarios_count;
    const char *show; /* print the way to what is found, if its name contains this */
    bool table;       /* print rows for README.md */
    size_t states;
    uint32_t faults; /* of the protocol or of the model */
};

static bool is_large(const struct scenario *scenario)
{
    for (size_t i = SCENARIOS_COUNT - LARGE_COUNT; i < SCENARIOS_COUNT; i++) {
        if (scenarios[i] == scenario) {
            return true;
        }
    }
    return false;
}

static void explore(struct run *run, const struct scenario *scenario, const struct machine *rules,
                    const char *name, struct exploration *out)
{
    bool shown = run->show && strstr(name, run->show);
    if (shown) {
        (void)printf("%s, in scenario %s:\n", name, scenario->name);
    }
    model_explore(scenario, rules, shown, NULL, out);
    run->states += out->states;
}

/* ---- the protocol as it is ------------------------------------------------------------------- */

static void check_protocol(struct run *run)
{
    if (run->table) {
        (void)printf("| scenario | what happens in it | states | steps |\n|---|---|---|---|\n");
    }
    for (size_t i = 0; i < run->scenarios_count; i++) {
        const struct scenario *scenario = scenarios[i];
        struct exploration found;
        model_explore(scenario, &run->rules, true, run->used[i], &found);
        run->states += found.states;
        run->faults += found.violation != NULL;
        if (run->table) {
            (void)printf("| %s | %s | %zu | %zu |\n", scenario->name, scenario->what, found.states,
                         found.steps);
        } else {
            (void)printf("%-12s %8zu states  %s\n", scenario->name, found.states,
                         found.violation ? found.violation : "nothing goes wrong");
        }
        (void)fflush(stdout);
    }
}

static void check_coverage(struct run *run)
{
    for (uint32_t access = 0; access < ACCESSES_COUNT; access++) {
        bool used = false;
        for (size_t i = 0; i < SCENARIOS_COUNT; i++) {
            used |= run->used[i][access];
        }
        if (!used && run->scenarios_count == SCENARIOS_COUNT) {
            (void)printf("no scenario makes the access %s\n", model_accesses[access].name);
            run->faults++;
        }
    }
}

/* ---- flaws ----------------------------------------------------------------------------------- */

static void check_flaws(struct run *run)
{
    if (run->table) {
        (void)printf("\n| done wrong | found in | what is seen | states |\n|---|---|---|---|\n");
    }
    for (size_t i = 0; i < model_flaws_count; i++) {
        const struct model_flaw *flaw = &model_flaws[i];
        if (run->scenarios_count < SCENARIOS_COUNT && is_large(flaw->scenario)) {
            continue;
        }
        struct machine rules = run->rules;
        rules.flaws[flaw->flaw] = true;
        struct exploration found;
        explore(run, flaw->scenario, &rules, flaw->text, &found);
        run->faults += found.violation == NULL;
        const char *violation = found.violation ? found.violation : "SURVIVED";
        if (run->table) {
            (void)printf("| %s | %s | %s | %zu |\n", flaw->text, flaw->scenario->name, violation,
                         found.states);
        } else {
            (void)printf("%-12s %8zu states  %s: %s\n", flaw->scenario->name, found.states,
                         flaw->text, violation);
        }
        (void)fflush(stdout);
    }
}

/* ---- orders ---------------------------------------------------------------------------------- */

static bool is_order_of(enum access_kind kind, enum order order)
{
    switch (order) {
    case ORDER_ACQUIRE:
        return kind != KIND_STORE;
    case ORDER_RELEASE:
        return kind != KIND_LOAD;
    case ORDER_ACQ_REL:
        return kind == KIND_RMW;
    case ORDER_RELAXED:
    case ORDER_SEQ_CST:
        break;
    }
    return true;
}

/* True if `order` promises all that `other` does. */
static bool is_at_least(enum order order, enum order other)
{
    bool both = order == ORDER_ACQ_REL || order == ORDER_SEQ_CST;
    switch (other) {
    case ORDER_RELAXED:
        return true;
    case ORDER_ACQUIRE:
    case ORDER_RELEASE:
        return both || order == other;
    case ORDER_ACQ_REL:
        return both;
    case ORDER_SEQ_CST:
        break;
    }
    return order == ORDER_SEQ_CST;
}

static const struct model_spared *spared_of(uint32_t access)
{
    for (size_t i = 0; i < model_spared_count; i++) {
        if (model_spared[i].access == access) {
            return &model_spared[i];
        }
    }
    return NULL;
}

/* In the scenarios that make `access`, until something goes wrong. */
static const struct scenario *find(struct run *run, const struct machine *rules, uint32_t access,
                                   const char *name, struct exploration *out)
{
    for (size_t i = 0; i < run->scenarios_count; i++) {
        if (!run->used[i][access]) {
            continue;
        }
        explore(run, scenarios[i], rules, name, out);
        if (out->violation) {
            return scenarios[i];
        }
    }
    return NULL;
}

static void print_weakening(const struct run *run, uint32_t access, const char *to,
                            const char *where, const char *what)
{
    const struct access_info *info = &model_accesses[access];
    if (run->table) {
        (void)printf("| %s | `%s` %s | %s | %s | %s | %s |\n", info->pair, info->function,
                     info->name, model_order_names[info->order], to, where, what);
    } else {
        (void)printf("%-12s %-18s %s -> %s: %s\n", where, info->name,
                     model_order_names[info->order], to, what);
    }
    (void)fflush(stdout);
}

/* Whether only the large scenarios could tell, and they are left out. */
static bool is_not_judged(const struct run *run, uint32_t access)
{
    const char *pair = model_accesses[access].pair;
    return run->scenarios_count < SCENARIOS_COUNT &&
           (strcmp(pair, "PIN") == 0 || strcmp(pair, "REVOKED") == 0);
}

static void weaken(struct run *run, uint32_t access, enum order order)
{
    const struct model_spared *spared = spared_of(access);
    const char *to = model_order_names[order];
    if (spared && is_at_least(order, spared->enough)) {
        print_weakening(run, access, to, "-", spared->reason);
        return;
    }
    struct machine rules = run->rules;
    rules.orders[access] = (uint8_t)order;
    char name[64];
    (void)snprintf(name, sizeof(name), "%s %s", model_accesses[access].name, to);
    struct exploration found = {0};
    const struct scenario *where = find(run, &rules, access, name, &found);
    if (!where && !is_not_judged(run, access)) {
        run->faults++;
    }
    print_weakening(run, access, to, where ? where->name : "-",
                    where ? found.violation : "SURVIVED");
}

static void check_orders(struct run *run)
{
    if (run->table) {
        (void)printf("\n| pair | access | order | weakened to | found in | what is seen, or why "
                     "nothing can be |\n|---|---|---|---|---|---|\n");
    }
    for (uint32_t access = 0; access < ACCESSES_COUNT; access++) {
        const struct access_info *info = &model_accesses[access];
        for (int order = ORDER_SEQ_CST; order >= ORDER_RELAXED; order--) {
            if (is_order_of(info->kind, (enum order)order) && order != (int)info->order &&
                is_at_least(info->order, (enum order)order)) {
                weaken(run, access, (enum order)order);
            }
        }
    }
}

/* ---- what is stronger than needed ------------------------------------------------------------ */

static void check_others(struct run *run)
{
    if (run->table) {
        (void)printf("\n| both relaxed | found in | what is seen |\n|---|---|---|\n");
    }
    for (size_t i = 0; i < model_spared_count; i++) {
        const struct model_spared *spared = &model_spared[i];
        if (spared->other == ACCESS_RELAXED) {
            continue;
        }
        struct machine rules = run->rules;
        rules.orders[spared->access] = (uint8_t)spared->enough;
        rules.orders[spared->other] = ORDER_RELAXED;
        char name[64];
        (void)snprintf(name, sizeof(name), "%s and %s", model_accesses[spared->access].name,
                       model_accesses[spared->other].name);
        struct exploration found = {0};
        const struct scenario *where = find(run, &rules, spared->access, name, &found);
        run->faults += where == NULL;
        const char *place = where ? where->name : "-";
        const char *what = where ? found.violation : "SURVIVED";
        if (run->table) {
            (void)printf("| %s | %s | %s |\n", name, place, what);
        } else {
            (void)printf("%-12s %s both relaxed: %s\n", place, name, what);
        }
    }
}

static void check_joint(struct run *run, unsigned joint)
{
    struct machine rules = run->rules;
    uint32_t count = 0;
    for (size_t i = 0; i < model_spared_count; i++) {
        if (model_spared[i].joint & joint) {
            rules.orders[model_spared[i].access] = (uint8_t)model_spared[i].enough;
            count++;
        }
    }
    size_t states = 0;
    for (size_t i = 0; i < run->scenarios_count; i++) {
        struct exploration found;
        model_explore(scenarios[i], &rules, true, NULL, &found);
        states += found.states;
        if (found.violation) {
            (void)printf("scenario %s: an order was spared that is needed\n", scenarios[i]->name);
            run->faults++;
        }
    }
    run->states += states;
    (void)printf("%s%u spared orders weakened at once: %zu states, %s\n", run->table ? "\n" : "",
                 count, states, run->faults ? "see above" : "nothing goes wrong");
}

/* ---- running --------------------------------------------------------------------------------- */

static void list_accesses(void)
{
    static const char *const kinds[] = {"load", "store", "rmw"};
    for (uint32_t i = 0; i < ACCESSES_COUNT; i++) {
        const struct access_info *info = &model_accesses[i];
        (void)printf("%s\t%s\t%s\t%s\t%s\n", info->file, info->function, info->pair,
                     kinds[info->kind], model_order_names[info->order]);
    }
}

static int usage(void)
{
    (void)fprintf(stderr, "usage: model [--small] [--table] [--show TEXT] [--accesses]\n"
                          "  --small     without the two large scenarios\n"
                          "  --table     print the tables of README.md\n"
                          "  --show TEXT print the way to each finding whose name contains TEXT\n"
                          "  --accesses  print the accesses, for test_accesses.py\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"small", no_argument, NULL, 's'},
        {"table", no_argument, NULL, 't'},
        {"show", required_argument, NULL, 'w'},
        {"accesses", no_argument, NULL, 'a'},
        {NULL, 0, NULL, 0},
    };
    static struct run run = {.scenarios_count = SCENARIOS_COUNT};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 's':
            run.scenarios_count = SCENARIOS_COUNT - LARGE_COUNT;
            break;
        case 't':
            run.table = true;
            break;
        case 'w':
            run.show = optarg;
            break;
        case 'a':
            list_accesses();
            return 0;
        default:
            return usage();
        }
    }
    for (uint32_t i = 0; i < ACCESSES_COUNT; i++) {
        run.rules.orders[i] = (uint8_t)model_accesses[i].order;
    }
    check_protocol(&run);
    check_coverage(&run);
    check_flaws(&run);
    check_orders(&run);
    check_others(&run);
    check_joint(&run, JOINT_CELL);
    check_joint(&run, JOINT_VIEW);
    (void)printf("%s%zu states, %u faults\n", run.table ? "\n" : "", run.states, run.faults);
    return run.faults ? 1 : 0;
}
