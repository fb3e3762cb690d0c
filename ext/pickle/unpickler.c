/* loads, load and Unpickler: what Python sees of the unpickler.
 *
 * A loading (load.h) lives on the C stack in loads(), load() and for messages, and inside
 * an Unpickler.  What an Unpickler keeps from one load() to the next: its memo, and what it
 * has read of a frame that goes on. */
#include "load.h"

typedef struct unpickler_object {
    PyObject_HEAD
    kinx_loader u;
    kinx_source source;
    bool ready;                /* __init__ has been here */
    char *encoding, *errors;   /* own copies, or NULL */
    PyObject *persistent_load; /* set by the user, or NULL */
} unpickler_object;

typedef struct proxy_object {
    PyObject_HEAD
    unpickler_object *unpickler;
} proxy_object;

/* -- Functions -------------------------------------------------------------------------- */

/* u->buffers: an iterator over buffers, unless there are none. */
static int set_buffers(kinx_loader *u, PyObject *buffers) {
    if (!buffers || buffers == Py_None) return 0;
    u->buffers = PyObject_GetIter(buffers);
    return u->buffers ? 0 : -1;
}

/* The arguments that all ways to load have. */
typedef struct load_options {
    PyObject *from; /* borrowed: data or file */
    int fix_imports;
    const char *encoding, *errors;
    PyObject *buffers; /* borrowed, or NULL */
} load_options;

static bool parse(PyObject *args, PyObject *kwargs, const char *format, bool positional,
                  load_options *out) {
    const char *names[] = {
        positional ? "" : "file", "fix_imports", "encoding", "errors", "buffers", NULL};
    *out = (load_options){.fix_imports = 1, .encoding = "ASCII", .errors = "strict"};
    return PyArg_ParseTupleAndKeywords(args, kwargs, format, (char **)names, &out->from,
                                       &out->fix_imports, &out->encoding, &out->errors,
                                       &out->buffers);
}

/* The same from a vectorcall.  What is borrowed stays as long as args. */
static bool parse_fast(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                       const char *format, bool positional, load_options *out) {
    if (nargs == 1 && !kwnames) {
        *out = (load_options){args[0], 1, "ASCII", "strict", NULL};
        return true;
    }
    PyObject *tuple = PyTuple_New(nargs), *kwargs = PyDict_New();
    bool parsed = tuple && kwargs;
    for (Py_ssize_t i = 0; parsed && i < nargs; i++) PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    Py_ssize_t count = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    for (Py_ssize_t i = 0; parsed && i < count; i++) {
        parsed = PyDict_SetItem(kwargs, PyTuple_GET_ITEM(kwnames, i), args[nargs + i]) == 0;
    }
    parsed = parsed && parse(tuple, kwargs, format, positional, out);
    Py_XDECREF(tuple);
    Py_XDECREF(kwargs);
    return parsed;
}

static int use(kinx_loader *u, const load_options *options) {
    u->fix_imports = options->fix_imports;
    u->encoding = options->encoding;
    u->errors = options->errors;
    return set_buffers(u, options->buffers);
}

static PyObject *load_bytes(kinx_state *st, const uint8_t *data, size_t len,
                            const load_options *options) {
    kinx_loader u;
    kinx_loader_init(&u, st);
    u.at = data;
    u.end = data + len;
    PyObject *obj = use(&u, options) < 0 ? NULL : kinx_load(&u);
    kinx_loader_fini(&u);
    return obj;
}

PyObject *kinx_loads(kinx_state *st, const uint8_t *data, size_t len, PyObject *buffers) {
    load_options plain = {NULL, 1, "ASCII", "strict", buffers};
    return load_bytes(st, data, len, &plain);
}

PyDoc_STRVAR(loads_doc,
             "loads($module, data, /, *, fix_imports=True, encoding='ASCII',\n"
             "      errors='strict', buffers=())\n--\n\n"
             "The object whose pickle is in data, a bytes-like object.\n\n"
             "What follows the pickle is ignored.  fix_imports, encoding and errors are\n"
             "for pickles of Python 2: whether to take its names for modules, and how\n"
             "to decode its 8-bit strings ('bytes' leaves them as bytes).  buffers: what\n"
             "the pickler has given to its buffer_callback.");

static PyObject *loads(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                       PyObject *kwnames) {
    load_options options;
    if (!parse_fast(args, nargs, kwnames, "O|$pssO:loads", true, &options)) return NULL;
    kinx_state *st = kinx_state_of(module);
    if (PyBytes_CheckExact(options.from)) {
        PyObject *data = options.from;
        return load_bytes(st, (uint8_t *)PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data),
                          &options);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(options.from, &view, PyBUF_CONTIG_RO) < 0) return NULL;
    PyObject *obj = load_bytes(st, view.buf, (size_t)view.len, &options);
    PyBuffer_Release(&view);
    return obj;
}

PyDoc_STRVAR(load_doc,
             "load($module, /, file, *, fix_imports=True, encoding='ASCII',\n"
             "     errors='strict', buffers=())\n--\n\n"
             "The object whose pickle is next in file.  The other arguments are those of\n"
             "loads().");

static PyObject *load(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames) {
    load_options options;
    if (!parse_fast(args, nargs, kwnames, "O|$pssO:load", false, &options)) return NULL;
    kinx_state *st = kinx_state_of(module);
    kinx_source source;
    if (kinx_source_init(st->unpickler, &source, options.from) < 0) return NULL;
    kinx_loader u;
    kinx_loader_init(&u, st);
    u.source = &source;
    PyObject *obj = use(&u, &options) < 0 ? NULL : kinx_load(&u);
    kinx_loader_fini(&u);
    kinx_source_fini(&source);
    return obj;
}

static PyMethodDef functions[] = {
    {"loads", (PyCFunction)(void (*)(void))loads, METH_FASTCALL | METH_KEYWORDS, loads_doc},
    {"load", (PyCFunction)(void (*)(void))load, METH_FASTCALL | METH_KEYWORDS, load_doc},
    {NULL},
};

/* -- Unpickler ------------------------------------------------------------------------------ */

static PyObject *unpickler_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    kinx_state *st = kinx_state_of_type(type);
    unpickler_object *self = st ? (unpickler_object *)type->tp_alloc(type, 0) : NULL;
    if (!self) return NULL;
    kinx_loader_init(&self->u, st);
    self->u.self = (PyObject *)self;
    return (PyObject *)self;
}

static int unpickler_clear(unpickler_object *self) {
    kinx_loader_fini(&self->u);
    kinx_source_fini(&self->source);
    self->u.at = self->u.end = NULL;
    self->ready = false;
    PyMem_Free(self->encoding);
    PyMem_Free(self->errors);
    self->encoding = self->errors = NULL;
    Py_CLEAR(self->persistent_load);
    return 0;
}

static int unpickler_traverse(unpickler_object *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    const kinx_memo_table *memo = &self->u.memo;
    for (size_t i = 0; i < memo->filled; i++) Py_VISIT(memo->objects[i]);
    Py_VISIT(memo->far);
    Py_VISIT(self->u.persistent_load);
    Py_VISIT(self->u.buffers);
    Py_VISIT(self->source.read);
    Py_VISIT(self->source.readline);
    Py_VISIT(self->source.readinto);
    Py_VISIT(self->source.peek);
    Py_VISIT(self->persistent_load);
    return 0;
}

static void unpickler_dealloc(unpickler_object *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    unpickler_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* 0 if it is not loading just now: nobody may change it then. */
static int check_idle(unpickler_object *self) {
    if (!self->u.running) return 0;
    PyErr_SetString(PyExc_RuntimeError, "this Unpickler is loading");
    return -1;
}

static char *copy_of(const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = PyMem_Malloc(size);
    if (copy) memcpy(copy, text, size);
    else PyErr_NoMemory();
    return copy;
}

static int unpickler_init(unpickler_object *self, PyObject *args, PyObject *kwargs) {
    load_options options;
    if (!parse(args, kwargs, "O|$pssO:Unpickler", false, &options)) return -1;
    if (check_idle(self) < 0) return -1;
    if (self->ready) unpickler_clear(self);
    kinx_source_fini(&self->source);
    if (kinx_source_init(self->u.us, &self->source, options.from) < 0) return -1;
    self->u.source = &self->source;
    PyMem_Free(self->encoding);
    PyMem_Free(self->errors);
    self->encoding = copy_of(options.encoding);
    self->errors = copy_of(options.errors);
    if (!self->encoding || !self->errors) return -1;
    options.encoding = self->encoding;
    options.errors = self->errors;
    Py_CLEAR(self->u.buffers);
    if (use(&self->u, &options) < 0) return -1;
    self->ready = true;
    return 0;
}

/* What the class or the user has for persistent ids. */
static int find_persistent_load(unpickler_object *self) {
    kinx_unpickler_state *us = self->u.us;
    if (Py_IS_TYPE(self, us->unpickler_type)) {
        self->u.persistent_load = Py_XNewRef(self->persistent_load);
        return 0;
    }
    return kinx_lookup_attr((PyObject *)self, us->str_persistent_load, &self->u.persistent_load) < 0
               ? -1
               : 0;
}

PyDoc_STRVAR(method_load_doc, "load($self, /)\n--\n\nThe object whose pickle is next in the file.");

static PyObject *method_load(unpickler_object *self, PyObject *unused) {
    if (!self->ready) {
        PyErr_Format(kinx_unpickling_error(self->u.us),
                     "Unpickler.__init__() was not called by %s.__init__()",
                     Py_TYPE(self)->tp_name);
        return NULL;
    }
    if (check_idle(self) < 0 || find_persistent_load(self) < 0) return NULL;
    self->u.running = true;
    PyObject *obj = kinx_load(&self->u);
    self->u.running = false;
    Py_CLEAR(self->u.persistent_load);
    return obj;
}

PyDoc_STRVAR(find_class_doc,
             "find_class($self, module_name, global_name, /)\n--\n\n"
             "What has that name in that module, which is imported if need be.\n\n"
             "Called for each function or class that a pickle names: subclasses may override it,\n"
             "and so restrict what pickles can call.");

static PyObject *method_find_class(unpickler_object *self, PyObject *const *args,
                                   Py_ssize_t nargs) {
    if (nargs != 2) {
        PyErr_Format(PyExc_TypeError, "find_class expected 2 arguments, got %zd", nargs);
        return NULL;
    }
    return kinx_find_class(&self->u, args[0], args[1]);
}

PyDoc_STRVAR(sizeof_doc, "__sizeof__($self, /)\n--\n\nReturns size in memory, in bytes.");

static PyObject *method_sizeof(unpickler_object *self, PyObject *unused) {
    size_t size = (size_t)Py_TYPE(self)->tp_basicsize;
    size += self->u.memo.cap * sizeof(PyObject *) + self->source.cap;
    if (self->encoding) size += strlen(self->encoding) + 1;
    if (self->errors) size += strlen(self->errors) + 1;
    return PyLong_FromSize_t(size);
}

static PyMethodDef unpickler_methods[] = {
    {"load", (PyCFunction)method_load, METH_NOARGS, method_load_doc},
    {"find_class", (PyCFunction)(void (*)(void))method_find_class, METH_FASTCALL, find_class_doc},
    {"__sizeof__", (PyCFunction)method_sizeof, METH_NOARGS, sizeof_doc},
    {NULL},
};

/* -- Its attributes ----------------------------------------------------------------------------- */

/* Until 3.12 there is no persistent_load but the user's; since 3.13 there is a method that
 * refuses, and the attribute can be taken away again. */
#if PY_VERSION_HEX >= 0x030D0000
static PyObject *refuse_persistent_load(PyObject *self, PyObject *pid) {
    PyErr_SetString(kinx_unpickling_error(((unpickler_object *)self)->u.us),
                    KINX_NO_PERSISTENT_LOAD);
    return NULL;
}

static PyMethodDef refusing = {"persistent_load", refuse_persistent_load, METH_O,
                               "persistent_load($self, pid, /)\n--\n\n"};

static PyObject *get_persistent_load(unpickler_object *self, void *unused) {
    if (self->persistent_load) return Py_NewRef(self->persistent_load);
    return PyCFunction_New(&refusing, (PyObject *)self);
}

static int set_persistent_load(unpickler_object *self, PyObject *value, void *unused) {
    if (!value && !self->persistent_load) {
        PyErr_SetString(PyExc_AttributeError, "persistent_load");
        return -1;
    }
    Py_XSETREF(self->persistent_load, Py_XNewRef(value));
    return 0;
}
#else
static PyObject *get_persistent_load(unpickler_object *self, void *unused) {
    if (self->persistent_load) return Py_NewRef(self->persistent_load);
    PyErr_SetString(PyExc_AttributeError, "persistent_load");
    return NULL;
}

static int set_persistent_load(unpickler_object *self, PyObject *value, void *unused) {
    if (!value || !PyCallable_Check(value)) {
        PyErr_SetString(PyExc_TypeError,
                        value ? "persistent_load must be a callable taking one argument"
                              : "attribute deletion is not supported");
        return -1;
    }
    Py_XSETREF(self->persistent_load, Py_NewRef(value));
    return 0;
}
#endif

static PyObject *get_memo(unpickler_object *self, void *unused) {
    PyTypeObject *type = self->u.us->proxy_type;
    proxy_object *proxy = (proxy_object *)type->tp_alloc(type, 0);
    if (proxy) proxy->unpickler = (unpickler_object *)Py_NewRef(self);
    return (PyObject *)proxy;
}

/* The memo that a dict of indices and objects stands for. */
static int memo_of_dict(kinx_memo_table *memo, PyObject *dict) {
    PyObject *key, *value;
    Py_ssize_t at = 0;
    while (PyDict_Next(dict, &at, &key, &value)) {
        if (!PyLong_Check(key)) {
            PyErr_SetString(PyExc_TypeError, "memo key must be integers");
            return -1;
        }
        Py_ssize_t index = PyLong_AsSsize_t(key);
        if (index == -1 && PyErr_Occurred()) return -1;
        if (index < 0) {
            PyErr_SetString(PyExc_ValueError, "memo key must be positive integers.");
            return -1;
        }
        if (kinx_memo_put(memo, (size_t)index, value) < 0) return -1;
    }
    return 0;
}

static int set_memo_dict(unpickler_object *self, PyObject *dict) {
    kinx_memo_table made = {0};
    int err = memo_of_dict(&made, dict);
    if (err == 0) {
        kinx_memo_table old = self->u.memo;
        self->u.memo = made;
        made = old;
    }
    kinx_memo_drop(&made);
    return err;
}

static int set_memo(unpickler_object *self, PyObject *value, void *unused) {
    if (!value) {
        PyErr_SetString(PyExc_TypeError, "attribute deletion is not supported");
        return -1;
    }
    if (PyDict_Check(value)) return set_memo_dict(self, value);
    if (!Py_IS_TYPE(value, self->u.us->proxy_type)) {
        PyErr_Format(PyExc_TypeError,
                     "'memo' attribute must be an UnpicklerMemoProxy object or dict, not %.200s",
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    PyObject *dict = kinx_memo_as_dict(&((proxy_object *)value)->unpickler->u.memo);
    int err = dict ? set_memo_dict(self, dict) : -1;
    Py_XDECREF(dict);
    return err;
}

static PyGetSetDef unpickler_getset[] = {
    {"memo", (getter)get_memo, (setter)set_memo},
    {"persistent_load", (getter)get_persistent_load, (setter)set_persistent_load},
    {NULL},
};

PyDoc_STRVAR(unpickler_doc,
             "Unpickler(file, *, fix_imports=True, encoding='ASCII', errors='strict',\n"
             "          buffers=())\n--\n\n"
             "Loads the pickles of a file, which has read(n) and readline().\n\n"
             "The other arguments are those of loads().  A subclass may override find_class() and\n"
             "persistent_load().");

static PyType_Slot unpickler_slots[] = {
    {Py_tp_doc, (char *)unpickler_doc},
    {Py_tp_new, unpickler_new},
    {Py_tp_init, unpickler_init},
    {Py_tp_dealloc, unpickler_dealloc},
    {Py_tp_traverse, unpickler_traverse},
    {Py_tp_clear, unpickler_clear},
    {Py_tp_methods, unpickler_methods},
    {Py_tp_getset, unpickler_getset},
    {0, NULL},
};

static PyType_Spec unpickler_spec = {
    .name = "kinfolk._kin.Unpickler",
    .basicsize = sizeof(unpickler_object),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = unpickler_slots,
};

/* -- The memo's proxy ------------------------------------------------------------------------------ */

static int proxy_traverse(proxy_object *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->unpickler);
    return 0;
}

static int proxy_clear(proxy_object *self) {
    Py_CLEAR(self->unpickler);
    return 0;
}

static void proxy_dealloc(proxy_object *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    proxy_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *proxy_clear_memo(proxy_object *self, PyObject *unused) {
    kinx_memo_drop(&self->unpickler->u.memo);
    Py_RETURN_NONE;
}

static PyObject *proxy_copy(proxy_object *self, PyObject *unused) {
    return kinx_memo_as_dict(&self->unpickler->u.memo);
}

static PyObject *proxy_reduce(proxy_object *self, PyObject *unused) {
    PyObject *dict = proxy_copy(self, NULL);
    return dict ? Py_BuildValue("O(N)", &PyDict_Type, dict) : NULL;
}

static PyMethodDef proxy_methods[] = {
    {"clear", (PyCFunction)proxy_clear_memo, METH_NOARGS,
     "clear($self, /)\n--\n\nRemove all items from memo."},
    {"copy", (PyCFunction)proxy_copy, METH_NOARGS,
     "copy($self, /)\n--\n\nCopy the memo to a new object."},
    {"__reduce__", (PyCFunction)proxy_reduce, METH_NOARGS,
     "__reduce__($self, /)\n--\n\nImplement pickling support."},
    {NULL},
};

static PyType_Slot proxy_slots[] = {
    {Py_tp_dealloc, proxy_dealloc},
    {Py_tp_traverse, proxy_traverse},
    {Py_tp_clear, proxy_clear},
    {Py_tp_methods, proxy_methods},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {0, NULL},
};

static PyType_Spec proxy_spec = {
    .name = "kinfolk._kin.UnpicklerMemoProxy",
    .basicsize = sizeof(proxy_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = proxy_slots,
};

/* -- The state ------------------------------------------------------------------------------------------ */

PyObject *kinx_unpickling_error(kinx_unpickler_state *us) {
    return kinx_import_error(&us->error, "_pickle", "UnpicklingError");
}

/* How the type machinery gives __dict__: as found in a class made for that. */
static int find_plain_dict(kinx_unpickler_state *us) {
    PyObject *plain = PyObject_CallFunction((PyObject *)&PyType_Type, "s(){}", "plain");
    if (!plain) return -1;
    PyObject *dict = PyObject_GetAttr(plain, us->str_dict); /* a mapping proxy */
    PyObject *descr = dict ? PyObject_GetItem(dict, us->str_dict) : NULL;
    if (descr && Py_IS_TYPE(descr, &PyGetSetDescr_Type)) {
        us->plain_dict = ((PyGetSetDescrObject *)descr)->d_getset->get;
    }
    Py_XDECREF(dict);
    Py_XDECREF(descr);
    Py_DECREF(plain);
    return descr ? 0 : -1;
}

static int fill_state(kinx_unpickler_state *us, PyObject *module) {
#define MAKE_(name, text) \
    if (!(us->str_##name = PyUnicode_InternFromString(text))) return -1;
    KINX_UNPICKLER_STRINGS(MAKE_)
#undef MAKE_
    for (long i = 0; i < KINX_SMALL; i++) {
        if (!(us->small[i] = PyLong_FromLong(i))) return -1;
    }
    if (!(us->empty_tuple = PyTuple_New(0))) return -1;
    if (!kinx_import(&us->import, "builtins", "__import__")) return -1;
    us->own_dict = PyModule_GetDict(module);
    kinx_ahead_table(us->ahead);
    return find_plain_dict(us);
}

int kinx_unpickler_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    kinx_unpickler_state *us = PyMem_Calloc(1, sizeof *us);
    if (!us) {
        PyErr_NoMemory();
        return -1;
    }
    st->unpickler = us;
    if (fill_state(us, module) < 0) return -1;
    us->proxy_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &proxy_spec, NULL);
    if (!us->proxy_type) return -1;
    if (kinx_add_type(module, &unpickler_spec, NULL, &us->unpickler_type) < 0) return -1;
    return PyModule_AddFunctions(module, functions);
}

/* Calls `visit` for each reference of us. */
#define EACH(visit, us)                                                  \
    do {                                                                 \
        visit((us)->unpickler_type);                                     \
        visit((us)->proxy_type);                                         \
        visit((us)->error);                                              \
        visit((us)->empty_tuple);                                        \
        visit((us)->import);                                             \
        visit((us)->name_mapping);                                       \
        visit((us)->import_mapping);                                     \
        visit((us)->extension_cache);                                    \
        visit((us)->inverted_registry);                                  \
        for (size_t i_ = 0; i_ < KINX_KEYS; i_++) visit((us)->keys[i_]); \
    } while (0)

int kinx_unpickler_visit(kinx_state *st, visitproc visit, void *arg) {
    kinx_unpickler_state *us = st->unpickler;
    if (us) EACH(Py_VISIT, us);
    return 0;
}

void kinx_unpickler_clear(kinx_state *st) {
    kinx_unpickler_state *us = st->unpickler;
    st->unpickler = NULL;
    if (!us) return;
    EACH(Py_CLEAR, us);
    for (size_t i = 0; i < KINX_SMALL; i++) Py_CLEAR(us->small[i]);
#define DROP_(name, text) Py_CLEAR(us->str_##name);
    KINX_UNPICKLER_STRINGS(DROP_)
#undef DROP_
    PyMem_Free(us);
}
