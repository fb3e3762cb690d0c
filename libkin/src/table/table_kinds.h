/* What this room's blocks do at their end: the table of kinds has these. */
#ifndef KIN_TABLE_KINDS_H
#define KIN_TABLE_KINDS_H

#include "family/family_internal.h"

void kin__dict_end(kin_family *family, uint64_t off);
void kin__list_end(kin_family *family, uint64_t off);
void kin__entry_end(kin_family *family, uint64_t off);
void kin__dropped_end(kin_family *family, uint64_t off);

#endif
