/* The receiving side: what a pickle calls to build functions and small things.
 *
 * Every maker and filler is named in pickles, so its name and arguments are a wire
 * format (docs/by-value.md): whoever loads them runs the same kinfolk.  What they are given
 * is looked at before it is used: a pickle may be damaged.
 *
 * A thing is built in two steps, because it may be part of itself: first an empty one
 * from what cannot be cyclic (_function, _class, ...), which pickle then remembers, and
 * after that its contents (_fill_function, _fill_class, ...), which may refer back to it.
 * The contents always travel; whether they are used is decided in the first step, which
 * may have found the thing here instead of building it.  So a filler fills only what is
 * marked as made here: a class or wrapper in `unfilled`, a function by a __module__ that
 * nothing else has. */
#include "by_value_parts.h"

/* -- What they are given --------------------------------------------------------------------- */

static void *raise_damaged(const char *maker, const char *what) {
    PyErr_Format(PyExc_TypeError, "%s() was not given %s: the pickle is damaged", maker, what);
    return NULL;
}

bool kinx_takes(PyObject *module, const char *maker, Py_ssize_t nargs, Py_ssize_t want) {
    if (!kinx_by_value_of(module)) {
        PyErr_SetString(PyExc_RuntimeError, "the interpreter is on its way out");
        return false;
    }
    if (nargs == want) return true;
    PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, not %zd", maker, want, nargs);
    return false;
}

PyObject *kinx_import_module(PyObject *name) {
    if (!PyUnicode_Check(name)) return raise_damaged("_module", "a name");
    /* Waits, if another thread is about to import it. */
    PyObject *module = PyImport_ImportModuleLevelObject(name, NULL, NULL, NULL, 0);
    if (!module || PyUnicode_FindChar(name, '.', 0, PyUnicode_GET_LENGTH(name), 1) < 0) {
        return module;
    }
    Py_DECREF(module); /* that of the outermost package */
    module = PyImport_GetModule(name);
    if (!module && !PyErr_Occurred()) {
        PyErr_Format(PyExc_ImportError, "%R was imported, but is not there", name);
    }
    return module;
}

/* -- Names and homes --------------------------------------------------------------------------- */

/* An attribute of a module that is importable under another name than it gives itself. */
PyObject *kinx_make_attribute(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_takes(self, "_attribute", nargs, 2)) return NULL;
    PyObject *module = kinx_import_module(args[0]);
    PyObject *found = module ? PyObject_GetAttr(module, args[1]) : NULL;
    Py_XDECREF(module);
    return found;
}

/* What a class has in its __dict__, which asking for the attribute need not give. */
PyObject *kinx_make_descriptor(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_takes(self, "_descriptor", nargs, 2)) return NULL;
    if (!PyType_Check(args[0])) return raise_damaged("_descriptor", "a class and a name");
    PyObject *dict = kinx_type_dict((PyTypeObject *)args[0]);
    PyObject *found = dict ? PyObject_GetItem(dict, args[1]) : NULL;
    Py_XDECREF(dict);
    return found;
}

/* An importable module, also as the home of functions defined in it. */
PyObject *kinx_make_module(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    return kinx_takes(self, "_module", nargs, 1) ? kinx_import_module(args[0]) : NULL;
}

/* A fresh module, in no table, whose globals the functions sent together share.  The arguments:
 * the few globals that say which module it stands for, None for those that it has not. */
PyObject *kinx_make_home(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    Py_ssize_t most = nargs < KINX_HOME_NAMES ? nargs : KINX_HOME_NAMES;
    if (!kinx_takes(self, "_home", nargs, most)) return NULL;
    kinx_by_value *bv = kinx_by_value_of(self);
    PyObject *home = PyModule_NewObject(bv->half_made);
    if (!home) return NULL;
    PyObject *globals = kinx_module_dict(home);
    PyDict_Clear(globals);
    int err = PyDict_SetItem(globals, bv->names.builtins, bv->builtins);
    for (Py_ssize_t i = 0; err == 0 && i < nargs; i++) {
        if (args[i] != Py_None) err = PyDict_SetItem(globals, bv->home_names[i], args[i]);
    }
    if (err < 0) Py_CLEAR(home);
    return home;
}

/* A module made at run time: the very one whose globals its functions share. */
PyObject *kinx_make_made_module(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_takes(self, "_made_module", nargs, 1)) return NULL;
    Py_INCREF(args[0]);
    return args[0];
}

/* What is there already may have been assigned to since. */
static int add_new(PyObject *globals, PyObject *names) {
    PyObject *name, *value;
    Py_ssize_t at = 0;
    while (PyDict_Next(names, &at, &name, &value)) {
        Py_INCREF(name);
        Py_INCREF(value);
        PyObject *there = PyDict_SetDefault(globals, name, value);
        Py_DECREF(name);
        Py_DECREF(value);
        if (!there) return -1;
    }
    return 0;
}

PyObject *kinx_make_fill_module(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_takes(self, "_fill_module", nargs, 2)) return NULL;
    if (!PyModule_Check(args[0]) || !PyDict_CheckExact(args[1])) {
        return raise_damaged("_fill_module", "a module and a dict");
    }
    PyObject *globals = kinx_module_dict(args[0]);
    if (!globals || add_new(globals, args[1]) < 0) return NULL;
    Py_RETURN_NONE;
}

/* -- Cells and code ----------------------------------------------------------------------------- */

/* A cell, to be shared by the closures that refer to it; empty, or with the argument in it. */
PyObject *kinx_make_cell(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs > 1 && !kinx_takes(self, "_cell", nargs, 1)) return NULL;
    return PyCell_New(nargs ? args[0] : NULL);
}

PyObject *kinx_make_fill_cell(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_takes(self, "_fill_cell", nargs, 2)) return NULL;
    if (!PyCell_Check(args[0]) || !PyTuple_CheckExact(args[1]) || PyTuple_GET_SIZE(args[1]) != 1) {
        return raise_damaged("_fill_cell", "a cell and a tuple of one");
    }
    if (PyCell_Set(args[0], PyTuple_GET_ITEM(args[1], 0)) < 0) return NULL;
    Py_RETURN_NONE;
}

PyObject *kinx_make_code(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    return kinx_takes(self, "_code", nargs, 1) ? kinx_code_from(kinx_by_value_of(self), args[0])
                                               : NULL;
}

/* -- Functions ------------------------------------------------------------------------------------ */

/* The globals that a home is.  New. */
static PyObject *globals_of(kinx_by_value *bv, PyObject *home) {
    if (PyModule_Check(home)) return Py_XNewRef(kinx_module_dict(home));
    PyObject *globals = PyObject_GetAttr(home, bv->names.dict); /* anything may be a module */
    if (globals && !PyDict_Check(globals)) {
        Py_DECREF(globals);
        return raise_damaged("_function", "a module");
    }
    return globals;
}

static bool fits(PyObject *closure, PyCodeObject *code) {
    if (closure == Py_None) return PyCode_GetNumFree(code) == 0;
    if (!PyTuple_CheckExact(closure)) return false;
    if (PyTuple_GET_SIZE(closure) != (Py_ssize_t)PyCode_GetNumFree(code)) return false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(closure); i++) {
        if (!PyCell_Check(PyTuple_GET_ITEM(closure, i))) return false;
    }
    return true;
}

/* New. */
static PyObject *bare_function(PyObject *code, PyObject *globals, PyObject *closure) {
#if PY_VERSION_HEX >= 0x030E0000
    /* A closure put in afterwards would keep it from being specialised. */
    return PyObject_CallFunctionObjArgs((PyObject *)&PyFunction_Type, code, globals, Py_None,
                                        Py_None, closure, NULL);
#else
    PyObject *made = PyFunction_New(code, globals);
    if (made && closure != Py_None && PyFunction_SetClosure(made, closure) < 0) Py_CLEAR(made);
    return made;
#endif
}

static PyObject *new_function(kinx_by_value *bv, PyObject *data, PyObject *home,
                              PyObject *closure) {
    PyObject *code = kinx_code_from(bv, data), *made = NULL;
    PyObject *globals = code ? globals_of(bv, home) : NULL;
    if (globals && !fits(closure, (PyCodeObject *)code)) {
        raise_damaged("_function", "the closure of its code");
    } else if (globals) {
        made = bare_function(code, globals, closure);
    }
    Py_XDECREF(globals);
    Py_XDECREF(code);
    if (made) {
        Py_INCREF(bv->half_made);
        Py_XSETREF(((PyFunctionObject *)made)->func_module, bv->half_made);
    }
    return made;
}

/* (code, home, closure, where): the function found under its name, or one without contents. */
PyObject *kinx_make_function(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_takes(self, "_function", nargs, 4)) return NULL;
    kinx_by_value *bv = kinx_by_value_of(self);
    PyObject *found = kinx_find_here(bv, args[3]);
    if (found || PyErr_Occurred()) return found;
    return new_function(bv, args[0], args[1], args[2]);
}

static int import_each(PyObject *names) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *module = kinx_import_module(PyTuple_GET_ITEM(names, i));
        if (!module) return -1;
        Py_DECREF(module);
    }
    return 0;
}

static int set_attributes(kinx_by_value *bv, PyObject *function, PyObject *attributes) {
    PyObject *name, *value;
    Py_ssize_t at = 0;
    int err = 0;
    while (err == 0 && PyDict_Next(attributes, &at, &name, &value)) {
        if (!PyUnicode_CheckExact(name)) return raise_damaged("_fill_function", "names"), -1;
        Py_INCREF(name);
        Py_INCREF(value);
        if (PyUnicode_Compare(name, bv->names.dict) == 0) {
            PyObject *dict = PyObject_GenericGetDict(function, NULL);
            err = dict ? PyDict_Update(dict, value) : -1;
            Py_XDECREF(dict);
        } else {
            err = PyObject_SetAttr(function, name, value);
        }
        Py_DECREF(name);
        Py_DECREF(value);
    }
    return err;
}

/* What a new function over these globals has for a __module__. */
static int set_module(kinx_by_value *bv, PyFunctionObject *function) {
    PyObject *own = PyDict_GetItemWithError(function->func_globals, bv->names.name);
    if (!own && PyErr_Occurred()) return -1;
    Py_XINCREF(own);
    Py_XSETREF(function->func_module, own);
    return 0;
}

PyObject *kinx_make_fill_function(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_takes(self, "_fill_function", nargs, 2)) return NULL;
    kinx_by_value *bv = kinx_by_value_of(self);
    PyObject *function = args[0], *state = args[1];
    if (!PyFunction_Check(function)) Py_RETURN_NONE; /* the process's own */
    if (((PyFunctionObject *)function)->func_module != bv->half_made) Py_RETURN_NONE;
    if (!PyTuple_CheckExact(state) || PyTuple_GET_SIZE(state) != 3 ||
        !PyDict_CheckExact(PyTuple_GET_ITEM(state, 0)) ||
        !PyTuple_CheckExact(PyTuple_GET_ITEM(state, 1)) ||
        !PyDict_CheckExact(PyTuple_GET_ITEM(state, 2))) {
        return raise_damaged("_fill_function", "globals, imports and attributes");
    }
    if (set_module(bv, (PyFunctionObject *)function) < 0) return NULL;
    if (import_each(PyTuple_GET_ITEM(state, 1)) < 0) return NULL;
    if (add_new(PyFunction_GET_GLOBALS(function), PyTuple_GET_ITEM(state, 0)) < 0) return NULL;
    if (set_attributes(bv, function, PyTuple_GET_ITEM(state, 2)) < 0) return NULL;
    Py_RETURN_NONE;
}

/* (holder, name, function): a method, of what may be a class that is still without its contents. */
PyObject *kinx_make_method(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_takes(self, "_method", nargs, 3)) return NULL;
    PyObject *holder = args[0];
    PyTypeObject *cls = PyType_Check(holder) ? (PyTypeObject *)holder : Py_TYPE(holder);
    int unfilled = kinx_is_unfilled(kinx_by_value_of(self), cls);
    if (unfilled < 0) return NULL;
    return unfilled ? PyMethod_New(args[2], holder) : PyObject_GetAttr(holder, args[1]);
}

/* -- Caching wrappers ------------------------------------------------------------------------------ */

/* functools.lru_cache(maxsize, typed)(function).  New. */
static PyObject *new_cache(kinx_by_value *bv, PyObject *function, PyObject *maxsize,
                           PyObject *typed) {
    PyObject *lru_cache = kinx_hook(&bv->lru_cache, "functools", "lru_cache");
    if (!lru_cache) return NULL;
    PyObject *decorator = PyObject_CallFunctionObjArgs(lru_cache, maxsize, typed, NULL);
    PyObject *made = decorator ? PyObject_CallOneArg(decorator, function) : NULL;
    Py_XDECREF(decorator);
    if (made && kinx_weak_set(bv->unfilled, made, Py_None) < 0) Py_CLEAR(made);
    return made;
}

/* (function, maxsize, typed, where): the one found under its name, or a new one, empty. */
PyObject *kinx_make_lru_cache(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_takes(self, "_lru_cache", nargs, 4)) return NULL;
    kinx_by_value *bv = kinx_by_value_of(self);
    PyObject *found = kinx_find_here(bv, args[3]);
    if (found || PyErr_Occurred()) return found;
    return new_cache(bv, args[0], args[1], args[2]);
}

PyObject *kinx_make_fill_lru_cache(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_takes(self, "_fill_lru_cache", nargs, 2)) return NULL;
    kinx_by_value *bv = kinx_by_value_of(self);
    int ours = kinx_weak_pop(bv->unfilled, args[0]);
    if (ours < 0) return NULL;
    if (ours) {
        PyObject *dict = PyObject_GetAttr(args[0], bv->names.dict);
        int err = dict ? PyDict_Update(dict, args[1]) : -1;
        Py_XDECREF(dict);
        if (err < 0) return NULL;
    }
    Py_RETURN_NONE;
}

/* -- Views --------------------------------------------------------------------------- */

/* (buffer, format, shape): a memoryview with the sender's format and shape. */
PyObject *kinx_make_view(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_takes(self, "_view", nargs, 3)) return NULL;
    PyObject *whole = PyMemoryView_FromObject(args[0]);
    if (!whole) return NULL;
    PyObject *flat = PyObject_CallMethod(whole, "cast", "s", "B"), *view = NULL;
    Py_DECREF(whole);
    if (!flat) return NULL;
    if (PyMemoryView_GET_BUFFER(flat)->len) {
        view = PyObject_CallMethod(flat, "cast", "OO", args[1], args[2]);
    } else {
        view = PyObject_CallMethod(flat, "cast", "O", args[1]);
    }
    Py_DECREF(flat);
    return view;
}
