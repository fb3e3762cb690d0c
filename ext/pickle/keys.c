/* Strings out of pickles, and a cache of short ones.
 *
 * The keys of dicts and the names of attributes come in every pickle of a kind again.
 * Such a string is kept in a table of KINX_KEYS places, where the next one with the same
 * number takes its place: so a str is neither made nor hashed again, and all records of
 * a kind share their keys.  The table holds at most KINX_KEYS short strings, never more. */
#include "load.h"

static bool is_ascii(const uint8_t *text, size_t len) {
    uint64_t all = 0, word;
    for (; len >= 8; text += 8, len -= 8) {
        memcpy(&word, text, 8);
        all |= word;
    }
    for (; len > 0; len--) all |= *text++;
    return (all & 0x8080808080808080u) == 0;
}

PyObject *kinx_text(const uint8_t *text, size_t len) {
    /* The empty string and those of one character are the interpreter's. */
    if (len < 2 || !is_ascii(text, len)) {
        return PyUnicode_DecodeUTF8((const char *)text, (Py_ssize_t)len, "surrogatepass");
    }
    PyObject *str = PyUnicode_New((Py_ssize_t)len, 127);
    if (str) memcpy(PyUnicode_1BYTE_DATA(str), text, len);
    return str;
}

static size_t place_of(const uint8_t *text, size_t len) {
    uint64_t head = 0, tail = 0;
    if (len >= 8) {
        memcpy(&head, text, 8);
        memcpy(&tail, text + len - 8, 8);
    } else {
        for (size_t i = 0; i < len; i++) head = head << 8 | text[i];
    }
    uint64_t mixed = (head ^ tail * 0x9e3779b97f4a7c15u ^ len) * 0xff51afd7ed558ccdu;
    return (size_t)(mixed >> 40) & (KINX_KEYS - 1);
}

PyObject *kinx_key(kinx_unpickler_state *us, const uint8_t *text, size_t len) {
    PyObject **place = &us->keys[place_of(text, len)];
    PyObject *known = *place;
    if (known && (size_t)PyUnicode_GET_LENGTH(known) == len &&
        memcmp(PyUnicode_1BYTE_DATA(known), text, len) == 0) {
        return Py_NewRef(known);
    }
    if (!is_ascii(text, len)) return NULL;
    PyObject *key = kinx_text(text, len);
    if (!key) return NULL;
    Py_XSETREF(*place, Py_NewRef(key));
    return key;
}

void kinx_key_prefer(kinx_unpickler_state *us, PyObject *key) {
    size_t len = (size_t)PyUnicode_GET_LENGTH(key);
    if (len > KINX_KEY_MAX || !PyUnicode_IS_COMPACT_ASCII(key)) return;
    PyObject **place = &us->keys[place_of(PyUnicode_1BYTE_DATA(key), len)];
    Py_XSETREF(*place, Py_NewRef(key));
}
