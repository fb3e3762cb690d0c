/* Pickling an object for sending, and what becomes of the pickle.
 *
 * A number or a short string is written by hand (atom.c), all else by the pickler
 * (pickle/), told that its receivers are kin and with the reducers that programs
 * have registered for sending.  Large strings are not copied into the pickle but noted
 * as pieces of it, and large buffers stay out of it altogether (protocol 5): what is
 * large is copied once, into the blob.
 *
 * The user's code runs at most once for each object, and all of it before anything
 * is sent.  What it mentions of the arena is noted meanwhile (ref.h). */
#include "message.h"

#include "bytes.h"
#include "errors.h"
#include "pickle/dump.h"
#include "pickle/unpickler.h"

/* -- Pickling -------------------------------------------------------------------- */

/* Some reducers are for types of modules that a program may never import: those are
 * registered when they are there. */
PyObject *kinx_sending_reducers(kinx_state *st) {
    PyObject *reducers = kinx_import(&st->extra_reducers, "kinfolk.reduction", "extra_reducers");
    PyObject *late =
        reducers ? kinx_import(&st->late_reducers, "kinfolk.reduction", "late_reducers") : NULL;
    if (!late || PyDict_GET_SIZE(late) == 0) return late ? reducers : NULL;
    PyObject *module, *unused;
    Py_ssize_t place = 0;
    while (PyDict_Next(late, &place, &module, &unused)) {
        int known = PyDict_Contains(PyImport_GetModuleDict(), module);
        if (known == 0) continue;
        PyObject *learn =
            known > 0 ? kinx_import(&st->learn_late, "kinfolk.reduction", "learn_late_reducers")
                      : NULL;
        PyObject *done = learn ? PyObject_CallNoArgs(learn) : NULL;
        Py_XDECREF(done);
        return done ? reducers : NULL;
    }
    return reducers;
}

static int pickle(kinx_state *st, kinx_message *message, PyObject *obj, bool keep_buffers) {
    PyObject *reducers = kinx_sending_reducers(st);
    if (!reducers) return -1;
    kinx_pickler p;
    kinx_pickler_init(&p, st);
    p.kin = true;
    p.extra_reducers = reducers;
    p.keep_buffers = keep_buffers;
    int err = kinx_output_init(&message->output, p.ps, &p, NULL, true);
    if (err == 0) {
        err = kinx_pickle(&p, obj, true);
        message->body = p.out.start;
        message->body_len = (size_t)(p.out.at - p.out.start);
        message->buffers = p.buffers;
        p.buffers = NULL;
        if (err < 0) kinx_trail_explain(&p, obj);
    }
    kinx_pickler_fini(&p);
    return err;
}

static int init(kinx_state *st, kinx_message *message, PyObject *obj, bool keep_buffers) {
    message->head_len = 0;
    message->body = NULL;
    message->body_len = 0;
    message->owner = message->buffers = NULL;
    message->is_pickled = false;
    message->mentions.count = 0;
    if (kinx_atom_dump(obj, message)) return 0;
    message->is_pickled = true;
    memset(&message->output, 0, sizeof message->output); /* it may fail before there is one */
    kinx_mentions_begin(&message->mentions);
    int err = pickle(st, message, obj, keep_buffers);
    kinx_mentions_end(&message->mentions);
    if (err < 0) kinx_message_fini(message);
    return err;
}

int kinx_message_init(kinx_state *st, kinx_message *message, PyObject *obj) {
    return init(st, message, obj, true);
}

int kinx_message_init_whole(kinx_state *st, kinx_message *message, PyObject *obj) {
    return init(st, message, obj, false);
}

void kinx_message_fini(kinx_message *message) {
    if (message->mentions.count) kinx_mentions_clear(&message->mentions);
    if (message->is_pickled) kinx_output_fini(&message->output);
    Py_XDECREF(message->owner);
    Py_XDECREF(message->buffers);
}

/* -- The pickle as bytes ------------------------------------------------------------ */

static size_t piece_count(const kinx_message *message) {
    return message->is_pickled ? message->output.piece_count : 0;
}

static size_t pickle_len(const kinx_message *message) {
    size_t len = message->head_len + message->body_len + message->stop;
    for (size_t i = 0; i < piece_count(message); i++) len += message->output.pieces[i].len;
    return len;
}

size_t kinx_message_part_count(const kinx_message *message) {
    return 3 + 2 * piece_count(message);
}

static kin_part *add_part(kin_part *out, const void *data, size_t len) {
    *out = (kin_part){data, len};
    return out + 1;
}

void kinx_message_parts(const kinx_message *message, kin_part *parts) {
    static const uint8_t stop = KIN_OP_STOP;
    size_t done = 0;
    parts = add_part(parts, message->head, message->head_len);
    for (size_t i = 0; i < piece_count(message); i++) {
        const kinx_piece *piece = &message->output.pieces[i];
        parts = add_part(parts, message->body + done, piece->off - done);
        parts = add_part(parts, piece->data, piece->len);
        done = piece->off;
    }
    parts = add_part(parts, message->body + done, message->body_len - done);
    add_part(parts, &stop, message->stop);
}

static uint8_t *append(uint8_t *out, const void *data, size_t len) {
    if (len) memcpy(out, data, len);
    return out + len;
}

static void pickle_write(const kinx_message *message, uint8_t *out) {
    out = append(out, message->head, message->head_len);
    size_t done = 0;
    for (size_t i = 0; i < piece_count(message); i++) {
        const kinx_piece *piece = &message->output.pieces[i];
        out = append(out, message->body + done, piece->off - done);
        out = append(out, piece->data, piece->len);
        done = piece->off;
    }
    out = append(out, message->body + done, message->body_len - done);
    if (message->stop) *out = '.';
}

PyObject *kinx_message_bytes(const kinx_message *message) {
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)pickle_len(message));
    if (bytes) pickle_write(message, (uint8_t *)PyBytes_AS_STRING(bytes));
    return bytes;
}

bool kinx_message_is_small(const kinx_message *message) {
    return message->mentions.count == 0 && !message->buffers && piece_count(message) == 0 &&
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
    kin_message_head head;
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
    *lay = (layout){.head = {.format = KIN_MESSAGE_FORMAT, .pickle_len = pickle_len(message)}};
    if (message->buffers && open_views(lay, message->buffers) < 0) {
        layout_fini(lay);
        return -1;
    }
    uint32_t count = lay->head.buffer_count;
    lay->len = sizeof lay->head + count * sizeof(uint64_t) + lay->head.pickle_len;
    for (uint32_t i = 0; i < count; i++) {
        lay->len = kin_message_align(lay->len) + (uint64_t)lay->views[i].len;
    }
    return 0;
}

/* Needs no GIL: all that is read is kept by the message and the layout.  (What a bytearray's view
 * keeps is kept from being resized, which others should not get to see: is_lent.) */
static void layout_write(const layout *lay, const kinx_message *message, uint8_t *data) {
    uint8_t *out = append(data, &lay->head, sizeof lay->head);
    for (uint32_t i = 0; i < lay->head.buffer_count; i++) {
        uint64_t len = (uint64_t)lay->views[i].len;
        out = append(out, &len, sizeof len);
    }
    pickle_write(message, out);
    uint64_t off = (uint64_t)(out - data) + lay->head.pickle_len;
    for (uint32_t i = 0; i < lay->head.buffer_count; i++) {
        off = kin_message_align(off);
        append(data + off, lay->views[i].buf, (size_t)lay->views[i].len);
        off += (uint64_t)lay->views[i].len;
    }
}

static bool is_lent(const kinx_message *message) {
    for (size_t i = 0; i < piece_count(message); i++) {
        if (PyMemoryView_Check(message->output.pieces[i].owner)) return true;
    }
    return false;
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
    if (lay->len < KINX_LARGE || is_lent(message)) {
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

/* What comes now may take long: a wait for room in a queue. */
static void let_go(kinx_message *message) {
    if (message->is_pickled) kinx_output_fini(&message->output);
    message->is_pickled = false;
    Py_CLEAR(message->owner);
    Py_CLEAR(message->buffers);
}

kin_err kinx_message_to_blob(kinx_state *st, kinx_message *message, kin_blob *out) {
    kin_family *family = kinx_family(st);
    layout lay;
    if (!family || layout_init(&lay, message) < 0) return KINX_RAISED;
    kin_err err = blob_of_layout(&lay, message, family, out);
    layout_fini(&lay);
    if (err == 0) let_go(message);
    return err;
}

/* -- Loading ---------------------------------------------------------------------------- */

PyObject *kinx_load_record(kinx_state *st, const uint8_t *data, size_t len) {
    bool known;
    PyObject *obj = kinx_atom_load(data, len, &known);
    return known ? obj : kinx_loads(st, data, len, NULL);
}

/* Where the parts of a received blob lie. */
typedef struct parts {
    kin_message_head head;
    uint64_t pickle_off;
} parts;

/* Reads the blob's head once and checks that its parts lie inside it. */
static bool parts_read(parts *in, const uint8_t *data, uint64_t len) {
    if (len < sizeof in->head) return false;
    memcpy(&in->head, data, sizeof in->head);
    uint64_t room = len - sizeof in->head;
    if (in->head.format != KIN_MESSAGE_FORMAT) return false;
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
        uint64_t len, off = kin_message_align(end);
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
    PyObject *buffers = NULL, *obj = NULL;
    if (in->head.buffer_count > 0) buffers = buffers_of(in, data, view);
    if (buffers || in->head.buffer_count == 0) {
        obj = kinx_loads(st, data + in->pickle_off, in->head.pickle_len, buffers);
    }
    Py_XDECREF(buffers);
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
