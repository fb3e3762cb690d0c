#include "park.h"

#include "os/os.h"

#define PATIENCE_NS ((int64_t)1000000000)
#define PATIENCE_MAX_NS (8 * PATIENCE_NS)
/* What a spin shrinks to where spinning does not pay. */
#define SPIN_MIN_NS 500
/* One wait in so many spins as long as it may, lest a bad moment count for ever. */
#define TRIAL_EVERY 32

int32_t kin__spinner_ns(kin__spinner *spinner) {
    uint32_t turn = atomic_fetch_add_explicit(&spinner->waits, 1, memory_order_relaxed);
    int32_t ns = atomic_load_explicit(&spinner->ns, memory_order_relaxed);
    return turn % TRIAL_EVERY ? ns : KIN_SPIN_MAX_NS;
}

void kin__spinner_learn(kin__spinner *spinner, int32_t tried_ns, bool paid) {
    int32_t ns = atomic_load_explicit(&spinner->ns, memory_order_relaxed);
    ns = paid ? tried_ns * 2 : ns / 2;
    if (ns > KIN_SPIN_MAX_NS) ns = KIN_SPIN_MAX_NS;
    if (ns < SPIN_MIN_NS) ns = SPIN_MIN_NS;
    atomic_store_explicit(&spinner->ns, ns, memory_order_relaxed);
}

static bool spin_for(int32_t ns, kin__ready *ready, const void *object) {
    kin_deadline end = kin__os_clock() + ns;
    do {
        for (int i = 0; i < 16; i++) {
            kin__os_pause();
            if (ready(object)) return true;
        }
    } while (kin__os_clock() < end);
    return false;
}

bool kin__spin(const kin_family *family, kin__ready *ready, const void *object) {
    if (ready(object)) return true;
    if (family->cpus < 2) return false;
    static kin__spinner spinner = {.ns = KIN_SPIN_MAX_NS};
    int32_t ns = kin__spinner_ns(&spinner);
    bool paid = spin_for(ns, ready, object);
    kin__spinner_learn(&spinner, ns, paid);
    return paid;
}

/* A thread that has waited for long in vain is likely to go on. */
static _Thread_local int64_t patience_ns = PATIENCE_NS;

kin_deadline kin__patience_end(void) {
    return kin__os_clock() + patience_ns;
}

void kin__patience_after(kin_err err) {
    if (err != -ETIMEDOUT) patience_ns = PATIENCE_NS;
    else if (patience_ns < PATIENCE_MAX_NS) patience_ns *= 2;
}

kin_err kin__park(_Atomic uint32_t *word, uint32_t seen, kin_deadline deadline) {
    kin_deadline patience = kin__patience_end();
    bool patient = patience < deadline;
    kin_err err = kin__os_park(word, seen, patient ? patience : deadline);
    if (err == -ETIMEDOUT && !patient) return err;
    kin__patience_after(err);
    return err == -EINTR ? err : 0;
}

/* The word before the flag: a ringer that takes the flag back has counted a ring that is not in what
 * was heard, or has not yet, and then wakes one. */
uint32_t kin__bell_listen(kin_bell_shm *bell) {
    uint32_t heard = atomic_load_explicit(&bell->rings, memory_order_seq_cst);
    atomic_fetch_or_explicit(&bell->waiting, KIN_PARKED, memory_order_seq_cst);
    return heard;
}

void kin__bell_ring_slow(kin_family *family, kin_bell_shm *bell, int count) {
    /* who is parked stays so if nobody is to be woken */
    uint32_t gone = count ? KIN_PARKED | KIN_WATCHED : KIN_WATCHED;
    uint32_t who = atomic_fetch_and_explicit(&bell->waiting, ~gone, memory_order_seq_cst) & gone;
    if (who & KIN_PARKED) {
        atomic_fetch_add_explicit(&bell->rings, 1, memory_order_seq_cst);
        kin__os_wake(&bell->rings, count);
    }
    if (who & KIN_WATCHED) kin__watch_ring(family, &bell->watch, false);
}

void kin__bell_wake_slow(kin_bell_shm *bell, int count) {
    uint32_t who = atomic_fetch_and_explicit(&bell->waiting, ~KIN_PARKED, memory_order_seq_cst);
    if (!(who & KIN_PARKED)) return;
    atomic_fetch_add_explicit(&bell->rings, 1, memory_order_seq_cst);
    kin__os_wake(&bell->rings, count);
}

void kin__bell_ring_all(kin_family *family, kin_bell_shm *bell) {
    uint32_t who = atomic_exchange_explicit(&bell->waiting, 0, memory_order_seq_cst);
    atomic_fetch_add_explicit(&bell->rings, 1, memory_order_seq_cst);
    kin__os_wake(&bell->rings, INT32_MAX);
    if (who & KIN_WATCHED) kin__watch_ring(family, &bell->watch, false);
}
