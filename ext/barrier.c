/* Barrier: a place where so many threads of the family's processes wait for each other.
 *
 * The last one to come runs the action, without anything held but its seat, and lets the others go
 * (libkin/src/sync/barrier.c).  kinfolk._barrier makes it a threading.Barrier, too. */
#include "args.h"
#include "errors.h"
#include "lock.h"

typedef struct kinx_barrier {
    kinx_shared shared;
    PyObject *action, *timeout; /* strong references; NULL, which is None, until they are set */
} kinx_barrier;

static void *raise_broken(kinx_barrier *self) {
    kinx_state *st = self->shared.state;
    PyObject *broken = kinx_import(&st->broken_barrier, "threading", "BrokenBarrierError");
    int pid = kin_barrier_died(&self->shared.barrier);
    if (!broken) return NULL;
    if (!pid) PyErr_SetNone(broken);
    else
        PyErr_Format(broken,
                     "process %d, a party of this barrier, was killed: it is broken until reset()",
                     pid);
    return NULL;
}

static void *raise_for(kinx_barrier *self, kin_err err) {
    if (err == KIN_EBROKEN) return raise_broken(self);
    return kinx_raise(self->shared.state, err, Py_TYPE(self)->tp_name);
}

/* -- Waiting ------------------------------------------------------------------------------ */

/* A pickle may have left out what __setstate__ sets. */
static PyObject *or_none(PyObject *set) {
    return set ? set : Py_None;
}

/* All are here: run the action, and let them go; or break it, if that raises. */
static int release_all(kinx_barrier *self, const kin_seat *seat) {
    kin_barrier *barrier = &self->shared.barrier;
    if (self->action && self->action != Py_None) {
        PyObject *done = PyObject_CallNoArgs(self->action);
        if (!done) {
            kin_barrier_leave(barrier, seat);
            return -1;
        }
        Py_DECREF(done);
    }
    kin_err err = kin_barrier_release(barrier, seat);
    if (err < 0) raise_for(self, err);
    return err < 0 ? -1 : 0;
}

static int wait_for_others(kinx_barrier *self, const kin_seat *seat, kin_deadline deadline) {
    kin_barrier *barrier = &self->shared.barrier;
    kin_err err;
    KINX_WAIT(err, deadline, kin_barrier_wait(barrier, seat, until));
    if (err == -ETIMEDOUT) err = kin_barrier_give_up(barrier, seat);
    else if (err < 0 && err != KIN_EBROKEN) kin_barrier_leave(barrier, seat);
    if (err < 0) raise_for(self, err);
    return err < 0 ? -1 : 0;
}

static PyObject *wait(kinx_barrier *self, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames) {
    static const char *const names[] = {"timeout"};
    kinx_parameters params = {names, 0, 0, 1, 1};
    PyObject *slots[1] = {NULL};
    if (kinx_fill_slots("wait", &params, slots, args, nargs, kwnames) < 0) return NULL;
    KINX_CHECK_OPEN(&self->shared);
    PyObject *timeout = slots[0] && slots[0] != Py_None ? slots[0] : or_none(self->timeout);
    kin_deadline deadline;
    if (kinx_deadline_of(NULL, timeout, &deadline) < 0) return NULL;
    kin_seat seat;
    uint32_t index;
    kin_err err;
    KINX_WAIT(err, KIN_FOREVER, kin_barrier_arrive(&self->shared.barrier, &seat, &index, until));
    if (err < 0) return raise_for(self, err);
    int done =
        err == KIN_BARRIER_LAST ? release_all(self, &seat) : wait_for_others(self, &seat, deadline);
    return done < 0 ? NULL : PyLong_FromUnsignedLong(index);
}

/* -- The rest ----------------------------------------------------------------------------- */

static PyObject *barrier_reset(kinx_barrier *self, PyObject *unused) {
    KINX_CHECK_OPEN(&self->shared);
    kin_barrier_reset(&self->shared.barrier);
    Py_RETURN_NONE;
}

static PyObject *barrier_abort(kinx_barrier *self, PyObject *unused) {
    KINX_CHECK_OPEN(&self->shared);
    kin_barrier_abort(&self->shared.barrier);
    Py_RETURN_NONE;
}

static PyObject *barrier_join(kinx_barrier *self, PyObject *unused) {
    KINX_CHECK_OPEN(&self->shared);
    kin_err err = kin_barrier_join(&self->shared.barrier);
    if (err < 0) return raise_for(self, err);
    Py_RETURN_NONE;
}

static PyObject *get_parties(kinx_barrier *self, void *closure) {
    KINX_CHECK_OPEN(&self->shared);
    return PyLong_FromUnsignedLong(kin_barrier_parties(&self->shared.barrier));
}

static PyObject *get_n_waiting(kinx_barrier *self, void *closure) {
    KINX_CHECK_OPEN(&self->shared);
    return PyLong_FromUnsignedLong(kin_barrier_waiting(&self->shared.barrier));
}

static PyObject *get_broken(kinx_barrier *self, void *closure) {
    KINX_CHECK_OPEN(&self->shared);
    return PyBool_FromLong(kin_barrier_is_broken(&self->shared.barrier));
}

static PyObject *get_died(kinx_barrier *self, void *closure) {
    KINX_CHECK_OPEN(&self->shared);
    int pid = kin_barrier_died(&self->shared.barrier);
    if (pid == 0) Py_RETURN_NONE;
    return PyLong_FromLong(pid);
}

static PyObject *repr(kinx_barrier *self) {
    if (!self->shared.handle.family) return kinx_shared_repr(&self->shared, "");
    const kin_barrier *barrier = &self->shared.barrier;
    if (kin_barrier_is_broken(&self->shared.barrier))
        return kinx_shared_repr(&self->shared, "broken");
    return kinx_shared_repr(&self->shared, "waiters=%u/%u",
                            kin_barrier_waiting(&self->shared.barrier),
                            kin_barrier_parties(barrier));
}

static int set_rest(kinx_barrier *self, PyObject *action, PyObject *timeout) {
    Py_XSETREF(self->action, Py_NewRef(action));
    Py_XSETREF(self->timeout, Py_NewRef(timeout));
    return 0;
}

static int init(kinx_barrier *self, PyObject *args, PyObject *kwds) {
    static char *names[] = {"parties", "action", "timeout", "ctx", NULL};
    PyObject *action = Py_None, *timeout = Py_None, *ctx;
    long long parties;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "L|OO$O:Barrier", names, &parties, &action,
                                     &timeout, &ctx))
        return -1;
    if (parties < 1 || parties > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "parties must be > 0");
        return -1;
    }
    kin_family *family = kinx_shared_init(&self->shared);
    if (!family) return -1;
    kin_err err = kin_barrier_create(family, (uint32_t)parties, &self->shared.barrier);
    if (err == 0) return set_rest(self, action, timeout);
    raise_for(self, err);
    return -1;
}

/* What travels beside the ref. */
static PyObject *get_state(kinx_barrier *self, PyObject *unused) {
    KINX_CHECK_OPEN(&self->shared);
    PyObject *dict = PyObject_GetAttrString((PyObject *)self, "__dict__");
    if (!dict) PyErr_Clear();
    PyObject *state = PyTuple_Pack(3, or_none(self->action), or_none(self->timeout), or_none(dict));
    Py_XDECREF(dict);
    return state;
}

static PyObject *set_state(kinx_barrier *self, PyObject *state) {
    PyObject *action, *timeout, *attributes;
    if (!PyArg_ParseTuple(state, "OOO:__setstate__", &action, &timeout, &attributes)) return NULL;
    set_rest(self, action, timeout);
    if (attributes == Py_None) Py_RETURN_NONE;
    PyObject *own = PyObject_GetAttrString((PyObject *)self, "__dict__");
    int done = own ? PyDict_Update(own, attributes) : -1;
    Py_XDECREF(own);
    if (done < 0) return NULL;
    Py_RETURN_NONE;
}

static int traverse(kinx_barrier *self, visitproc visit, void *arg) {
    Py_VISIT(self->action);
    Py_VISIT(self->timeout);
    return kinx_attributes_traverse(&self->shared, visit, arg);
}

static int clear(kinx_barrier *self) {
    Py_CLEAR(self->action);
    Py_CLEAR(self->timeout);
    return kinx_attributes_clear(&self->shared);
}

static void dealloc(kinx_barrier *self) {
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->action);
    Py_CLEAR(self->timeout);
    kinx_shared_dealloc(&self->shared);
}

static PyMethodDef methods[] = {
    {"wait", (PyCFunction)(void (*)(void))wait, METH_FASTCALL | METH_KEYWORDS,
     "wait($self, /, timeout=None)\n--\n\n"
     "Wait until all parties have come; return how many came before, from 0 on.\n\n"
     "timeout: seconds; by default what the barrier was made with.  threading.BrokenBarrierError\n"
     "if it passes, if the barrier is or gets broken, or is reset; then also for the others."},
    {"reset", (PyCFunction)barrier_reset, METH_NOARGS,
     "reset($self, /)\n--\n\n"
     "Make it as new.  Who waits gets BrokenBarrierError."},
    {"abort", (PyCFunction)barrier_abort, METH_NOARGS, "abort($self, /)\n--\n\nBreak it, for all."},
    {"_join", (PyCFunction)barrier_join, METH_NOARGS,
     "_join($self, /)\n--\n\n"
     "Be one of the parties, whose death breaks it; who waits is one, too."},
    {"__getstate__", (PyCFunction)get_state, METH_NOARGS, NULL},
    {"__setstate__", (PyCFunction)set_state, METH_O, NULL},
    {NULL},
};

static PyGetSetDef getset[] = {
    {"parties", (getter)get_parties, NULL, "How many have to come.", NULL},
    {"n_waiting", (getter)get_n_waiting, NULL, "How many have come, and wait.", NULL},
    {"broken", (getter)get_broken, NULL, "Is it broken?", NULL},
    {"party_died", (getter)get_died, NULL,
     "Process id of the party that was killed and so broke the barrier, or None.", NULL},
    {NULL},
};

PyDoc_STRVAR(
    doc, "Barrier(parties, action=None, timeout=None, *, ctx=None)\n--\n\n"
         "A place where `parties` processes or threads wait for each other, again and again.\n\n"
         "The last one to come calls `action`.  A process that has waited here, or was started\n"
         "with the barrier among its arguments, is a party: if it is killed, the barrier\n"
         "breaks.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)doc},   {Py_tp_new, kinx_shared_new},
    {Py_tp_init, init},         {Py_tp_dealloc, dealloc},
    {Py_tp_traverse, traverse}, {Py_tp_clear, clear},
    {Py_tp_getset, getset},     {Py_tp_methods, methods},
    {Py_tp_repr, repr},         {0, NULL},
};

static PyType_Spec spec = {
    .name = "kinfolk._kin.Barrier",
    .basicsize = sizeof(kinx_barrier),
    .flags = KINX_ATTRIBUTES_FLAGS,
    .slots = slots,
};

int kinx_barrier_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    return kinx_add_type(module, &spec, st->shared_type, &st->kind_types[KIN_KIND_BARRIER]);
}
