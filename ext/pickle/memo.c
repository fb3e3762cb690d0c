#include "memo.h"

#define FIRST_BITS 6

static int grow_objects(kinx_memo *memo) {
    size_t cap = memo->cap ? 2 * memo->cap : 1u << (FIRST_BITS - 1);
    PyObject **objects = PyMem_Realloc(memo->objects, cap * sizeof *objects);
    if (!objects) {
        PyErr_NoMemory();
        return -1;
    }
    memo->objects = objects;
    memo->cap = cap;
    return 0;
}

static void enter(kinx_memo *memo, PyObject *obj, uint32_t index) {
    size_t mask = ((size_t)1 << memo->bits) - 1;
    size_t i = kinx_memo_slot(memo, obj);
    while (memo->slots[i]) i = (i + 1) & mask;
    memo->slots[i] = index + 1;
}

static int grow_slots(kinx_memo *memo) {
    /* Four times as many, as long as that is little: each growth enters all of them anew. */
    unsigned bits = memo->slots ? memo->bits + (memo->bits < 18 ? 2 : 1) : FIRST_BITS;
    uint32_t *slots = PyMem_Calloc((size_t)1 << bits, sizeof *slots);
    if (!slots) {
        PyErr_NoMemory();
        return -1;
    }
    PyMem_Free(memo->slots);
    memo->slots = slots;
    memo->bits = bits;
    for (size_t i = 0; i < memo->count; i++) enter(memo, memo->objects[i], (uint32_t)i);
    return 0;
}

int kinx_memo_add(kinx_memo *memo, PyObject *obj) {
    if (memo->count == memo->cap && grow_objects(memo) < 0) return -1;
    if (!memo->slots || 2 * (memo->count + 1) > (size_t)1 << memo->bits) {
        if (memo->count >= UINT32_MAX - 1) {
            PyErr_SetString(PyExc_OverflowError, "more objects than a pickle can refer to");
            return -1;
        }
        if (grow_slots(memo) < 0) return -1;
    }
    enter(memo, obj, (uint32_t)memo->count);
    memo->objects[memo->count++] = Py_NewRef(obj);
    return 0;
}

static void empty_slots(kinx_memo *memo) {
    if (memo->count) memset(memo->slots, 0, sizeof *memo->slots << memo->bits);
}

void kinx_memo_clear(kinx_memo *memo) {
    kinx_memo old = *memo;
    if (old.count == 0) return;
    memset(memo, 0, sizeof *memo);
    for (size_t i = 0; i < old.count; i++) Py_DECREF(old.objects[i]);
    if (memo->slots || memo->objects) { /* dropping them ran code, which used the memo */
        PyMem_Free(old.objects);
        PyMem_Free(old.slots);
        return;
    }
    empty_slots(&old);
    old.count = 0;
    *memo = old;
}

void kinx_memo_fini(kinx_memo *memo) {
    kinx_memo old = *memo;
    memset(memo, 0, sizeof *memo);
    for (size_t i = 0; i < old.count; i++) Py_DECREF(old.objects[i]);
    PyMem_Free(old.objects);
    PyMem_Free(old.slots);
}
