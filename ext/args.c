/* The arguments of everything that may wait.
 *
 * By hand, since these are the calls that programs make millions of times: no
 * tuple, no format string, and nothing at all to do for the usual call without
 * arguments.  The three signatures are tails of one, (obj, block, timeout). */
#include "args.h"

#include <math.h>

static int keyword_index(PyObject *name, const kinx_parameters *params) {
    for (int i = params->first; i < params->count; i++) {
        if (PyUnicode_CompareWithASCIIString(name, params->names[i]) == 0) return i;
    }
    return -1;
}

static int keywords_into(const char *func, const kinx_parameters *params, PyObject **slots,
                         PyObject *const *values, PyObject *kwnames) {
    Py_ssize_t count = PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        int at = keyword_index(name, params);
        if (at < 0) {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", func,
                         name);
            return -1;
        }
        if (slots[at]) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%U'", func, name);
            return -1;
        }
        slots[at] = values[i];
    }
    return 0;
}

int kinx_fill_slots(const char *func, const kinx_parameters *params, PyObject **slots,
                    PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
    int most = params->positional - params->first;
    if (nargs > most) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %d arguments (%zd given)", func, most,
                     nargs);
        return -1;
    }
    for (Py_ssize_t i = 0; i < nargs; i++) slots[params->first + i] = args[i];
    if (kwnames && keywords_into(func, params, slots, args + nargs, kwnames) < 0) return -1;
    for (int i = params->first; i < params->required; i++) {
        if (slots[i]) continue;
        PyErr_Format(PyExc_TypeError, "%s() missing required argument '%s' (pos %d)", func,
                     params->names[i], i + 1);
        return -1;
    }
    return 0;
}

bool kinx_positional(const char *func, Py_ssize_t nargs, int least, int most) {
    if (nargs >= least && nargs <= most) return true;
    PyErr_Format(PyExc_TypeError, "%s expected %s %d argument%s, got %zd", func,
                 nargs < least ? "at least" : "at most", nargs < least ? least : most,
                 (nargs < least ? least : most) == 1 ? "" : "s", nargs);
    return false;
}

enum { OBJ, BLOCK, TIMEOUT, PARAMETERS };

static int fill_slots(const char *func, PyObject **slots, int first, PyObject *const *args,
                      Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[PARAMETERS] = {"obj", "block", "timeout"};
    kinx_parameters params = {names, first, 0, PARAMETERS, PARAMETERS};
    return kinx_fill_slots(func, &params, slots, args, nargs, kwnames);
}

static int deadline_of_timeout(PyObject *timeout, kin_deadline *out) {
    if (!timeout || timeout == Py_None) {
        *out = KIN_FOREVER;
        return 0;
    }
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred()) return -1;
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "Invalid value NaN (not a number)");
        return -1;
    }
    double ns = ceil(seconds * 1e9);
    if (ns >= 9.2e18) *out = KIN_FOREVER;
    else *out = ns > 0 ? kin_deadline_after((int64_t)ns) : KIN_NOW;
    return 0;
}

int kinx_deadline_of(PyObject *block, PyObject *timeout, kin_deadline *out) {
    int waits = block ? PyObject_IsTrue(block) : 1;
    if (waits < 0) return -1;
    if (waits) return deadline_of_timeout(timeout, out);
    *out = KIN_NOW;
    return 0;
}

int kinx_parse_wait(const char *func, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                    kin_deadline *deadline) {
    *deadline = KIN_FOREVER;
    if (nargs == 0 && !kwnames) return 0;
    PyObject *slots[PARAMETERS] = {NULL};
    if (fill_slots(func, slots, BLOCK, args, nargs, kwnames) < 0) return -1;
    return kinx_deadline_of(slots[BLOCK], slots[TIMEOUT], deadline);
}

int kinx_parse_put(const char *func, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                   PyObject **obj, kin_deadline *deadline) {
    *deadline = KIN_FOREVER;
    if (nargs == 1 && !kwnames) {
        *obj = args[0];
        return 0;
    }
    PyObject *slots[PARAMETERS] = {NULL};
    if (fill_slots(func, slots, OBJ, args, nargs, kwnames) < 0) return -1;
    if (!slots[OBJ]) {
        PyErr_Format(PyExc_TypeError, "%s() missing 1 required positional argument: 'obj'", func);
        return -1;
    }
    *obj = slots[OBJ];
    return kinx_deadline_of(slots[BLOCK], slots[TIMEOUT], deadline);
}

int kinx_parse_timeout(const char *func, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                       kin_deadline *deadline) {
    PyObject *slots[PARAMETERS] = {NULL};
    if (fill_slots(func, slots, TIMEOUT, args, nargs, kwnames) < 0) return -1;
    return deadline_of_timeout(slots[TIMEOUT], deadline);
}
