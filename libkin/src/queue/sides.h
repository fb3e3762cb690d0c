/* The two sides of a queue: their counts, and the mutex of each with what the next
 * holder settles if one died in it. */
#ifndef KIN_QUEUE_SIDES_H
#define KIN_QUEUE_SIDES_H

#include "layout.h"

/* acquire pairs with the release in kin__pass: who sees the count sees the record, or
 * that its place may be used again. */
static inline uint64_t kin__passed(const kin_count_shm *side) {
    return atomic_load_explicit(&side->count, memory_order_acquire);
}

/* The same for one that has asked to be called, and looks whether it must wait:
 * seq_cst, against kin__pass and the look for those who wait that follows it. */
static inline uint64_t kin__passed_by_now(const kin_count_shm *side) {
    return atomic_load_explicit(&side->count, memory_order_seq_cst);
}

/* With the side's mutex held: how many bytes have passed it. */
static inline uint64_t kin__bytes_passed(const kin_count_shm *side) {
    return atomic_load_explicit(&side->bytes[kin__passed(side) & 1], memory_order_acquire);
}

/* The same without it, as it was at some moment during the call. */
uint64_t kin__bytes_passed_lately(const kin_count_shm *side);

/* With the side's mutex held: one more record, of `bytes`, has passed.  This is the store that makes
 * it so.  seq_cst, too: before anybody is called. */
static inline void kin__pass(kin_count_shm *side, uint64_t bytes) {
    uint64_t count = atomic_load_explicit(&side->count, memory_order_relaxed);
    uint64_t all = atomic_load_explicit(&side->bytes[count & 1], memory_order_relaxed) + bytes;
    /* release: after the count that made this copy the free one */
    atomic_store_explicit(&side->bytes[(count + 1) & 1], all, memory_order_release);
    atomic_store_explicit(&side->count, count + 1, memory_order_seq_cst);
}

static inline uint32_t kin__shut(const kin_queue_shm *shm) {
    return atomic_load_explicit(&shm->shut, memory_order_seq_cst);
}

/* 0; -ETIMEDOUT, -EINTR; with KIN_NOW -EAGAIN: somebody has it. */
KIN_NODISCARD kin_err kin__tail_lock(kin_family *family, kin_queue_shm *shm, kin_deadline deadline);
KIN_NODISCARD kin_err kin__head_lock(kin_family *family, kin_queue_shm *shm, kin_deadline deadline);
void kin__tail_unlock(kin_queue_shm *shm);
void kin__head_unlock(kin_queue_shm *shm);

/* Finish what a dead member left of its transfers; by who locks, or is the only one. */
void kin__sides_settle(kin_family *family, kin_queue_shm *shm);

/* -- Transfers, with the side's mutex held ------------------------------------------- */

/* It counts from now on; `count` is the side's. */
void kin__transfer_arm(kin_transfer_shm *transfer, uint64_t count);
void kin__transfer_disarm(kin_transfer_shm *transfer);

/* Free a segment that is nobody's any more; nothing if it is not as it was. */
void kin__segment_free(kin_family *family, uint64_t off, uint64_t serial);

#endif
