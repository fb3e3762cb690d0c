/* The sending side of functions, of what they consist of, and of modules.
 *
 * A function is sent with the globals that its code names, no others.  They are not sent
 * with its home (the stand-in for its module's globals, shared by all functions of one
 * pickling that share them here) but as its contents, because each function adds what it
 * needs.  The home of a function from a module that the receiver can import is that
 * module: nothing is sent with such a function.
 *
 * Arguments of a maker may lead back to the thing itself: a class is in the closures of
 * its own methods.  That ends well, for a reason worth knowing.  On the way round,
 * cells, homes and metaclasses are remembered by the pickler before their contents are
 * written, so the second visit finds them, finishes, and is remembered; the first visit
 * then notices that its thing is there already and takes that one. */
#include "by_value_parts.h"

/* -- Homes ----------------------------------------------------------------------------- */

typedef struct kinx_home {
    PyObject_HEAD
    PyObject *namespace;   /* so that its address stays its own */
    PyObject *module_name; /* of the module that the receiver has; NULL if it has none */
} kinx_home;

static int home_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((kinx_home *)self)->namespace);
    return 0;
}

static int home_clear(PyObject *self) {
    Py_CLEAR(((kinx_home *)self)->namespace);
    return 0;
}

static void home_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    home_clear(self);
    Py_XDECREF(((kinx_home *)self)->module_name);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot home_slots[] = {
    {Py_tp_doc,
     (void *)"The stand-in, within one pickling, for a namespace that is somebody's globals."},
    {Py_tp_dealloc, home_dealloc},
    {Py_tp_traverse, home_traverse},
    {Py_tp_clear, home_clear},
    {0, NULL},
};

PyType_Spec kinx_home_spec = {
    .name = "kinfolk._kin._Home",
    .basicsize = sizeof(kinx_home),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = home_slots,
};

/* New. */
static PyObject *new_home(kinx_pickler *p, PyObject *namespace) {
    kinx_by_value *bv = p->st->by_value;
    PyObject *module_name;
    if (kinx_home_name(p, namespace, &module_name) < 0) return NULL;
    PyTypeObject *type = (PyTypeObject *)bv->home_type;
    kinx_home *home = (kinx_home *)type->tp_alloc(type, 0);
    if (!home) {
        Py_XDECREF(module_name);
        return NULL;
    }
    Py_INCREF(namespace);
    home->namespace = namespace;
    home->module_name = module_name;
    return (PyObject *)home;
}

/* The home that stands for `namespace` in all that this pickling writes.  New. */
static PyObject *home_of(kinx_pickler *p, PyObject *namespace) {
    if (!p->homes && !(p->homes = PyDict_New())) return NULL;
    PyObject *key = PyLong_FromVoidPtr(namespace);
    if (!key) return NULL;
    PyObject *home = PyDict_GetItemWithError(p->homes, key);
    Py_XINCREF(home);
    if (!home && !PyErr_Occurred()) {
        home = new_home(p, namespace);
        if (home && PyDict_SetItem(p->homes, key, home) < 0) Py_CLEAR(home);
    }
    Py_DECREF(key);
    return home;
}

/* The items of `namespace` with these names (a tuple), as a new dict. */
static PyObject *part_of(PyObject *namespace, PyObject *names) {
    PyObject *part = PyDict_New();
    for (Py_ssize_t i = 0; part && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        PyObject *value = PyDict_GetItemWithError(namespace, name);
        Py_XINCREF(value);
        if (value ? PyDict_SetItem(part, name, value) < 0 : PyErr_Occurred() != NULL) {
            Py_CLEAR(part);
        }
        Py_XDECREF(value);
    }
    return part;
}

/* The globals that a home has from the start, a tuple in the order of bv->home_names; None where
 * there is none, and nothing behind the last one that there is.  New. */
static PyObject *names_of_home(kinx_by_value *bv, PyObject *namespace) {
    PyObject *found[KINX_HOME_NAMES];
    Py_ssize_t count = 0;
    for (Py_ssize_t i = 0; i < KINX_HOME_NAMES; i++) {
        found[i] = PyDict_GetItemWithError(namespace, bv->home_names[i]);
        if (!found[i] && PyErr_Occurred()) return NULL;
        if (!found[i]) found[i] = Py_None;
        if (found[i] != Py_None) count = i + 1;
    }
    PyObject *args = PyTuple_New(count);
    for (Py_ssize_t i = 0; args && i < count; i++) {
        PyTuple_SET_ITEM(args, i, Py_NewRef(found[i]));
    }
    return args;
}

PyObject *kinx_reduce_home(kinx_pickler *p, PyObject *self) {
    kinx_by_value *bv = p->st->by_value;
    kinx_home *home = (kinx_home *)self;
    if (home->module_name) {
        PyObject *args = PyTuple_Pack(1, home->module_name);
        return kinx_reduction(bv, KINX_MAKER_module, args, NULL, KINX_NO_FILLER);
    }
    return kinx_reduction(bv, KINX_MAKER_home, names_of_home(bv, home->namespace), NULL,
                          KINX_NO_FILLER);
}

/* -- What a function would not have by itself over the same code and home ----------------- */

/* Add name: value to the attributes; value: borrowed, NULL to raise. */
static int keep(PyObject *attributes, PyObject *name, PyObject *value) {
    return value ? PyDict_SetItem(attributes, name, value) : -1;
}

/* The same, if value is true; NULL: there is none. */
static int keep_if_any(PyObject *attributes, PyObject *name, PyObject *value) {
    if (!value || value == Py_None) return 0;
    Py_INCREF(value);
    int any = PyObject_IsTrue(value);
    if (any > 0) any = PyDict_SetItem(attributes, name, value);
    Py_DECREF(value);
    return any < 0 ? -1 : 0;
}

static PyObject *qualname_of_code(PyCodeObject *code) {
#if PY_VERSION_HEX >= 0x030B0000
    return code->co_qualname;
#else
    return code->co_name;
#endif
}

static PyObject *doc_of_code(PyCodeObject *code) {
#if PY_VERSION_HEX >= 0x030E0000
    if (!(code->co_flags & CO_HAS_DOCSTRING)) return Py_None;
#endif
    PyObject *consts = code->co_consts;
    PyObject *first = PyTuple_GET_SIZE(consts) ? PyTuple_GET_ITEM(consts, 0) : Py_None;
    return PyUnicode_Check(first) ? first : Py_None;
}

static bool same_text(PyObject *one, PyObject *other) {
    return one == other || PyUnicode_Compare(one, other) == 0;
}

static int keep_names(kinx_by_value *bv, PyFunctionObject *function, PyObject *attributes) {
    PyCodeObject *code = (PyCodeObject *)function->func_code;
    PyObject *name = function->func_name, *qualname = function->func_qualname;
    if (!same_text(name, code->co_name) && keep(attributes, bv->names.name, name) < 0) return -1;
    if (!same_text(qualname, qualname_of_code(code)) &&
        keep(attributes, bv->names.qualname, qualname) < 0) {
        return -1;
    }
    PyObject *module = function->func_module ? function->func_module : Py_None;
    PyObject *home = PyDict_GetItemWithError(function->func_globals, bv->names.name);
    if (!home && PyErr_Occurred()) return -1;
    if (!home) home = Py_None;
    if (module != home) {
        Py_INCREF(module);
        Py_INCREF(home);
        int differs = PyObject_RichCompareBool(module, home, Py_NE);
        if (differs > 0) differs = keep(attributes, bv->names.module, module);
        Py_DECREF(module);
        Py_DECREF(home);
        if (differs < 0) return -1;
    }
    PyObject *doc = function->func_doc ? function->func_doc : Py_None;
    return doc == doc_of_code(code) ? 0 : keep(attributes, bv->names.doc, doc);
}

/* Where annotations are not evaluated before somebody asks, what is sent is whom to ask. */
static int keep_annotations(kinx_by_value *bv, PyFunctionObject *function, PyObject *attributes) {
#if PY_VERSION_HEX >= 0x030E0000
    PyObject *value = NULL;
    if (kinx_lookup_attr((PyObject *)function, bv->names.annotate, &value) < 0) return -1;
    int err = keep_if_any(attributes, bv->names.annotate, value);
    Py_XDECREF(value);
    return err;
#else
    if (!function->func_annotations) return 0;
    PyObject *value = PyFunction_GetAnnotations((PyObject *)function); /* may build the dict */
    if (!value && PyErr_Occurred()) return -1;
    return keep_if_any(attributes, bv->names.annotations, value);
#endif
}

static int keep_values(kinx_by_value *bv, PyFunctionObject *function, PyObject *attributes) {
    if (keep_if_any(attributes, bv->names.defaults, function->func_defaults) < 0) return -1;
    if (keep_if_any(attributes, bv->names.kwdefaults, function->func_kwdefaults) < 0) return -1;
    if (keep_annotations(bv, function, attributes) < 0) return -1;
#if PY_VERSION_HEX >= 0x030C0000
    if (keep_if_any(attributes, bv->names.type_params, function->func_typeparams) < 0) return -1;
#endif
    return keep_if_any(attributes, bv->names.dict, function->func_dict);
}

/* New. */
static PyObject *attributes_of(kinx_by_value *bv, PyObject *self) {
    PyFunctionObject *function = (PyFunctionObject *)self;
    PyObject *attributes = PyDict_New();
    if (attributes &&
        (keep_names(bv, function, attributes) < 0 || keep_values(bv, function, attributes) < 0)) {
        Py_CLEAR(attributes);
    }
    return attributes;
}

/* -- Functions ---------------------------------------------------------------------------- */

/* The globals that the function uses, a new dict.  Empty if it finds them in its home. */
static PyObject *globals_used(kinx_by_value *bv, PyObject *function, bool has_home) {
    if (has_home) return PyDict_New();
    PyObject *names = kinx_code_fact(bv, PyFunction_GET_CODE(function), KINX_FACT_GLOBALS);
    if (!names) return NULL;
    PyObject *used = part_of(PyFunction_GET_GLOBALS(function), names);
    Py_DECREF(names);
    if (!used) return NULL;
    int own = PyDict_Contains(used, bv->names.builtins);
    if (own > 0) own = PyDict_DelItem(used, bv->names.builtins);
    if (own < 0) Py_CLEAR(used);
    return used;
}

/* The contents of a function: (globals that it uses, modules to import, attributes).  New. */
static PyObject *contents_of(kinx_by_value *bv, PyObject *function, bool has_home) {
    PyObject *used = globals_used(bv, function, has_home);
    PyObject *imports = used ? kinx_submodules_used(bv, function, used) : NULL;
    PyObject *attributes = imports ? attributes_of(bv, function) : NULL;
    PyObject *contents = attributes ? PyTuple_Pack(3, used, imports, attributes) : NULL;
    Py_XDECREF(used);
    Py_XDECREF(imports);
    Py_XDECREF(attributes);
    return contents;
}

/* The arguments of its maker: (code, home, closure, where).  New. */
static PyObject *making_of(kinx_pickler *p, PyFunctionObject *function, PyObject *home,
                           int standing) {
    PyObject *data = kinx_code_fact(p->st->by_value, function->func_code, KINX_FACT_DATA);
    if (!data) return NULL;
    /* A method would only be found where its class is found, and then it is not needed. */
    PyObject *qualname = function->func_qualname;
    bool is_inner = PyUnicode_FindChar(qualname, '.', 0, PyUnicode_GET_LENGTH(qualname), 1) >= 0;
    PyObject *where = kinx_where(p, is_inner ? KINX_BY_VALUE : standing, (PyObject *)function);
    PyObject *closure = function->func_closure ? function->func_closure : Py_None;
    PyObject *args = where ? PyTuple_Pack(4, data, home, closure, where) : NULL;
    Py_XDECREF(where);
    Py_DECREF(data);
    return args;
}

PyObject *kinx_reduce_function(kinx_pickler *p, PyObject *self) {
    kinx_by_value *bv = p->st->by_value;
    PyFunctionObject *function = (PyFunctionObject *)self;
    PyObject *module_name = function->func_module, *qualname = function->func_qualname;
    Py_XINCREF(module_name);
    Py_INCREF(qualname);
    int standing = kinx_standing(p, self, module_name, qualname);
    Py_XDECREF(module_name);
    Py_DECREF(qualname);
    if (standing < 0) return NULL;
    if (standing == KINX_BY_NAME) Py_RETURN_NOTIMPLEMENTED;
    if (function->func_dict || function->func_annotations) { /* here type variables come up */
        if (kinx_learn_late_types(bv) < 0) return NULL;
    }
    PyObject *home = home_of(p, function->func_globals);
    if (!home) return NULL;
    PyObject *args = making_of(p, function, home, standing);
    bool has_home = ((kinx_home *)home)->module_name != NULL;
    Py_DECREF(home);
    PyObject *contents = args ? contents_of(bv, self, has_home) : NULL;
    return kinx_reduction(bv, KINX_MAKER_function, args, contents, KINX_MAKER_fill_function);
}

PyObject *kinx_reduce_code(kinx_pickler *p, PyObject *code) {
    PyObject *data = kinx_code_fact(p->st->by_value, code, KINX_FACT_DATA);
    PyObject *args = data ? PyTuple_Pack(1, data) : NULL;
    Py_XDECREF(data);
    return kinx_reduction(p->st->by_value, KINX_MAKER_code, args, NULL, KINX_NO_FILLER);
}

/* -- Cells -------------------------------------------------------------------------------- */

static bool is_plain(PyObject *value) {
    return value == Py_None || PyLong_CheckExact(value) || PyUnicode_CheckExact(value) ||
           PyBool_Check(value) || PyFloat_CheckExact(value) || PyBytes_CheckExact(value);
}

/* What cannot lead back to the cell is an argument of its maker. */
PyObject *kinx_reduce_cell(kinx_pickler *p, PyObject *cell) {
    kinx_by_value *bv = p->st->by_value;
    PyObject *value = PyCell_Get(cell), *contents = NULL;
    if (value) {
        contents = PyTuple_Pack(1, value);
        bool plain = is_plain(value);
        Py_DECREF(value);
        if (!contents) return NULL;
        if (!plain) {
            return kinx_reduction(bv, KINX_MAKER_cell, PyTuple_New(0), contents,
                                  KINX_MAKER_fill_cell);
        }
    } else { /* empty, and stays so */
        contents = PyTuple_New(0);
    }
    return kinx_reduction(bv, KINX_MAKER_cell, contents, NULL, KINX_NO_FILLER);
}

/* -- Modules ------------------------------------------------------------------------------ */

/* 1 if the receiver can be told the module by its name. */
static int module_has_name(kinx_pickler *p, PyObject *module, PyObject *name) {
    if (!PyUnicode_Check(name)) return 0;
    PyObject *loaded = kinx_loaded_module(name);
    if (loaded != module) return !loaded && PyErr_Occurred() ? -1 : 0;
    if (kinx_is_main(name)) return 1;
    PyObject *home, *dict = kinx_module_dict(module);
    if (!dict || kinx_home_name(p, dict, &home) < 0) return -1;
    Py_XDECREF(home);
    return home != NULL;
}

/* The contents of a module made at run time: its globals.  New. */
static PyObject *contents_of_module(kinx_by_value *bv, PyObject *module) {
    PyObject *const left_out[] = {bv->names.builtins, bv->names.loader, bv->names.spec};
    PyObject *dict = kinx_module_dict(module);
    PyObject *names = dict ? PyDict_Copy(dict) : NULL;
    for (size_t i = 0; names && i < sizeof left_out / sizeof *left_out; i++) {
        int there = PyDict_Contains(names, left_out[i]);
        if (there > 0) there = PyDict_DelItem(names, left_out[i]);
        if (there < 0) Py_CLEAR(names);
    }
    return names;
}

PyObject *kinx_reduce_module(kinx_pickler *p, PyObject *module) {
    kinx_by_value *bv = p->st->by_value;
    if (!PyModule_CheckExact(module) && kinx_not_bare(p) < 0) return NULL;
    PyObject *name = PyObject_GetAttr(module, bv->names.name);
    if (!name) return NULL;
    int named = module_has_name(p, module, name);
    PyObject *args = named > 0 ? PyTuple_Pack(1, name) : NULL;
    Py_DECREF(name);
    if (named < 0) return NULL;
    if (named) return kinx_reduction(bv, KINX_MAKER_module, args, NULL, KINX_NO_FILLER);
    PyObject *dict = kinx_module_dict(module);
    PyObject *home = dict ? home_of(p, dict) : NULL;
    args = home ? PyTuple_Pack(1, home) : NULL;
    Py_XDECREF(home);
    PyObject *contents = args ? contents_of_module(bv, module) : NULL;
    return kinx_reduction(bv, KINX_MAKER_made_module, args, contents, KINX_MAKER_fill_module);
}
