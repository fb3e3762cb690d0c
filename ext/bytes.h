/* Bytes and bytearrays made of what has arrived, and large copies. */
#ifndef KINX_BYTES_H
#define KINX_BYTES_H

#include "state.h"

/* From this length on it is worth the while of letting other threads run meanwhile, and of
 * asking for large pages. */
#define KINX_LARGE ((size_t)4 << 20)

/* New references.  Others may run while a large one is filled: `data` must stay. */
PyObject *kinx_bytes(const void *data, size_t len);
PyObject *kinx_bytearray(const void *data, size_t len);

#endif
