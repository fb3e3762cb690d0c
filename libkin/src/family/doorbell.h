/* Doorbells, for those who wait in here: sync/wait.c. */
#ifndef KIN_FAMILY_DOORBELL_H
#define KIN_FAMILY_DOORBELL_H

#include "family_internal.h"
#include "kin/wait.h"

/* Ring somebody's doorbell: 0, or -ECONNREFUSED if there is none of that name. */
kin_err kin__doorbell_ring(kin_family *family, uint32_t token, uint32_t number);

/* A doorbell that is used for a moment: one is kept open for the next.  It watches nothing. */
KIN_NODISCARD kin_err kin__doorbell_borrow(kin_family *family, kin_doorbell **out);
void kin__doorbell_give_back(kin_doorbell *doorbell);
/* As kin_doorbell_watch, but what is watched twice is watched twice, and not armed yet. */
KIN_NODISCARD kin_err kin__doorbell_add(kin_doorbell *doorbell, const kin_handle *object, int what);
/* As kin_doorbell_settle, but not rung where something is ready: for who looks for himself. */
bool kin__doorbell_rearm(kin_doorbell *doorbell);

/* This process comes in; around a fork; the child has nothing of its parent's. */
void kin__doorbells_enter(kin_family *family);
void kin__doorbells_before_fork(kin_family *family);
void kin__doorbells_after_fork(kin_family *family, bool in_child);

#endif
