/*
 * Clients that break the rules of the command channel, on raw sockets: whatever they send, and
 * wherever they stop, the daemon lives, says precisely what was wrong, and serves everybody else as
 * if nothing had happened. What everybody else sees is asked of a witness after each case.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shm/control.h"
#include "shm/pin.h"
#include "shm/wire.h"
#include "tests/integration/check.h"
#include "tests/lib/random.h"

#define DIM 4
#define REPLY_SECONDS 10
#define BODY_MAX 4096

/* ---- the witness ----------------------------------------------------------------------------- */

struct scene {
    struct vex_fixture fixture;
    struct vex_db *db;
    struct vex_collection *points;
    uint32_t collection_id;
    unsigned rounds;
    struct totals before;
};

static void look_again(struct scene *scene)
{
    assert_true(vex_fixture_is_running(&scene->fixture));
    const float vector[DIM] = {(float)++scene->rounds, 1, 2, 3};
    assert_ok(vex_upsert(scene->points, 1, vector, DIM, "witness", 7, NULL, sink));
    assert_holds(scene->points, 1, vector, DIM, "witness", 7);
    assert_int_equal(count_of(scene->points), 1);
    scene->before = totals_of(scene->db);
}

static int scene_begin(void **state)
{
    struct scene *scene = test_calloc(1, sizeof(*scene));
    vex_fixture_init(&scene->fixture);
    vex_fixture_start(&scene->fixture, NULL);
    scene->db = vex_fixture_open(&scene->fixture);
    scene->points = vex_fixture_collection(scene->db, "points", DIM, VEX_METRIC_L2);
    struct vex_collection_info info = {.size = sizeof(info)};
    assert_ok(vex_collection_describe(scene->points, &info, sink));
    scene->collection_id = info.id;
    look_again(scene);
    *state = scene;
    return 0;
}

static int scene_end(void **state)
{
    struct scene *scene = *state;
    vex_collection_close(scene->points);
    vex_close(scene->db);
    int result = vex_fixture_deinit(&scene->fixture);
    test_free(scene);
    return result;
}

/* ---- raw sockets ----------------------------------------------------------------------------- */

static int try_connect(const struct scene *scene, int flags)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length = snprintf(address.sun_path, sizeof(address.sun_path), "%s/vexd.sock",
                          scene->fixture.directory);
    assert_true(length > 0 && (size_t)length < sizeof(address.sun_path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    assert_true(fd >= 0);
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        (void)close(fd);
        return -1;
    }
    const struct timeval limit = {REPLY_SECONDS, 0};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
    return fd;
}

static int raw_connect(const struct scene *scene)
{
    int fd = try_connect(scene, 0);
    assert_true(fd >= 0);
    return fd;
}

static void raw_send(int fd, const void *data, size_t bytes)
{
    assert_int_equal(send(fd, data, bytes, MSG_NOSIGNAL), (ssize_t)bytes);
}

static struct vex_frame_head head_of(uint16_t op, uint64_t request, uint32_t body_bytes)
{
    return (struct vex_frame_head){
        .magic = VEX_WIRE_MAGIC,
        .version = VEX_WIRE_VERSION,
        .op = op,
        .body_bytes = body_bytes,
        .request = request,
    };
}

static void send_frame(int fd, uint16_t op, uint64_t request, const void *body, size_t bytes)
{
    struct vex_frame_head head = head_of(op, request, (uint32_t)bytes);
    raw_send(fd, &head, sizeof(head));
    if (bytes) {
        raw_send(fd, body, bytes);
    }
}

static bool receive_all(int fd, void *into, size_t bytes, int *out_fd)
{
    for (size_t done = 0; done < bytes;) {
        struct iovec piece = {(uint8_t *)into + done, bytes - done};
        union {
            char bytes[CMSG_SPACE(sizeof(int))];
            struct cmsghdr align;
        } control;
        struct msghdr message = {
            .msg_iov = &piece,
            .msg_iovlen = 1,
            .msg_control = control.bytes,
            .msg_controllen = sizeof(control.bytes),
        };
        ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            fail_msg("no reply within %d s", REPLY_SECONDS);
        }
        if (got <= 0) {
            return false;
        }
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        if (header && header->cmsg_type == SCM_RIGHTS) {
            int passed;
            memcpy(&passed, CMSG_DATA(header), sizeof(passed));
            if (out_fd) {
                *out_fd = passed;
            } else {
                (void)close(passed);
            }
        }
        done += (size_t)got;
    }
    return true;
}

struct reply {
    struct vex_frame_head head;
    uint8_t body[BODY_MAX + 1]; /* an error's text ends with a NUL */
    int fd;
};

/* False if the daemon closed the connection instead. */
static bool receive(int fd, struct reply *reply)
{
    reply->fd = -1;
    if (!receive_all(fd, &reply->head, sizeof(reply->head), &reply->fd)) {
        return false;
    }
    assert_int_equal(reply->head.magic, VEX_WIRE_MAGIC);
    assert_int_equal(reply->head.version, VEX_WIRE_VERSION);
    assert_int_equal(reply->head.body_bytes % 8, 0);
    assert_true(reply->head.body_bytes <= BODY_MAX);
    reply->body[reply->head.body_bytes] = 0;
    return receive_all(fd, reply->body, reply->head.body_bytes, NULL);
}

static void expect_reply(int fd, enum vex_status status, uint64_t request, const char *word)
{
    struct reply reply;
    if (!receive(fd, &reply)) {
        fail_msg("closed instead of a reply with %s", vex_status_name(status));
    }
    const char *text = reply.head.status == VEX_OK ? "" : (const char *)reply.body;
    if (reply.head.status != (uint32_t)status || reply.head.request != request ||
        (word && !strstr(text, word))) {
        fail_msg("request %llu: %s '%s' instead of request %llu: %s '%s'",
                 (unsigned long long)reply.head.request,
                 vex_status_name((enum vex_status)reply.head.status), text,
                 (unsigned long long)request, vex_status_name(status), word ? word : "");
    }
    if (reply.fd >= 0) {
        (void)close(reply.fd);
    }
}

static void expect_end(int fd)
{
    char byte;
    ssize_t got = recv(fd, &byte, 1, 0);
    if (got > 0 || (got < 0 && errno != ECONNRESET)) {
        fail_msg("the connection stays open");
    }
    (void)close(fd);
}

static void say_hello(int fd)
{
    struct vex_hello hello = {.layout_hash = vex_layout_hash(), .pid = 1};
    send_frame(fd, VEX_OP_HELLO, 7, &hello, sizeof(hello));
    expect_reply(fd, VEX_OK, 7, NULL);
}

static int greeted(const struct scene *scene)
{
    int fd = raw_connect(scene);
    say_hello(fd);
    return fd;
}

/* The connection is still good: a request is answered. */
static void expect_service(int fd)
{
    send_frame(fd, VEX_OP_STATS, 99, NULL, 0);
    expect_reply(fd, VEX_OK, 99, NULL);
}

static unsigned daemon_descriptors(const struct scene *scene)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/fd", scene->fixture.daemon);
    DIR *directory = opendir(path);
    assert_non_null(directory);
    unsigned count = 0;
    while (readdir(directory)) {
        count++;
    }
    (void)closedir(directory);
    return count;
}

static uint64_t daemon_resident_kib(const struct scene *scene)
{
    char path[64];
    char line[256];
    unsigned long long kib = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/status", scene->fixture.daemon);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) && sscanf(line, "RssAnon: %llu", &kib) != 1) {
    }
    (void)fclose(file);
    return kib;
}

/* ---- frames ---------------------------------------------------------------------------------- */

static void garbage_is_answered_and_ends_the_connection(void **state)
{
    struct scene *scene = *state;
    struct vex_random random = vex_random_seeded(vex_random_announce(__func__));
    static const char http[] = "GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl\r\n\r\n";
    uint8_t bytes[5000];
    for (unsigned round = 0; round < 60; round++) {
        size_t length = 32 + vex_random_below(&random, sizeof(bytes) - 32);
        switch (round % 4) {
        case 0:
            vex_random_fill(&random, bytes, length);
            break;
        case 1:
            memset(bytes, round % 8 < 4 ? 0 : 0xff, length);
            break;
        case 2:
            length = sizeof(http);
            memcpy(bytes, http, length);
            break;
        default:
            length = 1 + vex_random_below(&random, 31); /* less than a head */
            vex_random_fill(&random, bytes, length);
        }
        bool early = round % 2;
        int fd = early ? raw_connect(scene) : greeted(scene);
        raw_send(fd, bytes, length);
        if (length >= 32) {
            expect_reply(fd, VEX_ERR_PROTOCOL, 0, "magic");
        } else {
            (void)shutdown(fd, SHUT_WR);
        }
        expect_end(fd);
    }
    assert_unchanged(scene->db, &scene->before);
    look_again(scene);
}

static void a_broken_head_is_named_and_ends_the_connection(void **state)
{
    struct scene *scene = *state;
    static const struct {
        struct vex_frame_head head;
        enum vex_status status;
        const char *word;
    } cases[] = {
        {{VEX_WIRE_MAGIC + 1, 1, VEX_OP_STATS, 0, 0, 5, 0}, VEX_ERR_PROTOCOL, "magic 57584557"},
        {{VEX_WIRE_MAGIC, 0, VEX_OP_STATS, 0, 0, 5, 0}, VEX_ERR_VERSION, "protocol 0"},
        {{VEX_WIRE_MAGIC, 2, VEX_OP_STATS, 0, 0, 5, 0}, VEX_ERR_VERSION, "protocol 2"},
        {{VEX_WIRE_MAGIC, 65535, VEX_OP_STATS, 0, 0, 5, 0}, VEX_ERR_VERSION, "protocol 65535"},
        {{VEX_WIRE_MAGIC, 1, VEX_OP_STATS, 7, 0, 5, 0}, VEX_ERR_PROTOCOL, "7 bytes"},
        {{VEX_WIRE_MAGIC, 1, VEX_OP_WRITE, VEX_WIRE_BODY_MAX + 8, 0, 5, 0},
         VEX_ERR_PROTOCOL,
         "bytes"},
        {{VEX_WIRE_MAGIC, 1, VEX_OP_WRITE, 0xfffffff8u, 0, 5, 0}, VEX_ERR_PROTOCOL, "4294967288"},
        {{VEX_WIRE_MAGIC, 1, VEX_OP_STATS, 0, 0, 5, 1}, VEX_ERR_PROTOCOL, "reserved"},
        {{VEX_WIRE_MAGIC, 1, VEX_OP_STATS, 0, 0, 5, 1ull << 63}, VEX_ERR_PROTOCOL, "reserved"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int welcomed = 0; welcomed < 2; welcomed++) {
            int fd = welcomed ? greeted(scene) : raw_connect(scene);
            raw_send(fd, &cases[i].head, sizeof(cases[i].head));
            expect_reply(fd, cases[i].status, 0, cases[i].word);
            expect_end(fd);
        }
    }
    assert_unchanged(scene->db, &scene->before);
    look_again(scene);
}

/* Silence in the middle of the largest frames that there are: they cost the daemon nothing yet. */
static void half_a_frame_and_silence_disturb_nobody(void **state)
{
    struct scene *scene = *state;
    enum { SILENT = 60 };
    int fds[SILENT];
    uint64_t before_kib = daemon_resident_kib(scene);
    static const uint8_t zeros[1000];
    for (int i = 0; i < SILENT; i++) {
        fds[i] = greeted(scene);
        struct vex_frame_head head = head_of(VEX_OP_WRITE, 1, VEX_WIRE_BODY_MAX);
        raw_send(fds[i], &head, i % 3 ? sizeof(head) : 17);
        if (i % 3 == 2) {
            raw_send(fds[i], zeros, sizeof(zeros));
        }
        look_again(scene);
    }
    uint64_t now_kib = daemon_resident_kib(scene);
    if (now_kib > before_kib + 64 * 1024) {
        fail_msg("%d idle connections cost %llu KiB", SILENT,
                 (unsigned long long)(now_kib - before_kib));
    }
    for (int i = 0; i < SILENT; i++) {
        (void)close(fds[i]);
    }
    look_again(scene);
}

static void frames_before_the_hello_are_refused(void **state)
{
    struct scene *scene = *state;
    for (uint16_t op = 0; op < 12; op++) {
        if (op == VEX_OP_HELLO) {
            continue;
        }
        int fd = raw_connect(scene);
        static const uint8_t body[sizeof(struct vex_create_body)];
        send_frame(fd, op, 3, body, op == VEX_OP_CREATE ? sizeof(body) : 0);
        expect_reply(fd, VEX_ERR_PROTOCOL, 3, "hello");
        expect_end(fd);
    }
    assert_unchanged(scene->db, &scene->before);
    look_again(scene);
}

static void one_hello_of_the_right_kind_is_wanted(void **state)
{
    struct scene *scene = *state;
    struct vex_hello hello[2] = {{.layout_hash = vex_layout_hash(), .pid = 1}};
    int fd = greeted(scene);
    send_frame(fd, VEX_OP_HELLO, 4, hello, sizeof(hello[0]));
    expect_reply(fd, VEX_ERR_PROTOCOL, 4, "once");
    expect_end(fd);
    static const size_t sizes[] = {0, 8, 24, 32};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        fd = raw_connect(scene);
        send_frame(fd, VEX_OP_HELLO, 4, hello, sizes[i]);
        expect_reply(fd, VEX_ERR_PROTOCOL, 4, "16 bytes");
        expect_end(fd);
    }
    for (int i = 0; i < 2; i++) {
        hello[0].layout_hash = i ? 0 : vex_layout_hash() + 1;
        fd = raw_connect(scene);
        send_frame(fd, VEX_OP_HELLO, 4, hello, sizeof(hello[0]));
        expect_reply(fd, VEX_ERR_VERSION, 4, "layout");
        expect_end(fd);
    }
    look_again(scene);
}

static void an_unknown_operation_is_refused_and_the_next_one_served(void **state)
{
    struct scene *scene = *state;
    int fd = greeted(scene);
    static const uint16_t ops[] = {0, 11, 12, 255, 256, 65535};
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        char word[32];
        (void)snprintf(word, sizeof(word), "operation %u", ops[i]);
        static const uint8_t body[64];
        send_frame(fd, ops[i], 1000 + i, body, i % 2 ? sizeof(body) : 0);
        expect_reply(fd, VEX_ERR_PROTOCOL, 1000 + i, word);
        expect_service(fd);
    }
    (void)close(fd);
    look_again(scene);
}

static void bytes_may_come_one_by_one(void **state)
{
    struct scene *scene = *state;
    int fd = raw_connect(scene);
    struct {
        struct vex_frame_head hello_head;
        struct vex_hello hello;
        struct vex_frame_head stats_head;
    } bytes = {
        .hello_head = head_of(VEX_OP_HELLO, 1, sizeof(struct vex_hello)),
        .hello = {.layout_hash = vex_layout_hash()},
        .stats_head = head_of(VEX_OP_STATS, 2, 0),
    };
    for (size_t i = 0; i < sizeof(bytes); i++) {
        raw_send(fd, (const uint8_t *)&bytes + i, 1);
    }
    expect_reply(fd, VEX_OK, 1, NULL);
    expect_reply(fd, VEX_OK, 2, NULL);
    (void)close(fd);
    look_again(scene);
}

/* ---- writes ---------------------------------------------------------------------------------- */

/* A correct write of two rows with payloads. */
struct two_rows {
    struct vex_write_head head;
    uint64_t ids[2];
    float vectors[2][DIM];
    uint32_t payload_bytes[2];
    char payloads[8];
};

_Static_assert(sizeof(struct two_rows) == 16 + 16 + 32 + 8 + 8, "no gaps");

static struct two_rows two_rows_of(const struct scene *scene)
{
    return (struct two_rows){
        .head = {scene->collection_id, VEX_WRITE_UPSERT, VEX_WRITE_PAYLOADS, 2, DIM},
        .ids = {500, 501},
        .vectors = {{1, 2, 3, 4}, {5, 6, 7, 8}},
        .payload_bytes = {3, 2},
        .payloads = "abcde",
    };
}

static void forget_two_rows(struct scene *scene)
{
    const uint64_t ids[2] = {500, 501};
    struct vex_batch batch = VEX_BATCH_INIT;
    batch.count = 2;
    batch.ids = ids;
    assert_ok(vex_write(scene->points, VEX_WRITE_DELETE, &batch, NULL, sink));
}

static void expect_write(struct scene *scene, int fd, const void *body, size_t bytes,
                         enum vex_status status, const char *word)
{
    send_frame(fd, VEX_OP_WRITE, 42, body, bytes);
    expect_reply(fd, status, 42, word);
    if (status != VEX_OK) {
        assert_unchanged(scene->db, &scene->before);
    }
}

#define EXPECT_MUTANT(field, value, status, word)                                                  \
    do {                                                                                           \
        struct two_rows mutant = two_rows_of(scene);                                               \
        mutant.field = (value);                                                                    \
        expect_write(scene, fd, &mutant, sizeof(mutant), (status), (word));                        \
    } while (0)

static void each_field_of_a_write_is_checked(void **state)
{
    struct scene *scene = *state;
    int fd = greeted(scene);
    struct two_rows good = two_rows_of(scene);
    expect_write(scene, fd, &good, sizeof(good), VEX_OK, NULL);
    const float second[DIM] = {5, 6, 7, 8};
    assert_holds(scene->points, 501, second, DIM, "de", 2);
    forget_two_rows(scene);
    look_again(scene);

    EXPECT_MUTANT(head.collection_id, 0, VEX_ERR_GONE, "number 0");
    EXPECT_MUTANT(head.collection_id, 4242, VEX_ERR_GONE, "number 4242");
    EXPECT_MUTANT(head.collection_id, UINT32_MAX, VEX_ERR_GONE, "number 4294967295");
    EXPECT_MUTANT(head.kind, 0, VEX_ERR_PROTOCOL, "kind 0");
    EXPECT_MUTANT(head.kind, 5, VEX_ERR_PROTOCOL, "kind 5");
    EXPECT_MUTANT(head.kind, 65535, VEX_ERR_PROTOCOL, "kind 65535");
    EXPECT_MUTANT(head.kind, VEX_WRITE_DELETE, VEX_ERR_PROTOCOL, "kind");
    EXPECT_MUTANT(head.kind, VEX_WRITE_UPDATE, VEX_ERR_NOT_FOUND, "500");
    EXPECT_MUTANT(head.flags, 4 | VEX_WRITE_PAYLOADS, VEX_ERR_PROTOCOL, "flags");
    EXPECT_MUTANT(head.flags, 0x8000, VEX_ERR_PROTOCOL, "flags");
    EXPECT_MUTANT(head.flags, VEX_WRITE_PAYLOADS | VEX_WRITE_AUTO_IDS, VEX_ERR_PROTOCOL, "ids");
    EXPECT_MUTANT(head.flags, 0, VEX_ERR_PROTOCOL, "longer");
    EXPECT_MUTANT(head.count, 0, VEX_ERR_LIMIT, "0 items");
    EXPECT_MUTANT(head.count, VEX_BATCH_COUNT_MAX + 1, VEX_ERR_LIMIT, "1048577");
    EXPECT_MUTANT(head.count, UINT32_MAX, VEX_ERR_LIMIT, "4294967295");
    EXPECT_MUTANT(head.count, VEX_BATCH_COUNT_MAX, VEX_ERR_PROTOCOL, "ids");
    EXPECT_MUTANT(head.count, 3, VEX_ERR_PROTOCOL, "vectors");
    /* One row fewer: its length is read out of the second vector. */
    EXPECT_MUTANT(head.count, 1, VEX_ERR_LIMIT, "payload");
    EXPECT_MUTANT(head.dim, 0, VEX_ERR_PROTOCOL, "imension");
    EXPECT_MUTANT(head.dim, VEX_DIM_MAX + 1, VEX_ERR_PROTOCOL, "imension");
    EXPECT_MUTANT(head.dim, UINT32_MAX, VEX_ERR_PROTOCOL, "imension");
    EXPECT_MUTANT(head.dim, VEX_DIM_MAX, VEX_ERR_PROTOCOL, "vectors");
    EXPECT_MUTANT(head.dim, 6, VEX_ERR_PROTOCOL, "lengths");
    EXPECT_MUTANT(ids[1], UINT64_MAX, VEX_ERR_LIMIT, "item 1");
    EXPECT_MUTANT(vectors[1][3], NAN, VEX_ERR_NOT_FINITE, "item 1");
    EXPECT_MUTANT(vectors[0][0], -INFINITY, VEX_ERR_NOT_FINITE, "item 0");
    EXPECT_MUTANT(payload_bytes[0], VEX_PAYLOAD_MAX + 1, VEX_ERR_LIMIT, "item 0");
    EXPECT_MUTANT(payload_bytes[1], UINT32_MAX - 1, VEX_ERR_LIMIT, "item 1");
    EXPECT_MUTANT(payload_bytes[1], 6, VEX_ERR_PROTOCOL, "shorter");
    EXPECT_MUTANT(payload_bytes[1], VEX_PAYLOAD_MAX, VEX_ERR_PROTOCOL, "shorter");
    EXPECT_MUTANT(payload_bytes[1], VEX_NO_PAYLOAD, VEX_ERR_PROTOCOL, "padding");
    EXPECT_MUTANT(payloads[7], 1, VEX_ERR_PROTOCOL, "padding");

    for (size_t bytes = 0; bytes < sizeof(good); bytes += 8) { /* cut short at every place */
        expect_write(scene, fd, &good, bytes, VEX_ERR_PROTOCOL, "write:");
    }
    struct {
        struct two_rows rows;
        uint64_t more;
    } longer = {good, 0};
    expect_write(scene, fd, &longer, sizeof(longer), VEX_ERR_PROTOCOL, "longer");
    look_again(scene);
    (void)close(fd);
}

static void other_dimensions_and_made_ids_are_checked(void **state)
{
    struct scene *scene = *state;
    int fd = greeted(scene);
    struct {
        struct vex_write_head head;
        uint64_t id;
        float vector[2];
    } narrow = {{scene->collection_id, VEX_WRITE_INSERT, 0, 1, 2}, 700, {1, 2}};
    expect_write(scene, fd, &narrow, sizeof(narrow), VEX_ERR_DIM, "dimension 2");
    struct {
        struct vex_write_head head;
        uint64_t first_id;
        float vector[DIM];
    } made = {{scene->collection_id, VEX_WRITE_INSERT, VEX_WRITE_AUTO_IDS, 1, DIM}, 0, {1}};
    /* The number is the coordinator's to choose, whatever stands there. */
    static const uint64_t wishes[] = {0, 1, 12345, UINT64_MAX};
    for (size_t i = 0; i < sizeof(wishes) / sizeof(wishes[0]); i++) {
        made.first_id = wishes[i];
        send_frame(fd, VEX_OP_WRITE, 5, &made, sizeof(made));
        struct reply reply;
        assert_true(receive(fd, &reply));
        if (reply.head.status == VEX_OK) {
            struct vex_ack_body ack;
            assert_int_equal(reply.head.body_bytes, sizeof(ack));
            memcpy(&ack, reply.body, sizeof(ack));
            assert_int_equal(ack.first_id, 2 + i);
            assert_ok(vex_delete(scene->points, 2 + i, NULL, sink));
        } else {
            assert_true(reply.head.status == VEX_ERR_PROTOCOL ||
                        reply.head.status == VEX_ERR_LIMIT);
        }
    }
    look_again(scene);
    (void)close(fd);
}

/* Bits flipped at random: whatever the answer is, the daemon and its state stay sound. */
static void damaged_writes_do_no_damage(void **state)
{
    struct scene *scene = *state;
    struct vex_random random = vex_random_seeded(vex_random_announce(__func__));
    int fd = greeted(scene);
    unsigned accepted = 0;
    for (unsigned round = 0; round < 3000; round++) {
        struct two_rows rows = two_rows_of(scene);
        rows.head.kind = (uint16_t)(1 + vex_random_below(&random, 3));
        uint8_t *bytes = (uint8_t *)&rows;
        size_t damages = 1 + vex_random_below(&random, 4);
        for (size_t i = 0; i < damages; i++) {
            /* Mostly in the head and the lengths, where it hurts. */
            size_t at = vex_random_once_in(&random, 2) ? vex_random_below(&random, 16)
                                                       : vex_random_below(&random, sizeof(rows));
            bytes[at] ^= (uint8_t)(1u << vex_random_below(&random, 8));
        }
        size_t length =
            vex_random_once_in(&random, 5) ? 8 * vex_random_below(&random, 11) : sizeof(rows);
        send_frame(fd, VEX_OP_WRITE, round, &rows, length);
        struct reply reply;
        assert_true(receive(fd, &reply));
        assert_int_equal(reply.head.request, round);
        accepted += reply.head.status == VEX_OK;
    }
    assert_true(accepted > 0 && accepted < 3000);
    (void)close(fd);
    uint64_t count = count_of(scene->points);
    struct totals before = totals_of(scene->db);
    assert_int_equal(before.live_rows, count);
    /* And what was accepted can be read back by the next daemon. */
    (void)vex_fixture_kill(&scene->fixture);
    vex_fixture_start(&scene->fixture, NULL);
    assert_int_equal(count_of(scene->points), count);
    assert_true(vex_fixture_is_running(&scene->fixture));
}

static void bodies_of_create_and_drop_are_checked(void **state)
{
    struct scene *scene = *state;
    int fd = greeted(scene);
    struct {
        struct vex_create_body body;
        uint64_t more;
    } create = {.body = {.dim = 2, .metric = VEX_METRIC_L2, .name = "made"}};
    static const size_t sizes[] = {0, 8, 72, 104};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        send_frame(fd, VEX_OP_CREATE, i, &create, sizes[i]);
        expect_reply(fd, VEX_ERR_PROTOCOL, i, "96 bytes");
        send_frame(fd, VEX_OP_DROP, i, &create, sizes[i] == 72 ? 64 : sizes[i]);
        expect_reply(fd, VEX_ERR_PROTOCOL, i, "72 bytes");
    }
#define EXPECT_CREATE(field, value, status, word)                                                  \
    do {                                                                                           \
        struct vex_create_body mutant = create.body;                                               \
        mutant.field = (value);                                                                    \
        send_frame(fd, VEX_OP_CREATE, 8, &mutant, sizeof(mutant));                                 \
        expect_reply(fd, (status), 8, (word));                                                     \
    } while (0)
    EXPECT_CREATE(dim, 0, VEX_ERR_DIM, "0");
    EXPECT_CREATE(dim, VEX_DIM_MAX + 1, VEX_ERR_DIM, "65536");
    EXPECT_CREATE(metric, 0, VEX_ERR_INVALID, "metric 0");
    EXPECT_CREATE(metric, 4, VEX_ERR_INVALID, "metric 4");
    EXPECT_CREATE(metric, UINT32_MAX, VEX_ERR_INVALID, "metric");
    EXPECT_CREATE(index, 4, VEX_ERR_INVALID, "index 4");
    EXPECT_CREATE(index, UINT32_MAX, VEX_ERR_INVALID, "index");
    EXPECT_CREATE(m, 3, VEX_ERR_INVALID, "M 3");
    EXPECT_CREATE(m, 65, VEX_ERR_INVALID, "M 65");
    EXPECT_CREATE(ef_construction, 7, VEX_ERR_INVALID, "ef_construction 7");
    EXPECT_CREATE(ef_construction, 4097, VEX_ERR_INVALID, "ef_construction 4097");
    EXPECT_CREATE(storage, 3, VEX_ERR_INVALID, "storage 3");
    EXPECT_CREATE(storage, UINT32_MAX, VEX_ERR_INVALID, "storage");
    EXPECT_CREATE(lists, VEX_LISTS_MAX + 1, VEX_ERR_INVALID, "65537 lists");
    EXPECT_CREATE(name[0], 0, VEX_ERR_INVALID, "empty");
    EXPECT_CREATE(name[0], '.', VEX_ERR_INVALID, "'.'");
    EXPECT_CREATE(name[2], '/', VEX_ERR_INVALID, "consists");
#undef EXPECT_CREATE
    struct vex_create_body endless = create.body;
    memset(endless.name, 'e', sizeof(endless.name)); /* no NUL at all */
    send_frame(fd, VEX_OP_CREATE, 9, &endless, sizeof(endless));
    expect_reply(fd, VEX_ERR_INVALID, 9, "63");
    struct vex_drop_body drop;
    memset(&drop, 'e', sizeof(drop));
    send_frame(fd, VEX_OP_DROP, 9, &drop, sizeof(drop));
    expect_reply(fd, VEX_ERR_NO_COLLECTION, 9, "eee");
    assert_unchanged(scene->db, &scene->before);
    /* What stands behind the name's end is nobody's business and does not get into the log. */
    memset(create.body.name + 5, 0xee, sizeof(create.body.name) - 5);
    create.body.collection_id = 9999;
    send_frame(fd, VEX_OP_CREATE, 10, &create.body, sizeof(create.body));
    expect_reply(fd, VEX_OK, 10, NULL);
    (void)close(fd);
    (void)vex_fixture_kill(&scene->fixture);
    vex_fixture_start(&scene->fixture, NULL);
    struct vex_collection *made = vex_fixture_collection(scene->db, "made", 2, VEX_METRIC_L2);
    struct vex_collection_info info = {.size = sizeof(info)};
    assert_ok(vex_collection_describe(made, &info, sink));
    assert_int_equal(info.id, scene->collection_id + 1);
    vex_collection_close(made);
    look_again(scene);
}

static void bodies_of_alter_and_index_are_checked(void **state)
{
    struct scene *scene = *state;
    int fd = greeted(scene);
    struct {
        struct vex_alter_body body;
        uint64_t more;
    } alter = {.body = {.changes = VEX_CHANGES_M, .m = 20, .name = "points"}};
    static const size_t sizes[] = {0, 8, 80, 96};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        send_frame(fd, VEX_OP_ALTER, i, &alter, sizes[i]);
        expect_reply(fd, VEX_ERR_PROTOCOL, i, "88 bytes");
        send_frame(fd, VEX_OP_INDEX, i, &alter, sizes[i]);
        expect_reply(fd, VEX_ERR_PROTOCOL, i, "72 bytes");
    }
    alter.body.changes = UINT32_MAX;
    send_frame(fd, VEX_OP_ALTER, 8, &alter.body, sizeof(alter.body));
    expect_reply(fd, VEX_ERR_INVALID, 8, "changes ffffffff");
    alter.body.changes = VEX_CHANGES_ALL;
    alter.body.index = UINT32_MAX;
    send_frame(fd, VEX_OP_ALTER, 8, &alter.body, sizeof(alter.body));
    expect_reply(fd, VEX_ERR_INVALID, 8, "unknown kind of index");
    struct vex_drop_body which;
    memset(&which, 'e', sizeof(which)); /* no NUL at all */
    send_frame(fd, VEX_OP_INDEX, 9, &which, sizeof(which));
    expect_reply(fd, VEX_ERR_NO_COLLECTION, 9, "eee");
    memset(alter.body.name, 'e', sizeof(alter.body.name));
    send_frame(fd, VEX_OP_ALTER, 9, &alter.body, sizeof(alter.body));
    expect_reply(fd, VEX_ERR_NO_COLLECTION, 9, "eee");
    (void)close(fd);
    assert_unchanged(scene->db, &scene->before);
    look_again(scene);
}

/* ---- connections that end -------------------------------------------------------------------- */

static bool has_descriptors(void *context)
{
    struct {
        struct scene *scene;
        unsigned count;
    } *wanted = context;
    return daemon_descriptors(wanted->scene) <= wanted->count;
}

static void a_connection_may_end_at_every_byte(void **state)
{
    struct scene *scene = *state;
    struct {
        struct vex_frame_head hello_head;
        struct vex_hello hello;
        struct vex_frame_head page_head;
        struct vex_frame_head write_head;
        struct two_rows rows;
        struct vex_frame_head stats_head;
    } bytes = {
        .hello_head = head_of(VEX_OP_HELLO, 1, sizeof(struct vex_hello)),
        .hello = {.layout_hash = vex_layout_hash()},
        .page_head = head_of(VEX_OP_SLOT_PAGE, 2, 0),
        .write_head = head_of(VEX_OP_WRITE, 3, sizeof(struct two_rows)),
        .rows = two_rows_of(scene),
        .stats_head = head_of(VEX_OP_STATS, 4, 0),
    };
    struct {
        struct scene *scene;
        unsigned count;
    } wanted = {scene, daemon_descriptors(scene)};
    for (size_t length = 0; length <= sizeof(bytes); length++) {
        for (int how = 0; how < 3; how++) {
            int fd = raw_connect(scene);
            raw_send(fd, &bytes, length);
            if (how == 1) {
                (void)shutdown(fd, SHUT_WR);
            } else if (how == 2) {
                (void)shutdown(fd, SHUT_RD);
            }
            (void)close(fd);
        }
        if (length % 16 == 0) {
            assert_true(vex_fixture_is_running(&scene->fixture));
        }
    }
    assert_true(vex_fixture_eventually(has_descriptors, &wanted, 10000));
    /* The write may have arrived or not, but not half of it. One more commit, so that whatever was
     * staged for a client that has gone is published. */
    assert_ok(
        vex_upsert(scene->points, 1, (const float[DIM]){1, 1, 2, 3}, DIM, NULL, 0, NULL, sink));
    uint64_t count = count_of(scene->points);
    assert_true(count == 1 || count == 3);
    if (count == 3) {
        forget_two_rows(scene);
    }
    look_again(scene);
}

/* Descriptors that a client sends along are closed, not collected. */
static void descriptors_sent_to_the_daemon_do_not_stay(void **state)
{
    struct scene *scene = *state;
    int fd = greeted(scene);
    struct {
        struct scene *scene;
        unsigned count;
    } wanted = {scene, daemon_descriptors(scene)};
    for (uint64_t i = 0; i < 50; i++) {
        struct vex_frame_head head = head_of(VEX_OP_STATS, i, 0);
        struct iovec piece = {&head, sizeof(head)};
        union {
            char bytes[CMSG_SPACE(4 * sizeof(int))];
            struct cmsghdr align;
        } control = {{0}};
        struct msghdr message = {
            .msg_iov = &piece,
            .msg_iovlen = 1,
            .msg_control = control.bytes,
            .msg_controllen = sizeof(control.bytes),
        };
        const int passed[4] = {fd, STDIN_FILENO, fd, fd};
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(passed));
        memcpy(CMSG_DATA(header), passed, sizeof(passed));
        assert_int_equal(sendmsg(fd, &message, MSG_NOSIGNAL), sizeof(head));
        expect_reply(fd, VEX_OK, i, NULL);
    }
    assert_true(vex_fixture_eventually(has_descriptors, &wanted, 5000));
    (void)close(fd);
    look_again(scene);
}

/* ---- crowds ---------------------------------------------------------------------------------- */

static bool witness_of_crowd(void *context)
{
    struct scene *scene = context;
    struct vex_open_options options = vex_fixture_open_options();
    struct vex_db *db = NULL;
    enum vex_status status = vex_open(scene->fixture.directory, &options, &db, NULL);
    vex_close(db);
    return status == VEX_OK;
}

static void a_crowd_of_connections_is_kept_out_and_let_in_again(void **state)
{
    struct scene *scene = *state;
    enum { CROWD = 1100, CLIENTS_MOST = 1023 /* and the witness */ };
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur < CROWD + 100 && limit.rlim_max >= CROWD + 100) {
        limit.rlim_cur = CROWD + 100;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    }
    if (limit.rlim_cur < CROWD + 100) {
        print_message("skipped: only %llu descriptors allowed\n",
                      (unsigned long long)limit.rlim_cur);
        skip();
    }
    struct {
        struct scene *scene;
        unsigned count;
    } wanted = {scene, daemon_descriptors(scene)};
    int *fds = test_malloc(CROWD * sizeof(*fds));
    struct {
        struct vex_frame_head head;
        struct vex_hello hello;
    } hello = {head_of(VEX_OP_HELLO, 1, sizeof(struct vex_hello)),
               {.layout_hash = vex_layout_hash()}};
    for (int silent = 0; silent < 2; silent++) {
        unsigned connected = 0;
        for (int i = 0; i < CROWD; i++) {
            /* Where the queue of the listener is full a connect that waits would wait for long. */
            fds[i] = try_connect(scene, SOCK_NONBLOCK);
            for (int attempt = 0; fds[i] < 0 && attempt < 5000 && connected < CLIENTS_MOST;
                 attempt++) {
                vex_fixture_pause_ms(1);
                fds[i] = try_connect(scene, SOCK_NONBLOCK);
            }
            connected += fds[i] >= 0;
            if (fds[i] >= 0 && !silent) {
                raw_send(fds[i], &hello, sizeof(hello));
            }
            if (i % 100 == 0) {
                look_again(scene);
            }
        }
        assert_true(connected >= CLIENTS_MOST);
        look_again(scene);
        struct vex_stats stats = {.size = sizeof(stats)};
        assert_ok(vex_get_stats(scene->db, &stats, sink));
        assert_true(stats.clients <= 1024);
        if (silent) {
            /* Those who say nothing are put out, so that somebody new gets in. */
            assert_true(vex_fixture_eventually(witness_of_crowd, scene, 20000));
        }
        for (int i = 0; i < CROWD; i++) {
            if (fds[i] >= 0) {
                (void)close(fds[i]);
            }
        }
        assert_true(vex_fixture_eventually(witness_of_crowd, scene, 10000));
        assert_true(vex_fixture_eventually(has_descriptors, &wanted, 10000));
        look_again(scene);
    }
    test_free(fds);
}

/* A refusal that rests on a record comes after that record is there for everybody: otherwise who is told
 * "it exists" might look for it in vain. */
static void a_refusal_waits_for_what_it_rests_on(void **state)
{
    struct scene *scene = *state;
    for (unsigned round = 0; round < 50; round++) {
        int fd = greeted(scene);
        struct {
            struct vex_frame_head first_head;
            struct vex_create_body first;
            struct vex_frame_head second_head;
            struct vex_create_body second;
            struct vex_frame_head drop_head;
            struct vex_drop_body drop;
        } bytes = {
            .first_head = head_of(VEX_OP_CREATE, 1, sizeof(struct vex_create_body)),
            .first = {.dim = 4, .metric = VEX_METRIC_L2, .name = "again"},
            .second_head = head_of(VEX_OP_CREATE, 2, sizeof(struct vex_create_body)),
            .second = {.dim = 4, .metric = VEX_METRIC_L2, .name = "again"},
            .drop_head = head_of(VEX_OP_DROP, 3, sizeof(struct vex_drop_body)),
            .drop = {.name = "again"},
        };
        raw_send(fd, &bytes, sizeof(bytes));
        expect_reply(fd, VEX_OK, 1, NULL);
        expect_reply(fd, VEX_ERR_EXISTS, 2, "again");
        expect_reply(fd, VEX_OK, 3, NULL);
        (void)close(fd);
    }
    look_again(scene);
}

/* Sends until the daemon cuts it off; gives up after so many frames. */
static uint64_t send_without_reading(int fd, const void *frame, size_t bytes, uint64_t frames_max)
{
    uint64_t frames = 0;
    size_t done = 0;
    while (frames < frames_max) {
        struct pollfd ready = {.fd = fd, .events = POLLOUT};
        if (poll(&ready, 1, REPLY_SECONDS * 1000) <= 0) {
            return frames; /* neither taken nor cut off */
        }
        ssize_t put =
            send(fd, (const uint8_t *)frame + done, bytes - done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (put < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            continue;
        }
        if (put < 0) {
            return UINT64_MAX;
        }
        done += (size_t)put;
        if (done == bytes) {
            done = 0;
            frames++;
        }
    }
    return frames;
}

static void a_client_that_never_reads_is_cut_off(void **state)
{
    struct scene *scene = *state;
    /* Refusals, statistics and acknowledgements pile up alike. */
    struct {
        struct vex_frame_head head;
        struct two_rows rows;
    } write = {head_of(VEX_OP_WRITE, 1, sizeof(struct two_rows)), two_rows_of(scene)};
    struct vex_frame_head unknown = head_of(77, 1, 0);
    struct vex_frame_head stats = head_of(VEX_OP_STATS, 1, 0);
    const struct {
        const void *frame;
        size_t bytes;
    } kinds[] = {{&unknown, sizeof(unknown)}, {&stats, sizeof(stats)}, {&write, sizeof(write)}};
    uint64_t before_kib = daemon_resident_kib(scene);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        int fd = greeted(scene);
        uint64_t frames = send_without_reading(fd, kinds[i].frame, kinds[i].bytes, 400000);
        if (frames != UINT64_MAX) {
            fail_msg("kind %zu: %llu frames taken and no end", i, (unsigned long long)frames);
        }
        (void)close(fd);
        if (i == 2) {
            assert_true(exists_in(scene->points, 500));
            forget_two_rows(scene);
        }
        look_again(scene);
    }
    assert_true(daemon_resident_kib(scene) < before_kib + 200 * 1024);
}

/* ---- slot pages ------------------------------------------------------------------------------ */

/* Several requests in one piece, as threads of one client may produce them. */
static void a_slot_page_may_be_asked_for_behind_other_requests(void **state)
{
    struct scene *scene = *state;
    int fd = greeted(scene);
    struct vex_frame_head heads[4] = {
        head_of(VEX_OP_STATS, 1, 0),
        head_of(VEX_OP_SLOT_PAGE, 2, 0),
        head_of(VEX_OP_STATS, 3, 0),
        head_of(VEX_OP_SLOT_PAGE, 4, 0),
    };
    raw_send(fd, heads, sizeof(heads));
    bool page_came[2] = {false, false};
    for (int i = 0; i < 4; i++) {
        struct reply reply;
        assert_true(receive(fd, &reply));
        if (reply.head.status != VEX_OK) {
            fail_msg("request %llu: %s", (unsigned long long)reply.head.request, reply.body);
        }
        if (reply.head.op == VEX_OP_SLOT_PAGE) {
            assert_true(reply.fd >= 0);
            page_came[reply.head.request / 2 - 1] = true;
            (void)close(reply.fd);
        }
    }
    assert_true(page_came[0] && page_came[1]);
    (void)close(fd);
    look_again(scene);
}

static void slot_pages_are_limited(void **state)
{
    struct scene *scene = *state;
    int fd = greeted(scene); /* has one */
    for (uint64_t i = 0; i < 63; i++) {
        send_frame(fd, VEX_OP_SLOT_PAGE, i, NULL, 0);
        expect_reply(fd, VEX_OK, i, NULL);
    }
    for (uint64_t i = 0; i < 3; i++) {
        send_frame(fd, VEX_OP_SLOT_PAGE, i, NULL, 0);
        expect_reply(fd, VEX_ERR_LIMIT, i, "4032");
    }
    expect_service(fd);
    (void)close(fd);
    look_again(scene);
}

static bool little_memory_is_held(void *context)
{
    struct scene *scene = context;
    struct vex_stats stats = {.size = sizeof(stats)};
    return vex_get_stats(scene->db, &stats, NULL) == VEX_OK && stats.shm_bytes < 6u << 20;
}

static void drop_something_large(struct scene *scene)
{
    struct vex_collection *large = vex_fixture_collection(scene->db, "large", 1024, VEX_METRIC_L2);
    float *rows = test_calloc(2000 * 1024, sizeof(*rows));
    struct vex_batch batch = VEX_BATCH_INIT;
    batch.count = 2000;
    batch.vectors = rows;
    batch.dim = 1024;
    assert_ok(vex_write(large, VEX_WRITE_INSERT, &batch, NULL, sink));
    test_free(rows);
    vex_collection_close(large);
    assert_ok(vex_collection_drop(scene->db, "large", sink));
}

/* A client can write anything into its own page. At worst it keeps memory, for as long as it lives. */
static void scribbling_into_a_slot_page_harms_nobody(void **state)
{
    struct scene *scene = *state;
    struct vex_random random = vex_random_seeded(vex_random_announce(__func__));
    for (int round = 0; round < 4; round++) {
        int fd = raw_connect(scene);
        struct vex_hello hello = {.layout_hash = vex_layout_hash()};
        send_frame(fd, VEX_OP_HELLO, 1, &hello, sizeof(hello));
        struct reply reply;
        assert_true(receive(fd, &reply));
        assert_true(reply.fd >= 0);
        /* Neither side can shrink it under the other. */
        assert_int_equal(ftruncate(reply.fd, 0), -1);
        uint8_t *page = mmap(NULL, sizeof(struct vex_slot_page), PROT_READ | PROT_WRITE, MAP_SHARED,
                             reply.fd, 0);
        assert_ptr_not_equal(page, MAP_FAILED);
        (void)close(reply.fd);
        if (round == 0) {
            memset(page, 0xff, sizeof(struct vex_slot_page));
        } else if (round == 1) {
            vex_random_fill(&random, page, sizeof(struct vex_slot_page));
        } else if (round == 2) {
            struct vex_slot_page *slots = (struct vex_slot_page *)(void *)page;
            atomic_store(&slots->slots[62].pinned, 1); /* pins the first generation of all */
        }
        drop_something_large(scene);
        look_again(scene);
        if (round < 3) {
            assert_false(vex_fixture_eventually(little_memory_is_held, scene, 100));
        }
        (void)close(fd);
        assert_true(vex_fixture_eventually(little_memory_is_held, scene, 10000));
        (void)munmap(page, sizeof(struct vex_slot_page));
    }
    look_again(scene);
}

int main(void)
{
#define SCENE(test) cmocka_unit_test_setup_teardown(test, scene_begin, scene_end)
    const struct CMUnitTest tests[] = {
        SCENE(garbage_is_answered_and_ends_the_connection),
        SCENE(a_broken_head_is_named_and_ends_the_connection),
        SCENE(half_a_frame_and_silence_disturb_nobody),
        SCENE(frames_before_the_hello_are_refused),
        SCENE(one_hello_of_the_right_kind_is_wanted),
        SCENE(an_unknown_operation_is_refused_and_the_next_one_served),
        SCENE(bytes_may_come_one_by_one),
        SCENE(each_field_of_a_write_is_checked),
        SCENE(other_dimensions_and_made_ids_are_checked),
        SCENE(damaged_writes_do_no_damage),
        SCENE(bodies_of_create_and_drop_are_checked),
        SCENE(bodies_of_alter_and_index_are_checked),
        SCENE(a_connection_may_end_at_every_byte),
        SCENE(descriptors_sent_to_the_daemon_do_not_stay),
        SCENE(a_refusal_waits_for_what_it_rests_on),
        SCENE(a_crowd_of_connections_is_kept_out_and_let_in_again),
        SCENE(a_client_that_never_reads_is_cut_off),
        SCENE(a_slot_page_may_be_asked_for_behind_other_requests),
        SCENE(slot_pages_are_limited),
        SCENE(scribbling_into_a_slot_page_harms_nobody),
    };
    return run_cases("bad clients", tests);
}
