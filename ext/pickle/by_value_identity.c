/* Who is who across processes: weak maps keyed by identity, and tokens.
 *
 * Two processes can talk about one class only if they have a name for it that is
 * neither its module path (a local class has none that can be looked up) nor its
 * address (the other process has another one there).  That name is a token: a few
 * random bytes, given to a class when it is first sent and remembered on both sides.
 * Whoever meets a token that it knows uses the thing that it already has, so a class
 * sent twice is one class in the receiver, and a class that comes home is the very
 * class that left.
 *
 * A weak map is a dict from addresses to pairs (weak reference, value), and the
 * callback of that reference takes the pair out.  Keys are compared by identity, never
 * by == or hash(), which belong to the user: a metaclass may define them, and code
 * objects compare by value.  `things`, from tokens, has pairs of the same kind.
 *
 * A forked child inherits the tables, hence agrees with its parent about every token
 * given before the fork. */
#include "by_value_parts.h"

#define TOKEN_BYTES 16 /* random: 2**64 classes would have to be sent for a likely clash */

/* -- Weak maps ------------------------------------------------------------------------- */

/* The callback of a weak reference.  self: (map, key). */
static PyObject *forget(PyObject *self, PyObject *reference) {
    PyObject *map = PyTuple_GET_ITEM(self, 0), *key = PyTuple_GET_ITEM(self, 1);
    PyObject *entry = PyDict_GetItemWithError(map, key);
    /* The key may mean another thing by now. */
    if (entry && PyTuple_GET_ITEM(entry, 0) == reference && PyDict_DelItem(map, key) < 0) {
        PyErr_Clear();
    }
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef forget_def = {"forget", forget, METH_O, NULL};

/* map[key] = (weak reference to thing, value) */
static int set_entry(PyObject *map, PyObject *key, PyObject *thing, PyObject *value) {
    PyObject *place = PyTuple_Pack(2, map, key);
    if (!place) return -1;
    PyObject *callback = PyCFunction_New(&forget_def, place);
    Py_DECREF(place);
    if (!callback) return -1;
    PyObject *reference = PyWeakref_NewRef(thing, callback);
    Py_DECREF(callback);
    if (!reference) return -1;
    PyObject *entry = PyTuple_Pack(2, reference, value);
    Py_DECREF(reference);
    if (!entry) return -1;
    int err = PyDict_SetItem(map, key, entry);
    Py_DECREF(entry);
    return err;
}

int kinx_weak_get(PyObject *map, PyObject *thing, PyObject **value) {
    *value = NULL;
    if (PyDict_GET_SIZE(map) == 0) return 0;
    PyObject *key = PyLong_FromVoidPtr(thing);
    if (!key) return -1;
    PyObject *entry = PyDict_GetItemWithError(map, key);
    Py_DECREF(key);
    if (!entry) return PyErr_Occurred() ? -1 : 0;
    *value = PyTuple_GET_ITEM(entry, 1);
    Py_INCREF(*value);
    return 1;
}

int kinx_weak_set(PyObject *map, PyObject *thing, PyObject *value) {
    PyObject *key = PyLong_FromVoidPtr(thing);
    if (!key) return -1;
    int err = set_entry(map, key, thing, value);
    Py_DECREF(key);
    return err;
}

int kinx_weak_pop(PyObject *map, PyObject *thing) {
    PyObject *value;
    int found = kinx_weak_get(map, thing, &value);
    Py_XDECREF(value);
    if (found <= 0) return found;
    PyObject *key = PyLong_FromVoidPtr(thing);
    if (!key) return -1;
    int err = PyDict_DelItem(map, key);
    Py_DECREF(key);
    return err < 0 ? -1 : 1;
}

/* -- Tokens ---------------------------------------------------------------------------- */

int kinx_known(kinx_by_value *bv, PyObject *token, PyObject **thing) {
    *thing = NULL;
    PyObject *entry = PyDict_GetItemWithError(bv->things, token);
    if (!entry) return PyErr_Occurred() ? -1 : 0;
    PyObject *reference = PyTuple_GET_ITEM(entry, 0);
#if PY_VERSION_HEX >= 0x030D0000
    return PyWeakref_GetRef(reference, thing);
#else
    PyObject *found = PyWeakref_GetObject(reference);
    if (!found) return -1;
    if (found == Py_None) return 0;
    Py_INCREF(found);
    *thing = found;
    return 1;
#endif
}

/* A thing may answer to several tokens (it may have been named on both sides before they
 * met); it is sent under the first. */
int kinx_adopt(kinx_by_value *bv, PyObject *token, PyObject *thing) {
    if (set_entry(bv->things, token, thing, Py_None) < 0) return -1;
    PyObject *first;
    int found = kinx_weak_get(bv->tokens, thing, &first);
    Py_XDECREF(first);
    return found ? (found < 0 ? -1 : 0) : kinx_weak_set(bv->tokens, thing, token);
}

PyObject *kinx_token(kinx_by_value *bv, PyObject *thing) {
    PyObject *token;
    if (kinx_weak_get(bv->tokens, thing, &token) != 0) return token;
    PyObject *urandom = kinx_hook(&bv->urandom, "os", "urandom");
    if (!urandom) return NULL;
    PyObject *fresh = PyObject_CallFunction(urandom, "i", TOKEN_BYTES);
    if (!fresh) return NULL;
    int err = kinx_adopt(bv, fresh, thing);
    Py_DECREF(fresh);
    if (err < 0) return NULL;
    /* Another thread may have been quicker; then its token is the one in the table. */
    if (kinx_weak_get(bv->tokens, thing, &token) == 0) {
        PyErr_SetString(PyExc_RuntimeError, "a class vanished while it was sent");
    }
    return token;
}

PyObject *kinx_bv_token(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    return kinx_takes(module, "_token", nargs, 1) ? kinx_token(kinx_by_value_of(module), args[0])
                                                  : NULL;
}
