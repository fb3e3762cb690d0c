#include "park.h"

#include "os/os.h"

#define PATIENCE_NS 1000000000
/* The longest spin, and what it shrinks to where spinning does not pay. */
#define SPIN_MAX_NS 20000
#define SPIN_MIN_NS 500

/* How long this process spins at present: doubled by a success, halved by a
 * failure.  A hint; races over it do no harm. */
static _Atomic int32_t spin_ns = SPIN_MAX_NS;

bool kin__spin(const kin_family *family, kin__ready *ready, const void *object) {
    if (ready(object)) return true;
    if (family->cpus < 2) return false;
    int32_t ns = atomic_load_explicit(&spin_ns, memory_order_relaxed);
    kin_deadline end = kin__os_clock() + ns;
    do {
        for (int i = 0; i < 16; i++) {
            kin__os_pause();
            if (!ready(object)) continue;
            int32_t more = ns * 2;
            atomic_store_explicit(&spin_ns, more > SPIN_MAX_NS ? SPIN_MAX_NS : more,
                                  memory_order_relaxed);
            return true;
        }
    } while (kin__os_clock() < end);
    atomic_store_explicit(&spin_ns, ns / 2 < SPIN_MIN_NS ? SPIN_MIN_NS : ns / 2,
                          memory_order_relaxed);
    return false;
}

kin_err kin__park(_Atomic uint32_t *word, uint32_t seen, kin_deadline deadline) {
    kin_deadline patience = kin__os_clock() + PATIENCE_NS;
    bool patient = patience < deadline;
    kin_err err = kin__os_park(word, seen, patient ? patience : deadline);
    if (err == -EINTR || (err == -ETIMEDOUT && !patient)) return err;
    return 0;
}

uint32_t kin__bell_listen(kin_bell_shm *bell) {
    atomic_store_explicit(&bell->waiting, 1, memory_order_seq_cst);
    return atomic_load_explicit(&bell->rings, memory_order_seq_cst);
}

void kin__bell_ring_slow(kin_bell_shm *bell, int count) {
    if (!atomic_exchange_explicit(&bell->waiting, 0, memory_order_seq_cst)) return;
    atomic_fetch_add_explicit(&bell->rings, 1, memory_order_seq_cst);
    kin__os_wake(&bell->rings, count);
}
