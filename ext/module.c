/* Placeholder: the extension's helper replaces this file. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static PyModuleDef_Slot slots[] = {
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "kinfolk._kin",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__kin(void)
{
    return PyModuleDef_Init(&module);
}
