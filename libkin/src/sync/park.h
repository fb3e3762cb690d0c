/* How the objects of this room and the queue wait: spin briefly where another
 * CPU may answer, then park.
 *
 * A park ends after a second to look again, and later, if that was for nothing, after
 * two, four and eight.  What it guards against is a member killed between changing a word
 * and waking those who wait for it, and not yet buried: its wake-up is lost, not the
 * change, and this is when the change is noticed. */
#ifndef KIN_SYNC_PARK_H
#define KIN_SYNC_PARK_H

#include "family/family_internal.h"
#include "family/watch.h"

/* Ask this now and then: may we stop waiting? */
typedef bool kin__ready(const void *object);

/* How long it has paid to spin of late: the longest spin at first, doubled by a success, halved by a
 * failure.  Hints; races over them do no harm. */
#define KIN_SPIN_MAX_NS 20000
typedef struct kin__spinner {
    _Atomic int32_t ns;
    _Atomic uint32_t waits;
} kin__spinner;
/* How long the next wait may spin, and what came of it. */
int32_t kin__spinner_ns(kin__spinner *spinner);
void kin__spinner_learn(kin__spinner *spinner, int32_t tried_ns, bool paid);

/* Spin until ready, for some microseconds at the most, for as long as that has
 * paid of late in this process; not at all on one CPU. */
bool kin__spin(const kin_family *family, kin__ready *ready, const void *object);

/* When the calling thread's next park is to end at the latest, and what came of it: -ETIMEDOUT if
 * it ended so. */
kin_deadline kin__patience_end(void);
void kin__patience_after(kin_err err);

/* Park once on the word while it is `seen`.  0: look again; -ETIMEDOUT; -EINTR. */
kin_err kin__park(_Atomic uint32_t *word, uint32_t seen, kin_deadline deadline);

/* A bell: somebody waits (`waiting`), and the word that they are parked on.
 *
 * To wait: kin__bell_listen, look whether it is worth waiting, kin__bell_wait.
 * To call: change what is waited for, then kin__bell_ring.  Both sides' accesses
 * are sequentially consistent, so that one of them sees the other's. */
typedef struct kin_bell_shm {
    _Atomic uint32_t waiting; /* KIN_PARKED, KIN_WATCHED: somebody may be so */
    _Atomic uint32_t rings;
    _Atomic uint64_t watch; /* a place: who watches by descriptor (family/watch.h) */
} kin_bell_shm;
#define KIN_PARKED 1u

uint32_t kin__bell_listen(kin_bell_shm *bell);
static inline kin_err kin__bell_wait(kin_bell_shm *bell, uint32_t heard, kin_deadline deadline) {
    return kin__park(&bell->rings, heard, deadline);
}
/* Wake `count` that are parked, and tell all that watch. */
void kin__bell_ring_slow(kin_family *family, kin_bell_shm *bell, int count);
static inline void kin__bell_ring(kin_family *family, kin_bell_shm *bell, int count) {
    if (atomic_load_explicit(&bell->waiting, memory_order_seq_cst))
        kin__bell_ring_slow(family, bell, count);
}
/* The two halves of it. */
void kin__bell_wake_slow(kin_bell_shm *bell, int count);
static inline void kin__bell_wake(kin_bell_shm *bell, int count) {
    if (count && atomic_load_explicit(&bell->waiting, memory_order_seq_cst) & KIN_PARKED)
        kin__bell_wake_slow(bell, count);
}
static inline void kin__bell_tell(kin_family *family, kin_bell_shm *bell) {
    if (atomic_load_explicit(&bell->waiting, memory_order_seq_cst) & KIN_WATCHED)
        kin__bell_ring_slow(family, bell, 0);
}
/* Wake all that are parked, whatever the flag says: who was killed as it rang may have taken
 * it back already. */
void kin__bell_ring_all(kin_family *family, kin_bell_shm *bell);
/* One who has waited and got what it waited for stands in for the others: it
 * can't know whether it was the only one. */
static inline void kin__bell_pass_on(kin_bell_shm *bell) {
    atomic_fetch_or_explicit(&bell->waiting, KIN_PARKED, memory_order_seq_cst);
}

#endif
