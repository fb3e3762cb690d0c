#include "by_value.h"

int kinx_by_value_exec(PyObject *module) {
    return 0;
}

int kinx_by_value_visit(kinx_state *st, visitproc visit, void *arg) {
    return 0;
}

void kinx_by_value_clear(kinx_state *st) {}
