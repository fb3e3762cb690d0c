/* The spin is that of sync/park.c, but a look is a system call here, so there are fewer of them, and
 * the channels of a process have their own opinion of what pays. */
#include "channel/patience.h"

#include <stdatomic.h>

#include "os/os.h"
#include "os/os_stream.h"
#include "sync/park.h"

static _Atomic int cpus;

static bool has_another_cpu(void) {
    int known = atomic_load_explicit(&cpus, memory_order_relaxed);
    if (known == 0) {
        known = kin__os_cpus();
        atomic_store_explicit(&cpus, known, memory_order_relaxed);
    }
    return known > 1;
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
    static kin__spinner spinner = {.ns = KIN_SPIN_MAX_NS};
    int32_t ns = kin__spinner_ns(&spinner);
    ssize_t got = spin_for(ns, try, work);
    kin__spinner_learn(&spinner, ns, got != -EAGAIN);
    return got;
}

kin_err kin__patience_wait(int fd, unsigned char want, kin_deadline deadline) {
    if (kin__os_is_nonblocking(fd)) return -EAGAIN;
    struct kin__os_poll polled = {.fd = fd, .want = want};
    return kin__os_poll(&polled, 1, deadline);
}
