/* Lock and RLock: one word that names the member that holds it.
 *
 *   word   0: free; else the holder's token, with KIN_WAITERS if somebody may be
 *          parked on it.
 *
 * Who waits parks for short times and asks in between whether the holder is
 * alive.  If it was killed, the family buries it, and the burial releases all its
 * locks (lock_bury), leaving word of it to the next holder.  If it left
 * normally the lock stays held, as the standard library has it: another process
 * may release it yet.  docs/locks.md says why. */
#include "family/arena.h"
#include "family/fault.h"
#include "family/members.h"
#include "family/refs.h"
#include "kin/sync.h"
#include "kin/wait.h"
#include "os/os.h"
#include "park.h"
#include "sync_kinds.h"

typedef struct kin_lock_shm {
    _Atomic uint32_t word;
    _Atomic uint32_t news;   /* pid of a holder that was killed, for the next one */
    _Atomic uint32_t died;   /* the last such pid */
    uint32_t depth;          /* RLock: guarded by the lock itself */
    _Atomic uint64_t holder; /* RLock: token and thread id */
    _Atomic uint64_t watch;  /* a place: who watches by descriptor (family/watch.h) */
} kin_lock_shm;

/* How long to wait before asking whether the holder is alive. */
#define PATIENCE_NS 100000000

static bool take(kin_lock_shm *shm, uint32_t from, uint32_t to) {
    /* acquire pairs with the release in give(): what the lock guards is seen */
    return atomic_compare_exchange_strong_explicit(&shm->word, &from, to, memory_order_acquire,
                                                   memory_order_relaxed);
}

static bool give(kin_family *family, kin_lock_shm *shm) {
    /* a release; seq_cst because it looks for watchers afterwards */
    uint32_t old = atomic_exchange_explicit(&shm->word, 0, memory_order_seq_cst);
    if (old & KIN_WAITERS) kin__os_wake(&shm->word, 1);
    kin__watch_tell(family, &shm->watch);
    return old != 0;
}

static kin_err with_news(kin_lock_shm *shm) {
    if (!atomic_load_explicit(&shm->news, memory_order_relaxed)) return 0;
    return atomic_exchange_explicit(&shm->news, 0, memory_order_relaxed) ? KIN_OWNER_DIED : 0;
}

static bool is_free(const void *object) {
    const kin_lock_shm *shm = object;
    return atomic_load_explicit(&shm->word, memory_order_relaxed) == 0;
}

static kin_err acquire_slow(kin_family *family, kin_lock_shm *shm, kin_deadline deadline) {
    uint32_t token = kin__token(family);
    if (!token) return KIN_ENOFAMILY;
    if (deadline != KIN_NOW && kin__spin(family, is_free, shm) && take(shm, 0, token)) return 0;
    for (;;) {
        uint32_t seen = atomic_load_explicit(&shm->word, memory_order_relaxed);
        if (seen == 0) {
            if (take(shm, 0, deadline == KIN_NOW ? token : token | KIN_WAITERS)) return 0;
            continue;
        }
        uint32_t holder = seen & KIN_TOKEN_MASK;
        if (!kin__member_alive(family, holder) && kin_family_reap(family) > 0) continue;
        if (deadline == KIN_NOW) return -ETIMEDOUT;
        if (!(seen & KIN_WAITERS) && !take(shm, seen, seen | KIN_WAITERS)) continue;
        kin_deadline patience = kin__os_clock() + PATIENCE_NS;
        bool patient = patience < deadline;
        kin_err err = kin__os_park(&shm->word, seen | KIN_WAITERS, patient ? patience : deadline);
        if (err == -EINTR || (err == -ETIMEDOUT && !patient)) return err;
    }
}

static inline kin_err acquire(kin_family *family, kin_lock_shm *shm, kin_deadline deadline) {
    uint32_t token = kin__token(family);
    if (!token || !take(shm, 0, token)) {
        kin_err err = acquire_slow(family, shm, deadline);
        if (err) return err;
    }
    return with_news(shm);
}

static uint32_t owner(const kin_lock_shm *shm) {
    return atomic_load_explicit(&shm->word, memory_order_relaxed) & KIN_TOKEN_MASK;
}

/* The member `token` was killed.  Only its own reaper comes here, so that nobody
 * else releases the lock in its name. */
static void bury(kin_family *family, uint64_t off, unsigned kind, uint32_t token) {
    kin_lock_shm *shm = kin__payload(family, off);
    if (owner(shm) != token) return;
    kin_handle pin;
    if (kin__object_pin(family, off, kind, &pin)) return;
    if (owner(shm) == token) {
        int32_t pid =
            atomic_load_explicit(&kin__member_row(family, token)->pid, memory_order_relaxed);
        atomic_store_explicit(&shm->died, (uint32_t)pid, memory_order_relaxed);
        atomic_store_explicit(&shm->news, (uint32_t)pid, memory_order_relaxed);
        atomic_store_explicit(&shm->holder, 0, memory_order_relaxed);
        shm->depth = 0;
        KIN_FAULT("lock-buried");
        give(family, shm);
    }
    kin_handle_close(&pin);
}

static void bury_and_tell(kin_family *family, uint64_t off, unsigned kind, uint32_t token) {
    kin_lock_shm *shm = kin__payload(family, off);
    bury(family, off, kind, token);
    kin__watch_bury(family, off, kind, &shm->watch);
}

void kin__lock_bury(kin_family *family, uint64_t off, uint32_t token) {
    bury_and_tell(family, off, KIN_KIND_LOCK, token);
}

void kin__rlock_bury(kin_family *family, uint64_t off, uint32_t token) {
    bury_and_tell(family, off, KIN_KIND_RLOCK, token);
}

void kin__lock_end(kin_family *family, uint64_t off) {
    kin_lock_shm *shm = kin__payload(family, off);
    kin__watch_end(family, &shm->watch);
}

/* -- Watchers ---------------------------------------------------------------------- */

bool kin__lock_is_ready(const void *object, int what) {
    const kin_lock_shm *shm = object;
    (void)what;
    return atomic_load_explicit(&shm->word, memory_order_seq_cst) == 0;
}

_Atomic uint64_t *kin__lock_watch(void *object, int what, _Atomic uint32_t **flag) {
    kin_lock_shm *shm = object;
    *flag = NULL;
    return what == KIN_READY_TAKE ? &shm->watch : NULL;
}

uint32_t kin__lock_holder(const void *object) {
    return owner(object);
}

/* -- Making them -------------------------------------------------------------------- */

static kin_err create(kin_family *family, unsigned kind, kin_handle *out) {
    kin_handle handle;
    kin_err err = kin__object_new(family, sizeof(kin_lock_shm), &handle);
    if (err) return err;
    kin__object_share(&handle, kind);
    *out = handle;
    return 0;
}

/* -- Lock ------------------------------------------------------------------------ */

kin_err kin_lock_create(kin_family *family, kin_lock *out) {
    return create(family, KIN_KIND_LOCK, &out->handle);
}

kin_err kin_lock_open(kin_family *family, const kin_ref *ref, kin_lock *out) {
    return kin__object_open(family, ref, KIN_KIND_LOCK, &out->handle);
}

void kin_lock_close(kin_lock *lock) {
    kin_handle_close(&lock->handle);
}

kin_err kin_lock_acquire(kin_lock *lock, kin_deadline deadline) {
    return acquire(lock->handle.family, lock->handle.shm, deadline);
}

kin_err kin_lock_release(kin_lock *lock) {
    return give(lock->handle.family, lock->handle.shm) ? 0 : KIN_EOVERRELEASE;
}

uint32_t kin_lock_owner(const kin_lock *lock) {
    return owner(lock->handle.shm);
}

int kin_lock_died(const kin_lock *lock) {
    const kin_lock_shm *shm = lock->handle.shm;
    return (int)atomic_load_explicit(&shm->died, memory_order_relaxed);
}

/* -- RLock ------------------------------------------------------------------------- */

/* Token and thread id of the caller.  The token tells a forked child's copy of
 * the thread-local value from its own. */
static uint64_t caller(const kin_family *family) {
    static _Thread_local uint64_t known;
    uint64_t token = kin__token(family);
    if (known >> 32 != token || !known) known = token << 32 | kin__os_tid();
    return known;
}

static bool is_mine(const kin_rlock *lock) {
    const kin_lock_shm *shm = lock->handle.shm;
    return atomic_load_explicit(&shm->holder, memory_order_relaxed) == caller(lock->handle.family);
}

kin_err kin_rlock_create(kin_family *family, kin_rlock *out) {
    return create(family, KIN_KIND_RLOCK, &out->handle);
}

kin_err kin_rlock_open(kin_family *family, const kin_ref *ref, kin_rlock *out) {
    return kin__object_open(family, ref, KIN_KIND_RLOCK, &out->handle);
}

void kin_rlock_close(kin_rlock *lock) {
    kin_handle_close(&lock->handle);
}

kin_err kin_rlock_acquire(kin_rlock *lock, kin_deadline deadline) {
    kin_lock_shm *shm = lock->handle.shm;
    if (is_mine(lock)) {
        shm->depth++;
        return 0;
    }
    kin_err err = acquire(lock->handle.family, shm, deadline);
    if (err < 0) return err;
    atomic_store_explicit(&shm->holder, caller(lock->handle.family), memory_order_relaxed);
    shm->depth = 1;
    return err;
}

kin_err kin_rlock_release(kin_rlock *lock) {
    kin_lock_shm *shm = lock->handle.shm;
    if (!is_mine(lock)) return KIN_ENOTOWNER;
    if (--shm->depth > 0) return 0;
    atomic_store_explicit(&shm->holder, 0, memory_order_relaxed);
    give(lock->handle.family, shm);
    return 0;
}

uint32_t kin_rlock_depth(const kin_rlock *lock) {
    const kin_lock_shm *shm = lock->handle.shm;
    return is_mine(lock) ? shm->depth : 0;
}

uint32_t kin_rlock_owner(const kin_rlock *lock) {
    return owner(lock->handle.shm);
}

int kin_rlock_died(const kin_rlock *lock) {
    const kin_lock_shm *shm = lock->handle.shm;
    return (int)atomic_load_explicit(&shm->died, memory_order_relaxed);
}
