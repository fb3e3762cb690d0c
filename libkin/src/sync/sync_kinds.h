/* What this room's objects do at their end and at the burial of a killed member, and when they
 * are ready: the table of kinds has these. */
#ifndef KIN_SYNC_KINDS_H
#define KIN_SYNC_KINDS_H

#include "family/family_internal.h"

void kin__lock_end(kin_family *family, uint64_t off);
void kin__lock_bury(kin_family *family, uint64_t off, uint32_t token);
void kin__rlock_bury(kin_family *family, uint64_t off, uint32_t token);
bool kin__lock_is_ready(const void *object, int what);
_Atomic uint64_t *kin__lock_watch(void *object, int what, _Atomic uint32_t **flag);
/* Of either kind of lock: the holder's token, or 0. */
uint32_t kin__lock_holder(const void *object);

void kin__semaphore_end(kin_family *family, uint64_t off);
void kin__semaphore_bury(kin_family *family, uint64_t off, uint32_t token);
bool kin__semaphore_is_ready(const void *object, int what);
_Atomic uint64_t *kin__semaphore_watch(void *object, int what, _Atomic uint32_t **flag);

void kin__condition_end(kin_family *family, uint64_t off);
void kin__condition_bury(kin_family *family, uint64_t off, uint32_t token);
void kin__barrier_end(kin_family *family, uint64_t off);
void kin__barrier_bury(kin_family *family, uint64_t off, uint32_t token);
void kin__seats_end(kin_family *family, uint64_t off);

void kin__event_end(kin_family *family, uint64_t off);
void kin__event_bury(kin_family *family, uint64_t off, uint32_t token);
bool kin__event_is_ready(const void *object, int what);
_Atomic uint64_t *kin__event_watch(void *object, int what, _Atomic uint32_t **flag);

#endif
