/* What Lock, RLock and Semaphore have in common: multiprocessing's methods. */
#ifndef KINX_LOCK_H
#define KINX_LOCK_H

#include "ref.h"

/* How libkin does for one kind of lock what the methods ask for. */
typedef struct kinx_lock_ops {
    kin_err (*acquire)(kinx_shared *self, kin_deadline deadline);
    kin_err (*release)(kinx_shared *self);
    /* Acquired, and the GIL is held again.  NULL: nothing to do. */
    void (*acquired)(kinx_shared *self);
    /* How often it can be acquired just now: 0 or 1 for locks. */
    uint32_t (*value)(const kinx_shared *self);
    uint32_t (*max)(const kinx_shared *self);
    /* How often this process holds it, as far as it is known. */
    uint32_t (*count)(const kinx_shared *self);
    bool (*is_mine)(const kinx_shared *self);
    /* Process id of the last holder that was killed holding it. */
    int (*died)(const kinx_shared *self);
} kinx_lock_ops;

extern const kinx_lock_ops kinx_semaphore_ops;

/* acquire, release, __enter__ … for any of the three. */
extern PyMethodDef kinx_lock_methods[];
/* The getter of `maxvalue`. */
PyObject *kinx_lock_maxvalue(kinx_shared *self, void *closure);

#endif
