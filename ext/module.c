/* kinfolk._kin: libkin for Python.
 *
 * This file makes the module out of what the others add to it.  One type a
 * file; ref.c has the base of all of them, message.c what a message is, and
 * errors.c says which error of libkin becomes which exception. */
#include "connection.h"
#include "pickle/by_value.h"
#include "pickle/pickler.h"
#include "pickle/unpickler.h"
#include "place.h"
#include "process.h"
#include "state.h"
#include "transit.h"

static int (*const parts[])(PyObject *module) = {
    kinx_errors_exec,      kinx_ref_exec,          kinx_family_exec,     kinx_lock_exec,
    kinx_semaphore_exec,   kinx_event_exec,        kinx_memory_exec,     kinx_blob_exec,
    kinx_queue_exec,       kinx_process_exec,      kinx_pickler_exec,    kinx_unpickler_exec,
    kinx_by_value_exec,    kinx_transit_exec,      kinx_connection_exec, kinx_wait_exec,
    kinx_descriptor_exec,  kinx_condition_exec,    kinx_barrier_exec,    kinx_shared_dict_exec,
    kinx_shared_list_exec, kinx_synchronized_exec, kinx_ticket_exec,
};

static int module_exec(PyObject *module) {
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (parts[i](module) < 0) return -1;
    }
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    kinx_state *st = kinx_state_of(module);
    if (!st) return 0;
    KINX_STATE_EACH(Py_VISIT, st);
    int err = kinx_places_visit(st->places, visit, arg);
    if (err == 0) err = kinx_pickler_visit(st, visit, arg);
    if (err == 0) err = kinx_unpickler_visit(st, visit, arg);
    if (err == 0) err = kinx_by_value_visit(st, visit, arg);
    return err ? err : kinx_connection_visit(st, visit, arg);
}

static int module_clear(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    if (!st) return 0;
    KINX_STATE_EACH(Py_CLEAR, st);
    kinx_places_clear(st);
    kinx_pickler_clear(st);
    kinx_unpickler_clear(st);
    kinx_by_value_clear(st);
    kinx_connection_clear(st);
    return 0;
}

static void module_free(void *module) {
    module_clear((PyObject *)module);
    kinx_synchronized_free(kinx_state_of((PyObject *)module));
}

PyObject *kinx_import(PyObject **slot, const char *module, const char *name) {
    if (*slot) return *slot;
    PyObject *from = PyImport_ImportModule(module);
    if (!from) return NULL;
    PyObject *found = PyObject_GetAttrString(from, name);
    Py_DECREF(from);
    if (!found) return NULL;
    /* The import ran Python code: another thread may have been here. */
    if (*slot) Py_DECREF(found);
    else *slot = found;
    return *slot;
}

PyObject *kinx_import_error(PyObject **slot, const char *module, const char *name) {
    if (*slot) return *slot;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *found = kinx_import(slot, module, name);
    PyErr_Restore(type, value, traceback);
    return found ? found : PyExc_Exception;
}

int kinx_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject *base, PyTypeObject **slot) {
    *slot = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, (PyObject *)base);
    return *slot ? PyModule_AddType(module, *slot) : -1;
}

const char *kinx_type_label(PyTypeObject *type) {
    static const char package[] = "kinfolk.";
    bool ours = strncmp(type->tp_name, package, sizeof package - 1) == 0;
    return type->tp_name + (ours ? sizeof package - 1 : 0);
}

#if PY_VERSION_HEX >= 0x030B0000
static PyObject *module_of_type(PyTypeObject *type) {
    return PyType_GetModuleByDef(type, &kinx_module);
}
#else
/* 3.10 has this search, but not for us. */
static PyObject *module_of_type(PyTypeObject *type) {
    Py_ssize_t count = PyTuple_GET_SIZE(type->tp_mro);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyTypeObject *base = (PyTypeObject *)PyTuple_GET_ITEM(type->tp_mro, i);
        if (!PyType_HasFeature(base, Py_TPFLAGS_HEAPTYPE)) continue;
        PyObject *module = ((PyHeapTypeObject *)base)->ht_module;
        if (module && PyModule_GetDef(module) == &kinx_module) return module;
    }
    PyErr_Format(PyExc_TypeError, "%s is no type of kinfolk", type->tp_name);
    return NULL;
}
#endif

kinx_state *kinx_state_of_type(PyTypeObject *type) {
    PyObject *module = module_of_type(type);
    return module ? kinx_state_of(module) : NULL;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

PyDoc_STRVAR(module_doc,
             "The family of processes and what its members share: the C side of kinfolk.");

struct PyModuleDef kinx_module = {
    PyModuleDef_HEAD_INIT,        .m_name = "kinfolk._kin", .m_doc = module_doc,
    .m_size = sizeof(kinx_state), .m_slots = module_slots,  .m_traverse = module_traverse,
    .m_clear = module_clear,      .m_free = module_free,
};

PyMODINIT_FUNC PyInit__kin(void);

PyMODINIT_FUNC PyInit__kin(void) {
    return PyModuleDef_Init(&kinx_module);
}
