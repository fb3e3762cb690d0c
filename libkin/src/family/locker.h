/* The locker as the rest of the family room sees it. */
#ifndef KIN_FAMILY_LOCKER_H
#define KIN_FAMILY_LOCKER_H

#include "family_internal.h"
#include "kin/locker.h"

void kin__descriptor_end(kin_family *family, uint64_t off);

#endif
