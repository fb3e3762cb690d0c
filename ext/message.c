/* Pickling an object for sending, and what becomes of the pickle.
 *
 * Three ways, the first that fits:
 *
 *   atoms       a number, a short string …: by hand (atom.c)
 *   plain data  containers of atoms, and what lives in the arena: the interpreter's
 *               own dumps()
 *   all else    kinfolk.reduction.ForkingPickler, which knows functions and
 *               classes by value, and the reducers that programs have registered
 *
 * The last one writes into a sink, which keeps the chunks of the pickle as the
 * pickler hands them out.  A large string among them is the object's own, not a
 * copy, and large buffers stay out of the pickle altogether (protocol 5): what
 * is large is copied once, into the blob.
 *
 * The user's code runs at most once for each object, and all of it before
 * anything is sent.  What it mentions of the arena is noted meanwhile (ref.h). */
#include "message.h"
#include "errors.h"

/* Copies of at least so many bytes are made without the GIL. */
#define COPY_WITHOUT_GIL (1u << 20)

/* -- The sink ------------------------------------------------------------------ */

typedef struct sink {
    PyObject_HEAD
    PyObject *chunks;  /* list of bytes */
    PyObject *buffers; /* list of PickleBuffer */
} sink;

/* The message has been taken out: only the user's code, keeping a pickler, gets here. */
static int raise_sealed(void) {
    PyErr_SetString(PyExc_ValueError, "this message has been pickled already");
    return -1;
}

/* write(data): another chunk of the pickle. */
static PyObject *sink_write(sink *self, PyObject *data) {
    /* Bytes do not change any more; anything else may, while user code runs. */
    PyObject *chunk = PyBytes_CheckExact(data) ? Py_NewRef(data) : PyBytes_FromObject(data);
    if (!chunk) return NULL;
    int err = self->chunks ? PyList_Append(self->chunks, chunk) : raise_sealed();
    Py_DECREF(chunk);
    if (err < 0) return NULL;
    Py_RETURN_NONE;
}

/* keep(buffer) -> bool: false if it stays out of the pickle. */
static PyObject *sink_keep(sink *self, PyObject *buffer) {
    const Py_buffer *view = PyPickleBuffer_GetBuffer(buffer);
    if (!view) return NULL;
    if (view->len < KINX_OUT_OF_BAND || !PyBuffer_IsContiguous(view, 'A')) Py_RETURN_TRUE;
    int err = self->buffers ? PyList_Append(self->buffers, buffer) : raise_sealed();
    if (err < 0) return NULL;
    Py_RETURN_FALSE;
}

static int sink_traverse(sink *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->chunks);
    Py_VISIT(self->buffers);
    return 0;
}

static int sink_clear(sink *self) {
    Py_CLEAR(self->chunks);
    Py_CLEAR(self->buffers);
    return 0;
}

static void sink_dealloc(sink *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    sink_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef sink_methods[] = {
    {"write", (PyCFunction)sink_write, METH_O, NULL},
    {"keep", (PyCFunction)sink_keep, METH_O, NULL},
    {NULL},
};

static PyType_Slot sink_slots[] = {
    {Py_tp_dealloc, sink_dealloc},
    {Py_tp_traverse, sink_traverse},
    {Py_tp_clear, sink_clear},
    {Py_tp_methods, sink_methods},
    {0, NULL},
};

static PyType_Spec sink_spec = {
    .name = "kinfolk._kin._Sink",
    .basicsize = sizeof(sink),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = sink_slots,
};

int kinx_message_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    st->sink_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &sink_spec, NULL);
    return st->sink_type ? 0 : -1;
}

static sink *sink_new(kinx_state *st) {
    sink *self = (sink *)st->sink_type->tp_alloc(st->sink_type, 0);
    if (!self) return NULL;
    self->chunks = PyList_New(0);
    self->buffers = PyList_New(0);
    if (self->chunks && self->buffers) return self;
    Py_DECREF(self);
    return NULL;
}

/* -- Pickling -------------------------------------------------------------------- */

/* The message is these bytes; steals `bytes`. */
static int message_of_bytes(kinx_message *message, PyObject *bytes) {
    message->owner = bytes;
    message->body = (const uint8_t *)PyBytes_AS_STRING(bytes);
    message->body_len = (size_t)PyBytes_GET_SIZE(bytes);
    return 0;
}

static int pickle_plain(kinx_state *st, kinx_message *message, PyObject *obj) {
    PyObject *dumps = kinx_import(&st->plain_dumps, "_pickle", "dumps");
    PyObject *protocol = dumps ? PyLong_FromLong(5) : NULL;
    if (!protocol) return -1;
    PyObject *args[] = {NULL, obj, protocol};
    PyObject *bytes =
        PyObject_Vectorcall(dumps, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(protocol);
    return bytes ? message_of_bytes(message, bytes) : -1;
}

/* ForkingPickler(sink, 5, buffer_callback=sink.keep).  New reference. */
static PyObject *pickler_into(kinx_state *st, sink *to) {
    PyObject *type = kinx_import(&st->forking_pickler, "kinfolk.reduction", "ForkingPickler");
    PyObject *keep = type ? PyObject_GetAttrString((PyObject *)to, "keep") : NULL;
    if (!keep) return NULL;
    PyObject *args = Py_BuildValue("(Oi)", to, 5);
    PyObject *kwds = Py_BuildValue("{sO}", "buffer_callback", keep);
    PyObject *pickler = args && kwds ? PyObject_Call(type, args, kwds) : NULL;
    Py_XDECREF(args);
    Py_XDECREF(kwds);
    Py_DECREF(keep);
    return pickler;
}

static int pickle_into(kinx_state *st, sink *to, PyObject *obj) {
    PyObject *pickler = pickler_into(st, to);
    if (!pickler) return -1;
    /* What every member of the family has in the main program goes by its name alone. */
    PyObject *done = NULL;
    if (PyObject_SetAttrString(pickler, "kin", Py_True) == 0) {
        done = PyObject_CallMethod(pickler, "dump", "(O)", obj);
    }
    Py_DECREF(pickler);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* Takes what is in the sink; from then on nothing more gets in. */
static int message_of_sink(kinx_message *message, sink *from) {
    PyObject *chunks = from->chunks, *buffers = from->buffers;
    from->chunks = from->buffers = NULL;
    if (PyList_GET_SIZE(buffers) > 0) message->buffers = buffers;
    else Py_DECREF(buffers);
    if (PyList_GET_SIZE(chunks) != 1) {
        message->chunks = chunks;
        return 0;
    }
    PyObject *only = Py_NewRef(PyList_GET_ITEM(chunks, 0));
    Py_DECREF(chunks);
    return message_of_bytes(message, only);
}

static int pickle_any(kinx_state *st, kinx_message *message, PyObject *obj) {
    sink *to = sink_new(st);
    if (!to) return -1;
    int err = pickle_into(st, to, obj);
    if (err == 0) err = message_of_sink(message, to);
    Py_DECREF(to);
    return err;
}

int kinx_message_init(kinx_state *st, kinx_message *message, PyObject *obj) {
    message->head_len = 0;
    message->body = NULL;
    message->body_len = 0;
    message->owner = message->chunks = message->buffers = NULL;
    message->mentions.count = 0;
    if (kinx_atom_dump(obj, message)) return 0;
    kinx_mentions_begin(&message->mentions);
    int err =
        kinx_is_plain(st, obj) ? pickle_plain(st, message, obj) : pickle_any(st, message, obj);
    kinx_mentions_end(&message->mentions);
    if (err < 0) kinx_mentions_clear(&message->mentions);
    return err;
}

void kinx_message_fini(kinx_message *message) {
    if (message->mentions.count) kinx_mentions_clear(&message->mentions);
    Py_XDECREF(message->owner);
    Py_XDECREF(message->chunks);
    Py_XDECREF(message->buffers);
}

/* -- The pickle as bytes ------------------------------------------------------------ */

static size_t pickle_len(const kinx_message *message) {
    size_t len = message->head_len + message->body_len + message->stop;
    if (!message->chunks) return len;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(message->chunks); i++) {
        len += (size_t)PyBytes_GET_SIZE(PyList_GET_ITEM(message->chunks, i));
    }
    return len;
}

static uint8_t *append(uint8_t *out, const void *data, size_t len) {
    if (len) memcpy(out, data, len);
    return out + len;
}

static void pickle_write(const kinx_message *message, uint8_t *out) {
    out = append(out, message->head, message->head_len);
    out = append(out, message->body, message->body_len);
    if (message->stop) *out = '.';
    if (!message->chunks) return;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(message->chunks); i++) {
        PyObject *chunk = PyList_GET_ITEM(message->chunks, i);
        out = append(out, PyBytes_AS_STRING(chunk), (size_t)PyBytes_GET_SIZE(chunk));
    }
}

bool kinx_message_is_small(const kinx_message *message) {
    return message->mentions.count == 0 && !message->buffers && !message->chunks &&
           pickle_len(message) <= KIN_RECORD_MAX;
}

const uint8_t *kinx_message_flat(const kinx_message *message, uint8_t *scratch, uint32_t *len) {
    *len = (uint32_t)pickle_len(message);
    if (message->head_len == 0) return message->body;
    pickle_write(message, scratch);
    return scratch;
}

/* -- Into a blob ---------------------------------------------------------------------- */

/* What comes to lie in a blob besides the pickle, and how long it all is. */
typedef struct layout {
    kinx_blob_head head;
    Py_buffer *views; /* of the buffers; NULL if there are none */
    uint64_t len;
} layout;

static void layout_fini(layout *lay) {
    for (uint32_t i = 0; i < lay->head.buffer_count; i++) PyBuffer_Release(&lay->views[i]);
    PyMem_Free(lay->views);
}

/* Our own views: nobody can release them while they are copied without the GIL. */
static int open_views(layout *lay, PyObject *buffers) {
    Py_ssize_t count = PyList_GET_SIZE(buffers);
    lay->views = PyMem_Calloc((size_t)count, sizeof *lay->views);
    if (!lay->views) {
        PyErr_NoMemory();
        return -1;
    }
    for (; lay->head.buffer_count < count; lay->head.buffer_count++) {
        uint32_t i = lay->head.buffer_count;
        PyObject *buffer = PyList_GET_ITEM(buffers, i);
        if (PyObject_GetBuffer(buffer, &lay->views[i], PyBUF_FULL_RO) < 0) return -1;
    }
    return 0;
}

static int layout_init(layout *lay, const kinx_message *message) {
    *lay = (layout){.head = {.format = KINX_BLOB_FORMAT, .pickle_len = pickle_len(message)}};
    if (message->buffers && open_views(lay, message->buffers) < 0) {
        layout_fini(lay);
        return -1;
    }
    uint32_t count = lay->head.buffer_count;
    lay->len = sizeof lay->head + count * sizeof(uint64_t) + lay->head.pickle_len;
    for (uint32_t i = 0; i < count; i++) {
        lay->len = kinx_align_buffer(lay->len) + (uint64_t)lay->views[i].len;
    }
    return 0;
}

/* Needs no GIL: all that is read is kept by the message and the layout. */
static void layout_write(const layout *lay, const kinx_message *message, uint8_t *data) {
    uint8_t *out = append(data, &lay->head, sizeof lay->head);
    for (uint32_t i = 0; i < lay->head.buffer_count; i++) {
        uint64_t len = (uint64_t)lay->views[i].len;
        out = append(out, &len, sizeof len);
    }
    pickle_write(message, out);
    uint64_t off = (uint64_t)(out - data) + lay->head.pickle_len;
    for (uint32_t i = 0; i < lay->head.buffer_count; i++) {
        off = kinx_align_buffer(off);
        append(data + off, lay->views[i].buf, (size_t)lay->views[i].len);
        off += (uint64_t)lay->views[i].len;
    }
}

static kin_err add_refs(kin_blob *blob, const kinx_mentions *mentions) {
    for (uint32_t i = 0; i < mentions->count; i++) {
        kin_err err = kin_blob_add_ref(blob, &mentions->items[i]->handle.ref);
        if (err < 0) return err;
    }
    return 0;
}

static kin_err blob_of_layout(const layout *lay, const kinx_message *message, kin_family *family,
                              kin_blob *out) {
    kin_blob blob;
    kin_err err = kin_blob_create(family, lay->len, message->mentions.count, &blob);
    if (err < 0) return err;
    if (lay->len < COPY_WITHOUT_GIL) {
        layout_write(lay, message, blob.data);
    } else {
        Py_BEGIN_ALLOW_THREADS
        layout_write(lay, message, blob.data);
        Py_END_ALLOW_THREADS
    }
    err = add_refs(&blob, &message->mentions);
    if (err < 0) kin_blob_free(&blob);
    else *out = blob;
    return err;
}

kin_err kinx_message_to_blob(kinx_state *st, const kinx_message *message, kin_blob *out) {
    kin_family *family = kinx_family(st);
    layout lay;
    if (!family || layout_init(&lay, message) < 0) return KINX_RAISED;
    kin_err err = blob_of_layout(&lay, message, family, out);
    layout_fini(&lay);
    return err;
}

/* -- Loading ---------------------------------------------------------------------------- */

static PyObject *loads(kinx_state *st, PyObject *pickle, PyObject *buffers) {
    PyObject *function = kinx_import(&st->loads, "kinfolk.pickle", "loads");
    if (!function) return NULL;
    PyObject *kwnames = buffers ? Py_BuildValue("(s)", "buffers") : NULL;
    if (buffers && !kwnames) return NULL;
    PyObject *args[] = {NULL, pickle, buffers};
    PyObject *obj =
        PyObject_Vectorcall(function, args + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, kwnames);
    Py_XDECREF(kwnames);
    return obj;
}

PyObject *kinx_load_record(kinx_state *st, const uint8_t *data, size_t len) {
    bool known;
    PyObject *obj = kinx_atom_load(data, len, &known);
    if (known) return obj;
    /* A copy of its own: the unpickler runs code that might keep a view of it. */
    PyObject *pickle = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)len);
    if (!pickle) return NULL;
    obj = loads(st, pickle, NULL);
    Py_DECREF(pickle);
    return obj;
}

/* Where the parts of a received blob lie. */
typedef struct parts {
    kinx_blob_head head;
    uint64_t pickle_off;
} parts;

/* Reads the blob's head once and checks that its parts lie inside it. */
static bool parts_read(parts *in, const uint8_t *data, uint64_t len) {
    if (len < sizeof in->head) return false;
    memcpy(&in->head, data, sizeof in->head);
    uint64_t room = len - sizeof in->head;
    if (in->head.format != KINX_BLOB_FORMAT) return false;
    if (in->head.buffer_count > room / sizeof(uint64_t)) return false;
    in->pickle_off = sizeof in->head + in->head.buffer_count * sizeof(uint64_t);
    return in->head.pickle_len <= len - in->pickle_off;
}

/* view[start:start + len].  New reference. */
static PyObject *slice(PyObject *view, uint64_t start, uint64_t len) {
    PyObject *from = PyLong_FromUnsignedLongLong(start);
    PyObject *to = PyLong_FromUnsignedLongLong(start + len);
    PyObject *range = from && to ? PySlice_New(from, to, NULL) : NULL;
    PyObject *part = range ? PyObject_GetItem(view, range) : NULL;
    Py_XDECREF(from);
    Py_XDECREF(to);
    Py_XDECREF(range);
    return part;
}

static PyObject *raise_torn(void) {
    PyErr_SetString(PyExc_ValueError, "the blob holds no message of kinfolk");
    return NULL;
}

/* A list of views, one for each buffer.  New reference. */
static PyObject *buffers_of(const parts *in, const uint8_t *data, PyObject *view) {
    uint64_t end = in->pickle_off + in->head.pickle_len;
    uint64_t whole = (uint64_t)PyMemoryView_GET_BUFFER(view)->len;
    PyObject *buffers = PyList_New(0);
    for (uint32_t i = 0; buffers && i < in->head.buffer_count; i++) {
        uint64_t len, off = kinx_align_buffer(end);
        memcpy(&len, data + sizeof in->head + i * sizeof len, sizeof len);
        PyObject *part = NULL;
        if (off > whole || len > whole - off) raise_torn();
        else part = slice(view, off, len);
        if (!part || PyList_Append(buffers, part) < 0) Py_CLEAR(buffers);
        Py_XDECREF(part);
        end = off + len;
    }
    return buffers;
}

static PyObject *load_parts(kinx_state *st, const parts *in, const uint8_t *data, PyObject *view) {
    PyObject *pickle = slice(view, in->pickle_off, in->head.pickle_len);
    if (!pickle) return NULL;
    PyObject *buffers = NULL, *obj = NULL;
    if (in->head.buffer_count > 0) buffers = buffers_of(in, data, view);
    if (buffers || in->head.buffer_count == 0) obj = loads(st, pickle, buffers);
    Py_XDECREF(buffers);
    Py_DECREF(pickle);
    return obj;
}

PyObject *kinx_load_view(kinx_state *st, PyObject *view) {
    const Py_buffer *bytes = PyMemoryView_GET_BUFFER(view);
    parts in;
    if (!parts_read(&in, bytes->buf, (uint64_t)bytes->len)) return raise_torn();
    const uint8_t *data = bytes->buf;
    if (in.head.buffer_count == 0) {
        bool known;
        PyObject *obj = kinx_atom_load(data + in.pickle_off, in.head.pickle_len, &known);
        if (known) return obj;
    }
    return load_parts(st, &in, data, view);
}
