/* The pickler's memo: which objects have been written, in the order of writing.
 *
 * A table by address: objects are remembered as themselves, whatever they say of
 * their equality.  It holds what it remembers, so no address is used twice. */
#ifndef KINX_MEMO_H
#define KINX_MEMO_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct kinx_memo {
    PyObject **objects; /* strong references; the index of each is its place */
    uint32_t *slots;    /* open addressing: 0 free, else index + 1; NULL as long as it is empty */
    size_t count, cap;  /* of objects */
    unsigned bits;      /* 1 << bits slots; at most half of them are taken */
} kinx_memo;

/* Multiplicative hashing (Knuth, TAOCP 6.4): the constant is 2**64 by the golden ratio. */
static inline size_t kinx_memo_slot(const kinx_memo *memo, const PyObject *obj) {
    uint64_t address = (uint64_t)(uintptr_t)obj >> 4;
    return (size_t)((address * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - memo->bits));
}

/* The index of obj, or -1. */
static inline Py_ssize_t kinx_memo_find(const kinx_memo *memo, const PyObject *obj) {
    if (memo->count == 0) return -1;
    size_t mask = ((size_t)1 << memo->bits) - 1;
    for (size_t i = kinx_memo_slot(memo, obj); memo->slots[i]; i = (i + 1) & mask) {
        if (memo->objects[memo->slots[i] - 1] == obj) return (Py_ssize_t)memo->slots[i] - 1;
    }
    return -1;
}

/* All zeros is an empty memo. */
void kinx_memo_fini(kinx_memo *memo);
/* Forget everything, keep the room.  Dropping an object may run code, which then finds
 * the memo empty. */
void kinx_memo_clear(kinx_memo *memo);
/* The next index is obj's from now on; it must not be in the memo.  Raises MemoryError. */
int kinx_memo_add(kinx_memo *memo, PyObject *obj);

#endif
