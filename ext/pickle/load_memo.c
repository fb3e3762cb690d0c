/* The memo, where an index is not simply the next.
 *
 * The array has at most a few times as many places as there are objects: what a pickle
 * numbers far beyond goes into a dict. */
#include "load.h"

#define FIRST_CAP 64
#define MOST ((size_t)PY_SSIZE_T_MAX / 16)

static int grow(kinx_memo_table *memo, size_t index) {
    size_t wanted = memo->cap ? 2 * memo->cap : FIRST_CAP;
    while (wanted <= index) wanted *= 2;
    PyObject **grown = PyMem_Realloc(memo->objects, wanted * sizeof *grown);
    if (!grown) {
        PyErr_NoMemory();
        return -1;
    }
    memo->objects = grown;
    memo->cap = wanted;
    return 0;
}

/* Whether the array may be stretched so far. */
static bool is_near(const kinx_memo_table *memo, size_t index) {
    return index < memo->cap || (index < MOST && index / 4 < memo->count + FIRST_CAP / 4);
}

static int put_far(kinx_memo_table *memo, size_t index, PyObject *obj) {
    if (!memo->far && !(memo->far = PyDict_New())) return -1;
    PyObject *key = PyLong_FromSize_t(index);
    if (!key) return -1;
    PyObject *far = Py_NewRef(memo->far); /* what obj replaces may have a finalizer */
    Py_ssize_t before = PyDict_GET_SIZE(far);
    int err = PyDict_SetItem(far, key, obj);
    Py_DECREF(key);
    if (err == 0 && far == memo->far) memo->count += (size_t)(PyDict_GET_SIZE(far) - before);
    Py_DECREF(far);
    return err;
}

/* Borrowed; NULL, with an exception only for want of memory. */
static PyObject *get_far(const kinx_memo_table *memo, size_t index) {
    if (!memo->far) return NULL;
    PyObject *key = PyLong_FromSize_t(index);
    if (!key) return NULL;
    PyObject *obj = PyDict_GetItemWithError(memo->far, key);
    Py_DECREF(key);
    return obj;
}

int kinx_memo_put(kinx_memo_table *memo, size_t index, PyObject *obj) {
    /* What is in the dict stays there. */
    if (memo->far && get_far(memo, index)) return put_far(memo, index, obj);
    if (PyErr_Occurred()) return -1;
    if (!is_near(memo, index)) return put_far(memo, index, obj);
    if (index >= memo->cap && grow(memo, index) < 0) return -1;
    while (memo->filled <= index) memo->objects[memo->filled++] = NULL;
    PyObject *old = memo->objects[index];
    memo->objects[index] = Py_NewRef(obj);
    if (old) Py_DECREF(old);
    else memo->count++;
    return 0;
}

PyObject *kinx_memo_get(const kinx_memo_table *memo, size_t index) {
    if (index < memo->filled && memo->objects[index]) return memo->objects[index];
    return get_far(memo, index);
}

PyObject *kinx_memo_as_dict(const kinx_memo_table *memo) {
    PyObject *dict = memo->far ? PyDict_Copy(memo->far) : PyDict_New();
    for (size_t i = 0; dict && i < memo->filled; i++) {
        if (!memo->objects[i]) continue;
        PyObject *key = PyLong_FromSize_t(i);
        if (!key || PyDict_SetItem(dict, key, memo->objects[i]) < 0) Py_CLEAR(dict);
        Py_XDECREF(key);
    }
    return dict;
}

void kinx_memo_drop(kinx_memo_table *memo) {
    kinx_memo_table old = *memo;
    *memo = (kinx_memo_table){0};
    while (old.filled > 0) Py_XDECREF(old.objects[--old.filled]);
    PyMem_Free(old.objects);
    Py_XDECREF(old.far);
}
