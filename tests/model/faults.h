/*
 * What the model must find, and what it must not: the flaws, one by one, and the orders that are
 * stronger than the protocol needs.
 */
#ifndef VEX_TESTS_MODEL_FAULTS_H
#define VEX_TESTS_MODEL_FAULTS_H

#include <stddef.h>

#include "tests/model/explore.h"

struct model_flaw {
    enum flaw flaw;
    const struct scenario *scenario;
    const char *text; /* what is done wrong */
};

extern const struct model_flaw model_flaws[];
extern const size_t model_flaws_count;

/* Which of the joint runs weaken an order. */
enum { JOINT_CELL = 1, JOINT_VIEW = 2, JOINT_BOTH = JOINT_CELL | JOINT_VIEW };

/* An access that may be as weak as `enough`, and why. All that belong to a joint run are weakened in it
 * at once, and nothing may go wrong; so each alone is spared for good reason, and no two of them lean on
 * one another. Where one order is spared because another carries the same, `other` is that one: with
 * both relaxed something must go wrong. */
struct model_spared {
    enum access access;
    enum order enough;
    unsigned joint;
    enum access other; /* ACCESS_RELAXED = none */
    const char *reason;
};

extern const struct model_spared model_spared[];
extern const size_t model_spared_count;

#endif
