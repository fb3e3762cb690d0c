/* Holds for messages that are under way outside of the arena.
 *
 * A message in a queue keeps what it mentions; bytes in a pipe or a socket can't.  So who sends
 * refs that way lets a transit hold them, and whoever has opened them at the other end drops that
 * hold.  The two ends of a pipe share a transit: when both are gone, so is what nobody has read.
 * A stream that belongs to nobody in particular uses the family's own, which lasts as long as the
 * family.
 *
 * Every function is safe from any thread of any member. */
#ifndef KIN_TRANSIT_H
#define KIN_TRANSIT_H

#include "family.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kin_transit {
    kin_handle handle;
} kin_transit;

/* Errors: KIN_EARENAFULL, KIN_ELEFT. */
KIN_API KIN_NODISCARD kin_err kin_transit_create(kin_family *family, kin_transit *out);
KIN_API KIN_NODISCARD kin_err kin_transit_open(kin_family *family, const kin_ref *ref,
                                               kin_transit *out);
/* A handle on the family's own. */
KIN_API KIN_NODISCARD kin_err kin_transit_of_family(kin_family *family, kin_transit *out);
KIN_API void kin_transit_close(kin_transit *transit);

/* Hold `count` objects; *number, never 0, names these holds together.
 * Errors: KIN_ESTALE, KIN_EKIND (none is held then), KIN_EARENAFULL. */
KIN_API KIN_NODISCARD kin_err kin_transit_hold(kin_transit *transit, const kin_ref *refs,
                                               uint32_t count, uint64_t *number);
/* Give the holds of that number back; nothing if there are none (any more). */
KIN_API void kin_transit_drop(kin_transit *transit, uint64_t number);

#ifdef __cplusplus
}
#endif

#endif
