/* What belongs to all of a connection: the hooks for subclasses, the checks, the pickler that is in
 * use, and what arguments are. */
#include "connection.h"

/* -- What a subclass has made its own ------------------------------------------------- */

int kinx_override(kinx_connection *self, int hook, PyObject **out) {
    struct kinx_connection_state *cs = self->state->connection;
    if (!cs) return 0; /* the interpreter is on its way out */
    PyObject *name = cs->names[hook];
    PyObject *found = PyObject_GetAttr((PyObject *)Py_TYPE(self), name);
    if (!found) return -1;
    bool is_ours = found == cs->ours[hook];
    Py_DECREF(found);
    if (is_ours && self->dict && PyDict_GET_SIZE(self->dict)) {
        int own = PyDict_Contains(self->dict, name);
        if (own < 0) return -1;
        is_ours = !own;
    }
    if (is_ours) return 0;
    *out = PyObject_GetAttr((PyObject *)self, name);
    return *out ? 1 : -1;
}

int kinx_call_override(kinx_connection *self, int hook) {
    PyObject *theirs;
    int found = kinx_override(self, hook, &theirs);
    if (found <= 0) return found;
    PyObject *result = PyObject_CallNoArgs(theirs);
    Py_DECREF(theirs);
    Py_XDECREF(result);
    return result ? 1 : -1;
}

PyObject *kinx_none_if(int err) {
    if (err < 0) return NULL;
    Py_RETURN_NONE;
}

/* -- Checks ------------------------------------------------------------------------------ */

int kinx_raise_os_error(const char *text) {
    PyErr_SetString(PyExc_OSError, text);
    return -1;
}

int kinx_check_open(kinx_connection *self) {
    return self->channel.fd < 0 ? kinx_raise_os_error("handle is closed") : 0;
}

int kinx_check_closed(kinx_connection *self) {
    int called = kinx_call_override(self, KINX_HOOK_check_closed);
    return called ? called : kinx_check_open(self);
}

int kinx_our_check_readable(kinx_connection *self) {
    if (kinx_check_closed(self) < 0) return -1;
    return self->readable ? 0 : kinx_raise_os_error("connection is write-only");
}

int kinx_check_readable(kinx_connection *self) {
    int called = kinx_call_override(self, KINX_HOOK_check_readable);
    return called ? called : kinx_our_check_readable(self);
}

int kinx_our_check_writable(kinx_connection *self) {
    if (kinx_check_closed(self) < 0) return -1;
    return self->writable ? 0 : kinx_raise_os_error("connection is read-only");
}

int kinx_check_writable(kinx_connection *self) {
    int called = kinx_call_override(self, KINX_HOOK_check_writable);
    return called ? called : kinx_our_check_writable(self);
}

/* -- The pickler --------------------------------------------------------------------------- */

static PyObject *module_dict(PyObject **slot, const char *name) {
    if (*slot) return *slot;
    PyObject *module = PyImport_ImportModule(name);
    if (!module) return NULL;
    PyObject *dict = PyModule_GetDict(module);
    if (!*slot) *slot = Py_NewRef(dict);
    Py_DECREF(module);
    return *slot;
}

/* Borrowed: the pickler that kinfolk has made, whatever has been put in its place.  Raises. */
static PyObject *our_pickler(struct kinx_connection_state *cs) {
    if (cs->pickler) return cs->pickler;
    PyObject *base = PyImport_ImportModule("kinfolk.reduction");
    PyObject *kind = base ? PyObject_GetAttrString(base, "AbstractReducer") : NULL;
    PyObject *pickler = kind ? PyObject_GetAttrString(kind, "ForkingPickler") : NULL;
    Py_XDECREF(base);
    Py_XDECREF(kind);
    if (pickler && !cs->pickler) cs->pickler = Py_NewRef(pickler);
    Py_XDECREF(pickler);
    return cs->pickler;
}

int kinx_pickler_of_program(kinx_state *st, PyObject **out) {
    struct kinx_connection_state *cs = st->connection;
    *out = NULL;
    if (!cs) return 0;
    PyObject *context = module_dict(&cs->context, "kinfolk.context");
    PyObject *reduction = context ? module_dict(&cs->reduction, "kinfolk.reduction") : NULL;
    PyObject *ours = reduction ? our_pickler(cs) : NULL;
    if (!ours) return -1;
    PyObject *reducer = PyDict_GetItemString(context, "_reducer"); /* borrowed */
    if (reducer && reducer != Py_None) {
        *out = PyObject_GetAttrString(reducer, "ForkingPickler");
        if (!*out) return -1;
    } else {
        *out = Py_XNewRef(PyDict_GetItemString(reduction, "ForkingPickler"));
    }
    if (*out == ours) Py_CLEAR(*out);
    return 0;
}

/* -- Arguments ------------------------------------------------------------------------ */

int kinx_size_from(PyObject *given, Py_ssize_t *out) {
    if (!given || given == Py_None) return 0;
    Py_ssize_t n = PyNumber_AsSsize_t(given, PyExc_OverflowError);
    if (n == -1 && PyErr_Occurred()) return -1;
    *out = n;
    return 1;
}

int kinx_raise_value_error(const char *text) {
    PyErr_SetString(PyExc_ValueError, text);
    return -1;
}
