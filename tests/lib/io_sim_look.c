/*
 * Looking at a simulated disk from outside: its files and its record, to compare, to damage, to print.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/lib/io_sim_priv.h"

void vex_io_sim_print_op(struct vex_io *io, size_t index, FILE *out)
{
    static const char *const names[] = {
        "create", "truncate", "write", "sync",           "sync_failed",    "submit", "complete",
        "rename", "unlink",   "link",  "sync_directory", "make_directory", "mark"};
    const struct vex_sim_op *op = vex_io_sim_op(io, index);
    (void)fprintf(out, "%5zu %-14s", index, names[op->kind]);
    if (op->kind == VEX_SIM_MARK) {
        (void)fprintf(out, " %llu %llu\n", (unsigned long long)op->mark,
                      (unsigned long long)op->value);
        return;
    }
    (void)fprintf(out, " node %u", op->node);
    if (op->from_directory) {
        (void)fprintf(out, " from %u/%s", op->from_directory, op->from);
    }
    if (op->to_directory) {
        (void)fprintf(out, " to %u/%s", op->to_directory, op->to);
    }
    if (op->bytes) {
        (void)fprintf(out, " offset %llu bytes %llu%s", (unsigned long long)op->offset,
                      (unsigned long long)op->bytes, op->data ? "" : " of zeros");
    }
    if (op->kind == VEX_SIM_COMPLETE) {
        (void)fprintf(out, " of %zu result %lld", op->submitted, (long long)op->result);
    }
    (void)fprintf(out, "\n");
}

static uint32_t find_node(struct sim *self, const char *path)
{
    uint32_t directory;
    char name[VEX_SIM_NAME_BYTES];
    return sim_tree_resolve(&self->tree, path, &directory, name);
}

uint8_t *vex_io_sim_bytes(struct vex_io *io, const char *path, size_t *out_bytes)
{
    struct sim *self = sim_of(io);
    uint32_t node = find_node(self, path);
    if (!node || sim_tree_node(&self->tree, node)->directory) {
        return NULL;
    }
    sim_tree_write(&self->tree, node, 0, NULL, 0); /* a copy of its own */
    const struct sim_content *content = sim_tree_node(&self->tree, node)->content;
    *out_bytes = content ? content->bytes : 0;
    return content ? content->data : NULL;
}

bool vex_io_sim_path(struct vex_io *io, uint32_t node, char *out_path, size_t path_bytes)
{
    const struct sim_tree *tree = &sim_of(io)->tree;
    char path[SIM_PATH_BYTES] = "";
    while (node != SIM_ROOT) {
        const struct sim_entry *entry = NULL;
        for (uint32_t i = 0; !entry && i < tree->entries_count; i++) {
            bool leads = tree->entries[i].directory && tree->entries[i].node == node;
            entry = leads ? &tree->entries[i] : NULL;
        }
        char behind[SIM_PATH_BYTES];
        memcpy(behind, path, sizeof(behind));
        if (!entry || snprintf(path, sizeof(path), "%s%s%s", entry->name, *behind ? "/" : "",
                               behind) >= (int)sizeof(path)) {
            *out_path = 0;
            return false;
        }
        node = entry->directory;
    }
    return snprintf(out_path, path_bytes, "%s", path) < (int)path_bytes;
}

bool vex_io_sim_drop(struct vex_io *io, const char *path)
{
    return io->ops->unlink(io, path) == 0;
}

/* Everything below `mine` is below `theirs`, too. */
static bool is_within(const struct sim_tree *left, uint32_t mine, const struct sim_tree *right,
                      uint32_t theirs)
{
    const struct sim_node *node = sim_tree_node(left, mine);
    const struct sim_node *other = sim_tree_node(right, theirs);
    if (!node->directory) {
        uint64_t size = sim_tree_size(left, mine);
        return !other->directory && sim_tree_size(right, theirs) == size &&
               (node->content == other->content || size == 0 ||
                memcmp(node->content->data, other->content->data, (size_t)size) == 0);
    }
    for (uint32_t i = 0; i < left->entries_count; i++) {
        const struct sim_entry *entry = &left->entries[i];
        if (entry->directory == mine) {
            const struct sim_entry *same = sim_tree_find(right, theirs, entry->name);
            if (!same || !is_within(left, entry->node, right, same->node)) {
                return false;
            }
        }
    }
    return other->directory;
}

bool vex_io_sim_is_within(struct vex_io *part, struct vex_io *whole)
{
    return is_within(&sim_of(part)->tree, SIM_ROOT, &sim_of(whole)->tree, SIM_ROOT);
}

bool vex_io_sim_equals(struct vex_io *left, struct vex_io *right)
{
    return vex_io_sim_is_within(left, right) && vex_io_sim_is_within(right, left);
}

void vex_io_sim_print_files(struct vex_io *io, FILE *out)
{
    const struct sim_tree *tree = &sim_of(io)->tree;
    for (uint32_t i = 0; i < tree->entries_count; i++) {
        const struct sim_entry *entry = &tree->entries[i];
        if (entry->directory) {
            (void)fprintf(out, "  %u/%s: node %u, %llu bytes\n", entry->directory, entry->name,
                          entry->node, (unsigned long long)sim_tree_size(tree, entry->node));
        }
    }
}
