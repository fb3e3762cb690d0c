/* The value of a simple ctypes object, read and written in place.
 *
 * What ctypes does for `obj.value` depends on the type alone, and for its own number types it is
 * a load or a store.  The address can be had once, if the memory is not the object's own: ctypes
 * moves what an object owns when it is resized, and refuses to resize what it does not own.
 *
 * A value is stored here if it is exactly of the type that needs no conversion. */
#include "number.h"

/* 1: the memory under the ctypes object `obj` is not its own.  Raises. */
static int is_borrower(PyObject *obj) {
    PyObject *owns = PyObject_GetAttrString(obj, "_b_needsfree_");
    int is = owns ? PyObject_Not(owns) : -1;
    Py_XDECREF(owns);
    return is;
}

int kinx_number_in(kinx_state *st, PyObject *obj, kinx_number *out) {
    *out = (kinx_number){0};
    PyObject *codes = kinx_import(&st->codes, "kinfolk.sharedctypes", "_codes");
    if (!codes) return -1;
    PyObject *code = PyDict_GetItemWithError(codes, (PyObject *)Py_TYPE(obj));
    if (!code) return PyErr_Occurred() ? -1 : 0;
    int borrower = is_borrower(obj);
    if (borrower <= 0) return borrower;
    Py_buffer view;
    if (PyObject_GetBuffer(obj, &view, PyBUF_WRITABLE) < 0) return -1;
    *out = (kinx_number){.data = view.buf, .code = (char)PyUnicode_READ_CHAR(code, 0)};
    PyBuffer_Release(&view);
    return 0;
}

/* clang-format off */
#define INTEGERS(each)                                         \
    each('b', signed char, PyLong_FromLong)                    \
    each('B', unsigned char, PyLong_FromLong)                  \
    each('h', short, PyLong_FromLong)                          \
    each('H', unsigned short, PyLong_FromLong)                 \
    each('i', int, PyLong_FromLong)                            \
    each('I', unsigned int, PyLong_FromUnsignedLong)           \
    each('l', long, PyLong_FromLong)                           \
    each('L', unsigned long, PyLong_FromUnsignedLong)          \
    each('q', long long, PyLong_FromLongLong)                  \
    each('Q', unsigned long long, PyLong_FromUnsignedLongLong)
/* clang-format on */

#define LOAD(code, ctype, make)             \
    case code: {                            \
        ctype x;                            \
        memcpy(&x, number->data, sizeof x); \
        return make(x);                     \
    }

PyObject *kinx_number_load(const kinx_number *number) {
    switch (number->code) {
        INTEGERS(LOAD)
        LOAD('f', float, PyFloat_FromDouble)
        LOAD('d', double, PyFloat_FromDouble)
    case '?': return PyBool_FromLong(*number->data != 0);
    }
    return PyBytes_FromStringAndSize(number->data, 1); /* 'c' */
}

#define STORE(code, ctype, make)            \
    case code: {                            \
        ctype x = (ctype)value;             \
        memcpy(number->data, &x, sizeof x); \
        return true;                        \
    }

/* What does not fit is cut off, as ctypes has it. */
static bool store_integer(const kinx_number *number, unsigned long long value) {
    switch (number->code) { INTEGERS(STORE) }
    return false;
}

static bool store_float(const kinx_number *number, double value) {
    switch (number->code) {
        STORE('f', float, )
        STORE('d', double, )
    }
    return false;
}

static bool store_byte(const kinx_number *number, char value) {
    *number->data = value;
    return true;
}

bool kinx_number_store(const kinx_number *number, PyObject *value) {
    if (PyLong_CheckExact(value)) {
        return store_integer(number, PyLong_AsUnsignedLongLongMask(value));
    }
    if (PyFloat_CheckExact(value)) return store_float(number, PyFloat_AS_DOUBLE(value));
    if (number->code == '?' && PyBool_Check(value)) return store_byte(number, value == Py_True);
    bool is_char = number->code == 'c' && PyBytes_CheckExact(value) && PyBytes_GET_SIZE(value) == 1;
    return is_char && store_byte(number, PyBytes_AS_STRING(value)[0]);
}
