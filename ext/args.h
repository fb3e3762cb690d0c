/* The arguments of calls; those of everything that may wait: (block=True, timeout=None). */
#ifndef KINX_ARGS_H
#define KINX_ARGS_H

#include "state.h"

/* The parameters of a function, from `first` on: those before `required` must be given,
 * those before `positional` may be given by place. */
typedef struct kinx_parameters {
    const char *const *names;
    int first, required, positional, count;
} kinx_parameters;

/* Fill slots[first] to slots[count - 1], which are NULL, from a vectorcall; what is not given
 * stays NULL.  Borrowed.  Raises TypeError. */
int kinx_fill_slots(const char *func, const kinx_parameters *params, PyObject **slots,
                    PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);

/* Whether so many arguments, all by place, are enough and not too many.  Raises TypeError. */
bool kinx_positional(const char *func, Py_ssize_t nargs, int least, int most);

/* The deadline that (block, timeout) means; each may be NULL, for what it is by default.
 * Raises TypeError, ValueError (NaN). */
int kinx_deadline_of(PyObject *block, PyObject *timeout, kin_deadline *out);

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
