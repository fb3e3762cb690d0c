/* The arguments of everything that may wait: (block=True, timeout=None). */
#ifndef KINX_ARGS_H
#define KINX_ARGS_H

#include "state.h"

/* Parse a call of `func` with the parameters (block=True, timeout=None).
 * *deadline: KIN_NOW if it must not wait, KIN_FOREVER for timeout=None; as in
 * multiprocessing a timeout in the past is none, and one beside block=False
 * does not count.  Raises TypeError, ValueError (NaN). */
int kinx_parse_wait(const char *func, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                    kin_deadline *deadline);

/* The same for (obj, block=True, timeout=None).  *obj: borrowed. */
int kinx_parse_put(const char *func, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                   PyObject **obj, kin_deadline *deadline);

/* The same for (timeout=None). */
int kinx_parse_timeout(const char *func, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                       kin_deadline *deadline);

#endif
