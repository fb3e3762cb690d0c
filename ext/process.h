/* What process.c adds to the module. */
#ifndef KINX_PROCESS_H
#define KINX_PROCESS_H

#include "state.h"

/* 0, or raises and returns -1. */
int kinx_process_exec(PyObject *module);

#endif
