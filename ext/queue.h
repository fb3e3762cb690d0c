/* Queue, over the two files that it is made of: queue.c, one object at a time, and
 * queue_many.c. */
#ifndef KINX_QUEUE_H
#define KINX_QUEUE_H

#include "message.h"
#include "ref.h"
#include "wait.h"

/* The tag of a record that loads without running anybody's code. */
#define KINX_TAG_PLAIN 1u

/* Has this process closed it?  A forked child begins with an open queue again. */
bool kinx_queue_is_closed(const kinx_shared *self);
#define KINX_QUEUE_CHECK(self)                                                \
    do {                                                                      \
        KINX_CHECK_OPEN(self);                                                \
        if (kinx_queue_is_closed(self)) return kinx_queue_raise_closed(self); \
    } while (0)

/* All of these raise, and return NULL.  The last one: what a kin_err of push or pop stands for;
 * -ETIMEDOUT is queue.Full if it was to put, else queue.Empty. */
PyObject *kinx_queue_raise_closed(kinx_shared *self);
PyObject *kinx_queue_raise(kinx_shared *self, kin_err err, bool put);

/* Load what was taken.  New reference. */
PyObject *kinx_queue_load(kinx_state *st, const uint8_t *buffer, kin_record *record);

/* -- Many at a time (queue_many.c) ----------------------------------------------------- */

PyObject *kinx_queue_put_many(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames);
PyObject *kinx_queue_get_many(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames);

/* For a pool: take all that is there out in one step, and drop it.  Returns how many; the queue may
 * have 128 at the most, or the rest stays. */
PyObject *kinx_queue_take_back(kinx_shared *self, PyObject *unused);
/* What get_many() took and could not hand over: it comes first in this process's next get. */
Py_ssize_t kinx_queue_owes_slow(kinx_shared *self);
static inline Py_ssize_t kinx_queue_owes(kinx_shared *self) {
    return self->owed ? kinx_queue_owes_slow(self) : 0;
}
/* The first of what it owes: a new reference, or raises. */
PyObject *kinx_queue_pay(kinx_shared *self);

#endif
