/* BUILD for instances of plain classes, without a dict in between.
 *
 * What BUILD means is: if there is a __setstate__, call it; else inst.__dict__[k] = v for each
 * pair of the state, passing by __setattr__ and whatever descriptors the class has.  Looking
 * for __setstate__ and asking for __dict__ cost more than the rest, and from 3.11 on an
 * instance whose __dict__ was asked for has a dict for good, and is slower and larger.
 *
 * The short way is taken only where nothing can tell it from the long one:
 *
 *   the instance is *blank*: made by object.__new__ in this loading, and no foreign code
 *     has run since, so that it has no attributes and nobody knows it;
 *   its class finds attributes as object does, has no __setstate__, and has the __dict__
 *     that a class statement gives; for state in slots, it sets attributes as object
 *     does;
 *   every key is a str for which the class has no data descriptor (then object.__setattr__
 *     stores it just where __dict__ would), or for state in slots, one that is a slot.
 *
 * What is known of a class counts as long as its version tag is the same: the interpreter
 * changes that with the class or any base. */
#include "load.h"

#if PY_VERSION_HEX < 0x030C0000 /* these names are newer than what they name */
#define Py_T_OBJECT_EX T_OBJECT_EX
#endif

#define SHAPES 8
#define SHAPE_KEYS 32

struct kinx_shape {
    PyTypeObject *type;   /* strong */
    unsigned int version; /* its tag when this was found out */
    bool has_dict;        /* the plain one, and no __setstate__ */
    bool has_slots;       /* sets attributes as object does, and no __setstate__ */
    size_t key_count;
    struct {
        PyObject *name;  /* strong, interned */
        PyObject *alias; /* strong: an equal str that was met, or NULL */
        Py_ssize_t slot; /* where in the instance; 0: in its dict; -1: the long way */
    } keys[SHAPE_KEYS];
};

/* -- What is known of a class ----------------------------------------------------------- */

/* Borrowed, or NULL.  Private, but the only way to ask the class itself, as attribute access
 * does, and not its metaclass. */
static PyObject *lookup(PyTypeObject *type, PyObject *name) {
    return _PyType_Lookup(type, name);
}

static unsigned int version_of(PyTypeObject *type) {
#if PY_VERSION_HEX < 0x030D0000
    if (!PyType_HasFeature(type, Py_TPFLAGS_VALID_VERSION_TAG)) return 0;
#endif
    return type->tp_version_tag;
}

static bool has_plain_dict(const kinx_unpickler_state *us, PyTypeObject *type) {
    PyObject *descr = lookup(type, us->str_dict);
    return descr && Py_IS_TYPE(descr, &PyGetSetDescr_Type) &&
           ((PyGetSetDescrObject *)descr)->d_getset->get == us->plain_dict;
}

static void shape_init(const kinx_unpickler_state *us, kinx_shape *shape, PyTypeObject *type) {
    bool plain = type->tp_getattro == PyObject_GenericGetAttr && !lookup(type, us->str_setstate);
    shape->has_dict = plain && has_plain_dict(us, type);
    shape->has_slots = plain && type->tp_setattro == PyObject_GenericSetAttr;
    shape->version = version_of(type);
    shape->type = (PyTypeObject *)Py_NewRef(type);
    shape->key_count = 0;
}

static void shape_fini(kinx_shape *shape) {
    for (size_t i = 0; i < shape->key_count; i++) {
        Py_DECREF(shape->keys[i].name);
        Py_XDECREF(shape->keys[i].alias);
    }
    shape->key_count = 0;
    Py_CLEAR(shape->type);
}

void kinx_shapes_drop(kinx_loader *u) {
    kinx_shape *shapes = u->shapes;
    size_t count = u->shape_count < SHAPES ? u->shape_count : SHAPES;
    u->shapes = NULL;
    u->shape_count = 0;
    for (size_t i = 0; i < count; i++) shape_fini(&shapes[i]);
    PyMem_Free(shapes);
}

/* A place for one more: the oldest one's, if all are taken. */
static kinx_shape *next_shape(kinx_loader *u) {
    if (!u->shapes) u->shapes = PyMem_Malloc(SHAPES * sizeof *u->shapes);
    if (!u->shapes) return NULL;
    kinx_shape *shape = &u->shapes[u->shape_count % SHAPES];
    if (u->shape_count >= SHAPES) {
        /* A class that ends here may run code: it is to find all in order. */
        kinx_shape old = *shape;
        shape->type = NULL;
        shape->key_count = 0;
        shape_fini(&old);
    }
    u->shape_count++;
    return shape;
}

/* NULL without an exception if nothing can be known, or nothing that helps. */
static kinx_shape *shape_of(kinx_loader *u, PyTypeObject *type) {
    unsigned int version = version_of(type);
    size_t count = u->shape_count < SHAPES ? u->shape_count : SHAPES;
    for (size_t i = 0; i < count; i++) {
        kinx_shape *shape = &u->shapes[i];
        if (shape->type != type) continue;
        if (version != 0 && shape->version == version) return shape;
        shape_fini(shape); /* the instance has the class */
        shape_init(u->us, shape, type);
        return shape->version ? shape : NULL;
    }
    kinx_shape *shape = next_shape(u);
    if (!shape) return NULL;
    shape_init(u->us, shape, type);
    return shape->version ? shape : NULL;
}

/* The offset of a slot, 0 for the dict, -1 for what is to go the long way. */
static Py_ssize_t slot_for(kinx_shape *shape, PyObject *name) {
    PyObject *descr = lookup(shape->type, name);
    if (!descr || !Py_TYPE(descr)->tp_descr_set) return 0;
#ifndef Py_GIL_DISABLED
    if (Py_IS_TYPE(descr, &PyMemberDescr_Type) &&
        PyType_IsSubtype(shape->type, PyDescr_TYPE(descr))) {
        const PyMemberDef *member = ((PyMemberDescrObject *)descr)->d_member;
        if (member->type == Py_T_OBJECT_EX && !(member->flags & Py_READONLY)) {
            return member->offset;
        }
    }
#endif
    return -1;
}

/* The index of a known key, met as `key`; or -1. */
static Py_ssize_t find_key(const kinx_shape *shape, PyObject *key, size_t hint) {
    for (size_t n = 0; n < shape->key_count; n++, hint++) {
        if (hint >= shape->key_count) hint = 0;
        if (shape->keys[hint].name == key || shape->keys[hint].alias == key) {
            return (Py_ssize_t)hint;
        }
    }
    return -1;
}

/* The index of a str, which becomes known if it is not; or -1.  hint: where it may be.
 * Known keys are interned, as the keys of instances' dicts are, and so are then the
 * strings in the cache, so that they come interned the next time. */
static Py_ssize_t key_index(kinx_loader *u, kinx_shape *shape, PyObject *key, size_t hint) {
    Py_ssize_t index = find_key(shape, key, hint);
    if (index >= 0) return index;
    PyObject *name = Py_NewRef(key);
    if (!PyUnicode_CHECK_INTERNED(name)) {
        PyUnicode_InternInPlace(&name);
        kinx_key_prefer(u->us, name);
        index = name == key ? -1 : find_key(shape, name, hint);
    }
    if (index < 0 && shape->key_count < SHAPE_KEYS) {
        index = (Py_ssize_t)shape->key_count++;
        shape->keys[index].name = Py_NewRef(name);
        shape->keys[index].alias = NULL;
        shape->keys[index].slot = slot_for(shape, name);
    }
    if (index >= 0 && name != key) Py_XSETREF(shape->keys[index].alias, Py_NewRef(key));
    Py_DECREF(name);
    return index;
}

/* Whether a key is a name for the dict, or if `slots` for a slot. */
static inline bool key_fits(kinx_loader *u, kinx_shape *shape, PyObject *key, size_t hint,
                            bool slots) {
    if (!PyUnicode_CheckExact(key)) return false;
    Py_ssize_t index = key_index(u, shape, key, hint);
    if (index < 0) return false;
    return slots ? shape->keys[index].slot > 0 : shape->keys[index].slot == 0;
}

/* -- Blank instances ------------------------------------------------------------------------ */

void kinx_note_blank(kinx_loader *u, PyObject *obj) {
    size_t at = u->blank_count++ % KINX_BLANKS;
    u->blanks[at].obj = obj;
    u->blanks[at].foreign = u->foreign;
}

bool kinx_at_state(const kinx_loader *u) {
    if (u->blank_count == 0 || kinx_reach(u) < 1) return false;
    const PyObject *last = u->blanks[(u->blank_count - 1) % KINX_BLANKS].obj;
    if (u->top[-1] == last) return true;
    return u->top[-1] == Py_None && kinx_reach(u) > 1 && u->top[-2] == last;
}

/* Whether obj is blank; it will not be any more.  Instances are made and built like
 * brackets open and close, so that what was made later counts no more either. */
static bool take_blank(kinx_loader *u, PyObject *obj) {
    size_t least = u->blank_count > KINX_BLANKS ? u->blank_count - KINX_BLANKS : 0;
    for (size_t i = u->blank_count; i > least; i--) {
        size_t at = (i - 1) % KINX_BLANKS;
        if (u->blanks[at].obj != obj) continue;
        u->blank_count = i - 1;
        return u->blanks[at].foreign == u->foreign;
    }
    return false;
}

/* -- Storing ---------------------------------------------------------------------------------- */

/* Store one whose key fits. */
static inline int store(kinx_shape *shape, PyObject *inst, PyObject *key, PyObject *value,
                        size_t hint) {
    Py_ssize_t index = find_key(shape, key, hint);
    Py_ssize_t slot = shape->keys[index].slot;
    if (slot == 0) return PyObject_GenericSetAttr(inst, shape->keys[index].name, value);
    PyObject **place = (PyObject **)((char *)inst + slot);
    Py_XSETREF(*place, Py_NewRef(value));
    return 0;
}

static int store_pairs(kinx_loader *u, kinx_shape *shape, PyObject *inst, Py_ssize_t depth,
                       bool slots) {
    PyObject **pairs = u->stack + depth;
    size_t count = (size_t)(u->top - pairs) / 2;
    for (size_t i = 0; i < count; i++) {
        if (!key_fits(u, shape, pairs[2 * i], i, slots)) return 0;
    }
    if (!take_blank(u, inst)) return 0;
    for (size_t i = 0; i < count; i++) {
        if (store(shape, inst, pairs[2 * i], pairs[2 * i + 1], i) < 0) return -1;
    }
    return 1;
}

int kinx_build_from_pairs(kinx_loader *u, Py_ssize_t depth) {
    if (depth - 2 < u->fence) return 0;
    PyObject *inst = u->stack[depth - 2];
    kinx_shape *shape = shape_of(u, Py_TYPE(inst));
    if (!shape || !shape->has_dict) return 0;
    int stored = store_pairs(u, shape, inst, depth, false);
    if (stored > 0) kinx_stack_cut(u, depth - 1);
    return stored;
}

int kinx_build_slots_from_pairs(kinx_loader *u, Py_ssize_t depth) {
    if (depth - 3 < u->fence || u->stack[depth - 2] != Py_None) return 0;
    PyObject *inst = u->stack[depth - 3];
    kinx_shape *shape = shape_of(u, Py_TYPE(inst));
    if (!shape || !shape->has_slots) return 0;
    int stored = store_pairs(u, shape, inst, depth, true);
    if (stored > 0) kinx_stack_cut(u, depth - 2);
    return stored;
}

/* -- From dicts ---------------------------------------------------------------------------------- */

static bool dict_fits(kinx_loader *u, kinx_shape *shape, PyObject *dict, bool slots) {
    PyObject *key, *value;
    Py_ssize_t at = 0;
    for (size_t i = 0; PyDict_Next(dict, &at, &key, &value); i++) {
        if (!key_fits(u, shape, key, i, slots)) return false;
    }
    return true;
}

static int store_dict(kinx_shape *shape, PyObject *inst, PyObject *dict) {
    PyObject *key, *value;
    Py_ssize_t at = 0;
    for (size_t i = 0; PyDict_Next(dict, &at, &key, &value); i++) {
        if (store(shape, inst, key, value, i) < 0) return -1;
    }
    return 0;
}

int kinx_build_plain(kinx_loader *u, PyObject *inst, PyObject *state) {
    PyObject *slots = NULL;
    if (PyTuple_CheckExact(state) && PyTuple_GET_SIZE(state) == 2) {
        slots = PyTuple_GET_ITEM(state, 1);
        state = PyTuple_GET_ITEM(state, 0);
        if (!PyDict_CheckExact(slots)) return 0;
    }
    bool has_state = state != Py_None;
    if (has_state ? !PyDict_CheckExact(state) : !slots) return 0;
    kinx_shape *shape = shape_of(u, Py_TYPE(inst));
    if (!shape || (has_state && !shape->has_dict) || (slots && !shape->has_slots)) return 0;
    if (has_state && !dict_fits(u, shape, state, false)) return 0;
    if (slots && !dict_fits(u, shape, slots, true)) return 0;
    if (!take_blank(u, inst)) return 0;
    if (has_state && store_dict(shape, inst, state) < 0) return -1;
    if (slots && store_dict(shape, inst, slots) < 0) return -1;
    return 1;
}
