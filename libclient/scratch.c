#include "libclient/scratch.h"

#include <pthread.h>
#include <stdlib.h>

#define LINE_BYTES 64u

struct scratch {
    size_t bytes;
    unsigned char padding[LINE_BYTES - sizeof(size_t)];
    /* the memory itself */
};

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Thread_local struct scratch *mine;

static void forget(void *scratch)
{
    mine = NULL;
    free(scratch);
}

static void make_key(void)
{
    /* Without a key the memory of ended threads is lost, no more. */
    (void)pthread_key_create(&key, forget);
}

static struct scratch *grow(size_t bytes)
{
    (void)pthread_once(&once, make_key);
    size_t all = (sizeof(struct scratch) + bytes + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
    struct scratch *larger = aligned_alloc(LINE_BYTES, all);
    if (!larger || pthread_setspecific(key, larger) != 0) {
        free(larger);
        return NULL;
    }
    free(mine);
    larger->bytes = all - sizeof(struct scratch);
    mine = larger;
    return larger;
}

void *vex_scratch_take(size_t bytes)
{
    struct scratch *scratch = mine && mine->bytes >= bytes ? mine : grow(bytes);
    return scratch ? scratch + 1 : NULL;
}
