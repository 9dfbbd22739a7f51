/*
 * vexbench ingest: durable writes a second, beside what the disk does by itself.
 *
 * A durable write cannot be faster than the disk makes one durable, and disks, virtual ones above
 * all, change their pace from second to second. So a run is cut into rounds, and in each round the
 * loads and the disk take turns: disk, load, disk, load, ..., disk. A load is compared with the
 * mean of the disk's figures just before and just after it, and the median over the rounds is
 * printed.
 *
 * Loads: single inserts by one client that waits for each acknowledgement, and the same by many at
 * once; when these are done, batches. Rented disks allow so many bytes a second and, for a while,
 * more: batches use that up, so they come last and their disk figure is kept short. A client is a
 * thread of this process with a connection of its own: for the daemon that is the same as a
 * process, and for a machine with few cores it is the cheaper one, since switching between threads
 * keeps the address space. Clients, daemon and kernel share the cores, so the processor time of
 * both sides is printed too.
 *
 * With a peer (peer.h) each load has a twin that writes the same records to the peer. The two
 * follow one another, with the disk in between, and change places in every other round, so that
 * neither always has the disk as the other one left it.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <vex/vex.h>

#include "tests/bench/bench.h"
#include "tests/bench/common.h"
#include "tests/bench/crew.h"
#include "tests/bench/disk.h"
#include "tests/bench/instance.h"
#include "tests/bench/peer.h"

#define CLIENTS_MAX 512u
#define LOADS_MAX (4 * VEX_BENCH_LIST_MAX)
#define COLLECTION "ingest"

enum { SECONDS, ROUNDS, CLIENTS, BATCH, BATCH_CLIENTS, DIM, PEERS, DIR };

static const struct vex_bench_option options[] = {
    [SECONDS] = {"seconds", VEX_BENCH_SECONDS, "S", "2", 0.001, 3600,
                 "length of each load, over all rounds"},
    [ROUNDS] = {"rounds", VEX_BENCH_COUNT, "N", "10", 1, 1000, "rounds"},
    [CLIENTS] = {"clients", VEX_BENCH_LIST, "N,...", "1,64", 1, CLIENTS_MAX,
                 "clients that insert single vectors"},
    [BATCH] = {"batch", VEX_BENCH_COUNT, "N", "1000", 1, VEX_BATCH_COUNT_MAX, "vectors in a batch"},
    [BATCH_CLIENTS] = {"batch-clients", VEX_BENCH_LIST, "N,...", "1,4", 1, CLIENTS_MAX,
                       "clients that insert batches"},
    [DIM] = {"dim", VEX_BENCH_COUNT, "D", "128", 1, VEX_DIM_MAX, "dimension"},
    [PEERS] = {"peers", VEX_BENCH_WORD, "none|rocksdb", "none", 0, 0,
               "another store to write the same to, in turns"},
    [DIR] = VEX_BENCH_OPTION_DIR,
    {0},
};

/* ---- the disk -------------------------------------------------------------------------------- */

/* What is measured between loads: the first two between inserts, the last one between batches. */
enum figure { FIGURE_FDATASYNC, FIGURE_DSYNC, FIGURE_STREAM, FIGURES };

struct disk_figure {
    const char *name;
    bool of_batches;
    size_t bytes; /* of a write */
    enum vex_disk_method method;
    struct vex_samples rates;
    struct vex_samples latencies_us;
};

/* Writes a second, at one point between two loads. */
struct disk_point {
    double rates[FIGURES];
};

/* ---- loads ----------------------------------------------------------------------------------- */

struct load {
    bool of_batches;
    bool to_peer;
    unsigned clients;
    size_t items;             /* vectors in a write */
    struct vex_samples rates; /* writes a second, of each round */
    struct vex_samples latencies_us;
    struct vex_samples disk_rates; /* of the figure that is the limit, as each round found it */
    struct vex_samples ratios;
    struct vex_samples versus_first; /* rate by that of the first load in the same round */
    struct vex_samples versus_twin;  /* of one to the peer: its twin's rate by its own */
    double wall_s;
    double client_s; /* processor time */
    double daemon_s;
    uint64_t writes;
    uint64_t commits;
};

struct ingest {
    struct vex_instance instance;
    const struct vex_bench_value *values;
    uint32_t dim;
    struct vex_db *connections[CLIENTS_MAX];
    unsigned connections_count;
    struct vex_disk disk;
    struct disk_figure figures[FIGURES];
    struct load loads[LOADS_MAX]; /* with a peer, each is followed by its twin */
    size_t loads_count;
    struct vex_peer *peer; /* NULL = none */
};

/* One load in one round. */
struct slice {
    struct ingest *ingest;
    const struct load *load;
    uint64_t duration_ns;
    struct client {
        struct vex_samples latencies_us;
        uint64_t start_ns;
        uint64_t end_ns;
    } clients[CLIENTS_MAX];
};

/* What a client writes, and to which of the two. */
struct goods {
    const struct load *load;
    const float *vectors;
    uint32_t dim;
    struct vex_collection *collection; /* NULL = to the peer */
    struct vex_peer *peer;
};

static bool insert(const struct goods *goods)
{
    if (!goods->collection) {
        return vex_peer_insert(goods->peer, goods->load->items, goods->vectors,
                               goods->dim * sizeof(float));
    }
    struct vex_batch batch = VEX_BATCH_INIT;
    batch.count = goods->load->items;
    batch.vectors = goods->vectors;
    batch.dim = goods->dim;
    struct vex_error error;
    return vex_write(goods->collection, VEX_WRITE_INSERT, &batch, NULL, &error) == VEX_OK ||
           vex_bench_fail("insert: %s", error.message);
}

static bool insert_until(struct client *client, const struct goods *goods, uint64_t duration_ns)
{
    client->start_ns = client->end_ns = vex_bench_clock_ns();
    do {
        if (!insert(goods)) {
            return false;
        }
        uint64_t now_ns = vex_bench_clock_ns();
        vex_samples_add(&client->latencies_us, (double)(now_ns - client->end_ns) * 1e-3);
        client->end_ns = now_ns;
    } while (client->end_ns - client->start_ns < duration_ns && !vex_bench_stopped());
    return true;
}

static bool be_client(struct vex_crew *crew, void *context, unsigned index)
{
    struct slice *slice = context;
    struct ingest *ingest = slice->ingest;
    size_t count = slice->load->items * ingest->dim;
    float *vectors = vex_bench_alloc(count, sizeof(*vectors));
    uint64_t seed = index;
    vex_data_fill(vectors, count, &seed);
    struct goods goods = {
        .load = slice->load, .vectors = vectors, .dim = ingest->dim, .peer = ingest->peer};
    struct vex_error error;
    bool sound = slice->load->to_peer ||
                 vex_collection_open(ingest->connections[index], COLLECTION, &goods.collection,
                                     &error) == VEX_OK ||
                 vex_bench_fail("open the collection: %s", error.message);
    /* One that does not count: the daemon makes room for the first rows. */
    sound = sound && insert(&goods);
    if (sound && vex_crew_ready(crew)) {
        sound = insert_until(&slice->clients[index], &goods, slice->duration_ns);
    }
    vex_collection_close(goods.collection);
    free(vectors);
    return sound;
}

static bool count_commits(struct ingest *ingest, uint64_t *out)
{
    struct vex_stats stats;
    if (!vex_instance_stats(&ingest->instance, &stats)) {
        return false;
    }
    *out = stats.commits;
    return true;
}

static double own_seconds(void)
{
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

/* Takes the clients' samples over; returns the writes a second. */
static double sum_up(struct slice *slice, struct load *load)
{
    uint64_t start_ns = UINT64_MAX;
    uint64_t end_ns = 0;
    size_t writes = 0;
    for (unsigned i = 0; i < load->clients; i++) {
        struct client *client = &slice->clients[i];
        start_ns = client->start_ns < start_ns ? client->start_ns : start_ns;
        end_ns = client->end_ns > end_ns ? client->end_ns : end_ns;
        writes += client->latencies_us.count;
        vex_samples_append(&load->latencies_us, &client->latencies_us);
        vex_samples_deinit(&client->latencies_us);
    }
    load->writes += writes;
    return (double)writes * 1e9 / (double)(end_ns - start_ns);
}

/* What has been used up to now. */
struct spent {
    uint64_t clock_ns;
    double own_s;
    double daemon_s;
    uint64_t commits;
};

static bool take_stock(struct ingest *ingest, struct spent *out)
{
    out->clock_ns = vex_bench_clock_ns();
    out->own_s = own_seconds();
    out->daemon_s = vex_instance_daemon_seconds(&ingest->instance);
    return count_commits(ingest, &out->commits);
}

/* One round of a load. */
static bool run_load(struct ingest *ingest, struct load *load, uint64_t duration_ns,
                     double *out_rate)
{
    /* In a collection of its own, so that none grows without end. */
    struct vex_collection *collection = NULL;
    if (!vex_instance_collection(ingest->instance.db, COLLECTION, ingest->dim, VEX_METRIC_L2,
                                 &collection)) {
        return false;
    }
    vex_collection_close(collection);
    struct slice *slice = vex_bench_alloc(1, sizeof(*slice));
    *slice = (struct slice){.ingest = ingest, .load = load, .duration_ns = duration_ns};
    struct spent before = {0};
    struct spent after = {0};
    bool sound = take_stock(ingest, &before) && vex_crew_run(load->clients, be_client, slice) &&
                 take_stock(ingest, &after);
    load->wall_s += (double)(after.clock_ns - before.clock_ns) * 1e-9;
    load->client_s += after.own_s - before.own_s;
    load->daemon_s += after.daemon_s - before.daemon_s;
    load->commits += after.commits - before.commits;
    *out_rate = sum_up(slice, load);
    free(slice);
    struct vex_error error;
    if (sound && vex_collection_drop(ingest->instance.db, COLLECTION, &error) != VEX_OK) {
        return vex_bench_fail("drop: %s", error.message);
    }
    return sound;
}

/* ---- rounds ---------------------------------------------------------------------------------- */

static bool measure_disk(struct ingest *ingest, bool of_batches, uint64_t duration_ns,
                         struct disk_point *out)
{
    /* The daemon may still be preparing its next file, the peer be moving its data. */
    vex_instance_settle(&ingest->instance);
    if (ingest->peer) {
        vex_process_settle((uint32_t)getpid());
    }
    for (int i = 0; i < FIGURES; i++) {
        struct disk_figure *figure = &ingest->figures[i];
        if (figure->of_batches != of_batches) {
            continue;
        }
        if (!vex_disk_measure(&ingest->disk, figure->method, figure->bytes, duration_ns,
                              &out->rates[i], &figure->latencies_us)) {
            return false;
        }
        if (isfinite(out->rates[i])) {
            vex_samples_add(&figure->rates, out->rates[i]);
        }
    }
    return true;
}

static double mean_rate(const struct disk_point points[2], enum figure figure)
{
    return (points[0].rates[figure] + points[1].rates[figure]) / 2;
}

/* Compares a load's rate with the disk before and after it. */
static void compare(const struct ingest *ingest, struct load *load, double rate,
                    const struct disk_point points[2])
{
    vex_samples_add(&load->rates, rate);
    if (load->of_batches) {
        /* Bytes by bytes: of the vectors alone, so that what we put around them is our loss. */
        const struct disk_figure *stream = &ingest->figures[FIGURE_STREAM];
        double limit = mean_rate(points, FIGURE_STREAM);
        double bytes = rate * (double)load->items * ingest->dim * sizeof(float);
        vex_samples_add(&load->disk_rates, limit);
        vex_samples_add(&load->ratios, bytes / (limit * (double)stream->bytes));
        return;
    }
    /* fmax passes over a NAN. */
    double limit = fmax(mean_rate(points, FIGURE_FDATASYNC), mean_rate(points, FIGURE_DSYNC));
    vex_samples_add(&load->disk_rates, limit);
    vex_samples_add(&load->ratios, rate / limit);
    const struct load *first = &ingest->loads[load->to_peer ? 1 : 0];
    vex_samples_add(&load->versus_first, rate / first->rates.values[load->rates.count - 1]);
}

/* Runs a load, measures the disk after it, and compares. */
static bool take_turn(struct ingest *ingest, struct load *load, uint64_t slice_ns,
                      struct disk_point points[2])
{
    double rate = 0;
    points[0] = points[1];
    if (!run_load(ingest, load, slice_ns, &rate) ||
        !measure_disk(ingest, load->of_batches, slice_ns / 2, &points[1]) || vex_bench_stopped()) {
        return false;
    }
    compare(ingest, load, rate, points);
    return true;
}

/* A load, and its twin if there is a peer. */
static bool take_turns(struct ingest *ingest, struct load *load, bool twin_first, uint64_t slice_ns,
                       struct disk_point points[2])
{
    if (!ingest->peer) {
        return take_turn(ingest, load, slice_ns, points);
    }
    struct load *twin = load + 1;
    if (!take_turn(ingest, twin_first ? twin : load, slice_ns, points) ||
        !take_turn(ingest, twin_first ? load : twin, slice_ns, points)) {
        return false;
    }
    size_t last = load->rates.count - 1;
    vex_samples_add(&twin->versus_twin, load->rates.values[last] / twin->rates.values[last]);
    return true;
}

/* All rounds of the inserts, or of the batches. */
static bool run_rounds(struct ingest *ingest, bool of_batches)
{
    uint64_t rounds = ingest->values[ROUNDS].count;
    uint64_t slice_ns = (uint64_t)(ingest->values[SECONDS].seconds * 1e9 / (double)rounds);
    struct disk_point points[2];
    if (!measure_disk(ingest, of_batches, slice_ns / 2, &points[1])) {
        return false;
    }
    for (uint64_t round = 0; round < rounds; round++) {
        vex_bench_note("%s: round %llu of %llu", of_batches ? "batches" : "inserts",
                       (unsigned long long)round + 1, (unsigned long long)rounds);
        for (size_t i = 0; i < ingest->loads_count; i++) {
            struct load *load = &ingest->loads[i];
            if (load->of_batches == of_batches && !load->to_peer &&
                !take_turns(ingest, load, round % 2 == 1, slice_ns, points)) {
                return false;
            }
        }
    }
    return true;
}

/* ---- lines ----------------------------------------------------------------------------------- */

static bool print_disk(struct ingest *ingest, struct disk_figure *figure)
{
    double rate = vex_samples_median(&figure->rates);
    struct vex_line line;
    vex_line_begin(&line, "disk");
    vex_line_text(&line, "method", figure->name);
    vex_line_text(&line, "file_system", ingest->instance.file_system);
    vex_line_count(&line, "write_bytes", figure->bytes);
    vex_line_count(&line, "points", figure->rates.count);
    vex_line_real(&line, "writes_s", rate);
    vex_line_real(&line, "writes_s_least", vex_samples_quantile(&figure->rates, 0));
    vex_line_real(&line, "writes_s_greatest", vex_samples_quantile(&figure->rates, 1));
    vex_line_real(&line, "mb_s", rate * (double)figure->bytes * 1e-6);
    vex_line_real(&line, "p50_us", vex_samples_median(&figure->latencies_us));
    vex_line_real(&line, "p99_us", vex_samples_quantile(&figure->latencies_us, 0.99));
    return vex_line_end(&line);
}

static const char *limit_name(struct ingest *ingest, const struct load *load)
{
    if (load->of_batches) {
        return ingest->figures[FIGURE_STREAM].name;
    }
    double fdatasync_rate = vex_samples_median(&ingest->figures[FIGURE_FDATASYNC].rates);
    double dsync_rate = vex_samples_median(&ingest->figures[FIGURE_DSYNC].rates);
    return ingest->figures[dsync_rate > fdatasync_rate ? FIGURE_DSYNC : FIGURE_FDATASYNC].name;
}

/* What loads of both kinds say. */
static void put_load(struct ingest *ingest, struct load *load, struct vex_line *line)
{
    double rate = vex_samples_median(&load->rates);
    double value_bytes = (double)load->items * ingest->dim * sizeof(float);
    vex_line_count(line, "dim", ingest->dim);
    vex_line_count(line, "items", load->items);
    vex_line_count(line, "rounds", load->rates.count);
    vex_line_real(line, "writes_s", rate);
    vex_line_real(line, "vectors_s", rate * (double)load->items);
    vex_line_real(line, "mb_s", rate * value_bytes * 1e-6);
    vex_line_real(line, "p50_us", vex_samples_median(&load->latencies_us));
    vex_line_real(line, "p99_us", vex_samples_quantile(&load->latencies_us, 0.99));
    vex_line_text(line, "limit", limit_name(ingest, load));
    vex_line_real(line, "limit_writes_s", vex_samples_median(&load->disk_rates));
    vex_line_spread(line, "ratio", &load->ratios);
    if (!load->of_batches) {
        vex_line_count(line, "vs_clients", ingest->loads[0].clients);
        vex_line_real(line, "vs", vex_samples_median(&load->versus_first));
    }
}

static bool print_load(struct ingest *ingest, struct load *load)
{
    double writes = (double)load->writes;
    struct vex_line line;
    vex_line_begin(&line, load->of_batches ? "batch" : "insert");
    vex_line_count(&line, "clients", load->clients);
    vex_line_text(&line, "client_kind", "threads, each with its own connection");
    put_load(ingest, load, &line);
    vex_line_real(&line, "writes_per_commit", writes / (double)load->commits);
    vex_line_real(&line, "client_cpu_us", load->client_s * 1e6 / writes);
    vex_line_real(&line, "daemon_cpu_us", load->daemon_s * 1e6 / writes);
    vex_line_real(&line, "client_cores", load->client_s / load->wall_s);
    vex_line_real(&line, "daemon_cores", load->daemon_s / load->wall_s);
    return vex_line_end(&line);
}

static bool print_twin(struct ingest *ingest, struct load *load)
{
    struct vex_line line;
    vex_line_begin(&line, load->of_batches ? "peer_batch" : "peer_insert");
    vex_line_text(&line, "peer", vex_peer_name());
    vex_line_count(&line, "clients", load->clients);
    vex_line_text(&line, "client_kind", "threads, the store in their process");
    put_load(ingest, load, &line);
    vex_line_spread(&line, "vexdb_ratio", &load->versus_twin);
    vex_line_real(&line, "client_cpu_us", load->client_s * 1e6 / (double)load->writes);
    vex_line_real(&line, "client_cores", load->client_s / load->wall_s);
    return vex_line_end(&line);
}

static bool print_all(struct ingest *ingest)
{
    bool printed = true;
    for (int i = 0; i < FIGURES && printed; i++) {
        printed = print_disk(ingest, &ingest->figures[i]);
    }
    printed = printed && (!ingest->peer || vex_peer_print(ingest->peer));
    for (size_t i = 0; i < ingest->loads_count && printed; i++) {
        struct load *load = &ingest->loads[i];
        printed = load->to_peer ? print_twin(ingest, load) : print_load(ingest, load);
    }
    return printed;
}

/* ---- the run --------------------------------------------------------------------------------- */

static void add_loads(struct ingest *ingest, bool of_batches, const struct vex_bench_value *clients,
                      size_t items)
{
    for (size_t i = 0; i < clients->list_count; i++) {
        ingest->loads[ingest->loads_count++] = (struct load){
            .of_batches = of_batches,
            .clients = (unsigned)clients->list[i],
            .items = items,
        };
        if (ingest->values[PEERS].count) {
            struct load *twin = &ingest->loads[ingest->loads_count++];
            *twin = twin[-1];
            twin->to_peer = true;
        }
    }
}

static bool open_peer(struct ingest *ingest)
{
    return !ingest->values[PEERS].count || vex_peer_open(&ingest->peer, ingest->instance.root);
}

static bool connect_clients(struct ingest *ingest)
{
    unsigned wanted = 0;
    for (size_t i = 0; i < ingest->loads_count; i++) {
        wanted = ingest->loads[i].clients > wanted ? ingest->loads[i].clients : wanted;
    }
    while (ingest->connections_count < wanted && !vex_bench_stopped()) {
        if (!vex_instance_connect(&ingest->instance,
                                  &ingest->connections[ingest->connections_count])) {
            return false;
        }
        ingest->connections_count++;
    }
    return !vex_bench_stopped();
}

static bool open_disk(struct ingest *ingest)
{
    size_t vectors_bytes = ingest->values[BATCH].count * ingest->dim * sizeof(float);
    size_t batch_bytes = (vectors_bytes / VEX_DISK_BLOCK_BYTES + 1) * VEX_DISK_BLOCK_BYTES;
    if (!vex_disk_open(&ingest->disk, ingest->instance.root, batch_bytes)) {
        return false;
    }
    bool direct = vex_disk_has(&ingest->disk, VEX_DISK_DSYNC);
    ingest->figures[FIGURE_FDATASYNC] = (struct disk_figure){
        .name = "fdatasync",
        .bytes = VEX_DISK_BLOCK_BYTES,
        .method = VEX_DISK_FDATASYNC,
    };
    ingest->figures[FIGURE_DSYNC] = (struct disk_figure){
        .name = "dsync",
        .bytes = VEX_DISK_BLOCK_BYTES,
        .method = VEX_DISK_DSYNC,
    };
    ingest->figures[FIGURE_STREAM] = (struct disk_figure){
        .name = direct ? "dsync, as large as a batch" : "fdatasync, as large as a batch",
        .of_batches = true,
        .bytes = batch_bytes,
        .method = direct ? VEX_DISK_DSYNC : VEX_DISK_FDATASYNC,
    };
    return true;
}

static bool check_sizes(const struct vex_bench_value *values)
{
    double bytes = (double)values[BATCH].count * ((double)values[DIM].count * 4 + 8);
    return bytes <= VEX_BATCH_BYTES_MAX ||
           vex_bench_fail("a batch of %s vectors of %s is larger than %u bytes; lower --batch",
                          values[BATCH].text, values[DIM].text, VEX_BATCH_BYTES_MAX);
}

static void end(struct ingest *ingest)
{
    while (ingest->connections_count) {
        vex_close(ingest->connections[--ingest->connections_count]);
    }
    vex_disk_close(&ingest->disk);
    for (int i = 0; i < FIGURES; i++) {
        vex_samples_deinit(&ingest->figures[i].rates);
        vex_samples_deinit(&ingest->figures[i].latencies_us);
    }
    for (size_t i = 0; i < ingest->loads_count; i++) {
        struct load *load = &ingest->loads[i];
        vex_samples_deinit(&load->rates);
        vex_samples_deinit(&load->latencies_us);
        vex_samples_deinit(&load->disk_rates);
        vex_samples_deinit(&load->ratios);
        vex_samples_deinit(&load->versus_first);
        vex_samples_deinit(&load->versus_twin);
    }
    vex_peer_close(ingest->peer);
    vex_instance_close(&ingest->instance);
    free(ingest);
}

static bool run(const struct vex_bench_value *values)
{
    struct ingest *ingest = vex_bench_alloc(1, sizeof(*ingest));
    ingest->values = values;
    ingest->dim = (uint32_t)values[DIM].count;
    add_loads(ingest, false, &values[CLIENTS], 1);
    add_loads(ingest, true, &values[BATCH_CLIENTS], values[BATCH].count);
    bool sound = check_sizes(values) && vex_instance_open(&ingest->instance, &values[DIR]);
    if (sound && ingest->instance.in_memory) {
        sound = vex_bench_fail("%s is in memory (%s): nothing is durable there; give a --dir on a "
                               "disk",
                               ingest->instance.root, ingest->instance.file_system);
    }
    sound = sound && open_peer(ingest) && open_disk(ingest) && connect_clients(ingest) &&
            run_rounds(ingest, false) && run_rounds(ingest, true) && print_all(ingest);
    end(ingest);
    return sound;
}

const struct vex_bench vex_bench_ingest = {
    "ingest",
    "durable writes beside the disk's own rate",
    options,
    run,
};
