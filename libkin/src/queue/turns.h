/* Who waits at a side of a queue, and who is next.
 *
 * Whoever finds nothing to take (or no room) spins briefly, then parks on the bell of
 * the count that must grow.  A ring wakes one for each record.  Who is awake already
 * may be faster than the one that was woken; so one that has waited for long claims the
 * turn, and until it has had it the others leave what comes to it.  They do so for a
 * short time only: if it was killed or stopped, its turn is cancelled.
 *
 * docs/queue.md, "Waiting", has the states and says who may die where. */
#ifndef KIN_QUEUE_TURNS_H
#define KIN_QUEUE_TURNS_H

#include "sides.h"

/* A turn is a word: the member's token, CALLED, and a number (from bit 32) that tells the waiters of
 * one process apart. */
#define KIN_TURN_CALLED 0x80000000ull /* it was called, and has not looked since */

/* One call of push or pop, as far as it may have to wait. */
typedef struct kin__waiter {
    kin_family *family;
    const kin_queue_shm *shm;
    kin_count_shm *side; /* whose count it waits for: a consumer for `pushed` */
    kin__ready *ready;   /* of the waiter: is there a record, or room for it, or no hope? */
    uint64_t bytes;      /* of what it wants to put */
    kin_deadline deadline;
    kin_deadline since; /* when it first parked; 0: it has not */
    uint64_t turn;      /* the word by which it has the turn; 0: it has not */
    bool listened;      /* it has asked to be rung: others may miss that ring */
} kin__waiter;

/* With the mutex held that guards what it waits for: is it somebody else's turn?  One load, of the
 * line that has the count. */
static inline bool kin__is_reserved(const kin__waiter *waiter) {
    uint64_t turn = atomic_load_explicit(&waiter->side->turn, memory_order_relaxed);
    return turn && (turn & ~KIN_TURN_CALLED) != waiter->turn;
}

/* Wait until it is worth another look.  reserved: there was something, and it is somebody
 * else's turn.
 * Errors: -ETIMEDOUT, -EINTR; with KIN_NOW -EAGAIN if it was reserved. */
KIN_NODISCARD kin_err kin__await(kin__waiter *waiter, bool reserved);

/* It goes, with what it wanted or in vain, and may have had the ring that was meant for another:
 * it sees that those beside it get theirs. */
void kin__waiter_leave_slow(kin__waiter *waiter);
static inline void kin__waiter_leave(kin__waiter *waiter) {
    if (waiter->listened || waiter->turn) kin__waiter_leave_slow(waiter);
}

/* The side's count has grown by `count`: call as many as that. */
bool kin__turn_call(kin_count_shm *side);
static inline void kin__call(kin_family *family, kin_count_shm *side, int count) {
    /* seq_cst: against the claim of one that looks at the count afterwards */
    if (atomic_load_explicit(&side->turn, memory_order_seq_cst) && kin__turn_call(side)) count--;
    kin__bell_ring(family, &side->bell, count);
}

/* The same, but for those that watch: they were told before. */
static inline void kin__call_waiters(kin_count_shm *side, int count) {
    if (atomic_load_explicit(&side->turn, memory_order_seq_cst) && kin__turn_call(side)) count--;
    kin__bell_wake(&side->bell, count);
}

/* Call all that wait: the queue was shut, or a member was killed on its way to call. */
void kin__call_all(kin_family *family, kin_count_shm *side);
/* Burial: the member with this token has no turn any more. */
void kin__turn_bury(kin_count_shm *side, uint32_t token);

#endif
