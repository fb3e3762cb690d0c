#include "unpickler.h"

int kinx_unpickler_exec(PyObject *module) {
    return 0;
}

int kinx_unpickler_visit(kinx_state *st, visitproc visit, void *arg) {
    return 0;
}

void kinx_unpickler_clear(kinx_state *st) {}
