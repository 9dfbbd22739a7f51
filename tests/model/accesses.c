#include "tests/model/accesses.h"

const struct access_info model_accesses[ACCESSES_COUNT] = {
#define INFO(name, file, function, pair, kind, order)                                              \
    {#name, file, function, pair, KIND_##kind, ORDER_##order},
    MODEL_ACCESSES(INFO)
#undef INFO
};

const char *const model_order_names[] = {"relaxed", "acquire", "release", "acq_rel", "seq_cst"};
