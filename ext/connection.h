/* A connection: messages over a descriptor, and the bytes on their way. */
#ifndef KINX_CONNECTION_H
#define KINX_CONNECTION_H

#include "state.h"

/* What has come of a message when a signal's handler raised in the middle of it: the next call
 * goes on there. */
typedef struct kinx_unread {
    bool has_len; /* else there is nothing but what the channel has of a length */
    uint64_t len;
    PyObject *bytes; /* its beginning; NULL: none of it has come */
    size_t done;
} kinx_unread;

typedef struct kinx_connection {
    PyObject_HEAD
    PyObject *weakrefs, *dict;
    kinx_state *state;   /* borrowed */
    kin_channel channel; /* fd -1: closed, or never opened */
    bool readable, writable;
    bool is_torn;      /* a message was given up in the middle: nothing can be sent any more */
    PyObject *transit; /* a _kin.Transit that it shares with the other end, or NULL */
    kinx_unread unread;
} kinx_connection;

/* -- What subclasses may override (connection_hooks.c) ------------------------------ */

/* clang-format off */
#define KINX_HOOKS(X)                                              \
    X(_send_bytes) X(_recv_bytes) X(_poll) X(_close)               \
    X(_check_closed) X(_check_readable) X(_check_writable)         \
    X(_bad_message_length)
/* clang-format on */

#define KINX_HOOK_NAME_(name) KINX_HOOK##name,
enum { KINX_HOOKS(KINX_HOOK_NAME_) KINX_HOOK_COUNT };
#undef KINX_HOOK_NAME_

struct kinx_connection_state {
    PyTypeObject *type;
    PyObject *names[KINX_HOOK_COUNT], *ours[KINX_HOOK_COUNT];
    /* Imported when first needed. */
    PyObject *context, *reduction; /* the modules' dicts */
    PyObject *pickler;             /* kinfolk's ForkingPickler */
    PyObject *reduce, *too_short, *bytes_io;
};

/* 1: what is to be called for the hook is in *out, a new reference; 0: what we have.  Raises. */
int kinx_override(kinx_connection *self, int hook, PyObject **out);
/* Call an override and forget what it returns.  1: it was called, 0: there is none.  Raises. */
int kinx_call_override(kinx_connection *self, int hook);

/* 0, or raise OSError.  _open: what we have of _check_closed; the others ask for overrides. */
int kinx_check_open(kinx_connection *self);
int kinx_check_closed(kinx_connection *self);
int kinx_our_check_readable(kinx_connection *self);
int kinx_our_check_writable(kinx_connection *self);
int kinx_check_readable(kinx_connection *self);
int kinx_check_writable(kinx_connection *self);
/* The end of a stream whose next message has no length, or is longer than allowed.  NULL. */
PyObject *kinx_raise_bad_length(kinx_connection *self);

/* A pickler that the program has set: by BaseContext.reducer, or in the place of kinfolk's.  New
 * reference in *out, or NULL if there is none.  Raises. */
int kinx_pickler_of_program(kinx_state *st, PyObject **out);

/* An optional argument: 0, or 1 if it was given and is not None.  Raises. */
int kinx_size_from(PyObject *given, Py_ssize_t *out);
/* Raise; always -1. */
int kinx_raise_value_error(const char *text);
int kinx_raise_os_error(const char *text);
/* None, or NULL if err is below 0. */
PyObject *kinx_none_if(int err);

/* -- Methods (connection_send.c, connection_recv.c) ---------------------------------- */

PyObject *kinx_connection_send(kinx_connection *self, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *kwnames);
PyObject *kinx_connection_send_bytes(kinx_connection *self, PyObject *const *args, Py_ssize_t nargs,
                                     PyObject *kwnames);
PyObject *kinx_connection_send_raw(kinx_connection *self, PyObject *buffer);
PyObject *kinx_connection_recv(kinx_connection *self, PyObject *unused);
PyObject *kinx_connection_recv_bytes(kinx_connection *self, PyObject *const *args, Py_ssize_t nargs,
                                     PyObject *kwnames);
PyObject *kinx_connection_recv_raw(kinx_connection *self, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames);
PyObject *kinx_connection_recv_bytes_into(kinx_connection *self, PyObject *const *args,
                                          Py_ssize_t nargs, PyObject *kwnames);

/* -- Bytes (connection_io.c) ------------------------------------------------------ */

/* Send a message.  Raises. */
int kinx_connection_write(kinx_connection *self, const kin_part *parts, size_t count);

/* A message that came. */
#define KINX_SCRATCH_LEN 4096
typedef struct kinx_received {
    uint8_t *data;
    size_t len;
    PyObject *bytes; /* the owner of data, or NULL: then it is `scratch` */
    uint8_t scratch[KINX_SCRATCH_LEN];
} kinx_received;

/* Receive a message: in bytes if as_bytes, or if it is long.  -1: it raised; 1: it is longer than
 * `most`, and stays unread.  bytes: to be given back by the caller. */
int kinx_connection_read(kinx_connection *self, bool as_bytes, uint64_t most, kinx_received *out);
/* Receive the next message into data[0:room]: its length in *len.  1: it is longer, and is in
 * *bytes, a new reference; 2: it has no possible length.  -1: it raised. */
int kinx_connection_read_into(kinx_connection *self, void *data, size_t room, size_t *len,
                              PyObject **bytes);
/* Forget what has come of a message. */
void kinx_connection_forget(kinx_connection *self);

int kinx_connection_exec(PyObject *module);
int kinx_connection_visit(kinx_state *st, visitproc visit, void *arg);
void kinx_connection_clear(kinx_state *st);

#endif
