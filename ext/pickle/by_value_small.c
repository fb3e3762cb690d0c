/* Reducers for small things that the standard pickle refuses, or takes apart.
 *
 * They are met inside the functions and classes that travel by value: a property, a
 * mapping proxy, a bound method, the registry of a generic function.  Sent by
 * themselves they work just as well. */
#include "by_value_parts.h"

/* A reduction that calls `maker`, which any process has.  Steals args and state; state: NULL for
 * none.  New. */
static PyObject *plainly(PyObject *maker, PyObject *args, PyObject *state) {
    PyObject *reduced = NULL;
    if (args) reduced = state ? PyTuple_Pack(3, maker, args, state) : PyTuple_Pack(2, maker, args);
    Py_XDECREF(args);
    Py_XDECREF(state);
    return reduced;
}

/* -- Methods and wrappers ------------------------------------------------------------------ */

/* What is called `name` in cls or, if it has none, in the next of its mro.  1, 0 or -1. */
static int look_in_mro(PyTypeObject *cls, PyObject *name, PyObject **found) {
    PyObject *mro = cls->tp_mro;
    *found = NULL;
    Py_XINCREF(mro);
    int answer = 0;
    for (Py_ssize_t i = 0; answer == 0 && mro && i < PyTuple_GET_SIZE(mro); i++) {
        PyObject *dict = kinx_type_dict((PyTypeObject *)PyTuple_GET_ITEM(mro, i));
        if (!dict) continue;
        *found = PyDict_GetItemWithError(dict, name);
        Py_XINCREF(*found);
        answer = *found ? 1 : PyErr_Occurred() ? -1 : 0;
        Py_DECREF(dict);
    }
    Py_XDECREF(mro);
    return answer;
}

/* Whether the class attribute is the function, or wraps it. */
static int is_function_in(PyObject *attribute, PyObject *function) {
    if (PyFunction_Check(attribute)) return attribute == function;
    PyObject *inner;
    int answer = kinx_lookup_attr_string(attribute, "__func__", &inner);
    if (answer >= 0) answer = (answer ? inner : attribute) == function;
    Py_XDECREF(inner);
    return answer;
}

static PyObject *named_method(kinx_pickler *p, PyObject *holder, PyObject *name, PyObject *function,
                              PyTypeObject *cls) {
    kinx_by_value *bv = p->st->by_value;
    int standing = kinx_standing_of(p, (PyObject *)cls);
    if (standing < 0) return NULL;
    if (standing == KINX_BY_NAME) Py_RETURN_NOTIMPLEMENTED;
    return kinx_reduction(bv, KINX_MAKER_method, PyTuple_Pack(3, holder, name, function), NULL,
                          KINX_NO_FILLER);
}

/* Methods travel as attributes of what they are bound to, if that is what they are. */
static PyObject *reduce_method(kinx_pickler *p, PyObject *method) {
    PyObject *holder = PyMethod_GET_SELF(method), *function = PyMethod_GET_FUNCTION(method);
    PyTypeObject *cls = PyType_Check(holder) ? (PyTypeObject *)holder : Py_TYPE(holder);
    PyObject *name, *found = NULL, *reduced = NULL;
    if (!PyFunction_Check(function) && kinx_not_bare(p) < 0) return NULL;
    int own = kinx_lookup_attr(function, p->st->by_value->names.name, &name);
    if (own > 0 && PyUnicode_Check(name)) own = look_in_mro(cls, name, &found);
    else if (own > 0) own = 0;
    if (own > 0 && !kinx_answers_by_itself(found)) own = kinx_not_bare(p) < 0 ? -1 : 1;
    if (own > 0) own = is_function_in(found, function);
    if (own > 0) reduced = named_method(p, holder, name, function, cls);
    else if (own == 0) {
        reduced = plainly((PyObject *)&PyMethod_Type, PyTuple_Pack(2, function, holder), NULL);
    }
    Py_XDECREF(found);
    Py_XDECREF(name);
    return reduced;
}

static PyObject *reduce_property(kinx_pickler *p, PyObject *prop) {
    static const char *const names[] = {"fget", "fset", "fdel", "__doc__"};
    PyObject *args = PyTuple_New(4);
    for (Py_ssize_t i = 0; args && i < 4; i++) {
        PyObject *part = PyObject_GetAttrString(prop, names[i]);
        if (part) PyTuple_SET_ITEM(args, i, part);
        else Py_CLEAR(args);
    }
    return plainly((PyObject *)&PyProperty_Type, args, NULL);
}

/* classmethod, staticmethod */
static PyObject *reduce_wrapped(kinx_pickler *p, PyObject *method) {
    PyObject *function = PyObject_GetAttrString(method, "__func__");
    PyObject *args = function ? PyTuple_Pack(1, function) : NULL;
    Py_XDECREF(function);
    return plainly((PyObject *)Py_TYPE(method), args, NULL);
}

/* A copy of vars(thing) without one name.  New. */
static PyObject *attributes_but(kinx_by_value *bv, PyObject *thing, const char *name) {
    PyObject *dict = PyObject_GetAttr(thing, bv->names.dict);
    PyObject *names = dict ? PyDict_Copy(dict) : NULL;
    Py_XDECREF(dict);
    if (names && PyDict_DelItemString(names, name) < 0) {
        if (PyErr_ExceptionMatches(PyExc_KeyError)) PyErr_Clear();
        else Py_CLEAR(names);
    }
    return names;
}

/* Before 3.12 it holds a lock, which its maker makes. */
static PyObject *reduce_cached_property(kinx_pickler *p, PyObject *prop) {
    kinx_by_value *bv = p->st->by_value;
    PyObject *function = PyObject_GetAttrString(prop, "func");
    PyObject *args = function ? PyTuple_Pack(1, function) : NULL;
    Py_XDECREF(function);
    PyObject *names = args ? attributes_but(bv, prop, "lock") : NULL;
    if (!names) Py_CLEAR(args);
    return plainly(bv->cached_property, args, names);
}

/* (function, maxsize, typed, where), the arguments of its maker.  New. */
static PyObject *making_of_cache(kinx_pickler *p, PyObject *wrapper, int standing) {
    PyObject *function = PyObject_GetAttr(wrapper, p->st->by_value->names.wrapped), *options = NULL;
    PyObject *maxsize = NULL, *typed = NULL, *where = NULL, *args = NULL;
    if (function) options = PyObject_CallMethod(wrapper, "cache_parameters", NULL);
    if (options) maxsize = PyMapping_GetItemString(options, "maxsize");
    if (maxsize) typed = PyMapping_GetItemString(options, "typed");
    if (typed) where = kinx_where(p, standing, wrapper);
    if (where) args = PyTuple_Pack(4, function, maxsize, typed, where);
    Py_XDECREF(function);
    Py_XDECREF(options);
    Py_XDECREF(maxsize);
    Py_XDECREF(typed);
    Py_XDECREF(where);
    return args;
}

static PyObject *reduce_lru_cache(kinx_pickler *p, PyObject *wrapper) {
    kinx_by_value *bv = p->st->by_value;
    int standing = kinx_standing_of(p, wrapper);
    if (standing < 0) return NULL;
    if (standing == KINX_BY_NAME) Py_RETURN_NOTIMPLEMENTED;
    if (kinx_not_bare(p) < 0) return NULL; /* anybody may have put in a cache_parameters() */
    PyObject *args = making_of_cache(p, wrapper, standing);
    /* `cache_parameters` is made anew with the wrapper. */
    PyObject *names = args ? attributes_but(bv, wrapper, "cache_parameters") : NULL;
    return kinx_reduction(bv, KINX_MAKER_lru_cache, args, names, KINX_MAKER_fill_lru_cache);
}

/* -- Proxies and views ----------------------------------------------------------------------- */

static int note_referent(PyObject *thing, void *found) {
    *(PyObject **)found = thing;
    return 1;
}

/* What the proxy refers to, which others may share.  Borrowed.  Such a proxy is of a static type
 * and refers to nothing else. */
static PyObject *behind(PyObject *proxy) {
    PyObject *found = NULL;
    Py_TYPE(proxy)->tp_traverse(proxy, note_referent, &found);
    if (!found) PyErr_Format(PyExc_TypeError, "an empty %.100s", Py_TYPE(proxy)->tp_name);
    return found;
}

static PyObject *reduce_mapping_proxy(kinx_pickler *p, PyObject *proxy) {
    PyObject *mapping = behind(proxy);
    PyObject *args = mapping ? PyTuple_Pack(1, mapping) : NULL;
    return plainly((PyObject *)&PyDictProxy_Type, args, NULL);
}

static PyObject *reduce_dict_view(kinx_pickler *p, PyObject *view) {
    PyTypeObject *type = Py_TYPE(view), *owner = &PyDict_Type;
    if (type == &PyODictKeys_Type || type == &PyODictValues_Type || type == &PyODictItems_Type) {
        owner = &PyODict_Type;
    }
    const char *name = "items";
    if (type == &PyDictKeys_Type || type == &PyODictKeys_Type) name = "keys";
    else if (type == &PyDictValues_Type || type == &PyODictValues_Type) name = "values";
    PyObject *mapping = behind(view);
    PyObject *maker = mapping ? PyObject_GetAttrString((PyObject *)owner, name) : NULL;
    if (!maker) return NULL;
    PyObject *reduced = plainly(maker, PyTuple_Pack(1, mapping), NULL);
    Py_DECREF(maker);
    return reduced;
}

/* The formats that memoryview.cast() knows. */
static bool is_castable(const char *format) {
    return format && strlen(format) == 1 && strchr("cbB?hHiIlLqQnNfdeP", *format);
}

/* A view over a copy; out of band, where the receiver is given the buffer itself. */
static PyObject *reduce_view(kinx_pickler *p, PyObject *view) {
    /* Read by attributes, which raise if the view was released. */
    PyObject *shape = PyObject_GetAttrString(view, "shape");
    PyObject *format = shape ? PyObject_GetAttrString(view, "format") : NULL;
    PyObject *buffer = NULL, *args = NULL;
    if (format) {
        const Py_buffer *shown = PyMemoryView_GET_BUFFER(view);
        if (!is_castable(shown->format) || (shown->len == 0 && shown->ndim > 1)) {
            Py_DECREF(shape);
            Py_DECREF(format);
            Py_RETURN_NOTIMPLEMENTED;
        }
        bool in_place = p->protocol >= 5 && PyBuffer_IsContiguous(shown, 'C');
        buffer =
            in_place ? PyPickleBuffer_FromObject(view) : PyObject_CallMethod(view, "tobytes", NULL);
    }
    if (buffer) args = PyTuple_Pack(3, buffer, format, shape);
    Py_XDECREF(buffer);
    Py_XDECREF(format);
    Py_XDECREF(shape);
    return kinx_reduction(p->st->by_value, KINX_MAKER_view, args, NULL, KINX_NO_FILLER);
}

/* -- Things that stand somewhere ---------------------------------------------------------------- */

/* A getset of a class made in C; the class has it, though asking it may give something else. */
static PyObject *reduce_getset(kinx_pickler *p, PyObject *descriptor) {
    PyObject *cls = (PyObject *)PyDescr_TYPE(descriptor), *name = PyDescr_NAME(descriptor);
    PyObject *args = PyTuple_Pack(2, cls, name);
    return kinx_reduction(p->st->by_value, KINX_MAKER_descriptor, args, NULL, KINX_NO_FILLER);
}

/* The standard streams are the receiver's own; any other file is refused. */
static PyObject *reduce_stream(kinx_pickler *p, PyObject *stream) {
    static const char *const names[] = {"stdout", "stderr", "__stdout__", "__stderr__"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (PySys_GetObject(names[i]) != stream) continue;
        PyObject *args = Py_BuildValue("ss", "sys", names[i]);
        return kinx_reduction(p->st->by_value, KINX_MAKER_attribute, args, NULL, KINX_NO_FILLER);
    }
    Py_RETURN_NOTIMPLEMENTED;
}

/* -- Weak collections ------------------------------------------------------------------------ */

/* What they hand out is in use elsewhere, too: the pickler has to know.  What nothing else in
 * the receiver holds is gone from the collection as soon as it has arrived. */
static PyObject *reduce_weak_mapping(kinx_pickler *p, PyObject *mapping) {
    if (kinx_not_bare(p) < 0) return NULL;
    PyObject *items = PyMapping_Items(mapping);
    PyObject *iterator = items ? PyObject_GetIter(items) : NULL, *none = NULL, *reduced = NULL;
    if (iterator) none = PyTuple_New(0);
    if (none) {
        reduced = PyTuple_Pack(5, (PyObject *)Py_TYPE(mapping), none, Py_None, Py_None, iterator);
    }
    Py_XDECREF(none);
    Py_XDECREF(iterator);
    Py_XDECREF(items);
    return reduced;
}

static PyObject *reduce_weak_set(kinx_pickler *p, PyObject *weak_set) {
    if (kinx_not_bare(p) < 0) return NULL;
    PyObject *things = PySequence_List(weak_set);
    PyObject *args = things ? PyTuple_Pack(1, things) : NULL;
    Py_XDECREF(things);
    return plainly((PyObject *)Py_TYPE(weak_set), args, NULL);
}

/* A type of a Python module, imported into *slot. */
static int add_of_module(kinx_by_value *bv, PyObject **slot, const char *module, const char *name,
                         kinx_reducer reduce) {
    if (!kinx_import(slot, module, name)) return -1;
    return kinx_add_reducer(bv, *slot, reduce, NULL);
}

static int learn_functools(kinx_by_value *bv) {
    PyObject *lru_cache_type = NULL; /* functools.py calls the type of its wrappers so */
    int err =
        add_of_module(bv, &lru_cache_type, "functools", "_lru_cache_wrapper", reduce_lru_cache);
    Py_XDECREF(lru_cache_type);
    if (err < 0) return -1;
    return add_of_module(bv, &bv->cached_property, "functools", "cached_property",
                         reduce_cached_property);
}

static int learn_weak_sets(kinx_by_value *bv) {
    return add_of_module(bv, &bv->weak_set, "_weakrefset", "WeakSet", reduce_weak_set);
}

static int learn_weak_mappings(kinx_by_value *bv) {
    int err =
        add_of_module(bv, &bv->weak_key_dict, "weakref", "WeakKeyDictionary", reduce_weak_mapping);
    if (err < 0) return -1;
    return add_of_module(bv, &bv->weak_value_dict, "weakref", "WeakValueDictionary",
                         reduce_weak_mapping);
}

const kinx_late_module kinx_late_modules[KINX_LATE_MODULES] = {
    {"functools", learn_functools},
    {"_weakrefset", learn_weak_sets},
    {"weakref", learn_weak_mappings},
};

int kinx_add_small_reducers(kinx_by_value *bv) {
    const struct {
        PyTypeObject *type;
        kinx_reducer reduce;
    } own[] = {
        {&PyMethod_Type, reduce_method},           {&PyProperty_Type, reduce_property},
        {&PyClassMethod_Type, reduce_wrapped},     {&PyStaticMethod_Type, reduce_wrapped},
        {&PyDictProxy_Type, reduce_mapping_proxy}, {&PyDictKeys_Type, reduce_dict_view},
        {&PyDictValues_Type, reduce_dict_view},    {&PyDictItems_Type, reduce_dict_view},
        {&PyODictKeys_Type, reduce_dict_view},     {&PyODictValues_Type, reduce_dict_view},
        {&PyODictItems_Type, reduce_dict_view},    {&PyGetSetDescr_Type, reduce_getset},
        {&PyMemoryView_Type, reduce_view},
    };
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        if (kinx_add_reducer(bv, (PyObject *)own[i].type, own[i].reduce, NULL) < 0) return -1;
    }
    PyObject *stream_type = NULL;
    int err = add_of_module(bv, &stream_type, "_io", "TextIOWrapper", reduce_stream);
    Py_XDECREF(stream_type);
    return err;
}
