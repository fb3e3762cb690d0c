#include "sides.h"

#include "family/arena.h"
#include "family/blob.h"
#include "family/mutex.h"

/* -- Counts -------------------------------------------------------------------------- */

/* The copy that is read is written again only two records later, after the count has
 * moved: acquire pairs with the release there, so that the second look notices. */
uint64_t kin__bytes_passed_lately(const kin_count_shm *side) {
    uint64_t count = kin__passed(side);
    for (;;) {
        uint64_t bytes = atomic_load_explicit(&side->bytes[count & 1], memory_order_acquire);
        uint64_t again = kin__passed(side);
        if (again == count) return bytes;
        count = again;
    }
}

/* -- Transfers ----------------------------------------------------------------------- */

void kin__transfer_arm(kin_transfer_shm *transfer, uint64_t count) {
    transfer->when = count;
    /* release: who finds it armed finds it whole */
    atomic_store_explicit(&transfer->armed, 1, memory_order_release);
}

void kin__transfer_disarm(kin_transfer_shm *transfer) {
    atomic_store_explicit(&transfer->armed, 0, memory_order_release);
    transfer->segment = transfer->blob = 0;
}

static bool is_armed(kin_transfer_shm *transfer) {
    return atomic_load_explicit(&transfer->armed, memory_order_acquire);
}

void kin__segment_free(kin_family *family, uint64_t off, uint64_t serial) {
    const uint64_t linked = KIN_TAG(KIN_LINKED, KIN_KIND_SEGMENT, 0);
    kin_block_shm *block = off ? kin__block_find(family, off) : NULL;
    /* First the tag: linked, and then still of that serial, it can't become another's before it is
     * taken.  In a dead one's hands its burial may free it, and it be linked anew, in between. */
    if (!block || kin__block_tag(block) != linked) return;
    if (atomic_load_explicit(&block->serial, memory_order_acquire) != serial) return;
    if (kin__block_take(family, block, linked)) kin__block_free(family, off);
}

static void free_transferred(kin_family *family, kin_transfer_shm *transfer) {
    kin__segment_free(family, transfer->segment, transfer->segment_serial);
    kin_blob blob;
    if (transfer->blob && kin__blob_take(family, transfer->blob, transfer->blob_serial, &blob))
        kin_blob_free(&blob);
}

/* A producer died with the tail locked.  Not published: its blocks are nobody's.  Disarmed in any
 * case: it may have died in the middle of that, and left names behind. */
static void settle_tail(kin_family *family, kin_queue_shm *shm) {
    kin_transfer_shm *transfer = &shm->tail.transfer;
    if (is_armed(transfer) && kin__passed(&shm->pushed) == transfer->when)
        free_transferred(family, transfer);
    kin__transfer_disarm(transfer);
}

/* A consumer died with the head locked.  Consumed: what it had left behind, and
 * what it had taken, are nobody's. */
static void settle_head(kin_family *family, kin_queue_shm *shm) {
    kin_transfer_shm *transfer = &shm->head.transfer;
    if (is_armed(transfer) && kin__passed(&shm->popped) != transfer->when)
        free_transferred(family, transfer);
    kin__transfer_disarm(transfer);
}

void kin__sides_settle(kin_family *family, kin_queue_shm *shm) {
    settle_tail(family, shm);
    settle_head(family, shm);
}

/* -- Locks ----------------------------------------------------------------------------- */

kin_err kin__tail_lock(kin_family *family, kin_queue_shm *shm, kin_deadline deadline) {
    kin_err err = kin__mutex_lock_until(family, &shm->tail.mutex, deadline);
    if (err == KIN_OWNER_DIED) settle_tail(family, shm);
    return err < 0 ? err : 0;
}

kin_err kin__head_lock(kin_family *family, kin_queue_shm *shm, kin_deadline deadline) {
    kin_err err = kin__mutex_lock_until(family, &shm->head.mutex, deadline);
    if (err == KIN_OWNER_DIED) settle_head(family, shm);
    return err < 0 ? err : 0;
}

void kin__tail_unlock(kin_queue_shm *shm) {
    kin__mutex_unlock(&shm->tail.mutex);
}

void kin__head_unlock(kin_queue_shm *shm) {
    kin__mutex_unlock(&shm->head.mutex);
}
