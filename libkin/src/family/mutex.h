/* The short robust lock of libkin's own structures.
 *
 * It holds the owner's token.  Whoever finds it held spins, then parks for short
 * times, asking before each whether the owner is alive; a dead owner's lock is
 * taken over, and the taker is told so that it can finish or undo what its
 * guarded structure's journal says.  The kernel keeps the word on who is alive
 * (members.c), so the owner can't be mistaken.
 *
 * Never held across a call out of libkin, a wait or a fork of its own thread. */
#ifndef KIN_FAMILY_MUTEX_H
#define KIN_FAMILY_MUTEX_H

#include "family_internal.h"

/* 0; KIN_OWNER_DIED; -ETIMEDOUT; -EINTR; with KIN_NOW, -EAGAIN when somebody
 * alive has it. */
KIN_NODISCARD kin_err kin__mutex_lock_until(kin_family *family, kin_mutex_shm *mutex,
                                            kin_deadline deadline);
/* 0 or KIN_OWNER_DIED. */
KIN_NODISCARD kin_err kin__mutex_lock(kin_family *family, kin_mutex_shm *mutex);
void kin__mutex_unlock(kin_mutex_shm *mutex);
/* Does the member with this token hold it? */
bool kin__mutex_is_held_by(kin_mutex_shm *mutex, uint32_t token);

#endif
