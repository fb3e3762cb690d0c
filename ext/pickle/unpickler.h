/* Loading pickles: the Unpickler, and the way in for messages. */
#ifndef KINX_UNPICKLER_H
#define KINX_UNPICKLER_H

#include "../state.h"

/* Load the pickle in data[0:len], which stay as they are meanwhile.  buffers: NULL, or an
 * iterable of what was left out of band.  New reference; raises UnpicklingError and what
 * the code that the pickle names raises. */
PyObject *kinx_loads(kinx_state *st, const uint8_t *data, size_t len, PyObject *buffers);

int kinx_unpickler_exec(PyObject *module);
int kinx_unpickler_visit(kinx_state *st, visitproc visit, void *arg);
void kinx_unpickler_clear(kinx_state *st);

#endif
