/* What goes by its name: module and qualified name, looked up to be sure.
 *
 * A name is only good if it leads back to the very object: it is followed here as
 * the receiver will follow it.  Our own makers, which stand in every pickle by
 * value, need no such proof. */
#include "by_value.h"
#include "library.h"

#include <stdarg.h>

/* -- Which module? ---------------------------------------------------------------------- */

/* holder.part, for one step of a name.  What stands plainly in the dict of a module, or of a
 * class that asks in the standard way, is found without running anybody's code; a module may
 * have a __getattr__ (PEP 562), a class a descriptor.  New reference; NULL without an exception
 * if there is none. */
static PyObject *step(kinx_pickler *p, PyObject *holder, PyObject *part) {
    PyObject *found = NULL;
    if (PyModule_CheckExact(holder)) {
        found = PyDict_GetItemWithError(PyModule_GetDict(holder), part);
    } else if (PyType_Check(holder) && Py_TYPE(holder)->tp_getattro == PyType_Type.tp_getattro) {
        found = kinx_found_attr((PyTypeObject *)holder, part);
        if (found && !PyType_Check(found) && !PyFunction_Check(found)) found = NULL;
    }
    if (found || PyErr_Occurred()) return Py_XNewRef(found);
    if (kinx_not_bare(p) == 0) kinx_lookup_attr(holder, part, &found);
    return found;
}

/* Follow a dotted name.  *parent: what the last part is an attribute of.  New references.
 * NULL without an exception if there is no such thing. */
static PyObject *follow(kinx_pickler *p, PyObject *from, PyObject *name, PyObject **parent) {
    PyObject *found = Py_NewRef(from), *holder = NULL;
    Py_ssize_t start = 0, len = PyUnicode_GET_LENGTH(name);
    while (found && start <= len) {
        Py_ssize_t dot = PyUnicode_FindChar(name, '.', start, len, 1);
        if (dot < -1) break;
        if (dot == -1) dot = len;
        PyObject *part =
            start == 0 && dot == len ? Py_NewRef(name) : PyUnicode_Substring(name, start, dot);
        Py_XDECREF(holder);
        holder = found;
        found = part ? step(p, holder, part) : NULL;
        Py_XDECREF(part);
        start = dot + 1;
    }
    if (!found) Py_CLEAR(holder);
    *parent = holder;
    return found;
}

/* Which module has obj under that name?  New reference. */
static PyObject *search_modules(kinx_pickler *p, PyObject *obj, PyObject *name) {
    PyObject *modules = PyImport_GetModuleDict(); /* borrowed */
    PyObject *items = modules ? PyDict_Copy(modules) : NULL;
    if (!items) return NULL;
    PyObject *key, *module, *found = NULL;
    Py_ssize_t place = 0;
    while (!found && PyDict_Next(items, &place, &key, &module)) {
        if (module == Py_None || !PyUnicode_Check(key)) continue;
        if (PyUnicode_CompareWithASCIIString(key, "__main__") == 0 ||
            PyUnicode_CompareWithASCIIString(key, "__mp_main__") == 0) {
            continue;
        }
        PyObject *parent, *thing = follow(p, module, name, &parent);
        if (thing == obj) found = Py_NewRef(key);
        Py_XDECREF(parent);
        Py_XDECREF(thing);
        if (PyErr_Occurred()) break;
    }
    Py_DECREF(items);
    if (found || PyErr_Occurred()) return found;
    return Py_NewRef(p->ps->names.__main__);
}

static PyObject *module_name_of(kinx_pickler *p, PyObject *obj, PyObject *name) {
    PyObject *module_name;
    if (kinx_lookup_attr(obj, p->ps->names.__module__, &module_name) < 0) return NULL;
    if (module_name && module_name != Py_None) return module_name;
    Py_XDECREF(module_name);
    if (kinx_not_bare(p) < 0) return NULL; /* modules may answer with anything */
    return search_modules(p, obj, name);
}

/* -- Does it lead here? ------------------------------------------------------------------ */

static int check_not_local(PyObject *obj, PyObject *name) {
    PyObject *locals = PyUnicode_FromString("<locals>");
    if (!locals) return -1;
    Py_ssize_t at = PyUnicode_Find(name, locals, 0, PyUnicode_GET_LENGTH(name), 1);
    Py_DECREF(locals);
    if (at == -2) return -1;
    if (at == -1) return 0;
    PyErr_Format(PyExc_AttributeError, "Can't pickle local object %R", name);
    return -1;
}

/* New reference: the module, imported if it is not there. */
static PyObject *import_module(kinx_pickler *p, PyObject *obj, PyObject *module_name) {
    PyObject *modules = PyImport_GetModuleDict();
    PyObject *module = NULL;
    if (PyUnicode_Check(module_name)) {
        module = Py_XNewRef(PyDict_GetItemWithError(modules, module_name));
    }
    if (module && PyModule_CheckExact(module)) return module;
    Py_XDECREF(module);
    if (PyErr_Occurred() || kinx_not_bare(p) < 0) return NULL;
    if (PyUnicode_Check(module_name)) module = PyImport_Import(module_name);
    else PyErr_Clear(), module = NULL;
    if (module) {
        /* import a.b gives b here, whatever the parent's attribute says */
        PyObject *found = PyDict_GetItemWithError(PyImport_GetModuleDict(), module_name);
        if (found) Py_SETREF(module, Py_NewRef(found));
        return module;
    }
    PyErr_Format(kinx_pickling_error(p->ps), "Can't pickle %R: import of module %R failed", obj,
                 module_name);
    return NULL;
}

/* Does the name lead to obj?  *name (a reference, replaced) becomes its last part if that is an
 * attribute of the module all the same.  Raises PicklingError. */
static int check_name(kinx_pickler *p, PyObject *obj, PyObject *module_name, PyObject **at) {
    PyObject *name = *at;
    PyObject *module = import_module(p, obj, module_name);
    if (!module) return -1;
    PyObject *parent, *found = follow(p, module, name, &parent);
    Py_DECREF(module);
    if (found == obj) {
        Py_ssize_t len = PyUnicode_GET_LENGTH(name);
        Py_ssize_t dot = parent == module ? PyUnicode_FindChar(name, '.', 0, len, -1) : -1;
        if (dot >= 0) Py_SETREF(*at, PyUnicode_Substring(name, dot + 1, len));
        Py_DECREF(parent);
        Py_DECREF(found);
        return *at ? 0 : -1;
    }
    if (found) {
        PyErr_Format(kinx_pickling_error(p->ps),
                     "Can't pickle %R: it's not the same object as %S.%S", obj, module_name, name);
    } else if (!PyErr_Occurred() && !p->restart) {
        PyErr_Format(kinx_pickling_error(p->ps),
                     "Can't pickle %R: attribute lookup %S on %S failed", obj, name, module_name);
    }
    Py_XDECREF(parent);
    Py_XDECREF(found);
    return -1;
}

/* -- Writing --------------------------------------------------------------------------------- */

/* copyreg's extension registry: 1 if (module, name) has a code, and it is written. */
static int save_extension(kinx_pickler *p, PyObject *obj, PyObject *module_name, PyObject *name) {
    if (p->protocol < 2 || PyDict_GET_SIZE(p->ps->extensions) == 0) return 0;
    PyObject *key = PyTuple_Pack(2, module_name, name);
    PyObject *code = key ? PyDict_GetItemWithError(p->ps->extensions, key) : NULL;
    Py_XDECREF(key);
    if (!code) return PyErr_Occurred() ? -1 : 0;
    long n = PyLong_AsLong(code);
    if (n <= 0 || n > 0x7fffffffL) {
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_RuntimeError, "Can't pickle %R: extension code %ld is out of range",
                         obj, n);
        }
        return -1;
    }
    if (kinx_reserve(p, 5) < 0) return -1;
    uint8_t *at = p->out.at;
    *at++ = n <= 0xff ? KIN_OP_EXT1 : n <= 0xffff ? KIN_OP_EXT2 : KIN_OP_EXT4;
    if (n <= 0xff) *at++ = (uint8_t)n;
    else at = n <= 0xffff ? kin_store2(at, (uint16_t)n) : kin_store4(at, (uint32_t)n);
    p->out.at = at;
    return 1;
}

/* The names that Python 2 had.  New references in place of what comes in; those are stolen. */
static int names_in_python_2(kinx_pickler *p, PyObject **module_name, PyObject **name) {
    PyObject *names = kinx_import(&p->ps->name_mapping, "_compat_pickle", "REVERSE_NAME_MAPPING");
    PyObject *imports =
        names ? kinx_import(&p->ps->import_mapping, "_compat_pickle", "REVERSE_IMPORT_MAPPING")
              : NULL;
    PyObject *key = imports ? PyTuple_Pack(2, *module_name, *name) : NULL;
    if (!key) return -1;
    PyObject *found = PyDict_GetItemWithError(names, key);
    Py_DECREF(key);
    if (found) {
        if (!PyTuple_Check(found) || PyTuple_GET_SIZE(found) != 2) {
            PyErr_Format(
                PyExc_RuntimeError,
                "_compat_pickle.REVERSE_NAME_MAPPING values should be 2-tuples, not %.200s",
                Py_TYPE(found)->tp_name);
            return -1;
        }
        Py_SETREF(*module_name, Py_NewRef(PyTuple_GET_ITEM(found, 0)));
        Py_SETREF(*name, Py_NewRef(PyTuple_GET_ITEM(found, 1)));
        return 0;
    }
    if (PyErr_Occurred()) return -1;
    found = PyDict_GetItemWithError(imports, *module_name);
    if (!found) return PyErr_Occurred() ? -1 : 0;
    Py_SETREF(*module_name, Py_NewRef(found));
    return 0;
}

static int put_line(kinx_pickler *p, PyObject *text) {
    PyObject *bytes =
        p->protocol >= 3 ? PyUnicode_AsUTF8String(text) : PyUnicode_AsASCIIString(text);
    if (!bytes) return -1;
    kin_err err = kin_put_raw(&p->out, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
    Py_DECREF(bytes);
    if (err < 0) return kinx_raise_writer(err);
    return kinx_put_text(p, "\n");
}

/* GLOBAL, with names as lines.  Steals both names. */
static int save_old_global(kinx_pickler *p, PyObject *module_name, PyObject *name) {
    int err = 0;
    if (p->fix_imports && p->protocol < 3) err = names_in_python_2(p, &module_name, &name);
    if (err == 0) err = kinx_put_op(p, KIN_OP_GLOBAL);
    if (err == 0) err = put_line(p, module_name);
    if (err == 0) err = put_line(p, name);
    if (err < 0 && PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
        PyErr_Format(kinx_pickling_error(p->ps),
                     "can't pickle global identifier '%S.%S' using pickle protocol %i", module_name,
                     name, p->protocol);
    }
    Py_DECREF(module_name);
    Py_DECREF(name);
    return err;
}

/* One GET of getattr for each dot, `count` of them, and before protocol 2 a mark each. */
static int save_getattrs(kinx_pickler *p, Py_ssize_t count) {
    PyObject *getattr = kinx_import(&p->ps->getattr, "builtins", "getattr");
    if (!getattr) return -1;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (kinx_save(p, getattr) < 0) return -1;
        if (p->protocol < 2 && kinx_put_op(p, KIN_OP_MARK) < 0) return -1;
    }
    return 0;
}

static int save_attribute(kinx_pickler *p, PyObject *name) {
    if (kinx_save(p, name) < 0) return -1;
    if (kinx_put_op(p, p->protocol < 2 ? KIN_OP_TUPLE : KIN_OP_TUPLE2) < 0) return -1;
    return kinx_put_op(p, KIN_OP_REDUCE);
}

/* getattr(getattr(a, "b"), "c"), where a name cannot have dots. */
static int save_old_path(kinx_pickler *p, PyObject *module_name, PyObject *name) {
    PyObject *parts = PyUnicode_Split(name, p->ps->dot, -1);
    Py_ssize_t count = parts ? PyList_GET_SIZE(parts) - 1 : 0;
    int err = parts ? save_getattrs(p, count) : -1;
    if (err == 0) {
        err = save_old_global(p, Py_NewRef(module_name), Py_NewRef(PyList_GET_ITEM(parts, 0)));
    }
    for (Py_ssize_t i = 1; err == 0 && i <= count; i++) {
        err = save_attribute(p, PyList_GET_ITEM(parts, i));
    }
    Py_XDECREF(parts);
    return err;
}

static int save_name(kinx_pickler *p, PyObject *module_name, PyObject *name) {
    if (p->protocol < 4) return save_old_path(p, module_name, name);
    if (kinx_save(p, module_name) < 0 || kinx_save(p, name) < 0) return -1;
    return kinx_put_op(p, KIN_OP_STACK_GLOBAL);
}

static int save_own(kinx_pickler *p, PyObject *obj, PyObject *name) {
    PyObject *module_name = ((PyCFunctionObject *)obj)->m_module;
    return save_name(p, module_name, name) < 0 ? -1 : kinx_remember(p, obj, false);
}

static PyObject *name_of(kinx_pickler *p, PyObject *obj) {
    PyObject *name;
    if (kinx_lookup_attr(obj, p->ps->names.__qualname__, &name) == 0) {
        name = PyObject_GetAttr(obj, p->ps->names.__name__);
    }
    if (name && !PyUnicode_Check(name)) {
        PyErr_Format(kinx_pickling_error(p->ps), "Can't pickle %R: its name is no string", obj);
        Py_CLEAR(name);
    }
    return name;
}

int kinx_save_global(kinx_pickler *p, PyObject *obj, PyObject *given) {
    PyObject *own;
    if (!given && kinx_is_own_maker(p->st, obj, &own)) return save_own(p, obj, own);
    if (!kinx_answers_by_itself(obj) && kinx_not_bare(p) < 0) return -1;
    PyObject *name = given ? Py_NewRef(given) : name_of(p, obj);
    if (!name) return -1;
    PyObject *module_name = NULL;
    int err = check_not_local(obj, name);
    if (err == 0) {
        module_name = module_name_of(p, obj, name);
        err = module_name ? check_name(p, obj, module_name, &name) : -1;
    }
    if (err == 0) err = save_extension(p, obj, module_name, name);
    if (err == 0) {
        err = save_name(p, module_name, name);
        if (err == 0) err = kinx_remember(p, obj, false);
    }
    Py_XDECREF(name);
    Py_XDECREF(module_name);
    return err < 0 ? -1 : 0;
}
