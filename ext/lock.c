/* Lock and RLock, and the methods that they share with Semaphore.
 *
 * These are multiprocessing's own types, under its names: kinfolk.synchronize has only their texts.
 * Each has all methods in its own table, for the interpreter calls a method quickest on an
 * object of just the type that has it.  They are written once, over a small table of operations for
 * each kind; semaphore.c adds its own.
 *
 * A lock whose holder was killed is handed on, marked: acquire() then warns and
 * returns True, for the caller does hold it and should look after what it guards. */
#include "lock.h"
#include "args.h"
#include "errors.h"
#include "place.h"

static bool held_by_us(const kinx_shared *self, uint32_t owner) {
    return owner && owner == kin_family_member(self->handle.family);
}

/* -- Lock: libkin knows which member holds it, this object which thread took it -- */

static kin_err lock_acquire(kinx_shared *self, kin_deadline deadline, uint32_t place) {
    return kin_lock_acquire_at(&self->lock, deadline, place);
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
    .is_owned = true,
    .acquire = lock_acquire,
    .release = lock_release,
    .value = lock_value,
    .max = lock_max,
    .count = lock_count,
    .is_mine = lock_is_mine,
    .died = lock_died,
};

/* -- RLock: libkin knows the thread, too ------------------------------------------ */

static kin_err rlock_acquire(kinx_shared *self, kin_deadline deadline, uint32_t place) {
    return kin_rlock_acquire_at(&self->rlock, deadline, place);
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
    .is_owned = true,
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
static int warn_of_the_dead(kinx_shared *self, const kinx_lock_ops *ops, uint32_t place) {
    char said[KIN_OBITUARY_MAX + 1];
    kin_lock_obituary(&self->handle, place, said);
    int warned = PyErr_WarnFormat(
        PyExc_RuntimeWarning, 1,
        "process %d%s%s%s was killed while it held this %s; what the lock guards may be "
        "half-changed",
        ops->died(self), said[0] ? " (" : "", said, said[0] ? ")" : "",
        kinx_type_label(Py_TYPE(self)));
    if (warned == 0) return 1;
    /* The warning became an exception: the caller does not get the lock. */
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    ops->release(self);
    PyErr_Restore(type, value, traceback);
    return -1;
}

static int acquired(kinx_shared *self, const kinx_lock_ops *ops, kin_err news, uint32_t place) {
    self->thread = PyThread_get_thread_ident();
    if (ops->acquired) ops->acquired(self);
    return news == KIN_OWNER_DIED ? warn_of_the_dead(self, ops, place) : 1;
}

int kinx_lock_acquire(kinx_shared *self, kin_deadline deadline) {
    const kinx_lock_ops *ops = ops_of(self);
    if (!ops) {
        kinx_raise_not_open(self);
        return -1;
    }
    uint32_t place = ops->is_owned ? kinx_place(self->state, self->handle.family) : 0;
    kin_err err;
    KINX_WAIT(err, deadline, ops->acquire(self, until, place));
    if (err == -ETIMEDOUT) return 0;
    if (err < 0) {
        kinx_raise(self->state, err, Py_TYPE(self)->tp_name);
        return -1;
    }
    return acquired(self, ops, err, place);
}

int kinx_lock_acquire_briefly(kinx_shared *self) {
    const kinx_lock_ops *ops = ops_of(self);
    kin_err err = ops ? ops->acquire(self, KIN_NOW, 0) : -ETIMEDOUT;
    return err < 0 ? kinx_lock_acquire(self, KIN_FOREVER) : acquired(self, ops, err, 0);
}

int kinx_lock_hold(kinx_shared *self) {
    bool is_held = self->handle.ref.kind == KIN_KIND_RLOCK && kin_rlock_depth(&self->rlock) > 0;
    return is_held ? 0 : kinx_lock_acquire_briefly(self);
}

int kinx_lock_let_go(kinx_shared *self) {
    kin_err err = ops_of(self)->release(self);
    if (err == 0) return 0;
    kinx_raise(self->state, err, Py_TYPE(self)->tp_name);
    return -1;
}

static PyObject *answer(int taken) {
    if (taken < 0) return NULL;
    return PyBool_FromLong(taken);
}

PyObject *kinx_lock_acquire_call(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *kwnames) {
    kin_deadline deadline;
    if (kinx_parse_wait("acquire", args, nargs, kwnames, &deadline) < 0) return NULL;
    return answer(kinx_lock_acquire(self, deadline));
}

PyObject *kinx_lock_enter(kinx_shared *self, PyObject *unused) {
    return answer(kinx_lock_acquire(self, KIN_FOREVER));
}

PyObject *kinx_lock_release(kinx_shared *self, PyObject *unused) {
    const kinx_lock_ops *ops = ops_of(self);
    if (!ops) return kinx_raise_not_open(self);
    if (kinx_lock_let_go(self) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *leave(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs) {
    return kinx_lock_release(self, NULL);
}

bool kinx_lock_is_mine(const kinx_shared *self) {
    const kinx_lock_ops *ops = ops_of(self);
    return ops && ops->is_mine(self);
}

uint32_t kinx_lock_count(const kinx_shared *self) {
    return ops_of(self)->count(self);
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
    {"acquire", (PyCFunction)(void (*)(void))kinx_lock_acquire_call, METH_FASTCALL | METH_KEYWORDS,
     "acquire($self, /, block=True, timeout=None)\n--\n\n"
     "Take it, waiting for `timeout` seconds at most; None: for as long as it takes.\n\n"
     "True if it was taken.  RuntimeWarning, and True, if its last holder was killed\n"
     "holding it."},
    {"release", (PyCFunction)kinx_lock_release, METH_NOARGS,
     "release($self, /)\n--\n\nGive it back."},
    {"__enter__", (PyCFunction)kinx_lock_enter, METH_NOARGS, NULL},
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

PyGetSetDef kinx_lock_getset[] = {
    KINX_ATTRIBUTES_GETSET,
    {"maxvalue", (getter)kinx_lock_maxvalue, NULL, "1", NULL},
    {"owner_died", (getter)get_owner_died, NULL,
     "Process id of the last holder that was killed holding the lock, or None.", NULL},
    {NULL},
};

/* The words are Python's: kinfolk.synchronize. */
PyObject *kinx_lock_repr(kinx_shared *self) {
    if (!self->handle.family) return kinx_shared_repr(self, "");
    kinx_state *st = self->state;
    PyObject *describe = kinx_import(&st->describe_lock, "kinfolk.synchronize", "_describe");
    return describe ? PyObject_CallOneArg(describe, (PyObject *)self) : NULL;
}

/* -- The types ---------------------------------------------------------------------- */

int kinx_lock_no_arguments(kinx_shared *self, PyObject *args, PyObject *kwds) {
    static char *names[] = {"ctx", NULL};
    PyObject *ctx; /* what multiprocessing's own constructors need, and these do not */
    return PyArg_ParseTupleAndKeywords(args, kwds, "|$O", names, &ctx) ? 0 : -1;
}

static int init(kinx_shared *self, PyObject *args, PyObject *kwds,
                kin_err (*create)(kinx_shared *self, kin_family *family)) {
    if (kinx_lock_no_arguments(self, args, kwds) < 0) return -1;
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

PyDoc_STRVAR(semlock_doc, "What locks and semaphores have in common.");
PyDoc_STRVAR(lock_doc,
             "Lock(*, ctx=None)\n--\n\n"
             "A lock for the processes of a family, and their threads.\n\n"
             "Anyone may release it, whoever took it.  If its holder is killed, the next\n"
             "who acquires it gets it, with a RuntimeWarning.");
PyDoc_STRVAR(rlock_doc, "RLock(*, ctx=None)\n--\n\n"
                        "A lock that the thread that holds it may acquire again, and must release\n"
                        "as often.  If its holder is killed it goes on as a Lock does.");

static PyObject *get_self(kinx_shared *self, void *closure) {
    return Py_NewRef(self);
}

static PyObject *make_methods(kinx_shared *self, PyObject *unused) {
    Py_RETURN_NONE;
}

static PyGetSetDef semlock_getset[] = {
    {"_semlock", (getter)get_self, NULL,
     "Where the standard library has what does the work, and those who know it look for it.", NULL},
    {NULL},
};

static PyMethodDef semlock_methods[] = {
    {"_make_methods", (PyCFunction)make_methods, METH_NOARGS,
     "_make_methods($self, /)\n--\n\nNothing: they are there."},
    {NULL},
};

static PyType_Slot semlock_slots[] = {
    {Py_tp_doc, (void *)semlock_doc},
    {Py_tp_dealloc, kinx_shared_dealloc},
    {Py_tp_getset, semlock_getset},
    {Py_tp_methods, semlock_methods},
    {0, NULL},
};

static PyType_Spec semlock_spec = {
    .name = "kinfolk.synchronize.SemLock",
    .basicsize = sizeof(kinx_shared),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = semlock_slots,
};

static PyType_Slot lock_slots[] = {KINX_LOCK_SLOTS(lock_doc, lock_init), {0, NULL}};
static PyType_Slot rlock_slots[] = {KINX_LOCK_SLOTS(rlock_doc, rlock_init), {0, NULL}};

static PyType_Spec lock_spec = {
    .name = "kinfolk.synchronize.Lock",
    .basicsize = sizeof(kinx_shared),
    .flags = KINX_ATTRIBUTES_FLAGS,
    .slots = lock_slots,
};

static PyType_Spec rlock_spec = {
    .name = "kinfolk.synchronize.RLock",
    .basicsize = sizeof(kinx_shared),
    .flags = KINX_ATTRIBUTES_FLAGS,
    .slots = rlock_slots,
};

int kinx_lock_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    PyTypeObject **types = st->kind_types, **base = &st->semlock_type;
    if (kinx_add_type(module, &semlock_spec, st->shared_type, base) < 0) return -1;
    if (kinx_add_type(module, &lock_spec, *base, &types[KIN_KIND_LOCK]) < 0) return -1;
    return kinx_add_type(module, &rlock_spec, *base, &types[KIN_KIND_RLOCK]);
}
