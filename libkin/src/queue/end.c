/* How a queue ends: it is shut down, or nobody knows it any more; and what is done in it when a
 * member that used it was killed. */
#include "family/arena.h"
#include "family/fault.h"
#include "family/mutex.h"
#include "family/refs.h"
#include "kin/wait.h"
#include "queue_internal.h"
#include "queue_kinds.h"
#include "records.h"
#include "turns.h"

typedef kin_err lock_side(kin_family *family, kin_queue_shm *shm, kin_deadline deadline);

/* False: this process is no member. */
static bool lock(lock_side *lock_it, kin_family *family, kin_queue_shm *shm) {
    for (;;) {
        kin_err err = lock_it(family, shm, KIN_FOREVER);
        if (err != -EINTR) return err == 0;
    }
}

/* Of those who wait for something, and of those who watch. */
static void call_everybody(kin_family *family, kin_queue_shm *shm) {
    kin__call_all(family, &shm->pushed);
    kin__call_all(family, &shm->popped);
    kin__bell_ring_all(family, &shm->all_done);
}

/* -- Shutdown ------------------------------------------------------------------------------ */

/* From the store of KIN_DROPPED on nothing in the queue counts.  `taken` is stored before it: who sees
 * the one sees the other. */
static void declare_dropped(kin_family *family, kin_queue_shm *shm) {
    /* Who is putting just now is waited for: nobody does after that. */
    if (!lock(kin__tail_lock, family, shm)) return;
    kin__tail_unlock(shm);
    if (!lock(kin__head_lock, family, shm)) return;
    if (kin__shut(shm) != KIN_DROPPED) {
        atomic_store_explicit(&shm->taken, kin__passed(&shm->popped), memory_order_seq_cst);
        KIN_FAULT("queue-shutting");
        atomic_store_explicit(&shm->shut, KIN_DROPPED, memory_order_seq_cst);
    }
    kin__head_unlock(shm);
}

/* Free what counts for nothing any more, one record at a time.  Who is killed meanwhile leaves the
 * rest to its burial. */
static void drop_all(kin_family *family, kin_queue_shm *shm) {
    uint8_t buffer[KIN_RECORD_MAX];
    kin_err err = 0;
    while (!err && lock(kin__head_lock, family, shm)) {
        kin_record record = {0};
        bool more = kin__passed(&shm->pushed) != kin__passed(&shm->popped);
        if (more) err = kin__record_read(family, shm, buffer, &record);
        kin__head_unlock(shm);
        if (!more) break;
        KIN_FAULT("queue-dropping");
        kin_blob_free(&record.blob);
    }
}

void kin_queue_shutdown(kin_queue *queue, int immediate) {
    kin_family *family = queue->handle.family;
    kin_queue_shm *shm = queue->handle.shm;
    uint32_t open = KIN_OPEN;
    atomic_compare_exchange_strong_explicit(&shm->shut, &open, KIN_SHUT, memory_order_seq_cst,
                                            memory_order_relaxed);
    if (immediate) declare_dropped(family, shm);
    call_everybody(family, shm);
    if (immediate) drop_all(family, shm);
}

int kin_queue_is_shutdown(const kin_queue *queue) {
    return kin__shut(queue->handle.shm) != KIN_OPEN;
}

/* -- The end -------------------------------------------------------------------------------- */

/* Nobody else knows the queue any more.  Records are popped one by one, so that
 * another member can go on where this one is killed. */
void kin__queue_end(kin_family *family, uint64_t off) {
    kin_queue_shm *shm = kin__payload(family, off);
    kin__sides_settle(family, shm);
    uint8_t buffer[KIN_RECORD_MAX];
    while (kin__passed(&shm->pushed) != kin__passed(&shm->popped)) {
        kin_record record;
        if (kin__record_read(family, shm, buffer, &record)) break;
        kin_blob_free(&record.blob);
    }
    kin__records_end(family, shm);
    kin__watch_end(family, &shm->pushed.bell.watch);
    kin__watch_end(family, &shm->popped.bell.watch);
}

/* -- Watchers --------------------------------------------------------------------------------- */

bool kin__queue_is_ready(const void *object, int what) {
    const kin_queue_shm *shm = object;
    if (what == KIN_READY_TAKE) return kin__queue_has_record(shm);
    return kin__queue_has_room(shm, atomic_load_explicit(&shm->wanted, memory_order_seq_cst));
}

_Atomic uint64_t *kin__queue_watch(void *object, int what, _Atomic uint32_t **flag) {
    kin_queue_shm *shm = object;
    kin_bell_shm *bell = what == KIN_READY_TAKE ? &shm->pushed.bell : &shm->popped.bell;
    *flag = &bell->waiting;
    return &bell->watch;
}

/* -- Burial ------------------------------------------------------------------------------------ */

static bool is_half_dropped(kin_queue_shm *shm) {
    return kin__shut(shm) == KIN_DROPPED && kin__passed(&shm->pushed) != kin__passed(&shm->popped);
}

/* Nobody was ever to be woken here.  (Flags don't tell: a ringer that was killed, or one that was
 * woken and killed before it passed the ring on, has left them empty.) */
static bool is_untouched(kin_queue_shm *shm, uint32_t token) {
    return kin__passed(&shm->pushed) == 0 && kin__shut(shm) == KIN_OPEN &&
           !kin__mutex_is_held_by(&shm->tail.mutex, token) &&
           !kin__mutex_is_held_by(&shm->head.mutex, token) &&
           atomic_load_explicit(&shm->pushed.turn, memory_order_relaxed) == 0;
}

static void bury(kin_family *family, kin_queue_shm *shm, uint32_t token) {
    if (kin__mutex_is_held_by(&shm->tail.mutex, token) && lock(kin__tail_lock, family, shm))
        kin__tail_unlock(shm);
    if (kin__mutex_is_held_by(&shm->head.mutex, token) && lock(kin__head_lock, family, shm))
        kin__head_unlock(shm);
    kin__turn_bury(&shm->pushed, token);
    kin__turn_bury(&shm->popped, token);
    /* It may have been killed on its way to call. */
    call_everybody(family, shm);
    kin__watch_ring(family, &shm->pushed.bell.watch, true);
    kin__watch_ring(family, &shm->popped.bell.watch, true);
    if (is_half_dropped(shm)) drop_all(family, shm);
}

void kin__queue_bury(kin_family *family, uint64_t off, uint32_t token) {
    kin_queue_shm *shm = kin__payload(family, off);
    if (is_untouched(shm, token)) return;
    kin_handle pin;
    if (kin__object_pin(family, off, KIN_KIND_QUEUE, &pin)) return;
    bury(family, shm, token);
    kin_handle_close(&pin);
}
