/* What plain memory does at the burial of a killed member: the table of kinds has it. */
#ifndef KIN_FAMILY_MEMORY_H
#define KIN_FAMILY_MEMORY_H

#include "family_internal.h"

void kin__memory_bury(kin_family *family, uint64_t off, uint32_t token);

#endif
