/* Numbers, strings and the like, pickled by hand.
 *
 * Half of what goes through queues is a number, a None or a short string, and a
 * pickler takes longer to set itself up than to write one of those.  What is
 * written here is a pickle like any other, `PROTO opcode argument STOP`, which
 * any unpickler reads; and of any pickler's work, what has exactly this shape
 * is read here, the rest is left to the unpickler. */
#include "bytes.h"
#include "message.h"

_Static_assert(sizeof(double) == 8, "a float is pickled as 8 bytes");

/* -- Writing ------------------------------------------------------------------ */

static bool head_ends(kinx_message *message, const uint8_t *at) {
    message->head_len = (uint8_t)(at - message->head);
    return true;
}

static bool dump_op(kinx_message *message, uint8_t *at, kin_opcode op) {
    *at++ = (uint8_t)op;
    return head_ends(message, at);
}

static bool dump_int(kinx_message *message, uint8_t *at, PyObject *obj) {
    int overflow;
    long long n = PyLong_AsLongLongAndOverflow(obj, &overflow);
    return !overflow && head_ends(message, kin_store_int(at, n));
}

static bool dump_payload(kinx_message *message, const uint8_t *at, PyObject *owner,
                         const void *data, Py_ssize_t len) {
    message->body = data;
    message->body_len = (size_t)len;
    message->owner = Py_NewRef(owner);
    return head_ends(message, at);
}

static bool dump_atom(PyObject *obj, kinx_message *message) {
    PyTypeObject *type = Py_TYPE(obj);
    uint8_t *at = message->head + 2;
    if (type == &PyLong_Type) return dump_int(message, at, obj);
    if (type == &PyUnicode_Type) {
        /* Others would have to be encoded first: a pickler does that as well. */
        if (!PyUnicode_IS_COMPACT_ASCII(obj)) return false;
        Py_ssize_t len = PyUnicode_GET_LENGTH(obj);
        at = kin_store_str_head(at, (size_t)len, KIN_PICKLE_PROTOCOL);
        return dump_payload(message, at, obj, PyUnicode_1BYTE_DATA(obj), len);
    }
    if (obj == Py_None) return dump_op(message, at, KIN_OP_NONE);
    if (obj == Py_True) return dump_op(message, at, KIN_OP_NEWTRUE);
    if (obj == Py_False) return dump_op(message, at, KIN_OP_NEWFALSE);
    if (type == &PyFloat_Type) {
        return head_ends(message, kin_store_float(at, PyFloat_AS_DOUBLE(obj)));
    }
    if (type == &PyBytes_Type) {
        Py_ssize_t len = PyBytes_GET_SIZE(obj);
        at = kin_store_bytes_head(at, (size_t)len);
        return dump_payload(message, at, obj, PyBytes_AS_STRING(obj), len);
    }
    return false;
}

bool kinx_atom_dump(PyObject *obj, kinx_message *message) {
    message->head[0] = KIN_OP_PROTO;
    message->head[1] = KIN_PICKLE_PROTOCOL;
    message->stop = dump_atom(obj, message);
    if (!message->stop) message->head_len = 0;
    return message->stop;
}

/* -- Reading -------------------------------------------------------------------- */

/* Two's complement, at most eight bytes. */
static PyObject *load_long(const uint8_t *data, size_t len) {
    uint64_t n = len && data[len - 1] & 0x80 ? UINT64_MAX : 0;
    for (size_t i = len; i > 0; i--) n = n << 8 | data[i - 1];
    return PyLong_FromLongLong((long long)n);
}

/* What follows a length of `size` bytes, if it is as long as that says. */
static const uint8_t *counted(const uint8_t *argument, size_t len, size_t size) {
    if (len < size) return NULL;
    uint64_t said = size == 1 ? argument[0] : size == 4 ? kin_load4(argument) : kin_load8(argument);
    return said == len - size ? argument + size : NULL;
}

static PyObject *load_payload(uint8_t opcode, const uint8_t *argument, size_t len, bool *known) {
    size_t size = opcode == KIN_OP_SHORT_BINUNICODE || opcode == KIN_OP_SHORT_BINBYTES ? 1
                  : opcode == KIN_OP_BINUNICODE || opcode == KIN_OP_BINBYTES           ? 4
                                                                                       : 8;
    const char *data = (const char *)counted(argument, len, size);
    *known = data != NULL;
    if (!data) return NULL;
    Py_ssize_t rest = (Py_ssize_t)(len - size);
    if (opcode == KIN_OP_SHORT_BINUNICODE || opcode == KIN_OP_BINUNICODE ||
        opcode == KIN_OP_BINUNICODE8) {
        return PyUnicode_DecodeUTF8(data, rest, "surrogatepass");
    }
    return kinx_bytes(data, (size_t)rest);
}

PyObject *kinx_atom_load(const uint8_t *data, size_t len, bool *known) {
    *known = true;
    if (len < 4 || data[0] != KIN_OP_PROTO || data[1] > KIN_PICKLE_PROTOCOL ||
        data[len - 1] != KIN_OP_STOP) {
        goto other;
    }
    const uint8_t *argument = data + 3;
    size_t n = len - 4; /* of the argument */
    switch (data[2]) {
    case KIN_OP_NONE:
        if (n != 0) goto other;
        Py_RETURN_NONE;
    case KIN_OP_NEWTRUE:
        if (n != 0) goto other;
        Py_RETURN_TRUE;
    case KIN_OP_NEWFALSE:
        if (n != 0) goto other;
        Py_RETURN_FALSE;
    case KIN_OP_BININT1:
        if (n != 1) goto other;
        return PyLong_FromLong(argument[0]);
    case KIN_OP_BININT2:
        if (n != 2) goto other;
        return PyLong_FromLong(kin_load2(argument));
    case KIN_OP_BININT:
        if (n != 4) goto other;
        return PyLong_FromLong((int32_t)kin_load4(argument));
    case KIN_OP_LONG1:
        if (n < 1 || n > 9 || argument[0] != n - 1) goto other;
        return load_long(argument + 1, n - 1);
    case KIN_OP_BINFLOAT:
        if (n != 8) goto other;
        return PyFloat_FromDouble(kin_load_double(argument));
    case KIN_OP_SHORT_BINUNICODE:
    case KIN_OP_BINUNICODE:
    case KIN_OP_BINUNICODE8:
    case KIN_OP_SHORT_BINBYTES:
    case KIN_OP_BINBYTES:
    case KIN_OP_BINBYTES8: return load_payload(data[2], argument, n, known);
    default: break;
    }
other:
    *known = false;
    return NULL;
}
