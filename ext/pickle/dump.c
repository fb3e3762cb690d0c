#include "pickler.h"

int kinx_pickler_exec(PyObject *module) {
    return 0;
}

int kinx_pickler_visit(kinx_state *st, visitproc visit, void *arg) {
    return 0;
}

void kinx_pickler_clear(kinx_state *st) {}
