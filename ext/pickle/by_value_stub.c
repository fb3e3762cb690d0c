/* Until by_value.c is there: nothing goes by value. */
#include "by_value.h"

__attribute__((weak)) PyObject *kinx_reduce_by_value(kinx_pickler *p, PyObject *obj) {
    Py_RETURN_NOTIMPLEMENTED;
}

__attribute__((weak)) int kinx_class_goes_by_value(kinx_pickler *p, PyTypeObject *cls) {
    return 0;
}

__attribute__((weak)) bool kinx_is_own_maker(kinx_state *st, PyObject *obj, PyObject **name) {
    return false;
}
