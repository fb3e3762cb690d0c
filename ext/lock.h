/* What Lock, RLock and Semaphore have in common: multiprocessing's methods. */
#ifndef KINX_LOCK_H
#define KINX_LOCK_H

#include "ref.h"

/* How libkin does for one kind of lock what the methods ask for. */
typedef struct kinx_lock_ops {
    bool is_owned; /* whose death matters, and so where it was taken */
    kin_err (*acquire)(kinx_shared *self, kin_deadline deadline, uint32_t place);
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

/* -- The types' methods, and what else a type of this kind has ------------------------- */

extern PyMethodDef kinx_lock_methods[];
extern PyGetSetDef kinx_lock_getset[];
PyObject *kinx_lock_repr(kinx_shared *self);
/* The getter of `maxvalue`. */
PyObject *kinx_lock_maxvalue(kinx_shared *self, void *closure);
/* For __init__ without arguments but `ctx`.  Raises TypeError. */
int kinx_lock_no_arguments(kinx_shared *self, PyObject *args, PyObject *kwds);

#define KINX_LOCK_SLOTS(doc, init)                                                        \
    {Py_tp_doc, (void *)(doc)}, {Py_tp_new, kinx_shared_new}, {Py_tp_init, (init)},       \
        {Py_tp_dealloc, kinx_shared_dealloc}, {Py_tp_traverse, kinx_attributes_traverse}, \
        {Py_tp_clear, kinx_attributes_clear}, {Py_tp_members, kinx_attributes_members},   \
        {Py_tp_repr, kinx_lock_repr}, {Py_tp_methods, kinx_lock_methods}, {               \
        Py_tp_getset, kinx_lock_getset                                                    \
    }

/* -- For those who use a lock of Python's from C ----------------------------------------- */

/* 1: taken.  0: the deadline came.  Raises, and returns -1: what a signal's handler raised, what
 * the warning of a holder's death became; then it was not taken. */
int kinx_lock_acquire(kinx_shared *self, kin_deadline deadline);
/* The same, without a deadline, for a moment: where it was taken is not noted unless it has to wait. */
int kinx_lock_acquire_briefly(kinx_shared *self);
/* The same for a section in which no code of Python's runs: 0 if this thread holds it anyway. */
int kinx_lock_hold(kinx_shared *self);
/* What release() does, of a lock that is open.  Raises. */
int kinx_lock_let_go(kinx_shared *self);
PyObject *kinx_lock_acquire_call(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *kwnames);
PyObject *kinx_lock_enter(kinx_shared *self, PyObject *unused);
PyObject *kinx_lock_release(kinx_shared *self, PyObject *unused);
/* Does this thread hold it?  How often does this process? */
bool kinx_lock_is_mine(const kinx_shared *self);
uint32_t kinx_lock_count(const kinx_shared *self);

#endif
