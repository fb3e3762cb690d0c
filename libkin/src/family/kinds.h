/* What each kind of object does when its holder dies, and when it ends.
 *
 * The table is defined above all rooms (src/kinds.c): the family calls what it
 * finds there, and knows none of them. */
#ifndef KIN_FAMILY_KINDS_H
#define KIN_FAMILY_KINDS_H

#include "family_internal.h"

typedef struct kin__kind {
    /* The object's last holder is gone: give back what it consists of, its own
     * block excepted.  It is in this member's hands.  May be begun again by
     * another member if this one dies in it.  NULL: nothing to do. */
    void (*end)(kin_family *family, uint64_t off);
    /* The member with this token was killed: settle what it left half-done here,
     * or held.  The object is alive, and others use it meanwhile.  NULL: nothing. */
    void (*bury)(kin_family *family, uint64_t off, uint32_t token);
} kin__kind;

#define KIN_KINDS 64
extern const kin__kind kin__kinds[KIN_KINDS];

#endif
