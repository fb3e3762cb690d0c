/* Connection: one end of a stream of messages, as multiprocessing.connection has it.
 *
 * An object is pickled as for a queue (message.c), in one piece, and by another pickler if the
 * program has set one.  What the pickle mentions of the arena is held by a transit until it has
 * been loaded (transit.h).
 *
 * Programs make subclasses that override what is below: _send_bytes, _recv_bytes, _close and
 * so on, or put functions of their own there.  So whoever needs one of those asks first whether it
 * is still ours (`override`), and calls it by name if not. */
#include "connection.h"

#include <unistd.h>

#include "args.h"
#include "errors.h"
#include "message.h"
#include "transit.h"

#define HOOKS(X)                                                              \
    X(_send_bytes)                                                            \
    X(_recv_bytes)                                                            \
    X(_poll) X(_close) X(_check_closed) X(_check_readable) X(_check_writable) \
        X(_bad_message_length)

#define HOOK_(name) HOOK##name,
enum { HOOKS(HOOK_) HOOK_COUNT };
#undef HOOK_

struct kinx_connection_state {
    PyTypeObject *type;
    PyObject *names[HOOK_COUNT], *ours[HOOK_COUNT];
    /* Imported when first needed. */
    PyObject *context, *reduction; /* the modules' dicts */
    PyObject *pickler;             /* kinfolk's ForkingPickler */
    PyObject *reduce, *too_short, *bytes_io;
};

/* -- What a subclass has made its own ------------------------------------------------- */

/* 1: what is to be called for the hook is in *out, a new reference; 0: what we have.  Raises. */
static int override(kinx_connection *self, int hook, PyObject **out) {
    struct kinx_connection_state *cs = self->state->connection;
    if (!cs) return 0; /* the interpreter is on its way out */
    PyObject *name = cs->names[hook];
    PyObject *found = PyObject_GetAttr((PyObject *)Py_TYPE(self), name);
    if (!found) return -1;
    bool is_ours = found == cs->ours[hook];
    Py_DECREF(found);
    if (is_ours && self->dict && PyDict_GET_SIZE(self->dict)) {
        int own = PyDict_Contains(self->dict, name);
        if (own < 0) return -1;
        is_ours = !own;
    }
    if (is_ours) return 0;
    *out = PyObject_GetAttr((PyObject *)self, name);
    return *out ? 1 : -1;
}

/* Calls an override and forgets what it returns.  1: it was called, 0: there is none.  Raises. */
static int call_override(kinx_connection *self, int hook) {
    PyObject *theirs;
    int found = override(self, hook, &theirs);
    if (found <= 0) return found;
    PyObject *result = PyObject_CallNoArgs(theirs);
    Py_DECREF(theirs);
    Py_XDECREF(result);
    return result ? 1 : -1;
}

static PyObject *none_if(int err) {
    if (err < 0) return NULL;
    Py_RETURN_NONE;
}

/* -- Checks ------------------------------------------------------------------------------ */

static int raise_os_error(const char *text) {
    PyErr_SetString(PyExc_OSError, text);
    return -1;
}

static int our_check_closed(kinx_connection *self) {
    return self->channel.fd < 0 ? raise_os_error("handle is closed") : 0;
}

static int check_closed(kinx_connection *self) {
    int called = call_override(self, HOOK_check_closed);
    return called ? called : our_check_closed(self);
}

static int our_check_readable(kinx_connection *self) {
    if (check_closed(self) < 0) return -1;
    return self->readable ? 0 : raise_os_error("connection is write-only");
}

static int check_readable(kinx_connection *self) {
    int called = call_override(self, HOOK_check_readable);
    return called ? called : our_check_readable(self);
}

static int our_check_writable(kinx_connection *self) {
    if (check_closed(self) < 0) return -1;
    return self->writable ? 0 : raise_os_error("connection is read-only");
}

static int check_writable(kinx_connection *self) {
    int called = call_override(self, HOOK_check_writable);
    return called ? called : our_check_writable(self);
}

static PyObject *method_check_closed(kinx_connection *self, PyObject *unused) {
    return none_if(our_check_closed(self));
}

static PyObject *method_check_readable(kinx_connection *self, PyObject *unused) {
    return none_if(our_check_readable(self));
}

static PyObject *method_check_writable(kinx_connection *self, PyObject *unused) {
    return none_if(our_check_writable(self));
}

/* -- Closing ----------------------------------------------------------------------------- */

/* From here on the connection owns no descriptor. */
static int take_fd(kinx_connection *self) {
    int fd = self->channel.fd;
    self->channel.fd = -1;
    kinx_connection_forget(self);
    Py_CLEAR(self->transit);
    return fd;
}

/* Closed is closed, even if it was said to be interrupted. */
static int close_fd(int fd) {
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = close(fd) < 0 && errno != EINTR;
    Py_END_ALLOW_THREADS
    if (failed) PyErr_SetFromErrno(PyExc_OSError);
    return failed ? -1 : 0;
}

static PyObject *method_close_fd(kinx_connection *self, PyObject *unused) {
    if (self->channel.fd < 0) {
        PyErr_SetString(PyExc_TypeError, "the connection has no handle to close");
        return NULL;
    }
    return none_if(close_fd(self->channel.fd));
}

static int close_connection(kinx_connection *self) {
    if (self->channel.fd < 0) return 0;
    int called = call_override(self, HOOK_close);
    int fd = take_fd(self);
    if (called) return called;
    return close_fd(fd);
}

static PyObject *method_close(kinx_connection *self, PyObject *unused) {
    return none_if(close_connection(self));
}

static int our_bad_message_length(kinx_connection *self) {
    /* The bytes stay unread, so nothing that follows can be understood. */
    if (self->writable) self->readable = false;
    else if (close_connection(self) < 0) return -1;
    return raise_os_error("bad message length");
}

static PyObject *raise_bad_length(kinx_connection *self) {
    int called = call_override(self, HOOK_bad_message_length);
    if (called == 0) our_bad_message_length(self);
    else if (called > 0) raise_os_error("bad message length");
    return NULL;
}

static PyObject *method_bad_message_length(kinx_connection *self, PyObject *unused) {
    our_bad_message_length(self);
    return NULL;
}

/* -- The pickler --------------------------------------------------------------------------- */

static PyObject *module_dict(PyObject **slot, const char *name) {
    if (*slot) return *slot;
    PyObject *module = PyImport_ImportModule(name);
    if (!module) return NULL;
    PyObject *dict = PyModule_GetDict(module);
    if (!*slot) *slot = Py_NewRef(dict);
    Py_DECREF(module);
    return *slot;
}

/* Borrowed: the pickler that kinfolk has made, whatever has been put in its place.  Raises. */
static PyObject *our_pickler(struct kinx_connection_state *cs) {
    if (cs->pickler) return cs->pickler;
    PyObject *base = PyImport_ImportModule("kinfolk.reduction");
    PyObject *kind = base ? PyObject_GetAttrString(base, "AbstractReducer") : NULL;
    PyObject *pickler = kind ? PyObject_GetAttrString(kind, "ForkingPickler") : NULL;
    Py_XDECREF(base);
    Py_XDECREF(kind);
    if (pickler && !cs->pickler) cs->pickler = Py_NewRef(pickler);
    Py_XDECREF(pickler);
    return cs->pickler;
}

/* A pickler that the program has set: by BaseContext.reducer, or in the module's place.  New
 * reference in *out, or NULL if there is none.  Raises. */
static int pickler_of_program(kinx_state *st, PyObject **out) {
    struct kinx_connection_state *cs = st->connection;
    *out = NULL;
    if (!cs) return 0;
    PyObject *context = module_dict(&cs->context, "kinfolk.context");
    PyObject *reduction = context ? module_dict(&cs->reduction, "kinfolk.reduction") : NULL;
    PyObject *ours = reduction ? our_pickler(cs) : NULL;
    if (!ours) return -1;
    PyObject *reducer = PyDict_GetItemString(context, "_reducer"); /* borrowed */
    if (reducer && reducer != Py_None) {
        *out = PyObject_GetAttrString(reducer, "ForkingPickler");
        if (!*out) return -1;
    } else {
        *out = Py_XNewRef(PyDict_GetItemString(reduction, "ForkingPickler"));
    }
    if (*out == ours) Py_CLEAR(*out);
    return 0;
}

/* -- send -------------------------------------------------------------------------------- */

static int write_buffer(kinx_connection *self, const void *data, size_t len) {
    kin_part part = {data, len};
    return kinx_connection_write(self, &part, 1);
}

/* Steals nothing; `buffer` is what an override gets. */
static int send_bytes_object(kinx_connection *self, PyObject *buffer) {
    PyObject *theirs;
    int found = override(self, HOOK_send_bytes, &theirs);
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
    int found = override(self, HOOK_send_bytes, &theirs);
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

static PyObject *method_send(kinx_connection *self, PyObject *obj) {
    PyObject *pickler;
    if (check_writable(self) < 0 || pickler_of_program(self->state, &pickler) < 0) return NULL;
    int err = pickler ? send_by(self, pickler, obj) : send_object(self, obj);
    Py_XDECREF(pickler);
    return none_if(err);
}

/* An optional argument: 0, 1 if it was given and is not None.  Raises. */
static int size_from(PyObject *given, Py_ssize_t *out) {
    if (!given || given == Py_None) return 0;
    Py_ssize_t n = PyNumber_AsSsize_t(given, PyExc_OverflowError);
    if (n == -1 && PyErr_Occurred()) return -1;
    *out = n;
    return 1;
}

static int raise_value_error(const char *text) {
    PyErr_SetString(PyExc_ValueError, text);
    return -1;
}

/* What of `len` bytes is meant by offset and size. */
static int part_of(Py_ssize_t len, PyObject *offset, PyObject *size, Py_ssize_t *from,
                   Py_ssize_t *count) {
    *from = 0;
    if (size_from(offset, from) < 0) return -1;
    if (*from < 0) return raise_value_error("offset is negative");
    if (len < *from) return raise_value_error("buffer length < offset");
    *count = len - *from;
    int given = size_from(size, count);
    if (given < 0) return -1;
    if (*count < 0) return raise_value_error("size is negative");
    if (*count > len - *from) return raise_value_error("buffer length < offset + size");
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
    int found = override(self, HOOK_send_bytes, &theirs);
    if (found < 0) return -1;
    if (found == 0) return write_buffer(self, (char *)view->buf + from, (size_t)count);
    Py_DECREF(theirs);
    return send_slice(self, view, from, count);
}

static PyObject *method_send_bytes(kinx_connection *self, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames) {
    static const char *const names[] = {"buf", "offset", "size"};
    static const kinx_parameters params = {names, 0, 1, 3, 3};
    PyObject *slots[3] = {NULL};
    Py_buffer view;
    if (kinx_fill_slots("send_bytes", &params, slots, args, nargs, kwnames) < 0) return NULL;
    if (check_writable(self) < 0) return NULL;
    if (PyObject_GetBuffer(slots[0], &view, PyBUF_ANY_CONTIGUOUS) < 0) return NULL;
    int err = send_view(self, &view, slots[1], slots[2]);
    PyBuffer_Release(&view);
    return none_if(err);
}

static PyObject *method_send_raw(kinx_connection *self, PyObject *buffer) {
    if (our_check_closed(self) < 0) return NULL;
    Py_buffer view;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_ANY_CONTIGUOUS) < 0) return NULL;
    int err = write_buffer(self, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return none_if(err);
}

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
    return raise_bad_length(self);
}

static PyObject *load(kinx_connection *self, const void *data, size_t len) {
    PyObject *obj = kinx_load_record(self->state, data, len);
    if (!obj) kinx_passage_drop(data, len);
    return obj;
}

static PyObject *load_bytes(kinx_connection *self, PyObject *bytes) {
    PyObject *pickler, *obj = NULL;
    if (pickler_of_program(self->state, &pickler) < 0) return NULL;
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
    if (too_long) return too_long < 0 ? NULL : raise_bad_length(self);
    PyObject *obj = by_program ? load_bytes(self, in.bytes) : load(self, in.data, in.len);
    Py_XDECREF(in.bytes);
    return obj;
}

static PyObject *method_recv(kinx_connection *self, PyObject *unused) {
    PyObject *theirs, *pickler;
    if (check_readable(self) < 0) return NULL;
    int found = override(self, HOOK_recv_bytes, &theirs);
    if (found < 0) return NULL;
    if (found) {
        PyObject *obj = recv_by(self, theirs);
        Py_DECREF(theirs);
        return obj;
    }
    if (pickler_of_program(self->state, &pickler) < 0) return NULL;
    Py_XDECREF(pickler);
    return recv_object(self, pickler != NULL);
}

static PyObject *read_bytes(kinx_connection *self, uint64_t most) {
    kinx_received in;
    int too_long = kinx_connection_read(self, true, most, &in);
    if (too_long) return too_long < 0 ? NULL : raise_bad_length(self);
    return in.bytes;
}

/* From maxlength: how long a message may be.  Raises. */
static int most_of(PyObject *maxlength, uint64_t *most) {
    Py_ssize_t n = 0;
    int given = size_from(maxlength, &n);
    if (given < 0) return -1;
    if (n < 0) return raise_value_error("negative maxlength");
    *most = given ? (uint64_t)n : UINT64_MAX;
    return 0;
}

static PyObject *recv_bytes_up_to(kinx_connection *self, PyObject *maxlength) {
    PyObject *theirs;
    uint64_t most;
    if (check_readable(self) < 0 || most_of(maxlength, &most) < 0) return NULL;
    int found = override(self, HOOK_recv_bytes, &theirs);
    if (found < 0) return NULL;
    if (found == 0) return read_bytes(self, most);
    PyObject *bytes = bytes_by(self, theirs, maxlength ? maxlength : Py_None);
    Py_DECREF(theirs);
    return bytes;
}

static PyObject *method_recv_bytes(kinx_connection *self, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames) {
    static const char *const names[] = {"maxlength"};
    static const kinx_parameters params = {names, 0, 0, 1, 1};
    PyObject *maxlength = NULL;
    if (kinx_fill_slots("recv_bytes", &params, &maxlength, args, nargs, kwnames) < 0) return NULL;
    return recv_bytes_up_to(self, maxlength);
}

/* For those who override it: a message as io.BytesIO, at its end; None if it is too long. */
static PyObject *method_recv_raw(kinx_connection *self, PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *kwnames) {
    static const char *const names[] = {"maxsize"};
    static const kinx_parameters params = {names, 0, 0, 1, 1};
    PyObject *maxsize = NULL;
    uint64_t most;
    if (kinx_fill_slots("_recv_bytes", &params, &maxsize, args, nargs, kwnames) < 0) return NULL;
    if (our_check_closed(self) < 0 || most_of(maxsize, &most) < 0) return NULL;
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
    int found = override(self, HOOK_recv_bytes, &theirs);
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
    case 2: return raise_bad_length(self);
    default: return NULL;
    }
}

static PyObject *recv_into_view(kinx_connection *self, const Py_buffer *view, PyObject *offset) {
    Py_ssize_t from = 0;
    if (view->readonly) {
        PyErr_SetString(PyExc_TypeError, "a writable bytes-like object is required");
        return NULL;
    }
    if (size_from(offset, &from) < 0) return NULL;
    if (from < 0) raise_value_error("negative offset");
    else if (from > view->len) raise_value_error("offset too large");
    else return recv_into(self, (char *)view->buf + from, (size_t)(view->len - from));
    return NULL;
}

static PyObject *method_recv_bytes_into(kinx_connection *self, PyObject *const *args,
                                        Py_ssize_t nargs, PyObject *kwnames) {
    static const char *const names[] = {"buf", "offset"};
    static const kinx_parameters params = {names, 0, 1, 2, 2};
    PyObject *slots[2] = {NULL};
    Py_buffer view;
    if (kinx_fill_slots("recv_bytes_into", &params, slots, args, nargs, kwnames) < 0) return NULL;
    if (check_readable(self) < 0) return NULL;
    if (PyObject_GetBuffer(slots[0], &view, PyBUF_ANY_CONTIGUOUS) < 0) return NULL;
    PyObject *len = recv_into_view(self, &view, slots[1]);
    PyBuffer_Release(&view);
    return len;
}

/* -- poll ----------------------------------------------------------------------------------- */

static PyObject *our_poll(kinx_connection *self, PyObject *timeout) {
    kin_deadline deadline = KIN_NOW;
    if (timeout && kinx_parse_timeout("poll", &timeout, 1, NULL, &deadline) < 0) return NULL;
    if (our_check_closed(self) < 0) return NULL;
    kin_channel channel = self->channel;
    kin_err err;
    KINX_WAIT(err, deadline, kin_channel_poll(&channel, until));
    if (err < 0 && err != -ETIMEDOUT) return kinx_raise(self->state, err, NULL);
    return PyBool_FromLong(err == 0);
}

static PyObject *method_poll(kinx_connection *self, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames) {
    static const char *const names[] = {"timeout"};
    static const kinx_parameters params = {names, 0, 0, 1, 1};
    PyObject *timeout = NULL, *theirs;
    if (kinx_fill_slots("poll", &params, &timeout, args, nargs, kwnames) < 0) return NULL;
    if (check_readable(self) < 0) return NULL;
    int found = override(self, HOOK_poll, &theirs);
    if (found < 0) return NULL;
    if (found == 0) return our_poll(self, timeout);
    PyObject *zero = PyFloat_FromDouble(0.0);
    PyObject *result = zero ? PyObject_CallOneArg(theirs, timeout ? timeout : zero) : NULL;
    Py_XDECREF(zero);
    Py_DECREF(theirs);
    return result;
}

static PyObject *method_poll_raw(kinx_connection *self, PyObject *timeout) {
    return our_poll(self, timeout);
}

/* -- The object ------------------------------------------------------------------------------- */

static PyObject *new(PyTypeObject *type, PyObject *args, PyObject *kwds) {
    kinx_state *st = kinx_state_of_type(type);
    if (!st) return NULL;
    kinx_connection *self = (kinx_connection *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->state = st;
    self->channel.fd = -1;
    self->readable = self->writable = true;
    return (PyObject *)self;
}

/* A descriptor from an argument.  Raises. */
static int fd_from(PyObject *handle, int *fd) {
    PyObject *number = PyNumber_Index(handle);
    if (!number) return -1;
    int overflow;
    long n = PyLong_AsLongAndOverflow(number, &overflow);
    Py_DECREF(number);
    if (overflow || n < 0 || n > INT_MAX) return raise_value_error("invalid handle");
    *fd = (int)n;
    return 0;
}

static int init(kinx_connection *self, PyObject *args, PyObject *kwds) {
    static char *names[] = {"handle", "readable", "writable", NULL};
    PyObject *handle;
    int readable = 1, writable = 1, fd;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "O|pp:Connection", names, &handle, &readable,
                                     &writable)) {
        return -1;
    }
    if (fd_from(handle, &fd) < 0) return -1;
    if (!readable && !writable) {
        return raise_value_error("at least one of `readable` and `writable` must be True");
    }
    take_fd(self);
    kin_channel_init(&self->channel, fd);
    self->readable = readable;
    self->writable = writable;
    self->is_torn = false;
    return 0;
}

static int traverse(kinx_connection *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->dict);
    return 0;
}

static int clear(kinx_connection *self) {
    Py_CLEAR(self->dict);
    return 0;
}

/* A connection that is collected while open is closed. */
static void finalize(kinx_connection *self) {
    if (self->channel.fd < 0) return;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    int err = self->state->connection ? close_connection(self) : close_fd(take_fd(self));
    if (err < 0) PyErr_WriteUnraisable((PyObject *)self);
    PyErr_Restore(type, value, trace);
}

static void dealloc(kinx_connection *self) {
    PyTypeObject *type = Py_TYPE(self);
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0) return;
    PyObject_GC_UnTrack(self);
    if (self->weakrefs) PyObject_ClearWeakRefs((PyObject *)self);
    clear(self);
    kinx_connection_forget(self);
    Py_CLEAR(self->transit);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *method_fileno(kinx_connection *self, PyObject *unused) {
    if (check_closed(self) < 0) return NULL;
    return PyLong_FromLong(self->channel.fd);
}

static PyObject *method_enter(PyObject *self, PyObject *unused) {
    return Py_NewRef(self);
}

static PyObject *method_exit(PyObject *self, PyObject *args) {
    return PyObject_CallMethod(self, "close", NULL);
}

static PyObject *method_reduce(PyObject *self, PyObject *unused) {
    kinx_state *st = ((kinx_connection *)self)->state;
    PyObject *reduce =
        kinx_import(&st->connection->reduce, "kinfolk.connection", "reduce_connection");
    return reduce ? PyObject_CallOneArg(reduce, self) : NULL;
}

static PyObject *get_handle(kinx_connection *self, void *unused) {
    if (self->channel.fd < 0) Py_RETURN_NONE;
    return PyLong_FromLong(self->channel.fd);
}

static int set_handle(kinx_connection *self, PyObject *handle, void *unused) {
    int fd = -1;
    if (!handle) {
        PyErr_SetString(PyExc_AttributeError, "the handle can be set to None, not deleted");
        return -1;
    }
    if (handle != Py_None && fd_from(handle, &fd) < 0) return -1;
    kinx_connection_forget(self);
    if (fd < 0) self->channel.fd = -1;
    else kin_channel_init(&self->channel, fd);
    return 0;
}

static PyObject *get_closed(kinx_connection *self, void *unused) {
    return PyBool_FromLong(self->channel.fd < 0);
}

static PyObject *get_flag(kinx_connection *self, void *flag) {
    return PyBool_FromLong(flag ? self->writable : self->readable);
}

static int set_flag(kinx_connection *self, PyObject *given, void *flag) {
    int yes = given ? PyObject_IsTrue(given) : 0;
    if (yes < 0) return -1;
    if (flag) self->writable = yes;
    else self->readable = yes;
    return 0;
}

static PyObject *get_transit(kinx_connection *self, void *unused) {
    return Py_NewRef(self->transit ? self->transit : Py_None);
}

static int set_transit(kinx_connection *self, PyObject *given, void *unused) {
    PyTypeObject *type = self->state->kind_types[KIN_KIND_TRANSIT];
    if (given && given != Py_None && !PyObject_TypeCheck(given, type)) {
        PyErr_Format(PyExc_TypeError, "a Transit is required, not %s", Py_TYPE(given)->tp_name);
        return -1;
    }
    if (given && given != Py_None && !((kinx_shared *)given)->handle.family) {
        kinx_raise_not_open((kinx_shared *)given);
        return -1;
    }
    Py_XSETREF(self->transit, given == Py_None ? NULL : Py_XNewRef(given));
    return 0;
}

/* -- Pairs ------------------------------------------------------------------------------------- */

static PyObject *channel_pair(PyObject *module, PyObject *arg) {
    int duplex = PyObject_IsTrue(arg), fds[2];
    if (duplex < 0) return NULL;
    kin_err err = kin_channel_pair(duplex, fds);
    if (err < 0) return kinx_raise(kinx_state_of(module), err, NULL);
    return Py_BuildValue("(ii)", fds[0], fds[1]);
}

static PyMethodDef functions[] = {
    {"channel_pair", channel_pair, METH_O,
     "channel_pair($module, duplex, /)\n--\n\n"
     "Two connected descriptors, close-on-exec: the first reads and the second writes, or both do\n"
     "either."},
    {NULL},
};

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS

static PyMethodDef methods[] = {
    {"send", (PyCFunction)method_send, METH_O,
     "send($self, obj, /)\n--\n\n"
     "Send a picklable object.  OSError if closed, read-only, or the peer has gone."},
    {"recv", (PyCFunction)method_recv, METH_NOARGS,
     "recv($self, /)\n--\n\n"
     "Receive an object.  EOFError when the peer has closed and all is read."},
    {"send_bytes", FAST(method_send_bytes),
     "send_bytes($self, /, buf, offset=0, size=None)\n--\n\n"
     "Send `size` bytes of a bytes-like object from `offset` (bytes), or all the rest."},
    {"recv_bytes", FAST(method_recv_bytes),
     "recv_bytes($self, /, maxlength=None)\n--\n\n"
     "Receive one message as bytes.\n\n"
     "A message longer than `maxlength` is an OSError, and the connection can then be read no\n"
     "more.  EOFError as in recv()."},
    {"recv_bytes_into", FAST(method_recv_bytes_into),
     "recv_bytes_into($self, /, buf, offset=0)\n--\n\n"
     "Receive one message into a writable buffer from `offset` (bytes); return its length.\n\n"
     "BufferTooShort, with the whole message as its argument, if it does not fit."},
    {"poll", FAST(method_poll),
     "poll($self, /, timeout=0.0)\n--\n\n"
     "Whether there is something to read within `timeout` seconds (None: wait for it).\n\n"
     "The end of the stream counts.  Nothing is taken from it."},
    {"fileno", (PyCFunction)method_fileno, METH_NOARGS,
     "fileno($self, /)\n--\n\nReturn the descriptor.  OSError once closed."},
    {"close", (PyCFunction)method_close, METH_NOARGS,
     "close($self, /)\n--\n\nClose the descriptor.  Closing again does nothing."},
    {"__enter__", method_enter, METH_NOARGS, NULL},
    {"__exit__", method_exit, METH_VARARGS, NULL},
    {"__reduce__", method_reduce, METH_NOARGS, NULL},
    /* For subclasses, to override or to call. */
    {"_send_bytes", (PyCFunction)method_send_raw, METH_O, NULL},
    {"_recv_bytes", FAST(method_recv_raw), NULL},
    {"_poll", (PyCFunction)method_poll_raw, METH_O, NULL},
    {"_close", (PyCFunction)method_close_fd, METH_NOARGS, NULL},
    {"_check_closed", (PyCFunction)method_check_closed, METH_NOARGS, NULL},
    {"_check_readable", (PyCFunction)method_check_readable, METH_NOARGS, NULL},
    {"_check_writable", (PyCFunction)method_check_writable, METH_NOARGS, NULL},
    {"_bad_message_length", (PyCFunction)method_bad_message_length, METH_NOARGS, NULL},
    {NULL},
};

static PyGetSetDef getset[] = {
    {"closed", (getter)get_closed, NULL, "True if the connection is closed", NULL},
    {"readable", (getter)get_flag, NULL, "True if the connection is readable", NULL},
    {"writable", (getter)get_flag, NULL, "True if the connection is writable", (void *)1},
    {"_handle", (getter)get_handle, (setter)set_handle,
     "The descriptor; None once closed.  Who sets it to None has the descriptor.", NULL},
    {"_readable", (getter)get_flag, (setter)set_flag, NULL, NULL},
    {"_writable", (getter)get_flag, (setter)set_flag, NULL, (void *)1},
    {"_transit", (getter)get_transit, (setter)set_transit,
     "What holds the objects that messages under way mention; None: the family's own.", NULL},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", Py_T_PYSSIZET, offsetof(kinx_connection, weakrefs), Py_READONLY, NULL},
    {"__dictoffset__", Py_T_PYSSIZET, offsetof(kinx_connection, dict), Py_READONLY, NULL},
    {NULL},
};

PyDoc_STRVAR(doc, "Connection(handle, readable=True, writable=True)\n--\n\n"
                  "One end of a stream of messages over the descriptor `handle`, which it owns.\n\n"
                  "TypeError or ValueError for what is no descriptor.  A connection that is\n"
                  "collected while open is closed.  Two threads or processes that read, or\n"
                  "write, at the same time may get each other's bytes.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)doc},
    {Py_tp_new, new},
    {Py_tp_init, init},
    {Py_tp_dealloc, dealloc},
    {Py_tp_finalize, finalize},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {Py_tp_members, members},
    {0, NULL},
};

/* Its name is where programs find it, and may replace its methods, as they do with the standard
 * library's. */
static PyType_Spec spec = {
    .name = "kinfolk.connection.Connection",
    .basicsize = sizeof(kinx_connection),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

static int find_hooks(struct kinx_connection_state *cs) {
    static const char *const names[] = {
#define NAME_(name) #name,
        HOOKS(NAME_)
#undef NAME_
    };
    for (int i = 0; i < HOOK_COUNT; i++) {
        cs->names[i] = PyUnicode_InternFromString(names[i]);
        if (!cs->names[i]) return -1;
        cs->ours[i] = PyObject_GetAttr((PyObject *)cs->type, cs->names[i]);
        if (!cs->ours[i]) return -1;
    }
    return 0;
}

int kinx_connection_exec(PyObject *module) {
    struct kinx_connection_state *cs = PyMem_Calloc(1, sizeof *cs);
    if (!cs) {
        PyErr_NoMemory();
        return -1;
    }
    kinx_state_of(module)->connection = cs;
    if (kinx_add_type(module, &spec, NULL, &cs->type) < 0 || find_hooks(cs) < 0) return -1;
    return PyModule_AddFunctions(module, functions);
}

#define EACH(visit, cs)                                                            \
    do {                                                                           \
        visit((cs)->type);                                                         \
        for (int hook_ = 0; hook_ < HOOK_COUNT; hook_++) visit((cs)->ours[hook_]); \
        visit((cs)->context);                                                      \
        visit((cs)->reduction);                                                    \
        visit((cs)->pickler);                                                      \
        visit((cs)->reduce);                                                       \
        visit((cs)->too_short);                                                    \
        visit((cs)->bytes_io);                                                     \
    } while (0)

int kinx_connection_visit(kinx_state *st, visitproc visit, void *arg) {
    if (st->connection) EACH(Py_VISIT, st->connection);
    return 0;
}

void kinx_connection_clear(kinx_state *st) {
    struct kinx_connection_state *cs = st->connection;
    if (!cs) return;
    st->connection = NULL;
    EACH(Py_CLEAR, cs);
    for (int i = 0; i < HOOK_COUNT; i++) Py_CLEAR(cs->names[i]);
    PyMem_Free(cs);
}
