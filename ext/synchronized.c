/* Synchronized and its like: a ctypes object and its lock, each access inside the lock.
 *
 * An attribute that is got and set inside the lock is a `locked`, which is a descriptor: `value` is
 * one, and kinfolk.sharedctypes makes classes for structures with one for each field.  What
 * happens at each access:
 *
 *   - If the lock is one of ours, and neither it nor the wrapper has an acquire() or release() of
 *     somebody else's, it is taken and given back without a call of Python.  Else the methods are
 *     called by their names, as anybody would: a lock is whatever has them.
 *
 *   - If the object is a number in shared memory, its value is read and written in place (number.c).
 *     No code of Python's runs then between the taking of the lock and its giving back, so that
 *     whoever holds it already need not take it again.  Values that need any conversion, or are
 *     refused, are left to ctypes, which says what it always says. */
#include "args.h"
#include "lock.h"
#include "number.h"

typedef struct synchronized {
    PyObject_HEAD
    PyObject *weakrefs, *dict;
    kinx_state *state;    /* borrowed */
    PyObject *obj, *lock; /* NULL until __init__ */
    kinx_shared *ours;    /* `lock`, if it is one of ours; borrowed */
    kinx_number number;   /* in `obj` */
} synchronized;

static bool check_made(synchronized *self) {
    if (self->obj && self->lock) return true;
    PyErr_Format(PyExc_RuntimeError, "%s.__init__() has not been called", Py_TYPE(self)->tp_name);
    return false;
}

/* -- What is there to know of lock and object ----------------------------------------- */

/* The types that ours are made of cannot be changed, other than those of Python. */
static bool is_bare(kinx_state *st, PyObject *lock) {
    PyTypeObject *type = Py_TYPE(lock);
    return PyType_HasFeature(type, Py_TPFLAGS_IMMUTABLETYPE) &&
           PyType_IsSubtype(type, st->semlock_type) && !((kinx_shared *)lock)->attributes;
}

static PyObject *acquire(synchronized *self, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames);
static PyObject *release_lock(synchronized *self, PyObject *unused);

/* 1: what `type` has under this name is our own method.  Raises. */
static int has_method(PyTypeObject *type, PyObject *name, PyCFunction method) {
    PyObject *found = PyObject_GetAttr((PyObject *)type, name);
    if (!found) return -1;
    bool is_ours = Py_IS_TYPE(found, &PyMethodDescr_Type) &&
                   ((PyMethodDescrObject *)found)->d_method->ml_meth == method;
    Py_DECREF(found);
    return is_ours;
}

/* 1: the class of `self` has not replaced acquire() or release().  Raises. */
static int has_methods(synchronized *self) {
    kinx_state *st = self->state;
    int has = has_method(Py_TYPE(self), st->names.acquire, (PyCFunction)(void (*)(void))acquire);
    if (has <= 0) return has;
    return has_method(Py_TYPE(self), st->names.release, (PyCFunction)release_lock);
}

static int set_lock(synchronized *self, PyObject *lock) {
    kinx_shared *ours = NULL;
    if (is_bare(self->state, lock)) {
        int has = has_methods(self);
        if (has < 0) return -1;
        if (has) ours = (kinx_shared *)lock;
    }
    self->ours = ours;
    Py_XSETREF(self->lock, Py_NewRef(lock));
    return 0;
}

static int set_obj(synchronized *self, PyObject *obj) {
    kinx_number number;
    if (kinx_number_in(self->state, obj, &number) < 0) return -1;
    self->number = number;
    Py_XSETREF(self->obj, Py_NewRef(obj));
    return 0;
}

/* -- Inside the lock ------------------------------------------------------------------- */

/* One access: what it holds on to, whatever is done to the wrapper meanwhile. */
typedef struct section {
    kinx_shared *ours; /* strong reference; NULL: by the names */
    PyObject *obj;     /* strong reference */
} section;

/* 1: somebody has put an acquire() or release() of its own into this one wrapper.  Raises. */
static int has_own_methods(synchronized *self) {
    if (!self->dict || PyDict_GET_SIZE(self->dict) == 0) return 0;
    int has = PyDict_Contains(self->dict, self->state->names.acquire);
    return has ? has : PyDict_Contains(self->dict, self->state->names.release);
}

static int call_named(PyObject *self, PyObject *name) {
    PyObject *done = PyObject_CallMethodNoArgs(self, name);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static int take(synchronized *self, section *in) {
    if (!check_made(self)) return -1;
    int own = self->ours ? has_own_methods(self) : 1;
    if (own < 0) return -1;
    in->ours = own ? NULL : self->ours;
    in->obj = self->obj;
    Py_XINCREF((PyObject *)in->ours);
    Py_INCREF(in->obj);
    int taken = in->ours ? kinx_lock_acquire_briefly(in->ours)
                         : call_named((PyObject *)self, self->state->names.acquire);
    if (taken >= 0) return 0;
    Py_XDECREF((PyObject *)in->ours);
    Py_DECREF(in->obj);
    return -1;
}

static int release(synchronized *self, section *in) {
    if (!in->ours) return call_named((PyObject *)self, self->state->names.release);
    PyObject *done = kinx_lock_release(in->ours, NULL);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* As `finally` has it: an error on leaving is raised, the one before is its context. */
static int release_after_error(synchronized *self, section *in) {
    PyObject *type, *value, *traceback, *newer[3];
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (release(self, in) == 0) {
        PyErr_Restore(type, value, traceback);
        return -1;
    }
    PyErr_Fetch(&newer[0], &newer[1], &newer[2]);
    PyErr_NormalizeException(&newer[0], &newer[1], &newer[2]);
    if (traceback) (void)PyException_SetTraceback(value, traceback);
    PyException_SetContext(newer[1], value); /* steals */
    PyErr_Restore(newer[0], newer[1], newer[2]);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return -1;
}

/* done: whether the access has been; else an exception is set. */
static int give(synchronized *self, section *in, bool done) {
    int err = done ? release(self, in) : release_after_error(self, in);
    Py_XDECREF((PyObject *)in->ours);
    Py_DECREF(in->obj);
    return err;
}

/* Steals `result`. */
static PyObject *give_with(synchronized *self, section *in, PyObject *result) {
    if (give(self, in, result != NULL) == 0) return result;
    Py_XDECREF(result);
    return NULL;
}

/* -- Values in place -------------------------------------------------------------------- */

/* 1: the value is to be read and written in place, inside of a lock of ours.  Raises. */
static inline int is_in_place(synchronized *self) {
    if (!self->number.data || !self->ours) return 0;
    int own = self->dict ? has_own_methods(self) : 0;
    return own ? own - 1 : 1;
}

/* *missed: nothing was done, for meanwhile somebody has put another object there. */
static PyObject *load_in_place(synchronized *self, bool *missed) {
    kinx_shared *ours = (kinx_shared *)Py_NewRef((PyObject *)self->ours);
    int taken = kinx_lock_hold(ours);
    *missed = taken >= 0 && !self->number.data;
    PyObject *value = taken < 0 || *missed ? NULL : kinx_number_load(&self->number);
    if (taken > 0 && kinx_lock_let_go(ours) < 0) Py_CLEAR(value);
    Py_DECREF(ours);
    return value;
}

static int store_in_place(synchronized *self, PyObject *value, bool *missed) {
    kinx_shared *ours = (kinx_shared *)Py_NewRef((PyObject *)self->ours);
    int taken = kinx_lock_hold(ours);
    *missed = taken >= 0 && (!self->number.data || !kinx_number_store(&self->number, value));
    int err = taken < 0 || (taken > 0 && kinx_lock_let_go(ours) < 0) ? -1 : 0;
    Py_DECREF(ours);
    return err;
}

/* -- locked: an attribute of the object -------------------------------------------------- */

typedef struct locked {
    PyObject_HEAD
    kinx_state *state; /* borrowed */
    PyObject *name;
    bool is_value; /* it is called `value` */
} locked;

static PyObject *locked_new(PyTypeObject *type, PyObject *args, PyObject *kwds) {
    static char *names[] = {"name", NULL};
    PyObject *name;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "U:locked", names, &name)) return NULL;
    kinx_state *st = kinx_state_of_type(type);
    locked *self = st ? (locked *)type->tp_alloc(type, 0) : NULL;
    if (!self) return NULL;
    self->state = st;
    Py_INCREF(name);
    PyUnicode_InternInPlace(&name);
    self->name = name;
    self->is_value = name == st->names.value;
    return (PyObject *)self;
}

static void locked_dealloc(locked *self) {
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(self->name);
    type->tp_free(self);
    Py_DECREF(type);
}

static void dealloc(synchronized *self);

/* Our own types are known by what frees them, which is quicker to look at than the bases of those
 * that are derived from them. */
static inline bool is_synchronized(kinx_state *st, PyObject *instance) {
    return Py_TYPE(instance)->tp_dealloc == (destructor)dealloc ||
           PyObject_TypeCheck(instance, st->synchronized);
}

static synchronized *as_synchronized(locked *self, PyObject *instance) {
    if (is_synchronized(self->state, instance)) return (synchronized *)instance;
    PyErr_Format(PyExc_TypeError, "'%U' is an attribute of synchronized objects, not of this %s",
                 self->name, Py_TYPE(instance)->tp_name);
    return NULL;
}

static PyObject *locked_get(locked *self, PyObject *instance, PyObject *owner) {
    if (!instance) return Py_NewRef((PyObject *)self);
    synchronized *of = as_synchronized(self, instance);
    int in_place = of && self->is_value ? is_in_place(of) : 0;
    if (!of || in_place < 0) return NULL;
    if (in_place) {
        bool missed;
        PyObject *value = load_in_place(of, &missed);
        if (!missed) return value;
        if (PyErr_Occurred()) return NULL;
    }
    section in;
    if (take(of, &in) < 0) return NULL;
    return give_with(of, &in, PyObject_GetAttr(in.obj, self->name));
}

static int refuse_deletion(locked *self, PyObject *instance) {
    PyErr_Format(PyExc_AttributeError, "property '%U' of '%s' object has no deleter", self->name,
                 Py_TYPE(instance)->tp_name);
    return -1;
}

static int locked_set(locked *self, PyObject *instance, PyObject *value) {
    synchronized *of = as_synchronized(self, instance);
    if (!of) return -1;
    if (!value) return refuse_deletion(self, instance);
    int in_place = self->is_value ? is_in_place(of) : 0;
    if (in_place < 0) return -1;
    if (in_place) {
        bool missed;
        int err = store_in_place(of, value, &missed);
        if (err < 0 || !missed) return err;
    }
    section in;
    if (take(of, &in) < 0) return -1;
    return give(of, &in, PyObject_SetAttr(in.obj, self->name, value) == 0);
}

static PyObject *locked_repr(locked *self) {
    return PyUnicode_FromFormat("<locked attribute %R>", self->name);
}

static PyObject *locked_reduce(locked *self, PyObject *unused) {
    return Py_BuildValue("O(O)", Py_TYPE(self), self->name);
}

static PyMethodDef locked_methods[] = {
    {"__reduce__", (PyCFunction)locked_reduce, METH_NOARGS, NULL},
    {NULL},
};

static PyMemberDef locked_members[] = {
    {"__name__", Py_T_OBJECT_EX, offsetof(locked, name), Py_READONLY, NULL},
    {NULL},
};

PyDoc_STRVAR(locked_doc,
             "locked(name)\n--\n\n"
             "For a class that is a SynchronizedBase: the attribute `name` of the wrapped object,\n"
             "got and set inside the lock.");

static PyType_Slot locked_slots[] = {
    {Py_tp_doc, (void *)locked_doc},
    {Py_tp_new, locked_new},
    {Py_tp_dealloc, locked_dealloc},
    {Py_tp_descr_get, locked_get},
    {Py_tp_descr_set, locked_set},
    {Py_tp_repr, locked_repr},
    {Py_tp_members, locked_members},
    {Py_tp_methods, locked_methods},
    {0, NULL},
};

static PyType_Spec locked_spec = {
    .name = "kinfolk._kin.locked",
    .basicsize = sizeof(locked),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = locked_slots,
};

/* -- SynchronizedBase: making one ------------------------------------------------------------ */

static PyObject *new(PyTypeObject *type, PyObject *args, PyObject *kwds) {
    kinx_state *st = kinx_state_of_type(type);
    synchronized *self = st ? (synchronized *)type->tp_alloc(type, 0) : NULL;
    if (self) self->state = st;
    return (PyObject *)self;
}

/* New reference. */
static PyObject *rlock_of(kinx_state *st, PyObject *ctx) {
    if (ctx && PyObject_IsTrue(ctx) > 0) return PyObject_CallMethod(ctx, "RLock", NULL);
    PyObject *get_context = kinx_import(&st->get_context, "kinfolk", "get_context");
    ctx = get_context ? PyObject_CallNoArgs(get_context) : NULL;
    PyObject *lock = ctx ? PyObject_CallMethod(ctx, "RLock", NULL) : NULL;
    Py_XDECREF(ctx);
    return lock;
}

static int init(synchronized *self, PyObject *args, PyObject *kwds) {
    static char *names[] = {"obj", "lock", "ctx", NULL};
    PyObject *obj, *lock = NULL, *ctx = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "O|OO", names, &obj, &lock, &ctx)) return -1;
    int given = lock ? PyObject_IsTrue(lock) : 0;
    if (given < 0) return -1;
    lock = given ? Py_NewRef(lock) : rlock_of(self->state, ctx);
    if (!lock) return -1;
    int err = set_lock(self, lock);
    Py_DECREF(lock);
    return err < 0 ? -1 : set_obj(self, obj);
}

static int traverse(synchronized *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->obj);
    Py_VISIT(self->lock);
    Py_VISIT(self->dict);
    return 0;
}

static int clear(synchronized *self) {
    self->ours = NULL;
    self->number.data = NULL;
    Py_CLEAR(self->obj);
    Py_CLEAR(self->lock);
    Py_CLEAR(self->dict);
    return 0;
}

static void dealloc(synchronized *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs) PyObject_ClearWeakRefs((PyObject *)self);
    clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* -- SynchronizedBase: its methods -------------------------------------------------------------- */

static PyObject *acquire(synchronized *self, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames) {
    if (!check_made(self)) return NULL;
    if (self->ours) return kinx_lock_acquire_call(self->ours, args, nargs, kwnames);
    PyObject *method = PyObject_GetAttr(self->lock, self->state->names.acquire);
    PyObject *done = method ? PyObject_Vectorcall(method, args, (size_t)nargs, kwnames) : NULL;
    Py_XDECREF(method);
    return done;
}

static PyObject *release_lock(synchronized *self, PyObject *unused) {
    if (!check_made(self)) return NULL;
    if (self->ours) return kinx_lock_release(self->ours, NULL);
    return PyObject_CallMethodNoArgs(self->lock, self->state->names.release);
}

static PyObject *enter(synchronized *self, PyObject *unused) {
    if (!check_made(self)) return NULL;
    if (self->ours) return kinx_lock_enter(self->ours, NULL);
    return PyObject_CallMethod(self->lock, "__enter__", NULL);
}

static PyObject *leave(synchronized *self, PyObject *const *args, Py_ssize_t nargs) {
    if (!check_made(self)) return NULL;
    if (self->ours) return kinx_lock_release(self->ours, NULL);
    PyObject *method = PyObject_GetAttrString(self->lock, "__exit__");
    PyObject *done = method ? PyObject_Vectorcall(method, args, (size_t)nargs, NULL) : NULL;
    Py_XDECREF(method);
    return done;
}

static PyObject *get_obj(synchronized *self, PyObject *unused) {
    return check_made(self) ? Py_NewRef(self->obj) : NULL;
}

static PyObject *get_lock(synchronized *self, PyObject *unused) {
    return check_made(self) ? Py_NewRef(self->lock) : NULL;
}

static PyObject *reduce(synchronized *self, PyObject *unused) {
    if (!check_made(self)) return NULL;
    PyObject *maker =
        kinx_import(&self->state->synchronize, "kinfolk.sharedctypes", "synchronized");
    return maker ? Py_BuildValue("O(OO)", maker, self->obj, self->lock) : NULL;
}

static PyObject *repr(synchronized *self) {
    PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "__name__");
    if (!name) return NULL;
    PyObject *text = self->obj ? PyUnicode_FromFormat("<%U wrapper for %S>", name, self->obj)
                               : PyUnicode_FromFormat("<%U, not initialised>", name);
    Py_DECREF(name);
    return text;
}

static PyObject *obj_getter(synchronized *self, void *closure) {
    return get_obj(self, NULL);
}

static PyObject *lock_getter(synchronized *self, void *closure) {
    return get_lock(self, NULL);
}

static int check_value(PyObject *value) {
    if (value) return 0;
    PyErr_SetString(PyExc_AttributeError, "cannot be deleted");
    return -1;
}

static int obj_setter(synchronized *self, PyObject *value, void *closure) {
    return check_value(value) < 0 ? -1 : set_obj(self, value);
}

static int lock_setter(synchronized *self, PyObject *value, void *closure) {
    return check_value(value) < 0 ? -1 : set_lock(self, value);
}

static PyMethodDef methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))acquire, METH_FASTCALL | METH_KEYWORDS,
     "acquire($self, /, block=True, timeout=None)\n--\n\nAcquire the lock."},
    {"release", (PyCFunction)release_lock, METH_NOARGS,
     "release($self, /)\n--\n\nRelease the lock."},
    {"__enter__", (PyCFunction)enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))leave, METH_FASTCALL, NULL},
    {"get_obj", (PyCFunction)get_obj, METH_NOARGS,
     "get_obj($self, /)\n--\n\nThe wrapped ctypes object: access to it is not locked."},
    {"get_lock", (PyCFunction)get_lock, METH_NOARGS, "get_lock($self, /)\n--\n\nThe lock."},
    {"__reduce__", (PyCFunction)reduce, METH_NOARGS, NULL},
    {NULL},
};

static PyGetSetDef getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {"_obj", (getter)obj_getter, (setter)obj_setter, NULL, NULL},
    {"_lock", (getter)lock_getter, (setter)lock_setter, NULL, NULL},
    {NULL},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", Py_T_PYSSIZET, offsetof(synchronized, weakrefs), Py_READONLY, NULL},
    {"__dictoffset__", Py_T_PYSSIZET, offsetof(synchronized, dict), Py_READONLY, NULL},
    {NULL},
};

#define SYNCHRONIZED_DOC(name, text) name "(obj, lock=None, ctx=None)\n--\n\n" text

/* Each type has these as its own: a method is called faster on an object of just the type that
 * has it than on one of a derived type. */
#define SYNCHRONIZED_SLOTS(doc)                                                                 \
    {Py_tp_doc, (void *)(doc)}, {Py_tp_new, new}, {Py_tp_init, init}, {Py_tp_dealloc, dealloc}, \
        {Py_tp_traverse, traverse}, {Py_tp_clear, clear}, {Py_tp_repr, repr},                   \
        {Py_tp_methods, methods}, {                                                             \
        Py_tp_getset, getset                                                                    \
    }

static PyType_Spec spec_of(const char *name, PyType_Slot *slots) {
    return (PyType_Spec){
        .name = name,
        .basicsize = sizeof(synchronized),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
        .slots = slots,
    };
}

PyDoc_STRVAR(
    base_doc,
    SYNCHRONIZED_DOC(
        "SynchronizedBase",
        "A ctypes object and its lock, which is taken by `with`, acquire() and release().\n\n"
        "lock: anything that has these methods; a new RLock of the context by default."));

static PyType_Slot base_slots[] = {
    SYNCHRONIZED_SLOTS(base_doc),
    {Py_tp_members, members},
    {0, NULL},
};

PyDoc_STRVAR(value_doc, SYNCHRONIZED_DOC("Synchronized",
                                         "A simple value.\n\n"
                                         "`v.value += 1` is a read and a write, so wrap it in\n"
                                         "`with v.get_lock():`."));

static PyType_Slot value_slots[] = {SYNCHRONIZED_SLOTS(value_doc), {0, NULL}};

/* -- SynchronizedArray ----------------------------------------------------------------------------- */

static Py_ssize_t array_length(synchronized *self) {
    return check_made(self) ? PyObject_Size(self->obj) : -1;
}

static PyObject *array_subscript(synchronized *self, PyObject *key) {
    section in;
    if (take(self, &in) < 0) return NULL;
    return give_with(self, &in, PyObject_GetItem(in.obj, key));
}

static int array_assign(synchronized *self, PyObject *key, PyObject *value) {
    if (!value) {
        PyErr_SetString(PyExc_AttributeError, "items of an array cannot be deleted");
        return -1;
    }
    section in;
    if (take(self, &in) < 0) return -1;
    return give(self, &in, PyObject_SetItem(in.obj, key, value) == 0);
}

/* What iter() goes by. */
static PyObject *array_item(synchronized *self, Py_ssize_t i) {
    section in;
    if (take(self, &in) < 0) return NULL;
    return give_with(self, &in, PySequence_GetItem(in.obj, i));
}

PyDoc_STRVAR(array_doc, SYNCHRONIZED_DOC("SynchronizedArray", "An array: items and slices."));

#define ARRAY_SLOTS(doc)                                                                 \
    SYNCHRONIZED_SLOTS(doc), {Py_mp_length, array_length}, {Py_sq_length, array_length}, \
        {Py_mp_subscript, array_subscript}, {Py_mp_ass_subscript, array_assign}, {       \
        Py_sq_item, array_item                                                           \
    }

static PyType_Slot array_slots[] = {ARRAY_SLOTS(array_doc), {0, NULL}};

PyDoc_STRVAR(
    string_doc,
    SYNCHRONIZED_DOC("SynchronizedString",
                     "An array of c_char: `value` up to the first zero byte, `raw` whole."));

static PyType_Slot string_slots[] = {ARRAY_SLOTS(string_doc), {0, NULL}};

/* -- The module ------------------------------------------------------------------------------------- */

/* Give the type an attribute that is got and set inside the lock. */
static int add_locked(PyTypeObject *attribute, PyTypeObject *type, const char *name) {
    PyObject *made = PyObject_CallFunction((PyObject *)attribute, "s", name);
    int err = made ? PyObject_SetAttrString((PyObject *)type, name, made) : -1;
    Py_XDECREF(made);
    return err;
}

static int add_type(PyObject *module, const char *name, PyType_Slot *slots, PyTypeObject *base,
                    PyTypeObject **slot) {
    PyType_Spec spec = spec_of(name, slots);
    return kinx_add_type(module, &spec, base, slot);
}

static int add_types(PyObject *module, kinx_state *st, PyTypeObject **types) {
    PyTypeObject **base = &st->synchronized;
    PyTypeObject **attribute = &types[0], **value = &types[1], **array = &types[2];
    PyTypeObject **string = &types[3];
    if (kinx_add_type(module, &locked_spec, NULL, attribute) < 0 ||
        add_type(module, "kinfolk.sharedctypes.SynchronizedBase", base_slots, NULL, base) < 0 ||
        add_type(module, "kinfolk.sharedctypes.Synchronized", value_slots, *base, value) < 0 ||
        add_type(module, "kinfolk.sharedctypes.SynchronizedArray", array_slots, *base, array) < 0 ||
        add_type(module, "kinfolk.sharedctypes.SynchronizedString", string_slots, *array, string) <
            0) {
        return -1;
    }
    if (add_locked(*attribute, *value, "value") < 0) return -1;
    if (add_locked(*attribute, *string, "value") < 0) return -1;
    return add_locked(*attribute, *string, "raw");
}

void kinx_synchronized_free(kinx_state *st) {
    Py_CLEAR(st->names.acquire);
    Py_CLEAR(st->names.release);
    Py_CLEAR(st->names.value);
}

static int intern(PyObject **slot, const char *text) {
    *slot = PyUnicode_InternFromString(text);
    return *slot ? 0 : -1;
}

int kinx_synchronized_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    if (intern(&st->names.acquire, "acquire") < 0 || intern(&st->names.release, "release") < 0 ||
        intern(&st->names.value, "value") < 0) {
        return -1;
    }
    PyTypeObject *types[4] = {NULL};
    int err = add_types(module, st, types);
    for (int i = 0; i < 4; i++) Py_XDECREF(types[i]);
    return err;
}
