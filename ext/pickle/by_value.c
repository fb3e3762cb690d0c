/* Pickling by value: who reduces what, the state, and what the module exports.
 *
 * The answer for an instance of an ordinary class is the one asked for most: one look
 * into a table by its type, and whether the type is a metaclass or a kind of module. */
#include "by_value_parts.h"

/* -- The table of reducers ------------------------------------------------------------------- */

static size_t slot_of(const void *type) {
    uint64_t mixed = (uint64_t)(uintptr_t)type * 0x9E3779B97F4A7C15u;
    return (size_t)(mixed >> 57); /* 128 slots */
}

_Static_assert(KINX_BV_SLOTS == 128, "slot_of() gives seven bits");

static kinx_reducer_slot *slot_for(kinx_by_value *bv, const PyTypeObject *type) {
    size_t at = slot_of(type);
    while (bv->slots[at].type && bv->slots[at].type != type) at = (at + 1) % KINX_BV_SLOTS;
    return &bv->slots[at];
}

int kinx_add_reducer(kinx_by_value *bv, PyObject *type, kinx_reducer reduce, PyObject *python) {
    size_t used = 0;
    for (size_t i = 0; i < KINX_BV_SLOTS; i++) used += bv->slots[i].type != NULL;
    if (!PyType_Check(type) || used >= KINX_BV_SLOTS / 2) {
        PyErr_SetString(PyExc_SystemError, "no room for another reducer");
        return -1;
    }
    kinx_reducer_slot *slot = slot_for(bv, (PyTypeObject *)type);
    Py_INCREF(type);
    Py_XINCREF(python);
    Py_XDECREF(slot->type);
    Py_XDECREF(slot->python);
    *slot = (kinx_reducer_slot){(PyTypeObject *)type, reduce, python};
    return 0;
}

/* -1, or how many of them are yet to come. */
static int learn_late_modules(kinx_by_value *bv) {
    int to_come = 0;
    for (int i = 0; i < KINX_LATE_MODULES; i++) {
        const kinx_late_module *late = &kinx_late_modules[i];
        if (bv->late_known[i]) continue;
        to_come++;
        if (!PyMapping_HasKeyString(PyImport_GetModuleDict(), late->name)) continue;
        if (late->learn(bv) == 0) {
            bv->late_known[i] = true;
            to_come--;
        } else if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Clear(); /* another thread is importing it: look again the next time */
            bv->modules_seen = -1;
        } else {
            return -1;
        }
    }
    return to_come;
}

static int learn_from(kinx_by_value *bv, const char *module_name, bool *known) {
    PyObject *name = PyUnicode_FromString(module_name);
    PyObject *loaded = name ? kinx_loaded_module(name) : NULL, *reducers = NULL;
    if (loaded) {
        *known = true;
        PyObject *learn = kinx_hook(&bv->late_learn, "kinfolk._late_types", "reducers_for");
        if (learn) reducers = PyObject_CallOneArg(learn, name);
    }
    Py_XDECREF(name);
    if (!reducers) return PyErr_Occurred() ? -1 : 0;
    PyObject *type, *reducer;
    Py_ssize_t at = 0;
    int err = 0;
    while (err == 0 && PyDict_Next(reducers, &at, &type, &reducer)) {
        err = kinx_add_reducer(bv, type, NULL, reducer);
    }
    Py_DECREF(reducers);
    return err;
}

int kinx_learn_late_types(kinx_by_value *bv) {
    if (bv->all_known) return 0;
    /* Asked for each instance: a module has come only if there are more, or fewer. */
    Py_ssize_t modules = PyDict_GET_SIZE(PyImport_GetModuleDict());
    if (modules == bv->modules_seen) return 0;
    bv->modules_seen = modules;
    int to_come = learn_late_modules(bv);
    if (to_come < 0) return -1;
    if (!bv->typing_known && learn_from(bv, "typing", &bv->typing_known) < 0) return -1;
    if (!bv->dataclasses_known && learn_from(bv, "dataclasses", &bv->dataclasses_known) < 0)
        return -1;
    bv->all_known = to_come == 0 && bv->typing_known && bv->dataclasses_known;
    return 0;
}

/* -- The pickler's questions -------------------------------------------------------------------- */

static PyObject *reduce_in_python(kinx_pickler *p, PyObject *python, PyObject *thing) {
    Py_INCREF(python);
    PyObject *reduced =
        PyObject_CallFunctionObjArgs(python, p->kin ? Py_True : Py_False, thing, NULL);
    Py_DECREF(python);
    return reduced;
}

PyObject *kinx_reduce_by_value(kinx_pickler *p, PyObject *obj) {
    if (!p->st->by_value) Py_RETURN_NOTIMPLEMENTED; /* the interpreter is on its way out */
    const kinx_reducer_slot *slot = slot_for(p->st->by_value, Py_TYPE(obj));
    if (slot->reduce) return slot->reduce(p, obj);
    if (slot->python) return reduce_in_python(p, slot->python, obj);
    if (PyType_Check(obj)) return kinx_reduce_class(p, obj);
    if (PyModule_Check(obj)) return kinx_reduce_module(p, obj);
    /* Is it of a type that had not come up before? */
    if (kinx_learn_late_types(p->st->by_value) < 0) return NULL;
    slot = slot_for(p->st->by_value, Py_TYPE(obj));
    if (slot->reduce) return slot->reduce(p, obj);
    if (slot->python) return reduce_in_python(p, slot->python, obj);
    Py_RETURN_NOTIMPLEMENTED;
}

bool kinx_has_reducer(kinx_state *st, PyTypeObject *type) {
    if (!st->by_value) return false;
    if (kinx_learn_late_types(st->by_value) < 0) PyErr_Clear(); /* the next sending tries again */
    const kinx_reducer_slot *slot = slot_for(st->by_value, type);
    return slot->reduce || slot->python;
}

int kinx_class_goes_by_value(kinx_pickler *p, PyTypeObject *cls) {
    if (!p->st->by_value || !kinx_may_go_by_value(cls)) return 0;
    int standing = kinx_standing_of(p, (PyObject *)cls);
    return standing < 0 ? -1 : standing != KINX_BY_NAME;
}

bool kinx_is_own_maker(kinx_state *st, PyObject *obj, PyObject **name) {
    kinx_by_value *bv = st->by_value;
    if (!bv || !PyCFunction_CheckExact(obj) || PyCFunction_GET_SELF(obj) != bv->module)
        return false;
    for (size_t i = 0; i < KINX_MAKERS; i++) {
        if (bv->makers[i] != obj) continue;
        *name = bv->maker_names[i];
        return true;
    }
    return false;
}

PyObject *kinx_reduction(kinx_by_value *bv, kinx_maker maker, PyObject *args, PyObject *state,
                         kinx_maker filler) {
    PyObject *reduced = NULL;
    if (args && filler == KINX_NO_FILLER) {
        reduced = PyTuple_Pack(2, bv->makers[maker], args);
    } else if (args && state) {
        reduced =
            PyTuple_Pack(6, bv->makers[maker], args, state, Py_None, Py_None, bv->makers[filler]);
    }
    Py_XDECREF(args);
    Py_XDECREF(state);
    return reduced;
}

/* -- Helpers of all ---------------------------------------------------------------------------------- */

PyObject *kinx_hook(PyObject **slot, const char *module, const char *name) {
    return kinx_import(slot, module, name);
}

PyObject *kinx_module_dict(PyObject *module) {
    PyObject *dict = PyModule_GetDict(module);
    if (!dict && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_SystemError, "a module that has not been initialised");
    }
    return dict;
}

/* -- What Python asks for -------------------------------------------------------------------------------- */

int kinx_pickler_to_ask(PyObject *module, PyObject *kin, kinx_pickler *p) {
    *p = (kinx_pickler){.st = kinx_state_of(module), .protocol = 5, .by_value = true};
    int is_kin = PyObject_IsTrue(kin);
    p->kin = is_kin > 0;
    return is_kin < 0 ? -1 : 0;
}

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL

/* In the order of KINX_BV_MAKERS. */
static PyMethodDef makers[] = {
#define X(name) {"_" #name, FAST(kinx_make_##name), NULL},
    KINX_BV_MAKERS(X)
#undef X
        {NULL, NULL, 0, NULL},
};

static PyMethodDef functions[] = {
    {"_can_import", FAST(kinx_bv_can_import), NULL},
    {"_resolve", FAST(kinx_bv_resolve), NULL},
    {"_standing", FAST(kinx_bv_standing), NULL},
    {"_is_registered", FAST(kinx_bv_is_registered), NULL},
    {"_forget_kin", FAST(kinx_bv_forget_kin), NULL},
    {"_holds_still", FAST(kinx_bv_holds_still), NULL},
    {"_token", FAST(kinx_bv_token), NULL},
    {"_names_used", FAST(kinx_bv_names_used), NULL},
    {"_code_digest", FAST(kinx_bv_code_digest), NULL},
    {NULL, NULL, 0, NULL},
};

/* -- The state ---------------------------------------------------------------------------------------------- */

static int make_names(kinx_by_value *bv) {
#define X(name) \
    if (!(bv->names.name = PyUnicode_InternFromString("__" #name "__"))) return -1;
    KINX_BV_NAMES(X)
#undef X
    bv->home_names[0] = bv->names.name;
    bv->home_names[1] = bv->names.package;
    bv->home_names[2] = bv->names.file;
    bv->home_names[3] = bv->names.path;
    return 0;
}

static int make_tables(kinx_by_value *bv) {
    PyObject **const dicts[] = {&bv->facts,    &bv->tokens,   &bv->things,
                                &bv->unfilled, &bv->received, &bv->digests,
                                &bv->codes,    &bv->verdicts, &bv->kin_names};
    for (size_t i = 0; i < sizeof dicts / sizeof *dicts; i++) {
        if (!(*dicts[i] = PyDict_New())) return -1;
    }
    if (!(bv->registered = PySet_New(NULL))) return -1;
    bv->half_made = PyUnicode_FromString("kinfolk: a function on its way");
    PyObject *made = Py_BuildValue("(OOsOs)", bv->names.dict, bv->names.weakref, "_abc_impl",
                                   bv->names.slots, "__annotations_cache__");
    bv->made_with_class = made ? PyFrozenSet_New(made) : NULL;
    Py_XDECREF(made);
    return bv->half_made && bv->made_with_class ? 0 : -1;
}

static int make_makers(PyObject *module, kinx_by_value *bv) {
    if (PyModule_AddFunctions(module, makers) < 0) return -1;
    if (PyModule_AddFunctions(module, functions) < 0) return -1;
    for (size_t i = 0; i < KINX_MAKERS; i++) {
        bv->maker_names[i] = PyUnicode_InternFromString(makers[i].ml_name);
        if (!bv->maker_names[i]) return -1;
        bv->makers[i] = PyObject_GetAttr(module, bv->maker_names[i]);
        if (!bv->makers[i]) return -1;
    }
    return 0;
}

static int make_reducers(PyObject *module, kinx_by_value *bv) {
    bv->home_type = PyType_FromModuleAndSpec(module, &kinx_home_spec, NULL);
    if (!bv->home_type) return -1;
    if (kinx_add_reducer(bv, bv->home_type, kinx_reduce_home, NULL) < 0) return -1;
    const struct {
        PyTypeObject *type;
        kinx_reducer reduce;
    } own[] = {
        {&PyFunction_Type, kinx_reduce_function}, {&PyCode_Type, kinx_reduce_code},
        {&PyCell_Type, kinx_reduce_cell},         {&PyModule_Type, kinx_reduce_module},
        {&PyType_Type, kinx_reduce_class},
    };
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        if (kinx_add_reducer(bv, (PyObject *)own[i].type, own[i].reduce, NULL) < 0) return -1;
    }
    return kinx_add_small_reducers(bv);
}

static int find_builtins(kinx_by_value *bv) {
    PyObject *module = PyImport_ImportModule("builtins");
    if (!module) return -1;
    bv->builtins = Py_XNewRef(kinx_module_dict(module));
    Py_DECREF(module);
    return bv->builtins ? 0 : -1;
}

int kinx_by_value_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    kinx_by_value *bv = PyMem_Calloc(1, sizeof *bv);
    if (!bv) return PyErr_NoMemory(), -1;
    st->by_value = bv; /* cleared with the module, whatever happens here */
    bv->module = module;
    if (make_names(bv) < 0 || make_tables(bv) < 0 || find_builtins(bv) < 0) return -1;
    if (make_makers(module, bv) < 0 || make_reducers(module, bv) < 0) return -1;
    return PyModule_AddObjectRef(module, "_registered", bv->registered);
}

int kinx_by_value_visit(kinx_state *st, visitproc visit, void *arg) {
    kinx_by_value *bv = st->by_value;
    if (!bv) return 0;
#define X(name) Py_VISIT(bv->name);
    KINX_BV_OBJECTS(X)
#undef X
    for (size_t i = 0; i < KINX_MAKERS; i++) Py_VISIT(bv->makers[i]);
    for (size_t i = 0; i < KINX_BV_SLOTS; i++) {
        Py_VISIT(bv->slots[i].type);
        Py_VISIT(bv->slots[i].python);
    }
    return 0;
}

void kinx_by_value_clear(kinx_state *st) {
    kinx_by_value *bv = st->by_value;
    if (!bv) return;
    st->by_value = NULL; /* what is let go below may come back here */
#define X(name) Py_CLEAR(bv->name);
    KINX_BV_OBJECTS(X)
#undef X
#define X(name) Py_CLEAR(bv->names.name);
    KINX_BV_NAMES(X)
#undef X
    for (size_t i = 0; i < KINX_MAKERS; i++) {
        Py_CLEAR(bv->makers[i]);
        Py_CLEAR(bv->maker_names[i]);
    }
    for (size_t i = 0; i < KINX_BV_SLOTS; i++) {
        Py_CLEAR(bv->slots[i].type);
        Py_CLEAR(bv->slots[i].python);
    }
    PyMem_Free(bv);
}
