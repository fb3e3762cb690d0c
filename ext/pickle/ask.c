/* What an object has: see ask.h. */
#include "ask.h"

int kinx_lookup_attr_string(PyObject *thing, const char *name, PyObject **value) {
    PyObject *text = PyUnicode_FromString(name);
    if (!text) {
        *value = NULL;
        return -1;
    }
    int found = kinx_lookup_attr(thing, text, value);
    Py_DECREF(text);
    return found;
}

bool kinx_asks_in_the_standard_way(PyTypeObject *type) {
    return type->tp_getattro == PyObject_GenericGetAttr &&
           Py_TYPE(type)->tp_getattro == PyType_Type.tp_getattro &&
           Py_TYPE(type)->tp_hash == PyType_Type.tp_hash;
}

PyObject *kinx_type_dict(PyTypeObject *type) {
#if PY_VERSION_HEX >= 0x030C0000
    return PyType_GetDict(type); /* of some types it is not in tp_dict */
#else
    return Py_XNewRef(type->tp_dict);
#endif
}

PyObject *kinx_own_attr(PyTypeObject *type, PyObject *name) {
    PyObject *dict = kinx_type_dict(type);
    PyObject *found = dict ? PyDict_GetItemWithError(dict, name) : NULL;
    Py_XDECREF(dict);
    if (!found) PyErr_Clear();
    return found;
}

PyObject *kinx_found_attr(PyTypeObject *type, PyObject *name) {
    PyObject *mro = type->tp_mro;
    for (Py_ssize_t i = 0; mro && i < PyTuple_GET_SIZE(mro); i++) {
        PyTypeObject *base = (PyTypeObject *)PyTuple_GET_ITEM(mro, i);
        if (base == &PyBaseObject_Type) continue;
        PyObject *found = kinx_own_attr(base, name);
        if (found) return found;
    }
    return NULL;
}
