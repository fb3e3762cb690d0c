/* Keys as bytes: a letter for what it is, then the value.
 *
 *   N                    None
 *   i  8 bytes           an int, or a float, bool … that equals one
 *   I  hexadecimal text  a larger one
 *   f  8 bytes           any other float
 *   s  UTF-8             b  bytes            t  (length, key) …   a tuple
 *   o  bytes             what kinfolk._shared_keys makes of any other object
 *
 * dict's rule is kept, that 1, 1.0 and True are one key.  Its hash is not used: str's is another in
 * each process.  Subclasses that compare as their base does are taken for it. */
#include "key.h"

#include <math.h>

static uint8_t *room_for(kinx_key *key, size_t len) {
    if (key->len + len > key->room) {
        size_t room = 2 * key->room + len;
        uint8_t *grown = PyMem_Malloc(room);
        if (!grown) {
            PyErr_NoMemory();
            return NULL;
        }
        memcpy(grown, key->bytes, key->len);
        kinx_key_fini(key);
        key->bytes = grown;
        key->room = room;
    }
    uint8_t *at = key->bytes + key->len;
    key->len += len;
    return at;
}

static int add(kinx_key *key, uint8_t letter, const void *data, size_t len) {
    uint8_t *at = room_for(key, 1 + len);
    if (!at) return -1;
    *at = letter;
    if (len) memcpy(at + 1, data, len);
    return 0;
}

static int add_int(kinx_key *key, PyObject *obj) {
    int overflow;
    long long n = PyLong_AsLongLongAndOverflow(obj, &overflow);
    if (!overflow) return n == -1 && PyErr_Occurred() ? -1 : add(key, 'i', &n, sizeof n);
    PyObject *text = PyNumber_ToBase(obj, 16);
    Py_ssize_t len;
    const char *utf8 = text ? PyUnicode_AsUTF8AndSize(text, &len) : NULL;
    int err = utf8 ? add(key, 'I', utf8, (size_t)len) : -1;
    Py_XDECREF(text);
    return err;
}

static int add_float(kinx_key *key, double value) {
    if (!isfinite(value) || value != floor(value)) {
        if (isnan(value)) value = NAN; /* one of many */
        return add(key, 'f', &value, sizeof value);
    }
    key->is_exact = false;
    PyObject *whole = PyLong_FromDouble(value);
    int err = whole ? add_int(key, whole) : -1;
    Py_XDECREF(whole);
    return err;
}

static int add_str(kinx_key *key, PyObject *obj) {
    Py_ssize_t len;
    const char *utf8 = PyUnicode_AsUTF8AndSize(obj, &len);
    if (utf8) return add(key, 's', utf8, (size_t)len);
    PyErr_Clear(); /* with surrogates */
    PyObject *bytes = PyUnicode_AsEncodedString(obj, "utf-8", "surrogatepass");
    int err = bytes ? add(key, 's', PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)) : -1;
    Py_XDECREF(bytes);
    return err;
}

static int add_any(kinx_state *st, kinx_key *key, PyObject *obj);

static int add_tuple(kinx_state *st, kinx_key *key, PyObject *tuple) {
    if (add(key, 't', NULL, 0) < 0 || Py_EnterRecursiveCall(" while encoding a key")) return -1;
    int err = 0;
    for (Py_ssize_t i = 0; err == 0 && i < PyTuple_GET_SIZE(tuple); i++) {
        size_t start = key->len;
        err = room_for(key, 4) ? add_any(st, key, PyTuple_GET_ITEM(tuple, i)) : -1;
        uint32_t len = (uint32_t)(key->len - start - 4);
        if (err == 0 && key->len > INT32_MAX) {
            PyErr_SetString(PyExc_OverflowError, "a key of more than 2 GiB");
            err = -1;
        }
        if (err == 0) memcpy(key->bytes + start, &len, sizeof len);
    }
    Py_LeaveRecursiveCall();
    return err;
}

static int add_other(kinx_state *st, kinx_key *key, PyObject *obj) {
    key->is_exact = false;
    if (PyObject_Hash(obj) == -1) return -1;
    PyObject *encode = kinx_import(&st->encode_key, "kinfolk._shared_keys", "encode");
    PyObject *made = encode ? PyObject_CallOneArg(encode, obj) : NULL;
    if (!made) return -1;
    /* bytes, or a simpler key that is equal */
    int err = PyBytes_CheckExact(made)
                  ? add(key, 'o', PyBytes_AS_STRING(made), (size_t)PyBytes_GET_SIZE(made))
                  : add_any(st, key, made);
    Py_DECREF(made);
    return err;
}

/* Is it compared as objects of `base` are? */
static bool is_like(kinx_key *key, PyObject *obj, PyTypeObject *base) {
    PyTypeObject *type = Py_TYPE(obj);
    if (type == base) return true;
    if (!PyType_IsSubtype(type, base) || type->tp_hash != base->tp_hash ||
        type->tp_richcompare != base->tp_richcompare)
        return false;
    key->is_exact = false;
    return true;
}

static int add_any(kinx_state *st, kinx_key *key, PyObject *obj) {
    if (is_like(key, obj, &PyUnicode_Type)) return add_str(key, obj);
    if (is_like(key, obj, &PyLong_Type)) return add_int(key, obj);
    if (obj == Py_None) return add(key, 'N', NULL, 0);
    if (is_like(key, obj, &PyFloat_Type)) return add_float(key, PyFloat_AS_DOUBLE(obj));
    if (is_like(key, obj, &PyBytes_Type))
        return add(key, 'b', PyBytes_AS_STRING(obj), (size_t)PyBytes_GET_SIZE(obj));
    if (is_like(key, obj, &PyTuple_Type)) return add_tuple(st, key, obj);
    return add_other(st, key, obj);
}

int kinx_key_init(kinx_state *st, kinx_key *key, PyObject *obj) {
    key->bytes = key->few;
    key->len = 0;
    key->room = sizeof key->few;
    key->is_exact = true;
    int err = add_any(st, key, obj);
    if (err < 0) kinx_key_fini(key);
    return err;
}

/* -- Back to an object ------------------------------------------------------------------- */

static PyObject *raise_torn(void) {
    PyErr_SetString(PyExc_ValueError, "the bytes are no key of a SharedDict");
    return NULL;
}

static PyObject *load_tuple(const uint8_t *bytes, size_t len) {
    PyObject *items = PyList_New(0);
    for (size_t at = 0; items && at < len;) {
        uint32_t size = 0;
        if (len - at >= sizeof size) memcpy(&size, bytes + at, sizeof size);
        at += sizeof size;
        PyObject *item =
            at > len || size > len - at ? raise_torn() : kinx_key_load(bytes + at, size);
        if (!item || PyList_Append(items, item) < 0) Py_CLEAR(items);
        Py_XDECREF(item);
        at += size;
    }
    PyObject *tuple = items ? PyList_AsTuple(items) : NULL;
    Py_XDECREF(items);
    return tuple;
}

static PyObject *load_large_int(const uint8_t *text, size_t len) {
    PyObject *str = PyUnicode_DecodeASCII((const char *)text, (Py_ssize_t)len, NULL);
    PyObject *n = str ? PyLong_FromUnicodeObject(str, 16) : NULL;
    Py_XDECREF(str);
    return n;
}

PyObject *kinx_key_load(const uint8_t *bytes, size_t len) {
    if (len == 0) return raise_torn();
    const uint8_t *data = bytes + 1;
    long long n;
    double value;
    switch (len--, bytes[0]) {
    case 'N': Py_RETURN_NONE;
    case 'i':
        if (len != sizeof n) return raise_torn();
        memcpy(&n, data, sizeof n);
        return PyLong_FromLongLong(n);
    case 'f':
        if (len != sizeof value) return raise_torn();
        memcpy(&value, data, sizeof value);
        return PyFloat_FromDouble(value);
    case 'I': return load_large_int(data, len);
    case 's': return PyUnicode_DecodeUTF8((const char *)data, (Py_ssize_t)len, "surrogatepass");
    case 'b': return PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)len);
    case 't': return load_tuple(data, len);
    default: return raise_torn();
    }
}
