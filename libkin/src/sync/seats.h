/* The threads that wait at a condition or a barrier: a seat each.
 *
 * The first few seats are in the object, more in blocks that hang from it by places, one behind the
 * other; they stay until the object ends.  All of it is guarded by the object's mutex, but for a
 * seat's `state`, which who sits there reads and parks on. */
#ifndef KIN_SYNC_SEATS_H
#define KIN_SYNC_SEATS_H

#include "family/family_internal.h"

typedef struct kin_seat_shm {
    _Atomic uint32_t state;
    _Atomic uint32_t token;  /* whose it is; 0: nobody's, whatever else it says */
    _Atomic uint64_t number; /* what the object makes of it; never 0 while it is somebody's */
} kin_seat_shm;

#define KIN_SEATS_FIRST 4
#define KIN_SEATS_MORE 61

typedef struct kin_seats_shm {
    _Atomic uint64_t more; /* a place: the next block */
    kin_seat_shm seat[];
} kin_seats_shm;

/* A walk over all seats:  for (kin__seat_walk w = kin__seats_of(…); (seat = kin__seat_next(&w));) */
typedef struct kin__seat_walk {
    kin_family *family;
    kin_seats_shm *block;
    uint32_t at, count;
} kin__seat_walk;

static inline kin__seat_walk kin__seats_of(kin_family *family, kin_seats_shm *first) {
    return (kin__seat_walk){.family = family, .block = first, .count = KIN_SEATS_FIRST};
}
/* The next one that is somebody's; NULL at the end. */
kin_seat_shm *kin__seat_next(kin__seat_walk *walk);

/* A free seat for this member.  Its state is `state`.
 * Errors: KIN_EARENAFULL, KIN_ELEFT, KIN_ENOFAMILY. */
KIN_NODISCARD kin_err kin__seat_take(kin_family *family, kin_seats_shm *first, uint32_t state,
                                     uint64_t number, kin_seat_shm **out);
void kin__seat_free(kin_seat_shm *seat);

static inline uint32_t kin__seat_state(const kin_seat_shm *seat) {
    /* acquire: what was done before it was set is seen */
    return atomic_load_explicit(&seat->state, memory_order_acquire);
}
static inline void kin__seat_say(kin_seat_shm *seat, uint32_t state) {
    atomic_store_explicit(&seat->state, state, memory_order_release);
}
static inline uint32_t kin__seat_token(const kin_seat_shm *seat) {
    return atomic_load_explicit(&seat->token, memory_order_relaxed);
}
static inline uint64_t kin__seat_number(const kin_seat_shm *seat) {
    return atomic_load_explicit(&seat->number, memory_order_relaxed);
}

/* The end of the object: its further blocks go. */
static inline kin_seats_shm *kin__seats_in(void *object, size_t off) {
    return (kin_seats_shm *)((uint8_t *)object + off);
}
void kin__seats_end_all(kin_family *family, kin_seats_shm *first);

#endif
