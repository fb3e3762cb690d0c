#include "mutex.h"

#include "members.h"
#include "os/os.h"

/* How long to spin before parking: about the time of a short critical section. */
#define SPINS 100
/* How long to park before asking again whether the owner is alive. */
#define PATIENCE_NS 20000000

static bool take(kin_mutex_shm *mutex, uint32_t from, uint32_t to) {
    /* acquire pairs with the release in kin__mutex_unlock */
    return atomic_compare_exchange_strong_explicit(&mutex->word, &from, to, memory_order_acquire,
                                                   memory_order_relaxed);
}

static bool spin(kin_family *family, kin_mutex_shm *mutex, uint32_t token) {
    if (family->cpus < 2) return false;
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&mutex->word, memory_order_relaxed) == 0 && take(mutex, 0, token))
            return true;
        kin__os_pause();
    }
    return false;
}

/* One park of at most PATIENCE_NS.  A time-out that is ours is no error. */
static kin_err park(kin_mutex_shm *mutex, uint32_t seen, kin_deadline deadline) {
    kin_deadline patience = kin__os_clock() + PATIENCE_NS;
    kin_err err = kin__os_park(&mutex->word, seen, patience < deadline ? patience : deadline);
    if (err == -EINTR) return err;
    if (err == -ETIMEDOUT && patience >= deadline) return err;
    return 0;
}

static kin_err lock_slow(kin_family *family, kin_mutex_shm *mutex, kin_deadline deadline) {
    uint32_t token = kin__token(family);
    if (!token) return KIN_ENOFAMILY;
    if (spin(family, mutex, token)) return 0;
    for (;;) {
        uint32_t seen = atomic_load_explicit(&mutex->word, memory_order_relaxed);
        if (seen == 0) {
            /* Others may be parked still: the unlock is to wake them. */
            if (take(mutex, 0, token | KIN_WAITERS)) return 0;
            continue;
        }
        if (!kin__member_alive(family, seen & KIN_TOKEN_MASK)) {
            if (take(mutex, seen, token | KIN_WAITERS)) return KIN_OWNER_DIED;
            continue;
        }
        if (deadline == KIN_NOW) return -EAGAIN;
        if (!(seen & KIN_WAITERS) && !take(mutex, seen, seen | KIN_WAITERS)) continue;
        kin_err err = park(mutex, seen | KIN_WAITERS, deadline);
        if (err) return err;
    }
}

kin_err kin__mutex_lock_until(kin_family *family, kin_mutex_shm *mutex, kin_deadline deadline) {
    uint32_t token = kin__token(family);
    if (token && take(mutex, 0, token)) return 0;
    return lock_slow(family, mutex, deadline);
}

kin_err kin__mutex_lock(kin_family *family, kin_mutex_shm *mutex) {
    for (;;) {
        kin_err err = kin__mutex_lock_until(family, mutex, KIN_FOREVER);
        if (err != -EINTR) return err;
    }
}

void kin__mutex_unlock(kin_mutex_shm *mutex) {
    /* release pairs with the acquire in take() */
    uint32_t old = atomic_exchange_explicit(&mutex->word, 0, memory_order_release);
    if (old & KIN_WAITERS) kin__os_wake(&mutex->word, 1);
}

bool kin__mutex_is_held_by(kin_mutex_shm *mutex, uint32_t token) {
    uint32_t word = atomic_load_explicit(&mutex->word, memory_order_relaxed);
    return (word & KIN_TOKEN_MASK) == token;
}
