#include "libclient/attachment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/panic.h"
#include "shm/wire.h"

#define PAGE_TIMEOUT_NS UINT64_C(5000000000)
#define SLOT_ALIGNMENT 128u /* two lines: processors fetch them in pairs */
#define CACHE_ENTRIES 4u    /* attachments a thread uses in turn without looking for its slot */

/* ---- per process and per thread -------------------------------------------------------------- */

/* Guards the link from a reader_slot to its attachment, for threads that end and attachments that
 * close. */
static pthread_mutex_t owners_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t thread_key;
static bool thread_key_made;
static _Atomic uint64_t last_serial;
static _Atomic uint32_t fork_count;
static struct attachment *attachments; /* all there are; guarded by owners_lock */

static _Thread_local struct reader_slot *thread_slots; /* all slots of this thread */
static _Thread_local struct reader_slot *thread_cache[CACHE_ENTRIES];

/* Across fork() the lock is held by the forking thread, so that the child does not inherit it from a
 * thread that does not exist there. */
static void before_fork(void)
{
    (void)pthread_mutex_lock(&owners_lock);
}

static void after_fork_in_parent(void)
{
    (void)pthread_mutex_unlock(&owners_lock);
}

/* The parent's slots are none of the child's business: its pages did not come along. */
static void after_fork_in_child(void)
{
    /* relaxed: the child has one thread. */
    (void)atomic_fetch_add_explicit(&fork_count, 1, memory_order_relaxed);
    /* A connection that lived on here would keep the parent's pins after its death. */
    for (struct attachment *item = attachments; item; item = item->next_of_process) {
        vex_attachment_abandon(item);
    }
    attachments = NULL;
    thread_slots = NULL;
    memset(thread_cache, 0, sizeof(thread_cache));
    if (thread_key_made) {
        (void)pthread_setspecific(thread_key, NULL);
    }
    (void)pthread_mutex_unlock(&owners_lock);
}

uint32_t vex_fork_count(void)
{
    /* relaxed: see after_fork_in_child. */
    return atomic_load_explicit(&fork_count, memory_order_relaxed);
}

/* With owners_lock held, if the attachment lives. */
static void return_slot(struct reader_slot *slot)
{
    struct attachment *attachment = slot->attachment;
    (void)pthread_mutex_lock(&attachment->lock);
    for (uint32_t i = 0; i < attachment->pages_count; i++) {
        if (attachment->pages[i] == slot->page) {
            attachment->taken[i] &= ~(1ull << (slot->slot - slot->page->slots));
        }
    }
    for (size_t i = 0; i < attachment->owners_count; i++) {
        if (attachment->owners[i] == slot) {
            attachment->owners[i] = attachment->owners[--attachment->owners_count];
            break;
        }
    }
    (void)pthread_mutex_unlock(&attachment->lock);
}

void vex_attachment_give_slot(struct reader_slot *slot)
{
    (void)pthread_mutex_lock(&owners_lock);
    if (slot->attachment) {
        return_slot(slot);
    }
    (void)pthread_mutex_unlock(&owners_lock);
    free(slot);
}

static void end_thread(void *first)
{
    struct reader_slot *slot = first;
    while (slot) {
        struct reader_slot *next = slot->next_of_thread;
        vex_attachment_give_slot(slot);
        slot = next;
    }
    thread_slots = NULL;
    memset(thread_cache, 0, sizeof(thread_cache));
}

static void prepare_process(void)
{
    thread_key_made = pthread_key_create(&thread_key, end_thread) == 0;
    (void)pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* A host that unloads the library must not be left with a destructor that points into it. */
__attribute__((destructor)) static void forget_process(void)
{
    if (thread_key_made) {
        (void)pthread_key_delete(thread_key);
    }
}

/* ---- opening --------------------------------------------------------------------------------- */

static enum vex_status map_page(struct attachment *attachment, int fd, struct vex_error *error)
{
    struct stat info;
    int seals = fd < 0 ? -1 : fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &info) != 0 ||
        info.st_size < (off_t)sizeof(struct vex_slot_page)) {
        return vex_error_set(error, VEX_ERR_PROTOCOL, "vexd sent no usable slot page");
    }
    if (attachment->pages_count == ATTACHMENT_PAGES_MAX) {
        return vex_error_set(error, VEX_ERR_LIMIT, "too many slot pages");
    }
    void *memory =
        mmap(NULL, sizeof(struct vex_slot_page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        return vex_error_os(error, VEX_ERR_NOMEM, errno, "map slot page");
    }
    /* A forked child must not scribble into its parent's pins. */
    (void)madvise(memory, sizeof(struct vex_slot_page), MADV_DONTFORK);
    attachment->pages[attachment->pages_count++] = memory;
    return VEX_OK;
}

static enum vex_status greet(struct attachment *attachment, uint64_t deadline_ns,
                             struct vex_error *error)
{
    struct vex_hello hello = {.layout_hash = vex_layout_hash(), .pid = (uint32_t)getpid()};
    struct vex_reply reply;
    enum vex_status status = vex_connection_call(attachment->connection, VEX_OP_HELLO, &hello,
                                                 sizeof(hello), false, deadline_ns, &reply, error);
    if (status != VEX_OK) {
        return status;
    }
    struct vex_welcome welcome;
    if (reply.body.bytes != sizeof(welcome)) {
        status = vex_error_set(error, VEX_ERR_PROTOCOL, "vexd's welcome has a strange length");
    } else {
        memcpy(&welcome, reply.body.data, sizeof(welcome));
        memcpy(attachment->uuid, welcome.uuid, sizeof(attachment->uuid));
        memcpy(attachment->key, welcome.key, sizeof(attachment->key));
        attachment->daemon_pid = welcome.daemon_pid;
        status = map_page(attachment, reply.fd, error);
    }
    vex_buffer_deinit(&reply.body);
    if (reply.fd >= 0) {
        (void)close(reply.fd);
    }
    return status;
}

static enum vex_status map_control(struct attachment *attachment, struct vex_error *error)
{
    char name[VEX_REGION_NAME_MAX];
    vex_region_control_name(name, attachment->key);
    enum vex_status status = vex_region_open(&attachment->control, name, false, error);
    if (status != VEX_OK) {
        return status == VEX_ERR_NOT_FOUND
                   ? vex_error_set(error, VEX_ERR_UNAVAILABLE,
                                   "vexd answers, but its shared memory %s is gone: something "
                                   "removed it from /dev/shm; restart vexd",
                                   name)
                   : status;
    }
    (void)madvise(attachment->control.memory, attachment->control.bytes, MADV_DONTFORK);
    status = vex_control_check(attachment->control.memory, attachment->control.bytes,
                               attachment->key, error);
    const struct vex_control *control = attachment->control.memory;
    if (status == VEX_OK && control->daemon_pid != attachment->daemon_pid) {
        /* The successor's, which does not know our slots. */
        return vex_error_set(error, VEX_ERR_BUSY, "vexd was replaced while it was greeted");
    }
    return status;
}

enum vex_status vex_attachment_open(const char *directory, uint32_t timeout_ms,
                                    struct attachment **out_attachment, struct vex_error *error)
{
    *out_attachment = NULL;
    (void)pthread_once(&once, prepare_process);
    struct attachment *attachment = calloc(1, sizeof(*attachment));
    if (!attachment) {
        return vex_error_set(error, VEX_ERR_NOMEM, "attach: out of memory");
    }
    uint64_t deadline_ns = vex_clock_ns() + timeout_ms * UINT64_C(1000000);
    (void)pthread_mutex_init(&attachment->lock, NULL);
    (void)pthread_cond_init(&attachment->added, NULL);
    /* relaxed: only uniqueness counts. */
    attachment->serial = atomic_fetch_add_explicit(&last_serial, 1, memory_order_relaxed) + 1;
    (void)pthread_mutex_lock(&owners_lock);
    attachment->next_of_process = attachments;
    attachments = attachment;
    (void)pthread_mutex_unlock(&owners_lock);
    enum vex_status status =
        vex_connection_open(directory, timeout_ms, &attachment->connection, error);
    status = status == VEX_OK ? greet(attachment, deadline_ns, error) : status;
    status = status == VEX_OK ? map_control(attachment, error) : status;
    if (status != VEX_OK) {
        vex_attachment_close(attachment);
        return status;
    }
    *out_attachment = attachment;
    return VEX_OK;
}

void vex_attachment_close(struct attachment *attachment)
{
    if (!attachment) {
        return;
    }
    (void)pthread_mutex_lock(&owners_lock);
    for (size_t i = 0; i < attachment->owners_count; i++) {
        attachment->owners[i]->attachment = NULL; /* the thread frees it when it ends */
    }
    struct attachment **link = &attachments;
    while (*link != attachment) {
        link = &(*link)->next_of_process;
    }
    *link = attachment->next_of_process;
    (void)pthread_mutex_unlock(&owners_lock);
    vex_connection_close(attachment->connection);
    vex_region_close(&attachment->control);
    for (uint32_t i = 0; i < attachment->pages_count; i++) {
        (void)munmap(attachment->pages[i], sizeof(struct vex_slot_page));
    }
    free(attachment->owners);
    (void)pthread_cond_destroy(&attachment->added);
    (void)pthread_mutex_destroy(&attachment->lock);
    free(attachment);
}

void vex_attachment_abandon(struct attachment *attachment)
{
    vex_connection_abandon(attachment->connection);
}

/* ---- slots ----------------------------------------------------------------------------------- */

/* With the lock held; gives it up while asking, because fork(), the end of a thread and the reads of
 * others take it. */
static enum vex_status add_page(struct attachment *attachment, struct vex_error *error)
{
    uint64_t deadline_ns = vex_clock_ns() + PAGE_TIMEOUT_NS;
    struct vex_reply reply;
    attachment->adding = true;
    (void)pthread_mutex_unlock(&attachment->lock);
    enum vex_status status = vex_connection_call(attachment->connection, VEX_OP_SLOT_PAGE, NULL, 0,
                                                 false, deadline_ns, &reply, error);
    (void)pthread_mutex_lock(&attachment->lock);
    attachment->adding = false;
    (void)pthread_cond_broadcast(&attachment->added);
    if (status != VEX_OK) {
        return status;
    }
    status = map_page(attachment, reply.fd, error);
    vex_buffer_deinit(&reply.body);
    if (reply.fd >= 0) {
        (void)close(reply.fd);
    }
    return status;
}

/* With the lock held: the first slot nobody owns, or false. */
static bool find_free(struct attachment *attachment, uint32_t *out_page, uint32_t *out_slot)
{
    for (uint32_t page = 0; page < attachment->pages_count; page++) {
        uint64_t free_bits = ~attachment->taken[page] & ((1ull << VEX_SLOTS_PER_PAGE) - 1);
        if (free_bits) {
            *out_page = page;
            *out_slot = (uint32_t)__builtin_ctzll(free_bits);
            return true;
        }
    }
    return false;
}

static enum vex_status take_locked(struct attachment *attachment, struct reader_slot *slot,
                                   struct vex_error *error)
{
    uint32_t page = 0;
    uint32_t index = 0;
    while (attachment->connection && !find_free(attachment, &page, &index)) {
        if (attachment->adding) {
            (void)pthread_cond_wait(&attachment->added, &attachment->lock);
            continue;
        }
        enum vex_status status = add_page(attachment, error);
        if (status != VEX_OK) {
            return status;
        }
    }
    if (!attachment->connection) {
        return vex_error_set(error, VEX_ERR_UNAVAILABLE, "this attachment has been replaced");
    }
    if (attachment->owners_count == attachment->owners_capacity) {
        size_t capacity = attachment->owners_capacity ? 2 * attachment->owners_capacity : 16;
        struct reader_slot **owners = realloc(attachment->owners, capacity * sizeof(*owners));
        if (!owners) {
            return vex_error_set(error, VEX_ERR_NOMEM, "reader slot: out of memory");
        }
        attachment->owners = owners;
        attachment->owners_capacity = capacity;
    }
    attachment->taken[page] |= 1ull << index;
    attachment->owners[attachment->owners_count++] = slot;
    *slot = (struct reader_slot){
        .slot = &attachment->pages[page]->slots[index],
        .page = attachment->pages[page],
        .last_generation = vex_control_generation(attachment->control.memory),
        .serial = attachment->serial,
        .attachment = attachment,
    };
    return VEX_OK;
}

struct reader_slot *vex_attachment_take_slot(struct attachment *attachment,
                                             enum vex_status *out_status, struct vex_error *error)
{
    /* On lines of its own: each read writes to it. */
    size_t bytes = vex_round_up(sizeof(struct reader_slot), SLOT_ALIGNMENT);
    struct reader_slot *slot = aligned_alloc(SLOT_ALIGNMENT, bytes);
    if (!slot) {
        *out_status = vex_error_set(error, VEX_ERR_NOMEM, "reader slot: out of memory");
        return NULL;
    }
    (void)pthread_mutex_lock(&attachment->lock);
    *out_status = take_locked(attachment, slot, error);
    (void)pthread_mutex_unlock(&attachment->lock);
    if (*out_status != VEX_OK) {
        free(slot);
        return NULL;
    }
    return slot;
}

/* The slow way: this thread's list, or a new slot. Also drops slots of attachments that are
 * gone. */
static struct reader_slot *find_thread_slot(struct attachment *attachment,
                                            enum vex_status *out_status, struct vex_error *error)
{
    struct reader_slot *found = NULL;
    struct reader_slot **link = &thread_slots;
    (void)pthread_mutex_lock(&owners_lock);
    while (*link) {
        struct reader_slot *slot = *link;
        if (!slot->attachment) {
            *link = slot->next_of_thread;
            for (size_t i = 0; i < CACHE_ENTRIES; i++) {
                thread_cache[i] = thread_cache[i] == slot ? NULL : thread_cache[i];
            }
            free(slot);
            continue;
        }
        found = slot->serial == attachment->serial ? slot : found;
        link = &slot->next_of_thread;
    }
    (void)pthread_mutex_unlock(&owners_lock);
    if (!found) {
        found = vex_attachment_take_slot(attachment, out_status, error);
        if (!found) {
            return NULL;
        }
        found->next_of_thread = thread_slots;
        thread_slots = found;
    }
    if (thread_key_made) {
        (void)pthread_setspecific(thread_key, thread_slots);
    }
    return found;
}

struct reader_slot *vex_attachment_thread_slot(struct attachment *attachment,
                                               enum vex_status *out_status, struct vex_error *error)
{
    struct reader_slot **entry = &thread_cache[attachment->serial % CACHE_ENTRIES];
    if (*entry && (*entry)->serial == attachment->serial) {
        return *entry;
    }
    struct reader_slot *slot = find_thread_slot(attachment, out_status, error);
    if (slot) {
        *entry = slot;
    }
    return slot;
}

static bool passed_locked(const struct attachment *attachment, uint64_t epoch)
{
    for (size_t i = 0; i < attachment->owners_count; i++) {
        const struct reader_slot *slot = attachment->owners[i];
        /* pairs: PIN with vex_pin_enter and vex_unpin. */
        uint64_t pinned = atomic_load_explicit(&slot->slot->pinned, memory_order_seq_cst);
        /* pairs: SLOT_EPOCH with vex_db_pin. After the slot: a pin that is seen brings its epoch. */
        if (pinned != 0 && atomic_load_explicit(&slot->epoch, memory_order_acquire) < epoch) {
            return false;
        }
    }
    return true;
}

bool vex_attachment_passed(struct attachment *attachment, uint64_t epoch)
{
    (void)pthread_mutex_lock(&attachment->lock);
    bool passed = passed_locked(attachment, epoch);
    (void)pthread_mutex_unlock(&attachment->lock);
    return passed;
}

bool vex_attachment_hibernate(struct attachment *attachment)
{
    (void)pthread_mutex_lock(&attachment->lock);
    bool idle = !attachment->adding && passed_locked(attachment, UINT64_MAX);
    if (idle) {
        /* In this order, for a fork in between. */
        struct vex_connection *connection = attachment->connection;
        attachment->connection = NULL;
        vex_connection_close(connection);
        vex_region_close(&attachment->control);
    }
    (void)pthread_mutex_unlock(&attachment->lock);
    return idle;
}

bool vex_attachment_is_over(const struct attachment *attachment)
{
    return vex_control_state(attachment->control.memory) == VEX_DAEMON_GONE ||
           vex_slot_page_is_revoked(attachment->pages[0]);
}

bool vex_attachment_is_stale(const struct attachment *attachment)
{
    return vex_connection_is_broken(attachment->connection) || vex_attachment_is_over(attachment);
}

bool vex_attachment_has_successor(const struct attachment *attachment)
{
    char name[VEX_REGION_NAME_MAX];
    vex_region_control_name(name, attachment->key);
    return vex_region_exists(name);
}
