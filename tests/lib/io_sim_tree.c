/*
 * Files and names of the simulated disk: a list of nodes (files, directories) and a list of names, both
 * short, searched from the front. The bytes of a file are shared between trees by reference count and
 * copied before the first change, which is what makes an image of a whole disk cheap.
 */
#include "tests/lib/io_sim_priv.h"

#include <stdlib.h>
#include <string.h>

static void *grown(void *array, uint32_t *capacity, size_t item_bytes)
{
    *capacity = *capacity ? 2 * *capacity : 16;
    array = realloc(array, *capacity * item_bytes);
    sim_must(array, "out of memory");
    return array;
}

static void release(struct sim_content *content)
{
    if (content && --content->references == 0) {
        free(content->data);
        free(content);
    }
}

/* ---- trees ----------------------------------------------------------------------------------- */

void sim_tree_init(struct sim_tree *tree)
{
    *tree = (struct sim_tree){0};
    sim_must(sim_tree_new_node(tree, true) == SIM_ROOT, "numbering");
}

void sim_tree_deinit(struct sim_tree *tree)
{
    for (uint32_t i = 0; i < tree->nodes_count; i++) {
        release(tree->nodes[i].content);
    }
    free(tree->nodes);
    free(tree->entries);
    *tree = (struct sim_tree){0};
}

static void share(struct sim_tree *out, const struct sim_tree *from, uint32_t node)
{
    struct sim_content *content = from->nodes[node - 1].content;
    if (content && !out->nodes[node - 1].content) {
        content->references++;
        out->nodes[node - 1].content = content;
    }
}

static void copy_structure(struct sim_tree *out, const struct sim_tree *from)
{
    *out = (struct sim_tree){
        .nodes = malloc((from->nodes_count + 4) * sizeof(*out->nodes)),
        .nodes_count = from->nodes_count,
        .nodes_capacity = from->nodes_count + 4,
        .entries = malloc((from->entries_count + 4) * sizeof(*out->entries)),
        .entries_capacity = from->entries_count + 4,
    };
    sim_must(out->nodes && out->entries, "out of memory");
    for (uint32_t i = 0; i < from->nodes_count; i++) {
        out->nodes[i] = (struct sim_node){from->nodes[i].directory, NULL};
    }
    for (uint32_t i = 0; i < from->entries_count; i++) {
        if (from->entries[i].directory) {
            out->entries[out->entries_count++] = from->entries[i];
        }
    }
}

void sim_tree_copy(struct sim_tree *out, const struct sim_tree *from)
{
    copy_structure(out, from);
    for (uint32_t i = 0; i < out->entries_count; i++) {
        share(out, from, out->entries[i].node);
    }
}

void sim_tree_copy_all(struct sim_tree *out, const struct sim_tree *from)
{
    copy_structure(out, from);
    for (uint32_t i = 1; i <= from->nodes_count; i++) {
        share(out, from, i);
    }
}

/* ---- nodes ----------------------------------------------------------------------------------- */

uint32_t sim_tree_new_node(struct sim_tree *tree, bool directory)
{
    if (tree->nodes_count == tree->nodes_capacity) {
        tree->nodes = grown(tree->nodes, &tree->nodes_capacity, sizeof(*tree->nodes));
    }
    tree->nodes[tree->nodes_count++] = (struct sim_node){directory, NULL};
    return tree->nodes_count;
}

struct sim_node *sim_tree_node(const struct sim_tree *tree, uint32_t node)
{
    sim_must(node >= 1 && node <= tree->nodes_count, "no such node");
    return &tree->nodes[node - 1];
}

void sim_tree_ensure_node(struct sim_tree *tree, uint32_t node, bool directory)
{
    while (tree->nodes_count < node) {
        (void)sim_tree_new_node(tree, directory);
    }
}

uint64_t sim_tree_size(const struct sim_tree *tree, uint32_t node)
{
    const struct sim_content *content = sim_tree_node(tree, node)->content;
    return content ? content->bytes : 0;
}

/* The node's bytes, its own, with room for `capacity`. */
static struct sim_content *writable(struct sim_tree *tree, uint32_t number, size_t capacity)
{
    struct sim_node *node = sim_tree_node(tree, number);
    struct sim_content *old = node->content;
    if (old && old->references == 1 && old->capacity >= capacity) {
        return old;
    }
    struct sim_content *content = calloc(1, sizeof(*content));
    sim_must(content, "out of memory");
    content->references = 1;
    content->bytes = old ? old->bytes : 0;
    content->capacity = old && old->capacity > capacity ? old->capacity : capacity;
    content->data = malloc(content->capacity ? content->capacity : 1);
    sim_must(content->data, "out of memory");
    if (content->bytes) {
        memcpy(content->data, old->data, content->bytes);
    }
    release(old);
    node->content = content;
    return content;
}

void sim_tree_resize(struct sim_tree *tree, uint32_t node, uint64_t bytes)
{
    if (sim_tree_size(tree, node) == bytes) {
        return;
    }
    struct sim_content *content = writable(tree, node, (size_t)bytes);
    if (bytes > content->bytes) {
        memset(content->data + content->bytes, 0, (size_t)bytes - content->bytes);
    }
    content->bytes = (size_t)bytes;
}

void sim_tree_write(struct sim_tree *tree, uint32_t node, uint64_t offset, const uint8_t *data,
                    size_t bytes)
{
    uint64_t size = sim_tree_size(tree, node);
    if (offset >= size) {
        return;
    }
    bytes = bytes < size - offset ? bytes : (size_t)(size - offset);
    struct sim_content *content = writable(tree, node, (size_t)size);
    if (data) {
        memcpy(content->data + offset, data, bytes);
    } else {
        memset(content->data + offset, 0, bytes);
    }
}

/* ---- names ----------------------------------------------------------------------------------- */

struct sim_entry *sim_tree_find(const struct sim_tree *tree, uint32_t directory, const char *name)
{
    for (uint32_t i = 0; i < tree->entries_count; i++) {
        struct sim_entry *entry = &tree->entries[i];
        if (entry->directory == directory && strcmp(entry->name, name) == 0) {
            return entry;
        }
    }
    return NULL;
}

void sim_tree_set(struct sim_tree *tree, uint32_t directory, const char *name, uint32_t node)
{
    struct sim_entry *entry = sim_tree_find(tree, directory, name);
    for (uint32_t i = 0; !entry && i < tree->entries_count; i++) {
        entry = tree->entries[i].directory == 0 ? &tree->entries[i] : NULL;
    }
    if (!entry) {
        if (tree->entries_count == tree->entries_capacity) {
            tree->entries = grown(tree->entries, &tree->entries_capacity, sizeof(*tree->entries));
        }
        entry = &tree->entries[tree->entries_count++];
    }
    entry->directory = directory;
    entry->node = node;
    (void)snprintf(entry->name, sizeof(entry->name), "%s", name);
}

void sim_tree_remove(struct sim_tree *tree, uint32_t directory, const char *name)
{
    struct sim_entry *entry = sim_tree_find(tree, directory, name);
    if (entry) {
        entry->directory = 0;
    }
}

uint32_t sim_tree_resolve(const struct sim_tree *tree, const char *path, uint32_t *out_directory,
                          char out_name[VEX_SIM_NAME_BYTES])
{
    uint32_t directory = SIM_ROOT;
    uint32_t node = SIM_ROOT;
    *out_directory = SIM_ROOT;
    (void)snprintf(out_name, VEX_SIM_NAME_BYTES, ".");
    while (*path) {
        size_t length = strcspn(path, "/");
        if (length > 0 && !(length == 1 && path[0] == '.')) {
            sim_must(length < VEX_SIM_NAME_BYTES, "a name is too long");
            directory = node;
            memcpy(out_name, path, length);
            out_name[length] = 0;
            const struct sim_entry *entry =
                directory ? sim_tree_find(tree, directory, out_name) : NULL;
            node = entry ? entry->node : 0;
            *out_directory = directory;
        }
        path += length;
        path += *path == '/';
    }
    return node;
}
