/* What says itself how it is pickled: registered reducers, by value, __reduce_ex__.
 *
 * Who is asked, in this order: the pickler's reducer_override; for instances of
 * plain classes nobody (save_instance.c); what was registered for the type
 * (dispatch_table, copyreg); by value; the object.
 *
 * The answer, a reduction, says what to call with which arguments and what to put
 * into the outcome.  What is called is written first, then the object is
 * remembered, then its contents are written, which may refer back to it. */
#include "by_value.h"
#include "library.h"

/* -- Writing a reduction ---------------------------------------------------------------- */

typedef struct reduction {
    PyObject *maker, *args, *state, *list_items, *dict_items, *setter; /* borrowed; NULL: none */
} reduction;

static int raise_item(kinx_pickler *p, const char *which, const char *what, PyObject *got) {
    PyErr_Format(kinx_pickling_error(p->ps),
                 "%s element of the tuple returned by __reduce__ must be %s, not %s", which, what,
                 Py_TYPE(got)->tp_name);
    return -1;
}

static int unpack(kinx_pickler *p, PyObject *reduced, reduction *r) {
    Py_ssize_t count = PyTuple_GET_SIZE(reduced);
    if (count < 2 || count > 6) {
        return kinx_raise_pickling(
            p, "tuple returned by __reduce__ must contain 2 through 6 elements");
    }
    PyObject *items[6] = {NULL};
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PyTuple_GET_ITEM(reduced, i);
        items[i] = item == Py_None ? NULL : item;
    }
    *r = (reduction){items[0], items[1], items[2], items[3], items[4], items[5]};
    if (!r->maker || !PyCallable_Check(r->maker)) {
        return kinx_raise_pickling(
            p, "first item of the tuple returned by __reduce__ must be callable");
    }
    if (!r->args || !PyTuple_Check(r->args)) {
        return kinx_raise_pickling(
            p, "second item of the tuple returned by __reduce__ must be a tuple");
    }
    if (r->list_items && !PyIter_Check(r->list_items)) {
        return raise_item(p, "fourth", "an iterator", r->list_items);
    }
    if (r->dict_items && !PyIter_Check(r->dict_items)) {
        return raise_item(p, "fifth", "an iterator", r->dict_items);
    }
    if (r->setter && !PyCallable_Check(r->setter)) {
        return raise_item(p, "sixth", "a function", r->setter);
    }
    return 0;
}

/* Write the arguments, and see to it that a trail through them says which it was. */
static int save_args(kinx_pickler *p, PyObject *args, PyObject *obj) {
    if (kinx_save(p, args) == 0) return 0;
    return obj ? kinx_trail(p, obj, KINX_STEP_ARGS, NULL) : -1;
}

static int save_maker(kinx_pickler *p, PyObject *maker, PyObject *obj, kinx_step step) {
    if (kinx_save(p, maker) == 0) return 0;
    return obj ? kinx_trail(p, obj, step, NULL) : -1;
}

enum newobj { NO_NEWOBJ, NEWOBJ, NEWOBJ_EX };

/* copyreg's makers are known by their names: others may bring their own. */
static int newobj_of(kinx_pickler *p, PyObject *maker, enum newobj *which) {
    *which = NO_NEWOBJ;
    if (p->protocol < 2 || PyType_Check(maker) || PyCFunction_CheckExact(maker)) return 0;
    if (!PyFunction_Check(maker) && kinx_not_bare(p) < 0) return -1;
    PyObject *name;
    int named = kinx_lookup_attr(maker, p->ps->names.__name__, &name);
    if (named <= 0) return named;
    if (PyUnicode_Check(name)) {
        if (PyUnicode_Compare(name, p->ps->names.__newobj__) == 0) *which = NEWOBJ;
        else if (PyUnicode_Compare(name, p->ps->names.__newobj_ex__) == 0) *which = NEWOBJ_EX;
    }
    Py_DECREF(name);
    return PyErr_Occurred() ? -1 : 0;
}

/* functools.partial(cls.__new__, cls, *args, **kwds): what NEWOBJ_EX means, for protocols
 * that do not have it.  New reference. */
static PyObject *partial_new(kinx_pickler *p, PyObject *cls, PyObject *args, PyObject *kwds) {
    PyObject *partial = kinx_import(&p->ps->partial, "functools", "partial");
    PyObject *make = partial ? PyObject_GetAttr(cls, p->ps->names.__new__) : NULL;
    if (!make) return NULL;
    PyObject *all = PyTuple_New(2 + PyTuple_GET_SIZE(args));
    if (!all) {
        Py_DECREF(make);
        return NULL;
    }
    PyTuple_SET_ITEM(all, 0, make);
    PyTuple_SET_ITEM(all, 1, Py_NewRef(cls));
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args); i++) {
        PyTuple_SET_ITEM(all, 2 + i, Py_NewRef(PyTuple_GET_ITEM(args, i)));
    }
    PyObject *bound = PyObject_Call(partial, all, kwds);
    Py_DECREF(all);
    return bound;
}

static int save_partial_new(kinx_pickler *p, PyObject *obj, PyObject *cls, PyObject *args,
                            PyObject *kwds) {
    if (kinx_not_bare(p) < 0) return -1;
    PyObject *maker = partial_new(p, cls, args, kwds);
    PyObject *none = maker ? PyTuple_New(0) : NULL;
    int err = none ? save_maker(p, maker, obj, KINX_STEP_MAKER) : -1;
    if (err == 0) err = save_args(p, none, obj);
    Py_XDECREF(none);
    Py_XDECREF(maker);
    return err < 0 ? -1 : kinx_put_op(p, KIN_OP_REDUCE);
}

static int save_newobj_ex(kinx_pickler *p, const reduction *r, PyObject *obj) {
    if (PyTuple_GET_SIZE(r->args) != 3) {
        PyErr_Format(kinx_pickling_error(p->ps),
                     "length of the NEWOBJ_EX argument tuple must be exactly 3, not %zd",
                     PyTuple_GET_SIZE(r->args));
        return -1;
    }
    PyObject *cls = PyTuple_GET_ITEM(r->args, 0);
    PyObject *args = PyTuple_GET_ITEM(r->args, 1), *kwds = PyTuple_GET_ITEM(r->args, 2);
    const char *wrong =
        !PyType_Check(cls)     ? "first item from NEWOBJ_EX argument tuple must be a class"
        : !PyTuple_Check(args) ? "second item from NEWOBJ_EX argument tuple must be a tuple"
        : !PyDict_Check(kwds)  ? "third item from NEWOBJ_EX argument tuple must be a dict"
                               : NULL;
    if (wrong) {
        PyObject *got = !PyType_Check(cls) ? cls : !PyTuple_Check(args) ? args : kwds;
        PyErr_Format(kinx_pickling_error(p->ps), "%s, not %.200s", wrong, Py_TYPE(got)->tp_name);
        return -1;
    }
    if (p->protocol < 4) return save_partial_new(p, obj, cls, args, kwds);
    if (save_maker(p, cls, obj, KINX_STEP_CLASS) < 0) return -1;
    if (save_args(p, args, obj) < 0) return -1;
    if (kinx_save(p, kwds) < 0) return obj ? kinx_trail(p, obj, KINX_STEP_ARGS, NULL) : -1;
    return kinx_put_op(p, KIN_OP_NEWOBJ_EX);
}

/* An object that says it is of another class than it makes would come out as that one. */
static int check_newobj(kinx_pickler *p, PyObject *args, PyObject *obj) {
    if (PyTuple_GET_SIZE(args) < 1) return kinx_raise_pickling(p, "__newobj__ arglist is empty");
    PyObject *cls = PyTuple_GET_ITEM(args, 0);
    if (!PyType_Check(cls)) {
        return kinx_raise_pickling(p, "args[0] from __newobj__ args is not a type");
    }
    if (!obj || cls == (PyObject *)Py_TYPE(obj)) return 0;
    PyObject *own = PyObject_GetAttr(obj, p->ps->names.__class__);
    if (!own) return -1;
    Py_DECREF(own);
    if (own == cls) return 0;
    return kinx_raise_pickling(p, "args[0] from __newobj__ args has the wrong class");
}

static int save_newobj(kinx_pickler *p, const reduction *r, PyObject *obj) {
    if (check_newobj(p, r->args, obj) < 0) return -1;
    if (save_maker(p, PyTuple_GET_ITEM(r->args, 0), obj, KINX_STEP_CLASS) < 0) return -1;
    PyObject *rest = PyTuple_GetSlice(r->args, 1, PyTuple_GET_SIZE(r->args));
    if (!rest) return -1;
    int err = save_args(p, rest, obj);
    Py_DECREF(rest);
    return err < 0 ? -1 : kinx_put_op(p, KIN_OP_NEWOBJ);
}

static int save_making(kinx_pickler *p, const reduction *r, PyObject *obj) {
    enum newobj which;
    if (newobj_of(p, r->maker, &which) < 0) return -1;
    if (which == NEWOBJ) return save_newobj(p, r, obj);
    if (which == NEWOBJ_EX) return save_newobj_ex(p, r, obj);
    if (save_maker(p, r->maker, obj, KINX_STEP_MAKER) < 0) return -1;
    if (save_args(p, r->args, obj) < 0) return -1;
    return kinx_put_op(p, KIN_OP_REDUCE);
}

/* setter(obj, state), whose result is dropped. */
static int save_set_state(kinx_pickler *p, const reduction *r, PyObject *obj) {
    if (save_maker(p, r->setter, obj, KINX_STEP_SETTER) < 0) return -1;
    if (kinx_save(p, obj) < 0) return -1; /* it is in the memo */
    if (kinx_save(p, r->state) < 0) return kinx_trail(p, obj, KINX_STEP_STATE, NULL);
    if (kinx_put_op(p, KIN_OP_TUPLE2) < 0 || kinx_put_op(p, KIN_OP_REDUCE) < 0) return -1;
    return kinx_put_op(p, KIN_OP_POP);
}

static int save_contents(kinx_pickler *p, const reduction *r, PyObject *obj) {
    if (r->list_items && kinx_save_list_items(p, r->list_items, obj) < 0) return -1;
    if (r->dict_items && kinx_save_dict_items(p, r->dict_items, obj) < 0) return -1;
    if (!r->state) return 0;
    if (r->setter) return save_set_state(p, r, obj);
    if (kinx_save(p, r->state) < 0) return obj ? kinx_trail(p, obj, KINX_STEP_STATE, NULL) : -1;
    return kinx_put_op(p, KIN_OP_BUILD);
}

int kinx_save_reduce(kinx_pickler *p, PyObject *reduced, PyObject *obj, bool sole) {
    reduction r;
    if (unpack(p, reduced, &r) < 0 || save_making(p, &r, obj) < 0) return -1;
    if (obj) {
        int met = kinx_save_met_again(p, obj, sole, 1);
        if (met) return met < 0 ? -1 : 0;
        /* What puts the state into it is handed the object: it must be there to be fetched. */
        if (kinx_remember(p, obj, sole && !r.setter) < 0) return -1;
    }
    return save_contents(p, &r, obj);
}

/* -- The items that a reduction brings ------------------------------------------------------ */

typedef int save_one(kinx_pickler *p, PyObject *item, PyObject *obj, Py_ssize_t index);

static int save_list_item(kinx_pickler *p, PyObject *item, PyObject *obj, Py_ssize_t index) {
    if (kinx_save(p, item) == 0) return 0;
    return obj ? kinx_trail_index(p, obj, KINX_STEP_LIST_ITEM, index) : -1;
}

static int save_dict_item(kinx_pickler *p, PyObject *item, PyObject *obj, Py_ssize_t index) {
    if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != 2) {
        PyErr_SetString(PyExc_TypeError, "dict items iterator must return 2-tuples");
        return -1;
    }
    PyObject *key = PyTuple_GET_ITEM(item, 0), *value = PyTuple_GET_ITEM(item, 1);
    if (kinx_save(p, key) < 0) return obj ? kinx_trail(p, obj, KINX_STEP_DICT_KEY, key) : -1;
    if (kinx_save(p, value) < 0) return obj ? kinx_trail(p, obj, KINX_STEP_DICT_VALUE, key) : -1;
    return 0;
}

/* Up to a batch of items that begins with `item` (stolen), with or without a mark. *next:
 * the item behind it, or NULL. */
static int save_batch(kinx_pickler *p, PyObject *iterator, PyObject *item, save_one *save,
                      PyObject *obj, Py_ssize_t *index, PyObject **next) {
    for (Py_ssize_t left = KINX_BATCH; item && left > 0; left--) {
        int err = save(p, item, obj, *index);
        Py_DECREF(item);
        if (err < 0) return -1;
        ++*index;
        item = PyIter_Next(iterator);
    }
    *next = item;
    return !item && PyErr_Occurred() ? -1 : 0;
}

static int save_items(kinx_pickler *p, PyObject *iterator, save_one *save, PyObject *obj,
                      kin_opcode one_op, kin_opcode many_op) {
    Py_ssize_t index = 0;
    PyObject *item = PyIter_Next(iterator);
    while (item) {
        PyObject *next = PyIter_Next(iterator);
        bool one = !next || p->protocol < 1;
        if (!next && PyErr_Occurred()) {
            Py_DECREF(item);
            return -1;
        }
        if (!one && kinx_put_op(p, KIN_OP_MARK) < 0) {
            Py_DECREF(item);
            Py_DECREF(next);
            return -1;
        }
        int err = save(p, item, obj, index++);
        Py_DECREF(item);
        if (err < 0) {
            Py_XDECREF(next);
            return -1;
        }
        item = next;
        if (!one) {
            PyObject *rest = NULL;
            if (save_batch(p, iterator, next, save, obj, &index, &rest) < 0) return -1;
            item = rest;
        }
        if (kinx_put_op(p, one ? one_op : many_op) < 0) {
            Py_XDECREF(item);
            return -1;
        }
    }
    return PyErr_Occurred() ? -1 : 0;
}

int kinx_save_list_items(kinx_pickler *p, PyObject *iterator, PyObject *obj) {
    return save_items(p, iterator, save_list_item, obj, KIN_OP_APPEND, KIN_OP_APPENDS);
}

int kinx_save_dict_items(kinx_pickler *p, PyObject *iterator, PyObject *obj) {
    return save_items(p, iterator, save_dict_item, obj, KIN_OP_SETITEM, KIN_OP_SETITEMS);
}

/* -- Asking for it ---------------------------------------------------------------------------- */

PyObject *kinx_dispatch_table(kinx_pickler *p) {
    return p->dispatch_table ? p->dispatch_table : p->ps->copyreg_table;
}

static PyObject *look_up(PyObject *table, PyObject *type) {
    if (PyDict_CheckExact(table)) return Py_XNewRef(PyDict_GetItemWithError(table, type));
    PyObject *found = PyObject_GetItem(table, type);
    if (!found && PyErr_ExceptionMatches(PyExc_KeyError)) PyErr_Clear();
    return found;
}

PyObject *kinx_registered_reducer(kinx_pickler *p, PyTypeObject *type) {
    PyObject *table = kinx_dispatch_table(p);
    /* A table of the user's own making, a metaclass with a hash of its own: their code. */
    bool plain = PyDict_CheckExact(table) && Py_TYPE(type)->tp_hash == PyType_Type.tp_hash;
    if (!plain && kinx_not_bare(p) < 0) return NULL;
    if (p->extra_reducers) {
        PyObject *found = look_up(p->extra_reducers, (PyObject *)type);
        if (found || PyErr_Occurred()) return found;
    }
    return look_up(table, (PyObject *)type);
}

/* A class made in C whose metaclass has a reducer, as numpy.dtype, which stands in each pickle
 * of an array: what the reducer said is kept, if it is a name.  New reference. */
static PyObject *reduce_class_of_c(kinx_pickler *p, PyObject *reducer, PyObject *cls) {
    PyObject *kept = PyDict_GetItemWithError(p->ps->class_names, cls);
    if (kept && PyTuple_GET_ITEM(kept, 0) == reducer) return Py_NewRef(PyTuple_GET_ITEM(kept, 1));
    PyObject *reduced = PyErr_Occurred() ? NULL : PyObject_CallOneArg(reducer, cls);
    if (!reduced) return NULL;
    int again;
    if (PyUnicode_CheckExact(reduced)) {
        PyObject *entry = PyTuple_Pack(2, reducer, reduced);
        again = entry ? PyDict_SetItem(p->ps->class_names, cls, entry) : -1;
        Py_XDECREF(entry);
        if (again == 0) again = kinx_was_asked(p);
    } else {
        again = kinx_not_bare(p);
    }
    if (again < 0) Py_CLEAR(reduced);
    return reduced;
}

/* NotImplemented if nothing is registered.  New reference. */
static PyObject *reduce_as_registered(kinx_pickler *p, PyObject *obj) {
    PyObject *reducer = kinx_registered_reducer(p, Py_TYPE(obj));
    if (!reducer) {
        return p->restart || PyErr_Occurred() ? NULL : Py_NewRef(Py_NotImplemented);
    }
    PyObject *reduced = NULL;
    if (PyType_Check(obj) && !PyType_HasFeature((PyTypeObject *)obj, Py_TPFLAGS_HEAPTYPE)) {
        reduced = reduce_class_of_c(p, reducer, obj);
    } else if (kinx_is_library_function(p, reducer) || kinx_not_bare(p) == 0) {
        reduced = PyObject_CallOneArg(reducer, obj);
    }
    Py_DECREF(reducer);
    return reduced;
}

static PyObject *reduce_by_override(kinx_pickler *p, PyObject *obj) {
    return kinx_not_bare(p) < 0 ? NULL : PyObject_CallOneArg(p->reducer_override, obj);
}

/* obj.__reduce_ex__(protocol), or obj.__reduce__() where it has only that. */
static PyObject *reduce_by_itself(kinx_pickler *p, PyObject *obj) {
    PyObject *method, *enums;
    if (kinx_reduce_enum(p, obj, &enums) != 0) return enums;
    if (p->bare && !kinx_reduces_by_library(p, obj) && kinx_not_bare(p) < 0) return NULL;
    if (kinx_lookup_attr(obj, p->ps->names.__reduce_ex__, &method) < 0) return NULL;
    if (method) {
        PyObject *protocol = PyLong_FromLong(p->protocol);
        PyObject *reduced = protocol ? PyObject_CallOneArg(method, protocol) : NULL;
        Py_XDECREF(protocol);
        Py_DECREF(method);
        return reduced;
    }
    method = PyObject_GetAttr(obj, p->ps->names.__reduce__);
    if (!method) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Format(kinx_pickling_error(p->ps), "can't pickle '%.200s' object: %R",
                         Py_TYPE(obj)->tp_name, obj);
        }
        return NULL;
    }
    PyObject *reduced = PyObject_CallNoArgs(method);
    Py_DECREF(method);
    return reduced;
}

/* type(None), type(...), type(NotImplemented) have no names: (type, (thing,)). */
static PyObject *singleton_of(PyObject *cls) {
    if (cls == (PyObject *)Py_TYPE(Py_None)) return Py_None;
    if (cls == (PyObject *)Py_TYPE(Py_Ellipsis)) return Py_Ellipsis;
    if (cls == (PyObject *)Py_TYPE(Py_NotImplemented)) return Py_NotImplemented;
    return NULL;
}

/* A class that goes by value is written before its first instance, for its value may lead
 * to that instance, through a closure or a global; if the instance were asked for its state
 * first, it would be asked twice.  1: the instance has been written meanwhile. */
static int save_class_first(kinx_pickler *p, PyObject *obj, bool sole) {
    PyTypeObject *type = Py_TYPE(obj);
    if (!p->by_value || !PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) || p->fast) return 0;
    if (kinx_memo_find(&p->classes, (PyObject *)type) >= 0) return 0;
    if (kinx_memo_add(&p->classes, (PyObject *)type) < 0) return -1;
    int by_value = kinx_class_goes_by_value(p, type);
    if (by_value <= 0) return by_value;
    if (kinx_save(p, (PyObject *)type) < 0) return kinx_trail(p, obj, KINX_STEP_CLASS, NULL);
    if (kinx_put_op(p, KIN_OP_POP) < 0) return -1;
    return kinx_save_met_again(p, obj, sole, 0);
}

/* What stands for obj: a reduction, a name, or NotImplemented for its own name.  1 in *done
 * if it has been written.  New reference. */
static PyObject *reduce(kinx_pickler *p, PyObject *obj, bool sole, bool *done) {
    PyTypeObject *type = Py_TYPE(obj);
    PyObject *reduced;
    if (p->reducer_override) {
        reduced = reduce_by_override(p, obj);
        if (reduced != Py_NotImplemented) return reduced;
        Py_DECREF(reduced);
        int instance = kinx_save_instance(p, obj, sole);
        if (instance != 0) {
            *done = instance > 0;
            return NULL;
        }
    }
    bool is_class = PyType_Check(obj), is_function = type == &PyFunction_Type;
    if (!is_function && type != &PyType_Type) {
        reduced = reduce_as_registered(p, obj);
        if (reduced != Py_NotImplemented) return reduced;
        Py_DECREF(reduced);
    } else if (is_class && singleton_of(obj)) {
        return Py_BuildValue("O(O)", Py_TYPE(obj), singleton_of(obj));
    }
    if (p->by_value) {
        reduced = kinx_reduce_by_value(p, obj);
        if (reduced != Py_NotImplemented) return reduced;
        Py_DECREF(reduced);
    }
    if (is_class || is_function) return Py_NewRef(Py_NotImplemented);
    int written = save_class_first(p, obj, sole);
    if (written != 0) {
        *done = written > 0;
        return NULL;
    }
    return reduce_by_itself(p, obj);
}

int kinx_save_other(kinx_pickler *p, PyObject *obj, bool sole) {
    bool done = false;
    PyObject *own;
    if (!p->reducer_override && kinx_is_own_maker(p->st, obj, &own)) {
        return kinx_save_global(p, obj, NULL);
    }
    PyObject *reduced = reduce(p, obj, sole, &done);
    if (!reduced) return done ? 0 : -1;
    int err;
    if (reduced == Py_NotImplemented) err = kinx_save_global(p, obj, NULL);
    else if (PyUnicode_Check(reduced)) err = kinx_save_global(p, obj, reduced);
    else if (PyTuple_Check(reduced)) err = kinx_save_reduce(p, reduced, obj, sole);
    else err = kinx_raise_pickling(p, "__reduce__ must return a string or tuple");
    Py_DECREF(reduced);
    return err;
}
