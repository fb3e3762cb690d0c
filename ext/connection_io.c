/* The bytes of connections: whole messages in and out, by libkin's channels.
 *
 * What can be done at once is done with the GIL: it takes longer to hand the GIL over and to get
 * it back than to copy some KiB.  Else, and for what is long, the GIL is given up; a wait is made of
 * stretches, so that no signal is overlooked (state.h).
 *
 * A call works on a copy of the channel: another thread may read, too, or close the connection
 * meanwhile.  That is the program's mistake, but it must not be ours. */
#include <unistd.h>

#include "connection.h"
#include "errors.h"

/* Bytes from here on are copied without the GIL. */
#define LONG_MESSAGE (64u << 10)
/* A length is only a claim.  Memory is taken for so much of it, then for twice as much. */
#define FIRST_PIECE ((size_t)64 << 20)

/* `call` gives a kin_err and names its deadline `until`. */
#define KINX_STREAM(err, is_long, call)                          \
    do {                                                         \
        kin_deadline until = KIN_NOW;                            \
        (err) = -EAGAIN;                                         \
        if (!(is_long)) (err) = (call);                          \
        if ((err) == -EAGAIN) {                                  \
            int64_t stretch_ = KINX_STRETCH;                     \
            do {                                                 \
                until = kinx_stretch_of(KIN_FOREVER, &stretch_); \
                KINX_PARK(err, call);                            \
            } while (kinx_goes_on(&(err), until, KIN_FOREVER));  \
        }                                                        \
    } while (0)

static int raise_stream(kinx_connection *self, kin_err err) {
    if (err == KIN_EEND) PyErr_SetNone(PyExc_EOFError);
    else if (err == KIN_ECUT) PyErr_SetString(PyExc_OSError, "got end of file during message");
    else kinx_raise(self->state, err, NULL);
    return -1;
}

/* -- Out -------------------------------------------------------------------------- */

static int raise_torn(void) {
    PyErr_SetString(PyExc_OSError,
                    "an exception ended send() in the middle of a message: the other side could "
                    "make no sense of another one");
    return -1;
}

int kinx_connection_write(kinx_connection *self, const kin_part *parts, size_t count) {
    if (self->is_torn) return raise_torn();
    kin_channel channel = self->channel;
    kin_sending sending;
    kin_sending_init(&sending, parts, count);
    kin_err err;
    KINX_STREAM(err, sending.len >= LONG_MESSAGE, kin_channel_send(&channel, &sending, until));
    if (err == 0) return 0;
    if (sending.done) self->is_torn = true;
    return raise_stream(self, err);
}

/* -- In ----------------------------------------------------------------------------- */

/* A message on its way in. */
typedef struct arrival {
    kin_channel channel;
    kinx_unread at; /* at.bytes: NULL if it comes into memory of somebody else's */
    uint8_t *data;
    size_t room;
} arrival;

/* Takes over what an interrupted call has left. */
static void arrival_init(arrival *in, kinx_connection *self) {
    in->channel = self->channel;
    in->at = self->unread;
    in->data = NULL;
    in->room = 0;
    self->channel.head_len = 0;
    self->unread = (kinx_unread){0};
}

void kinx_connection_forget(kinx_connection *self) {
    self->channel.head_len = 0;
    Py_CLEAR(self->unread.bytes);
    self->unread = (kinx_unread){0};
}

/* What came into somebody else's memory, as bytes of our own.  Steals nothing. */
static PyObject *rescue(const arrival *in) {
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)in->at.done);
    if (bytes && in->at.done) memcpy(PyBytes_AS_STRING(bytes), in->data, in->at.done);
    return bytes;
}

/* The exception of an interruption is set.  What has come is kept for the next call, unless there
 * is no memory for it. */
static void put_aside(kinx_connection *self, arrival *in) {
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (in->at.has_len && !in->at.bytes) in->at.bytes = rescue(in);
    PyErr_Clear();
    PyErr_Restore(type, value, trace);
    bool is_whole = !in->at.has_len || in->at.bytes;
    if (is_whole && self->channel.fd == in->channel.fd && !self->unread.has_len) {
        memcpy(self->channel.head, in->channel.head, sizeof in->channel.head);
        self->channel.head_len = in->channel.head_len;
        self->unread = in->at;
    } else {
        Py_CLEAR(in->at.bytes);
    }
}

static int arrival_fails(kinx_connection *self, arrival *in, kin_err err) {
    raise_stream(self, err);
    if (err == -EINTR || err == -EAGAIN) put_aside(self, in);
    else Py_CLEAR(in->at.bytes);
    return -1;
}

/* 1: no such length, or one of more than `most`. */
static int receive_len(kinx_connection *self, arrival *in, uint64_t most) {
    if (!in->at.has_len) {
        kin_err err;
        KINX_STREAM(err, false, kin_channel_recv_len(&in->channel, &in->at.len, until));
        if (err == KIN_EMESSAGELEN) return 1;
        if (err < 0) return arrival_fails(self, in, err);
        in->at.has_len = true;
    }
    if (in->at.len <= most && in->at.len <= PY_SSIZE_T_MAX) return 0;
    Py_CLEAR(in->at.bytes);
    return 1;
}

static int receive_up_to(kinx_connection *self, arrival *in, size_t len) {
    kin_err err;
    KINX_STREAM(err, len - in->at.done >= LONG_MESSAGE,
                kin_channel_recv(&in->channel, in->data, len, &in->at.done, until));
    return err < 0 ? arrival_fails(self, in, err) : 0;
}

/* Make the bytes longer; what they were is gone if that fails. */
static int grow(arrival *in, size_t room) {
    if (!in->at.bytes) in->at.bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room);
    else _PyBytes_Resize(&in->at.bytes, (Py_ssize_t)room);
    if (!in->at.bytes) return -1;
    in->data = (uint8_t *)PyBytes_AS_STRING(in->at.bytes);
    in->room = room;
    return 0;
}

/* The rest of the message, into bytes.  New reference in *out. */
static int receive_bytes(kinx_connection *self, arrival *in, PyObject **out) {
    size_t len = (size_t)in->at.len, piece = FIRST_PIECE;
    for (;;) {
        while (piece <= in->at.done && piece < len) piece *= 2;
        if (grow(in, piece < len ? piece : len) < 0) return -1;
        if (receive_up_to(self, in, in->room) < 0) return -1;
        if (in->at.done == len) break;
    }
    *out = in->at.bytes;
    return 0;
}

int kinx_connection_read(kinx_connection *self, bool as_bytes, uint64_t most, kinx_received *out) {
    arrival in;
    arrival_init(&in, self);
    int too_long = receive_len(self, &in, most);
    if (too_long) return too_long;
    out->bytes = NULL;
    out->len = (size_t)in.at.len;
    if (as_bytes || in.at.bytes || out->len > sizeof out->scratch) {
        if (receive_bytes(self, &in, &out->bytes) < 0) return -1;
        out->data = (uint8_t *)PyBytes_AS_STRING(out->bytes);
        return 0;
    }
    out->data = in.data = out->scratch;
    return receive_up_to(self, &in, out->len);
}

int kinx_connection_read_into(kinx_connection *self, void *data, size_t room, size_t *len,
                              PyObject **bytes) {
    arrival in;
    arrival_init(&in, self);
    int too_long = receive_len(self, &in, UINT64_MAX);
    if (too_long) return too_long < 0 ? -1 : 2;
    *len = (size_t)in.at.len;
    if (*len > room) return receive_bytes(self, &in, bytes) < 0 ? -1 : 1;
    in.data = data;
    if (in.at.bytes) {
        memcpy(data, PyBytes_AS_STRING(in.at.bytes), in.at.done);
        Py_CLEAR(in.at.bytes);
    }
    return receive_up_to(self, &in, *len);
}
