/* What a pickle names: find_class, and extension codes.
 *
 * The import is the interpreter's, PyImport_Import, which calls whatever __import__ is.  That
 * takes as long as loading a small object, so that where it could only find a module
 * that is there and ready, the module is taken from sys.modules as it would do itself. */
#include "load.h"

/* -- Names as in Python 2 -------------------------------------------------------------- */

static PyObject *import_mapping(PyObject **slot, const char *module, const char *name) {
    PyObject *mapping = kinx_import(slot, module, name);
    if (!mapping || PyDict_CheckExact(mapping)) return mapping;
    PyErr_Format(PyExc_RuntimeError, "%s.%s should be a dict, not %.200s", module, name,
                 Py_TYPE(mapping)->tp_name);
    return NULL;
}

/* Replace *module by what it is called now.  Borrowed, like what it replaces. */
static int rename_module(kinx_unpickler_state *us, PyObject **module) {
    PyObject *mapping = import_mapping(&us->import_mapping, "_compat_pickle", "IMPORT_MAPPING");
    PyObject *found = mapping ? PyDict_GetItemWithError(mapping, *module) : NULL;
    if (!found) return PyErr_Occurred() ? -1 : 0;
    if (!PyUnicode_Check(found)) {
        PyErr_Format(PyExc_RuntimeError,
                     "_compat_pickle.IMPORT_MAPPING values should be strings, not %.200s",
                     Py_TYPE(found)->tp_name);
        return -1;
    }
    *module = found;
    return 0;
}

static int use_renamed(PyObject *pair, PyObject **module, PyObject **name) {
    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
        PyErr_Format(PyExc_RuntimeError,
                     "_compat_pickle.NAME_MAPPING values should be 2-tuples, not %.200s",
                     Py_TYPE(pair)->tp_name);
        return -1;
    }
    *module = PyTuple_GET_ITEM(pair, 0);
    *name = PyTuple_GET_ITEM(pair, 1);
    if (PyUnicode_Check(*module) && PyUnicode_Check(*name)) return 0;
    PyErr_Format(PyExc_RuntimeError,
                 "_compat_pickle.NAME_MAPPING values should be pairs of str, not (%.200s, %.200s)",
                 Py_TYPE(*module)->tp_name, Py_TYPE(*name)->tp_name);
    return -1;
}

static int rename_both(kinx_unpickler_state *us, PyObject **module, PyObject **name) {
    PyObject *mapping = import_mapping(&us->name_mapping, "_compat_pickle", "NAME_MAPPING");
    PyObject *key = mapping ? PyTuple_Pack(2, *module, *name) : NULL;
    if (!key) return -1;
    PyObject *pair = PyDict_GetItemWithError(mapping, key);
    Py_DECREF(key);
    if (pair) return use_renamed(pair, module, name);
    return PyErr_Occurred() ? -1 : rename_module(us, module);
}

/* -- Modules ------------------------------------------------------------------------------ */

/* Whether nobody has put an __import__ of his own in place. */
static bool import_is_plain(kinx_unpickler_state *us) {
    PyObject *builtins = PyEval_GetBuiltins();
    if (!builtins || !PyDict_CheckExact(builtins)) return false;
    return PyDict_GetItemWithError(builtins, us->str_import) == us->import;
}

/* Whether the import system holds the module for ready: no thread is at work in it. */
static bool is_ready(kinx_unpickler_state *us, PyObject *module) {
    PyObject *dict = PyModule_GetDict(module);
    PyObject *spec = dict ? PyDict_GetItemWithError(dict, us->str_spec) : NULL;
    if (!spec) return false;
    if (spec == Py_None) return true;
    PyObject *initializing = NULL;
    Py_INCREF(spec);
    int err = kinx_lookup_attr(spec, us->str_initializing, &initializing);
    Py_DECREF(spec);
    bool ready = err == 0 && (!initializing || initializing == Py_False);
    Py_XDECREF(initializing);
    return ready;
}

/* New reference; NULL if it has to be imported, without an exception. */
static PyObject *module_at_hand(kinx_unpickler_state *us, PyObject *name) {
    if (!import_is_plain(us)) return NULL;
    PyObject *modules = PyImport_GetModuleDict();
    if (!modules || !PyDict_CheckExact(modules) || !PyUnicode_CheckExact(name)) return NULL;
    PyObject *module = PyDict_GetItemWithError(modules, name);
    if (!module || !PyModule_CheckExact(module)) return NULL;
    Py_INCREF(module);
    if (is_ready(us, module)) return module;
    Py_DECREF(module);
    return NULL;
}

static PyObject *import(kinx_loader *u, PyObject *name) {
    PyObject *module = module_at_hand(u->us, name);
    if (module) return module;
    PyErr_Clear();
    return PyImport_Import(name);
}

/* -- Attributes ------------------------------------------------------------------------------ */

static PyObject *raise_no_attribute(const char *what, PyObject *name, PyObject *of) {
    PyErr_Format(PyExc_AttributeError, "Can't %s attribute %R on %R", what, name, of);
    return NULL;
}

#if PY_VERSION_HEX >= 0x030D0000
#define GET_LOCAL "get local"
#else
#define GET_LOCAL "pickle local"
#endif

/* Whether there is a <locals> among the parts: nobody can find what is in there. */
static bool has_locals(kinx_unpickler_state *us, PyObject *parts) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(parts); i++) {
        if (PyUnicode_Compare(PyList_GET_ITEM(parts, i), us->str_locals) == 0) return true;
    }
    return false;
}

/* of.a.b.c.  New reference. */
static PyObject *dotted(kinx_unpickler_state *us, PyObject *of, PyObject *name) {
    PyObject *parts = PyUnicode_Split(name, us->str_dot, -1);
    if (!parts) return NULL;
    PyObject *obj = NULL;
    if (has_locals(us, parts)) raise_no_attribute(GET_LOCAL, name, of);
    else obj = Py_NewRef(of);
    for (Py_ssize_t i = 0; obj && i < PyList_GET_SIZE(parts); i++) {
        PyObject *next;
        if (kinx_lookup_attr(obj, PyList_GET_ITEM(parts, i), &next) == 0 && !next) {
            raise_no_attribute("get", name, of);
        }
        Py_SETREF(obj, next);
    }
    Py_DECREF(parts);
    return obj;
}

static PyObject *attribute_of(kinx_loader *u, PyObject *of, PyObject *name) {
    if (u->proto >= 4 && PyUnicode_Check(name)) {
        Py_ssize_t dot = PyUnicode_FindChar(name, '.', 0, PyUnicode_GET_LENGTH(name), 1);
        if (dot == -2) return NULL;
        if (dot >= 0 || PyUnicode_Compare(name, u->us->str_locals) == 0) {
            return dotted(u->us, of, name);
        }
    }
    PyObject *obj;
    if (kinx_lookup_attr(of, name, &obj) < 0 || obj) return obj;
    return raise_no_attribute("get", name, of);
}

static PyObject *find_imported(kinx_loader *u, PyObject *module_name, PyObject *name) {
    PyObject *module = import(u, module_name);
    if (!module) return NULL;
    PyObject *obj = attribute_of(u, module, name);
    Py_DECREF(module);
    return obj;
}

PyObject *kinx_find_class(kinx_loader *u, PyObject *module, PyObject *name) {
    kinx_unpickler_state *us = u->us;
    if (PySys_Audit("pickle.find_class", "OO", module, name) < 0) return NULL;
    if (module == us->str_own_name ||
        (PyUnicode_CheckExact(module) && PyUnicode_Compare(module, us->str_own_name) == 0)) {
        PyObject *obj = PyDict_GetItemWithError(us->own_dict, name);
        if (obj || PyErr_Occurred()) return Py_XNewRef(obj);
    }
    if (u->proto < 3 && u->fix_imports && rename_both(us, &module, &name) < 0) return NULL;
    Py_INCREF(module); /* what is borrowed from a mapping that others see */
    Py_INCREF(name);
    PyObject *obj = find_imported(u, module, name);
    Py_DECREF(module);
    Py_DECREF(name);
    return obj;
}

PyObject *kinx_find(kinx_loader *u, PyObject *module, PyObject *name) {
    bool own = u->self && !Py_IS_TYPE(u->self, u->us->unpickler_type);
    kinx_foreign_begin(u);
    PyObject *obj =
        own ? PyObject_CallMethodObjArgs(u->self, u->us->str_find_class, module, name, NULL)
            : kinx_find_class(u, module, name);
    kinx_foreign_end(u);
    return obj;
}

/* -- The opcodes --------------------------------------------------------------------------------- */

/* The next line.  New reference. */
static PyObject *read_name(kinx_loader *u) {
    const uint8_t *line;
    size_t len;
    if (kinx_read_line(u, &line, &len) < 0) return NULL;
    if (len >= 2) return PyUnicode_DecodeUTF8((const char *)line, (Py_ssize_t)len - 1, "strict");
    kinx_truncated(u);
    return NULL;
}

int kinx_load_global(kinx_loader *u) {
    PyObject *module = read_name(u);
    if (!module) return -1;
    PyObject *name = read_name(u);
    PyObject *obj = name ? kinx_find(u, module, name) : NULL;
    Py_DECREF(module);
    Py_XDECREF(name);
    return kinx_push(u, obj);
}

int kinx_load_stack_global(kinx_loader *u) {
    if (kinx_reach(u) < 2) return kinx_underflow(u);
    PyObject *name = *--u->top, *module = *--u->top, *obj = NULL;
    if (PyUnicode_CheckExact(module) && PyUnicode_CheckExact(name)) {
        obj = kinx_find(u, module, name);
    } else {
        PyErr_SetString(kinx_unpickling_error(u->us), "STACK_GLOBAL requires str");
    }
    Py_DECREF(module);
    Py_DECREF(name);
    return kinx_push(u, obj);
}

/* Borrowed: the names that `code` stands for, in a tuple. */
static PyObject *registered(kinx_unpickler_state *us, PyObject *code) {
    PyObject *registry = import_mapping(&us->inverted_registry, "copyreg", "_inverted_registry");
    PyObject *pair = registry ? PyDict_GetItemWithError(registry, code) : NULL;
    if (!pair) {
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_ValueError, "unregistered extension code %S", code);
        }
        return NULL;
    }
    if (PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) == 2 &&
        PyUnicode_Check(PyTuple_GET_ITEM(pair, 0)) && PyUnicode_Check(PyTuple_GET_ITEM(pair, 1))) {
        return pair;
    }
    PyErr_Format(PyExc_ValueError, "_inverted_registry[%S] isn't a 2-tuple of strings", code);
    return NULL;
}

/* New reference. */
static PyObject *find_extension(kinx_loader *u, PyObject *code) {
    kinx_unpickler_state *us = u->us;
    PyObject *cache = import_mapping(&us->extension_cache, "copyreg", "_extension_cache");
    PyObject *obj = cache ? PyDict_GetItemWithError(cache, code) : NULL;
    if (obj || PyErr_Occurred()) return Py_XNewRef(obj);
    PyObject *pair = registered(us, code);
    if (!pair) return NULL;
    Py_INCREF(pair);
    obj = kinx_find(u, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1));
    Py_DECREF(pair);
    if (obj && PyDict_SetItem(cache, code, obj) < 0) Py_CLEAR(obj);
    return obj;
}

int kinx_load_extension(kinx_loader *u, long code) {
    if (code <= 0) {
        PyErr_SetString(kinx_unpickling_error(u->us), "EXT specifies code <= 0");
        return -1;
    }
    PyObject *number = PyLong_FromLong(code);
    if (!number) return -1;
    PyObject *obj = find_extension(u, number);
    Py_DECREF(number);
    return kinx_push(u, obj);
}
