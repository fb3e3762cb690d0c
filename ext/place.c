/* Where a program takes a lock: "app.py:12 in work", for the news of its death.
 *
 * libkin keeps the text; what is kept here is which text stands for which instruction of which
 * code, so that to note it again costs next to nothing.  The cache holds its code objects, lest
 * another one come to lie at the same address. */
#include "place.h"

#include <frameobject.h>

#define SLOTS 256

typedef struct known {
    PyObject *code; /* strong reference */
    const void *at; /* in it */
    uint32_t number;
} known;

typedef struct kinx_places {
    known slot[SLOTS];
} kinx_places;

/* -- Which instruction runs ---------------------------------------------------------------- */

/* Each of these versions keeps its frames in a way of its own, which it doesn't publish.  The public
 * way makes an object of the frame, which takes longer than to take a lock.  What is read here is only
 * compared with what was found by the public way before, and a code object that is known is alive. */
#if PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030E0000 && !defined(Py_GIL_DISABLED)

typedef struct inner_frame {
#if PY_VERSION_HEX < 0x030C0000
    void *function, *globals, *builtins, *locals;
    PyObject *code;
    void *frame_object, *previous;
#else
    PyObject *code;
    void *previous, *function, *globals, *builtins, *locals, *frame_object;
#endif
    const void *at;
} inner_frame;

static inline bool where_now(PyObject **code, const void **at) {
#if PY_VERSION_HEX < 0x030D0000
    const inner_frame *frame = (const inner_frame *)PyThreadState_Get()->cframe->current_frame;
#else
    const inner_frame *frame = (const inner_frame *)PyThreadState_Get()->current_frame;
#endif
    if (!frame) return false;
    *code = frame->code;
    *at = frame->at;
    return true;
}
#else
static inline bool where_now(PyObject **code, const void **at) {
    PyFrameObject *frame = PyEval_GetFrame();
    if (!frame) return false;
#if PY_VERSION_HEX < 0x030B0000
    *code = (PyObject *)frame->f_code;
    *at = (const void *)(intptr_t)frame->f_lasti;
#else
    *code = (PyObject *)PyFrame_GetCode(frame);
    *at = (const void *)(intptr_t)PyFrame_GetLasti(frame);
    Py_DECREF(*code); /* the frame holds it */
#endif
    return true;
}
#endif

/* -- Its text ------------------------------------------------------------------------------- */

static uint32_t number_of(kin_family *family, PyFrameObject *frame) {
    PyCodeObject *code = PyFrame_GetCode(frame);
    PyObject *text = PyUnicode_FromFormat("%U:%d in %U", code->co_filename,
                                          PyFrame_GetLineNumber(frame), code->co_name);
    const char *utf8 = text ? PyUnicode_AsUTF8(text) : NULL;
    uint32_t number = utf8 ? kin_lock_place(family, utf8) : 0;
    Py_XDECREF(text);
    Py_DECREF(code);
    return number;
}

static uint32_t learn(kin_family *family, known *slot, PyObject *code, const void *at) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyFrameObject *frame = PyEval_GetFrame();
    uint32_t number = frame ? number_of(family, frame) : 0;
    PyErr_Restore(type, value, traceback); /* a name that is no text is no error of the caller's */
    PyObject *before = slot->code;
    *slot = (known){.code = Py_NewRef(code), .at = at, .number = number};
    Py_XDECREF(before);
    return number;
}

uint32_t kinx_place(kinx_state *st, kin_family *family) {
    PyObject *code;
    const void *at;
    if (!where_now(&code, &at)) return 0;
    if (!st->places && !(st->places = PyMem_Calloc(1, sizeof *st->places))) return 0;
    known *slot = &st->places->slot[((uintptr_t)code / 32 + (uintptr_t)at / 2) % SLOTS];
    if (slot->code == code && slot->at == at) return slot->number;
    return learn(family, slot, code, at);
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
