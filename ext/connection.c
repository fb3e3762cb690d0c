/* Connection: one end of a stream of messages, as multiprocessing.connection has it.
 *
 * An object is pickled as for a queue (message.c), in one piece, and by another pickler if the
 * program has set one.  What the pickle mentions of the arena is held by a transit until it has
 * been loaded (transit.h).
 *
 * Programs make subclasses that override what is below: _send_bytes, _recv_bytes, _close and
 * so on, or put functions of their own there.  So whoever needs one of those asks first whether it
 * is still ours (kinx_override), and calls it by name if not.
 *
 * This file has the object and its type; connection_send.c and connection_recv.c what it is for,
 * connection_io.c the bytes, connection_hooks.c what they have in common. */
#include "connection.h"

#include <unistd.h>

#include "args.h"
#include "errors.h"
#include "ref.h"

/* -- Checks, for subclasses ------------------------------------------------------- */

static PyObject *method_check_closed(kinx_connection *self, PyObject *unused) {
    return kinx_none_if(kinx_check_open(self));
}

static PyObject *method_check_readable(kinx_connection *self, PyObject *unused) {
    return kinx_none_if(kinx_our_check_readable(self));
}

static PyObject *method_check_writable(kinx_connection *self, PyObject *unused) {
    return kinx_none_if(kinx_our_check_writable(self));
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
    return kinx_none_if(close_fd(self->channel.fd));
}

static int close_connection(kinx_connection *self) {
    if (self->channel.fd < 0) return 0;
    int called = kinx_call_override(self, KINX_HOOK_close);
    int fd = take_fd(self);
    if (called) return called;
    return close_fd(fd);
}

static PyObject *method_close(kinx_connection *self, PyObject *unused) {
    return kinx_none_if(close_connection(self));
}

static int our_bad_message_length(kinx_connection *self) {
    /* The bytes stay unread, so nothing that follows can be understood. */
    if (self->writable) self->readable = false;
    else if (close_connection(self) < 0) return -1;
    return kinx_raise_os_error("bad message length");
}

PyObject *kinx_raise_bad_length(kinx_connection *self) {
    int called = kinx_call_override(self, KINX_HOOK_bad_message_length);
    if (called == 0) our_bad_message_length(self);
    else if (called > 0) kinx_raise_os_error("bad message length");
    return NULL;
}

static PyObject *method_bad_message_length(kinx_connection *self, PyObject *unused) {
    our_bad_message_length(self);
    return NULL;
}

/* -- poll ----------------------------------------------------------------------------------- */

static PyObject *our_poll(kinx_connection *self, PyObject *timeout) {
    kin_deadline deadline = KIN_NOW;
    if (timeout && kinx_parse_timeout("poll", &timeout, 1, NULL, &deadline) < 0) return NULL;
    if (kinx_check_open(self) < 0) return NULL;
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
    if (kinx_check_readable(self) < 0) return NULL;
    int found = kinx_override(self, KINX_HOOK_poll, &theirs);
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
    if (overflow || n < 0 || n > INT_MAX) return kinx_raise_value_error("invalid handle");
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
        return kinx_raise_value_error("at least one of `readable` and `writable` must be True");
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
    if (kinx_check_closed(self) < 0) return NULL;
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
    self->is_torn = false;
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
    {"send", FAST(kinx_connection_send),
     "send($self, /, obj)\n--\n\n"
     "Send a picklable object.  OSError if closed, read-only, or the peer has gone."},
    {"recv", (PyCFunction)kinx_connection_recv, METH_NOARGS,
     "recv($self, /)\n--\n\n"
     "Receive an object.  EOFError when the peer has closed and all is read."},
    {"send_bytes", FAST(kinx_connection_send_bytes),
     "send_bytes($self, /, buf, offset=0, size=None)\n--\n\n"
     "Send `size` bytes of a bytes-like object from `offset` (bytes), or all the rest."},
    {"recv_bytes", FAST(kinx_connection_recv_bytes),
     "recv_bytes($self, /, maxlength=None)\n--\n\n"
     "Receive one message as bytes.\n\n"
     "A message longer than `maxlength` is an OSError, and the connection can then be read no\n"
     "more.  EOFError as in recv()."},
    {"recv_bytes_into", FAST(kinx_connection_recv_bytes_into),
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
    {"_send_bytes", (PyCFunction)kinx_connection_send_raw, METH_O, NULL},
    {"_recv_bytes", FAST(kinx_connection_recv_raw), NULL},
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
        KINX_HOOKS(NAME_)
#undef NAME_
    };
    for (int i = 0; i < KINX_HOOK_COUNT; i++) {
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

#define EACH(visit, cs)                                                                 \
    do {                                                                                \
        visit((cs)->type);                                                              \
        for (int hook_ = 0; hook_ < KINX_HOOK_COUNT; hook_++) visit((cs)->ours[hook_]); \
        visit((cs)->context);                                                           \
        visit((cs)->reduction);                                                         \
        visit((cs)->pickler);                                                           \
        visit((cs)->reduce);                                                            \
        visit((cs)->too_short);                                                         \
        visit((cs)->bytes_io);                                                          \
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
    for (int i = 0; i < KINX_HOOK_COUNT; i++) Py_CLEAR(cs->names[i]);
    PyMem_Free(cs);
}
