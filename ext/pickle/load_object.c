/* Objects that are called into being, and given their state. */
#include "load.h"

/* -- Calls with what is on the stack --------------------------------------------------- */

/* callable(*args), args being a tuple if all is well.  New reference. */
static PyObject *call(kinx_loader *u, PyObject *callable, PyObject *args) {
    kinx_foreign_begin(u);
    PyObject *obj = PyObject_CallObject(callable, args);
    kinx_foreign_end(u);
    return obj;
}

int kinx_load_reduce(kinx_loader *u) {
    if (kinx_reach(u) < 2) return kinx_underflow(u);
    PyObject *args = *--u->top, *callable = *--u->top;
    PyObject *obj = call(u, callable, args);
    Py_DECREF(callable);
    Py_DECREF(args);
    return kinx_push(u, obj);
}

int kinx_load_reduce_from_stack(kinx_loader *u, Py_ssize_t count) {
    /* Nobody can move the stack meanwhile: an Unpickler at work refuses. */
    PyObject **args = u->top - count;
    kinx_foreign_begin(u);
    PyObject *obj =
        PyObject_Vectorcall(args[-1], args, (size_t)count | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    kinx_foreign_end(u);
    kinx_stack_cut(u, kinx_depth(u) - count - 1);
    return kinx_push(u, obj);
}

/* -- NEWOBJ ------------------------------------------------------------------------------- */

static int raise_newobj(kinx_loader *u, const char *format, bool with_kwargs, PyObject *culprit) {
    PyErr_Format(kinx_unpickling_error(u->us), format, with_kwargs ? "NEWOBJ_EX" : "NEWOBJ",
                 Py_TYPE(culprit)->tp_name);
    return -1;
}

static int check_newobj(kinx_loader *u, PyObject *cls, PyObject *args, PyObject *kwargs) {
    bool ex = kwargs != NULL;
    if (!PyType_Check(cls)) {
        return raise_newobj(u, "%s class argument must be a type, not %.200s", ex, cls);
    }
    if (!((PyTypeObject *)cls)->tp_new) {
        return raise_newobj(u, "%s class argument '%.200s' doesn't have __new__", ex, cls);
    }
    if (!PyTuple_Check(args)) {
        return raise_newobj(u, "%s args argument must be a tuple, not %.200s", ex, args);
    }
    if (ex && !PyDict_Check(kwargs)) {
        return raise_newobj(u, "%s kwargs argument must be a dict, not %.200s", ex, kwargs);
    }
    return 0;
}

/* New reference. */
static PyObject *new_object(kinx_loader *u, PyObject *cls, PyObject *args, PyObject *kwargs) {
    if (check_newobj(u, cls, args, kwargs) < 0) return NULL;
    PyTypeObject *type = (PyTypeObject *)cls;
    if (type->tp_new == PyBaseObject_Type.tp_new && !kwargs) {
        PyObject *obj = type->tp_new(type, args, NULL);
        if (obj) kinx_note_blank(u, obj);
        return obj;
    }
    kinx_foreign_begin(u);
    PyObject *obj = type->tp_new(type, args, kwargs);
    kinx_foreign_end(u);
    return obj;
}

int kinx_load_newobj(kinx_loader *u, bool with_kwargs) {
    if (kinx_reach(u) < 2 + with_kwargs) return kinx_underflow(u);
    PyObject *kwargs = with_kwargs ? *--u->top : NULL;
    PyObject *args = *--u->top, *cls = *--u->top;
    PyObject *obj = new_object(u, cls, args, kwargs);
    Py_XDECREF(kwargs);
    Py_DECREF(args);
    Py_DECREF(cls);
    return kinx_push(u, obj);
}

int kinx_load_newobj_bare(kinx_loader *u) {
    if (kinx_reach(u) < 1) return kinx_underflow(u);
    PyObject *cls = *--u->top;
    PyObject *obj = new_object(u, cls, u->us->empty_tuple, NULL);
    Py_DECREF(cls);
    return kinx_push(u, obj);
}

/* -- INST and OBJ, of old classes ------------------------------------------------------------ */

/* What Python 2 did: without arguments, and unless the class says otherwise, __init__ is not
 * called.  New reference. */
static PyObject *instantiate(kinx_loader *u, PyObject *cls, PyObject *args) {
    if (PyTuple_GET_SIZE(args) > 0 || !PyType_Check(cls)) return call(u, cls, args);
    kinx_foreign_begin(u);
    PyObject *wants_args, *obj = NULL;
    int err = kinx_lookup_attr(cls, u->us->str_getinitargs, &wants_args);
    if (err >= 0) {
        obj = wants_args ? PyObject_CallObject(cls, args)
                         : PyObject_CallMethodObjArgs(cls, u->us->str_new, cls, NULL);
        Py_XDECREF(wants_args);
    }
    kinx_foreign_end(u);
    return obj;
}

int kinx_load_obj(kinx_loader *u) {
    Py_ssize_t depth = kinx_pop_mark(u);
    if (depth < 0) return -1;
    if (kinx_depth(u) - depth < 1) return kinx_underflow(u);
    PyObject *args = kinx_pop_tuple(u, depth + 1);
    if (!args) return -1;
    PyObject *cls = *--u->top;
    PyObject *obj = instantiate(u, cls, args);
    Py_DECREF(cls);
    Py_DECREF(args);
    return kinx_push(u, obj);
}

int kinx_load_inst(kinx_loader *u) {
    Py_ssize_t depth = kinx_pop_mark(u);
    if (depth < 0) return -1;
    if (kinx_load_global(u) < 0) return -1;
    PyObject *cls = *--u->top, *args = kinx_pop_tuple(u, depth);
    PyObject *obj = args ? instantiate(u, cls, args) : NULL;
    Py_DECREF(cls);
    Py_XDECREF(args);
    return kinx_push(u, obj);
}

/* -- Items for what is no list or set ------------------------------------------------------------ */

/* function(obj) for each value above `depth`, which are dropped. */
static int call_with_each(kinx_loader *u, Py_ssize_t depth, PyObject *function) {
    int err = 0;
    for (PyObject **item = u->stack + depth; err == 0 && item < u->top; item++) {
        PyObject *result = PyObject_CallOneArg(function, *item);
        if (!result) err = -1;
        Py_XDECREF(result);
    }
    kinx_stack_cut(u, depth);
    return err;
}

static int extend_other(kinx_loader *u, PyObject *obj, Py_ssize_t depth) {
    PyObject *function;
    if (kinx_lookup_attr(obj, u->us->str_extend, &function) < 0) return -1;
    int err = -1;
    if (function) {
        PyObject *items = kinx_pop_list(u, depth);
        PyObject *result = items ? PyObject_CallOneArg(function, items) : NULL;
        if (result) err = 0;
        Py_XDECREF(items);
        Py_XDECREF(result);
    } else {
        function = PyObject_GetAttr(obj, u->us->str_append);
        if (function) err = call_with_each(u, depth, function);
    }
    Py_XDECREF(function);
    return err;
}

int kinx_extend_other(kinx_loader *u, Py_ssize_t depth) {
    kinx_foreign_begin(u);
    int err = extend_other(u, u->stack[depth - 1], depth);
    kinx_foreign_end(u);
    return err;
}

int kinx_add_other(kinx_loader *u, Py_ssize_t depth) {
    kinx_foreign_begin(u);
    PyObject *function = PyObject_GetAttr(u->stack[depth - 1], u->us->str_add);
    int err = function ? call_with_each(u, depth, function) : -1;
    Py_XDECREF(function);
    kinx_foreign_end(u);
    return err;
}

/* -- BUILD ------------------------------------------------------------------------------------------ */

/* set(target, key, value) for each in the state: PyObject_SetItem or PyObject_SetAttr. */
static int set_each(PyObject *target, PyObject *state,
                    int (*set)(PyObject *, PyObject *, PyObject *)) {
    PyObject *key, *value;
    Py_ssize_t at = 0;
    int err = 0;
    while (err == 0 && PyDict_Next(state, &at, &key, &value)) {
        Py_INCREF(key);
        Py_INCREF(value);
        /* Attributes' names are interned: they should be the same objects. */
        if (PyUnicode_CheckExact(key)) PyUnicode_InternInPlace(&key);
        err = set(target, key, value);
        Py_DECREF(key);
        Py_DECREF(value);
    }
    return err;
}

/* inst.__dict__[key] = value for each, the long way. */
static int update_dict(kinx_loader *u, PyObject *inst, PyObject *state) {
    if (!PyDict_Check(state)) {
        PyErr_SetString(kinx_unpickling_error(u->us), "state is not a dictionary");
        return -1;
    }
    PyObject *dict = PyObject_GetAttr(inst, u->us->str_dict);
    if (!dict) return -1;
    int err = set_each(dict, state, PyObject_SetItem);
    Py_DECREF(dict);
    return err;
}

static int set_attributes(kinx_loader *u, PyObject *inst, PyObject *state) {
    if (PyDict_Check(state)) return set_each(inst, state, PyObject_SetAttr);
    PyErr_SetString(kinx_unpickling_error(u->us), "slot state is not a dictionary");
    return -1;
}

/* The default: state is a dict, or None, or a tuple of that and another dict, for slots. */
static int set_state(kinx_loader *u, PyObject *inst, PyObject *state) {
    PyObject *slots = NULL;
    if (PyTuple_Check(state) && PyTuple_GET_SIZE(state) == 2) {
        slots = PyTuple_GET_ITEM(state, 1);
        state = PyTuple_GET_ITEM(state, 0);
    }
    if (state != Py_None && update_dict(u, inst, state) < 0) return -1;
    return slots ? set_attributes(u, inst, slots) : 0;
}

static int build(kinx_loader *u, PyObject *inst, PyObject *state) {
    PyObject *setstate;
    if (kinx_lookup_attr(inst, u->us->str_setstate, &setstate) < 0) return -1;
    if (!setstate) return set_state(u, inst, state);
    PyObject *result = PyObject_CallOneArg(setstate, state);
    Py_DECREF(setstate);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

int kinx_load_build(kinx_loader *u) {
    if (kinx_reach(u) < 2) return kinx_underflow(u);
    PyObject *state = *--u->top, *inst = u->top[-1];
    int err = kinx_build_plain(u, inst, state);
    if (err == 0) {
        kinx_foreign_begin(u);
        err = build(u, inst, state);
        kinx_foreign_end(u);
    }
    Py_DECREF(state);
    return err < 0 ? -1 : 0;
}
