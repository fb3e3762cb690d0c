/* Whose code runs when an object is pickled: the interpreter's and its library's, or
 * somebody else's?  See pickler.h for what hangs on it, and docs/pickle.md. */
#ifndef KINX_LIBRARY_H
#define KINX_LIBRARY_H

#include "ask.h"
#include "pickler.h"

/* Is the class the library's own, or kinfolk's? */
bool kinx_is_library_type(kinx_pickler *p, PyTypeObject *type);
/* Is it Python code of that module of the library's? */
bool kinx_is_function_of(kinx_pickler *p, PyObject *function, const char *module_name);
/* Is whatever `type` has to say about pickling in the library's hands, all the way down? */
bool kinx_hooks_are_library(kinx_pickler *p, PyTypeObject *type);
/* Has an instance attributes of its own in place of its class's, which the library might call? */
bool kinx_shadows_its_class(PyObject *obj);

/* Does the class leave it to enum.Enum.__reduce_ex__? */
bool kinx_is_reduced_by_enum(kinx_pickler *p, PyTypeObject *type);
/* What enum.Enum.__reduce_ex__ says of obj, without running it: 1 and a new reference; 0 if its
 * class does not leave it to that; -1. */
int kinx_reduce_enum(kinx_pickler *p, PyObject *obj, PyObject **reduced);

/* The folders that the library's files are in, and its modules' names. */
int kinx_library_init(struct kinx_pickler_state *ps);

#endif
