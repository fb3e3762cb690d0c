/* Functions, classes and modules that the receiver cannot import: by value.
 *
 * docs/by-value.md says what travels and why.  Sender: the reducers here.  Receiver:
 * the makers and fillers, functions of kinfolk._kin that pickles name. */
#ifndef KINX_BY_VALUE_H
#define KINX_BY_VALUE_H

#include "pickler.h"

/* The reduction of obj by value: a new reference to a tuple as __reduce__ may return it
 * (up to six items); to Py_NotImplemented where the standard reduction is right.  Raises.
 *
 * Asked, if p->by_value, for everything that is not an exact number, string or container
 * and has no reducer in the dispatch tables (functions and classes: always). */
PyObject *kinx_reduce_by_value(kinx_pickler *p, PyObject *obj);

/* Are instances of exactly this type reduced by value, whatever their class says? */
bool kinx_has_reducer(kinx_state *st, PyTypeObject *type);

/* 1 if cls will go by value (or by name with its value as the spare), 0 if its name is
 * enough; -1 and an exception.  What save_instance.c asks about the class of the first
 * instance that it meets: such a class is written before the instance. */
int kinx_class_goes_by_value(kinx_pickler *p, PyTypeObject *cls);

/* Is obj one of our own makers and fillers?  They are written by name without a look-up:
 * module "kinfolk._kin", name *name (borrowed). */
bool kinx_is_own_maker(kinx_state *st, PyObject *obj, PyObject **name);

int kinx_by_value_exec(PyObject *module);
int kinx_by_value_visit(kinx_state *st, visitproc visit, void *arg);
void kinx_by_value_clear(kinx_state *st);

#endif
