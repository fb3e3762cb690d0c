/* Event: the lowest bit says whether it is set, the others count how often it
 * was, so that whoever waited is let go even if it was cleared at once. */
#include "family/arena.h"
#include "family/fault.h"
#include "family/refs.h"
#include "kin/sync.h"
#include "kin/wait.h"
#include "os/os.h"
#include "park.h"
#include "sync_kinds.h"

typedef struct kin_event_shm {
    _Atomic uint32_t word;
    _Atomic uint32_t waiting; /* somebody may be parked on the word */
    _Atomic uint64_t watch;   /* a place: who watches by descriptor (family/watch.h) */
} kin_event_shm;

#define IS_SET 1u

static uint32_t look(const kin_event_shm *shm) {
    /* acquire pairs with kin_event_set: what was done before it is seen */
    return atomic_load_explicit(&shm->word, memory_order_acquire);
}

static bool is_set(const void *object) {
    return look(object) & IS_SET;
}

kin_err kin_event_create(kin_family *family, kin_event *out) {
    kin_handle handle;
    kin_err err = kin__object_new(family, sizeof(kin_event_shm), &handle);
    if (err) return err;
    kin__object_share(&handle, KIN_KIND_EVENT);
    out->handle = handle;
    return 0;
}

kin_err kin_event_open(kin_family *family, const kin_ref *ref, kin_event *out) {
    return kin__object_open(family, ref, KIN_KIND_EVENT, &out->handle);
}

void kin_event_close(kin_event *event) {
    kin_handle_close(&event->handle);
}

void kin_event_set(kin_event *event) {
    kin_event_shm *shm = event->handle.shm;
    uint32_t seen = look(shm);
    do {
        if (seen & IS_SET) return;
    } while (!atomic_compare_exchange_weak_explicit(&shm->word, &seen, seen + 3,
                                                    memory_order_seq_cst, memory_order_relaxed));
    KIN_FAULT("event-set");
    /* seq_cst, here and in the wait: either we see `waiting`, or it sees the word */
    if (atomic_exchange_explicit(&shm->waiting, 0, memory_order_seq_cst))
        kin__os_wake(&shm->word, INT32_MAX);
    kin__watch_tell(event->handle.family, &shm->watch);
}

void kin_event_clear(kin_event *event) {
    kin_event_shm *shm = event->handle.shm;
    atomic_fetch_and_explicit(&shm->word, ~IS_SET, memory_order_acq_rel);
}

int kin_event_is_set(const kin_event *event) {
    return is_set(event->handle.shm);
}

kin_err kin_event_wait(kin_event *event, kin_deadline deadline) {
    kin_event_shm *shm = event->handle.shm;
    uint32_t first = look(shm);
    if (first & IS_SET) return 0;
    if (deadline == KIN_NOW) return -ETIMEDOUT;
    if (kin__spin(event->handle.family, is_set, shm)) return 0;
    while (look(shm) == first) {
        atomic_store_explicit(&shm->waiting, 1, memory_order_seq_cst);
        kin_err err = kin__park(&shm->word, first, deadline);
        if (err) return look(shm) == first ? err : 0;
    }
    return 0;
}

/* -- Watchers, end and burial ------------------------------------------------------- */

bool kin__event_is_ready(const void *object, int what) {
    const kin_event_shm *shm = object;
    (void)what;
    return atomic_load_explicit(&shm->word, memory_order_seq_cst) & IS_SET;
}

_Atomic uint64_t *kin__event_watch(void *object, int what, _Atomic uint32_t **flag) {
    kin_event_shm *shm = object;
    *flag = NULL;
    return what == KIN_READY_TAKE ? &shm->watch : NULL;
}

void kin__event_end(kin_family *family, uint64_t off) {
    kin_event_shm *shm = kin__payload(family, off);
    kin__watch_end(family, &shm->watch);
}

void kin__event_bury(kin_family *family, uint64_t off, uint32_t token) {
    kin_event_shm *shm = kin__payload(family, off);
    (void)token;
    kin__watch_bury(family, off, KIN_KIND_EVENT, &shm->watch);
}
