/* Transits as the kinds' table sees them. */
#ifndef KIN_FAMILY_TRANSIT_H
#define KIN_FAMILY_TRANSIT_H

#include "family_internal.h"
#include "kin/transit.h"

void kin__transit_end(kin_family *family, uint64_t off);
void kin__transit_bury(kin_family *family, uint64_t off, uint32_t token);
/* The end of one of its further blocks. */
void kin__passages_end(kin_family *family, uint64_t off);

#endif
