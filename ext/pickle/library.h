/* Whose code runs when an object is pickled: the interpreter's and its library's, or
 * somebody else's?  See pickler.h for what hangs on it, and docs/pickle.md. */
#ifndef KINX_LIBRARY_H
#define KINX_LIBRARY_H

#include "pickler.h"

/* What `type` itself has under that name, and what it has or inherits from any class but
 * object.  Borrowed or NULL; no exception, no code is run. */
PyObject *kinx_own_attr(PyTypeObject *type, PyObject *name);
PyObject *kinx_found_attr(PyTypeObject *type, PyObject *name);

/* Does asking an instance, or the class, for an attribute run nobody's code but that of
 * descriptors? */
bool kinx_asks_in_the_standard_way(PyTypeObject *type);
/* Is the class the library's own, or kinfolk's? */
bool kinx_is_library_type(kinx_pickler *p, PyTypeObject *type);
/* Is it Python code of that module of the library's?  One of those that were looked at. */
bool kinx_is_function_of(kinx_pickler *p, PyObject *function, const char *module_name);
/* Is whatever `type` has to say about pickling in the library's hands, all the way down? */
bool kinx_hooks_are_library(kinx_pickler *p, PyTypeObject *type);
/* Has an instance attributes of its own in place of its class's, which the library might call? */
bool kinx_shadows_its_class(PyObject *obj);

/* The folders that the library's files are in, and its modules' names. */
int kinx_library_init(struct kinx_pickler_state *ps);

#endif
