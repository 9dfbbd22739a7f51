/*
 * The parts of the protocol, each small enough to be explored to the end. What one part leaves out, or
 * makes a single word, another one has in full.
 */
#ifndef VEX_TESTS_MODEL_SCENARIOS_H
#define VEX_TESTS_MODEL_SCENARIOS_H

#include "tests/model/explore.h"

extern const struct scenario scenario_ready;
extern const struct scenario scenario_wait;
extern const struct scenario scenario_cell;
extern const struct scenario scenario_collection;
extern const struct scenario scenario_cache;
extern const struct scenario scenario_attachment;
extern const struct scenario scenario_references;
extern const struct scenario scenario_reclaim;
extern const struct scenario scenario_cut;

#endif
