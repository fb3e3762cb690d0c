/* Waiting for what lives in the arena among descriptors: wait(), ready(), Doorbell, and the
 * doorbell that a queue gets when somebody asks for its descriptor.
 *
 * A queue's doorbell is its own: it is closed with the queue's handle.  A Doorbell keeps what
 * it watches alive, as libkin asks for. */
#include "wait.h"

#include "args.h"
#include "errors.h"
#include "queue.h"

/* -- A queue's descriptor ------------------------------------------------------------- */

/* A forked child's copy is of no use to it. */
static bool is_own(const kinx_shared *queue) {
    return queue->doorbell && kin_doorbell_fd(queue->doorbell) >= 0;
}

void kinx_shared_silence(kinx_shared *self) {
    kin_doorbell *doorbell = self->doorbell;
    self->doorbell = NULL;
    kin_doorbell_close(doorbell);
}

static bool is_empty(const kinx_shared *queue) {
    int ready = 1;
    return kin_ready(&queue->handle, KIN_READY_TAKE, &ready) == 0 && !ready;
}

void kinx_queue_settle_slow(kinx_shared *self) {
    if (is_own(self) && is_empty(self) && !kinx_queue_owes(self))
        (void)!kin_queue_settle(&self->queue, self->doorbell);
}

static kin_err open_doorbell(kinx_shared *queue) {
    kin_family *family = queue->handle.family;
    kin_doorbell *doorbell;
    kin_err err = kin_doorbell_open(family, &doorbell);
    if (err) return err;
    err = kin_doorbell_watch(doorbell, &queue->handle, KIN_READY_TAKE);
    if (err) kin_doorbell_close(doorbell);
    else queue->doorbell = doorbell;
    return err;
}

/* Borrowed, or raises TypeError. */
static kinx_shared *as_queue(PyObject *module, PyObject *obj) {
    PyTypeObject *type = kinx_state_of(module)->kind_types[KIN_KIND_QUEUE];
    if (PyObject_TypeCheck(obj, type)) return (kinx_shared *)obj;
    PyErr_Format(PyExc_TypeError, "a queue is needed, not %s", Py_TYPE(obj)->tp_name);
    return NULL;
}

static PyObject *queue_fileno(PyObject *module, PyObject *obj) {
    kinx_shared *queue = as_queue(module, obj);
    if (!queue) return NULL;
    KINX_CHECK_OPEN(queue);
    if (!is_own(queue)) {
        kinx_shared_silence(queue);
        kin_err err = open_doorbell(queue);
        if (err) return kinx_raise(queue->state, err, Py_TYPE(queue)->tp_name);
    }
    return PyLong_FromLong(kin_doorbell_fd(queue->doorbell));
}

static PyObject *queue_close_fileno(PyObject *module, PyObject *obj) {
    kinx_shared *queue = as_queue(module, obj);
    if (!queue) return NULL;
    kinx_shared_silence(queue);
    Py_RETURN_NONE;
}

/* -- What is waited for ------------------------------------------------------------------ */

/* What a readiness is asked of: borrowed, or raises. */
static kinx_shared *as_shared(kinx_state *st, PyObject *obj) {
    if (!PyObject_TypeCheck(obj, st->shared_type)) {
        PyErr_Format(PyExc_TypeError, "%s cannot be waited for", Py_TYPE(obj)->tp_name);
        return NULL;
    }
    kinx_shared *self = (kinx_shared *)obj;
    if (!self->handle.family) return (kinx_shared *)kinx_raise_not_open(self);
    return self;
}

static int as_what(PyObject *obj, int *what) {
    long n = PyLong_AsLong(obj);
    if (n == -1 && PyErr_Occurred()) return -1;
    if (n == KIN_READY_TAKE || n == KIN_READY_GIVE) {
        *what = (int)n;
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "READY_TAKE or READY_GIVE, not %ld", n);
    return -1;
}

static int as_descriptor(PyObject *obj, int *fd) {
    long n = PyLong_AsLong(obj);
    if (n == -1 && PyErr_Occurred()) return -1;
    if (n >= 0 && n <= INT_MAX) {
        *fd = (int)n;
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %ld", n);
    return -1;
}

/* A queue may have something to give in this process that is in the arena no more. */
static bool owes(kinx_shared *self, int what) {
    return self->handle.ref.kind == KIN_KIND_QUEUE && what == KIN_READY_TAKE &&
           kinx_queue_owes(self) > 0;
}

static bool is_pair(PyObject *thing) {
    return PyTuple_Check(thing) && PyTuple_GET_SIZE(thing) == 2;
}

/* Borrowed: of (object, what) the first. */
static PyObject *object_of(PyObject *thing) {
    return is_pair(thing) ? PyTuple_GET_ITEM(thing, 0) : thing;
}

static int as_item(kinx_state *st, PyObject *thing, kin_wait_item *item) {
    *item = (kin_wait_item){.what = KIN_READY_TAKE};
    if (PyLong_Check(thing)) return as_descriptor(thing, &item->fd);
    if (is_pair(thing) && as_what(PyTuple_GET_ITEM(thing, 1), &item->what) < 0) return -1;
    kinx_shared *self = as_shared(st, object_of(thing));
    if (!self) return -1;
    item->object = &self->handle;
    item->ready = owes(self, item->what);
    return 0;
}

/* -- wait ------------------------------------------------------------------------------------ */

/* New reference: a list of the numbers of those that are ready. */
static PyObject *list_ready(const kin_wait_item *items, Py_ssize_t count) {
    PyObject *list = PyList_New(0);
    for (Py_ssize_t i = 0; list && i < count; i++) {
        if (!items[i].ready) continue;
        PyObject *n = PyLong_FromSsize_t(i);
        if (!n || PyList_Append(list, n) < 0) Py_CLEAR(list);
        Py_XDECREF(n);
    }
    return list;
}

/* The things, a tuple, keep the handles of the items open. */
static PyObject *wait_for(kinx_state *st, PyObject *things, kin_wait_item *items,
                          kin_deadline deadline) {
    Py_ssize_t count = PyTuple_GET_SIZE(things);
    bool owed = false;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (as_item(st, PyTuple_GET_ITEM(things, i), &items[i]) < 0) return NULL;
        owed |= items[i].ready != 0;
    }
    if (owed) deadline = KIN_NOW;
    kin_err err;
    KINX_WAIT(err, deadline, kin_wait(kin_family_self(), items, (size_t)count, until));
    if (err && err != -ETIMEDOUT) return kinx_raise(st, err, "wait()");
    for (Py_ssize_t i = 0; owed && i < count; i++)
        if (items[i].object)
            items[i].ready |=
                owes((kinx_shared *)object_of(PyTuple_GET_ITEM(things, i)), items[i].what);
    return list_ready(items, count);
}

static PyObject *wait(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames) {
    if (nargs < 1) {
        PyErr_SetString(PyExc_TypeError, "wait() takes a sequence of what to wait for");
        return NULL;
    }
    kin_deadline deadline;
    if (kinx_parse_timeout("wait", args + 1, nargs - 1, kwnames, &deadline) < 0) return NULL;
    PyObject *things = PySequence_Tuple(args[0]);
    if (!things) return NULL;
    kin_wait_item *items = PyMem_Calloc((size_t)PyTuple_GET_SIZE(things) + 1, sizeof *items);
    PyObject *list =
        items ? wait_for(kinx_state_of(module), things, items, deadline) : PyErr_NoMemory();
    PyMem_Free(items);
    Py_DECREF(things);
    return list;
}

/* (object, what=READY_TAKE): borrowed, or raises. */
static kinx_shared *parse_object(kinx_state *st, const char *func, PyObject *const *args,
                                 Py_ssize_t nargs, int *what) {
    *what = KIN_READY_TAKE;
    if (nargs < 1 || nargs > 2) {
        PyErr_Format(PyExc_TypeError, "%s() takes an object, and what it is to be ready for", func);
        return NULL;
    }
    if (nargs == 2 && as_what(args[1], what) < 0) return NULL;
    return as_shared(st, args[0]);
}

static PyObject *is_ready(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    kinx_state *st = kinx_state_of(module);
    int what, ready;
    kinx_shared *object = parse_object(st, "is_ready", args, nargs, &what);
    if (!object) return NULL;
    kin_err err = kin_ready(&object->handle, what, &ready);
    return err ? kinx_raise(st, err, Py_TYPE(object)->tp_name)
               : PyBool_FromLong(ready || owes(object, what));
}

/* -- Doorbell ------------------------------------------------------------------------------------ */

typedef struct kinx_doorbell {
    PyObject_HEAD
    kinx_state *state; /* borrowed */
    kin_doorbell *doorbell;
    PyObject *watched; /* a dict: the objects by their address and what they are watched for */
} kinx_doorbell;

static PyObject *doorbell_new(PyTypeObject *type, PyObject *args, PyObject *kwds) {
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwds, ":Doorbell", names)) return NULL;
    kinx_state *st = kinx_state_of_type(type);
    kin_family *family = st ? kinx_family(st) : NULL;
    if (!family) return NULL;
    kinx_doorbell *self = (kinx_doorbell *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->state = st;
    self->watched = PyDict_New();
    kin_err err = self->watched ? kin_doorbell_open(family, &self->doorbell) : 0;
    if (self->doorbell) return (PyObject *)self;
    if (err) kinx_raise(st, err, "Doorbell");
    Py_DECREF(self);
    return NULL;
}

static void silence(kinx_doorbell *self) {
    kin_doorbell *doorbell = self->doorbell;
    self->doorbell = NULL;
    kin_doorbell_close(doorbell); /* before what it watches goes */
}

static int doorbell_traverse(kinx_doorbell *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->watched);
    return 0;
}

static int doorbell_clear(kinx_doorbell *self) {
    silence(self);
    Py_CLEAR(self->watched);
    return 0;
}

static void doorbell_dealloc(kinx_doorbell *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    doorbell_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Raises ValueError. */
static int check_doorbell(kinx_doorbell *self) {
    if (self->doorbell) return 0;
    PyErr_SetString(PyExc_ValueError, "the doorbell is closed");
    return -1;
}

static PyObject *doorbell_fileno(kinx_doorbell *self, PyObject *unused) {
    if (check_doorbell(self) < 0) return NULL;
    int fd = kin_doorbell_fd(self->doorbell);
    return fd < 0 ? kinx_raise(self->state, KIN_ESTALE, "this doorbell of the parent process")
                  : PyLong_FromLong(fd);
}

/* New reference.  Objects lie on even addresses, so that both fit into one number. */
static PyObject *key_of(kinx_shared *object, int what) {
    return PyLong_FromVoidPtr((char *)object + (what == KIN_READY_GIVE));
}

static PyObject *doorbell_watch(kinx_doorbell *self, PyObject *const *args, Py_ssize_t nargs) {
    int what;
    kinx_shared *object = parse_object(self->state, "watch", args, nargs, &what);
    if (!object || check_doorbell(self) < 0) return NULL;
    PyObject *key = key_of(object, what);
    if (!key || PyDict_SetItem(self->watched, key, (PyObject *)object) < 0) {
        Py_XDECREF(key);
        return NULL;
    }
    kin_err err = kin_doorbell_watch(self->doorbell, &object->handle, what);
    if (err) (void)PyDict_DelItem(self->watched, key);
    Py_DECREF(key);
    if (err) return kinx_raise(self->state, err, Py_TYPE(object)->tp_name);
    Py_RETURN_NONE;
}

static PyObject *doorbell_unwatch(kinx_doorbell *self, PyObject *const *args, Py_ssize_t nargs) {
    int what;
    kinx_shared *object = parse_object(self->state, "unwatch", args, nargs, &what);
    if (!object || check_doorbell(self) < 0) return NULL;
    PyObject *key = key_of(object, what);
    int there = key ? PyDict_Contains(self->watched, key) : -1;
    if (there > 0) {
        kin_doorbell_unwatch(self->doorbell, &object->handle, what);
        there = PyDict_DelItem(self->watched, key);
    }
    Py_XDECREF(key);
    if (there < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *doorbell_settle(kinx_doorbell *self, PyObject *unused) {
    if (check_doorbell(self) < 0) return NULL;
    kin_err err = kin_doorbell_settle(self->doorbell);
    if (err < 0) return kinx_raise(self->state, err, "Doorbell");
    return PyBool_FromLong(err);
}

static PyObject *doorbell_close(kinx_doorbell *self, PyObject *unused) {
    silence(self);
    PyDict_Clear(self->watched);
    Py_RETURN_NONE;
}

static PyMethodDef doorbell_methods[] = {
    {"fileno", (PyCFunction)doorbell_fileno, METH_NOARGS,
     "fileno($self, /)\n--\n\nReadable once one of the objects has become ready."},
    {"watch", (PyCFunction)(void (*)(void))doorbell_watch, METH_FASTCALL,
     "watch($self, object, what=READY_TAKE, /)\n--\n\nRing when the object becomes ready."},
    {"unwatch", (PyCFunction)(void (*)(void))doorbell_unwatch, METH_FASTCALL,
     "unwatch($self, object, what=READY_TAKE, /)\n--\n\nRing no more for it."},
    {"settle", (PyCFunction)doorbell_settle, METH_NOARGS,
     "settle($self, /)\n--\n\n"
     "Take rings back that are over: is one of the objects ready?\n\n"
     "To be called when one was found not to be."},
    {"close", (PyCFunction)doorbell_close, METH_NOARGS,
     "close($self, /)\n--\n\nWatch nothing any more, and close the descriptor."},
    {NULL},
};

PyDoc_STRVAR(doorbell_doc,
             "Doorbell()\n--\n\n"
             "A descriptor for an event loop: readable when an object that it watches is ready.\n\n"
             "Of this process: in a forked child its parent's raise StaleReference.");

static PyType_Slot doorbell_slots[] = {
    {Py_tp_doc, (void *)doorbell_doc},
    {Py_tp_new, doorbell_new},
    {Py_tp_dealloc, doorbell_dealloc},
    {Py_tp_traverse, doorbell_traverse},
    {Py_tp_clear, doorbell_clear},
    {Py_tp_methods, doorbell_methods},
    {0, NULL},
};

static PyType_Spec doorbell_spec = {
    .name = "kinfolk._kin.Doorbell",
    .basicsize = sizeof(kinx_doorbell),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = doorbell_slots,
};

/* -- The module ------------------------------------------------------------------------------------ */

static PyMethodDef functions[] = {
    {"wait", (PyCFunction)(void (*)(void))wait, METH_FASTCALL | METH_KEYWORDS,
     "wait($module, things, /, timeout=None)\n--\n\n"
     "The numbers of those of `things` that are ready, once one is, or an empty list.\n\n"
     "A thing is a descriptor, an object of the arena (a queue that has something, a lock that\n"
     "is free, ...), or a pair of one and READY_GIVE (a queue that has room)."},
    {"is_ready", (PyCFunction)(void (*)(void))is_ready, METH_FASTCALL,
     "is_ready($module, object, what=READY_TAKE, /)\n--\n\nWould wait() find it ready?"},
    {"queue_fileno", (PyCFunction)queue_fileno, METH_O,
     "queue_fileno($module, queue, /)\n--\n\n"
     "A descriptor of this process, readable while there is something to get.\n\n"
     "It is the queue's, made when it is first asked for."},
    {"queue_close_fileno", (PyCFunction)queue_close_fileno, METH_O,
     "queue_close_fileno($module, queue, /)\n--\n\nClose the descriptor, if there is one."},
    {NULL},
};

int kinx_wait_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    if (kinx_add_type(module, &doorbell_spec, NULL, &st->doorbell_type) < 0) return -1;
    if (PyModule_AddIntConstant(module, "READY_TAKE", KIN_READY_TAKE) < 0) return -1;
    if (PyModule_AddIntConstant(module, "READY_GIVE", KIN_READY_GIVE) < 0) return -1;
    return PyModule_AddFunctions(module, functions);
}
