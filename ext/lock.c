/* Lock and RLock, and the methods that they share with Semaphore.
 *
 * The methods are written once, over a small table of operations for each kind;
 * semaphore.c adds its own.  Names and signatures are those of multiprocessing's
 * locks and of the SemLock inside them (_is_mine and its like), which its other
 * types are built from.
 *
 * A lock whose holder was killed is handed on, marked: acquire() then warns and
 * returns True, for the caller does hold it and should look after what it guards. */
#include "lock.h"
#include "args.h"
#include "errors.h"

static bool held_by_us(const kinx_shared *self, uint32_t owner) {
    return owner && owner == kin_family_member(self->handle.family);
}

/* -- Lock: libkin knows which member holds it, this object which thread took it -- */

static kin_err lock_acquire(kinx_shared *self, kin_deadline deadline) {
    return kin_lock_acquire(&self->lock, deadline);
}

static kin_err lock_release(kinx_shared *self) {
    return kin_lock_release(&self->lock);
}

static uint32_t lock_value(const kinx_shared *self) {
    return kin_lock_owner(&self->lock) == 0;
}

static uint32_t lock_max(const kinx_shared *self) {
    return 1;
}

static uint32_t lock_count(const kinx_shared *self) {
    return held_by_us(self, kin_lock_owner(&self->lock));
}

static bool lock_is_mine(const kinx_shared *self) {
    return lock_count(self) && self->thread == PyThread_get_thread_ident();
}

static int lock_died(const kinx_shared *self) {
    return kin_lock_died(&self->lock);
}

static const kinx_lock_ops lock_ops = {
    .acquire = lock_acquire,
    .release = lock_release,
    .value = lock_value,
    .max = lock_max,
    .count = lock_count,
    .is_mine = lock_is_mine,
    .died = lock_died,
};

/* -- RLock: libkin knows the thread, too ------------------------------------------ */

static kin_err rlock_acquire(kinx_shared *self, kin_deadline deadline) {
    return kin_rlock_acquire(&self->rlock, deadline);
}

static kin_err rlock_release(kinx_shared *self) {
    return kin_rlock_release(&self->rlock);
}

static uint32_t rlock_value(const kinx_shared *self) {
    return kin_rlock_owner(&self->rlock) == 0;
}

static uint32_t rlock_count(const kinx_shared *self) {
    uint32_t depth = kin_rlock_depth(&self->rlock);
    return depth ? depth : held_by_us(self, kin_rlock_owner(&self->rlock));
}

static bool rlock_is_mine(const kinx_shared *self) {
    return kin_rlock_depth(&self->rlock) > 0;
}

static int rlock_died(const kinx_shared *self) {
    return kin_rlock_died(&self->rlock);
}

static const kinx_lock_ops rlock_ops = {
    .acquire = rlock_acquire,
    .release = rlock_release,
    .value = rlock_value,
    .max = lock_max,
    .count = rlock_count,
    .is_mine = rlock_is_mine,
    .died = rlock_died,
};

/* -- The methods ------------------------------------------------------------------ */

/* By kind, which is 0 until the object is open. */
static const kinx_lock_ops *const ops_of_kind[KINX_KINDS] = {
    [KIN_KIND_LOCK] = &lock_ops,
    [KIN_KIND_RLOCK] = &rlock_ops,
    [KIN_KIND_SEMAPHORE] = &kinx_semaphore_ops,
};

static inline const kinx_lock_ops *ops_of(const kinx_shared *self) {
    return ops_of_kind[self->handle.ref.kind];
}

/* The lock is ours, and its last holder was killed. */
static PyObject *acquired_from_the_dead(kinx_shared *self, const kinx_lock_ops *ops) {
    int warned = PyErr_WarnFormat(
        PyExc_RuntimeWarning, 1,
        "process %d was killed while it held this %s; what the lock guards may be half-changed",
        ops->died(self), kinx_type_label(Py_TYPE(self)));
    if (warned == 0) Py_RETURN_TRUE;
    /* The warning became an exception: the caller does not get the lock. */
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    ops->release(self);
    PyErr_Restore(type, value, traceback);
    return NULL;
}

static PyObject *acquire_by(kinx_shared *self, kin_deadline deadline) {
    const kinx_lock_ops *ops = ops_of(self);
    if (!ops) return kinx_raise_not_open(self);
    kin_err err;
    KINX_WAIT(err, deadline, ops->acquire(self, until));
    if (err == -ETIMEDOUT) Py_RETURN_FALSE;
    if (err < 0) return kinx_raise(self->state, err, Py_TYPE(self)->tp_name);
    self->thread = PyThread_get_thread_ident();
    if (ops->acquired) ops->acquired(self);
    if (err == KIN_OWNER_DIED) return acquired_from_the_dead(self, ops);
    Py_RETURN_TRUE;
}

static PyObject *acquire(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames) {
    kin_deadline deadline;
    if (kinx_parse_wait("acquire", args, nargs, kwnames, &deadline) < 0) return NULL;
    return acquire_by(self, deadline);
}

static PyObject *enter(kinx_shared *self, PyObject *unused) {
    return acquire_by(self, KIN_FOREVER);
}

static PyObject *release(kinx_shared *self, PyObject *unused) {
    const kinx_lock_ops *ops = ops_of(self);
    if (!ops) return kinx_raise_not_open(self);
    kin_err err = ops->release(self);
    if (err < 0) return kinx_raise(self->state, err, Py_TYPE(self)->tp_name);
    Py_RETURN_NONE;
}

static PyObject *leave(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs) {
    return release(self, NULL);
}

static PyObject *locked(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    return PyBool_FromLong(ops_of(self)->value(self) == 0);
}

static PyObject *get_value(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    return PyLong_FromUnsignedLong(ops_of(self)->value(self));
}

static PyObject *is_mine(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    return PyBool_FromLong(ops_of(self)->is_mine(self));
}

static PyObject *count(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    return PyLong_FromUnsignedLong(ops_of(self)->count(self));
}

PyMethodDef kinx_lock_methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))acquire, METH_FASTCALL | METH_KEYWORDS,
     "acquire($self, /, block=True, timeout=None)\n--\n\n"
     "Take it, waiting for `timeout` seconds at most; None: for as long as it takes.\n\n"
     "True if it was taken.  RuntimeWarning, and True, if its last holder was killed\n"
     "holding it."},
    {"release", (PyCFunction)release, METH_NOARGS, "release($self, /)\n--\n\nGive it back."},
    {"__enter__", (PyCFunction)enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))leave, METH_FASTCALL, NULL},
    {"locked", (PyCFunction)locked, METH_NOARGS,
     "locked($self, /)\n--\n\nWould acquire() have to wait just now?"},
    {"get_value", (PyCFunction)get_value, METH_NOARGS,
     "get_value($self, /)\n--\n\nHow often it can be acquired just now."},
    {"_get_value", (PyCFunction)get_value, METH_NOARGS,
     "_get_value($self, /)\n--\n\nAs get_value()."},
    {"_is_zero", (PyCFunction)locked, METH_NOARGS, "_is_zero($self, /)\n--\n\nAs locked()."},
    {"_is_mine", (PyCFunction)is_mine, METH_NOARGS,
     "_is_mine($self, /)\n--\n\nDoes this thread hold it?"},
    {"_count", (PyCFunction)count, METH_NOARGS,
     "_count($self, /)\n--\n\nHow often this process holds it."},
    {NULL},
};

PyObject *kinx_lock_maxvalue(kinx_shared *self, void *closure) {
    KINX_CHECK_OPEN(self);
    return PyLong_FromUnsignedLong(ops_of(self)->max(self));
}

static PyObject *get_owner_died(kinx_shared *self, void *closure) {
    KINX_CHECK_OPEN(self);
    int pid = ops_of(self)->died(self);
    if (pid == 0) Py_RETURN_NONE;
    return PyLong_FromLong(pid);
}

static PyGetSetDef getset[] = {
    {"maxvalue", (getter)kinx_lock_maxvalue, NULL, "1", NULL},
    {"owner_died", (getter)get_owner_died, NULL,
     "Process id of the last holder that was killed holding the lock, or None.", NULL},
    {NULL},
};

static PyObject *repr(kinx_shared *self) {
    const kinx_lock_ops *ops = ops_of(self);
    const char *state = !ops || ops->value(self) ? "free"
                        : ops->is_mine(self)     ? "held by this thread"
                        : ops->count(self)       ? "held by this process"
                                                 : "held by another process";
    return kinx_shared_repr(self, "%s", state);
}

/* -- The two types ------------------------------------------------------------------ */

static int no_arguments(kinx_shared *self, PyObject *args, PyObject *kwds) {
    if (PyTuple_GET_SIZE(args) == 0 && (!kwds || PyDict_GET_SIZE(kwds) == 0)) return 0;
    PyErr_Format(PyExc_TypeError, "%s() takes no arguments", Py_TYPE(self)->tp_name);
    return -1;
}

static int init(kinx_shared *self, PyObject *args, PyObject *kwds,
                kin_err (*create)(kinx_shared *self, kin_family *family)) {
    if (no_arguments(self, args, kwds) < 0) return -1;
    kin_family *family = kinx_shared_init(self);
    if (!family) return -1;
    kin_err err = create(self, family);
    if (err == 0) return 0;
    kinx_raise(self->state, err, Py_TYPE(self)->tp_name);
    return -1;
}

static kin_err create_lock(kinx_shared *self, kin_family *family) {
    return kin_lock_create(family, &self->lock);
}

static kin_err create_rlock(kinx_shared *self, kin_family *family) {
    return kin_rlock_create(family, &self->rlock);
}

static int lock_init(kinx_shared *self, PyObject *args, PyObject *kwds) {
    return init(self, args, kwds, create_lock);
}

static int rlock_init(kinx_shared *self, PyObject *args, PyObject *kwds) {
    return init(self, args, kwds, create_rlock);
}

PyDoc_STRVAR(lock_doc, "Lock()\n--\n\n"
                       "A lock for the processes of a family, and their threads.\n\n"
                       "Anyone may release it, whoever took it.");
PyDoc_STRVAR(rlock_doc, "RLock()\n--\n\nA lock that the thread that holds it may take again.");

static PyType_Slot lock_slots[] = {
    {Py_tp_doc, (void *)lock_doc},
    {Py_tp_new, kinx_shared_new},
    {Py_tp_init, lock_init},
    {Py_tp_dealloc, kinx_shared_dealloc},
    {Py_tp_repr, repr},
    {Py_tp_methods, kinx_lock_methods},
    {Py_tp_getset, getset},
    {0, NULL},
};

static PyType_Slot rlock_slots[] = {
    {Py_tp_doc, (void *)rlock_doc},
    {Py_tp_new, kinx_shared_new},
    {Py_tp_init, rlock_init},
    {Py_tp_dealloc, kinx_shared_dealloc},
    {Py_tp_repr, repr},
    {Py_tp_methods, kinx_lock_methods},
    {Py_tp_getset, getset},
    {0, NULL},
};

static PyType_Spec lock_spec = {
    .name = "kinfolk._kin.Lock",
    .basicsize = sizeof(kinx_shared),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = lock_slots,
};

static PyType_Spec rlock_spec = {
    .name = "kinfolk._kin.RLock",
    .basicsize = sizeof(kinx_shared),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = rlock_slots,
};

int kinx_lock_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    PyTypeObject **types = st->kind_types;
    if (kinx_add_type(module, &lock_spec, st->shared_type, &types[KIN_KIND_LOCK]) < 0) return -1;
    return kinx_add_type(module, &rlock_spec, st->shared_type, &types[KIN_KIND_RLOCK]);
}
