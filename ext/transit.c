/* Transit: holds for messages under way as bytes, and the end of such a message.
 *
 * A pickle that mentions objects of the arena ends, in place of its STOP, with
 *
 *     MARK  kinfolk._kin._arrived(transit, number)  POP_MARK  STOP
 *
 * so whoever loads it, by whatever unpickler, has opened what it mentions when the hold is given
 * back, and gets the object that it would have got.  A pickle in frames has its STOP in the last
 * one: MARK, a single byte, takes the STOP's place there, and the rest follows outside of frames,
 * as the protocol allows. */
#include "transit.h"

#include "errors.h"

/* -- The tail of a pickle -------------------------------------------------------------- */

#define MODULE "kinfolk._kin"
#define FUNCTION "_arrived"

/* MARK, the function's name, STACK_GLOBAL, and the head of the ref. */
static const uint8_t before_ref[] = "(\x8c\x0c" MODULE "\x8c\x08" FUNCTION "\x93"
                                    "C\x24";
/* LONG1 and its length: eight bytes and a zero, lest it be negative. */
static const uint8_t before_number[] = "\x8a\x09";
/* TUPLE2, REDUCE, POP_MARK, STOP. */
static const uint8_t at_the_end[] = "\x86R1.";

_Static_assert(KINX_REF_LEN == 0x24, "the ref's length is in the tail");
_Static_assert(sizeof MODULE - 1 == 12 && sizeof FUNCTION - 1 == 8, "so are the names'");

enum {
    REF_AT = sizeof before_ref - 1,
    NUMBER_AT = REF_AT + KINX_REF_LEN + sizeof before_number - 1,
    END_AT = NUMBER_AT + 9,
    TAIL_LEN = END_AT + sizeof at_the_end - 1,
};
_Static_assert(TAIL_LEN <= sizeof((kinx_passage *)0)->tail, "there is room for the tail");

static void write_tail(kinx_passage *passage, PyObject *ref) {
    uint8_t *tail = passage->tail;
    memcpy(tail, before_ref, REF_AT);
    memcpy(tail + REF_AT, PyBytes_AS_STRING(ref), KINX_REF_LEN);
    memcpy(tail + REF_AT + KINX_REF_LEN, before_number, sizeof before_number - 1);
    for (int i = 0; i < 9; i++) {
        tail[NUMBER_AT + i] = i < 8 ? (uint8_t)(passage->number >> (8 * i)) : 0;
    }
    memcpy(tail + END_AT, at_the_end, sizeof at_the_end - 1);
    passage->tail_len = TAIL_LEN;
}

static bool is_tail(const uint8_t *tail) {
    return memcmp(tail, before_ref, REF_AT) == 0 &&
           memcmp(tail + END_AT, at_the_end, sizeof at_the_end - 1) == 0;
}

/* -- Holding and letting go ---------------------------------------------------------------- */

/* A handle of our own: the transit's owner may be closed meanwhile. */
static kin_err open_transit(kin_family *family, PyObject *transit, kin_transit *out) {
    if (!transit) return kin_transit_of_family(family, out);
    return kin_transit_open(family, &((kinx_shared *)transit)->handle.ref, out);
}

/* All but the transit itself: it would keep itself for ever. */
static uint32_t refs_of(const kinx_mentions *mentions, const kin_transit *transit, kin_ref *refs) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < mentions->count; i++) {
        const kin_ref *ref = &mentions->items[i]->handle.ref;
        if (ref->serial != transit->handle.ref.serial) refs[count++] = *ref;
    }
    return count;
}

static kin_err hold(kinx_passage *passage, const kinx_mentions *mentions, kin_ref *refs) {
    uint32_t count = refs_of(mentions, &passage->transit, refs);
    if (count == 0) return 0;
    return kin_transit_hold(&passage->transit, refs, count, &passage->number);
}

static PyObject *begin(kinx_passage *passage, kin_family *family, const kinx_mentions *mentions,
                       PyObject *transit, kin_ref *refs) {
    kinx_state *st = mentions->items[0]->state;
    kin_err err = open_transit(family, transit, &passage->transit);
    if (err == 0) err = hold(passage, mentions, refs);
    if (err < 0) return kinx_raise(st, err, "what is sent");
    return kinx_ref_pack(family, &passage->transit.handle.ref);
}

int kinx_passage_begin(kinx_state *st, kinx_passage *passage, const kinx_mentions *mentions,
                       PyObject *transit) {
    passage->number = 0;
    passage->tail_len = 0;
    passage->transit = (kin_transit){0};
    if (mentions->count == 0) return 0;
    kin_ref few[4], *refs = few;
    if (mentions->count > 4) refs = PyMem_New(kin_ref, mentions->count);
    if (!refs) {
        PyErr_NoMemory();
        return -1;
    }
    PyObject *ref = begin(passage, mentions->items[0]->handle.family, mentions, transit, refs);
    if (refs != few) PyMem_Free(refs);
    if (!ref) {
        kinx_passage_end(passage, false);
        return -1;
    }
    if (passage->number) write_tail(passage, ref);
    Py_DECREF(ref);
    return 0;
}

void kinx_passage_end(kinx_passage *passage, bool sent) {
    if (!sent && passage->number) kin_transit_drop(&passage->transit, passage->number);
    kin_transit_close(&passage->transit);
}

/* Nothing if the transit is gone, or another family's, or knows no such number. */
static void let_go(PyObject *bytes, uint64_t number) {
    kin_ref ref;
    kin_transit transit;
    kin_family *family = kinx_ref_unpack(bytes, &ref, NULL);
    if (!family) {
        PyErr_Clear();
        return;
    }
    if (kin_transit_open(family, &ref, &transit) < 0) return;
    kin_transit_drop(&transit, number);
    kin_transit_close(&transit);
}

void kinx_passage_drop(const uint8_t *data, size_t len) {
    if (len < TAIL_LEN || !is_tail(data + len - TAIL_LEN)) return;
    const uint8_t *tail = data + len - TAIL_LEN;
    uint64_t number = 0;
    for (int i = 7; i >= 0; i--) number = number << 8 | tail[NUMBER_AT + i];
    PyObject *type, *value, *trace; /* of what could not be loaded */
    PyErr_Fetch(&type, &value, &trace);
    PyObject *ref = PyBytes_FromStringAndSize((const char *)tail + REF_AT, KINX_REF_LEN);
    if (ref) let_go(ref, number);
    Py_XDECREF(ref);
    PyErr_Restore(type, value, trace);
}

static PyObject *arrived(PyObject *module, PyObject *args) {
    PyObject *ref, *given;
    if (!PyArg_ParseTuple(args, "O!O!:_arrived", &PyBytes_Type, &ref, &PyLong_Type, &given)) {
        return NULL;
    }
    uint64_t number = PyLong_AsUnsignedLongLong(given);
    if (PyErr_Occurred()) PyErr_Clear();
    else let_go(ref, number);
    Py_RETURN_NONE;
}

/* -- The type ---------------------------------------------------------------------------------- */

static int init(kinx_shared *self, PyObject *args, PyObject *kwds) {
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwds, ":Transit", names)) return -1;
    kin_family *family = kinx_shared_init(self);
    if (!family) return -1;
    kin_err err = kin_transit_create(family, &self->transit);
    if (err == 0) return 0;
    kinx_raise(self->state, err, "a Transit");
    return -1;
}

static PyObject *reduce(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    PyObject *open = PyObject_GetAttrString(PyType_GetModule(Py_TYPE(self)), "_transit");
    PyObject *ref = open ? kinx_ref_pack(self->handle.family, &self->handle.ref) : NULL;
    if (!ref || kinx_mention(self) < 0) {
        Py_XDECREF(open);
        Py_XDECREF(ref);
        return NULL;
    }
    return Py_BuildValue("N(N)", open, ref);
}

/* A connection whose transit is gone, or not of this family, works without. */
static PyObject *transit(PyObject *module, PyObject *bytes) {
    kinx_state *st = kinx_state_of(module);
    PyTypeObject *type = st->kind_types[KIN_KIND_TRANSIT];
    kin_ref ref;
    kin_family *family = kinx_ref_unpack(bytes, &ref, NULL);
    if (!family) {
        if (!PyErr_ExceptionMatches(PyExc_RuntimeError)) return NULL;
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    kinx_shared *self = (kinx_shared *)kinx_shared_new(type, NULL, NULL);
    if (!self) return NULL;
    if (kin_transit_open(family, &ref, &self->transit) == 0) return (PyObject *)self;
    Py_DECREF(self);
    Py_RETURN_NONE;
}

static PyObject *repr(kinx_shared *self) {
    return kinx_shared_repr(self, "open");
}

static PyMethodDef methods[] = {
    {"__reduce__", (PyCFunction)reduce, METH_NOARGS, "__reduce__($self, /)\n--\n\nName it."},
    {NULL},
};

static PyMethodDef functions[] = {
    {"_arrived", arrived, METH_VARARGS,
     "_arrived($module, transit, number, /)\n--\n\n"
     "The end of a message that mentioned objects: they need not be held for it any more."},
    {"_transit", transit, METH_O,
     "_transit($module, ref, /)\n--\n\n"
     "The Transit of that name, for pickles; None if there is none any more."},
    {NULL},
};

PyDoc_STRVAR(doc, "Transit()\n--\n\n"
                  "Holds what messages mention that are under way in a pipe.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)doc},
    {Py_tp_new, kinx_shared_new},
    {Py_tp_init, init},
    {Py_tp_dealloc, kinx_shared_dealloc},
    {Py_tp_repr, repr},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "kinfolk._kin.Transit",
    .basicsize = sizeof(kinx_shared),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int kinx_transit_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    PyTypeObject **type = &st->kind_types[KIN_KIND_TRANSIT];
    if (kinx_add_type(module, &spec, st->shared_type, type) < 0) return -1;
    return PyModule_AddFunctions(module, functions);
}
