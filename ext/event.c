/* Event: set or not set, and those who wait for it. */
#include "args.h"
#include "errors.h"
#include "lock.h"
#include "ref.h"

static int init(kinx_shared *self, PyObject *args, PyObject *kwds) {
    if (kinx_lock_no_arguments(self, args, kwds) < 0) return -1;
    kin_family *family = kinx_shared_init(self);
    if (!family) return -1;
    kin_err err = kin_event_create(family, &self->event);
    if (err == 0) return 0;
    kinx_raise(self->state, err, Py_TYPE(self)->tp_name);
    return -1;
}

static PyObject *event_set(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    kin_event_set(&self->event);
    Py_RETURN_NONE;
}

static PyObject *event_clear(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    kin_event_clear(&self->event);
    Py_RETURN_NONE;
}

static PyObject *is_set(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    return PyBool_FromLong(kin_event_is_set(&self->event));
}

static PyObject *event_wait(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames) {
    kin_deadline deadline;
    if (kinx_parse_timeout("wait", args, nargs, kwnames, &deadline) < 0) return NULL;
    KINX_CHECK_OPEN(self);
    kin_err err;
    KINX_WAIT(err, deadline, kin_event_wait(&self->event, until));
    if (err == -ETIMEDOUT) Py_RETURN_FALSE;
    if (err < 0) return kinx_raise(self->state, err, Py_TYPE(self)->tp_name);
    Py_RETURN_TRUE;
}

static PyObject *repr(kinx_shared *self) {
    if (!self->handle.family) return kinx_shared_repr(self, "");
    PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "__qualname__");
    if (!name) return NULL;
    PyObject *repr = PyUnicode_FromFormat("<%U at %p %s>", name, self,
                                          kin_event_is_set(&self->event) ? "set" : "unset");
    Py_DECREF(name);
    return repr;
}

static PyMethodDef methods[] = {
    {"set", (PyCFunction)event_set, METH_NOARGS,
     "set($self, /)\n--\n\nLet all go who wait, now and later."},
    {"clear", (PyCFunction)event_clear, METH_NOARGS,
     "clear($self, /)\n--\n\nLet those wait who come now."},
    {"is_set", (PyCFunction)is_set, METH_NOARGS, "is_set($self, /)\n--\n\nIs it set?"},
    {"wait", (PyCFunction)(void (*)(void))event_wait, METH_FASTCALL | METH_KEYWORDS,
     "wait($self, /, timeout=None)\n--\n\n"
     "Wait until it is set, `timeout` seconds at most; was it?"},
    {NULL},
};

static PyGetSetDef getset[] = {KINX_ATTRIBUTES_GETSET, {NULL}};

PyDoc_STRVAR(doc, "Event(*, ctx=None)\n--\n\nA flag that can be waited for; not set at first.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)doc},
    {Py_tp_new, kinx_shared_new},
    {Py_tp_init, init},
    {Py_tp_dealloc, kinx_shared_dealloc},
    {Py_tp_traverse, kinx_attributes_traverse},
    {Py_tp_clear, kinx_attributes_clear},
    {Py_tp_members, kinx_attributes_members},
    {Py_tp_getset, getset},
    {Py_tp_repr, repr},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "kinfolk.synchronize.Event",
    .basicsize = sizeof(kinx_shared),
    .flags = KINX_ATTRIBUTES_FLAGS,
    .slots = slots,
};

int kinx_event_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    return kinx_add_type(module, &spec, st->shared_type, &st->kind_types[KIN_KIND_EVENT]);
}
