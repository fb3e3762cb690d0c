/* task_done and join.
 *
 * Nobody counts unfinished tasks: they are what was pushed and not done, so that no death leaves
 * the number wrong.  What was dropped at a shutdown is nobody's task. */
#include "family/family_internal.h"
#include "kin/queue.h"
#include "sides.h"

/* How many records there are to deal with, taken ones included.  seq_cst, as all that is looked at
 * after listening. */
static uint64_t tasks(const kin_queue_shm *shm) {
    if (kin__shut(shm) == KIN_DROPPED)
        return atomic_load_explicit(&shm->taken, memory_order_seq_cst);
    return kin__passed_by_now(&shm->pushed);
}

kin_err kin_queue_task_done(kin_queue *queue) {
    kin_queue_shm *shm = queue->handle.shm;
    uint64_t done = atomic_load_explicit(&shm->done, memory_order_relaxed);
    do {
        if (done >= tasks(shm)) return KIN_EOVERRELEASE;
    } while (!atomic_compare_exchange_weak_explicit(&shm->done, &done, done + 1,
                                                    memory_order_seq_cst, memory_order_relaxed));
    if (done + 1 == tasks(shm)) kin__bell_ring(queue->handle.family, &shm->all_done, INT32_MAX);
    return 0;
}

static bool is_all_done(const kin_queue_shm *shm) {
    uint64_t done = atomic_load_explicit(&shm->done, memory_order_seq_cst);
    return done >= tasks(shm);
}

kin_err kin_queue_join(kin_queue *queue, kin_deadline deadline) {
    kin_queue_shm *shm = queue->handle.shm;
    for (;;) {
        if (is_all_done(shm)) return 0;
        if (deadline == KIN_NOW) return -ETIMEDOUT;
        uint32_t heard = kin__bell_listen(&shm->all_done);
        if (is_all_done(shm)) return 0;
        kin_err err = kin__bell_wait(&shm->all_done, heard, deadline);
        if (err) return err;
    }
}
