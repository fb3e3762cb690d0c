/* Which names mean the same thing to the receiver of a pickle.
 *
 * A function or class travels by its name when the receiver can look that name up and
 * find the same thing.  This file decides, in the sender.  Three answers:
 *
 *   by name   an attribute of a module that any process of this program can import.  The
 *             name is enough, as with the standard pickle.
 *   by spare  the name means the thing here, but the receiver may not find it: the main
 *             program's, and modules made at run time.  The name travels with the
 *             value; the receiver tries the name first.
 *   by value  no name leads to the thing: nested functions, lambdas, what was replaced
 *             under its name, modules registered by the user.
 *
 * Whether others can import a module is found out by kinfolk._findable, and remembered as
 * long as the module object is the same.  Whether a name leads to the thing is looked up
 * each time: modules change, and a look-up costs less than noticing that.
 *
 * Members of one family share more than strangers do, see kinfolk._mainnames.  When it
 * says that all of them have a name of the main module, that holds until it calls
 * _forget_kin, or the name means something else. */
#include "by_value_parts.h"

/* -- Names ----------------------------------------------------------------------------- */

/* The main module's names: its own, and the one it has in a child that ran it again. */
static const char *const main_names[] = {"__main__", "__mp_main__"};

bool kinx_is_main(PyObject *module_name) {
    return PyUnicode_CompareWithASCIIString(module_name, main_names[0]) == 0 ||
           PyUnicode_CompareWithASCIIString(module_name, main_names[1]) == 0;
}

int kinx_swallow(void) {
    if (!PyErr_ExceptionMatches(PyExc_Exception)) return -1;
    PyErr_Clear();
    return 0;
}

PyObject *kinx_loaded_module(PyObject *name) {
    return PyDict_GetItemWithError(PyImport_GetModuleDict(), name);
}

/* Before code that is not the interpreter's, its library's or ours. */
static int others_are_asked(kinx_pickler *p) {
    return p ? kinx_not_bare(p) : 0;
}

/* The attribute of a module or class, if it can be had without asking anybody.  1, 0 or -1. */
static int plain_attribute(PyObject *thing, PyObject *name, PyObject **found) {
    *found = NULL;
    PyObject *dict = NULL;
    if (PyModule_CheckExact(thing)) dict = Py_XNewRef(kinx_module_dict(thing));
    else if (Py_TYPE(thing)->tp_getattro == PyType_Type.tp_getattro) {
        dict = kinx_type_dict((PyTypeObject *)thing);
    }
    if (!dict) return PyErr_Occurred() ? -1 : 0;
    PyObject *value = PyDict_GetItemWithError(dict, name);
    /* What a class has may be a descriptor; these are what they are. */
    bool plain =
        value && (PyModule_CheckExact(thing) || PyType_Check(value) || PyFunction_Check(value));
    if (plain) *found = Py_NewRef(value);
    Py_DECREF(dict);
    return plain ? 1 : PyErr_Occurred() ? -1 : 0;
}

/* Replaces *thing by its attribute.  1; 0 if there is none, and *thing is gone; -1. */
static int step(kinx_pickler *p, PyObject **thing, PyObject *name) {
    PyObject *found;
    int plain = plain_attribute(*thing, name, &found);
    if (plain == 0) {
        plain = others_are_asked(p);
        if (plain == 0) {
            found = PyObject_GetAttr(*thing, name);
            /* Modules and metaclasses may answer with anything. */
            plain = found ? 1 : kinx_swallow();
        }
    }
    Py_SETREF(*thing, found);
    return plain;
}

static int walk(kinx_pickler *p, PyObject **thing, PyObject *qualname) {
    PyObject *dot = PyUnicode_FromString(".");
    PyObject *names = dot ? PyUnicode_Split(qualname, dot, -1) : NULL;
    Py_XDECREF(dot);
    int answer = names ? 1 : -1;
    for (Py_ssize_t i = 0; answer > 0 && i < PyList_GET_SIZE(names); i++) {
        answer = step(p, thing, PyList_GET_ITEM(names, i));
    }
    Py_XDECREF(names);
    return answer;
}

static int resolve_in(kinx_pickler *p, PyObject *module_name, PyObject *qualname,
                      PyObject **found) {
    *found = Py_XNewRef(kinx_loaded_module(module_name));
    if (!*found) return PyErr_Occurred() ? kinx_swallow() : 0;
    Py_ssize_t dot = PyUnicode_FindChar(qualname, '.', 0, PyUnicode_GET_LENGTH(qualname), 1);
    int answer = dot < 0 ? step(p, found, qualname) : walk(p, found, qualname);
    if (answer < 0) Py_CLEAR(*found);
    return answer;
}

/* Nothing is imported.  The main module is looked for under both its names: a spawned child
 * knows it as __mp_main__. */
int kinx_resolve(kinx_pickler *p, PyObject *module_name, PyObject *qualname, PyObject **found) {
    int answer = resolve_in(p, module_name, qualname, found);
    if (answer != 0 || !kinx_is_main(module_name)) return answer;
    for (size_t i = 0; answer == 0 && i < 2; i++) {
        PyObject *name = PyUnicode_FromString(main_names[i]);
        answer = name ? resolve_in(p, name, qualname, found) : -1;
        Py_XDECREF(name);
    }
    return answer;
}

/* Whether the module called `name`, or a package around it, was registered by the user. */
static int is_registered(kinx_by_value *bv, PyObject *name) {
    if (PySet_GET_SIZE(bv->registered) == 0) return 0;
    int found = 0;
    Py_INCREF(name);
    while (name && (found = PySet_Contains(bv->registered, name)) == 0) {
        Py_ssize_t dot = PyUnicode_FindChar(name, '.', 0, PyUnicode_GET_LENGTH(name), -1);
        PyObject *outer = dot > 0 ? PyUnicode_Substring(name, 0, dot) : NULL;
        Py_DECREF(name);
        name = outer;
    }
    Py_XDECREF(name);
    return PyErr_Occurred() ? -1 : found;
}

/* -- What others can import ------------------------------------------------------------ */

/* 1 or 0 if it is known of this very module, else -2. */
static int known_verdict(kinx_by_value *bv, PyObject *module, PyObject *name) {
    PyObject *entry = PyDict_GetItemWithError(bv->verdicts, name);
    if (!entry) return PyErr_Occurred() ? -1 : -2;
    /* The reference is a plain one, which CPython shares: there is one for each module. */
    PyObject *reference = PyWeakref_NewRef(module, NULL);
    if (!reference) {
        PyErr_Clear();
        return -2;
    }
    int verdict =
        PyTuple_GET_ITEM(entry, 0) == reference ? PyTuple_GET_ITEM(entry, 1) == Py_True : -2;
    Py_DECREF(reference);
    return verdict;
}

static int find_verdict(kinx_pickler *p, kinx_by_value *bv, PyObject *module, PyObject *name) {
    if (!kinx_hook(&bv->verdict, "kinfolk._findable", "verdict")) return -1;
    PyObject *reference = PyWeakref_NewRef(module, NULL);
    if (!reference) { /* anything may stand in sys.modules */
        PyErr_Clear();
        return 1;
    }
    PyObject *said = PyObject_CallFunctionObjArgs(bv->verdict, module, name, NULL);
    int verdict = said ? PyObject_IsTrue(said) : -1;
    Py_XDECREF(said);
    PyObject *entry = NULL;
    if (verdict >= 0) entry = PyTuple_Pack(2, reference, verdict ? Py_True : Py_False);
    if (!entry || PyDict_SetItem(bv->verdicts, name, entry) < 0) verdict = -1;
    Py_XDECREF(entry);
    Py_DECREF(reference);
    /* Finders were asked, once and for all. */
    return verdict >= 0 && p && kinx_was_asked(p) < 0 ? -1 : verdict;
}

/* Whether another process of this program gets `module` by importing `name`. */
static int can_import(kinx_pickler *p, kinx_by_value *bv, PyObject *module, PyObject *name) {
    int verdict = known_verdict(bv, module, name);
    return verdict == -2 ? find_verdict(p, bv, module, name) : verdict;
}

/* -- What kin have --------------------------------------------------------------------- */

/* What is remembered as said of this main module.  Borrowed; raises. */
static PyObject *names_kin_have(kinx_by_value *bv, PyObject *main) {
    PyObject *reference = PyWeakref_NewRef(main, NULL);
    if (!reference) return NULL;
    if (bv->kin_main != reference) {
        PyDict_Clear(bv->kin_names);
        Py_XSETREF(bv->kin_main, reference);
    } else {
        Py_DECREF(reference);
    }
    return bv->kin_names;
}

/* The first part of a dotted name.  New. */
static PyObject *root_of(PyObject *qualname) {
    Py_ssize_t dot = PyUnicode_FindChar(qualname, '.', 0, PyUnicode_GET_LENGTH(qualname), 1);
    return PyUnicode_Substring(qualname, 0, dot < 0 ? PyUnicode_GET_LENGTH(qualname) : dot);
}

static int ask_about(kinx_by_value *bv, PyObject *root, PyObject *address, PyObject *names) {
    if (!kinx_hook(&bv->kin_have, "kinfolk._mainnames", "kin_have")) return -1;
    PyObject *said = PyObject_CallOneArg(bv->kin_have, root);
    int answer = said ? PyObject_IsTrue(said) : -1;
    Py_XDECREF(said);
    /* A "no" may become a "yes" when a child ends: that is asked each time. */
    return answer > 0 && PyDict_SetItem(names, root, address) < 0 ? -1 : answer;
}

/* Whether every member of the family finds what the main module has under this name.  Nested
 * classes and methods came into being with what they are nested in. */
static int kin_have(kinx_by_value *bv, PyObject *qualname) {
    PyObject *name = PyUnicode_FromString(main_names[0]);
    PyObject *main = name ? kinx_loaded_module(name) : NULL;
    Py_XDECREF(name);
    if (!main) return PyErr_Occurred() ? -1 : 0;
    Py_INCREF(main);
    PyObject *names = names_kin_have(bv, main), *root = names ? root_of(qualname) : NULL;
    PyObject *thing = NULL, *address = NULL;
    int answer = root ? kinx_lookup_attr(main, root, &thing) : -1;
    if (answer >= 0) address = PyLong_FromVoidPtr(thing ? thing : Py_None);
    Py_XDECREF(thing);
    if (address) {
        PyObject *had = PyDict_GetItemWithError(names, root);
        answer = had ? PyObject_RichCompareBool(had, address, Py_EQ) : PyErr_Occurred() ? -1 : 0;
        if (answer == 0) answer = ask_about(bv, root, address, names);
    } else {
        answer = -1;
    }
    Py_XDECREF(address);
    Py_XDECREF(root);
    Py_DECREF(main);
    return answer;
}

static int kin_have_module(kinx_by_value *bv, PyObject *name) {
    if (!kinx_hook(&bv->kin_have_module, "kinfolk._mainnames", "kin_have_module")) return -1;
    PyObject *said = PyObject_CallOneArg(bv->kin_have_module, name);
    int answer = said ? PyObject_IsTrue(said) : -1;
    Py_XDECREF(said);
    return answer;
}

PyObject *kinx_bv_forget_kin(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_takes(module, "_forget_kin", nargs, 0)) return NULL;
    PyDict_Clear(kinx_by_value_of(module)->kin_names);
    Py_RETURN_NONE;
}

/* Are the functions and classes in `vars` those of `names`, name -> id? */
static int are_the_same_things(PyObject *vars, PyObject *names) {
    PyObject *name, *value;
    Py_ssize_t at = 0, count = 0;
    while (PyDict_Next(vars, &at, &name, &value)) {
        if (!PyFunction_Check(value) && !PyType_Check(value)) continue;
        if (!PyUnicode_CheckExact(name)) return 0; /* its hash may be anybody's code */
        PyObject *id = PyDict_GetItemWithError(names, name);
        if (!id) return PyErr_Occurred() ? -1 : 0;
        if (PyLong_AsVoidPtr(id) != value) return PyErr_Occurred() ? -1 : 0;
        count++;
    }
    return count == PyDict_GET_SIZE(names);
}

/* Are the keys of `modules` those of the frozenset `names`? */
static int are_the_same_modules(PyObject *modules, PyObject *names) {
    if (PyDict_GET_SIZE(modules) != PySet_GET_SIZE(names)) return 0;
    PyObject *name, *module;
    for (Py_ssize_t at = 0; PyDict_Next(modules, &at, &name, &module);) {
        int has = PyUnicode_CheckExact(name) ? PySet_Contains(names, name) : 0;
        if (has <= 0) return has;
    }
    return 1;
}

/* Asked before each fork, and so without touching what is looked at: after a fork each page that
 * is written to is copied, and a reference count is enough. */
PyObject *kinx_bv_holds_still(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_takes(module, "_holds_still", nargs, 4)) return NULL;
    if (!PyDict_Check(args[0]) || !PyDict_Check(args[1]) || !PyDict_Check(args[2]) ||
        !PyFrozenSet_Check(args[3])) {
        PyErr_SetString(PyExc_TypeError, "_holds_still takes three dicts and a frozenset");
        return NULL;
    }
    int same = are_the_same_things(args[0], args[1]);
    if (same > 0) same = are_the_same_modules(args[2], args[3]);
    return same < 0 ? NULL : PyBool_FromLong(same);
}

/* -- The answers ------------------------------------------------------------------------- */

/* 1 if all receivers can import the module called `name`, which is loaded. */
static int all_have_module(kinx_pickler *p, PyObject *name) {
    kinx_by_value *bv = p->st->by_value;
    PyObject *module = kinx_loaded_module(name);
    if (!module) return PyErr_Occurred() ? -1 : 0;
    Py_INCREF(module);
    int answer = can_import(p, bv, module, name);
    Py_DECREF(module);
    return answer == 0 && p->kin ? kin_have_module(bv, name) : answer;
}

static int is_found(kinx_pickler *p, PyObject *thing, PyObject *module_name, PyObject *qualname) {
    PyObject *found;
    int answer = kinx_resolve(p, module_name, qualname, &found);
    Py_XDECREF(found);
    return answer > 0 ? found == thing : answer;
}

int kinx_standing(kinx_pickler *p, PyObject *thing, PyObject *module_name, PyObject *qualname) {
    kinx_by_value *bv = p->st->by_value;
    if (!module_name || !PyUnicode_CheckExact(module_name)) return KINX_BY_VALUE;
    if (!qualname || !PyUnicode_CheckExact(qualname)) return KINX_BY_VALUE;
    Py_ssize_t len = PyUnicode_GET_LENGTH(qualname);
    if (PyUnicode_FindChar(qualname, '<', 0, len, 1) >= 0) return KINX_BY_VALUE;
    int found = is_found(p, thing, module_name, qualname);
    if (found <= 0) return found < 0 ? -1 : KINX_BY_VALUE;
    int other = is_registered(bv, module_name);
    if (other) return other < 0 ? -1 : KINX_BY_VALUE;
    int named = kinx_is_main(module_name) ? (p->kin ? kin_have(bv, qualname) : 0)
                                          : all_have_module(p, module_name);
    return named < 0 ? -1 : named ? KINX_BY_NAME : KINX_BY_SPARE;
}

int kinx_standing_of(kinx_pickler *p, PyObject *thing) {
    kinx_by_value *bv = p->st->by_value;
    if (!kinx_answers_by_itself(thing) && others_are_asked(p) < 0) return -1;
    PyObject *module_name, *qualname = NULL;
    int standing = kinx_lookup_attr(thing, bv->names.module, &module_name);
    if (standing >= 0) standing = kinx_lookup_attr(thing, bv->names.qualname, &qualname);
    if (standing == 0) standing = kinx_lookup_attr(thing, bv->names.name, &qualname);
    if (standing >= 0) standing = kinx_standing(p, thing, module_name, qualname);
    Py_XDECREF(module_name);
    Py_XDECREF(qualname);
    return standing;
}

/* The main program does not count, not even among kin: what its functions see there is sent
 * with them. */
int kinx_home_name(kinx_pickler *p, PyObject *namespace, PyObject **name) {
    kinx_by_value *bv = p->st->by_value;
    *name = NULL;
    PyObject *own = PyDict_GetItemWithError(namespace, bv->names.name);
    if (!own || !PyUnicode_CheckExact(own)) return PyErr_Occurred() ? -1 : 0;
    PyObject *module = kinx_loaded_module(own);
    if (!module || kinx_is_main(own)) return PyErr_Occurred() ? -1 : 0;
    Py_INCREF(own);
    Py_INCREF(module);
    PyObject *dict = NULL;
    int answer = 1;
    if (PyModule_CheckExact(module)) dict = Py_XNewRef(kinx_module_dict(module));
    else answer = others_are_asked(p);
    if (answer == 0) answer = kinx_lookup_attr(module, bv->names.dict, &dict);
    Py_DECREF(module);
    if (answer > 0) answer = dict ? dict == namespace : -1;
    Py_XDECREF(dict);
    if (answer > 0) {
        int other = is_registered(bv, own);
        answer = other ? (other < 0 ? -1 : 0) : all_have_module(p, own);
    }
    if (answer > 0) *name = own;
    else Py_DECREF(own);
    return answer < 0 ? -1 : 0;
}

/* -- Fingerprints -------------------------------------------------------------------------- */

/* The addresses of the values in a class's namespace, as bytes.  New. */
static PyObject *addresses_in(PyObject *dict) {
    Py_ssize_t count = PyDict_GET_SIZE(dict), at = 0;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(PyObject *));
    if (!bytes) return NULL;
    char *out = PyBytes_AS_STRING(bytes);
    PyObject *name, *value;
    for (Py_ssize_t i = 0; i < count && PyDict_Next(dict, &at, &name, &value); i++) {
        memcpy(out + (size_t)i * sizeof value, &value, sizeof value);
    }
    return bytes;
}

/* What it looks at may answer with code of its own. */
static PyObject *compute_digest(kinx_pickler *p, kinx_by_value *bv, PyObject *thing) {
    if (others_are_asked(p) < 0) return NULL;
    if (!kinx_hook(&bv->digest, "kinfolk._fingerprint", "fingerprint")) return NULL;
    return PyObject_CallOneArg(bv->digest, thing);
}

/* As long as a class has the same attributes, its digest is remembered. */
static PyObject *class_digest(kinx_pickler *p, kinx_by_value *bv, PyObject *cls) {
    PyObject *dict = kinx_type_dict((PyTypeObject *)cls);
    PyObject *addresses = dict ? addresses_in(dict) : NULL;
    Py_XDECREF(dict);
    if (!addresses) return NULL;
    PyObject *entry, *digest = NULL;
    int known = kinx_weak_get(bv->digests, cls, &entry);
    if (known > 0) known = PyObject_RichCompareBool(PyTuple_GET_ITEM(entry, 0), addresses, Py_EQ);
    if (known > 0) {
        digest = PyTuple_GET_ITEM(entry, 1);
        Py_INCREF(digest);
    } else if (known == 0 && (digest = compute_digest(p, bv, cls))) {
        PyObject *fresh = PyTuple_Pack(2, addresses, digest);
        if (!fresh || kinx_weak_set(bv->digests, cls, fresh) < 0) Py_CLEAR(digest);
        Py_XDECREF(fresh);
    }
    Py_XDECREF(entry);
    Py_DECREF(addresses);
    return digest;
}

static PyObject *fingerprint(kinx_pickler *p, kinx_by_value *bv, PyObject *thing) {
    if (PyType_Check(thing)) return class_digest(p, bv, thing);
    if (PyFunction_Check(thing) && !PyFunction_GET_CLOSURE(thing)) {
        return kinx_code_fact(bv, PyFunction_GET_CODE(thing), KINX_FACT_DIGEST);
    }
    return compute_digest(p, bv, thing);
}

PyObject *kinx_where(kinx_pickler *p, int standing, PyObject *thing) {
    kinx_by_value *bv = p->st->by_value;
    if (standing != KINX_BY_SPARE) Py_RETURN_NONE;
    PyObject *module_name = PyObject_GetAttr(thing, bv->names.module);
    PyObject *qualname = module_name ? PyObject_GetAttr(thing, bv->names.qualname) : NULL;
    PyObject *digest = qualname ? fingerprint(p, bv, thing) : NULL;
    PyObject *where = digest ? PyTuple_Pack(3, module_name, qualname, digest) : NULL;
    Py_XDECREF(module_name);
    Py_XDECREF(qualname);
    Py_XDECREF(digest);
    return where;
}

PyObject *kinx_find_here(kinx_by_value *bv, PyObject *where) {
    if (where == Py_None) return NULL;
    if (!PyTuple_CheckExact(where) || PyTuple_GET_SIZE(where) != 3 ||
        !PyUnicode_CheckExact(PyTuple_GET_ITEM(where, 0)) ||
        !PyUnicode_CheckExact(PyTuple_GET_ITEM(where, 1))) {
        PyErr_SetString(PyExc_TypeError, "the name of a thing sent by value is damaged");
        return NULL;
    }
    PyObject *found;
    if (kinx_resolve(NULL, PyTuple_GET_ITEM(where, 0), PyTuple_GET_ITEM(where, 1), &found) <= 0) {
        return NULL;
    }
    PyObject *digest = fingerprint(NULL, bv, found);
    int same = digest ? PyObject_RichCompareBool(digest, PyTuple_GET_ITEM(where, 2), Py_EQ) : -1;
    Py_XDECREF(digest);
    if (same < 0) kinx_swallow(); /* the namesake may be anything */
    if (same <= 0) Py_CLEAR(found);
    return found;
}

/* -- For Python ---------------------------------------------------------------------------- */

static bool are_names(PyObject *const *args, Py_ssize_t count) {
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PyUnicode_Check(args[i])) continue;
        PyErr_Format(PyExc_TypeError, "a name is a str, not %.100s", Py_TYPE(args[i])->tp_name);
        return false;
    }
    return true;
}

PyObject *kinx_bv_can_import(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_takes(module, "_can_import", nargs, 2) || !are_names(args + 1, 1)) return NULL;
    int answer = can_import(NULL, kinx_by_value_of(module), args[0], args[1]);
    return answer < 0 ? NULL : PyBool_FromLong(answer);
}

PyObject *kinx_bv_resolve(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_takes(module, "_resolve", nargs, 3) || !are_names(args, 2)) return NULL;
    PyObject *found;
    int answer = kinx_resolve(NULL, args[0], args[1], &found);
    return answer ? found : Py_NewRef(args[2]);
}

PyObject *kinx_bv_standing(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_takes(module, "_standing", nargs, 4)) return NULL;
    kinx_pickler p;
    if (kinx_pickler_to_ask(module, args[3], &p) < 0) return NULL;
    int standing = kinx_standing(&p, args[0], args[1], args[2]);
    return standing < 0 ? NULL : PyLong_FromLong(standing);
}

PyObject *kinx_bv_is_registered(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_takes(module, "_is_registered", nargs, 1) || !are_names(args, 1)) return NULL;
    int answer = is_registered(kinx_by_value_of(module), args[0]);
    return answer < 0 ? NULL : PyBool_FromLong(answer);
}
