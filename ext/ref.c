/* The base of all that lives in the arena, and the pickling of refs.
 *
 * What a pickle of a Queue or a Lock holds is its name: the family's id, kind,
 * offset and serial.  It can be pickled at any time, by any pickler; whoever
 * loads it gets a handle of its own on the same object, of the class that was
 * pickled.  __init__ is not run then, as always with pickles; attributes that a
 * subclass gave the object travel as its state.
 *
 * The name alone keeps nothing alive.  A message does: while message.c pickles,
 * it has a list of mentions open, __reduce__ below adds to it, and the blob
 * that the message rides in becomes a holder of all that was mentioned. */
#include "ref.h"
#include "errors.h"

/* -- Refs as bytes -------------------------------------------------------- */

static void store_le(uint8_t *out, uint64_t n, int len) {
    for (int i = 0; i < len; i++) out[i] = (uint8_t)(n >> (8 * i));
}

static uint64_t load_le(const uint8_t *in, int len) {
    uint64_t n = 0;
    for (int i = 0; i < len; i++) n |= (uint64_t)in[i] << (8 * i);
    return n;
}

PyObject *kinx_ref_pack(kin_family *family, const kin_ref *ref) {
    uint8_t bytes[KINX_REF_LEN];
    memcpy(bytes, kin_family_id(family), KIN_FAMILY_ID_LEN);
    store_le(bytes + KIN_FAMILY_ID_LEN, ref->kind, 4);
    store_le(bytes + KIN_FAMILY_ID_LEN + 4, ref->off, 8);
    store_le(bytes + KIN_FAMILY_ID_LEN + 12, ref->serial, 8);
    return PyBytes_FromStringAndSize((const char *)bytes, KINX_REF_LEN);
}

kin_family *kinx_ref_unpack(PyObject *ref, kin_ref *out, const char *thing) {
    if (!PyBytes_Check(ref) || PyBytes_GET_SIZE(ref) != KINX_REF_LEN) {
        PyErr_Format(PyExc_TypeError, "a reference is %d bytes, not this %s", KINX_REF_LEN,
                     Py_TYPE(ref)->tp_name);
        return NULL;
    }
    const uint8_t *bytes = (const uint8_t *)PyBytes_AS_STRING(ref);
    kin_family *family = kin_family_self();
    if (!family || memcmp(bytes, kin_family_id(family), KIN_FAMILY_ID_LEN) != 0) {
        return kinx_raise_foreign(thing, bytes);
    }
    *out = (kin_ref){
        .kind = (uint32_t)load_le(bytes + KIN_FAMILY_ID_LEN, 4),
        .off = load_le(bytes + KIN_FAMILY_ID_LEN + 4, 8),
        .serial = load_le(bytes + KIN_FAMILY_ID_LEN + 12, 8),
    };
    return family;
}

/* -- Mentions ------------------------------------------------------------- */

static _Thread_local kinx_mentions *current_mentions;

void kinx_mentions_begin(kinx_mentions *mentions) {
    mentions->outer = current_mentions;
    mentions->items = mentions->few;
    mentions->count = 0;
    mentions->room = sizeof mentions->few / sizeof *mentions->few;
    current_mentions = mentions;
}

bool kinx_mentions_are_noted(void) {
    return current_mentions != NULL;
}

void kinx_mentions_end(kinx_mentions *mentions) {
    current_mentions = mentions->outer;
}

void kinx_mentions_clear(kinx_mentions *mentions) {
    for (uint32_t i = 0; i < mentions->count; i++) Py_DECREF(mentions->items[i]);
    if (mentions->items != mentions->few) PyMem_Free(mentions->items);
    mentions->items = mentions->few;
    mentions->count = 0;
}

static int mentions_grow(kinx_mentions *mentions) {
    size_t room = 2 * (size_t)mentions->room;
    kinx_shared **items = PyMem_Malloc(room * sizeof *items);
    if (!items) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(items, mentions->items, mentions->count * sizeof *items);
    if (mentions->items != mentions->few) PyMem_Free(mentions->items);
    mentions->items = items;
    mentions->room = (uint32_t)room;
    return 0;
}

int kinx_mention(kinx_shared *self) {
    kinx_mentions *mentions = current_mentions;
    if (!mentions) return 0;
    if (mentions->count == mentions->room && mentions_grow(mentions) < 0) return -1;
    Py_INCREF(self);
    mentions->items[mentions->count++] = self;
    return 0;
}

/* -- The base type ---------------------------------------------------------- */

PyObject *kinx_raise_not_open(kinx_shared *self) {
    PyErr_Format(PyExc_RuntimeError, "%s.__init__() has not been called", Py_TYPE(self)->tp_name);
    return NULL;
}

PyObject *kinx_shared_new(PyTypeObject *type, PyObject *args, PyObject *kwds) {
    kinx_state *st = kinx_state_of_type(type);
    if (!st) return NULL;
    kinx_shared *self = (kinx_shared *)type->tp_alloc(type, 0);
    if (self) self->state = st;
    return (PyObject *)self;
}

void kinx_shared_dealloc(kinx_shared *self) {
    PyTypeObject *type = Py_TYPE(self);
    if (PyType_IS_GC(type)) PyObject_GC_UnTrack(self);
    if (self->weakrefs) PyObject_ClearWeakRefs((PyObject *)self);
    Py_CLEAR(self->attributes);
    Py_CLEAR(self->owed);
    if (self->doorbell) kinx_shared_silence(self);
    kin_handle_close(&self->handle);
    type->tp_free(self);
    Py_DECREF(type);
}

PyMemberDef kinx_attributes_members[] = {KINX_ATTRIBUTES_MEMBER, {NULL}};

int kinx_attributes_traverse(kinx_shared *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->attributes);
    return 0;
}

int kinx_attributes_clear(kinx_shared *self) {
    Py_CLEAR(self->attributes);
    return 0;
}

kin_family *kinx_shared_init(kinx_shared *self) {
    if (self->handle.family) {
        PyErr_Format(PyExc_RuntimeError, "%s.__init__() has been called already",
                     Py_TYPE(self)->tp_name);
        return NULL;
    }
    return kinx_family(self->state);
}

PyObject *kinx_shared_repr(kinx_shared *self, const char *format, ...) {
    va_list args;
    va_start(args, format);
    PyObject *state = self->handle.family ? PyUnicode_FromFormatV(format, args)
                                          : PyUnicode_FromString("not initialised");
    va_end(args);
    if (!state) return NULL;
    PyObject *repr =
        PyUnicode_FromFormat("<%s at %p %U>", kinx_type_label(Py_TYPE(self)), self, state);
    Py_DECREF(state);
    return repr;
}

static PyObject *get_ref(kinx_shared *self, void *closure) {
    KINX_CHECK_OPEN(self);
    return kinx_ref_pack(self->handle.family, &self->handle.ref);
}

/* What goes with the ref: what the class says by __getstate__, else the
 * attributes that the object was given.  New reference; None if there is nothing. */
static PyObject *state_of(kinx_shared *self) {
    bool is_bare =
        Py_TYPE(self) == self->state->kind_types[self->handle.ref.kind] && !self->attributes;
    if (is_bare && self->handle.ref.kind != KIN_KIND_CONDITION) Py_RETURN_NONE;
#if PY_VERSION_HEX < 0x030B0000
    /* From 3.11 on each object has this method. */
    if (!PyObject_HasAttrString((PyObject *)self, "__getstate__")) {
        PyObject *dict = PyObject_GetAttrString((PyObject *)self, "__dict__");
        if (dict) return dict;
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) return NULL;
        PyErr_Clear();
        Py_RETURN_NONE;
    }
#endif
    return PyObject_CallMethod((PyObject *)self, "__getstate__", NULL);
}

PyObject *kinx_shared_reduce(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    PyObject *ref = get_ref(self, NULL);
    if (!ref) return NULL;
    PyObject *state = state_of(self);
    if (!state || kinx_mention(self) < 0) {
        Py_XDECREF(state);
        Py_DECREF(ref);
        return NULL;
    }
    bool bare = state == Py_None || (PyDict_CheckExact(state) && PyDict_GET_SIZE(state) == 0);
    PyObject *type = (PyObject *)Py_TYPE(self);
    PyObject *open = self->state->open;
    PyObject *reduced = bare ? Py_BuildValue("O(OO)", open, type, ref)
                             : Py_BuildValue("O(OO)O", open, type, ref, state);
    Py_DECREF(state);
    Py_DECREF(ref);
    return reduced;
}

static PyMethodDef shared_methods[] = {
    {"__reduce__", (PyCFunction)kinx_shared_reduce, METH_NOARGS,
     "__reduce__($self, /)\n--\n\n"
     "Name the object: whoever loads the pickle gets a handle on the same one."},
    {NULL},
};

static PyGetSetDef shared_getset[] = {
    {"ref", (getter)get_ref, NULL,
     "The name of the object in its family, as bytes.  Keeps nothing alive.", NULL},
    {NULL},
};

static PyMemberDef shared_members[] = {
    {"__weaklistoffset__", Py_T_PYSSIZET, offsetof(kinx_shared, weakrefs), Py_READONLY, NULL},
    {NULL},
};

PyDoc_STRVAR(shared_doc,
             "Base of all that lives in the memory of a family of processes.\n\n"
             "Pickles at any time; the copy that is loaded, in this process or another\n"
             "member of the family, is a handle on the same object.  The object is freed\n"
             "when no member and no message under way holds it any more.");

static PyType_Slot shared_slots[] = {
    {Py_tp_doc, (void *)shared_doc}, {Py_tp_dealloc, kinx_shared_dealloc},
    {Py_tp_methods, shared_methods}, {Py_tp_getset, shared_getset},
    {Py_tp_members, shared_members}, {0, NULL},
};

static PyType_Spec shared_spec = {
    .name = "kinfolk._kin.Shared",
    .basicsize = sizeof(kinx_shared),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = shared_slots,
};

/* -- Opening what a pickle named ---------------------------------------------- */

/* The type for refs of this kind, which `cls` must be or extend.  Borrowed. */
static PyTypeObject *type_of_kind(kinx_state *st, uint32_t kind, PyTypeObject *cls) {
    PyTypeObject *type = kind < KINX_KINDS ? st->kind_types[kind] : NULL;
    if (!type || !PyType_IsSubtype(cls, type)) {
        PyErr_Format(PyExc_ValueError, "the reference does not name a %s", cls->tp_name);
        return NULL;
    }
    return type;
}

static PyObject *open_ref(kinx_state *st, PyTypeObject *cls, PyObject *bytes) {
    char thing[128];
    PyOS_snprintf(thing, sizeof thing, "this %s", cls->tp_name);
    kin_ref ref;
    kin_family *family = kinx_ref_unpack(bytes, &ref, thing);
    if (!family || !type_of_kind(st, ref.kind, cls)) return NULL;
    kinx_shared *self = (kinx_shared *)cls->tp_alloc(cls, 0);
    if (!self) return NULL;
    self->state = st;
    kin_err err = kin_handle_open(family, &ref, &self->handle);
    if (err < 0) {
        Py_DECREF(self);
        return kinx_raise(st, err, thing);
    }
    return (PyObject *)self;
}

static PyObject *kin_open(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    kinx_state *st = kinx_state_of(module);
    if (nargs != 2 || !PyType_Check(args[0]) ||
        !PyType_IsSubtype((PyTypeObject *)args[0], st->shared_type)) {
        PyErr_SetString(PyExc_TypeError, "_open() takes a type of this module and a reference");
        return NULL;
    }
    return open_ref(st, (PyTypeObject *)args[0], args[1]);
}

static PyMethodDef functions[] = {
    {"_open", (PyCFunction)(void (*)(void))kin_open, METH_FASTCALL,
     "_open($module, cls, ref, /)\n--\n\n"
     "A handle on the object that `ref` names; pickles call it.\n\n"
     "RuntimeError in a process that is no member of the object's family,\n"
     "StaleReference if nobody holds the object any more."},
    {NULL},
};

int kinx_ref_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    if (kinx_add_type(module, &shared_spec, NULL, &st->shared_type) < 0) return -1;
    if (PyModule_AddFunctions(module, functions) < 0) return -1;
    st->open = PyObject_GetAttrString(module, "_open");
    return st->open ? 0 : -1;
}
