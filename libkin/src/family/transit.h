/* Transits as the kinds' table sees them. */
#ifndef KIN_FAMILY_TRANSIT_H
#define KIN_FAMILY_TRANSIT_H

#include "family_internal.h"
#include "kin/transit.h"

void kin__transit_end(kin_family *family, uint64_t off);

#endif
