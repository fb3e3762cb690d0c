/* Where a program takes a lock: "app.py:12 in work", for the news of its death.
 *
 * libkin keeps the text; what is kept here is which text stands for which instruction of which
 * code, so that to note it again costs next to nothing.  The cache holds its code objects, lest
 * another one come to lie at the same address. */
#include "place.h"

#include <frameobject.h>

#define SLOTS 256

typedef struct known {
    PyCodeObject *code; /* strong reference */
    int at;
    uint32_t number;
} known;

typedef struct kinx_places {
    known slot[SLOTS];
} kinx_places;

/* Borrowed. */
static inline PyCodeObject *code_of(PyFrameObject *frame, int *at) {
#if PY_VERSION_HEX < 0x030B0000
    *at = frame->f_lasti;
    return frame->f_code;
#else
    PyCodeObject *code = PyFrame_GetCode(frame);
    *at = PyFrame_GetLasti(frame);
    Py_DECREF(code); /* the frame holds it */
    return code;
#endif
}

static uint32_t number_of(kin_family *family, PyFrameObject *frame, PyCodeObject *code) {
    PyObject *text = PyUnicode_FromFormat("%U:%d in %U", code->co_filename,
                                          PyFrame_GetLineNumber(frame), code->co_name);
    const char *utf8 = text ? PyUnicode_AsUTF8(text) : NULL;
    uint32_t number = utf8 ? kin_lock_place(family, utf8) : 0;
    Py_XDECREF(text);
    return number;
}

static uint32_t learn(kin_family *family, PyFrameObject *frame, known *slot, PyCodeObject *code,
                      int at) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    uint32_t number = number_of(family, frame, code);
    PyErr_Restore(type, value, traceback); /* a name that is no text is no error of the caller's */
    PyCodeObject *before = slot->code;
    Py_INCREF(code);
    *slot = (known){.code = code, .at = at, .number = number};
    Py_XDECREF(before);
    return number;
}

uint32_t kinx_place(kinx_state *st, kin_family *family) {
    PyFrameObject *frame = PyEval_GetFrame();
    if (!frame) return 0;
    if (!st->places && !(st->places = PyMem_Calloc(1, sizeof *st->places))) return 0;
    int at;
    PyCodeObject *code = code_of(frame, &at);
    known *slot = &st->places->slot[((uintptr_t)code / 32 + (uintptr_t)at) % SLOTS];
    if (slot->code == code && slot->at == at) return slot->number;
    return learn(family, frame, slot, code, at);
}

int kinx_places_visit(kinx_places *places, visitproc visit, void *arg) {
    for (int i = 0; places && i < SLOTS; i++) Py_VISIT(places->slot[i].code);
    return 0;
}

void kinx_places_clear(kinx_state *st) {
    kinx_places *places = st->places;
    if (!places) return;
    st->places = NULL;
    for (int i = 0; i < SLOTS; i++) Py_XDECREF(places->slot[i].code);
    PyMem_Free(places);
}
