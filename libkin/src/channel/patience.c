/* The spin is tried as in sync/park.c: doubled by a success, halved by a failure, and one wait in
 * so many in full, lest a bad moment count for ever.  But here a look is a system call, so there are
 * fewer of them, and the channels of a process have their own opinion of what pays. */
#include "channel/patience.h"

#include <stdatomic.h>

#include "os/os.h"
#include "os/os_stream.h"

#define SPIN_MAX_NS 20000
#define SPIN_MIN_NS 500
#define TRIAL_EVERY 32

/* Hints; races over them do no harm. */
static _Atomic int32_t spin_ns = SPIN_MAX_NS;
static _Atomic uint32_t waits;
static _Atomic int cpus;

static bool has_another_cpu(void) {
    int known = atomic_load_explicit(&cpus, memory_order_relaxed);
    if (known == 0) {
        known = kin__os_cpus();
        atomic_store_explicit(&cpus, known, memory_order_relaxed);
    }
    return known > 1;
}

static int32_t clamp(int32_t ns) {
    return ns > SPIN_MAX_NS ? SPIN_MAX_NS : ns < SPIN_MIN_NS ? SPIN_MIN_NS : ns;
}

static ssize_t spin_for(int32_t ns, kin__try *try, void *work) {
    kin_deadline end = kin__os_clock() + ns;
    ssize_t got;
    do {
        for (int i = 0; i < 8; i++) kin__os_pause();
        got = try(work);
    } while (got == -EAGAIN && kin__os_clock() < end);
    return got;
}

ssize_t kin__patience_spin(kin__try *try, void *work) {
    if (!has_another_cpu()) return -EAGAIN;
    uint32_t turn = atomic_fetch_add_explicit(&waits, 1, memory_order_relaxed);
    int32_t ns = atomic_load_explicit(&spin_ns, memory_order_relaxed);
    int32_t tried = turn % TRIAL_EVERY ? ns : SPIN_MAX_NS;
    ssize_t got = spin_for(tried, try, work);
    int32_t next = got == -EAGAIN ? ns / 2 : tried * 2;
    atomic_store_explicit(&spin_ns, clamp(next), memory_order_relaxed);
    return got;
}

kin_err kin__patience_wait(int fd, unsigned char want, kin_deadline deadline) {
    if (kin__os_is_nonblocking(fd)) return -EAGAIN;
    struct kin__os_poll polled = {.fd = fd, .want = want};
    return kin__os_poll(&polled, 1, deadline);
}
