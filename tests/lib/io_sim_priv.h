/* The simulated disk's inside, shared by io_sim.c (operations and their record), io_sim_tree.c (files and
 * names), io_sim_crash.c (what a crash leaves) and io_sim_look.c (looking at it from outside). */
#ifndef VEX_TESTS_LIB_IO_SIM_PRIV_H
#define VEX_TESTS_LIB_IO_SIM_PRIV_H

#include "tests/lib/io_sim.h"
#include "tests/lib/random.h"

#define SIM_ROOT 1u /* number of the directory that paths begin in */
#define SIM_HANDLES_MAX 64u
#define SIM_PATH_BYTES 256u

/* Bytes of a file; shared by trees, copied before a change. */
struct sim_content {
    uint8_t *data;
    size_t bytes;
    size_t capacity;
    unsigned references;
};

struct sim_node {
    bool directory;
    struct sim_content *content; /* NULL = directory, empty or not there */
};

struct sim_entry {
    uint32_t directory; /* 0 = free */
    uint32_t node;
    char name[VEX_SIM_NAME_BYTES];
};

/* Files and names at one moment. Nodes are numbered from 1; a number is not used again. */
struct sim_tree {
    struct sim_node *nodes;
    uint32_t nodes_count;
    uint32_t nodes_capacity;
    struct sim_entry *entries;
    uint32_t entries_count;
    uint32_t entries_capacity;
};

struct sim {
    struct vex_io io;
    struct sim_tree tree; /* what the running program sees */
    uint32_t handles[SIM_HANDLES_MAX];
    struct vex_sim_habits habits;
    struct vex_random random;

    bool recording;
    struct sim_tree base; /* when recording began */
    struct vex_sim_op *ops;
    size_t ops_count;
    size_t ops_capacity;

    bool pending; /* a durable write */
    size_t pending_op;
    size_t pending_bytes;
};

void sim_must(bool condition, const char *what);
struct sim *sim_of(struct vex_io *io);
/* A disk with this tree, which it takes over. */
struct vex_io *sim_open_tree(struct sim_tree *tree);

/* io_sim_tree.c */
void sim_tree_init(struct sim_tree *tree);
void sim_tree_deinit(struct sim_tree *tree);
/* Only what a name leads to keeps its bytes. */
void sim_tree_copy(struct sim_tree *out, const struct sim_tree *from);
/* With all bytes, also of files that have no name (any more). */
void sim_tree_copy_all(struct sim_tree *out, const struct sim_tree *from);
uint32_t sim_tree_new_node(struct sim_tree *tree, bool directory);
struct sim_node *sim_tree_node(const struct sim_tree *tree, uint32_t node);
void sim_tree_ensure_node(struct sim_tree *tree, uint32_t node, bool directory);
uint64_t sim_tree_size(const struct sim_tree *tree, uint32_t node);
void sim_tree_resize(struct sim_tree *tree, uint32_t node, uint64_t bytes);
/* Within the file's length; NULL = zeros. */
void sim_tree_write(struct sim_tree *tree, uint32_t node, uint64_t offset, const uint8_t *data,
                    size_t bytes);
struct sim_entry *sim_tree_find(const struct sim_tree *tree, uint32_t directory, const char *name);
void sim_tree_set(struct sim_tree *tree, uint32_t directory, const char *name, uint32_t node);
void sim_tree_remove(struct sim_tree *tree, uint32_t directory, const char *name);
/* Node of a path, 0 if there is none; *out_directory (0 = missing) and *out_name say where its last
 * name is or would be. */
uint32_t sim_tree_resolve(const struct sim_tree *tree, const char *path, uint32_t *out_directory,
                          char out_name[VEX_SIM_NAME_BYTES]);

#endif
