/* Whom to trust: the library's code hands out what its object refers to, and calls nobody.
 *
 * That holds where an object and the code that reduces it are both the library's.  It
 * need not hold for a class of the user's that inherits the library's reducer, which
 * may call methods that the class has overridden: of those only what is inherited from the
 * builtin numbers, strings and exceptions is trusted.  Nor does it hold for any reducer
 * written in Python, be it the library's: while it runs, so may signal handlers and other
 * threads.  What those of named tuples and enums say is known, and they are not asked.
 *
 * A name is no proof: a program may have a code.py of its own.  What counts is the file. */
#include "library.h"

#include "../connection.h"

/* -- Files ------------------------------------------------------------------------------------- */

static bool is_below(PyObject *folder, PyObject *path) {
    if (!folder || !PyUnicode_Check(path)) return false;
    Py_ssize_t len = PyUnicode_GET_LENGTH(folder);
    return PyUnicode_Tailmatch(path, folder, 0, len, -1) == 1 && PyUnicode_GET_LENGTH(path) > len &&
           PyUnicode_READ_CHAR(path, len) == '/';
}

static bool holds(PyObject *path, const char *part) {
    PyObject *text = PyUnicode_FromString(part);
    Py_ssize_t at = text ? PyUnicode_Find(path, text, 0, PyUnicode_GET_LENGTH(path), 1) : -1;
    Py_XDECREF(text);
    PyErr_Clear();
    return at >= 0;
}

/* Is that file the library's, or kinfolk's? */
static bool is_library_file(struct kinx_pickler_state *ps, PyObject *path) {
    if (!path || !PyUnicode_Check(path)) return false;
    if (is_below(ps->kinfolk_folder, path)) return true;
    return is_below(ps->library_folder, path) && !holds(path, "-packages/");
}

static bool is_frozen_file(PyObject *path) {
    PyObject *mark = PyUnicode_FromString("<frozen ");
    bool frozen = mark && PyUnicode_Tailmatch(path, mark, 0, PyUnicode_GET_LENGTH(mark), -1) == 1;
    Py_XDECREF(mark);
    PyErr_Clear();
    return frozen;
}

static bool is_library_name(struct kinx_pickler_state *ps, PyObject *module_name) {
    if (!module_name || !PyUnicode_Check(module_name)) return false;
    Py_ssize_t len = PyUnicode_GET_LENGTH(module_name);
    Py_ssize_t dot = PyUnicode_FindChar(module_name, '.', 0, len, 1);
    PyObject *top = dot > 0 ? PyUnicode_Substring(module_name, 0, dot) : Py_NewRef(module_name);
    int found = top ? PySet_Contains(ps->library, top) : -1;
    Py_XDECREF(top);
    if (found < 0) PyErr_Clear();
    return found > 0;
}

static PyObject *dict_string(PyObject *dict, const char *name) {
    PyObject *found = PyDict_GetItemString(dict, name); /* borrowed */
    return found && PyUnicode_Check(found) ? found : NULL;
}

/* Is the module of that name the library's?  One without a file is built into the
 * interpreter, or somebody has made it up: then it has no loader. */
static bool is_library_module(struct kinx_pickler_state *ps, PyObject *name) {
    if (!is_library_name(ps, name)) return false;
    PyObject *module = PyDict_GetItemWithError(PyImport_GetModuleDict(), name);
    if (!module || !PyModule_CheckExact(module)) {
        PyErr_Clear();
        return false;
    }
    PyObject *dict = PyModule_GetDict(module), *file = dict_string(dict, "__file__");
    if (file) return is_library_file(ps, file);
    PyObject *builtin = PySys_GetObject("builtin_module_names"); /* borrowed */
    int found = builtin ? PySequence_Contains(builtin, name) : 0;
    if (found < 0) PyErr_Clear();
    return found > 0;
}

bool kinx_is_library_type(kinx_pickler *p, PyTypeObject *type) {
    if (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) {
        return is_library_module(p->ps, kinx_own_attr(type, p->ps->names.__module__));
    }
    const char *dot = strchr(type->tp_name, '.');
    if (!dot) return true; /* builtins */
    PyObject *name = PyUnicode_FromStringAndSize(type->tp_name, dot - type->tp_name);
    bool found = is_library_name(p->ps, name);
    Py_XDECREF(name);
    PyErr_Clear();
    return found;
}

/* -- Functions ----------------------------------------------------------------------------------- */

/* Borrowed: the module's name, if the function is Python code of the library's; else NULL. */
static PyObject *module_of_function(struct kinx_pickler_state *ps, PyObject *function) {
    PyObject *globals = PyFunction_GET_GLOBALS(function);
    PyObject *name = dict_string(globals, "__name__");
    PyCodeObject *code = (PyCodeObject *)PyFunction_GET_CODE(function);
    if (!name || !is_library_name(ps, name)) return NULL;
    PyObject *file = code->co_filename;
    return is_library_file(ps, file) || is_frozen_file(file) ? name : NULL;
}

bool kinx_is_function_of(kinx_pickler *p, PyObject *function, const char *module_name) {
    if (Py_TYPE(function) != &PyFunction_Type) return false;
    PyObject *found = module_of_function(p->ps, function);
    return found && PyUnicode_CompareWithASCIIString(found, module_name) == 0;
}

static bool is_method_of_c(PyObject *hook) {
    PyTypeObject *type = Py_TYPE(hook);
    return type == &PyMethodDescr_Type || type == &PyWrapperDescr_Type ||
           type == &PyClassMethodDescr_Type;
}

/* Nothing written in Python is: between two of its instructions the interpreter runs signal
 * handlers and other threads. */
bool kinx_is_library_function(kinx_pickler *p, PyObject *function) {
    PyTypeObject *type = Py_TYPE(function);
    if (type == &PyCFunction_Type) {
        return is_library_module(p->ps, ((PyCFunctionObject *)function)->m_module);
    }
    if (is_method_of_c(function)) {
        return kinx_is_library_type(p, ((PyDescrObject *)function)->d_type);
    }
    return PyType_CheckExact(function) && kinx_is_library_type(p, (PyTypeObject *)function);
}

/* -- Hooks ------------------------------------------------------------------------------------------ */

/* Types whose own hooks call no method that a subclass could override. */
static bool asks_nobody(PyTypeObject *type) {
    return type == &PyLong_Type || type == &PyFloat_Type || type == &PyComplex_Type ||
           type == &PyUnicode_Type || type == &PyBytes_Type || type == &PyTuple_Type ||
           type == &PyList_Type || type == &PyDict_Type ||
           type == (PyTypeObject *)PyExc_BaseException;
}

/* May a class of the user's have inherited that? */
static bool is_safe_to_inherit(PyObject *hook) {
    return is_method_of_c(hook) && asks_nobody(((PyDescrObject *)hook)->d_type);
}

/* Made in C, but what their __reduce__ does, it does in Python, and not for nothing: each call puts
 * a descriptor into the locker, or has this process keep one. */
static bool asks_python(const kinx_state *st, PyTypeObject *type) {
    return type == st->kind_types[KIN_KIND_DESCRIPTOR] ||
           (st->connection && type == st->connection->type);
}

bool kinx_hooks_are_library(kinx_pickler *p, PyTypeObject *type) {
    if (!kinx_asks_in_the_standard_way(type) || asks_python(p->st, type)) return false;
    if (kinx_found_attr(type, p->ps->names.__class__)) return false;
    bool own = kinx_is_library_type(p, type);
    PyObject *names[] = {
        p->ps->names.__reduce_ex__,  p->ps->names.__reduce__,        p->ps->names.__getstate__,
        p->ps->names.__getnewargs__, p->ps->names.__getnewargs_ex__, p->ps->names.__iter__,
        p->ps->names.items};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        PyObject *hook = kinx_found_attr(type, names[i]);
        if (!hook) continue;
        if (own ? !kinx_is_library_function(p, hook) : !is_safe_to_inherit(hook)) return false;
    }
    return true;
}

bool kinx_shadows_its_class(PyObject *obj) {
    PyTypeObject *type = Py_TYPE(obj);
    if (type->tp_dictoffset == 0) return false;
    PyObject *dict = PyObject_GenericGetDict(obj, NULL), *name, *unused;
    Py_ssize_t place = 0;
    bool shadows = !dict;
    while (!shadows && PyDict_Next(dict, &place, &name, &unused)) {
        shadows = kinx_found_attr(type, name) != NULL;
    }
    Py_XDECREF(dict);
    PyErr_Clear();
    return shadows;
}

/* -- Enums ------------------------------------------------------------------------------------------- */

/* Does the class leave it to enum.Enum.__reduce_ex__, which gives (cls, (self._value_,))? */
bool kinx_is_reduced_by_enum(kinx_pickler *p, PyTypeObject *type) {
    PyObject *hook = kinx_found_attr(type, p->ps->names.__reduce_ex__);
    return hook && type->tp_getattro == PyObject_GenericGetAttr &&
           kinx_is_function_of(p, hook, "enum") &&
           PyUnicode_CompareWithASCIIString(((PyFunctionObject *)hook)->func_qualname,
                                            "Enum.__reduce_ex__") == 0 &&
           !kinx_found_attr(type, p->ps->names.__class__);
}

int kinx_reduce_enum(kinx_pickler *p, PyObject *obj, PyObject **reduced) {
    *reduced = NULL;
    PyTypeObject *type = Py_TYPE(obj);
    if (!kinx_is_enumerated(p, type)) return 0;
    PyObject *dict = PyObject_GenericGetDict(obj, NULL);
    if (!dict) return -1;
    PyObject *value = PyDict_GetItemWithError(dict, p->ps->names._value_);
    /* What stands in the instance comes first, but for what is a data descriptor. */
    bool plain = value && !kinx_found_attr(type, p->ps->names._value_) &&
                 !PyDict_Contains(dict, p->ps->names.__reduce_ex__);
    if (plain) *reduced = Py_BuildValue("O(O)", type, value);
    Py_DECREF(dict);
    return *reduced ? 1 : PyErr_Occurred() ? -1 : 0;
}

/* -- Where the library is ------------------------------------------------------------------------------ */

/* The folder of module.__file__.  New reference; NULL if it has none. */
static PyObject *folder_of(const char *module_name) {
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *file = module ? PyObject_GetAttrString(module, "__file__") : NULL;
    PyObject *folder = NULL;
    if (file && PyUnicode_Check(file)) {
        Py_ssize_t slash = PyUnicode_FindChar(file, '/', 0, PyUnicode_GET_LENGTH(file), -1);
        if (slash > 0) folder = PyUnicode_Substring(file, 0, slash);
    }
    Py_XDECREF(file);
    Py_XDECREF(module);
    PyErr_Clear();
    return folder;
}

/* The interpreter's modules, numpy, whose arrays are the commonest large things, and kinfolk's;
 * without what holds things weakly and hands them out. */
static PyObject *library_names(void) {
    static const char *const others[] = {"numpy", "kinfolk"};
    static const char *const weakly[] = {"weakref", "_weakrefset"};
    PyObject *names = PySys_GetObject("stdlib_module_names"); /* borrowed */
    PyObject *set = names ? PySet_New(names) : NULL;
    int err = set ? 0 : -1;
    for (int i = 0; i < 2 && err >= 0; i++) {
        PyObject *more = PyUnicode_FromString(others[i]), *less = PyUnicode_FromString(weakly[i]);
        err = more && less ? PySet_Add(set, more) : -1;
        if (err == 0) err = PySet_Discard(set, less);
        Py_XDECREF(more);
        Py_XDECREF(less);
    }
    PyObject *frozen = err < 0 ? NULL : PyFrozenSet_New(set);
    Py_XDECREF(set);
    return frozen;
}

int kinx_library_init(struct kinx_pickler_state *ps) {
    ps->library_folder = folder_of("os");
    ps->kinfolk_folder = folder_of("kinfolk");
    ps->library = library_names();
    return ps->library ? 0 : -1;
}
