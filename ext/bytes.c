/* Bytes and bytearrays must have their bytes in themselves, so what arrives is copied
 * once more.  That copy is made without the GIL if it is long, into large pages where the
 * system has them: malloc gives a long piece back to the system when it is freed, so each
 * new one begins with fresh pages, and 16384 faults for 64 MB take longer than the copy. */
#include "bytes.h"

static void fill(char *to, const void *data, size_t len) {
    Py_BEGIN_ALLOW_THREADS
    kin_pages_expect(to, len);
    memcpy(to, data, len);
    Py_END_ALLOW_THREADS
}

PyObject *kinx_bytes(const void *data, size_t len) {
    if (len < KINX_LARGE) return PyBytes_FromStringAndSize(data, (Py_ssize_t)len);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)len);
    if (bytes) fill(PyBytes_AS_STRING(bytes), data, len);
    return bytes;
}

PyObject *kinx_bytearray(const void *data, size_t len) {
    if (len < KINX_LARGE) return PyByteArray_FromStringAndSize(data, (Py_ssize_t)len);
    PyObject *bytes = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)len);
    if (bytes) fill(PyByteArray_AS_STRING(bytes), data, len);
    return bytes;
}
