/* Blob: a message in the arena, in this member's hands.
 *
 * pack() makes one, claim() takes one over from the member that made it, and each
 * large message that comes out of a queue is one for a moment.  When a message is
 * loaded, its large buffers are not copied: they are views of the Blob, which
 * lives as long as they do, and from then on the memory is kept as an object that
 * forked children hold, too (kin_blob_keep), each its own version of it
 * (kin_blob_split). */
#include "errors.h"
#include "message.h"

/* In the state's list of those that are kept.  First in what it is a part of. */
typedef struct kinx_kept {
    struct kinx_kept *next, **link;
} kinx_kept;

typedef struct blob_object {
    PyObject_HEAD
    PyObject *weakrefs;
    kinx_state *state; /* borrowed */
    kin_blob blob;     /* in hand, or closed */
    kin_handle kept;   /* instead of `blob` once it was loaded and has views */
    uint8_t *data;     /* where both have it */
    Py_ssize_t len;
    Py_ssize_t exports; /* views */
    kinx_kept in_list;  /* while kept */
    bool split;         /* kept, and this process has it to itself */
} blob_object;

static void let_go(blob_object *self) {
    *self->in_list.link = self->in_list.next;
    if (self->in_list.next) self->in_list.next->link = self->in_list.link;
    /* Where it cannot be rejoined the hold stays, until the process ends. */
    if (self->split && kin_blob_rejoin(&self->kept) < 0) return;
    kin_handle_close(&self->kept);
}

static void give_back(blob_object *self) {
    kin_blob_free(&self->blob);
    if (self->kept.family) let_go(self);
    self->blob = (kin_blob){0};
    self->kept = (kin_handle){0};
}

/* A Blob over `blob`, which it steals, also when it fails.  New reference. */
static blob_object *wrap(kinx_state *st, kin_blob *blob) {
    PyTypeObject *type = st->blob_type;
    if (!type) PyErr_SetString(PyExc_RuntimeError, "the interpreter is shutting down");
    blob_object *self = type ? (blob_object *)type->tp_alloc(type, 0) : NULL;
    if (!self) {
        kin_blob_free(blob);
        return NULL;
    }
    self->state = st;
    self->blob = *blob;
    self->data = blob->data;
    self->len = (Py_ssize_t)blob->len;
    return self;
}

static void dealloc(blob_object *self) {
    PyTypeObject *type = Py_TYPE(self);
    if (self->weakrefs) PyObject_ClearWeakRefs((PyObject *)self);
    give_back(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static bool is_closed(const blob_object *self) {
    return !self->blob.family && !self->kept.family;
}

static PyObject *raise_closed(void) {
    PyErr_SetString(PyExc_ValueError, "operation on a closed Blob");
    return NULL;
}

/* -- Forks ---------------------------------------------------------------------- */

/* What a program has received it takes for its own, and so does a forked child: each
 * must not see what the other does to it.  Blobs that were split before stay so. */
static PyObject *before_fork(PyObject *module, PyObject *unused) {
    kinx_state *st = kinx_state_of(module);
    for (kinx_kept *kept = st->kept; kept; kept = kept->next) {
        blob_object *self = (blob_object *)((char *)kept - offsetof(blob_object, in_list));
        if (!self->split) self->split = kin_blob_split(&self->kept) == 0;
    }
    Py_RETURN_NONE;
}

static int hook_forks(blob_object *self) {
    PyObject *hook = PyObject_GetAttrString(PyType_GetModule(Py_TYPE(self)), "_before_fork");
    PyObject *os = hook ? PyImport_ImportModule("os") : NULL;
    PyObject *hooking = os ? PyObject_GetAttrString(os, "register_at_fork") : NULL;
    PyObject *args = hooking ? PyTuple_New(0) : NULL;
    PyObject *kwds = args ? Py_BuildValue("{sO}", "before", hook) : NULL;
    PyObject *done = kwds ? PyObject_Call(hooking, args, kwds) : NULL;
    self->state->fork_hooked = done != NULL;
    Py_XDECREF(done);
    Py_XDECREF(kwds);
    Py_XDECREF(args);
    Py_XDECREF(hooking);
    Py_XDECREF(os);
    Py_XDECREF(hook);
    return done ? 0 : -1;
}

/* -- Loading -------------------------------------------------------------------- */

/* The message has been loaded, and something in it lies in the blob. */
static int keep_for_views(blob_object *self) {
    kinx_state *st = self->state;
    if (!st->fork_hooked && hook_forks(self) < 0) return -1;
    kin_err err = kin_blob_keep(&self->blob, &self->kept);
    if (err < 0) {
        kinx_raise(st, err, "cannot keep a received buffer");
        return -1;
    }
    self->in_list = (kinx_kept){st->kept, &st->kept};
    if (st->kept) st->kept->link = &self->in_list.next;
    st->kept = &self->in_list;
    return 0;
}

static PyObject *load(blob_object *self, PyObject *unused) {
    if (is_closed(self)) return raise_closed();
    PyObject *view = PyMemoryView_FromObject((PyObject *)self);
    if (!view) return NULL;
    PyObject *obj = kinx_load_view(self->state, view);
    Py_DECREF(view);
    /* Not before: until it has been loaded the message keeps what it mentions. */
    if (obj && self->exports > 0 && self->blob.family && keep_for_views(self) < 0) {
        Py_CLEAR(obj);
    }
    return obj;
}

PyObject *kinx_blob_take(kinx_state *st, kin_blob *blob) {
    blob_object *self = wrap(st, blob);
    if (!self) return NULL;
    PyObject *obj = load(self, NULL);
    Py_DECREF(self);
    return obj;
}

/* -- The type -------------------------------------------------------------------- */

static PyObject *blob_close(blob_object *self, PyObject *unused) {
    if (self->exports > 0) {
        PyErr_Format(PyExc_BufferError, "a Blob with %zd views cannot be closed", self->exports);
        return NULL;
    }
    give_back(self);
    Py_RETURN_NONE;
}

static int get_buffer(blob_object *self, Py_buffer *view, int flags) {
    if (is_closed(self)) {
        view->obj = NULL;
        raise_closed();
        return -1;
    }
    if (PyBuffer_FillInfo(view, (PyObject *)self, self->data, self->len, 0, flags) < 0) return -1;
    self->exports++;
    return 0;
}

static void release_buffer(blob_object *self, Py_buffer *view) {
    self->exports--;
}

static Py_ssize_t length(blob_object *self) {
    return is_closed(self) ? 0 : self->len;
}

static PyObject *get_ref(blob_object *self, void *closure) {
    if (!self->blob.family) return raise_closed();
    return kinx_ref_pack(self->blob.family, &self->blob.ref);
}

static PyObject *repr(blob_object *self) {
    if (is_closed(self)) return PyUnicode_FromFormat("<_kin.Blob at %p closed>", self);
    return PyUnicode_FromFormat("<_kin.Blob at %p len=%zd>", self, self->len);
}

static PyMethodDef methods[] = {
    {"load", (PyCFunction)load, METH_NOARGS,
     "load($self, /)\n--\n\n"
     "What was packed.  Large buffers in it are views of this Blob, which can no longer be\n"
     "claimed then."},
    {"close", (PyCFunction)blob_close, METH_NOARGS,
     "close($self, /)\n--\n\n"
     "Give the memory back, as also happens when the object is collected.\n\n"
     "A blob that another member has claimed is left alone.  BufferError if there are views."},
    {NULL},
};

static PyGetSetDef getset[] = {
    {"ref", (getter)get_ref, NULL,
     "bytes that name the blob to another member, who can claim() it.", NULL},
    {NULL},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", Py_T_PYSSIZET, offsetof(blob_object, weakrefs), Py_READONLY, NULL},
    {NULL},
};

PyDoc_STRVAR(doc, "A message in the arena, in the hands of this process: see pack() and claim().");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)doc},
    {Py_tp_dealloc, dealloc},
    {Py_tp_repr, repr},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {Py_tp_members, members},
    {Py_sq_length, length},
    {Py_bf_getbuffer, get_buffer},
    {Py_bf_releasebuffer, release_buffer},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "kinfolk._kin.Blob",
    .basicsize = sizeof(blob_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

/* -- pack and claim ------------------------------------------------------------------ */

static PyObject *pack(PyObject *module, PyObject *obj) {
    kinx_state *st = kinx_state_of(module);
    kinx_message message;
    if (kinx_message_init(st, &message, obj) < 0) return NULL;
    kin_blob blob;
    kin_err err = kinx_message_to_blob(st, &message, &blob);
    kinx_message_fini(&message);
    if (err < 0) return kinx_raise(st, err, "cannot pack an object");
    return (PyObject *)wrap(st, &blob);
}

static PyObject *claim(PyObject *module, PyObject *bytes) {
    kinx_state *st = kinx_state_of(module);
    kin_ref ref;
    kin_family *family = kinx_ref_unpack(bytes, &ref, "this message");
    if (!family) return NULL;
    kin_blob blob;
    kin_err err = kin_blob_claim(family, &ref, &blob);
    if (err < 0) return kinx_raise(st, err, "this message");
    return (PyObject *)wrap(st, &blob);
}

static PyMethodDef functions[] = {
    {"_before_fork", before_fork, METH_NOARGS, NULL},
    {"pack", pack, METH_O,
     "pack($module, obj, /)\n--\n\n"
     "A Blob with `obj`, pickled for sending; until it is loaded or given back it keeps the\n"
     "shared objects that `obj` mentions.\n\n"
     "Raises what pickling raises; MemoryError when the arena is full."},
    {"claim", claim, METH_O,
     "claim($module, ref, /)\n--\n\n"
     "A Blob, taken over from the member that packed it.\n\n"
     "LookupError if it is gone, or someone else has taken it."},
    {NULL},
};

int kinx_blob_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    if (kinx_add_type(module, &spec, NULL, &st->blob_type) < 0) return -1;
    return PyModule_AddFunctions(module, functions);
}
