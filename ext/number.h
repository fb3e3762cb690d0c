/* The value of a simple ctypes object, read and written in place. */
#ifndef KINX_NUMBER_H
#define KINX_NUMBER_H

#include "state.h"

typedef struct kinx_number {
    char *data; /* where it lies; NULL: it is for ctypes to read and to write */
    char code;  /* what is there, as the array module calls it; '?' is a bool */
} kinx_number;

/* Where the value of `obj` is, for as long as `obj` lives.  Raises. */
int kinx_number_in(kinx_state *st, PyObject *obj, kinx_number *out);

/* Of a number with data: what `obj.value` would be.  New reference. */
PyObject *kinx_number_load(const kinx_number *number);
/* Whether it was stored, as by `obj.value = value`: if not, it is for ctypes to convert it, or to
 * refuse it.  Runs no code of Python's.  Never raises. */
bool kinx_number_store(const kinx_number *number, PyObject *value);

#endif
