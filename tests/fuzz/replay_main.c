/* Runs a fuzzer's function over the files of its corpus, in builds without libFuzzer: what was once found
 * stays found. Arguments are files and directories. */
#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* False if it cannot be read. */
static bool run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        return false;
    }
    uint8_t *data = NULL;
    size_t size = 0;
    size_t got = 0;
    do {
        size += got;
        /* Exactly as long as the file, so that a sanitizer sees the first byte beyond. */
        uint8_t *larger = realloc(data, size + 65536);
        if (!larger) {
            break;
        }
        data = larger;
        got = fread(data + size, 1, 65536, file);
    } while (got > 0);
    (void)fclose(file);
    uint8_t *exact = malloc(size ? size : 1);
    if (!data || !exact) {
        free(data);
        free(exact);
        return false;
    }
    memcpy(exact, data, size);
    free(data);
    (void)LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    return true;
}

static unsigned run_directory(const char *path, DIR *directory)
{
    unsigned count = 0;
    struct dirent *item;
    while ((item = readdir(directory))) {
        char file[4096];
        if (item->d_name[0] == '.') {
            continue;
        }
        (void)snprintf(file, sizeof(file), "%s/%s", path, item->d_name);
        if (!run_file(file)) {
            perror(file);
            exit(1);
        }
        count++;
    }
    return count;
}

int main(int argc, char **argv)
{
    unsigned count = 0;
    for (int i = 1; i < argc; i++) {
        DIR *directory = opendir(argv[i]);
        if (directory) {
            count += run_directory(argv[i], directory);
            (void)closedir(directory);
        } else if (run_file(argv[i])) {
            count++;
        } else {
            perror(argv[i]);
            return 1;
        }
    }
    printf("%u inputs\n", count);
    return count > 0 ? 0 : 1;
}
