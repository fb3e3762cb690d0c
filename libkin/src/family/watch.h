/* Who wants to know, by a doorbell, when an object becomes ready. */
#ifndef KIN_FAMILY_WATCH_H
#define KIN_FAMILY_WATCH_H

#include "family_internal.h"

/* In the flag of an object that has one (kinds.h): there may be a watcher that is armed. */
#define KIN_WATCHED 2u

/* Ring the doorbells that watch by this place, and disarm them; `all`: those that are not armed,
 * too (a member was killed that may have been about to ring). */
void kin__watch_ring(kin_family *family, _Atomic uint64_t *watch, bool all);

/* The end of the object that has the place: its watchers go. */
void kin__watch_end(kin_family *family, _Atomic uint64_t *watch);

#endif
