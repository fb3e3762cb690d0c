/* Who wants to know, by a doorbell, when an object becomes ready: the entries at the object.
 * docs/doorbell.md has the protocol, and the names of its steps. */
#ifndef KIN_FAMILY_WATCH_H
#define KIN_FAMILY_WATCH_H

#include "family_internal.h"

/* In the flag of an object that has one (kinds.h): there may be a watcher that is armed. */
#define KIN_WATCHED 2u

/* An entry: whose doorbell, which of them, and whether it is to be rung. */
#define KIN_WATCH_ARMED ((uint64_t)1)
#define KIN_WATCH_ENTRY(token, number) ((uint64_t)(token) << 33 | (uint64_t)(number) << 1)
#define KIN_WATCH_TOKEN(entry) ((uint32_t)((entry) >> 33))
#define KIN_WATCH_NUMBER(entry) ((uint32_t)((entry) >> 1))

/* Ring the doorbells that watch by this place, and disarm them; `all`: those that are not armed,
 * too (a member was killed that may have been about to ring). */
void kin__watch_ring(kin_family *family, _Atomic uint64_t *watch, bool all);
/* The same for an object without a flag, after it was changed. */
static inline void kin__watch_tell(kin_family *family, _Atomic uint64_t *watch) {
    /* seq_cst, with the change before it: against kin__watch_arm */
    if (atomic_load_explicit(watch, memory_order_seq_cst)) kin__watch_ring(family, watch, false);
}

/* The burial of a killed member, at an object of this kind that has the place: it may have been
 * about to ring. */
void kin__watch_bury(kin_family *family, uint64_t off, unsigned kind, _Atomic uint64_t *watch);

/* The end of the object that has the place: its watchers go. */
void kin__watch_end(kin_family *family, _Atomic uint64_t *watch);
/* The end of a block of watchers. */
void kin__watchers_end(kin_family *family, uint64_t off);

/* Have an entry of the place's watchers say `word`, not armed.  It may be used until the object
 * ends, and is given back by storing 0. */
KIN_NODISCARD kin_err kin__watch_claim(kin_family *family, _Atomic uint64_t *watch, uint64_t word,
                                       _Atomic uint64_t **entry);
/* Ask to be rung.  To be followed by a look at the object.  flag: NULL if it has none. */
void kin__watch_arm(_Atomic uint64_t *entry, _Atomic uint64_t *watch, _Atomic uint32_t *flag);

#endif
