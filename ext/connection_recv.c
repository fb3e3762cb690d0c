/* Receiving: an object, or bytes. */
#include "args.h"
#include "connection.h"
#include "errors.h"
#include "message.h"
#include "transit.h"

/* -- recv -------------------------------------------------------------------------------- */

/* What an override of _recv_bytes gave, as bytes; NULL without an exception if it gave None: the
 * message was too long.  Steals `given`. */
static PyObject *bytes_from(PyObject *given) {
    PyObject *bytes = NULL;
    if (!given || given == Py_None) {
        Py_XDECREF(given);
        return NULL;
    }
    if (PyObject_HasAttrString(given, "getvalue")) {
        bytes = PyObject_CallMethod(given, "getvalue", NULL);
    } else {
        bytes = PyBytes_FromObject(given);
    }
    Py_DECREF(given);
    return bytes;
}

/* The next message as the override gives it.  New reference. */
static PyObject *bytes_by(kinx_connection *self, PyObject *theirs, PyObject *maxlength) {
    PyObject *given =
        maxlength ? PyObject_CallOneArg(theirs, maxlength) : PyObject_CallNoArgs(theirs);
    PyObject *bytes = bytes_from(given);
    if (bytes || PyErr_Occurred()) return bytes;
    return kinx_raise_bad_length(self);
}

static PyObject *load(kinx_connection *self, const void *data, size_t len) {
    PyObject *obj = kinx_load_record(self->state, data, len);
    if (!obj) kinx_passage_drop(data, len);
    return obj;
}

static PyObject *load_bytes(kinx_connection *self, PyObject *bytes) {
    PyObject *pickler, *obj = NULL;
    if (kinx_pickler_of_program(self->state, &pickler) < 0) return NULL;
    if (!PyBytes_Check(bytes)) {
        PyErr_Format(PyExc_TypeError, "a message is bytes, not %s", Py_TYPE(bytes)->tp_name);
    } else if (pickler) {
        obj = PyObject_CallMethod(pickler, "loads", "O", bytes);
    } else {
        obj = load(self, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
    }
    Py_XDECREF(pickler);
    return obj;
}

static PyObject *recv_by(kinx_connection *self, PyObject *theirs) {
    PyObject *bytes = bytes_by(self, theirs, NULL);
    PyObject *obj = bytes ? load_bytes(self, bytes) : NULL;
    Py_XDECREF(bytes);
    return obj;
}

static PyObject *recv_object(kinx_connection *self, bool by_program) {
    kinx_received in;
    int too_long = kinx_connection_read(self, by_program, UINT64_MAX, &in);
    if (too_long) return too_long < 0 ? NULL : kinx_raise_bad_length(self);
    PyObject *obj = by_program ? load_bytes(self, in.bytes) : load(self, in.data, in.len);
    Py_XDECREF(in.bytes);
    return obj;
}

PyObject *kinx_connection_recv(kinx_connection *self, PyObject *unused) {
    PyObject *theirs, *pickler;
    if (kinx_check_readable(self) < 0) return NULL;
    int found = kinx_override(self, KINX_HOOK_recv_bytes, &theirs);
    if (found < 0) return NULL;
    if (found) {
        PyObject *obj = recv_by(self, theirs);
        Py_DECREF(theirs);
        return obj;
    }
    if (kinx_pickler_of_program(self->state, &pickler) < 0) return NULL;
    Py_XDECREF(pickler);
    return recv_object(self, pickler != NULL);
}

static PyObject *read_bytes(kinx_connection *self, uint64_t most) {
    kinx_received in;
    int too_long = kinx_connection_read(self, true, most, &in);
    if (too_long) return too_long < 0 ? NULL : kinx_raise_bad_length(self);
    return in.bytes;
}

/* From maxlength: how long a message may be.  Raises. */
static int most_of(PyObject *maxlength, uint64_t *most) {
    Py_ssize_t n = 0;
    int given = kinx_size_from(maxlength, &n);
    if (given < 0) return -1;
    if (n < 0) return kinx_raise_value_error("negative maxlength");
    *most = given ? (uint64_t)n : UINT64_MAX;
    return 0;
}

static PyObject *recv_bytes_up_to(kinx_connection *self, PyObject *maxlength) {
    PyObject *theirs;
    uint64_t most;
    if (kinx_check_readable(self) < 0 || most_of(maxlength, &most) < 0) return NULL;
    int found = kinx_override(self, KINX_HOOK_recv_bytes, &theirs);
    if (found < 0) return NULL;
    if (found == 0) return read_bytes(self, most);
    PyObject *bytes = bytes_by(self, theirs, maxlength ? maxlength : Py_None);
    Py_DECREF(theirs);
    return bytes;
}

PyObject *kinx_connection_recv_bytes(kinx_connection *self, PyObject *const *args, Py_ssize_t nargs,
                                     PyObject *kwnames) {
    static const char *const names[] = {"maxlength"};
    static const kinx_parameters params = {names, 0, 0, 1, 1};
    PyObject *maxlength = NULL;
    if (kinx_fill_slots("recv_bytes", &params, &maxlength, args, nargs, kwnames) < 0) return NULL;
    return recv_bytes_up_to(self, maxlength);
}

/* For those who override it: a message as io.BytesIO, at its end; None if it is too long. */
PyObject *kinx_connection_recv_raw(kinx_connection *self, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames) {
    static const char *const names[] = {"maxsize"};
    static const kinx_parameters params = {names, 0, 0, 1, 1};
    PyObject *maxsize = NULL;
    uint64_t most;
    if (kinx_fill_slots("_recv_bytes", &params, &maxsize, args, nargs, kwnames) < 0) return NULL;
    if (kinx_check_open(self) < 0 || most_of(maxsize, &most) < 0) return NULL;
    kinx_received in;
    int too_long = kinx_connection_read(self, true, most, &in);
    if (too_long < 0) return NULL;
    if (too_long) Py_RETURN_NONE;
    PyObject *kind = kinx_import(&self->state->connection->bytes_io, "io", "BytesIO");
    PyObject *file = kind ? PyObject_CallOneArg(kind, in.bytes) : NULL;
    PyObject *at = file ? PyObject_CallMethod(file, "seek", "ii", 0, 2) : NULL;
    Py_DECREF(in.bytes);
    if (!at) Py_CLEAR(file);
    Py_XDECREF(at);
    return file;
}

/* Steals `message`, all of it. */
static PyObject *raise_too_short(kinx_connection *self, PyObject *message) {
    PyObject *type =
        kinx_import(&self->state->connection->too_short, "kinfolk.context", "BufferTooShort");
    PyObject *error = type ? PyObject_CallOneArg(type, message) : NULL;
    if (error) PyErr_SetObject(type, error);
    Py_XDECREF(error);
    Py_DECREF(message);
    return NULL;
}

static PyObject *recv_into_by(kinx_connection *self, PyObject *theirs, char *data, size_t room) {
    PyObject *bytes = bytes_by(self, theirs, NULL);
    if (!bytes) return NULL;
    if (!PyBytes_Check(bytes)) {
        PyErr_Format(PyExc_TypeError, "a message is bytes, not %s", Py_TYPE(bytes)->tp_name);
        Py_DECREF(bytes);
        return NULL;
    }
    size_t len = (size_t)PyBytes_GET_SIZE(bytes);
    if (len > room) return raise_too_short(self, bytes);
    memcpy(data, PyBytes_AS_STRING(bytes), len);
    Py_DECREF(bytes);
    return PyLong_FromSize_t(len);
}

static PyObject *recv_into(kinx_connection *self, char *data, size_t room) {
    PyObject *theirs, *bytes;
    int found = kinx_override(self, KINX_HOOK_recv_bytes, &theirs);
    if (found < 0) return NULL;
    if (found) {
        PyObject *len = recv_into_by(self, theirs, data, room);
        Py_DECREF(theirs);
        return len;
    }
    size_t len;
    switch (kinx_connection_read_into(self, data, room, &len, &bytes)) {
    case 0: return PyLong_FromSize_t(len);
    case 1: return raise_too_short(self, bytes);
    case 2: return kinx_raise_bad_length(self);
    default: return NULL;
    }
}

static PyObject *recv_into_view(kinx_connection *self, const Py_buffer *view, PyObject *offset) {
    Py_ssize_t from = 0;
    if (view->readonly) {
        PyErr_SetString(PyExc_TypeError, "a writable bytes-like object is required");
        return NULL;
    }
    if (kinx_size_from(offset, &from) < 0) return NULL;
    if (from < 0) kinx_raise_value_error("negative offset");
    else if (from > view->len) kinx_raise_value_error("offset too large");
    else return recv_into(self, (char *)view->buf + from, (size_t)(view->len - from));
    return NULL;
}

PyObject *kinx_connection_recv_bytes_into(kinx_connection *self, PyObject *const *args,
                                          Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"buf", "offset"};
    static const kinx_parameters params = {names, 0, 1, 2, 2};
    PyObject *slots[2] = {NULL};
    Py_buffer view;
    if (kinx_fill_slots("recv_bytes_into", &params, slots, args, nargs, kwnames) < 0) return NULL;
    if (kinx_check_readable(self) < 0) return NULL;
    if (PyObject_GetBuffer(slots[0], &view, PyBUF_ANY_CONTIGUOUS) < 0) return NULL;
    PyObject *len = recv_into_view(self, &view, slots[1]);
    PyBuffer_Release(&view);
    return len;
}
