/* The receiving side of classes: making and filling them, and type variables.
 *
 * For a class, in this order: the class known under its token; the one found under its name,
 * if it has the same fingerprint; a new one.  Making a class here runs none of the code
 * that making it for the first time runs: no metaclass __new__ or __init__, no
 * __init_subclass__, no __set_name__.  Their effects are part of what was sent.
 *
 * Two threads may load the same class at once.  Both get the same one, and each fills it,
 * unless it is found filled: neither can see it half done. */
#include "by_value_parts.h"

/* -- One thread at a time ------------------------------------------------------------------ */

static PyObject *renew_lock(PyObject *self, PyObject *unused) {
    PyObject *lock = NULL;
    if (!kinx_import(&lock, "_thread", "RLock")) return NULL;
    PyObject *fresh = PyObject_CallNoArgs(lock);
    Py_DECREF(lock);
    if (!fresh) return NULL;
    Py_XSETREF(kinx_by_value_of(self)->building, fresh);
    Py_RETURN_NONE;
}

static PyMethodDef renew_lock_def = {"_renew_lock", renew_lock, METH_NOARGS, NULL};

/* Make the lock, and a new one in each forked child: another thread may hold it at the fork. */
static int make_lock(kinx_by_value *bv) {
    PyObject *renew = PyCFunction_New(&renew_lock_def, bv->module), *hook = NULL, *done = NULL;
    if (!renew) return -1;
    PyObject *options = Py_BuildValue("{sO}", "after_in_child", renew);
    PyObject *none = options ? PyTuple_New(0) : NULL;
    if (none && kinx_import(&hook, "os", "register_at_fork")) {
        done = PyObject_Call(hook, none, options);
    }
    if (done) Py_SETREF(done, PyObject_CallNoArgs(renew));
    int err = done ? 0 : -1;
    Py_XDECREF(done);
    Py_XDECREF(hook);
    Py_XDECREF(none);
    Py_XDECREF(options);
    Py_DECREF(renew);
    return err;
}

/* The lock, which is now ours.  An RLock: a metaclass's mro() may load something.  New. */
static PyObject *lock_acquired(kinx_by_value *bv) {
    if (!bv->building && make_lock(bv) < 0) return NULL;
    PyObject *lock = bv->building;
    Py_INCREF(lock);
    PyObject *done = PyObject_CallMethod(lock, "acquire", NULL);
    if (!done) Py_CLEAR(lock);
    Py_XDECREF(done);
    return lock;
}

/* Steals the lock.  Keeps the exception. */
static void lock_release(PyObject *lock) {
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyObject *done = PyObject_CallMethod(lock, "release", NULL);
    if (!done) PyErr_WriteUnraisable(lock);
    Py_XDECREF(done);
    Py_DECREF(lock);
    PyErr_Restore(type, error, traceback);
}

/* -- Keeping __init_subclass__ silent -------------------------------------------------------- */

/* What stands in for the hook.  self: (hook, the thread that makes a class); other threads get
 * what they expect. */
static PyObject *hush(PyObject *self, PyObject *args, PyObject *options) {
    unsigned long builder = PyLong_AsUnsignedLong(PyTuple_GET_ITEM(self, 1));
    if (builder == PyThread_get_thread_ident()) Py_RETURN_NONE;
    if (PyTuple_GET_SIZE(args) == 0) {
        PyErr_SetString(PyExc_TypeError, "__init_subclass__() needs a class");
        return NULL;
    }
    PyObject *hook = PyTuple_GET_ITEM(self, 0);
    PyObject *bound = Py_TYPE(hook)->tp_descr_get(hook, NULL, PyTuple_GET_ITEM(args, 0));
    PyObject *rest = bound ? PyTuple_GetSlice(args, 1, PyTuple_GET_SIZE(args)) : NULL;
    PyObject *done = rest ? PyObject_Call(bound, rest, options) : NULL;
    Py_XDECREF(rest);
    Py_XDECREF(bound);
    return done;
}

static PyMethodDef hush_def = {"__init_subclass__", (PyCFunction)(void (*)(void))hush,
                               METH_VARARGS | METH_KEYWORDS, NULL};

/* A classmethod.  New. */
static PyObject *stand_in_for(PyObject *hook) {
    PyObject *self = Py_BuildValue("(Ok)", hook, PyThread_get_thread_ident());
    PyObject *function = self ? PyCFunction_New(&hush_def, self) : NULL;
    PyObject *stand_in = function ? PyClassMethod_New(function) : NULL;
    Py_XDECREF(function);
    Py_XDECREF(self);
    return stand_in;
}

/* The class's own __init_subclass__, if it is worth hushing.  New; NULL without an exception if
 * there is none. */
static PyObject *own_hook(kinx_by_value *bv, PyTypeObject *cls) {
    if (!kinx_may_go_by_value(cls)) return NULL;
    PyObject *hook = Py_XNewRef(kinx_own_attr(cls, bv->names.init_subclass));
    if (!hook || !PyObject_TypeCheck(hook, &PyClassMethod_Type)) {
        Py_XDECREF(hook);
        return NULL;
    }
    PyObject *inner, *home = NULL;
    int worth = kinx_lookup_attr_string(hook, "__func__", &inner);
    if (worth > 0) worth = PyFunction_Check(inner);
    if (worth > 0) worth = kinx_lookup_attr((PyObject *)cls, bv->names.module, &home);
    if (worth > 0 && PyUnicode_Check(home)) { /* these only set what was sent anyway */
        worth = PyUnicode_CompareWithASCIIString(home, "typing") != 0 &&
                PyUnicode_CompareWithASCIIString(home, "enum") != 0;
    }
    Py_XDECREF(inner);
    Py_XDECREF(home);
    if (worth <= 0) Py_CLEAR(hook);
    return hook;
}

static int set_hook(kinx_by_value *bv, PyObject *owner, PyObject *hook) {
    return PyType_Type.tp_setattro(owner, bv->names.init_subclass, hook);
}

/* Put a stand-in into cls, and (cls, hook) into the list. */
static int hush_one(kinx_by_value *bv, PyTypeObject *cls, PyObject *hushed) {
    PyObject *hook = own_hook(bv, cls);
    if (!hook) return PyErr_Occurred() ? -1 : 0;
    PyObject *pair = PyTuple_Pack(2, (PyObject *)cls, hook);
    PyObject *stand_in = pair ? stand_in_for(hook) : NULL;
    int err = stand_in ? PyList_Append(hushed, pair) : -1;
    if (err == 0) err = set_hook(bv, (PyObject *)cls, stand_in);
    Py_XDECREF(stand_in);
    Py_XDECREF(pair);
    Py_DECREF(hook);
    return err;
}

/* A hushed class is passed over when it is met again: its hook is no function any more. */
static int hush_bases(kinx_by_value *bv, PyObject *bases, PyObject *hushed) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(bases); i++) {
        PyObject *base = PyTuple_GET_ITEM(bases, i);
        if (!PyType_Check(base)) continue;
        PyObject *mro = ((PyTypeObject *)base)->tp_mro;
        int err = 0;
        Py_XINCREF(mro);
        for (Py_ssize_t j = 0; err == 0 && mro && j < PyTuple_GET_SIZE(mro); j++) {
            err = hush_one(bv, (PyTypeObject *)PyTuple_GET_ITEM(mro, j), hushed);
        }
        Py_XDECREF(mro);
        if (err < 0) return -1;
    }
    return 0;
}

/* Steals the list.  Keeps the exception. */
static void unhush(kinx_by_value *bv, PyObject *hushed) {
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(hushed); i++) {
        PyObject *pair = PyList_GET_ITEM(hushed, i);
        if (set_hook(bv, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1)) < 0) {
            PyErr_WriteUnraisable(PyTuple_GET_ITEM(pair, 0));
        }
    }
    Py_DECREF(hushed);
    PyErr_Restore(type, error, traceback);
}

/* -- Making ---------------------------------------------------------------------------------- */

/* The arguments of _class and _enum. */
enum {
    TOKEN,
    WHERE,
    META,
    NAME,
    BASES,
    BODY,
    CLASS_ARGS,
    MEMBERS = CLASS_ARGS,
    OPTIONS,
    ENUM_ARGS
};

/* What meta inherits under the name from a metaclass made in C: from `type`, or that of ctypes.
 * New; NULL without an exception if there is none. */
static PyObject *bare(PyTypeObject *meta, PyObject *name, PyTypeObject *kind) {
    PyObject *found = NULL;
    for (Py_ssize_t i = 0; !found && i < PyTuple_GET_SIZE(meta->tp_mro); i++) {
        PyObject *dict = kinx_type_dict((PyTypeObject *)PyTuple_GET_ITEM(meta->tp_mro, i));
        if (!dict) return NULL;
        found = PyDict_GetItemWithError(dict, name);
        if (found && !PyObject_TypeCheck(found, kind)) found = NULL;
        Py_XINCREF(found);
        Py_DECREF(dict);
        if (PyErr_Occurred()) return NULL;
    }
    return found;
}

/* What makes an instance of meta without running a metaclass's Python code.  New. */
static PyObject *bare_new(kinx_by_value *bv, PyTypeObject *meta) {
    PyObject *abc_meta = kinx_hook(&bv->abc_meta, "abc", "ABCMeta");
    if (!abc_meta) return NULL;
    if (PyType_IsSubtype(meta, (PyTypeObject *)abc_meta)) {
        return PyObject_GetAttr(abc_meta, bv->names.new);
    }
    return bare(meta, bv->names.new, &PyCFunction_Type);
}

static int bare_init(kinx_by_value *bv, PyTypeObject *meta, PyObject *made, PyObject *const *args) {
    PyObject *init = bare(meta, bv->names.init, &PyWrapperDescr_Type);
    if (!init) return PyErr_Occurred() ? -1 : 0;
    PyObject *empty = PyDict_New();
    PyObject *done = NULL;
    if (empty) {
        done = PyObject_CallFunctionObjArgs(init, made, args[NAME], args[BASES], empty, NULL);
    }
    Py_XDECREF(empty);
    Py_XDECREF(done);
    Py_DECREF(init);
    return done ? 0 : -1;
}

static PyObject *make_class(kinx_by_value *bv, PyTypeObject *meta, PyObject *const *args) {
    PyObject *body = PyDict_Copy(args[BODY]), *made = NULL;
    if (!body) return NULL;
    if (meta == &PyType_Type) {
        PyObject *three = PyTuple_Pack(3, args[NAME], args[BASES], body);
        made = three ? PyType_Type.tp_new(meta, three, NULL) : NULL;
        Py_XDECREF(three);
        Py_DECREF(body);
        return made;
    }
    PyObject *maker = bare_new(bv, meta);
    if (maker) {
        made = PyObject_CallFunctionObjArgs(maker, (PyObject *)meta, args[NAME], args[BASES], body,
                                            NULL);
    }
    Py_XDECREF(maker);
    Py_DECREF(body);
    if (made && bare_init(bv, meta, made, args) < 0) Py_CLEAR(made);
    return made;
}

/* An enum's members are made with it: pickles of them need them at once. */
static PyObject *make_enum(kinx_by_value *bv, PyTypeObject *meta, PyObject *const *args) {
    PyObject *make = kinx_hook(&bv->enum_make, "kinfolk._enums", "make");
    if (!make) return NULL;
    return PyObject_CallFunctionObjArgs(make, (PyObject *)meta, args[NAME], args[BASES], args[BODY],
                                        args[MEMBERS], args[OPTIONS], NULL);
}

/* args[META] is a metaclass, or the index of the base that has the same one.  Borrowed. */
static PyTypeObject *metaclass_in(PyObject *const *args) {
    PyObject *meta = args[META];
    if (PyLong_Check(meta)) {
        Py_ssize_t index = PyLong_AsSsize_t(meta);
        if (index >= 0 && index < PyTuple_GET_SIZE(args[BASES])) {
            meta = (PyObject *)Py_TYPE(PyTuple_GET_ITEM(args[BASES], index));
        }
        if (PyErr_Occurred()) return NULL;
    }
    if (PyType_Check(meta) && PyType_IsSubtype((PyTypeObject *)meta, &PyType_Type)) {
        return (PyTypeObject *)meta;
    }
    PyErr_Format(PyExc_TypeError, "a class sent by value has no metaclass but %R", meta);
    return NULL;
}

/* A class without contents.  New. */
static PyObject *make_new(kinx_by_value *bv, PyObject *const *args, Py_ssize_t nargs) {
    PyTypeObject *meta = metaclass_in(args);
    PyObject *hushed = meta ? PyList_New(0) : NULL, *made = NULL, *marks = NULL;
    if (!hushed) return NULL;
    Py_INCREF(meta);
    /* type.__new__ always calls __init_subclass__.  It has run, where the class was made. */
    if (hush_bases(bv, args[BASES], hushed) == 0) {
        made = nargs == ENUM_ARGS ? make_enum(bv, meta, args) : make_class(bv, meta, args);
    }
    unhush(bv, hushed);
    Py_DECREF(meta);
    if (made) marks = PyDict_New();
    if (!marks || kinx_weak_set(bv->received, made, marks) < 0 ||
        kinx_weak_set(bv->unfilled, made, Py_None) < 0) {
        Py_CLEAR(made);
    }
    Py_XDECREF(marks);
    return made;
}

/* New. */
static PyObject *find_or_make(kinx_by_value *bv, PyObject *const *args, Py_ssize_t nargs) {
    PyObject *found;
    if (kinx_known(bv, args[TOKEN], &found) != 0) return found;
    found = kinx_find_here(bv, args[WHERE]);
    if (!found && !PyErr_Occurred()) found = make_new(bv, args, nargs);
    if (found && kinx_adopt(bv, args[TOKEN], found) < 0) Py_CLEAR(found);
    return found;
}

static PyObject *class_by_token(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    kinx_by_value *bv = kinx_by_value_of(self);
    if (!PyBytes_CheckExact(args[TOKEN]) || !PyUnicode_Check(args[NAME]) ||
        !PyTuple_CheckExact(args[BASES]) || !PyDict_CheckExact(args[BODY])) {
        PyErr_SetString(PyExc_TypeError, "what a class sent by value is made of is damaged");
        return NULL;
    }
    PyObject *found;
    if (kinx_known(bv, args[TOKEN], &found) != 0) return found;
    PyObject *lock = lock_acquired(bv);
    if (!lock) return NULL;
    found = find_or_make(bv, args, nargs);
    lock_release(lock);
    return found;
}

PyObject *kinx_make_class(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    return kinx_takes(self, "_class", nargs, CLASS_ARGS) ? class_by_token(self, args, nargs) : NULL;
}

PyObject *kinx_make_enum(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    return kinx_takes(self, "_enum", nargs, ENUM_ARGS) ? class_by_token(self, args, nargs) : NULL;
}

/* -- Filling ------------------------------------------------------------------------------------ */

int kinx_is_unfilled(kinx_by_value *bv, PyTypeObject *cls) {
    PyObject *mro = cls->tp_mro, *none;
    if (PyDict_GET_SIZE(bv->unfilled) == 0 || !mro) return 0;
    int found = 0;
    for (Py_ssize_t i = 0; found == 0 && i < PyTuple_GET_SIZE(mro); i++) {
        found = kinx_weak_get(bv->unfilled, PyTuple_GET_ITEM(mro, i), &none);
        Py_XDECREF(none);
    }
    return found;
}

static bool is_simple(PyObject *value) {
    return value == Py_None || PyLong_CheckExact(value) || PyBool_Check(value) ||
           PyFloat_CheckExact(value) || PyUnicode_CheckExact(value) || PyBytes_CheckExact(value);
}

/* By what to see that the sender has assigned another value since; None: not to be seen.  What
 * the sender has not changed is left as this process has it.  New. */
static PyObject *mark_of(PyObject *value) {
    PyObject *mark = NULL;
    if (Py_IS_TYPE(value, &PyClassMethod_Type) || Py_IS_TYPE(value, &PyStaticMethod_Type)) {
        value = PyObject_GetAttrString(value, "__func__");
        if (!value) return NULL;
    } else {
        Py_INCREF(value);
    }
    if (PyFunction_Check(value)) mark = PyLong_FromVoidPtr(PyFunction_GET_CODE(value));
    else if (is_simple(value)) mark = PyTuple_Pack(2, (PyObject *)Py_TYPE(value), value);
    else mark = Py_NewRef(Py_None);
    Py_DECREF(value);
    return mark;
}

/* Borrowed: a method of `type`, kept in *slot. */
static PyObject *type_method(PyObject **slot, PyObject *name) {
    if (!*slot) *slot = PyObject_GetAttr((PyObject *)&PyType_Type, name);
    return *slot;
}

/* Not by the metaclass's __setattr__: what was sent is the outcome. */
static int set_attribute(kinx_by_value *bv, PyObject *cls, PyObject *name, PyObject *value) {
    if (Py_IS_TYPE(cls, &PyType_Type)) return PyType_Type.tp_setattro(cls, name, value);
    PyObject *own = type_method(&bv->type_setattr, bv->names.setattr);
    PyObject *done = own ? PyObject_CallFunctionObjArgs(own, cls, name, value, NULL) : NULL;
    Py_XDECREF(done);
    if (done) return 0;
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) return -1;
    PyErr_Clear(); /* a metaclass in C, as that of ctypes structures, insists */
    return PyObject_SetAttr(cls, name, value);
}

/* Whether the sender has changed the attribute since it was last received. */
static int has_changed(PyObject *marks, PyObject *name, PyObject *mark) {
    PyObject *last = PyDict_GetItemWithError(marks, name);
    if (!last) return PyErr_Occurred() ? -1 : 1;
    if (mark == Py_None) return 0;
    Py_INCREF(last);
    int differs = PyObject_RichCompareBool(mark, last, Py_NE);
    Py_DECREF(last);
    return differs;
}

static int update(kinx_by_value *bv, PyObject *cls, PyObject *marks, PyObject *name,
                  PyObject *value, bool is_new) {
    PyObject *mark = mark_of(value);
    if (!mark) return -1;
    int err = is_new ? 1 : has_changed(marks, name, mark);
    if (err > 0) err = set_attribute(bv, cls, name, value);
    else if (err == 0) mark = (Py_DECREF(mark), NULL);
    if (err == 0 && mark) err = PyDict_SetItem(marks, name, mark);
    Py_XDECREF(mark);
    return err;
}

static int update_all(kinx_by_value *bv, PyObject *cls, PyObject *marks, PyObject *attributes,
                      bool is_new) {
    PyObject *name, *value;
    Py_ssize_t at = 0;
    int err = 0;
    while (err == 0 && PyDict_Next(attributes, &at, &name, &value)) {
        Py_INCREF(name);
        Py_INCREF(value);
        err = update(bv, cls, marks, name, value, is_new);
        Py_DECREF(name);
        Py_DECREF(value);
    }
    return err;
}

/* Take out what the enum machinery has put in here. */
static int drop(PyObject *cls, PyObject *names) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *dict = kinx_type_dict((PyTypeObject *)cls);
        int there = dict ? PyDict_Contains(dict, PyTuple_GET_ITEM(names, i)) : -1;
        Py_XDECREF(dict);
        if (there > 0) there = PyType_Type.tp_setattro(cls, PyTuple_GET_ITEM(names, i), NULL);
        if (there < 0) return -1;
    }
    return 0;
}

/* ABCMeta.register(cls, each) */
static int register_each(kinx_by_value *bv, PyObject *cls, PyObject *classes) {
    if (PyTuple_GET_SIZE(classes) == 0) return 0;
    PyObject *abc_meta = kinx_hook(&bv->abc_meta, "abc", "ABCMeta");
    int err = abc_meta ? 0 : -1;
    for (Py_ssize_t i = 0; err == 0 && i < PyTuple_GET_SIZE(classes); i++) {
        PyObject *done =
            PyObject_CallMethod(abc_meta, "register", "OO", cls, PyTuple_GET_ITEM(classes, i));
        if (!done) err = -1;
        Py_XDECREF(done);
    }
    return err;
}

static int fill(kinx_by_value *bv, PyObject *cls, PyObject *marks, PyObject *state) {
    PyObject *none;
    int unfilled = kinx_weak_get(bv->unfilled, cls, &none);
    Py_XDECREF(none);
    if (unfilled < 0) return -1;
    if (!unfilled) return update_all(bv, cls, marks, PyTuple_GET_ITEM(state, 0), false);
    if (drop(cls, PyTuple_GET_ITEM(state, 2)) < 0) return -1;
    if (update_all(bv, cls, marks, PyTuple_GET_ITEM(state, 0), true) < 0) return -1;
    if (register_each(bv, cls, PyTuple_GET_ITEM(state, 1)) < 0) return -1;
    return kinx_weak_pop(bv->unfilled, cls) < 0 ? -1 : 0;
}

PyObject *kinx_make_fill_class(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_takes(self, "_fill_class", nargs, 2)) return NULL;
    kinx_by_value *bv = kinx_by_value_of(self);
    PyObject *marks, *state = args[1];
    int received = kinx_weak_get(bv->received, args[0], &marks);
    if (received < 0) return NULL;
    if (!received) Py_RETURN_NONE; /* the process's own */
    int err = -1;
    if (!PyTuple_CheckExact(state) || PyTuple_GET_SIZE(state) != 3 ||
        !PyDict_CheckExact(PyTuple_GET_ITEM(state, 0)) ||
        !PyTuple_CheckExact(PyTuple_GET_ITEM(state, 1)) ||
        !PyTuple_CheckExact(PyTuple_GET_ITEM(state, 2))) {
        PyErr_SetString(PyExc_TypeError, "the contents of a class sent by value are damaged");
    } else {
        err = fill(bv, args[0], marks, state);
    }
    Py_DECREF(marks);
    return err < 0 ? NULL : Py_NewRef(Py_None);
}

/* -- Type variables --------------------------------------------------------------------------------- */

/* (token, make, name, args, options, module): make(name, *args, **options), unless it is known. */
static PyObject *new_variable(kinx_by_value *bv, PyObject *const *args) {
    PyObject *found;
    if (kinx_known(bv, args[0], &found) != 0) return found;
    PyObject *name = PyTuple_Pack(1, args[2]);
    PyObject *all = name ? PySequence_Concat(name, args[3]) : NULL;
    found = all ? PyObject_Call(args[1], all, args[4]) : NULL;
    Py_XDECREF(all);
    Py_XDECREF(name);
    if (found && (PyObject_SetAttr(found, bv->names.module, args[5]) < 0 ||
                  kinx_adopt(bv, args[0], found) < 0)) {
        Py_CLEAR(found);
    }
    return found;
}

PyObject *kinx_make_type_variable(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_takes(self, "_type_variable", nargs, 6)) return NULL;
    kinx_by_value *bv = kinx_by_value_of(self);
    if (!PyBytes_CheckExact(args[0]) || !PyTuple_CheckExact(args[3]) ||
        !PyDict_CheckExact(args[4])) {
        PyErr_SetString(PyExc_TypeError, "a type variable sent by value is damaged");
        return NULL;
    }
    PyObject *lock = lock_acquired(bv);
    if (!lock) return NULL;
    PyObject *found = new_variable(bv, args);
    lock_release(lock);
    return found;
}
