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
    /* Is it ready for this (KIN_READY_…, wait.h)?  Seq_cst: whoever changes it so looks for
     * watchers afterwards, whoever watches looks here afterwards.  NULL: never a matter. */
    bool (*is_ready)(const void *shm, int what);
    /* Where its watchers are, a place (watch.h); NULL if it is never ready for this.  *flag: a
     * word in which KIN_WATCHED must be set, too, whenever a watcher is armed; or NULL. */
    _Atomic uint64_t *(*watch)(void *shm, int what, _Atomic uint32_t **flag);
} kin__kind;

#define KIN_KINDS 64
extern const kin__kind kin__kinds[KIN_KINDS];

#endif
