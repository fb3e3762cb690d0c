/* Queue: any number of producers and consumers, in any processes of the family.
 *
 * put() pickles in the caller's thread, so what cannot be pickled raises there,
 * and get() takes the message out before it loads it: a message that cannot be
 * loaded raises once, for the one who got it, and is gone.
 *
 * Small messages are copied through libkin's queue; those that are large or that
 * mention other objects of the arena ride as blobs.  Many at a time: queue_many.c. */
#include "queue.h"

#include "args.h"
#include "errors.h"

static int init(kinx_shared *self, PyObject *args, PyObject *kwds) {
    static char *names[] = {"maxsize", "max_bytes", NULL};
    Py_ssize_t maxsize = 0, max_bytes = 0;
    PyObject *bytes = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "|n$O:Queue", names, &maxsize, &bytes)) return -1;
    if (bytes != Py_None) max_bytes = PyNumber_AsSsize_t(bytes, PyExc_OverflowError);
    if (max_bytes == -1 && PyErr_Occurred()) return -1;
    kin_family *family = kinx_shared_init(self);
    if (!family) return -1;
    kin_err err = kin_queue_create_bounded(family, maxsize > 0 ? (uint64_t)maxsize : 0,
                                           max_bytes > 0 ? (uint64_t)max_bytes : 0, &self->queue);
    if (err == 0) return 0;
    kinx_raise(self->state, err, Py_TYPE(self)->tp_name);
    return -1;
}

/* -- What can go wrong ----------------------------------------------------------- */

/* The closing member's token is kept: a forked child begins with an open queue again. */
bool kinx_queue_is_closed(const kinx_shared *self) {
    return self->closed && self->closed == kin_family_member(self->handle.family);
}

PyObject *kinx_queue_raise_closed(kinx_shared *self) {
    PyErr_Format(PyExc_ValueError, "Queue %R is closed", self);
    return NULL;
}

static PyObject *raise_full_or_empty(kinx_shared *self, bool full) {
    kinx_state *st = self->state;
    PyObject *type = full ? kinx_import(&st->queue_full, "queue", "Full")
                          : kinx_import(&st->queue_empty, "queue", "Empty");
    if (type) PyErr_SetNone(type);
    return NULL;
}

static PyObject *raise_shutdown(kinx_shared *self) {
    PyObject *type = kinx_import(&self->state->queue_shutdown, "kinfolk.queues", "ShutDown");
    if (type) PyErr_Format(type, "%R is shut down", self);
    return NULL;
}

PyObject *kinx_queue_raise(kinx_shared *self, kin_err err, bool put) {
    if (err == -ETIMEDOUT) return raise_full_or_empty(self, put);
    if (err == KIN_ECLOSED) return raise_shutdown(self);
    return kinx_raise(self->state, err, Py_TYPE(self)->tp_name);
}

/* -- put -------------------------------------------------------------------------- */

static kin_err push_small(kinx_shared *self, const kinx_message *message, kin_deadline deadline) {
    uint8_t scratch[KIN_RECORD_MAX];
    uint32_t len, tag = message->is_pickled ? 0 : KINX_TAG_PLAIN;
    const uint8_t *data = kinx_message_flat(message, scratch, &len);
    kin_err err;
    KINX_WAIT(err, deadline, kin_queue_push(&self->queue, data, len, tag, until));
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
    KINX_QUEUE_CHECK(self);
    if (deadline == KIN_NOW && kin_queue_is_full(&self->queue) &&
        !kin_queue_is_shutdown(&self->queue))
        return kinx_queue_raise(self, -ETIMEDOUT, true);
    kinx_message message;
    if (kinx_message_init(self->state, &message, obj) < 0) return NULL;
    kin_err err = kinx_message_is_small(&message) ? push_small(self, &message, deadline)
                                                  : push_blob(self, &message, deadline);
    kinx_message_fini(&message);
    if (err == 0) Py_RETURN_NONE;
    return kinx_queue_raise(self, err, true);
}

static PyObject *put(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames) {
    PyObject *obj;
    kin_deadline deadline;
    if (kinx_parse_put("put", args, nargs, kwnames, &obj, &deadline) < 0) return NULL;
    return put_by(self, obj, deadline);
}

static PyObject *put_nowait(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames) {
    static const char *const names[] = {"obj"};
    static const kinx_parameters params = {names, 0, 1, 1, 1};
    PyObject *obj = NULL;
    if (kinx_fill_slots("put_nowait", &params, &obj, args, nargs, kwnames) < 0) return NULL;
    return put_by(self, obj, KIN_NOW);
}

/* -- get -------------------------------------------------------------------------- */

PyObject *kinx_queue_load(kinx_state *st, const uint8_t *buffer, kin_record *record) {
    if (record->blob.family) return kinx_blob_take(st, &record->blob);
    return kinx_load_record(st, buffer + record->off, record->len);
}

static PyObject *get_by(kinx_shared *self, kin_deadline deadline) {
    KINX_QUEUE_CHECK(self);
    if (kinx_queue_owes(self)) return kinx_queue_pay(self);
    uint8_t buffer[KIN_RECORD_MAX];
    kin_record record;
    kin_err err;
    KINX_WAIT(err, deadline, kin_queue_pop(&self->queue, buffer, &record, until));
    kinx_queue_settle(self);
    if (err < 0) return kinx_queue_raise(self, err, false);
    return kinx_queue_load(self->state, buffer, &record);
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

/* For iteration.  A loop ends with the queue; a message that raises such an error of its own as it
 * is loaded ends it, too, as a generator's StopIteration would. */
static PyObject *next(kinx_shared *self) {
    PyObject *obj = get_by(self, KIN_FOREVER);
    if (!obj && self->state->queue_shutdown && PyErr_ExceptionMatches(self->state->queue_shutdown))
        PyErr_Clear();
    return obj;
}

/* -- The rest -------------------------------------------------------------------------- */

static unsigned long long len(kinx_shared *self) {
    return kin_queue_len(&self->queue) + (unsigned long long)kinx_queue_owes(self);
}

static PyObject *qsize(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    return PyLong_FromUnsignedLongLong(len(self));
}

static PyObject *qsize_bytes(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    return PyLong_FromUnsignedLongLong(kin_queue_bytes(&self->queue));
}

static PyObject *empty(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    kinx_queue_settle(self);
    return PyBool_FromLong(len(self) == 0);
}

static PyObject *full(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    return PyBool_FromLong(kin_queue_is_full(&self->queue));
}

static PyObject *queue_close(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    self->closed = kin_family_member(self->handle.family);
    Py_RETURN_NONE;
}

static PyObject *shut_down(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames) {
    static const char *const names[] = {"immediate"};
    static const kinx_parameters params = {names, 0, 0, 1, 1};
    PyObject *immediate = NULL;
    if (kinx_fill_slots("shutdown", &params, &immediate, args, nargs, kwnames) < 0) return NULL;
    int drop = immediate ? PyObject_IsTrue(immediate) : 0;
    if (drop < 0) return NULL;
    KINX_CHECK_OPEN(self);
    Py_BEGIN_ALLOW_THREADS
    kin_queue_shutdown(&self->queue, drop);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
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
    return kinx_shared_repr(self, "len=%llu", len(self));
}

#define FAST(name) (PyCFunction)(void (*)(void))(name), METH_FASTCALL | METH_KEYWORDS

static PyMethodDef methods[] = {
    {"put", FAST(put),
     "put($self, /, obj, block=True, timeout=None)\n--\n\n"
     "Pickle `obj` and add it, waiting for room for `timeout` seconds at most; None: for as\n"
     "long as it takes.\n\n"
     "queue.Full; ShutDown; ValueError on a closed queue; MemoryError when the arena is full;\n"
     "and what pickling raises, before anything was added."},
    {"get", FAST(get),
     "get($self, /, block=True, timeout=None)\n--\n\n"
     "Take the oldest object, waiting for one for `timeout` seconds at most; None: for as\n"
     "long as it takes.\n\n"
     "queue.Empty; ShutDown when it is shut down and empty; ValueError on a closed queue."},
    {"put_nowait", FAST(put_nowait), "put_nowait($self, /, obj)\n--\n\nput(obj, False)"},
    {"get_nowait", (PyCFunction)get_nowait, METH_NOARGS, "get_nowait($self, /)\n--\n\nget(False)"},
    {"put_many", FAST(kinx_queue_put_many),
     "put_many($self, /, objs, block=True, timeout=None)\n--\n\n"
     "Add the objects of an iterable, in order, and return how many those were.\n\n"
     "Errors are those of put(), and of the iterable.  What was added before the error is in\n"
     "the queue; the exception's attribute `put` says how many."},
    {"_take_back", (PyCFunction)kinx_queue_take_back, METH_NOARGS,
     "_take_back($self, /)\n--\n\n"
     "Take all messages out in one step (128 at the most), without loading them, and return how\n"
     "many there were."},
    {"get_many", FAST(kinx_queue_get_many),
     "get_many($self, /, max_items=None, block=True, timeout=None)\n--\n\n"
     "Take what is there, `max_items` at most, in a list; waiting for the first one only.\n\n"
     "Errors are those of get().  If one of the objects can't be loaded, those before it are\n"
     "returned, and the next call of get() or get_many() raises."},
    {"qsize", (PyCFunction)qsize, METH_NOARGS,
     "qsize($self, /)\n--\n\nHow many objects are in it."},
    {"qsize_bytes", (PyCFunction)qsize_bytes, METH_NOARGS,
     "qsize_bytes($self, /)\n--\n\nHow many bytes those are, pickled."},
    {"empty", (PyCFunction)empty, METH_NOARGS, "empty($self, /)\n--\n\nIs there nothing in it?"},
    {"full", (PyCFunction)full, METH_NOARGS,
     "full($self, /)\n--\n\nWould put() have to wait, whatever is put?"},
    {"close", (PyCFunction)queue_close, METH_NOARGS,
     "close($self, /)\n--\n\n"
     "This process is done with it, and may neither put nor get any more."},
    {"shutdown", FAST(shut_down),
     "shutdown($self, /, immediate=False)\n--\n\n"
     "For all processes: nothing may be put any more, and once it is empty get() raises\n"
     "ShutDown.  immediate: it is empty at once; what was in it is dropped, and counts as\n"
     "done for join()."},
    {"task_done", (PyCFunction)task_done, METH_NOARGS,
     "task_done($self, /)\n--\n\n"
     "One object that was taken has been dealt with.  ValueError if all were."},
    {"join", FAST(join),
     "join($self, /, timeout=None)\n--\n\n"
     "Wait until all that was put has been dealt with, `timeout` seconds at most; was it?"},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL},
};

static PyObject *get_closed(kinx_shared *self, void *closure) {
    return PyBool_FromLong(self->handle.family && kinx_queue_is_closed(self));
}

static PyObject *get_maxsize(kinx_shared *self, void *closure) {
    KINX_CHECK_OPEN(self);
    return PyLong_FromUnsignedLongLong(kin_queue_maxsize(&self->queue));
}

static PyObject *get_max_bytes(kinx_shared *self, void *closure) {
    KINX_CHECK_OPEN(self);
    return PyLong_FromUnsignedLongLong(kin_queue_max_bytes(&self->queue));
}

static PyObject *is_shutdown(kinx_shared *self, void *closure) {
    KINX_CHECK_OPEN(self);
    return PyBool_FromLong(kin_queue_is_shutdown(&self->queue));
}

static PyGetSetDef getset[] = {
    {"_closed", (getter)get_closed, NULL, "Has close() been called in this process?", NULL},
    {"maxsize", (getter)get_maxsize, NULL, "How many objects it holds; 0: without bound.", NULL},
    {"max_bytes", (getter)get_max_bytes, NULL, "How many bytes it holds; 0: without bound.", NULL},
    {"is_shutdown", (getter)is_shutdown, NULL, "Has anyone called shutdown()?", NULL},
    {NULL},
};

PyDoc_STRVAR(doc, "Queue(maxsize=0, *, max_bytes=None)\n--\n\n"
                  "A queue of objects between processes, and threads.\n\n"
                  "maxsize: how many it holds before put() waits; 0 or less: without bound.\n"
                  "max_bytes: how many bytes, pickled; an object larger than that is let in when\n"
                  "there is nothing else.\n\n"
                  "Iterating over it takes its objects until it is shut down and empty.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)doc}, {Py_tp_new, kinx_shared_new},
    {Py_tp_init, init},       {Py_tp_dealloc, kinx_shared_dealloc},
    {Py_tp_repr, repr},       {Py_tp_methods, methods},
    {Py_tp_getset, getset},   {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, next},   {0, NULL},
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
