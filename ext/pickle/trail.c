/* The way from the top to what could not be pickled.
 *
 * While a failure comes back through the pickler, each caller notes how it had got
 * to the part that failed.  So the way is known exactly, and costs nothing as long as
 * nothing fails.  Making words of it is kinfolk._culprit's business. */
#include "pickler.h"

/* These come of the place or of the size, not of one thing. */
static bool is_explained(void) {
    return !PyErr_ExceptionMatches(PyExc_RecursionError) &&
           !PyErr_ExceptionMatches(PyExc_MemoryError);
}

static void note(kinx_pickler *p, PyObject *thing, kinx_step step, PyObject *key) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (!p->trail) p->trail = PyList_New(0);
    PyObject *entry = Py_BuildValue("OiO", thing, (int)step, key ? key : Py_None);
    if (!p->trail || !entry || PyList_Append(p->trail, entry) < 0) PyErr_Clear();
    Py_XDECREF(entry);
    PyErr_Restore(type, value, traceback);
}

int kinx_trail(kinx_pickler *p, PyObject *thing, kinx_step step, PyObject *key) {
    if (p->trail && !p->restart) note(p, thing, step, key);
    return -1;
}

int kinx_trail_index(kinx_pickler *p, PyObject *thing, kinx_step step, Py_ssize_t index) {
    if (!p->trail || p->restart) return -1;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *key = PyLong_FromSsize_t(index);
    if (!key) PyErr_Clear();
    PyErr_Restore(type, value, traceback);
    note(p, thing, step, key);
    Py_XDECREF(key);
    return -1;
}

int kinx_trail_culprit(kinx_pickler *p, PyObject *thing) {
    if (!p->restart && !p->trail && PyErr_Occurred() && is_explained()) {
        note(p, thing, (kinx_step)-1, NULL);
    }
    return -1;
}

/* What explaining raises is dropped: the error stays as it was. */
static void explain(kinx_pickler *p, PyObject *error, PyObject *obj) {
    PyObject *function = kinx_import(&p->ps->explain, "kinfolk._culprit", "explain_trail");
    PyObject *done = NULL;
    if (function && PyList_Reverse(p->trail) == 0) {
        done = PyObject_CallFunction(function, "OOsO", error, p->trail, "obj",
                                     p->by_value ? Py_True : Py_False);
    }
    if (!done) PyErr_Clear();
    Py_XDECREF(done);
}

void kinx_trail_explain(kinx_pickler *p, PyObject *obj) {
    if (!p->trail) return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback) PyException_SetTraceback(value, traceback);
    explain(p, value, obj);
    Py_CLEAR(p->trail);
    PyErr_Restore(type, value, traceback);
}
