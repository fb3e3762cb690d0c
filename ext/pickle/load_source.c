/* Where a pickle's bytes come from when it is in a file.
 *
 * The file is never read beyond the pickle's end: there may be something else, and not
 * every file can seek.  So only so many bytes are read as are known to be the pickle's: a
 * frame, or an opcode's argument.  A file with peek() shows what comes without that; what
 * was seen there is read (and forgotten) later, as far as it was the pickle's.
 *
 * How much is read is what the pickle says, and it may lie: memory is taken in pieces that
 * grow with what really comes. */
#include "../bytes.h"
#include "load.h"

#define PEEK (128 * 1024) /* bytes, as the standard library asks for */
#define PIECE ((size_t)1 << 20)

int kinx_source_init(kinx_unpickler_state *us, kinx_source *source, PyObject *file) {
    *source = (kinx_source){0};
    if (kinx_lookup_attr(file, us->str_peek, &source->peek) < 0 ||
        kinx_lookup_attr(file, us->str_readinto, &source->readinto) < 0 ||
        kinx_lookup_attr(file, us->str_read, &source->read) < 0 ||
        kinx_lookup_attr(file, us->str_readline, &source->readline) < 0) {
        kinx_source_fini(source);
        return -1;
    }
    if (source->read && source->readline) return 0;
    kinx_source_fini(source);
    PyErr_SetString(PyExc_TypeError, "file must have 'read' and 'readline' attributes");
    return -1;
}

void kinx_source_fini(kinx_source *source) {
    Py_CLEAR(source->peek);
    Py_CLEAR(source->readinto);
    Py_CLEAR(source->read);
    Py_CLEAR(source->readline);
    PyMem_Free(source->hold);
    source->hold = NULL;
    source->cap = 0;
    source->unread = NULL;
}

/* method(n), or method() for n < 0.  New reference. */
static PyObject *call(kinx_loader *u, PyObject *method, Py_ssize_t n) {
    PyObject *arg = n < 0 ? NULL : PyLong_FromSsize_t(n);
    if (n >= 0 && !arg) return NULL;
    Py_INCREF(method);
    kinx_foreign_begin(u);
    PyObject *result = arg ? PyObject_CallOneArg(method, arg) : PyObject_CallNoArgs(method);
    kinx_foreign_end(u);
    Py_DECREF(method);
    Py_XDECREF(arg);
    return result;
}

/* Read what of the peeked bytes has been used; the others are forgotten. */
int kinx_source_settle(kinx_loader *u) {
    kinx_source *source = u->source;
    if (!source->unread) return 0;
    Py_ssize_t used = u->at - source->unread;
    source->unread = NULL;
    u->at = u->end = source->hold;
    if (used == 0) return 0;
    PyObject *data = call(u, source->read, used);
    Py_XDECREF(data);
    return data ? 0 : -1;
}

/* Room for `need` bytes in the hold, of which `have` stay. */
static int make_room(kinx_source *source, size_t have, size_t need) {
    if (need <= source->cap) return 0;
    size_t cap = need + need / 8 + 64;
    uint8_t *grown = PyMem_Malloc(cap);
    if (!grown) {
        PyErr_NoMemory();
        return -1;
    }
    if (have) memcpy(grown, source->hold, have);
    PyMem_Free(source->hold);
    source->hold = grown;
    source->cap = cap;
    return 0;
}

/* Put (at most `most` bytes of) data behind what is there to read.  Steals data, which may
 * be NULL.  Returns how many bytes came, or -1. */
static Py_ssize_t take(kinx_loader *u, PyObject *data, size_t most) {
    if (!data) return -1;
    Py_buffer view;
    int err = PyObject_GetBuffer(data, &view, PyBUF_CONTIG_RO);
    Py_DECREF(data);
    if (err < 0) return -1;
    kinx_source *source = u->source;
    size_t len = (size_t)view.len < most ? (size_t)view.len : most;
    size_t have = (size_t)(u->end - u->at);
    if (have) memmove(source->hold, u->at, have);
    if (have == 0 || source->hold) u->at = source->hold;
    err = make_room(source, have, have + len);
    if (err == 0) {
        if (len) memcpy(source->hold + have, view.buf, len);
        u->at = source->hold;
        u->end = u->at + have + len;
    } else {
        u->end = u->at + have;
    }
    PyBuffer_Release(&view);
    return err < 0 ? -1 : (Py_ssize_t)len;
}

/* Look at what comes.  1 if those are `n` bytes; 0; -1. */
static int peek(kinx_loader *u, size_t n) {
    kinx_source *source = u->source;
    PyObject *data = call(u, source->peek, PEEK);
    if (!data) {
        if (!PyErr_ExceptionMatches(PyExc_NotImplementedError)) return -1;
        PyErr_Clear();
        Py_CLEAR(source->peek);
        return 0;
    }
    Py_ssize_t len = take(u, data, PEEK);
    if (len < 0) return -1;
    if ((size_t)len >= n) {
        source->unread = u->at;
        return 1;
    }
    u->end = u->at; /* will be read */
    return 0;
}

int kinx_fill(kinx_loader *u, size_t n) {
    if ((size_t)(u->end - u->at) >= n) return 0;
    kinx_source *source = u->source;
    if (!source) return kinx_truncated(u);
    if (kinx_source_settle(u) < 0) return -1;
    if (u->at == u->end && source->peek && n < PEEK) {
        int seen = peek(u, n);
        if (seen) return seen < 0 ? -1 : 0;
    }
    size_t piece = PIECE;
    for (size_t have; (have = (size_t)(u->end - u->at)) < n; piece *= 2) {
        size_t ask = n - have < piece ? n - have : piece;
        Py_ssize_t came = take(u, call(u, source->read, (Py_ssize_t)ask), PY_SSIZE_T_MAX);
        if (came < 0) return -1;
        if ((size_t)came < ask) return kinx_truncated(u);
    }
    return 0;
}

int kinx_read_line(kinx_loader *u, const uint8_t **line, size_t *len) {
    size_t there = (size_t)(u->end - u->at);
    const uint8_t *newline = there ? memchr(u->at, '\n', there) : NULL;
    if (!newline) {
        if (!u->source) return kinx_truncated(u);
        if (kinx_source_settle(u) < 0) return -1;
        if (take(u, call(u, u->source->readline, -1), PY_SSIZE_T_MAX) < 0) return -1;
        if (u->at == u->end || u->end[-1] != '\n') return kinx_truncated(u);
        newline = u->end - 1;
    }
    *line = u->at;
    *len = (size_t)(newline + 1 - u->at);
    u->at = newline + 1;
    return 0;
}

/* Read into bytearray[from:to]. */
static int read_into(kinx_loader *u, PyObject *bytearray, size_t from, size_t to) {
    PyObject *whole = PyMemoryView_FromObject(bytearray);
    PyObject *part = whole ? PySequence_GetSlice(whole, (Py_ssize_t)from, (Py_ssize_t)to) : NULL;
    Py_XDECREF(whole);
    if (!part) return -1;
    kinx_foreign_begin(u);
    PyObject *count = PyObject_CallOneArg(u->source->readinto, part);
    kinx_foreign_end(u);
    Py_DECREF(part);
    if (!count) return -1;
    Py_ssize_t came = PyLong_AsSsize_t(count);
    Py_DECREF(count);
    if (came == -1 && PyErr_Occurred()) return -1;
    if (came < 0) {
        PyErr_SetString(PyExc_ValueError, "readinto() returned negative size");
        return -1;
    }
    return (size_t)came < to - from ? kinx_truncated(u) : 0;
}

/* A bytearray whose rest, from `have` on, comes from the file.  New reference. */
static PyObject *read_bytearray(kinx_loader *u, size_t n) {
    size_t have = (size_t)(u->end - u->at);
    PyObject *result = PyByteArray_FromStringAndSize((const char *)u->at, (Py_ssize_t)have);
    u->at = u->end;
    if (!result) return NULL;
    for (size_t piece = PIECE; have < n; piece *= 2) {
        size_t next = n - have < piece ? n : have + piece;
        if (PyByteArray_Resize(result, (Py_ssize_t)next) < 0 ||
            read_into(u, result, have, next) < 0) {
            Py_DECREF(result);
            return NULL;
        }
        have = next;
    }
    return result;
}

/* One read() that gives just what is asked for gives it for good. */
static PyObject *read_object(kinx_loader *u, size_t n) {
    PyObject *data = call(u, u->source->read, (Py_ssize_t)n);
    if (!data) return NULL;
    if (PyBytes_CheckExact(data) && (size_t)PyBytes_GET_SIZE(data) == n) return data;
    if (!PyBytes_Check(data)) {
        PyErr_Format(PyExc_ValueError, "read() returned non-bytes object (%R)", Py_TYPE(data));
        Py_DECREF(data);
        return NULL;
    }
    Py_ssize_t came = PyBytes_GET_SIZE(data);
    PyObject *result = NULL;
    if ((size_t)came < n) kinx_truncated(u);
    else result = PyBytes_FromStringAndSize(PyBytes_AS_STRING(data), (Py_ssize_t)n);
    Py_DECREF(data);
    return result;
}

PyObject *kinx_read_bytes(kinx_loader *u, size_t n, bool mutable) {
    size_t there = (size_t)(u->end - u->at);
    if (there < n && !u->source) {
        kinx_truncated(u);
        return NULL;
    }
    if (there < n) {
        if (kinx_source_settle(u) < 0) return NULL;
        there = (size_t)(u->end - u->at);
        if (mutable && u->source->readinto) return read_bytearray(u, n);
        if (!mutable && there == 0 && n <= PIECE) return read_object(u, n);
        if (kinx_fill(u, n) < 0) return NULL;
    }
    const char *from = (const char *)u->at;
    u->at += n;
    return mutable ? kinx_bytearray(from, n) : kinx_bytes(from, n);
}
