/* Payloads: UTF-8, bytes and buffers.
 *
 * Small ones are copied into the pickle.  Of a large one the writer may take a reference
 * instead (kinx_pickler.payload_of says whose it is), so what can change meanwhile has no
 * owner: it is copied whatever its size, but for a bytearray that nobody can change (lend). */
#include "pickler.h"

int kinx_put_payload(kinx_pickler *p, PyObject *owner, const uint8_t *head, size_t head_len,
                     const void *data, size_t len) {
    p->payload_of = owner;
    kin_err err = kin_put_payload(&p->out, head, head_len, data, len);
    return err < 0 ? kinx_raise_writer(err) : 0;
}

/* -- Strings that are not ASCII --------------------------------------------------------------- */

static size_t utf8_len(PyObject *str) {
    Py_ssize_t count = PyUnicode_GET_LENGTH(str);
    size_t len = (size_t)count;
    const void *data = PyUnicode_DATA(str);
    switch (PyUnicode_KIND(str)) {
    case PyUnicode_1BYTE_KIND:
        for (Py_ssize_t i = 0; i < count; i++) len += ((const Py_UCS1 *)data)[i] >> 7;
        return len;
    case PyUnicode_2BYTE_KIND:
        for (Py_ssize_t i = 0; i < count; i++) {
            Py_UCS2 c = ((const Py_UCS2 *)data)[i];
            len += (size_t)(c >= 0x80) + (size_t)(c >= 0x800);
        }
        return len;
    default:
        for (Py_ssize_t i = 0; i < count; i++) {
            Py_UCS4 c = ((const Py_UCS4 *)data)[i];
            len += (size_t)(c >= 0x80) + (size_t)(c >= 0x800) + (size_t)(c >= 0x10000);
        }
        return len;
    }
}

/* One character of more than 7 bits; lone surrogates as if they were characters, as
 * unpicklers decode them. */
static inline uint8_t *store_char(uint8_t *at, Py_UCS4 c) {
    if (c < 0x800) {
        *at++ = (uint8_t)(0xc0 | c >> 6);
    } else {
        if (c < 0x10000) {
            *at++ = (uint8_t)(0xe0 | c >> 12);
        } else {
            *at++ = (uint8_t)(0xf0 | c >> 18);
            *at++ = (uint8_t)(0x80 | (c >> 12 & 0x3f));
        }
        *at++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    }
    *at++ = (uint8_t)(0x80 | (c & 0x3f));
    return at;
}

#define STORE_CHARS(at, type, data, count)     \
    for (Py_ssize_t i = 0; i < (count); i++) { \
        Py_UCS4 c = ((const type *)(data))[i]; \
        if (c < 0x80) *(at)++ = (uint8_t)c;    \
        else (at) = store_char(at, c);         \
    }

static uint8_t *store_utf8(uint8_t *at, PyObject *str) {
    Py_ssize_t count = PyUnicode_GET_LENGTH(str);
    const void *data = PyUnicode_DATA(str);
    switch (PyUnicode_KIND(str)) {
    case PyUnicode_1BYTE_KIND: STORE_CHARS(at, Py_UCS1, data, count) break;
    case PyUnicode_2BYTE_KIND: STORE_CHARS(at, Py_UCS2, data, count) break;
    default: STORE_CHARS(at, Py_UCS4, data, count) break;
    }
    return at;
}

/* The UTF-8 form that the string has with it, if somebody has asked for it; else NULL. */
static const char *kept_utf8(PyObject *str, size_t *len) {
    if (!PyUnicode_IS_COMPACT(str)) return NULL;
    const PyCompactUnicodeObject *compact = (PyCompactUnicodeObject *)str;
    *len = (size_t)compact->utf8_length;
    return compact->utf8;
}

int kinx_raise_too_large(const char *what) {
    PyErr_Format(PyExc_OverflowError,
                 "serializing a %s larger than 4 GiB requires pickle protocol 4 or higher", what);
    return -1;
}

int kinx_put_wide_str(kinx_pickler *p, PyObject *obj) {
    size_t len;
    const char *kept = kept_utf8(obj, &len);
    if (!kept) len = utf8_len(obj);
    uint8_t head[9];
    size_t head_len = (size_t)(kin_store_str_head(head, len, p->out.protocol) - head);
    if (len > UINT32_MAX && p->protocol < 4) return kinx_raise_too_large("string");
    if (kept) return kinx_put_payload(p, obj, head, head_len, kept, len);
    if (len < KIN_LARGE_PAYLOAD) {
        if (kinx_reserve(p, head_len + len) < 0) return -1;
        memcpy(p->out.at, head, head_len);
        p->out.at = store_utf8(p->out.at + head_len, obj);
        return 0;
    }
    PyObject *bytes = PyUnicode_AsEncodedString(obj, "utf-8", "surrogatepass");
    if (!bytes) return -1;
    int err = kinx_put_payload(p, bytes, head, head_len, PyBytes_AS_STRING(bytes), len);
    Py_DECREF(bytes);
    return err;
}

/* -- Bytes and buffers ---------------------------------------------------------------------- */

/* `data` belongs to `owner`. */
static int put_bytes(kinx_pickler *p, PyObject *owner, const void *data, size_t len) {
    if (len > UINT32_MAX && p->protocol < 4) return kinx_raise_too_large("bytes object");
    uint8_t head[9];
    size_t head_len = (size_t)(kin_store_bytes_head(head, len) - head);
    return kinx_put_payload(p, owner, head, head_len, data, len);
}

int kinx_save_bytes(kinx_pickler *p, PyObject *obj, bool sole) {
    if (p->protocol < 3) return kinx_save_old_bytes(p, obj);
    if (put_bytes(p, obj, PyBytes_AS_STRING(obj), (size_t)PyBytes_GET_SIZE(obj)) < 0) return -1;
    return kinx_remember(p, obj, sole);
}

static int put_bytearray(kinx_pickler *p, PyObject *owner, const void *data, size_t len) {
    uint8_t head[9] = {KIN_OP_BYTEARRAY8};
    kin_store8(head + 1, len);
    return kinx_put_payload(p, owner, head, sizeof head, data, len);
}

/* Code that runs before the message lies in its blob could change a bytearray: as a rule it is
 * copied into the pickle.  While the pickling is bare there is no such code, so a view, which
 * keeps the bytes where they are, is enough; if there comes to be some, the pickling begins
 * again.  *view: new reference, or NULL. */
static int lend(kinx_pickler *p, PyObject *bytearray, PyObject **view) {
    *view = NULL;
    if (!p->bare || !p->keep_buffers) return 0;
    if (PyByteArray_GET_SIZE(bytearray) < KIN_LARGE_PAYLOAD) return 0;
    *view = PyMemoryView_FromObject(bytearray);
    p->unmemoised++;
    return *view ? 0 : -1;
}

int kinx_save_bytearray(kinx_pickler *p, PyObject *obj, bool sole) {
    if (p->protocol < 5) return kinx_save_old_bytes(p, obj);
    PyObject *view;
    if (lend(p, obj, &view) < 0) return -1;
    size_t len = (size_t)PyByteArray_GET_SIZE(obj);
    int err = put_bytearray(p, view, PyByteArray_AS_STRING(obj), len);
    Py_XDECREF(view);
    return err < 0 ? -1 : kinx_remember(p, obj, sole);
}

/* For a message: large ones go beside it. */
static int keep_buffer(kinx_pickler *p, PyObject *obj, const Py_buffer *view) {
    if (view->len < KINX_OUT_OF_BAND) return 1;
    if (!p->buffers) p->buffers = PyList_New(0);
    return p->buffers && PyList_Append(p->buffers, obj) == 0 ? 0 : -1;
}

/* 1: it goes in the pickle; 0: beside it. */
static int is_in_band(kinx_pickler *p, PyObject *obj, const Py_buffer *view) {
    if (p->keep_buffers) return keep_buffer(p, obj, view);
    if (!p->buffer_callback) return 1;
    if (kinx_not_bare(p) < 0) return -1;
    PyObject *answer = PyObject_CallOneArg(p->buffer_callback, obj);
    if (!answer) return -1;
    int in_band = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    return in_band;
}

int kinx_save_picklebuffer(kinx_pickler *p, PyObject *obj, bool sole) {
    if (p->protocol < 5) {
        return kinx_raise_pickling(p, "PickleBuffer can only be pickled with protocol >= 5");
    }
    const Py_buffer *view = PyPickleBuffer_GetBuffer(obj);
    if (!view) return -1;
    if (view->suboffsets != NULL || !PyBuffer_IsContiguous(view, 'A')) {
        return kinx_raise_pickling(
            p, "PickleBuffer can not be pickled when pointing to a non-contiguous buffer");
    }
    int in_band = is_in_band(p, obj, view);
    if (in_band < 0) return -1;
    if (in_band == 0) {
        if (kinx_put_op(p, KIN_OP_NEXT_BUFFER) < 0) return -1;
        return view->readonly ? kinx_put_op(p, KIN_OP_READONLY_BUFFER) : 0;
    }
    /* The callback may have released it. */
    view = PyPickleBuffer_GetBuffer(obj);
    if (!view) return -1;
    int err = view->readonly ? put_bytes(p, NULL, view->buf, (size_t)view->len)
                             : put_bytearray(p, NULL, view->buf, (size_t)view->len);
    return err < 0 ? -1 : kinx_remember(p, obj, sole);
}
