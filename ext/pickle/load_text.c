/* Opcodes whose argument is a line of text, as protocol 0 has them, and persistent ids. */
#include "load.h"

/* A line of at least one byte before its newline, copied, newline and all, so that a zero is
 * behind it: a new block, for PyMem_Free.  *len without the newline. */
static char *copy_line(kinx_loader *u, size_t *len) {
    const uint8_t *line;
    if (kinx_read_line(u, &line, len) < 0) return NULL;
    if (*len < 2) {
        kinx_truncated(u);
        return NULL;
    }
    char *copy = PyMem_Malloc(*len + 1);
    if (!copy) {
        PyErr_NoMemory();
        return NULL;
    }
    memcpy(copy, line, *len);
    copy[(*len)--] = '\0';
    return copy;
}

/* Whether a number ended where the line does. */
static bool is_end(const char *rest) {
    return *rest == '\n' || *rest == '\0';
}

static PyObject *int_of(const char *line, size_t len) {
    char *rest;
    errno = 0;
    long n = strtol(line, &rest, 0);
    if (errno == 0 && is_end(rest)) {
        bool truth = len == 2 && (n == 0 || n == 1); /* 00 and 01 */
        return truth ? PyBool_FromLong(n) : PyLong_FromLong(n);
    }
    errno = 0;
    PyObject *value = PyLong_FromString(line, NULL, 0);
    if (!value) PyErr_SetString(PyExc_ValueError, "could not convert string to int");
    return value;
}

int kinx_load_int(kinx_loader *u) {
    size_t len;
    char *line = copy_line(u, &len);
    if (!line) return -1;
    PyObject *value = int_of(line, len);
    PyMem_Free(line);
    return kinx_push(u, value);
}

int kinx_load_long(kinx_loader *u) {
    size_t len;
    char *line = copy_line(u, &len);
    if (!line) return -1;
    if (line[len - 1] == 'L') line[len - 1] = '\0';
    PyObject *value = PyLong_FromString(line, NULL, 0);
    PyMem_Free(line);
    return kinx_push(u, value);
}

int kinx_load_float(kinx_loader *u) {
    size_t len;
    char *line = copy_line(u, &len), *rest;
    if (!line) return -1;
    double x = PyOS_string_to_double(line, &rest, PyExc_OverflowError);
    bool whole = is_end(rest);
    PyMem_Free(line);
    if (x == -1.0 && PyErr_Occurred()) return -1;
    if (!whole) {
        PyErr_SetString(PyExc_ValueError, "could not convert string to float");
        return -1;
    }
    return kinx_push(u, PyFloat_FromDouble(x));
}

/* bytes -> what the encoding makes of them.  Steals bytes. */
static PyObject *decode(kinx_loader *u, PyObject *bytes) {
    if (!bytes || strcmp(u->encoding, "bytes") == 0) return bytes;
    kinx_foreign_begin(u);
    PyObject *str = PyUnicode_FromEncodedObject(bytes, u->encoding, u->errors);
    kinx_foreign_end(u);
    Py_DECREF(bytes);
    return str;
}

int kinx_load_string(kinx_loader *u) {
    const uint8_t *line;
    size_t len;
    if (kinx_read_line(u, &line, &len) < 0) return -1;
    len--;
    if (len < 2 || line[0] != line[len - 1] || (line[0] != '\'' && line[0] != '"')) {
        PyErr_SetString(kinx_unpickling_error(u->us), "the STRING opcode argument must be quoted");
        return -1;
    }
    const char *inner = (const char *)line + 1;
    return kinx_push(u, decode(u, PyBytes_DecodeEscape(inner, (Py_ssize_t)len - 2, NULL, 0, NULL)));
}

int kinx_load_binstring(kinx_loader *u, size_t len) {
    if (kinx_fill(u, len) < 0) return -1;
    const char *from = (const char *)u->at;
    u->at += len;
    if (strcmp(u->encoding, "bytes") == 0) {
        return kinx_push(u, PyBytes_FromStringAndSize(from, (Py_ssize_t)len));
    }
    kinx_foreign_begin(u);
    PyObject *str = PyUnicode_Decode(from, (Py_ssize_t)len, u->encoding, u->errors);
    kinx_foreign_end(u);
    return kinx_push(u, str);
}

int kinx_load_unicode(kinx_loader *u) {
    const uint8_t *line;
    size_t len;
    if (kinx_read_line(u, &line, &len) < 0) return -1;
    return kinx_push(
        u, PyUnicode_DecodeRawUnicodeEscape((const char *)line, (Py_ssize_t)len - 1, NULL));
}

/* -- Persistent ids ------------------------------------------------------------------------ */

static int raise_no_persistent_load(kinx_loader *u) {
    PyErr_SetString(kinx_unpickling_error(u->us), KINX_NO_PERSISTENT_LOAD);
    return -1;
}

/* Until 3.12, without a function the id was not even read. */
static bool refuses_at_once(const kinx_loader *u) {
    return PY_VERSION_HEX < 0x030D0000 && !u->persistent_load;
}

/* Push what the id stands for.  Steals id. */
static int load_persistent(kinx_loader *u, PyObject *id) {
    if (!u->persistent_load) {
        Py_DECREF(id);
        return raise_no_persistent_load(u);
    }
    kinx_foreign_begin(u);
    PyObject *obj = PyObject_CallOneArg(u->persistent_load, id);
    kinx_foreign_end(u);
    Py_DECREF(id);
    return kinx_push(u, obj);
}

int kinx_load_persid(kinx_loader *u) {
    if (refuses_at_once(u)) return raise_no_persistent_load(u);
    const uint8_t *line;
    size_t len;
    if (kinx_read_line(u, &line, &len) < 0) return -1;
    PyObject *id = PyUnicode_DecodeASCII((const char *)line, (Py_ssize_t)len - 1, "strict");
    if (id) return load_persistent(u, id);
    if (PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_SetString(kinx_unpickling_error(u->us),
                        "persistent IDs in protocol 0 must be ASCII strings");
    }
    return -1;
}

int kinx_load_binpersid(kinx_loader *u) {
    if (refuses_at_once(u)) return raise_no_persistent_load(u);
    if (kinx_reach(u) < 1) return kinx_underflow(u);
    return load_persistent(u, *--u->top);
}

/* -- The memo by decimal numbers --------------------------------------------------------------- */

/* A line that is a decimal number.  -1 with an exception, or for a number below zero. */
static Py_ssize_t read_index(kinx_loader *u) {
    size_t len;
    char *line = copy_line(u, &len);
    if (!line) return -1;
    PyObject *number = PyLong_FromString(line, NULL, 10);
    PyMem_Free(line);
    if (!number) return -1;
    Py_ssize_t index = PyLong_AsSsize_t(number);
    Py_DECREF(number);
    return index;
}

int kinx_load_get(kinx_loader *u) {
    Py_ssize_t index = read_index(u);
    if (index < 0 && PyErr_Occurred()) return -1;
    PyObject *obj = index < 0 ? NULL : kinx_memo_get(&u->memo, (size_t)index);
    if (obj) return kinx_push(u, Py_NewRef(obj));
    if (!PyErr_Occurred()) {
        PyErr_Format(kinx_unpickling_error(u->us), "Memo value not found at index %zd", index);
    }
    return -1;
}

int kinx_load_put(kinx_loader *u) {
    Py_ssize_t index = read_index(u);
    if (index < 0 && PyErr_Occurred()) return -1;
    if (kinx_reach(u) < 1) return kinx_underflow(u);
    if (index < 0) {
        PyErr_SetString(PyExc_ValueError, "negative PUT argument");
        return -1;
    }
    return kinx_memo_put(&u->memo, (size_t)index, u->top[-1]);
}
