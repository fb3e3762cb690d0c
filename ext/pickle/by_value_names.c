/* What is known of a code object, found out once and kept as long as it lives: the names
 * in it, its marshalled form, its digest.
 *
 * Names are read off the bytecode, with those of the functions and classes nested in
 * it.  A name counts as a global where an instruction looks it up as one; that an
 * attribute or a local has the same name does not make the function need that global.
 * LOAD_NAME counts: the body of a nested class looks in its own names first, then in
 * the globals.
 *
 * The bytecode is what `co_code` gives, which is as the compiler made it: pairs of an
 * opcode and a byte of its argument, nothing specialised or instrumented, the inline caches
 * zero.  The opcode 0 is none of those that name something (it is CACHE since there are caches), so
 * a walk from pair to pair needs no table of their lengths.  Which number is which opcode
 * is asked of the running interpreter.  tests/api/test_pickle_codenames.py compares
 * the outcome with `dis` for the whole standard library. */
#include "by_value_parts.h"
#include <marshal.h>

#define CODES_KEPT 512 /* a function sent again stays the one that has been specialised */
#define MAGIC_BYTES 4

/* -- Names ----------------------------------------------------------------------------- */

enum { SAYS_NOTHING, SAYS_NAME, SAYS_NAME_AND_BIT, EXTENDS };

static int note_opcode(PyObject *opmap, const char *name, char what, char *table) {
    PyObject *number = PyMapping_GetItemString(opmap, name);
    if (!number) { /* not an opcode of this version */
        if (!PyErr_ExceptionMatches(PyExc_KeyError)) return -1;
        PyErr_Clear();
        return 0;
    }
    long opcode = PyLong_AsLong(number);
    Py_DECREF(number);
    if (opcode == -1 && PyErr_Occurred()) return -1;
    if (opcode > 0 && opcode < 256) table[opcode] = what;
    return 0;
}

static PyObject *opcode_table(void) {
    static const char *const named[] = {"STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME",
                                        "LOAD_FROM_DICT_OR_GLOBALS"};
    PyObject *opmap = NULL;
    if (!kinx_import(&opmap, "opcode", "opmap")) return NULL;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, 256);
    if (!bytes) {
        Py_DECREF(opmap);
        return NULL;
    }
    char *table = PyBytes_AS_STRING(bytes);
    memset(table, SAYS_NOTHING, 256);
    char load_global = PY_VERSION_HEX >= 0x030B0000 ? SAYS_NAME_AND_BIT : SAYS_NAME;
    int err = note_opcode(opmap, "EXTENDED_ARG", EXTENDS, table);
    if (err == 0) err = note_opcode(opmap, "LOAD_GLOBAL", load_global, table);
    for (size_t i = 0; err == 0 && i < sizeof named / sizeof *named; i++) {
        err = note_opcode(opmap, named[i], SAYS_NAME, table);
    }
    Py_DECREF(opmap);
    if (err < 0) Py_CLEAR(bytes);
    return bytes;
}

/* Add the globals that the bytecode names to `globals`, a dict. */
static int read_bytecode(const char *table, PyObject *bytecode, PyObject *names,
                         PyObject *globals) {
    const unsigned char *at = (const unsigned char *)PyBytes_AS_STRING(bytecode);
    const unsigned char *end = at + (PyBytes_GET_SIZE(bytecode) & ~(Py_ssize_t)1);
    size_t argument = 0;
    for (; at < end; at += 2) {
        argument = argument << 8 | at[1];
        char says = table[at[0]];
        if (says == EXTENDS) continue;
        if (says != SAYS_NOTHING) {
            size_t index = says == SAYS_NAME_AND_BIT ? argument >> 1 : argument;
            if (index < (size_t)PyTuple_GET_SIZE(names) &&
                PyDict_SetItem(globals, PyTuple_GET_ITEM(names, index), Py_None) < 0) {
                return -1;
            }
        }
        argument = 0;
    }
    return 0;
}

static int collect(const char *table, PyCodeObject *code, PyObject *globals, PyObject *names) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(code->co_names); i++) {
        if (PyDict_SetItem(names, PyTuple_GET_ITEM(code->co_names, i), Py_None) < 0) return -1;
    }
    PyObject *bytecode = PyObject_GetAttrString((PyObject *)code, "co_code");
    if (!bytecode) return -1;
    int err = read_bytecode(table, bytecode, code->co_names, globals);
    Py_DECREF(bytecode);
    if (err < 0 || Py_EnterRecursiveCall(" while reading nested code")) return -1;
    for (Py_ssize_t i = 0; err == 0 && i < PyTuple_GET_SIZE(code->co_consts); i++) {
        PyObject *constant = PyTuple_GET_ITEM(code->co_consts, i);
        if (PyCode_Check(constant)) err = collect(table, (PyCodeObject *)constant, globals, names);
    }
    Py_LeaveRecursiveCall();
    return err;
}

/* -- Facts ----------------------------------------------------------------------------- */

/* The keys, in their order, as a tuple.  Steals the dict. */
static PyObject *keys_of(PyObject *dict) {
    PyObject *keys = PyDict_Keys(dict);
    Py_DECREF(dict);
    if (!keys) return NULL;
    PyObject *tuple = PyList_AsTuple(keys);
    Py_DECREF(keys);
    return tuple;
}

static int read_names(kinx_by_value *bv, PyObject *code, PyObject *facts) {
    if (!bv->opcodes && !(bv->opcodes = opcode_table())) return -1;
    PyObject *globals = PyDict_New(), *names = PyDict_New();
    int err = globals && names
                  ? collect(PyBytes_AS_STRING(bv->opcodes), (PyCodeObject *)code, globals, names)
                  : -1;
    if (err < 0) {
        Py_XDECREF(globals);
        Py_XDECREF(names);
        return -1;
    }
    globals = keys_of(globals);
    names = keys_of(names);
    if (!globals || !names) {
        Py_XDECREF(globals);
        Py_XDECREF(names);
        return -1;
    }
    PyList_SetItem(facts, KINX_FACT_GLOBALS, globals);
    return PyList_SetItem(facts, KINX_FACT_NAMES, names);
}

static void put_magic(unsigned char *out, long number) {
    for (int i = 0; i < MAGIC_BYTES; i++) out[i] = (unsigned char)((unsigned long)number >> 8 * i);
}

static PyObject *marshalled(PyObject *code) {
    PyObject *plain = PyMarshal_WriteObjectToString(code, Py_MARSHAL_VERSION);
    if (!plain) return NULL;
    Py_ssize_t len = PyBytes_GET_SIZE(plain);
    PyObject *data = PyBytes_FromStringAndSize(NULL, MAGIC_BYTES + len);
    if (data) {
        put_magic((unsigned char *)PyBytes_AS_STRING(data), PyImport_GetMagicNumber());
        memcpy(PyBytes_AS_STRING(data) + MAGIC_BYTES, PyBytes_AS_STRING(plain), (size_t)len);
    }
    Py_DECREF(plain);
    return data;
}

static int learn_fact(kinx_by_value *bv, PyObject *code, kinx_fact fact, PyObject *facts) {
    if (fact == KINX_FACT_GLOBALS || fact == KINX_FACT_NAMES) return read_names(bv, code, facts);
    PyObject *value = NULL;
    if (fact == KINX_FACT_DATA) {
        value = marshalled(code);
    } else if (kinx_hook(&bv->digest_code, "kinfolk._fingerprint", "digest_of_code")) {
        value = PyObject_CallOneArg(bv->digest_code, code);
    }
    return value ? PyList_SetItem(facts, fact, value) : -1;
}

static PyObject *new_facts(kinx_by_value *bv, PyObject *code) {
    PyObject *facts = PyList_New(KINX_FACTS);
    if (!facts) return NULL;
    for (Py_ssize_t i = 0; i < KINX_FACTS; i++) {
        Py_INCREF(Py_None);
        PyList_SET_ITEM(facts, i, Py_None);
    }
    if (kinx_weak_set(bv->facts, code, facts) < 0) Py_CLEAR(facts);
    return facts;
}

PyObject *kinx_code_fact(kinx_by_value *bv, PyObject *code, kinx_fact fact) {
    PyObject *facts;
    int known = kinx_weak_get(bv->facts, code, &facts);
    if (known == 0) facts = new_facts(bv, code);
    if (!facts) return NULL;
    PyObject *value = NULL;
    if (PyList_GET_ITEM(facts, fact) != Py_None || learn_fact(bv, code, fact, facts) == 0) {
        value = PyList_GET_ITEM(facts, fact);
        Py_INCREF(value);
    }
    Py_DECREF(facts);
    return value;
}

static PyObject *fact_for_python(PyObject *module, const char *name, PyObject *const *args,
                                 Py_ssize_t nargs, kinx_fact fact) {
    if (!kinx_takes(module, name, nargs, 1)) return NULL;
    if (PyCode_Check(args[0])) return kinx_code_fact(kinx_by_value_of(module), args[0], fact);
    PyErr_Format(PyExc_TypeError, "%s() is about code, not %.100s", name,
                 Py_TYPE(args[0])->tp_name);
    return NULL;
}

PyObject *kinx_bv_names_used(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    return fact_for_python(module, "_names_used", args, nargs, KINX_FACT_GLOBALS);
}

PyObject *kinx_bv_code_digest(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    return fact_for_python(module, "_code_digest", args, nargs, KINX_FACT_DIGEST);
}

/* -- From the marshalled form ------------------------------------------------------------- */

static void *raise_other_version(kinx_by_value *bv, const unsigned char *theirs) {
    const char *version = Py_GetVersion();
    PyObject *error = kinx_hook(&bv->unpickling_error, "_pickle", "UnpicklingError");
    if (!error) return NULL;
    PyErr_Format(error,
                 "a function sent by value cannot be loaded here: its bytecode is of another "
                 "version of Python (magic number %d) than this one, %.*s (magic number %d)",
                 theirs[0] | theirs[1] << 8, (int)strcspn(version, " "), version,
                 (int)(PyImport_GetMagicNumber() & 0xffff));
    return NULL;
}

static PyObject *unmarshal(kinx_by_value *bv, PyObject *data) {
    unsigned char ours[MAGIC_BYTES];
    put_magic(ours, PyImport_GetMagicNumber());
    const char *bytes = PyBytes_AS_STRING(data);
    Py_ssize_t len = PyBytes_GET_SIZE(data);
    if (len < MAGIC_BYTES || memcmp(bytes, ours, MAGIC_BYTES) != 0) {
        return raise_other_version(bv, len < 2 ? (const unsigned char *)"\0" : (void *)bytes);
    }
    PyObject *code = PyMarshal_ReadObjectFromString(bytes + MAGIC_BYTES, len - MAGIC_BYTES);
    if (code && !PyCode_Check(code)) {
        PyErr_Format(PyExc_TypeError, "%.100s in the place of a code object",
                     Py_TYPE(code)->tp_name);
        Py_CLEAR(code);
    }
    return code;
}

PyObject *kinx_code_from(kinx_by_value *bv, PyObject *data) {
    if (!PyBytes_CheckExact(data)) {
        return PyErr_Format(PyExc_TypeError, "code travels as bytes, not %.100s",
                            Py_TYPE(data)->tp_name);
    }
    PyObject *code = PyDict_GetItemWithError(bv->codes, data);
    if (code || PyErr_Occurred()) {
        Py_XINCREF(code);
        return code;
    }
    code = unmarshal(bv, data);
    if (!code) return NULL;
    if (PyDict_GET_SIZE(bv->codes) >= CODES_KEPT) PyDict_Clear(bv->codes);
    if (PyDict_SetItem(bv->codes, data, code) < 0) Py_CLEAR(code);
    return code;
}

/* -- Submodules ---------------------------------------------------------------------------- */

/* The attribute `name` of `module`, if it is a module.  Borrowed. */
static PyObject *module_in(PyObject *module, PyObject *name) {
    PyObject *dict = kinx_module_dict(module);
    PyObject *found = dict ? PyDict_GetItemWithError(dict, name) : NULL;
    return found && PyModule_CheckExact(found) ? found : NULL;
}

static int follow(PyObject *module, PyObject *names, PyObject *found);

/* Add the submodule of `module` called `name`, and what is in it, if importing its full name
 * gives `next`, which is the attribute. */
static int follow_into(PyObject *module, PyObject *name, PyObject *next, PyObject *names,
                       PyObject *found) {
    PyObject *own = PyModule_GetNameObject(module);
    if (!own) { /* one that has lost its name */
        PyErr_Clear();
        return 0;
    }
    PyObject *full = PyUnicode_FromFormat("%U.%U", own, name);
    Py_DECREF(own);
    if (!full) return -1;
    int err = 0;
    if (kinx_loaded_module(full) == next) {
        err = PySequence_Contains(found, full);
        if (err == 0) err = PyList_Append(found, full) < 0 ? -1 : follow(next, names, found);
    } else if (PyErr_Occurred()) {
        err = -1;
    }
    Py_DECREF(full);
    return err < 0 ? -1 : 0;
}

static int follow(PyObject *module, PyObject *names, PyObject *found) {
    int err = 0;
    for (Py_ssize_t i = 0; err == 0 && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        PyObject *next = Py_XNewRef(module_in(module, name));
        if (next) err = follow_into(module, name, next, names, found);
        else if (PyErr_Occurred()) err = -1;
        Py_XDECREF(next);
    }
    return err;
}

/* `value`: one that function sees.  *found: a list, made when first needed. */
static int look_at(kinx_by_value *bv, PyObject *function, PyObject *value, PyObject **found) {
    if (!value || !PyModule_CheckExact(value)) return 0;
    if (!*found && !(*found = PyList_New(0))) return -1;
    Py_INCREF(value);
    PyObject *names = kinx_code_fact(bv, PyFunction_GET_CODE(function), KINX_FACT_NAMES);
    int err = names ? follow(value, names, *found) : -1;
    Py_XDECREF(names);
    Py_DECREF(value);
    return err;
}

/* `import concurrent.futures` gives a function the global `concurrent`; that the submodule is
 * there is an effect of the import, which the receiver must repeat. */
PyObject *kinx_submodules_used(kinx_by_value *bv, PyObject *function, PyObject *namespace) {
    PyObject *found = NULL, *name, *value, *closure = PyFunction_GET_CLOSURE(function);
    Py_ssize_t at = 0;
    int err = 0;
    while (err == 0 && PyDict_Next(namespace, &at, &name, &value)) {
        err = look_at(bv, function, value, &found);
    }
    for (Py_ssize_t i = 0; err == 0 && closure && i < PyTuple_GET_SIZE(closure); i++) {
        err = look_at(bv, function, PyCell_GET(PyTuple_GET_ITEM(closure, i)), &found);
    }
    PyObject *tuple = NULL;
    if (err == 0) tuple = found ? PyList_AsTuple(found) : PyTuple_New(0);
    Py_XDECREF(found);
    return tuple;
}
