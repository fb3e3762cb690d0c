/* Sending: an object, or bytes. */
#include "args.h"
#include "connection.h"
#include "message.h"
#include "transit.h"

/* -- send -------------------------------------------------------------------------------- */

static int write_buffer(kinx_connection *self, const void *data, size_t len) {
    kin_part part = {data, len};
    return kinx_connection_write(self, &part, 1);
}

/* Steals nothing; `buffer` is what an override gets. */
static int send_bytes_object(kinx_connection *self, PyObject *buffer) {
    PyObject *theirs;
    int found = kinx_override(self, KINX_HOOK_send_bytes, &theirs);
    if (found < 0) return -1;
    if (found) {
        PyObject *result = PyObject_CallOneArg(theirs, buffer);
        Py_DECREF(theirs);
        Py_XDECREF(result);
        return result ? 0 : -1;
    }
    Py_buffer view;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_ANY_CONTIGUOUS) < 0) return -1;
    int err = write_buffer(self, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return err;
}

/* All parts in one bytes object.  New reference. */
static PyObject *join_parts(const kin_part *parts, size_t count) {
    size_t len = 0;
    for (size_t i = 0; i < count; i++) len += parts[i].len;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)len);
    char *at = bytes ? PyBytes_AS_STRING(bytes) : NULL;
    for (size_t i = 0; bytes && i < count; i++) {
        if (parts[i].len) memcpy(at, parts[i].data, parts[i].len);
        at += parts[i].len;
    }
    return bytes;
}

static int send_parts(kinx_connection *self, const kin_part *parts, size_t count) {
    PyObject *theirs;
    int found = kinx_override(self, KINX_HOOK_send_bytes, &theirs);
    if (found < 0) return -1;
    if (found == 0) return kinx_connection_write(self, parts, count);
    Py_DECREF(theirs);
    PyObject *bytes = join_parts(parts, count);
    PyObject *view = bytes ? PyMemoryView_FromObject(bytes) : NULL;
    int err = view ? send_bytes_object(self, view) : -1;
    Py_XDECREF(view);
    Py_XDECREF(bytes);
    return err;
}

/* The parts of a pickle, with the tail in place of its STOP if there is one. */
static void end_with_tail(kin_part *parts, size_t count, const kinx_passage *passage) {
    if (passage->tail_len == 0) return;
    parts[count - 2].len--;
    parts[count - 1] = (kin_part){passage->tail, passage->tail_len};
}

enum { FEW_PARTS = 9 };

static int send_message(kinx_connection *self, const kinx_message *message,
                        const kinx_passage *passage) {
    kin_part few[FEW_PARTS], *parts = few;
    size_t count = kinx_message_part_count(message);
    if (count > FEW_PARTS) parts = PyMem_New(kin_part, count);
    if (!parts) {
        PyErr_NoMemory();
        return -1;
    }
    kinx_message_parts(message, parts);
    end_with_tail(parts, count, passage);
    int err = send_parts(self, parts, count);
    if (parts != few) PyMem_Free(parts);
    return err;
}

static int send_object(kinx_connection *self, PyObject *obj) {
    kinx_message message;
    kinx_passage passage;
    if (kinx_message_init_whole(self->state, &message, obj) < 0) return -1;
    int err = -1;
    if (kinx_passage_begin(self->state, &passage, &message.mentions, self->transit) == 0) {
        err = send_message(self, &message, &passage);
        kinx_passage_end(&passage, err == 0);
    }
    kinx_message_fini(&message);
    return err;
}

/* What another pickler has made is sent as it is, unless it is a pickle that mentions something. */
static int send_pickled(kinx_connection *self, PyObject *bytes, const kinx_mentions *mentions) {
    Py_buffer view;
    if (PyObject_GetBuffer(bytes, &view, PyBUF_SIMPLE) < 0) return -1;
    const uint8_t *data = view.buf;
    bool is_pickle = view.len > 2 && data[0] == KIN_OP_PROTO && data[view.len - 1] == KIN_OP_STOP;
    int err = -1;
    if (mentions->count == 0 || !is_pickle) {
        err = send_bytes_object(self, bytes);
    } else {
        kinx_passage passage;
        kin_part parts[2] = {{data, (size_t)view.len}, {NULL, 0}};
        if (kinx_passage_begin(self->state, &passage, mentions, self->transit) == 0) {
            end_with_tail(parts, 2, &passage);
            err = send_parts(self, parts, 2);
            kinx_passage_end(&passage, err == 0);
        }
    }
    PyBuffer_Release(&view);
    return err;
}

static int send_by(kinx_connection *self, PyObject *pickler, PyObject *obj) {
    kinx_mentions mentions;
    kinx_mentions_begin(&mentions);
    PyObject *bytes = PyObject_CallMethod(pickler, "dumps", "O", obj);
    kinx_mentions_end(&mentions);
    int err = bytes ? send_pickled(self, bytes, &mentions) : -1;
    Py_XDECREF(bytes);
    kinx_mentions_clear(&mentions);
    return err;
}

PyObject *kinx_connection_send(kinx_connection *self, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *kwnames) {
    static const char *const names[] = {"obj"};
    static const kinx_parameters params = {names, 0, 1, 1, 1};
    PyObject *obj = NULL, *pickler;
    if (nargs == 1 && !kwnames) obj = args[0];
    else if (kinx_fill_slots("send", &params, &obj, args, nargs, kwnames) < 0) return NULL;
    if (kinx_check_writable(self) < 0 || kinx_pickler_of_program(self->state, &pickler) < 0)
        return NULL;
    int err = pickler ? send_by(self, pickler, obj) : send_object(self, obj);
    Py_XDECREF(pickler);
    return kinx_none_if(err);
}

/* What of `len` bytes is meant by offset and size. */
static int part_of(Py_ssize_t len, PyObject *offset, PyObject *size, Py_ssize_t *from,
                   Py_ssize_t *count) {
    *from = 0;
    if (kinx_size_from(offset, from) < 0) return -1;
    if (*from < 0) return kinx_raise_value_error("offset is negative");
    if (len < *from) return kinx_raise_value_error("buffer length < offset");
    *count = len - *from;
    int given = kinx_size_from(size, count);
    if (given < 0) return -1;
    if (*count < 0) return kinx_raise_value_error("size is negative");
    if (*count > len - *from) return kinx_raise_value_error("buffer length < offset + size");
    return 0;
}

/* A view for an override of _send_bytes. */
static int send_slice(kinx_connection *self, const Py_buffer *view, Py_ssize_t from,
                      Py_ssize_t count) {
    PyObject *all = PyMemoryView_FromMemory((char *)view->buf, view->len, PyBUF_READ);
    PyObject *part = all ? PySequence_GetSlice(all, from, from + count) : NULL;
    int err = part ? send_bytes_object(self, part) : -1;
    PyObject *released = part ? PyObject_CallMethod(part, "release", NULL) : NULL;
    if (!released && err == 0) err = -1;
    Py_XDECREF(released);
    Py_XDECREF(part);
    Py_XDECREF(all);
    return err;
}

static int send_view(kinx_connection *self, const Py_buffer *view, PyObject *offset,
                     PyObject *size) {
    Py_ssize_t from, count;
    PyObject *theirs;
    if (part_of(view->len, offset, size, &from, &count) < 0) return -1;
    int found = kinx_override(self, KINX_HOOK_send_bytes, &theirs);
    if (found < 0) return -1;
    if (found == 0) return write_buffer(self, (char *)view->buf + from, (size_t)count);
    Py_DECREF(theirs);
    return send_slice(self, view, from, count);
}

PyObject *kinx_connection_send_bytes(kinx_connection *self, PyObject *const *args, Py_ssize_t nargs,
                                     PyObject *kwnames) {
    static const char *const names[] = {"buf", "offset", "size"};
    static const kinx_parameters params = {names, 0, 1, 3, 3};
    PyObject *slots[3] = {NULL};
    Py_buffer view;
    if (kinx_fill_slots("send_bytes", &params, slots, args, nargs, kwnames) < 0) return NULL;
    if (kinx_check_writable(self) < 0) return NULL;
    if (PyObject_GetBuffer(slots[0], &view, PyBUF_ANY_CONTIGUOUS) < 0) return NULL;
    int err = send_view(self, &view, slots[1], slots[2]);
    PyBuffer_Release(&view);
    return kinx_none_if(err);
}

PyObject *kinx_connection_send_raw(kinx_connection *self, PyObject *buffer) {
    if (kinx_check_open(self) < 0) return NULL;
    Py_buffer view;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_ANY_CONTIGUOUS) < 0) return NULL;
    int err = write_buffer(self, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return kinx_none_if(err);
}
