/* Numbers, strings and the like, pickled by hand.
 *
 * Half of what goes through queues is a number, a None or a short string, and a
 * pickler takes longer to set itself up than to write one of those.  What is
 * written here is a pickle like any other, `PROTO opcode argument STOP`, which
 * any unpickler reads; and of any pickler's work, what has exactly this shape
 * is read here, the rest is left to the interpreter's own.
 *
 * The opcodes are those of pickle protocol 5. */
#include "message.h"

enum {
    PROTO = 0x80,
    PROTOCOL = 5,
    STOP = '.',
    NONE = 'N',
    NEWTRUE = 0x88,
    NEWFALSE = 0x89,
    BININT1 = 'K',
    BININT2 = 'M',
    BININT = 'J',
    LONG1 = 0x8a,
    BINFLOAT = 'G',
    SHORT_BINUNICODE = 0x8c,
    BINUNICODE = 'X',
    BINUNICODE8 = 0x8d,
    SHORT_BINBYTES = 'C',
    BINBYTES = 'B',
    BINBYTES8 = 0x8e,
};

_Static_assert(sizeof(double) == 8, "a float is pickled as 8 bytes");

static void put_le(uint8_t *out, uint64_t n, int len) {
    for (int i = 0; i < len; i++) out[i] = (uint8_t)(n >> (8 * i));
}

static uint64_t get_le(const uint8_t *in, int len) {
    uint64_t n = 0;
    for (int i = 0; i < len; i++) n |= (uint64_t)in[i] << (8 * i);
    return n;
}

static uint64_t swap64(uint64_t n) {
    uint8_t bytes[8];
    put_le(bytes, n, 8);
    uint64_t swapped = 0;
    for (int i = 0; i < 8; i++) swapped = swapped << 8 | bytes[i];
    return swapped;
}

/* -- Writing ------------------------------------------------------------------ */

/* The head is the opcode with an argument of `len` bytes, little-endian. */
static bool dump_number(kinx_message *message, uint8_t opcode, uint64_t argument, int len) {
    message->head[2] = opcode;
    put_le(message->head + 3, argument, len);
    message->head_len = (uint8_t)(3 + len);
    return true;
}

static bool dump_int(kinx_message *message, PyObject *obj) {
    int overflow;
    long long n = PyLong_AsLongLongAndOverflow(obj, &overflow);
    if (overflow) return false;
    if (n >= 0 && n <= 0xff) return dump_number(message, BININT1, (uint64_t)n, 1);
    if (n >= 0 && n <= 0xffff) return dump_number(message, BININT2, (uint64_t)n, 2);
    if (n >= INT32_MIN && n <= INT32_MAX) {
        return dump_number(message, BININT, (uint64_t)n, 4);
    }
    message->head[3] = 8;
    put_le(message->head + 4, (uint64_t)n, 8);
    message->head[2] = LONG1;
    message->head_len = 12;
    return true;
}

static bool dump_float(kinx_message *message, PyObject *obj) {
    double n = PyFloat_AS_DOUBLE(obj);
    uint64_t bits;
    memcpy(&bits, &n, 8);
    return dump_number(message, BINFLOAT, swap64(bits), 8); /* big-endian */
}

static bool dump_bytes(kinx_message *message, const uint8_t opcodes[3], PyObject *owner,
                       const void *data, Py_ssize_t len) {
    uint64_t n = (uint64_t)len;
    if (n <= 0xff) dump_number(message, opcodes[0], n, 1);
    else if (n <= UINT32_MAX) dump_number(message, opcodes[1], n, 4);
    else dump_number(message, opcodes[2], n, 8);
    message->body = data;
    message->body_len = (size_t)len;
    Py_INCREF(owner);
    message->owner = owner;
    return true;
}

static const uint8_t unicode_opcodes[] = {SHORT_BINUNICODE, BINUNICODE, BINUNICODE8};
static const uint8_t bytes_opcodes[] = {SHORT_BINBYTES, BINBYTES, BINBYTES8};

static bool dump_atom(PyObject *obj, kinx_message *message) {
    PyTypeObject *type = Py_TYPE(obj);
    if (type == &PyLong_Type) return dump_int(message, obj);
    if (type == &PyUnicode_Type) {
        /* Others would have to be encoded first: a pickler does that as well. */
        if (!PyUnicode_IS_COMPACT_ASCII(obj)) return false;
        return dump_bytes(message, unicode_opcodes, obj, PyUnicode_1BYTE_DATA(obj),
                          PyUnicode_GET_LENGTH(obj));
    }
    if (obj == Py_None) return dump_number(message, NONE, 0, 0);
    if (obj == Py_True) return dump_number(message, NEWTRUE, 0, 0);
    if (obj == Py_False) return dump_number(message, NEWFALSE, 0, 0);
    if (type == &PyFloat_Type) return dump_float(message, obj);
    if (type == &PyBytes_Type) {
        return dump_bytes(message, bytes_opcodes, obj, PyBytes_AS_STRING(obj),
                          PyBytes_GET_SIZE(obj));
    }
    return false;
}

bool kinx_atom_dump(PyObject *obj, kinx_message *message) {
    message->head[0] = PROTO;
    message->head[1] = PROTOCOL;
    message->stop = dump_atom(obj, message);
    return message->stop;
}

/* -- Reading -------------------------------------------------------------------- */

static PyObject *load_text(const uint8_t *data, size_t len) {
    return PyUnicode_DecodeUTF8((const char *)data, (Py_ssize_t)len, "surrogatepass");
}

static PyObject *load_float(const uint8_t *data) {
    uint64_t bits = swap64(get_le(data, 8));
    double n;
    memcpy(&n, &bits, 8);
    return PyFloat_FromDouble(n);
}

/* Does the argument consist of a length of `size` bytes and as many bytes? */
static bool is_counted(const uint8_t *argument, size_t len, int size) {
    return len >= (size_t)size && get_le(argument, size) == len - (size_t)size;
}

PyObject *kinx_atom_load(const uint8_t *data, size_t len, bool *known) {
    *known = true;
    if (len < 4 || data[0] != PROTO || data[1] > PROTOCOL || data[len - 1] != STOP) goto other;
    const uint8_t *argument = data + 3;
    size_t n = len - 4; /* of the argument */
    int size;           /* of the length that the argument begins with */
    switch (data[2]) {
    case NONE:
        if (n != 0) goto other;
        Py_RETURN_NONE;
    case NEWTRUE:
        if (n != 0) goto other;
        Py_RETURN_TRUE;
    case NEWFALSE:
        if (n != 0) goto other;
        Py_RETURN_FALSE;
    case BININT1:
        if (n != 1) goto other;
        return PyLong_FromLong(argument[0]);
    case BININT2:
        if (n != 2) goto other;
        return PyLong_FromLong((long)get_le(argument, 2));
    case BININT:
        if (n != 4) goto other;
        return PyLong_FromLong((int32_t)get_le(argument, 4));
    case LONG1:
        if (n != 9 || argument[0] != 8) goto other;
        return PyLong_FromLongLong((long long)get_le(argument + 1, 8));
    case BINFLOAT:
        if (n != 8) goto other;
        return load_float(argument);
    case SHORT_BINUNICODE:
    case BINUNICODE:
    case BINUNICODE8:
        size = data[2] == SHORT_BINUNICODE ? 1 : data[2] == BINUNICODE ? 4 : 8;
        if (!is_counted(argument, n, size)) goto other;
        return load_text(argument + size, n - (size_t)size);
    case SHORT_BINBYTES:
    case BINBYTES:
    case BINBYTES8:
        size = data[2] == SHORT_BINBYTES ? 1 : data[2] == BINBYTES ? 4 : 8;
        if (!is_counted(argument, n, size)) goto other;
        return PyBytes_FromStringAndSize((const char *)argument + size, (Py_ssize_t)n - size);
    default: break;
    }
other:
    *known = false;
    return NULL;
}

/* -- Plain data -------------------------------------------------------------------- */

/* Beyond these a look at everything would cost more than it saves. */
enum { MAX_DEPTH = 16, MAX_ITEMS = 1000 };

typedef struct look {
    kinx_state *st;
    int items_left;
} look;

static bool is_plain(look *at, PyObject *obj, int depth);

static bool all_plain(look *at, PyObject *const *objs, Py_ssize_t count, int depth) {
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!is_plain(at, objs[i], depth)) return false;
    }
    return true;
}

static bool is_plain_dict(look *at, PyObject *dict, int depth) {
    PyObject *key, *value;
    Py_ssize_t next = 0;
    while (PyDict_Next(dict, &next, &key, &value)) {
        if (!is_plain(at, key, depth) || !is_plain(at, value, depth)) return false;
    }
    return true;
}

static bool is_plain_set(look *at, PyObject *set, int depth) {
    PyObject *iterator = PyObject_GetIter(set);
    PyObject *item;
    bool plain = iterator != NULL;
    while (plain && (item = PyIter_Next(iterator))) {
        plain = is_plain(at, item, depth);
        Py_DECREF(item);
    }
    Py_XDECREF(iterator);
    PyErr_Clear(); /* no memory for the iterator: let the pickler say so */
    return plain;
}

/* Not a subclass: those have attributes, and perhaps a __reduce__ of their own. */
static bool is_bare_shared(const kinx_state *st, const PyTypeObject *type) {
    for (int kind = 0; kind < KINX_KINDS; kind++) {
        if (st->kind_types[kind] == type) return true;
    }
    return false;
}

static bool is_plain(look *at, PyObject *obj, int depth) {
    PyTypeObject *type = Py_TYPE(obj);
    if (--at->items_left < 0) return false;
    if (type == &PyLong_Type || type == &PyFloat_Type || type == &PyBool_Type) return true;
    if (obj == Py_None) return true;
    /* Large ones are better written in pieces: message.c. */
    if (type == &PyUnicode_Type) return PyUnicode_GET_LENGTH(obj) < KINX_OUT_OF_BAND;
    if (type == &PyBytes_Type) return PyBytes_GET_SIZE(obj) < KINX_OUT_OF_BAND;
    if (depth == MAX_DEPTH) return false;
    depth++;
    if (type == &PyTuple_Type) {
        return all_plain(at, &PyTuple_GET_ITEM(obj, 0), PyTuple_GET_SIZE(obj), depth);
    }
    if (type == &PyList_Type) {
        return all_plain(at, ((PyListObject *)obj)->ob_item, PyList_GET_SIZE(obj), depth);
    }
    if (type == &PyDict_Type) return is_plain_dict(at, obj, depth);
    if (type == &PySet_Type || type == &PyFrozenSet_Type) return is_plain_set(at, obj, depth);
    return is_bare_shared(at->st, type);
}

bool kinx_is_plain(kinx_state *st, PyObject *obj) {
    look at = {st, MAX_ITEMS};
    return is_plain(&at, obj, 0);
}
