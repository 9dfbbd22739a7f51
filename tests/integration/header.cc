// The public headers are C++ as well: this file is only compiled and linked, with warnings as errors.
#include <vex/vex.h>

#include <cstdio>

int main()
{
    struct vex_open_options open = VEX_OPEN_OPTIONS_INIT;
    struct vex_collection_options collection = VEX_COLLECTION_OPTIONS_INIT;
    struct vex_batch batch = VEX_BATCH_INIT;
    struct vex_ack ack = VEX_ACK_INIT;
    struct vex_read_options read = VEX_READ_OPTIONS_INIT;
    struct vex_search_options search = VEX_SEARCH_OPTIONS_INIT;
    struct vex_error error = {};
    struct vex_db *db = nullptr;
    const bool sizes = open.size && collection.size && batch.size && ack.size && read.size &&
                       search.size && search.read.size == read.size;
    const vex_status status = vex_open("", &open, &db, &error);
    vex_close(db);
    std::printf("%s: %s\n", vex_status_name(status), error.message);
    return sizes && status == VEX_ERR_INVALID ? 0 : 1;
}
