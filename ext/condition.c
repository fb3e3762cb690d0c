/* Condition: a place to wait, under a lock, until another says that something has changed.
 *
 * libkin's condition knows who waits and who was called (libkin/src/sync/condition.c); the lock is
 * any of ours.  To wait is to enter, give the lock up as often as this thread holds it, sleep, take
 * it as often again, and leave: whether it was called is known only then. */
#include "args.h"
#include "errors.h"
#include "lock.h"

typedef struct kinx_waiting {
    kinx_shared shared;
    kinx_shared *lock; /* strong reference; NULL until __init__ or __setstate__ */
} kinx_waiting;

/* Borrowed.  Raises. */
static kinx_shared *lock_of(kinx_waiting *self) {
    if (self->shared.handle.family && self->lock) return self->lock;
    kinx_raise_not_open(&self->shared);
    return NULL;
}

/* -- The lock -------------------------------------------------------------------------- */

static PyObject *acquire(kinx_waiting *self, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames) {
    kinx_shared *lock = lock_of(self);
    return lock ? kinx_lock_acquire_call(lock, args, nargs, kwnames) : NULL;
}

static PyObject *release(kinx_waiting *self, PyObject *unused) {
    kinx_shared *lock = lock_of(self);
    return lock ? kinx_lock_release(lock, NULL) : NULL;
}

static PyObject *enter(kinx_waiting *self, PyObject *unused) {
    kinx_shared *lock = lock_of(self);
    return lock ? kinx_lock_enter(lock, NULL) : NULL;
}

static PyObject *leave(kinx_waiting *self, PyObject *const *args, Py_ssize_t nargs) {
    return release(self, NULL);
}

static PyObject *is_owned(kinx_waiting *self, PyObject *unused) {
    kinx_shared *lock = lock_of(self);
    return lock ? PyBool_FromLong(kinx_lock_is_mine(lock)) : NULL;
}

static bool check_owned(kinx_waiting *self, const char *complaint) {
    kinx_shared *lock = lock_of(self);
    if (!lock) return false;
    if (kinx_lock_is_mine(lock)) return true;
    PyErr_SetString(PyExc_AssertionError, complaint);
    return false;
}

/* -- Waiting --------------------------------------------------------------------------- */

static int give_up(kinx_shared *lock, uint32_t depth) {
    for (; depth; depth--) {
        PyObject *done = kinx_lock_release(lock, NULL);
        if (!done) return -1;
        Py_DECREF(done);
    }
    return 0;
}

/* One exception does not keep the lock from being taken back, for the code around the wait counts
 * on it; a second one (another Ctrl-C) does. */
static int take_back(kinx_shared *lock, uint32_t depth) {
    for (bool again = !PyErr_Occurred(); depth;) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        int taken = kinx_lock_acquire(lock, KIN_FOREVER);
        if (taken > 0) {
            PyErr_Restore(type, value, traceback);
            depth--;
            continue;
        }
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        if (!again) return -1;
        again = false;
    }
    return PyErr_Occurred() ? -1 : 0;
}

/* 1: called.  0: the deadline came.  -1: raises. */
static int wait_until(kinx_waiting *self, kin_deadline deadline) {
    if (!check_owned(self, "must acquire() condition before using wait()")) return -1;
    kin_condition *condition = &self->shared.condition;
    kin_seat seat;
    kin_err err = kin_condition_enter(condition, &seat);
    if (err < 0) {
        kinx_raise(self->shared.state, err, Py_TYPE(self)->tp_name);
        return -1;
    }
    uint32_t depth = kinx_lock_count(self->lock);
    if (give_up(self->lock, depth) == 0) {
        KINX_WAIT(err, deadline, kin_condition_sleep(condition, &seat, until));
        if (err < 0 && err != -ETIMEDOUT)
            kinx_raise(self->shared.state, err, Py_TYPE(self)->tp_name);
        (void)take_back(self->lock, depth);
    }
    int called = kin_condition_leave(condition, &seat);
    if (!PyErr_Occurred()) return called;
    /* a call that nobody will answer */
    if (called) (void)kin_condition_notify(condition, 1);
    return -1;
}

static PyObject *wait(kinx_waiting *self, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames) {
    kin_deadline deadline;
    if (kinx_parse_timeout("wait", args, nargs, kwnames, &deadline) < 0) return NULL;
    int called = wait_until(self, deadline);
    return called < 0 ? NULL : PyBool_FromLong(called);
}

static PyObject *wait_for(kinx_waiting *self, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames) {
    static const char *const names[] = {"predicate", "timeout"};
    kinx_parameters params = {names, 0, 1, 2, 2};
    PyObject *slots[2] = {NULL};
    kin_deadline deadline;
    if (kinx_fill_slots("wait_for", &params, slots, args, nargs, kwnames) < 0) return NULL;
    if (kinx_deadline_of(NULL, slots[1], &deadline) < 0) return NULL;
    for (;;) {
        PyObject *result = PyObject_CallNoArgs(slots[0]);
        int holds = result ? PyObject_IsTrue(result) : 1;
        bool is_late = deadline != KIN_FOREVER && kin_clock() >= deadline;
        if (holds > 0 || (holds == 0 && is_late)) return result;
        Py_DECREF(result);
        if (holds < 0 || wait_until(self, deadline) < 0) return NULL;
    }
}

/* -- Calling --------------------------------------------------------------------------- */

static PyObject *call(kinx_waiting *self, uint32_t count) {
    if (!check_owned(self, "lock is not owned")) return NULL;
    if (count) (void)kin_condition_notify(&self->shared.condition, count);
    Py_RETURN_NONE;
}

static PyObject *notify(kinx_waiting *self, PyObject *const *args, Py_ssize_t nargs,
                        PyObject *kwnames) {
    static const char *const names[] = {"n"};
    kinx_parameters params = {names, 0, 0, 1, 1};
    PyObject *slots[1] = {NULL};
    if (kinx_fill_slots("notify", &params, slots, args, nargs, kwnames) < 0) return NULL;
    int overflow = 0;
    long long n = slots[0] ? PyLong_AsLongLongAndOverflow(slots[0], &overflow) : 1;
    if (n == -1 && PyErr_Occurred()) return NULL;
    if (overflow < 0 || n < 0) n = 0;
    return call(self, overflow || n > UINT32_MAX ? UINT32_MAX : (uint32_t)n);
}

static PyObject *notify_all(kinx_waiting *self, PyObject *unused) {
    return call(self, UINT32_MAX);
}

/* -- Making and pickling ----------------------------------------------------------------- */

static int set_lock(kinx_waiting *self, PyObject *lock) {
    if (!PyObject_TypeCheck(lock, self->shared.state->semlock_type)) {
        PyErr_Format(PyExc_TypeError,
                     "a Condition needs a lock that processes can share: one of "
                     "kinfolk's, and not %s",
                     Py_TYPE(lock)->tp_name);
        return -1;
    }
    Py_XSETREF(self->lock, (kinx_shared *)Py_NewRef(lock));
    return 0;
}

static PyObject *new_rlock(kinx_state *st) {
    return PyObject_CallNoArgs((PyObject *)st->kind_types[KIN_KIND_RLOCK]);
}

static int init(kinx_waiting *self, PyObject *args, PyObject *kwds) {
    static char *names[] = {"lock", "ctx", NULL};
    PyObject *lock = Py_None, *ctx;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "|O$O:Condition", names, &lock, &ctx)) return -1;
    kin_family *family = kinx_shared_init(&self->shared);
    if (!family) return -1;
    lock = lock == Py_None ? new_rlock(self->shared.state) : Py_NewRef(lock);
    if (!lock) return -1;
    int set = set_lock(self, lock);
    Py_DECREF(lock);
    if (set < 0) return -1;
    kin_err err = kin_condition_create(family, &self->shared.condition);
    if (err == 0) return 0;
    kinx_raise(self->shared.state, err, Py_TYPE(self)->tp_name);
    return -1;
}

/* What travels beside the ref: the lock, and what attributes there are. */
static PyObject *get_state(kinx_waiting *self, PyObject *unused) {
    kinx_shared *lock = lock_of(self);
    PyObject *dict = self->shared.attributes ? self->shared.attributes : Py_None;
    return lock ? PyTuple_Pack(2, (PyObject *)lock, dict) : NULL;
}

static PyObject *set_state(kinx_waiting *self, PyObject *state) {
    PyObject *lock, *dict;
    if (!PyArg_ParseTuple(state, "OO:__setstate__", &lock, &dict)) return NULL;
    if (set_lock(self, lock) < 0) return NULL;
    if (dict == Py_None) Py_RETURN_NONE;
    PyObject *own = PyObject_GenericGetDict((PyObject *)self, NULL);
    int done = own ? PyDict_Update(own, dict) : -1;
    Py_XDECREF(own);
    if (done < 0) return NULL;
    Py_RETURN_NONE;
}

static int traverse(kinx_waiting *self, visitproc visit, void *arg) {
    Py_VISIT(self->lock);
    return kinx_attributes_traverse(&self->shared, visit, arg);
}

static int clear(kinx_waiting *self) {
    Py_CLEAR(self->lock);
    return kinx_attributes_clear(&self->shared);
}

static void dealloc(kinx_waiting *self) {
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->lock);
    kinx_shared_dealloc(&self->shared);
}

/* -- The type ------------------------------------------------------------------------------ */

static PyObject *repr(kinx_waiting *self) {
    if (!self->shared.handle.family || !self->lock) return kinx_shared_repr(&self->shared, "");
    PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "__name__");
    if (!name) return NULL;
    PyObject *repr = PyUnicode_FromFormat("<%U(%R, %u)>", name, self->lock,
                                          kin_condition_waiting(&self->shared.condition));
    Py_DECREF(name);
    return repr;
}

static PyObject *get_lock(kinx_waiting *self, void *closure) {
    kinx_shared *lock = lock_of(self);
    return lock ? Py_NewRef((PyObject *)lock) : NULL;
}

static PyObject *not_kept(kinx_waiting *self, void *closure) {
    PyErr_SetString(PyExc_NotImplementedError, "kinfolk's conditions do not count this");
    return NULL;
}

static PyMethodDef methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))acquire, METH_FASTCALL | METH_KEYWORDS,
     "acquire($self, /, block=True, timeout=None)\n--\n\nAcquire the lock."},
    {"release", (PyCFunction)release, METH_NOARGS, "release($self, /)\n--\n\nRelease the lock."},
    {"__enter__", (PyCFunction)enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))leave, METH_FASTCALL, NULL},
    {"wait", (PyCFunction)(void (*)(void))wait, METH_FASTCALL | METH_KEYWORDS,
     "wait($self, /, timeout=None)\n--\n\n"
     "Give up the lock until notified, `timeout` seconds at most; return whether notified."},
    {"wait_for", (PyCFunction)(void (*)(void))wait_for, METH_FASTCALL | METH_KEYWORDS,
     "wait_for($self, /, predicate, timeout=None)\n--\n\n"
     "Wait until predicate() holds, `timeout` seconds at most; return its last value."},
    {"notify", (PyCFunction)(void (*)(void))notify, METH_FASTCALL | METH_KEYWORDS,
     "notify($self, /, n=1)\n--\n\n"
     "Wake up to `n` of those who wait, first who came first.  Whoever is dead does not count."},
    {"notify_all", (PyCFunction)notify_all, METH_NOARGS,
     "notify_all($self, /)\n--\n\nWake all who wait."},
    {"_is_owned", (PyCFunction)is_owned, METH_NOARGS,
     "_is_owned($self, /)\n--\n\nDoes this thread hold the lock?"},
    {"__getstate__", (PyCFunction)get_state, METH_NOARGS, NULL},
    {"__setstate__", (PyCFunction)set_state, METH_O, NULL},
    {NULL},
};

static PyGetSetDef getset[] = {
    KINX_ATTRIBUTES_GETSET,
    {"_lock", (getter)get_lock, NULL, "The lock.", NULL},
    {"_sleeping_count", (getter)not_kept, NULL, NULL, NULL},
    {"_woken_count", (getter)not_kept, NULL, NULL, NULL},
    {"_wait_semaphore", (getter)not_kept, NULL, NULL, NULL},
    {NULL},
};

PyDoc_STRVAR(doc,
             "Condition(lock=None, *, ctx=None)\n--\n\n"
             "A place to wait, under a lock, until another says that something has changed.\n\n"
             "lock: one of kinfolk's; an RLock of its own by default.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)doc},
    {Py_tp_new, kinx_shared_new},
    {Py_tp_init, init},
    {Py_tp_dealloc, dealloc},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_members, kinx_attributes_members},
    {Py_tp_getset, getset},
    {Py_tp_methods, methods},
    {Py_tp_repr, repr},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "kinfolk.synchronize.Condition",
    .basicsize = sizeof(kinx_waiting),
    .flags = KINX_ATTRIBUTES_FLAGS,
    .slots = slots,
};

int kinx_condition_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    return kinx_add_type(module, &spec, st->shared_type, &st->kind_types[KIN_KIND_CONDITION]);
}
