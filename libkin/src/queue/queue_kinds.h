/* What a queue does at its end, and when a member that used it was killed. */
#ifndef KIN_QUEUE_KINDS_H
#define KIN_QUEUE_KINDS_H

#include "family/family_internal.h"

void kin__queue_end(kin_family *family, uint64_t off);
bool kin__queue_is_ready(const void *object, int what);
_Atomic uint64_t *kin__queue_watch(void *object, int what, _Atomic uint32_t **flag);
void kin__queue_bury(kin_family *family, uint64_t off, uint32_t token);

#endif
