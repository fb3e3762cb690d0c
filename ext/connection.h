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
struct kinx_connection_state; /* connection.c */
int kinx_connection_visit(kinx_state *st, visitproc visit, void *arg);
void kinx_connection_clear(kinx_state *st);

#endif
