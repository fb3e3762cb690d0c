/* What the burial of a killed member does to this room's objects. */
#ifndef KIN_SYNC_KINDS_H
#define KIN_SYNC_KINDS_H

#include "family/family_internal.h"

void kin__lock_bury(kin_family *family, uint64_t off, uint32_t token);
void kin__rlock_bury(kin_family *family, uint64_t off, uint32_t token);

#endif
