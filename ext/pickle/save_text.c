/* What protocols 0 to 2 write otherwise, and integers of any size. */
#include "pickler.h"

#include <stdarg.h>

int kinx_put_text(kinx_pickler *p, const char *format, ...) {
    va_list args;
    va_start(args, format);
    PyObject *text = PyBytes_FromFormatV(format, args);
    va_end(args);
    if (!text) return -1;
    kin_err err = kin_put_raw(&p->out, PyBytes_AS_STRING(text), (size_t)PyBytes_GET_SIZE(text));
    Py_DECREF(text);
    return err < 0 ? kinx_raise_writer(err) : 0;
}

/* -- Numbers ------------------------------------------------------------------------------ */

static int put_repr(kinx_pickler *p, const char *format, PyObject *obj) {
    PyObject *text = PyObject_Repr(obj);
    const char *digits = text ? PyUnicode_AsUTF8(text) : NULL;
    int err = digits ? kinx_put_text(p, format, digits) : -1;
    Py_XDECREF(text);
    return err;
}

int kinx_save_old_int(kinx_pickler *p, PyObject *obj) {
    int overflow;
    long long n = PyLong_AsLongLongAndOverflow(obj, &overflow);
    if (overflow || n < INT32_MIN || n > INT32_MAX) return put_repr(p, "L%sL\n", obj);
    if (p->protocol < 1) return kinx_put_text(p, "I%ld\n", (long)n);
    if (kinx_reserve(p, KIN_INT_ROOM) < 0) return -1;
    p->out.at = kin_store_int(p->out.at, n);
    return 0;
}

/* Bytes of two's complement that obj needs, or -1. */
static Py_ssize_t len_of_int(PyObject *obj) {
#if PY_VERSION_HEX >= 0x030D0000
    return PyLong_AsNativeBytes(obj, NULL, 0, Py_ASNATIVEBYTES_LITTLE_ENDIAN);
#else
    size_t bits = _PyLong_NumBits(obj); /* nothing public tells, without an object to tell it */
    return bits == (size_t)-1 ? -1 : (Py_ssize_t)(bits / 8 + 1);
#endif
}

static int int_to_bytes(PyObject *obj, uint8_t *out, Py_ssize_t len) {
#if PY_VERSION_HEX >= 0x030D0000
    return PyLong_AsNativeBytes(obj, out, len, Py_ASNATIVEBYTES_LITTLE_ENDIAN) < 0 ? -1 : 0;
#else
    return _PyLong_AsByteArray((PyLongObject *)obj, out, (size_t)len, 1, 1);
#endif
}

int kinx_save_big_int(kinx_pickler *p, PyObject *obj) {
    Py_ssize_t len = len_of_int(obj);
    if (len < 0) return -1;
    if (len > INT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "int too large to pickle");
        return -1;
    }
    if (kinx_reserve(p, 5 + (size_t)len) < 0) return -1;
    uint8_t *at = p->out.at, *digits = at + (len <= 0xff ? 2 : 5);
    if (int_to_bytes(obj, digits, len) < 0) return -1;
    /* A negative number may need one byte less than its bits say. */
    if (len > 1 && digits[len - 1] == 0xff && digits[len - 2] & 0x80) len--;
    if (digits == at + 2) {
        at[0] = KIN_OP_LONG1;
        at[1] = (uint8_t)len;
    } else {
        at[0] = KIN_OP_LONG4;
        kin_store4(at + 1, (uint32_t)len);
    }
    p->out.at = digits + len;
    return 0;
}

int kinx_save_old_float(kinx_pickler *p, PyObject *obj) {
    char *text = PyOS_double_to_string(PyFloat_AS_DOUBLE(obj), 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
    if (!text) {
        PyErr_NoMemory();
        return -1;
    }
    int err = kinx_put_text(p, "F%s\n", text);
    PyMem_Free(text);
    return err;
}

/* -- Strings and bytes ----------------------------------------------------------------------- */

static uint8_t *store_hex(uint8_t *at, Py_UCS4 c, int digits) {
    for (int i = digits - 1; i >= 0; i--) *at++ = (uint8_t)"0123456789abcdef"[c >> (4 * i) & 15];
    return at;
}

/* Raw Unicode escapes, and escapes for what would end a line or begin an escape. */
static uint8_t *store_escaped(uint8_t *at, Py_UCS4 c) {
    if (c >= 0x10000) {
        *at++ = '\\';
        *at++ = 'U';
        return store_hex(at, c, 8);
    }
    if (c >= 256 || c == '\\' || c == 0 || c == '\n' || c == '\r' || c == 0x1a) {
        *at++ = '\\';
        *at++ = 'u';
        return store_hex(at, c, 4);
    }
    *at++ = (uint8_t)c;
    return at;
}

int kinx_save_old_str(kinx_pickler *p, PyObject *obj) {
    Py_ssize_t count = PyUnicode_GET_LENGTH(obj);
    if (count > (PY_SSIZE_T_MAX - 2) / 10) return kinx_raise_writer(-ENOMEM);
    if (kinx_reserve(p, (size_t)count * 10 + 2) < 0) return -1;
    uint8_t *at = p->out.at;
    int kind = (int)PyUnicode_KIND(obj);
    const void *data = PyUnicode_DATA(obj);
    *at++ = KIN_OP_UNICODE;
    for (Py_ssize_t i = 0; i < count; i++) at = store_escaped(at, PyUnicode_READ(kind, data, i));
    *at++ = '\n';
    p->out.at = at;
    return 0;
}

/* Python 2 has one type for text and bytes, and its unpickler no way to say which. */
static PyObject *reduce_bytes(kinx_pickler *p, PyObject *obj) {
    if (PyBytes_GET_SIZE(obj) == 0) return Py_BuildValue("O()", &PyBytes_Type);
    PyObject *encode = kinx_import(&p->ps->encode, "_codecs", "encode");
    PyObject *text =
        encode ? PyUnicode_DecodeLatin1(PyBytes_AS_STRING(obj), PyBytes_GET_SIZE(obj), "strict")
               : NULL;
    return text ? Py_BuildValue("O(Ns)", encode, text, "latin1") : NULL;
}

int kinx_save_old_bytes(kinx_pickler *p, PyObject *obj) {
    PyObject *reduced;
    if (PyBytes_CheckExact(obj)) {
        reduced = reduce_bytes(p, obj);
    } else if (PyByteArray_GET_SIZE(obj) == 0) {
        reduced = Py_BuildValue("O()", &PyByteArray_Type);
    } else {
        reduced = Py_BuildValue("O(N)", &PyByteArray_Type, PyBytes_FromObject(obj));
    }
    if (!reduced) return -1;
    int err = kinx_save_reduce(p, reduced, obj, false);
    Py_DECREF(reduced);
    return err;
}

int kinx_save_old_set(kinx_pickler *p, PyObject *obj) {
    PyObject *items = PySequence_List(obj);
    PyObject *reduced = items ? Py_BuildValue("O(N)", Py_TYPE(obj), items) : NULL;
    if (!reduced) return -1;
    int err = kinx_save_reduce(p, reduced, obj, false);
    Py_DECREF(reduced);
    return err;
}
