/* What goes through a queue, or to a process that is started: an object, pickled. */
#ifndef KINX_MESSAGE_H
#define KINX_MESSAGE_H

#include "pickle/output.h"
#include "ref.h"

/* The result of functions that give a kin_err: a Python exception is set, and
 * kinx_raise() leaves it as it is. */
#define KINX_RAISED (-EINTR)

/* An object, pickled.  The pickle is `head`, then `body` with the output's pieces in it, then a
 * STOP if `stop` says so. */
typedef struct kinx_message {
    uint8_t head[12];
    uint8_t head_len;
    bool stop;
    bool is_pickled;     /* by the pickler: then the body lies in `output` */
    const uint8_t *body; /* in `owner`, or in `output` */
    size_t body_len;
    PyObject *owner; /* strong reference, or NULL */
    kinx_output output;
    PyObject *buffers; /* list of the PickleBuffers out of band, or NULL */
    kinx_mentions mentions;
} kinx_message;

/* Pickle `obj`.  Raises what pickling raises; then there is nothing to finish. */
int kinx_message_init(kinx_state *st, kinx_message *message, PyObject *obj);
/* The same with the buffers, too, in the pickle: for a stream. */
int kinx_message_init_whole(kinx_state *st, kinx_message *message, PyObject *obj);
void kinx_message_fini(kinx_message *message);

/* The pickle of a whole message where it lies, in so many parts, some of them empty.  The last is
 * the STOP; or it is empty, and the STOP the last byte of the one before.  Valid as long as the
 * message. */
size_t kinx_message_part_count(const kinx_message *message);
void kinx_message_parts(const kinx_message *message, kin_part *parts);

/* The pickle of a whole message.  New reference: bytes. */
PyObject *kinx_message_bytes(const kinx_message *message);

/* Can it be copied through a queue?  Else it needs a blob. */
bool kinx_message_is_small(const kinx_message *message);
/* The bytes of a small message, in one piece: in `scratch`, which has room for
 * KIN_RECORD_MAX, or where they are already. */
const uint8_t *kinx_message_flat(const kinx_message *message, uint8_t *scratch, uint32_t *len);
/* Lay the message, small or not, into a new blob.  Then it has nothing of the object any more, and
 * is only to be finished.  KINX_RAISED is possible. */
kin_err kinx_message_to_blob(kinx_state *st, kinx_message *message, kin_blob *out);

/* Load what came as a small message.  New reference. */
PyObject *kinx_load_record(kinx_state *st, const uint8_t *data, size_t len);
/* Load what lies in a blob, of which `view` is a memoryview; out-of-band buffers
 * are views of it.  New reference. */
PyObject *kinx_load_view(kinx_state *st, PyObject *view);

/* -- Atoms: numbers, strings and the like, by hand ----------------------------- */

/* If obj is None or exactly a bool, int, float, str or bytes of the usual kind,
 * make it the message; false if it is for a real pickler. */
bool kinx_atom_dump(PyObject *obj, kinx_message *message);
/* What such a message says: a new reference, or NULL and, without an exception,
 * *known == false if this is for a real unpickler. */
PyObject *kinx_atom_load(const uint8_t *data, size_t len, bool *known);

/* -- Blob, the type (blob.c) -------------------------------------------------------- */

/* Load what a blob holds and give the blob back, or leave it to the views of its
 * buffers.  Steals `blob`.  New reference. */
PyObject *kinx_blob_take(kinx_state *st, kin_blob *blob);

#endif
