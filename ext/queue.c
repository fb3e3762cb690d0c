/* Queue: any number of producers and consumers, in any processes of the family.
 *
 * put() pickles in the caller's thread, so what cannot be pickled raises there,
 * and get() takes the message out before it loads it: a message that cannot be
 * loaded raises once, for the one who got it, and is gone.
 *
 * Small messages are copied through libkin's queue; those that are large or that
 * mention other objects of the arena ride as blobs. */
#include "args.h"
#include "errors.h"
#include "message.h"
#include "ref.h"

static int init(kinx_shared *self, PyObject *args, PyObject *kwds) {
    static char *names[] = {"maxsize", NULL};
    Py_ssize_t maxsize = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "|n:Queue", names, &maxsize)) return -1;
    kin_family *family = kinx_shared_init(self);
    if (!family) return -1;
    kin_err err = kin_queue_create(family, maxsize > 0 ? (uint64_t)maxsize : 0, &self->queue);
    if (err == 0) return 0;
    kinx_raise(self->state, err, Py_TYPE(self)->tp_name);
    return -1;
}

/* -- Closed: by this process, for this process ---------------------------------- */

/* The closing member's token: a forked child begins with an open queue again. */
static bool is_closed(const kinx_shared *self) {
    return self->closed && self->closed == kin_family_member(self->handle.family);
}

static PyObject *raise_closed(kinx_shared *self) {
    PyErr_Format(PyExc_ValueError, "Queue %R is closed", self);
    return NULL;
}

/* -- put -------------------------------------------------------------------------- */

static PyObject *raise_full(kinx_shared *self) {
    PyObject *full = kinx_import(&self->state->queue_full, "queue", "Full");
    if (full) PyErr_SetNone(full);
    return NULL;
}

static bool is_full(const kinx_shared *self) {
    uint64_t maxsize = kin_queue_maxsize(&self->queue);
    return maxsize && kin_queue_len(&self->queue) >= maxsize;
}

static kin_err push_small(kinx_shared *self, const kinx_message *message, kin_deadline deadline) {
    uint8_t scratch[KIN_RECORD_MAX];
    uint32_t len;
    const uint8_t *data = kinx_message_flat(message, scratch, &len);
    kin_err err;
    KINX_WAIT(err, deadline, kin_queue_push(&self->queue, data, len, 0, until));
    return err;
}

static kin_err push_blob(kinx_shared *self, kinx_message *message, kin_deadline deadline) {
    kin_blob blob;
    kin_err err = kinx_message_to_blob(self->state, message, &blob);
    if (err < 0) return err;
    KINX_WAIT(err, deadline, kin_queue_push_blob(&self->queue, &blob, 0, until));
    if (err < 0) kin_blob_free(&blob);
    return err;
}

static PyObject *put_by(kinx_shared *self, PyObject *obj, kin_deadline deadline) {
    KINX_CHECK_OPEN(self);
    if (is_closed(self)) return raise_closed(self);
    if (deadline == KIN_NOW && is_full(self)) return raise_full(self);
    kinx_message message;
    if (kinx_message_init(self->state, &message, obj) < 0) return NULL;
    kin_err err = kinx_message_is_small(&message) ? push_small(self, &message, deadline)
                                                  : push_blob(self, &message, deadline);
    kinx_message_fini(&message);
    if (err == 0) Py_RETURN_NONE;
    if (err == -ETIMEDOUT) return raise_full(self);
    if (err == KIN_ECLOSED) return raise_closed(self);
    return kinx_raise(self->state, err, Py_TYPE(self)->tp_name);
}

static PyObject *put(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames) {
    PyObject *obj;
    kin_deadline deadline;
    if (kinx_parse_put("put", args, nargs, kwnames, &obj, &deadline) < 0) return NULL;
    return put_by(self, obj, deadline);
}

static PyObject *put_nowait(kinx_shared *self, PyObject *obj) {
    return put_by(self, obj, KIN_NOW);
}

/* -- get -------------------------------------------------------------------------- */

static PyObject *raise_empty(kinx_shared *self) {
    PyObject *empty = kinx_import(&self->state->queue_empty, "queue", "Empty");
    if (empty) PyErr_SetNone(empty);
    return NULL;
}

static PyObject *raise_shut(kinx_shared *self) {
    PyErr_Format(PyExc_EOFError, "%R is shut, and empty", self);
    return NULL;
}

static PyObject *get_by(kinx_shared *self, kin_deadline deadline) {
    KINX_CHECK_OPEN(self);
    if (is_closed(self)) return raise_closed(self);
    uint8_t buffer[KIN_RECORD_MAX];
    kin_record record;
    kin_err err;
    KINX_WAIT(err, deadline, kin_queue_pop(&self->queue, buffer, &record, until));
    if (err == -ETIMEDOUT) return raise_empty(self);
    if (err == KIN_ECLOSED) return raise_shut(self);
    if (err < 0) return kinx_raise(self->state, err, Py_TYPE(self)->tp_name);
    if (record.blob.family) return kinx_blob_take(self->state, &record.blob);
    return kinx_load_record(self->state, buffer, record.len);
}

static PyObject *get(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames) {
    kin_deadline deadline;
    if (kinx_parse_wait("get", args, nargs, kwnames, &deadline) < 0) return NULL;
    return get_by(self, deadline);
}

static PyObject *get_nowait(kinx_shared *self, PyObject *unused) {
    return get_by(self, KIN_NOW);
}

/* -- The rest -------------------------------------------------------------------------- */

static PyObject *qsize(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    return PyLong_FromUnsignedLongLong(kin_queue_len(&self->queue));
}

static PyObject *empty(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    return PyBool_FromLong(kin_queue_len(&self->queue) == 0);
}

static PyObject *full(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    return PyBool_FromLong(is_full(self));
}

static PyObject *queue_close(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    self->closed = kin_family_member(self->handle.family);
    Py_RETURN_NONE;
}

static PyObject *shut(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    kin_queue_shutdown(&self->queue, 0);
    Py_RETURN_NONE;
}

static PyObject *is_shut(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    return PyBool_FromLong(kin_queue_is_shutdown(&self->queue));
}

static PyObject *task_done(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    kin_err err = kin_queue_task_done(&self->queue);
    if (err == 0) Py_RETURN_NONE;
    if (err != KIN_EOVERRELEASE) return kinx_raise(self->state, err, Py_TYPE(self)->tp_name);
    PyErr_SetString(PyExc_ValueError, "task_done() called too many times");
    return NULL;
}

static PyObject *join(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames) {
    kin_deadline deadline;
    if (kinx_parse_timeout("join", args, nargs, kwnames, &deadline) < 0) return NULL;
    KINX_CHECK_OPEN(self);
    kin_err err;
    KINX_WAIT(err, deadline, kin_queue_join(&self->queue, until));
    if (err == -ETIMEDOUT) Py_RETURN_FALSE;
    if (err < 0) return kinx_raise(self->state, err, Py_TYPE(self)->tp_name);
    Py_RETURN_TRUE;
}

static PyObject *repr(kinx_shared *self) {
    if (!self->handle.family) return kinx_shared_repr(self, "");
    return kinx_shared_repr(self, "len=%llu", (unsigned long long)kin_queue_len(&self->queue));
}

static PyMethodDef methods[] = {
    {"put", (PyCFunction)(void (*)(void))put, METH_FASTCALL | METH_KEYWORDS,
     "put($self, /, obj, block=True, timeout=None)\n--\n\n"
     "Pickle `obj` and add it, waiting for room for `timeout` seconds at most; None: for as\n"
     "long as it takes.\n\n"
     "queue.Full; ValueError on a closed queue; MemoryError when the arena is full; and\n"
     "what pickling raises, before anything was added."},
    {"get", (PyCFunction)(void (*)(void))get, METH_FASTCALL | METH_KEYWORDS,
     "get($self, /, block=True, timeout=None)\n--\n\n"
     "Take the oldest object, waiting for one for `timeout` seconds at most; None: for as\n"
     "long as it takes.\n\n"
     "queue.Empty; EOFError when it is shut and empty; ValueError on a closed queue."},
    {"put_nowait", (PyCFunction)put_nowait, METH_O,
     "put_nowait($self, obj, /)\n--\n\nput(obj, False)"},
    {"get_nowait", (PyCFunction)get_nowait, METH_NOARGS, "get_nowait($self, /)\n--\n\nget(False)"},
    {"qsize", (PyCFunction)qsize, METH_NOARGS,
     "qsize($self, /)\n--\n\nHow many objects are in it."},
    {"empty", (PyCFunction)empty, METH_NOARGS, "empty($self, /)\n--\n\nIs there nothing in it?"},
    {"full", (PyCFunction)full, METH_NOARGS, "full($self, /)\n--\n\nWould put() have to wait?"},
    {"close", (PyCFunction)queue_close, METH_NOARGS,
     "close($self, /)\n--\n\n"
     "This process is done with it, and may neither put nor get any more."},
    {"shut", (PyCFunction)shut, METH_NOARGS,
     "shut($self, /)\n--\n\n"
     "Nobody may put any more; what is in it can still be taken."},
    {"is_shut", (PyCFunction)is_shut, METH_NOARGS,
     "is_shut($self, /)\n--\n\nHas anyone called shut()?"},
    {"task_done", (PyCFunction)task_done, METH_NOARGS,
     "task_done($self, /)\n--\n\n"
     "One object that was taken has been dealt with.  ValueError if all were."},
    {"join", (PyCFunction)(void (*)(void))join, METH_FASTCALL | METH_KEYWORDS,
     "join($self, /, timeout=None)\n--\n\n"
     "Wait until all that was put has been dealt with, `timeout` seconds at most; was it?"},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL},
};

static PyObject *get_closed(kinx_shared *self, void *closure) {
    return PyBool_FromLong(self->handle.family && is_closed(self));
}

static PyObject *get_maxsize(kinx_shared *self, void *closure) {
    KINX_CHECK_OPEN(self);
    return PyLong_FromUnsignedLongLong(kin_queue_maxsize(&self->queue));
}

static PyGetSetDef getset[] = {
    {"_closed", (getter)get_closed, NULL, "Has close() been called in this process?", NULL},
    {"maxsize", (getter)get_maxsize, NULL, "How many objects it holds; 0: without bound.", NULL},
    {NULL},
};

PyDoc_STRVAR(doc, "Queue(maxsize=0)\n--\n\n"
                  "A queue of objects between processes, and threads.\n\n"
                  "maxsize: how many it holds before put() waits; 0 or less: without bound.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)doc}, {Py_tp_new, kinx_shared_new},
    {Py_tp_init, init},       {Py_tp_dealloc, kinx_shared_dealloc},
    {Py_tp_repr, repr},       {Py_tp_methods, methods},
    {Py_tp_getset, getset},   {0, NULL},
};

static PyType_Spec spec = {
    .name = "kinfolk._kin.Queue",
    .basicsize = sizeof(kinx_shared),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int kinx_queue_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    return kinx_add_type(module, &spec, st->shared_type, &st->kind_types[KIN_KIND_QUEUE]);
}
