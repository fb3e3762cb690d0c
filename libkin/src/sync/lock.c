/* Lock and RLock: one word that names the member that holds it.
 *
 *   word   0: free; else the holder's token, with KIN_WAITERS if somebody may be
 *          parked on it.  KIN_WAITERS alone: RESERVED, free for the one whose turn it is.
 *   turn   0; else the token of a member with a thread that has waited for long, CALLED
 *          once the lock was reserved for it.
 *
 * Who waits parks for short times and asks in between whether the holder is
 * alive.  If it was killed, the family buries it, and the burial releases all its
 * locks (lock_bury), leaving word of it to the next holder.  If it left
 * normally the lock stays held, as the standard library has it: another process
 * may release it yet.
 *
 * Who comes may be faster than who was woken, and that is what makes a contended lock fast.  Who
 * has had bad luck for long claims the turn, and the next release hands the lock to it.
 * docs/locks.md has the states and says who may die where. */
#include <stdio.h>
#include <string.h>

#include "family/arena.h"
#include "family/fault.h"
#include "family/members.h"
#include "family/refs.h"
#include "family/texts.h"
#include "kin/sync.h"
#include "kin/wait.h"
#include "os/os.h"
#include "park.h"
#include "sync_kinds.h"

typedef struct kin_lock_shm {
    _Atomic uint32_t word;
    _Atomic uint32_t turn;
    _Atomic uint32_t died;  /* pid of the last holder that was killed; NEWS: nobody was told yet */
    _Atomic uint32_t where; /* a text: where its holder took it; with NEWS: who died, and where */
    uint32_t depth;         /* RLock: guarded by the lock itself */
    _Atomic uint32_t tid;   /* RLock: the holder's thread */
    _Atomic uint64_t watch; /* a place: who watches by descriptor (family/watch.h) */
} kin_lock_shm;

_Static_assert(sizeof(kin_lock_shm) + KIN_HEADER <= 64, "a lock takes one line");

#define RESERVED KIN_WAITERS
#define CALLED 0x80000000u
#define NEWS 0x80000000u

/* How long to wait before asking whether the holder is alive. */
#define PATIENCE_NS 100000000
/* Who has waited for so long claims the turn. */
#define LONG_NS 5000000
/* For so long the others leave a reserved lock to the one that was called. */
#define GRACE_NS 2000000

static bool swap(_Atomic uint32_t *word, uint32_t from, uint32_t to) {
    return atomic_compare_exchange_strong_explicit(word, &from, to, memory_order_seq_cst,
                                                   memory_order_relaxed);
}

static bool take(kin_lock_shm *shm, uint32_t from, uint32_t to) {
    /* acquire pairs with the release in give(): what the lock guards is seen */
    return atomic_compare_exchange_strong_explicit(&shm->word, &from, to, memory_order_acquire,
                                                   memory_order_relaxed);
}

/* -- Releasing ------------------------------------------------------------------------- */

/* Reserve the lock, which was just set free, for the one whose turn it is.  False: that one has
 * gone, or somebody else was faster. */
static bool hand_over(kin_lock_shm *shm) {
    uint32_t turn = atomic_load_explicit(&shm->turn, memory_order_seq_cst);
    if (!turn || turn & CALLED || !swap(&shm->word, 0, RESERVED)) return false;
    KIN_FAULT("lock-reserved");
    if (swap(&shm->turn, turn, turn | CALLED)) {
        kin__os_wake(&shm->turn, INT32_MAX);
        return true;
    }
    (void)swap(&shm->word, RESERVED, 0);
    return false;
}

static void give_slow(kin_lock_shm *shm, uint32_t old) {
    if (!hand_over(shm) && old & KIN_WAITERS) kin__os_wake(&shm->word, 1);
}

/* The lock is held; by whom is the caller's affair. */
static void give(kin_family *family, kin_lock_shm *shm) {
    /* a release; seq_cst because it looks for a turn and for watchers afterwards */
    uint32_t old = atomic_exchange_explicit(&shm->word, 0, memory_order_seq_cst);
    KIN_FAULT("lock-given");
    if (old & KIN_WAITERS || atomic_load_explicit(&shm->turn, memory_order_seq_cst))
        give_slow(shm, old);
    kin__watch_tell(family, &shm->watch);
}

/* -- Waiting --------------------------------------------------------------------------- */

typedef struct waiter {
    kin_family *family;
    kin_lock_shm *shm;
    uint32_t token;
    bool has_turn;
    kin_deadline deadline;
    kin_deadline since; /* when it first found the lock held; 0: it has not */
} waiter;

/* What a step of acquire_slow says besides a result: look again. */
#define AGAIN 1000

static bool is_free(const void *object) {
    const kin_lock_shm *shm = object;
    return atomic_load_explicit(&shm->word, memory_order_relaxed) == 0;
}

/* Until `end` or the deadline: AGAIN, or why not. */
static kin_err park(waiter *w, _Atomic uint32_t *word, uint32_t seen, kin_deadline end) {
    bool is_ours = end < w->deadline;
    kin_err err = kin__os_park(word, seen, is_ours ? end : w->deadline);
    if (err == -EINTR || (err == -ETIMEDOUT && !is_ours)) return err;
    return AGAIN;
}

static bool is_turn_of(const waiter *w) {
    uint32_t turn = atomic_load_explicit(&w->shm->turn, memory_order_seq_cst);
    return (turn & ~CALLED) == w->token;
}

/* Free, but not for everybody. */
static kin_err at_reserved(waiter *w) {
    kin_lock_shm *shm = w->shm;
    uint32_t turn = atomic_load_explicit(&shm->turn, memory_order_seq_cst);
    bool is_for_us = !turn || (w->has_turn && is_turn_of(w));
    if (!is_for_us && w->deadline == KIN_NOW) {
        if (kin__member_alive(w->family, turn & ~CALLED)) return -ETIMEDOUT;
        is_for_us = swap(&shm->turn, turn, 0);
    } else if (!is_for_us) {
        kin_deadline grace = kin__os_clock() + GRACE_NS;
        kin_err err = park(w, &shm->word, RESERVED, grace);
        if (err != AGAIN || kin__os_clock() < grace) return err;
        /* it is dead, stopped or slow; if it lives it waits like the others */
        is_for_us = swap(&shm->turn, turn, 0);
    }
    return is_for_us && take(shm, RESERVED, w->token | KIN_WAITERS) ? 0 : AGAIN;
}

/* Has it waited for long, and is the next one? */
static bool claim(waiter *w) {
    if (w->has_turn) {
        w->has_turn = is_turn_of(w);
        return w->has_turn;
    }
    kin_deadline now = kin__os_clock();
    if (!w->since) w->since = now;
    if (now - w->since < LONG_NS) return false;
    w->has_turn = swap(&w->shm->turn, 0, w->token);
    if (w->has_turn) KIN_FAULT("lock-claimed");
    return false; /* not before another look: it may have been released meanwhile */
}

static kin_err at_held(waiter *w, uint32_t seen) {
    kin_lock_shm *shm = w->shm;
    if (!kin__member_alive(w->family, seen & KIN_TOKEN_MASK) && kin_family_reap(w->family) > 0)
        return AGAIN;
    if (w->deadline == KIN_NOW) return -ETIMEDOUT;
    bool had_turn = w->has_turn, is_next = claim(w);
    if (w->has_turn != had_turn) return AGAIN;
    if (!(seen & KIN_WAITERS) && !take(shm, seen, seen | KIN_WAITERS)) return AGAIN;
    KIN_FAULT("lock-waiting");
    kin_deadline patience = kin__os_clock() + PATIENCE_NS;
    return is_next ? park(w, &shm->turn, w->token, patience)
                   : park(w, &shm->word, seen | KIN_WAITERS, patience);
}

static kin_err step(waiter *w) {
    uint32_t seen = atomic_load_explicit(&w->shm->word, memory_order_seq_cst);
    if (seen == RESERVED) return at_reserved(w);
    if (seen) return at_held(w, seen);
    /* others may be parked still: the release is to wake them */
    return take(w->shm, 0, w->deadline == KIN_NOW ? w->token : w->token | KIN_WAITERS) ? 0 : AGAIN;
}

/* It goes, with the lock or without: what was reserved for it and not taken is for all. */
static void give_turn_back(waiter *w, bool got_it) {
    kin_lock_shm *shm = w->shm;
    if (swap(&shm->turn, w->token, 0) || !swap(&shm->turn, w->token | CALLED, 0) || got_it) return;
    if (swap(&shm->word, RESERVED, 0)) kin__os_wake(&shm->word, 1);
}

static kin_err acquire_slow(kin_family *family, kin_lock_shm *shm, kin_deadline deadline) {
    uint32_t token = kin__token(family);
    if (!token) return KIN_ENOFAMILY;
    if (deadline != KIN_NOW && kin__spin(family, is_free, shm) && take(shm, 0, token)) return 0;
    waiter w = {.family = family, .shm = shm, .token = token, .deadline = deadline};
    kin_err err;
    do err = step(&w);
    while (err == AGAIN);
    if (w.has_turn) give_turn_back(&w, err == 0);
    return err;
}

/* -- Acquiring ------------------------------------------------------------------------- */

/* We have it.  What is there to say of the last holder stays while we do. */
static inline kin_err taken_at(kin_lock_shm *shm, uint32_t where) {
    if (atomic_load_explicit(&shm->died, memory_order_relaxed) & NEWS) {
        atomic_fetch_and_explicit(&shm->died, ~NEWS, memory_order_relaxed);
        return KIN_OWNER_DIED;
    }
    atomic_store_explicit(&shm->where, where, memory_order_relaxed);
    return 0;
}

static inline kin_err acquire(const kin_handle *handle, kin_deadline deadline, uint32_t where) {
    kin_lock_shm *shm = handle->shm;
    uint32_t token = kin__token(handle->family);
    if (!token || !take(shm, 0, token)) {
        kin_err err = acquire_slow(handle->family, shm, deadline);
        if (err) return err;
    }
    return taken_at(shm, where);
}

static uint32_t owner(const kin_lock_shm *shm) {
    return atomic_load_explicit(&shm->word, memory_order_relaxed) & KIN_TOKEN_MASK;
}

/* -- Burial ------------------------------------------------------------------------------ */

/* "Process-3, at app.py:12 in work", as far as it is known. */
static uint32_t obituary(kin_family *family, uint32_t where, uint32_t token) {
    char name[KIN_MEMBER_NAME_MAX + 1], place[KIN_TEXT_MAX + 1], text[KIN_TEXT_MAX + 64];
    memcpy(name, kin__member_row(family, token)->name, sizeof name);
    name[KIN_MEMBER_NAME_MAX] = 0;
    size_t known = kin__text_read(family, where, place);
    if (!name[0] && !known) return 0;
    int len = snprintf(text, sizeof text, "%s%s%s", name, name[0] && known ? ", " : "", place);
    return kin__text_number(family, text, (size_t)len);
}

/* The member `token` was killed.  Only its own reaper comes here, so that nobody
 * else releases the lock in its name. */
static void release_for(kin_family *family, kin_lock_shm *shm, uint32_t token) {
    uint32_t pid =
        (uint32_t)atomic_load_explicit(&kin__member_row(family, token)->pid, memory_order_relaxed);
    uint32_t where = atomic_load_explicit(&shm->where, memory_order_relaxed);
    /* once only, though an undertaker may be killed here, too */
    if (atomic_exchange_explicit(&shm->died, pid | NEWS, memory_order_relaxed) != (pid | NEWS))
        atomic_store_explicit(&shm->where, obituary(family, where, token), memory_order_relaxed);
    atomic_store_explicit(&shm->tid, 0, memory_order_relaxed);
    shm->depth = 0;
    KIN_FAULT("lock-buried");
    give(family, shm);
}

static void bury(kin_family *family, uint64_t off, unsigned kind, uint32_t token) {
    kin_lock_shm *shm = kin__payload(family, off);
    uint32_t turn = atomic_load_explicit(&shm->turn, memory_order_relaxed);
    bool has_turn = (turn & ~CALLED) == token;
    kin_handle pin;
    if ((owner(shm) != token && !has_turn) || kin__object_pin(family, off, kind, &pin)) return;
    waiter dead = {.family = family, .shm = shm, .token = token};
    if (has_turn) give_turn_back(&dead, false);
    if (owner(shm) == token) release_for(family, shm, token);
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

_Static_assert(KIN_OBITUARY_MAX == KIN_TEXT_MAX, "an obituary is a text");

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

kin_err kin_lock_acquire_at(kin_lock *lock, kin_deadline deadline, uint32_t where) {
    return acquire(&lock->handle, deadline, where);
}

kin_err kin_lock_acquire(kin_lock *lock, kin_deadline deadline) {
    return acquire(&lock->handle, deadline, 0);
}

kin_err kin_lock_release(kin_lock *lock) {
    kin_lock_shm *shm = lock->handle.shm;
    if (!owner(shm)) return KIN_EOVERRELEASE;
    give(lock->handle.family, shm);
    return 0;
}

uint32_t kin_lock_owner(const kin_lock *lock) {
    return owner(lock->handle.shm);
}

static int died(const kin_lock_shm *shm) {
    return (int)(atomic_load_explicit(&shm->died, memory_order_relaxed) & ~NEWS);
}

int kin_lock_died(const kin_lock *lock) {
    return died(lock->handle.shm);
}

/* -- RLock ------------------------------------------------------------------------- */

/* The caller's thread id.  The token tells a forked child's copy of what is known from its own. */
static uint32_t caller(const kin_family *family) {
    static _Thread_local struct {
        uint32_t tid, token;
    } known KIN__OS_NEAR;
    uint32_t token = kin__token(family);
    if (known.token != token) known.tid = kin__os_tid();
    known.token = token;
    return known.tid;
}

static bool is_mine(const kin_rlock *lock) {
    const kin_lock_shm *shm = lock->handle.shm;
    uint32_t tid = atomic_load_explicit(&shm->tid, memory_order_relaxed);
    return tid && tid == caller(lock->handle.family) &&
           owner(shm) == kin__token(lock->handle.family);
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

kin_err kin_rlock_acquire_at(kin_rlock *lock, kin_deadline deadline, uint32_t where) {
    kin_lock_shm *shm = lock->handle.shm;
    if (is_mine(lock)) {
        shm->depth++;
        return 0;
    }
    kin_err err = acquire(&lock->handle, deadline, where);
    if (err < 0) return err;
    atomic_store_explicit(&shm->tid, caller(lock->handle.family), memory_order_relaxed);
    shm->depth = 1;
    return err;
}

kin_err kin_rlock_acquire(kin_rlock *lock, kin_deadline deadline) {
    return kin_rlock_acquire_at(lock, deadline, 0);
}

kin_err kin_rlock_release(kin_rlock *lock) {
    kin_lock_shm *shm = lock->handle.shm;
    if (!is_mine(lock)) return KIN_ENOTOWNER;
    if (--shm->depth > 0) return 0;
    atomic_store_explicit(&shm->tid, 0, memory_order_relaxed);
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
    return died(lock->handle.shm);
}

/* -- Places and obituaries ------------------------------------------------------------ */

uint32_t kin_lock_place(kin_family *family, const char *text) {
    return kin__text_number(family, text, strlen(text));
}

void kin_lock_obituary(const kin_handle *lock, uint32_t place, char out[KIN_OBITUARY_MAX + 1]) {
    kin_lock_shm *shm = lock->shm;
    uint32_t said = atomic_exchange_explicit(&shm->where, place, memory_order_relaxed);
    kin__text_read(lock->family, said, out);
}
