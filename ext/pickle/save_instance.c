/* Instances of plain classes: what object.__reduce_ex__ would say, without asking it.
 *
 * A class is *plain* if neither it nor a base of it says anything about pickling, and
 * it is made in Python: its instances are their __dict__ and their slots.  Then the
 * reduction is known beforehand,
 *
 *     (copyreg.__newobj__, (cls,), state)
 *
 * and is written straight away, without making the tuples, the dict of slots, or a
 * call.  A class is looked at once; what was found out is its *plan*, kept in a table of
 * the module as long as the class stays as it is: CPython gives a class a version
 * number, used once only, and takes it away when the class or a base of it changes.
 *
 * A plan also knows whether reducing an instance runs no code but the library's
 * (library.c). */
#include "by_value.h"
#include "library.h"

typedef struct slot {
    PyObject *name;
    Py_ssize_t offset;
} slot;

struct kinx_plan {
    PyTypeObject *type; /* borrowed: the version says whether it is still the same */
    unsigned version;
    bool plain, library, has_dict;
    bool enumerated;  /* reduced by enum.Enum, as its value */
    bool named_tuple; /* plain, but for the items, which are the arguments of __new__ */
    Py_ssize_t slot_count;
    slot *slots;
};

enum { PLANS_BITS = 9, PLANS = 1 << PLANS_BITS }; /* a table by address; the last one stays */

/* -- Looking at a class -------------------------------------------------------------------- */

static unsigned version_of(PyTypeObject *type) {
#if PY_VERSION_HEX < 0x030C0000
    if (!PyType_HasFeature(type, Py_TPFLAGS_VALID_VERSION_TAG)) return 0;
#endif
    return (unsigned)type->tp_version_tag;
}

/* Has an instance nothing in it but a __dict__, weak references and slots?  As CPython finds
 * it out (PEP 307 leaves it to the implementation): by the size. */
static bool is_made_in_python(PyTypeObject *type, Py_ssize_t slot_count) {
    Py_ssize_t size = PyBaseObject_Type.tp_basicsize;
    Py_ssize_t dict_size = sizeof(PyObject *), weak_size = sizeof(PyObject *);
#ifdef Py_TPFLAGS_MANAGED_DICT
    if (PyType_HasFeature(type, Py_TPFLAGS_MANAGED_DICT)) dict_size = 0;
#endif
#ifdef Py_TPFLAGS_MANAGED_WEAKREF
    if (PyType_HasFeature(type, Py_TPFLAGS_MANAGED_WEAKREF)) weak_size = 0;
#endif
    if (type->tp_dictoffset != 0) size += dict_size;
    if (type->tp_weaklistoffset != 0) size += weak_size;
    size += slot_count * (Py_ssize_t)sizeof(PyObject *);
    return type->tp_itemsize == 0 && type->tp_basicsize <= size;
}

/* A tuple made by collections.namedtuple or typing.NamedTuple: its __getnewargs__ gives the items. */
static bool is_named_tuple(kinx_pickler *p, PyTypeObject *type) {
    if (!PyType_HasFeature(type, Py_TPFLAGS_TUPLE_SUBCLASS)) return false;
    PyObject *hook = kinx_found_attr(type, p->ps->names.__getnewargs__);
    PyObject *iterator = kinx_found_attr(type, p->ps->names.__iter__);
    return hook && kinx_is_function_of(p, hook, "collections") && iterator &&
           Py_TYPE(iterator) == &PyWrapperDescr_Type;
}

/* A list or a dict that has not got an order of its own to give its items in. */
static bool has_plain_items(kinx_pickler *p, PyTypeObject *type) {
    bool list = PyType_HasFeature(type, Py_TPFLAGS_LIST_SUBCLASS);
    if (!list && !PyType_HasFeature(type, Py_TPFLAGS_DICT_SUBCLASS)) return false;
    PyObject *name = list ? p->ps->names.__iter__ : p->ps->names.items;
    return kinx_found_attr(type, name) == kinx_own_attr(list ? &PyList_Type : &PyDict_Type, name);
}

/* But for __getnewargs__, if it is that of named tuples. */
static bool says_nothing_of_pickling(kinx_pickler *p, PyTypeObject *type, bool named_tuple) {
    PyObject *names[] = {p->ps->names.__reduce_ex__,     p->ps->names.__reduce__,
                         p->ps->names.__getstate__,      p->ps->names.__getnewargs__,
                         p->ps->names.__getnewargs_ex__, p->ps->names.__class__};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (named_tuple && names[i] == p->ps->names.__getnewargs__) continue;
        if (kinx_found_attr(type, names[i])) return false;
    }
    PyObject *dict = kinx_found_attr(type, p->ps->names.__dict__);
    return !dict || Py_TYPE(dict) == &PyGetSetDescr_Type;
}

/* The list of slot names, by copyreg, which keeps it in the class.  It is Python code, and signal
 * handlers may run in it.  New reference; NULL also if the pickling has to begin again. */
static PyObject *slot_names_of(kinx_pickler *p, PyTypeObject *type) {
    PyObject *names = kinx_own_attr(type, p->ps->names.__slotnames__);
    if (names) return Py_NewRef(names);
    names = PyObject_CallOneArg(p->ps->slotnames, (PyObject *)type);
    if (!names) return NULL;
    bool kept = kinx_own_attr(type, p->ps->names.__slotnames__) != NULL;
    if ((kept ? kinx_was_asked(p) : kinx_not_bare(p)) < 0) Py_CLEAR(names);
    return names;
}

#if PY_VERSION_HEX >= 0x030C0000
#define OBJECT_MEMBER Py_T_OBJECT_EX
#else
#define OBJECT_MEMBER T_OBJECT_EX
#endif

/* False if a slot is not one any more: somebody has put something else under its name. */
static bool read_slot(PyTypeObject *type, PyObject *name, slot *out) {
    PyObject *found = PyUnicode_CheckExact(name) ? kinx_found_attr(type, name) : NULL;
    if (!found || Py_TYPE(found) != &PyMemberDescr_Type) return false;
    const struct PyMemberDef *member = ((PyMemberDescrObject *)found)->d_member;
    if (member->type != OBJECT_MEMBER) return false;
    *out = (slot){Py_NewRef(name), member->offset};
    return true;
}

/* *all: whether each name is that of a slot. */
static int read_slots(PyTypeObject *type, PyObject *names, struct kinx_plan *plan, bool *all) {
    Py_ssize_t count = PyList_GET_SIZE(names);
    plan->slots = count ? PyMem_Calloc((size_t)count, sizeof *plan->slots) : NULL;
    if (count && !plan->slots) {
        PyErr_NoMemory();
        return -1;
    }
    for (; plan->slot_count < count; plan->slot_count++) {
        PyObject *name = PyList_GET_ITEM(names, plan->slot_count);
        if (!read_slot(type, name, &plan->slots[plan->slot_count])) return 0;
    }
    *all = true;
    return 0;
}

static void plan_clear(struct kinx_plan *plan) {
    struct kinx_plan old = *plan;
    memset(plan, 0, sizeof *plan);
    for (Py_ssize_t i = 0; i < old.slot_count; i++) Py_DECREF(old.slots[i].name);
    PyMem_Free(old.slots);
}

/* A class made in Python: its slots, and whether they are all it has besides a __dict__. */
static int look_inside(kinx_pickler *p, PyTypeObject *type, struct kinx_plan *plan) {
    PyObject *names = slot_names_of(p, type);
    if (!names) return -1;
    bool all_slots = false;
    int err = PyList_CheckExact(names) ? read_slots(type, names, plan, &all_slots) : 0;
    /* A name that is no slot any more, but a property, is asked for: the user's code. */
    if (!all_slots) plan->library = false;
    plan->named_tuple = all_slots && is_named_tuple(p, type);
    plan->plain = all_slots && says_nothing_of_pickling(p, type, plan->named_tuple) &&
                  (plan->named_tuple || has_plain_items(p, type) ||
                   is_made_in_python(type, PyList_GET_SIZE(names)));
    Py_DECREF(names);
    return err;
}

static int plan_make(kinx_pickler *p, PyTypeObject *type, struct kinx_plan *plan) {
    *plan = (struct kinx_plan){.type = type, .has_dict = type->tp_dictoffset != 0};
    plan->library = kinx_hooks_are_library(p, type);
    plan->enumerated = kinx_is_reduced_by_enum(p, type);
    bool heap = PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) && type->tp_new;
    if (heap && kinx_asks_in_the_standard_way(type) && !kinx_is_library_type(p, type)) {
        if (look_inside(p, type, plan) < 0) return -1;
    }
    /* Any look-up gives the class its version, if it has none. */
    PyObject *looked_up = PyObject_GetAttr((PyObject *)type, p->ps->names.__name__);
    if (!looked_up) PyErr_Clear();
    Py_XDECREF(looked_up);
    plan->version = version_of(type);
    return 0;
}

/* Borrowed: valid until the next call.  NULL raises. */
static const struct kinx_plan *plan_of(kinx_pickler *p, PyTypeObject *type) {
    struct kinx_plan *plans = p->ps->plans;
    uint64_t hash = ((uint64_t)(uintptr_t)type >> 4) * UINT64_C(0x9e3779b97f4a7c15);
    struct kinx_plan *plan = &plans[hash >> (64 - PLANS_BITS)];
    if (plan->type == type && plan->version && plan->version == version_of(type)) return plan;
    struct kinx_plan made;
    if (plan_make(p, type, &made) < 0) {
        plan_clear(&made);
        return NULL;
    }
    struct kinx_plan old = *plan;
    *plan = made;
    plan_clear(&old);
    return plan;
}

bool kinx_reduces_by_library(kinx_pickler *p, PyObject *obj) {
    if (p->protocol < 2 || !kinx_asks_in_the_standard_way(Py_TYPE(obj))) return false;
    const struct kinx_plan *plan = plan_of(p, Py_TYPE(obj));
    if (!plan) PyErr_Clear();
    return plan && plan->library && !kinx_shadows_its_class(obj);
}

bool kinx_is_enumerated(kinx_pickler *p, PyTypeObject *type) {
    if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) || type->tp_dictoffset == 0) return false;
    const struct kinx_plan *plan = plan_of(p, type);
    if (!plan) PyErr_Clear();
    return plan && plan->enumerated;
}

/* -- Writing an instance ------------------------------------------------------------------------ */

/* An instance is held while it is written, as what it consists of: writing it may run code that
 * changes it, and the table of plans has forgotten the class by then, perhaps.  The frames
 * here lie on the C stack once for each level of nesting: they are kept small. */

/* New reference or NULL: what object.__getstate__ takes for the __dict__. */
static PyObject *state_dict(PyObject *obj) {
    PyObject *dict = PyObject_GenericGetDict(obj, NULL);
#if PY_VERSION_HEX >= 0x030B0000
    if (dict && PyDict_Check(dict) && PyDict_GET_SIZE(dict) == 0) Py_CLEAR(dict);
#endif
    return dict;
}

/* An instance may have a hook of its own in its __dict__, though hardly any has.  While the
 * pickling is bare it is enough to watch for the hooks' names (kinx_is_hook_name). */
static int has_own_hook(kinx_pickler *p, PyObject *dict) {
    PyObject *names[] = {p->ps->names.__reduce_ex__, p->ps->names.__getstate__,
                         p->ps->names.__getnewargs__, p->ps->names.__getnewargs_ex__};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int found = PyDict_Contains(dict, names[i]);
        if (found) return found;
    }
    return 0;
}

bool kinx_is_hook_name(const char *name, size_t len) {
    switch (len) {
    case 12: return memcmp(name, "__getstate__", 12) == 0;
    case 13: return memcmp(name, "__reduce_ex__", 13) == 0;
    case 14: return memcmp(name, "__getnewargs__", 14) == 0;
    case 17: return memcmp(name, "__getnewargs_ex__", 17) == 0;
    default: return false;
    }
}

/* cls.__new__(cls), with the items of a named tuple as arguments, and those of a list or a dict
 * put into it.  1: the instance has been written
 * meanwhile: a class by value may lead to its own instance. */
static int save_new(kinx_pickler *p, PyObject *obj, bool sole, bool named_tuple) {
    if (kinx_save(p, (PyObject *)Py_TYPE(obj)) < 0) {
        return kinx_trail(p, obj, KINX_STEP_CLASS, NULL);
    }
    if (named_tuple) {
        if (kinx_save_tuple_of(p, obj) < 0 || kinx_put_op(p, KIN_OP_NEWOBJ) < 0) return -1;
    } else {
        kin_err err = kin_reserve(&p->out, 2);
        if (err < 0) return kinx_raise_writer(err);
        *p->out.at++ = KIN_OP_EMPTY_TUPLE;
        *p->out.at++ = KIN_OP_NEWOBJ;
    }
    int met = kinx_save_met_again(p, obj, sole, 1);
    if (met) return met;
    if (kinx_remember(p, obj, sole) < 0) return -1;
    return PyList_Check(obj) || PyDict_Check(obj) ? kinx_save_items_of(p, obj) : 0;
}

static int save_dict(kinx_pickler *p, PyObject *obj, PyObject *dict) {
    bool sole = p->bare && Py_REFCNT(dict) == 2; /* the instance's reference and ours */
    return kinx_save_known(p, dict, sole) < 0 ? kinx_trail(p, obj, KINX_STEP_STATE, NULL) : 0;
}

/* 0 if obj is to be asked after all, else as kinx_save_instance. */
static __attribute__((noinline)) int save_with_dict(kinx_pickler *p, PyObject *obj, bool sole,
                                                    bool named_tuple) {
    PyObject *dict = state_dict(obj);
    if (!dict && PyErr_Occurred()) return -1;
    int done = p->bare || !dict ? 0 : has_own_hook(p, dict);
    if (done) {
        Py_DECREF(dict);
        return done < 0 ? -1 : 0;
    }
    done = save_new(p, obj, sole, named_tuple);
    if (done == 0 && dict) done = save_dict(p, obj, dict) < 0 ? -1 : kinx_put_op(p, KIN_OP_BUILD);
    Py_XDECREF(dict);
    return done < 0 ? -1 : 1;
}

/* The filled slots as names and values, one after the other: a tuple, which holds them.  Making
 * it may collect garbage, and so run code: the plan is asked for after it.  NULL raises. */
static PyObject *filled_slots(kinx_pickler *p, PyObject *obj, Py_ssize_t count) {
    PyObject *pairs = PyTuple_New(2 * count);
    const struct kinx_plan *plan = pairs ? plan_of(p, Py_TYPE(obj)) : NULL;
    if (plan && plan->slot_count != count) {
        PyErr_SetString(PyExc_RuntimeError, "a class was changed while its instance was pickled");
        plan = NULL;
    }
    if (!plan) {
        Py_XDECREF(pairs);
        return NULL;
    }
    Py_ssize_t at = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *value = *(PyObject **)((char *)obj + plan->slots[i].offset);
        if (!value) continue;
        PyTuple_SET_ITEM(pairs, at++, Py_NewRef(plan->slots[i].name));
        PyTuple_SET_ITEM(pairs, at++, Py_NewRef(value));
    }
    if (at < 2 * count) _PyTuple_Resize(&pairs, at); /* NULL if that fails, which raises */
    return pairs;
}

/* (__dict__ or None, {name: value}), of which neither tuple nor dict is made. */
static int save_slots(kinx_pickler *p, PyObject *obj, PyObject *dict, PyObject *pairs) {
    Py_ssize_t count = PyTuple_GET_SIZE(pairs);
    int err = dict ? save_dict(p, obj, dict) : kinx_put_op(p, KIN_OP_NONE);
    if (err == 0) err = kinx_put_op(p, KIN_OP_EMPTY_DICT);
    if (err == 0 && count > 2) err = kinx_put_op(p, KIN_OP_MARK);
    for (Py_ssize_t i = 0; err == 0 && i < count; i += 2) {
        PyObject *name = PyTuple_GET_ITEM(pairs, i), *value = PyTuple_GET_ITEM(pairs, i + 1);
        err = kinx_save_str(p, name);
        if (err == 0 && kinx_save_known(p, value, p->bare && Py_REFCNT(value) == 2) < 0) {
            err = kinx_trail(p, obj, KINX_STEP_ATTRIBUTE, name);
        }
    }
    if (err == 0) err = kinx_put_op(p, count > 2 ? KIN_OP_SETITEMS : KIN_OP_SETITEM);
    return err < 0 ? -1 : kinx_put_op(p, KIN_OP_TUPLE2);
}

static __attribute__((noinline)) int save_with_slots(kinx_pickler *p, PyObject *obj, bool sole,
                                                     Py_ssize_t count, bool has_dict) {
    PyObject *pairs = filled_slots(p, obj, count), *dict = NULL;
    if (!pairs) return -1;
    if (has_dict) dict = state_dict(obj);
    int done = PyErr_Occurred() ? -1 : p->bare || !dict ? 0 : has_own_hook(p, dict);
    if (done == 0) {
        done = save_new(p, obj, sole, false);
        if (done == 0) {
            bool empty = PyTuple_GET_SIZE(pairs) == 0;
            if (!empty) done = save_slots(p, obj, dict, pairs);
            else if (dict) done = save_dict(p, obj, dict);
            if (done == 0 && (dict || !empty)) done = kinx_put_op(p, KIN_OP_BUILD);
        }
        done = done < 0 ? -1 : 1;
    } else if (done > 0) {
        done = 0;
    }
    Py_XDECREF(dict);
    Py_DECREF(pairs);
    return done;
}

/* Is a reducer registered for it? */
static int is_registered(kinx_pickler *p, PyTypeObject *type) {
    PyObject *reducer = kinx_registered_reducer(p, type);
    if (!reducer) return p->restart || PyErr_Occurred() ? -1 : 0;
    Py_DECREF(reducer);
    return 1;
}

int kinx_save_instance(kinx_pickler *p, PyObject *obj, bool sole) {
    PyTypeObject *type = Py_TYPE(obj);
    if (p->protocol < 2 || !PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) return 0;
    const struct kinx_plan *plan = plan_of(p, type);
    if (!plan) return -1;
    if (!plan->plain || (p->by_value && kinx_has_reducer(p->st, type))) return 0;
    /* Asking the tables of reducers may run code, and the plan be another's then. */
    Py_ssize_t slot_count = plan->slot_count;
    bool has_dict = plan->has_dict, named_tuple = plan->named_tuple;
    int registered = is_registered(p, type);
    if (registered) return registered < 0 ? -1 : 0;
    if (slot_count > 0) return save_with_slots(p, obj, sole, slot_count, has_dict);
    if (has_dict) return save_with_dict(p, obj, sole, named_tuple);
    int done = save_new(p, obj, sole, named_tuple);
    return done < 0 ? -1 : 1;
}

int kinx_plans_init(struct kinx_pickler_state *ps) {
    ps->plans = PyMem_Calloc(PLANS, sizeof *ps->plans);
    return ps->plans ? 0 : kinx_raise_writer(-ENOMEM);
}

void kinx_plans_fini(struct kinx_pickler_state *ps) {
    struct kinx_plan *plans = ps->plans;
    ps->plans = NULL;
    for (int i = 0; plans && i < PLANS; i++) plan_clear(&plans[i]);
    PyMem_Free(plans);
}
