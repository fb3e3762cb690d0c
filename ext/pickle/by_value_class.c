/* The sending side of classes: what it takes to make one, and what is put into it afterwards.
 *
 * Most of a class is its __dict__.  Some entries are made with the class and must not be
 * sent (slots, __dict__, the tables of an abstract class); two things must be there when
 * it is made (__slots__, the qualified name).
 *
 * An enum needs more, which kinfolk._enums knows: its members are made with it, because
 * whatever refers to one looks it up in the class as soon as the class exists. */
#include "by_value_parts.h"

#define HEAP_TYPE Py_TPFLAGS_HEAPTYPE
#define IMMUTABLE_TYPE (1UL << 8) /* Py_TPFLAGS_IMMUTABLETYPE */

static bool is_slot(PyObject *cls, PyObject *value) {
    return Py_IS_TYPE(value, &PyMemberDescr_Type) && (PyObject *)PyDescr_TYPE(value) == cls;
}

/* Made by a ctypes structure from its _fields_. */
static bool is_ctypes_field(PyObject *value) {
    const char *name = Py_TYPE(value)->tp_name;
    return strcmp(name, "_ctypes.CField") == 0 || strcmp(name, "ctypes.CField") == 0;
}

/* -- Which classes can be sent ------------------------------------------------------------- */

bool kinx_may_go_by_value(PyTypeObject *cls) {
    return PyType_HasFeature(cls, HEAP_TYPE) && !PyType_HasFeature(cls, IMMUTABLE_TYPE);
}

/* A class made in C cannot be made again; it has methods that are. */
static int is_made_in_python(PyObject *cls) {
    if (!kinx_may_go_by_value((PyTypeObject *)cls)) return 0;
    PyObject *dict = kinx_type_dict((PyTypeObject *)cls);
    if (!dict) return -1;
    PyObject *name, *value;
    Py_ssize_t at = 0;
    int answer = 1;
    while (answer && PyDict_Next(dict, &at, &name, &value)) {
        if (Py_IS_TYPE(value, &PyMethodDescr_Type) && (PyObject *)PyDescr_TYPE(value) == cls) {
            answer = 0;
        }
    }
    Py_DECREF(dict);
    return answer;
}

/* 1 if value is a class that says it is of `builtins` and is not found there. */
static int needs_alias(kinx_by_value *bv, PyObject *value) {
    if (!PyType_Check(value)) return 0;
    PyObject *module_name, *qualname = NULL, *found = NULL;
    int answer = kinx_lookup_attr(value, bv->names.module, &module_name);
    if (answer > 0) {
        answer = PyUnicode_Check(module_name) &&
                 PyUnicode_CompareWithASCIIString(module_name, "builtins") == 0;
    }
    if (answer > 0) answer = kinx_lookup_attr(value, bv->names.qualname, &qualname);
    if (answer > 0) {
        answer = kinx_resolve(NULL, module_name, qualname, &found);
        if (answer >= 0) answer = found != value;
    }
    Py_XDECREF(found);
    Py_XDECREF(qualname);
    Py_XDECREF(module_name);
    return answer;
}

static int add_aliases(kinx_by_value *bv, PyObject *aliases, const char *module_name) {
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *names = module ? PyDict_Copy(kinx_module_dict(module)) : NULL;
    Py_XDECREF(module);
    if (!names) return -1;
    PyObject *name, *value;
    Py_ssize_t at = 0;
    int answer = 0;
    while (answer >= 0 && PyDict_Next(names, &at, &name, &value)) {
        answer = needs_alias(bv, value);
        if (answer <= 0) continue;
        PyObject *key = PyLong_FromVoidPtr(value);
        PyObject *place = key ? Py_BuildValue("(sO)", module_name, name) : NULL;
        answer = place ? PyDict_SetItem(aliases, key, place) : -1;
        Py_XDECREF(key);
        Py_XDECREF(place);
    }
    Py_DECREF(names);
    return answer < 0 ? -1 : 0;
}

/* Classes of the interpreter that know themselves by a name that nobody can import.  By their
 * addresses: how a class hashes is for its metaclass to say.  1 and (module, name), new. */
static int find_alias(kinx_by_value *bv, PyObject *cls, PyObject **place) {
    *place = NULL;
    if (kinx_may_go_by_value((PyTypeObject *)cls)) return 0; /* the interpreter's own are not */
    if (!bv->aliases) {
        PyObject *aliases = PyDict_New();
        if (!aliases) return -1;
        if (add_aliases(bv, aliases, "types") < 0 ||
            add_aliases(bv, aliases, "_collections_abc") < 0) {
            Py_DECREF(aliases);
            return -1;
        }
        Py_XSETREF(bv->aliases, aliases);
    }
    PyObject *key = PyLong_FromVoidPtr(cls);
    if (!key) return -1;
    *place = PyDict_GetItemWithError(bv->aliases, key);
    Py_DECREF(key);
    Py_XINCREF(*place);
    return *place ? 1 : PyErr_Occurred() ? -1 : 0;
}

/* -- What it takes to make it ---------------------------------------------------------------- */

/* The metaclass, or the index of a base that has the same: some have no name to go by.  New. */
static PyObject *metaclass_of(PyObject *cls) {
    PyObject *bases = ((PyTypeObject *)cls)->tp_bases;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(bases); i++) {
        if (Py_TYPE(PyTuple_GET_ITEM(bases, i)) == Py_TYPE(cls)) return PyLong_FromSsize_t(i);
    }
    Py_INCREF(Py_TYPE(cls));
    return (PyObject *)Py_TYPE(cls);
}

/* The names of slots where __slots__ was an iterator, used up when the class was made.  New. */
static PyObject *slots_made(kinx_by_value *bv, PyObject *cls, PyObject *dict) {
    PyObject *const also[] = {bv->names.dict, bv->names.weakref};
    PyObject *names = PyList_New(0), *name, *value;
    Py_ssize_t at = 0;
    while (names && PyDict_Next(dict, &at, &name, &value)) {
        if (is_slot(cls, value) && PyList_Append(names, name) < 0) Py_CLEAR(names);
    }
    for (size_t i = 0; names && i < 2; i++) {
        int there = PyDict_Contains(dict, also[i]);
        if (there > 0) there = PyList_Append(names, also[i]);
        if (there < 0) Py_CLEAR(names);
    }
    return names;
}

static int add_slots(kinx_by_value *bv, PyObject *cls, PyObject *dict, PyObject *body) {
    PyObject *slots = PyDict_GetItemWithError(dict, bv->names.slots);
    if (!slots) return PyErr_Occurred() ? -1 : 0;
    if (PyUnicode_Check(slots) || PyTuple_Check(slots) || PyList_Check(slots) ||
        PyDict_Check(slots)) {
        return PyDict_SetItem(body, bv->names.slots, slots);
    }
    PyObject *made = slots_made(bv, cls, dict);
    int err = made ? PyDict_SetItem(body, bv->names.slots, made) : -1;
    Py_XDECREF(made);
    return err;
}

static int copy_attribute(PyObject *cls, PyObject *name, PyObject *body) {
    PyObject *value = PyObject_GetAttr(cls, name);
    int err = value ? PyDict_SetItem(body, name, value) : -1;
    Py_XDECREF(value);
    return err;
}

/* The part of the class body that must be there when the class is made.  New. */
static PyObject *body_of(kinx_by_value *bv, PyObject *cls, PyObject *dict) {
    PyObject *body = PyDict_New();
    if (!body) return NULL;
    int err = copy_attribute(cls, bv->names.module, body);
    if (err == 0) err = copy_attribute(cls, bv->names.qualname, body);
    if (err == 0) err = add_slots(bv, cls, dict, body);
    int generic = err == 0 ? PyDict_Contains(dict, bv->names.orig_bases) : -1;
    if (generic > 0) { /* Generic only asks whether there are any; they come later */
        PyObject *none = PyTuple_New(0);
        generic = none ? PyDict_SetItem(body, bv->names.orig_bases, none) : -1;
        Py_XDECREF(none);
    }
    if (generic < 0) Py_CLEAR(body);
    return body;
}

/* (token, where, metaclass, name, bases, body, *more), the arguments of its maker.  New. */
static PyObject *making_of(kinx_pickler *p, PyObject *cls, PyObject *dict, int standing,
                           PyObject *more) {
    kinx_by_value *bv = p->st->by_value;
    PyObject *token = kinx_token(bv, cls), *where = NULL, *meta = NULL, *name = NULL;
    PyObject *body = NULL, *args = NULL;
    if (token) where = kinx_where(p, standing, cls);
    if (where) meta = metaclass_of(cls);
    if (meta) name = PyObject_GetAttr(cls, bv->names.name);
    if (name) body = body_of(bv, cls, dict);
    PyObject *bases = ((PyTypeObject *)cls)->tp_bases;
    if (body && !more) {
        args = PyTuple_Pack(6, token, where, meta, name, bases, body);
    } else if (body) {
        args = PyTuple_Pack(8, token, where, meta, name, bases, body, PyTuple_GET_ITEM(more, 0),
                            PyTuple_GET_ITEM(more, 1));
    }
    Py_XDECREF(token);
    Py_XDECREF(where);
    Py_XDECREF(meta);
    Py_XDECREF(name);
    Py_XDECREF(body);
    return args;
}

/* -- What is put into it ------------------------------------------------------------------- */

/* 1 if the attribute is there from its making. */
static int is_made_with_class(kinx_by_value *bv, PyObject *cls, PyObject *name, PyObject *value) {
    if (is_slot(cls, value) || is_ctypes_field(value)) return 1;
    return PySet_Contains(bv->made_with_class, name);
}

/* New. */
static PyObject *attributes_of(kinx_by_value *bv, PyObject *cls, PyObject *dict) {
    PyObject *attributes = PyDict_New(), *name, *value;
    Py_ssize_t at = 0;
    while (attributes && PyDict_Next(dict, &at, &name, &value)) {
        int made = is_made_with_class(bv, cls, name, value);
        if (made == 0) made = PyDict_SetItem(attributes, name, value);
        if (made < 0) Py_CLEAR(attributes);
    }
    return attributes;
}

/* The things that the set of weak references has, as a tuple.  New. */
static PyObject *living(PyObject *references) {
    PyObject *found = PyList_New(0), *iterator = found ? PyObject_GetIter(references) : NULL;
    PyObject *reference, *tuple = NULL;
    while (iterator && (reference = PyIter_Next(iterator))) {
        PyObject *thing = PyObject_CallNoArgs(reference);
        if (!thing || (thing != Py_None && PyList_Append(found, thing) < 0)) Py_CLEAR(iterator);
        Py_XDECREF(thing);
        Py_DECREF(reference);
    }
    if (iterator && !PyErr_Occurred()) tuple = PyList_AsTuple(found);
    Py_XDECREF(iterator);
    Py_XDECREF(found);
    return tuple;
}

/* The classes that an abstract class counts as its own by register(), a tuple.  New. */
static PyObject *registered_with(kinx_by_value *bv, PyObject *cls, PyObject *dict) {
    PyObject *tables = PyDict_GetItemString(dict, "_abc_impl");
    if (!tables) return PyTuple_New(0);
    /* CPython only, and private: nothing else tells. */
    PyObject *get_dump = kinx_hook(&bv->get_dump, "_abc", "_get_dump");
    if (!get_dump) return kinx_swallow() < 0 ? NULL : PyTuple_New(0);
    PyObject *dump = PyObject_CallOneArg(get_dump, cls);
    PyObject *references = dump ? PySequence_GetItem(dump, 0) : NULL;
    PyObject *found = references ? living(references) : NULL;
    Py_XDECREF(references);
    Py_XDECREF(dump);
    return found;
}

/* (attributes, classes registered with it, names to be removed).  New. */
static PyObject *contents_of(kinx_by_value *bv, PyObject *cls, PyObject *dict, bool is_enum) {
    PyObject *attributes = attributes_of(bv, cls, dict), *dropped = NULL, *contents = NULL;
    PyObject *registered = attributes ? registered_with(bv, cls, dict) : NULL;
    if (registered && !is_enum) {
        dropped = PyTuple_New(0);
    } else if (registered && kinx_hook(&bv->enum_prune, "kinfolk._enums", "prune")) {
        dropped = PyObject_CallFunctionObjArgs(bv->enum_prune, cls, attributes, NULL);
    }
    if (dropped) contents = PyTuple_Pack(3, attributes, registered, dropped);
    Py_XDECREF(attributes);
    Py_XDECREF(registered);
    Py_XDECREF(dropped);
    return contents;
}

/* -- Enums --------------------------------------------------------------------------------- */

/* Whether cls is an enum.  Where nothing has imported `enum`, there are none. */
static int is_enum(PyObject *cls) {
    if (Py_IS_TYPE(cls, &PyType_Type)) return 0;
    PyObject *name = PyUnicode_FromString("enum");
    PyObject *module = name ? kinx_loaded_module(name) : NULL, *meta = NULL;
    Py_XDECREF(name);
    if (!module) return PyErr_Occurred() ? -1 : 0;
    Py_INCREF(module);
    int answer = kinx_lookup_attr_string(module, "EnumMeta", &meta);
    Py_DECREF(module);
    if (answer > 0) answer = PyType_Check(meta) && PyObject_TypeCheck(cls, (PyTypeObject *)meta);
    Py_XDECREF(meta);
    return answer;
}

/* (members, options): what its maker is told in addition.  New. */
static PyObject *creation_of_enum(kinx_by_value *bv, PyObject *cls) {
    if (!kinx_hook(&bv->enum_creation, "kinfolk._enums", "creation")) return NULL;
    PyObject *more = PyObject_CallOneArg(bv->enum_creation, cls);
    if (more && (!PyTuple_CheckExact(more) || PyTuple_GET_SIZE(more) != 2)) {
        PyErr_SetString(PyExc_SystemError, "kinfolk._enums.creation() gives a pair");
        Py_CLEAR(more);
    }
    return more;
}

/* -- The reducer --------------------------------------------------------------------------- */

static PyObject *reduce_by_value(kinx_pickler *p, PyObject *cls, int standing) {
    kinx_by_value *bv = p->st->by_value;
    if (kinx_learn_late_types(bv) < 0) return NULL;
    int enums = is_enum(cls);
    if (enums < 0) return NULL;
    if (enums && kinx_not_bare(p) < 0) return NULL; /* members may be of any type */
    PyObject *more = enums ? creation_of_enum(bv, cls) : NULL;
    if (enums && !more) return NULL;
    PyObject *dict = kinx_type_dict((PyTypeObject *)cls);
    /* A copy: the class may be changed while we ask around. */
    PyObject *copy = dict ? PyDict_Copy(dict) : NULL;
    Py_XDECREF(dict);
    PyObject *args = copy ? making_of(p, cls, copy, standing, more) : NULL;
    PyObject *contents = args ? contents_of(bv, cls, copy, enums) : NULL;
    Py_XDECREF(more);
    Py_XDECREF(copy);
    return kinx_reduction(bv, enums ? KINX_MAKER_enum : KINX_MAKER_class, args, contents,
                          KINX_MAKER_fill_class);
}

PyObject *kinx_reduce_class(kinx_pickler *p, PyObject *cls) {
    kinx_by_value *bv = p->st->by_value;
    int standing = kinx_standing_of(p, cls);
    if (standing < 0) return NULL;
    if (standing == KINX_BY_NAME) Py_RETURN_NOTIMPLEMENTED;
    PyObject *place;
    int alias = find_alias(bv, cls, &place);
    if (alias > 0) return kinx_reduction(bv, KINX_MAKER_attribute, place, NULL, KINX_NO_FILLER);
    int ours = alias == 0 ? is_made_in_python(cls) : -1;
    if (ours < 0) return NULL;
    if (!ours) Py_RETURN_NOTIMPLEMENTED;
    return reduce_by_value(p, cls, standing);
}
