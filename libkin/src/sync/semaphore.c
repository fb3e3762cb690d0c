/* Semaphore: a count in one word, with KIN_WAITERS if somebody may be parked on it.
 *
 * A release clears the bit and wakes as many as it lets in.  One that has been
 * parked puts the bit back when it goes in, since it can't know whether others are
 * parked still, and wakes the next if there is more to be had.  Nobody owns a
 * count, so nothing is given back when a process dies. */
#include "family/arena.h"
#include "family/fault.h"
#include "family/refs.h"
#include "kin/sync.h"
#include "kin/wait.h"
#include "os/os.h"
#include "park.h"
#include "sync_kinds.h"

typedef struct kin_semaphore_shm {
    _Atomic uint32_t word;
    uint32_t max;
    _Atomic uint64_t watch; /* a place: who watches by descriptor (family/watch.h) */
} kin_semaphore_shm;

#define COUNT(word) ((word) & ~KIN_WAITERS)

static bool change(kin_semaphore_shm *shm, uint32_t *from, uint32_t to) {
    /* Both ways: a release publishes what was done before it, an acquire sees it.
     * seq_cst: a release looks for watchers afterwards. */
    return atomic_compare_exchange_weak_explicit(&shm->word, from, to, memory_order_seq_cst,
                                                 memory_order_relaxed);
}

static bool try_acquire(kin_semaphore_shm *shm) {
    uint32_t seen = atomic_load_explicit(&shm->word, memory_order_relaxed);
    while (COUNT(seen) > 0)
        if (change(shm, &seen, seen - 1)) return true;
    return false;
}

static bool has_count(const void *object) {
    const kin_semaphore_shm *shm = object;
    return COUNT(atomic_load_explicit(&shm->word, memory_order_relaxed)) > 0;
}

static kin_err acquire_slow(kin_family *family, kin_semaphore_shm *shm, kin_deadline deadline) {
    if (kin__spin(family, has_count, shm) && try_acquire(shm)) return 0;
    uint32_t seen = atomic_load_explicit(&shm->word, memory_order_relaxed);
    for (;;) {
        if (COUNT(seen) > 0) {
            if (!change(shm, &seen, (seen - 1) | KIN_WAITERS)) continue;
            if (COUNT(seen) > 1) kin__os_wake(&shm->word, 1);
            return 0;
        }
        if (!(seen & KIN_WAITERS) && !change(shm, &seen, seen | KIN_WAITERS)) continue;
        kin_err err = kin__park(&shm->word, KIN_WAITERS, deadline);
        if (err) return err;
        seen = atomic_load_explicit(&shm->word, memory_order_relaxed);
    }
}

kin_err kin_semaphore_create(kin_family *family, uint32_t value, uint32_t max, kin_semaphore *out) {
    if (max > KIN_SEMAPHORE_MAX || value > max) return -EINVAL;
    kin_handle handle;
    kin_err err = kin__object_new(family, sizeof(kin_semaphore_shm), &handle);
    if (err) return err;
    kin_semaphore_shm *shm = handle.shm;
    atomic_init(&shm->word, value);
    shm->max = max;
    kin__object_share(&handle, KIN_KIND_SEMAPHORE);
    out->handle = handle;
    return 0;
}

kin_err kin_semaphore_open(kin_family *family, const kin_ref *ref, kin_semaphore *out) {
    return kin__object_open(family, ref, KIN_KIND_SEMAPHORE, &out->handle);
}

void kin_semaphore_close(kin_semaphore *semaphore) {
    kin_handle_close(&semaphore->handle);
}

kin_err kin_semaphore_acquire(kin_semaphore *semaphore, kin_deadline deadline) {
    kin_semaphore_shm *shm = semaphore->handle.shm;
    if (try_acquire(shm)) return 0;
    if (deadline == KIN_NOW) return -ETIMEDOUT;
    return acquire_slow(semaphore->handle.family, shm, deadline);
}

kin_err kin_semaphore_release(kin_semaphore *semaphore, uint32_t count) {
    kin_semaphore_shm *shm = semaphore->handle.shm;
    uint32_t seen = atomic_load_explicit(&shm->word, memory_order_relaxed);
    do {
        if (count > shm->max - COUNT(seen)) return KIN_EOVERRELEASE;
    } while (!change(shm, &seen, COUNT(seen) + count));
    KIN_FAULT("semaphore-released");
    if (seen & KIN_WAITERS) kin__os_wake(&shm->word, count > 1000000 ? 1000000 : (int)count);
    kin__watch_tell(semaphore->handle.family, &shm->watch);
    return 0;
}

uint32_t kin_semaphore_value(const kin_semaphore *semaphore) {
    const kin_semaphore_shm *shm = semaphore->handle.shm;
    return COUNT(atomic_load_explicit(&shm->word, memory_order_relaxed));
}

uint32_t kin_semaphore_max(const kin_semaphore *semaphore) {
    return ((const kin_semaphore_shm *)semaphore->handle.shm)->max;
}

/* -- Watchers, end and burial ------------------------------------------------------- */

bool kin__semaphore_is_ready(const void *object, int what) {
    const kin_semaphore_shm *shm = object;
    (void)what;
    return COUNT(atomic_load_explicit(&shm->word, memory_order_seq_cst)) > 0;
}

_Atomic uint64_t *kin__semaphore_watch(void *object, int what, _Atomic uint32_t **flag) {
    kin_semaphore_shm *shm = object;
    *flag = NULL;
    return what == KIN_READY_TAKE ? &shm->watch : NULL;
}

void kin__semaphore_end(kin_family *family, uint64_t off) {
    kin_semaphore_shm *shm = kin__payload(family, off);
    kin__watch_end(family, &shm->watch);
}

void kin__semaphore_bury(kin_family *family, uint64_t off, uint32_t token) {
    kin_semaphore_shm *shm = kin__payload(family, off);
    (void)token;
    kin__watch_bury(family, off, KIN_KIND_SEMAPHORE, &shm->watch);
}
