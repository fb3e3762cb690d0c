/* Descriptor: a duplicate of a file descriptor that waits in the family's locker.
 *
 * Pickled into a message it is kept by that, like all that a message mentions.  Pickled outside of
 * any, its bytes keep nothing, and who wrote them cannot know when they will be read: so the process
 * holds it, by a transit of its own (kinfolk.resource_sharer has it), until somebody who loaded
 * such bytes has fetched the descriptor. */
#include <sys/resource.h>

#include "errors.h"
#include "ref.h"

typedef struct kinx_descriptor {
    kinx_shared shared;
    kin_descriptor descriptor;
    /* Loaded from bytes that were no message: what holds it meanwhile, and by which number. */
    kin_ref transit;
    uint64_t number; /* 0: nothing does */
} kinx_descriptor;

/* -- Limits ------------------------------------------------------------------------------ */

static unsigned long long descriptor_limit(void) {
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? (unsigned long long)limit.rlim_cur : 0;
}

static PyObject *text_of(kin_err err) {
    switch (err) {
    case -EMFILE:
        return PyUnicode_FromFormat("this process may open %llu descriptors (RLIMIT_NOFILE), and "
                                    "has no room for the one that it was sent",
                                    descriptor_limit());
    case -ETOOMANYREFS:
        return PyUnicode_FromFormat("as many descriptors are under way between this user's "
                                    "processes as this one may have open: %llu (RLIMIT_NOFILE)",
                                    descriptor_limit());
    case -ENOBUFS:
        return PyUnicode_FromString("as many descriptors are under way between the processes of "
                                    "this program as fit in a socket (net.core.wmem_max)");
    default: return NULL;
    }
}

/* As kinx_raise; a limit is named. */
static PyObject *raise(kinx_state *st, kin_err err) {
    PyObject *text = text_of(err);
    if (!text) return PyErr_Occurred() ? NULL : kinx_raise(st, err, "the descriptor");
    PyObject *args = Py_BuildValue("iN", -err, text);
    if (args) PyErr_SetObject(PyExc_OSError, args);
    Py_XDECREF(args);
    return NULL;
}

/* -- The type ---------------------------------------------------------------------------- */

static int init(kinx_shared *self, PyObject *args, PyObject *kwds) {
    static char *names[] = {"fd", NULL};
    int fd;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "i:Descriptor", names, &fd)) return -1;
    kin_family *family = kinx_shared_init(self);
    if (!family) return -1;
    kin_descriptor made;
    kin_err err;
    Py_BEGIN_ALLOW_THREADS
    err = kin_descriptor_create(family, fd, &made);
    Py_END_ALLOW_THREADS
    if (err == 0) {
        self->handle = made.handle;
        return 0;
    }
    raise(self->state, err);
    return -1;
}

/* Somebody has it now: who kept it for the bytes need not any more. */
static void let_go(kinx_descriptor *self) {
    kin_transit transit;
    uint64_t number = self->number;
    self->number = 0;
    if (number == 0) return;
    if (kin_transit_open(self->shared.handle.family, &self->transit, &transit) < 0) return;
    kin_transit_drop(&transit, number);
    kin_transit_close(&transit);
}

static PyObject *detach(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    kin_descriptor descriptor = {.handle = self->handle};
    int fd = -1;
    kin_err err;
    Py_BEGIN_ALLOW_THREADS
    err = kin_descriptor_fetch(&descriptor, &fd);
    Py_END_ALLOW_THREADS
    if (err < 0) return raise(self->state, err);
    let_go((kinx_descriptor *)self);
    return PyLong_FromLong(fd);
}

static PyObject *get_fetched(kinx_shared *self, void *closure) {
    KINX_CHECK_OPEN(self);
    kin_descriptor descriptor = {.handle = self->handle};
    return PyLong_FromUnsignedLongLong(kin_descriptor_fetched(&descriptor));
}

static PyObject *repr(kinx_shared *self) {
    return kinx_shared_repr(self, "in the locker");
}

/* -- Pickling ------------------------------------------------------------------------------ */

/* Have this process's transit hold it: the transit's ref, and the number.  Raises. */
static PyObject *keep(kinx_shared *self, uint64_t *number) {
    PyObject *sharer = PyImport_ImportModule("kinfolk.resource_sharer");
    PyObject *transit = sharer ? PyObject_CallMethod(sharer, "_transit", NULL) : NULL;
    Py_XDECREF(sharer);
    if (!transit) return NULL;
    kin_transit held = {.handle = ((kinx_shared *)transit)->handle};
    kin_err err = kin_transit_hold(&held, &self->handle.ref, 1, number);
    PyObject *ref =
        err < 0 ? raise(self->state, err) : kinx_ref_pack(self->handle.family, &held.handle.ref);
    Py_DECREF(transit);
    return ref;
}

/* As the base reduces it, by _open_kept and with two more arguments. */
static PyObject *reduce_kept(kinx_shared *self, PyObject *plain, PyObject *transit,
                             uint64_t number) {
    PyObject *module = PyType_GetModule(self->state->kind_types[KIN_KIND_DESCRIPTOR]);
    PyObject *open = PyObject_GetAttrString(module, "_open_kept");
    PyObject *args = PyTuple_GET_ITEM(plain, 1);
    bool bare = PyTuple_GET_SIZE(plain) == 2;
    if (!open) return NULL;
    args = Py_BuildValue("(OOOK)", PyTuple_GET_ITEM(args, 0), PyTuple_GET_ITEM(args, 1), transit,
                         (unsigned long long)number);
    return bare ? Py_BuildValue("NN", open, args)
                : Py_BuildValue("NNO", open, args, PyTuple_GET_ITEM(plain, 2));
}

static PyObject *reduce(kinx_shared *self, PyObject *unused) {
    uint64_t number = 0;
    PyObject *plain = kinx_shared_reduce(self, unused);
    if (!plain || kinx_mentions_are_noted()) return plain;
    PyObject *transit = keep(self, &number);
    PyObject *kept = transit ? reduce_kept(self, plain, transit, number) : NULL;
    Py_XDECREF(transit);
    Py_DECREF(plain);
    return kept;
}

static PyObject *open_kept(PyObject *module, PyObject *args) {
    kinx_state *st = kinx_state_of(module);
    PyObject *type, *ref, *transit;
    unsigned long long number;
    kin_ref holder;
    if (!PyArg_ParseTuple(args, "OOOK:_open_kept", &type, &ref, &transit, &number)) return NULL;
    if (!kinx_ref_unpack(transit, &holder, "this Descriptor")) return NULL;
    PyTypeObject *descriptor_type = st->kind_types[KIN_KIND_DESCRIPTOR];
    if (!PyType_Check(type) || !PyType_IsSubtype((PyTypeObject *)type, descriptor_type)) {
        PyErr_SetString(PyExc_TypeError, "_open_kept() takes a Descriptor's type");
        return NULL;
    }
    PyObject *opened = PyObject_CallFunctionObjArgs(st->open, type, ref, NULL);
    if (!opened) return NULL;
    ((kinx_descriptor *)opened)->transit = holder;
    ((kinx_descriptor *)opened)->number = number;
    return opened;
}

static PyMethodDef methods[] = {
    {"detach", (PyCFunction)detach, METH_NOARGS,
     "detach($self, /)\n--\n\n"
     "Return a new descriptor, the caller's; again is fine.\n\n"
     "OSError if this process may open no more: RLIMIT_NOFILE."},
    {"__reduce__", (PyCFunction)reduce, METH_NOARGS,
     "__reduce__($self, /)\n--\n\n"
     "Name it.  Outside of a message this process keeps it until it was fetched."},
    {NULL},
};

static PyGetSetDef getset[] = {
    {"fetched", (getter)get_fetched, NULL, "How often anyone has fetched it.", NULL},
    {NULL},
};

static PyMethodDef functions[] = {
    {"_open_kept", open_kept, METH_VARARGS,
     "_open_kept($module, cls, ref, transit, number, /)\n--\n\n"
     "A Descriptor that its sender keeps until it is fetched; pickles call it."},
    {NULL},
};

PyDoc_STRVAR(doc, "Descriptor(fd)\n--\n\n"
                  "A duplicate of the file descriptor `fd`, to be sent: whoever gets it calls\n"
                  "detach().  The caller may close `fd`, or end, right away.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)doc}, {Py_tp_new, kinx_shared_new},
    {Py_tp_init, init},       {Py_tp_dealloc, kinx_shared_dealloc},
    {Py_tp_repr, repr},       {Py_tp_methods, methods},
    {Py_tp_getset, getset},   {0, NULL},
};

static PyType_Spec spec = {
    .name = "kinfolk._kin.Descriptor",
    .basicsize = sizeof(kinx_descriptor),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int kinx_descriptor_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    PyTypeObject **type = &st->kind_types[KIN_KIND_DESCRIPTOR];
    if (kinx_add_type(module, &spec, st->shared_type, type) < 0) return -1;
    return PyModule_AddFunctions(module, functions);
}
