/* One pickling from beginning to end. */
#ifndef KINX_DUMP_H
#define KINX_DUMP_H

#include "output.h"

/* Ready with the defaults: the highest protocol, by value.  Never fails. */
void kinx_pickler_init(kinx_pickler *p, kinx_state *st);
void kinx_pickler_fini(kinx_pickler *p);

/* Write the whole pickle of obj to p->output.  bare: nobody else can see the memo, and
 * nothing leaves before the end.  Raises. */
int kinx_pickle(kinx_pickler *p, PyObject *obj, bool bare);

/* From what the user gives: *protocol from 0 to 5.  Arguments may be NULL.  Raises. */
int kinx_parse_protocol(PyObject *given, PyObject *buffer_callback, int *protocol);

/* file.write; raises TypeError if it has none.  New reference. */
PyObject *kinx_write_method(struct kinx_pickler_state *ps, PyObject *file);

/* Borrowed: the reducers registered for sending (kinfolk.reduction).  Raises. */
PyObject *kinx_sending_reducers(kinx_state *st);

int kinx_pickler_types_exec(PyObject *module);

#endif
