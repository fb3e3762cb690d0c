#include "output.h"

#include <stddef.h>

static kinx_output *output_of(kin_writer *w) {
    return ((kinx_pickler *)((char *)w - offsetof(kinx_pickler, out)))->output;
}

static void set_buffer(kin_writer *w, uint8_t *start, size_t used, size_t room) {
    w->start = start;
    w->at = start + used;
    w->limit = start + room;
}

static void give_scratch_back(kinx_output *out) {
    if (!out->scratch) return;
    if (out->ps->scratch) PyMem_Free(out->scratch); /* a nested pickling has left another */
    else out->ps->scratch = out->scratch;
    out->scratch = NULL;
}

/* The scratch was too small: all that there is goes into bytes. */
static kin_err move_to_bytes(kin_writer *w, kinx_output *out, size_t used, size_t room) {
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room);
    if (!bytes) return -EINTR; /* raised */
    memcpy(PyBytes_AS_STRING(bytes), w->start, used);
    give_scratch_back(out);
    out->bytes = bytes;
    set_buffer(w, (uint8_t *)PyBytes_AS_STRING(bytes), used, room);
    return 0;
}

/* What comes behind something large: a few opcodes, mostly. */
enum { ROOM_BEHIND = 1024 };

/* Twice the room each time, less when it is much; for something large what it needs: it is the
 * last one as a rule. */
static kin_err grow(kin_writer *w, size_t need) {
    kinx_output *out = output_of(w);
    size_t used = (size_t)(w->at - w->start), room = (size_t)(w->end - w->start);
    if (used + need > (size_t)PY_SSIZE_T_MAX - 64) return -ENOMEM;
    size_t more = room < (1u << 18) ? room : room / 4;
    room = need > more ? used + need + ROOM_BEHIND : room + more;
    if (!out->bytes) return move_to_bytes(w, out, used, room);
    if (_PyBytes_Resize(&out->bytes, (Py_ssize_t)room) < 0) {
        set_buffer(w, NULL, 0, 0);
        return -EINTR; /* raised */
    }
    set_buffer(w, (uint8_t *)PyBytes_AS_STRING(out->bytes), used, room);
    return 0;
}

/* -- Files --------------------------------------------------------------------------- */

static kin_err write_object(kinx_output *out, PyObject *data) {
    PyObject *done = data ? PyObject_CallOneArg(out->write, data) : NULL;
    Py_XDECREF(data);
    Py_XDECREF(done);
    return done ? 0 : -EINTR;
}

/* A copy: the file may keep what it is given. */
static kin_err drain(kin_writer *w) {
    if (w->at == w->start) return 0;
    PyObject *data = PyBytes_FromStringAndSize((char *)w->start, w->at - w->start);
    w->at = w->start;
    return write_object(output_of(w), data);
}

static bool is_all_of(PyObject *owner, const void *data, size_t len) {
    return owner && PyBytes_CheckExact(owner) && data == PyBytes_AS_STRING(owner) &&
           len == (size_t)PyBytes_GET_SIZE(owner);
}

static PyObject *payload_of(kin_writer *w) {
    return ((kinx_pickler *)((char *)w - offsetof(kinx_pickler, out)))->payload_of;
}

static kin_err take_to_file(kin_writer *w, const void *data, size_t len) {
    PyObject *owner = payload_of(w);
    PyObject *bytes = is_all_of(owner, data, len)
                          ? Py_NewRef(owner)
                          : PyBytes_FromStringAndSize(data, (Py_ssize_t)len);
    kin_err err = write_object(output_of(w), bytes);
    return err < 0 ? err : 1;
}

/* -- Messages ------------------------------------------------------------------------- */

static kin_err take_piece(kin_writer *w, const void *data, size_t len) {
    kinx_output *out = output_of(w);
    PyObject *owner = payload_of(w);
    if (!owner) return 0; /* it may change: a copy is made */
    if (out->piece_count == out->piece_room) {
        size_t room = out->piece_room ? 2 * out->piece_room : 8;
        kinx_piece *pieces = PyMem_Realloc(out->pieces, room * sizeof *pieces);
        if (!pieces) return -ENOMEM;
        out->pieces = pieces;
        out->piece_room = room;
    }
    size_t off = (size_t)(w->at - w->start);
    out->pieces[out->piece_count++] = (kinx_piece){off, Py_NewRef(owner), data, len};
    return 1;
}

/* -- Life -------------------------------------------------------------------------------- */

static const kin_writer_ops to_bytes = {.grow = grow};
static const kin_writer_ops to_file = {.grow = grow, .drain = drain, .take = take_to_file};
static const kin_writer_ops to_pieces = {.grow = grow, .take = take_piece};

int kinx_output_init(kinx_output *out, struct kinx_pickler_state *ps, kinx_pickler *p,
                     PyObject *write, bool in_pieces) {
    memset(out, 0, sizeof *out);
    out->ps = ps;
    out->writer = &p->out;
    out->write = write;
    out->scratch = ps->scratch ? ps->scratch : PyMem_Malloc(KINX_SCRATCH);
    ps->scratch = NULL;
    if (!out->scratch) return kinx_raise_writer(-ENOMEM);
    p->output = out;
    p->out.ops = write ? &to_file : in_pieces ? &to_pieces : &to_bytes;
    set_buffer(&p->out, out->scratch, 0, KINX_SCRATCH);
    return 0;
}

static void drop_pieces(kinx_output *out) {
    kinx_piece *pieces = out->pieces;
    size_t count = out->piece_count;
    out->pieces = NULL;
    out->piece_count = out->piece_room = 0;
    for (size_t i = 0; i < count; i++) Py_DECREF(pieces[i].owner);
    PyMem_Free(pieces);
}

void kinx_output_rewind(kinx_output *out) {
    drop_pieces(out);
    out->writer->at = out->writer->start;
}

void kinx_output_fini(kinx_output *out) {
    give_scratch_back(out);
    drop_pieces(out);
    Py_CLEAR(out->bytes);
}

PyObject *kinx_output_take(kinx_output *out) {
    kin_writer *w = out->writer;
    Py_ssize_t len = w->at - w->start;
    if (!out->bytes) return PyBytes_FromStringAndSize((char *)w->start, len);
    PyObject *bytes = out->bytes;
    out->bytes = NULL;
    if (w->limit - w->at <= ROOM_BEHIND) {
        /* Not worth moving: the room stays the object's. */
        Py_SET_SIZE(bytes, len);
        PyBytes_AS_STRING(bytes)[len] = 0;
        return bytes;
    }
    _PyBytes_Resize(&bytes, len); /* NULL if that fails, which raises */
    return bytes;
}
