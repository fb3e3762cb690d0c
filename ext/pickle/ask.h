/* What an object has: its attributes, asked for, or looked up without asking anybody.
 *
 * Asking may run the user's code: a __getattr__, a descriptor, a metaclass's __getattribute__.
 * What is looked up in the dicts of classes runs none, and may not be what asking would give. */
#ifndef KINX_ASK_H
#define KINX_ASK_H

#include "../state.h"

/* The attribute: 1 and a new reference; 0, NULL and no exception if there is none; -1. */
static inline int kinx_lookup_attr(PyObject *thing, PyObject *name, PyObject **value) {
#if PY_VERSION_HEX >= 0x030D0000
    return PyObject_GetOptionalAttr(thing, name, value);
#else
    /* Private, but what the standard library's own extensions use: an AttributeError made
     * only to be dropped costs ten times as much. */
    return _PyObject_LookupAttr(thing, name, value);
#endif
}

int kinx_lookup_attr_string(PyObject *thing, const char *name, PyObject **value);

/* Is asking thing for an attribute nobody's code but the interpreter's and that of
 * descriptors? */
static inline bool kinx_answers_by_itself(PyObject *thing) {
    getattrofunc ask = Py_TYPE(thing)->tp_getattro;
    return ask == PyObject_GenericGetAttr || ask == PyType_Type.tp_getattro;
}

/* The same for all instances of type, and for type itself. */
bool kinx_asks_in_the_standard_way(PyTypeObject *type);

/* The namespace of a class.  New reference. */
PyObject *kinx_type_dict(PyTypeObject *type);

/* What `type` itself has under that name, and what it has or inherits from any class but
 * object.  Borrowed or NULL; no exception, no code is run. */
PyObject *kinx_own_attr(PyTypeObject *type, PyObject *name);
PyObject *kinx_found_attr(PyTypeObject *type, PyObject *name);

#endif
