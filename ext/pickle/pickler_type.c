/* Pickler, the type: a pickler with a memo that lasts, for the user to subclass. */
#include "by_value.h"
#include "dump.h"
#include "library.h"

#if PY_VERSION_HEX >= 0x030C0000
#define MEMBER_INT Py_T_INT
#define MEMBER_OBJECT Py_T_OBJECT_EX
#else
#define MEMBER_INT T_INT
#define MEMBER_OBJECT T_OBJECT_EX
#endif

typedef struct pickler {
    PyObject_HEAD
    kinx_pickler core; /* between dumps only its options and its memo count */
    PyObject *write, *buffer_callback, *dispatch_table, *persistent_id;
    int fast, bin, protocol;
    bool running;
} pickler;

static struct kinx_pickler_state *state_of(pickler *self) {
    return self->core.ps;
}

/* -- Life ------------------------------------------------------------------------------ */

static PyObject *pickler_new(PyTypeObject *type, PyObject *args, PyObject *kwds) {
    kinx_state *st = kinx_state_of_type(type);
    pickler *self = st ? (pickler *)type->tp_alloc(type, 0) : NULL;
    if (!self) return NULL;
    self->core.st = st;
    self->core.ps = st->pickler;
    self->core.by_value = true;
    return (PyObject *)self;
}

static int pickler_init(pickler *self, PyObject *args, PyObject *kwds) {
    static char *names[] = {"file", "protocol", "fix_imports", "buffer_callback", "by_value", NULL};
    PyObject *file, *given = NULL, *callback = NULL;
    int fix_imports = 1, by_value = self->core.by_value, protocol;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "O|OpO$p:Pickler", names, &file, &given,
                                     &fix_imports, &callback, &by_value)) {
        return -1;
    }
    if (kinx_parse_protocol(given, callback, &protocol) < 0) return -1;
    PyObject *write = kinx_write_method(state_of(self), file);
    if (!write) return -1;
    Py_XSETREF(self->write, write);
    Py_XSETREF(self->buffer_callback, callback == Py_None ? NULL : Py_XNewRef(callback));
    self->core.fix_imports = fix_imports;
    self->core.by_value = by_value;
    self->core.protocol = self->protocol = protocol;
    self->bin = protocol > 0;
    self->fast = 0;
    kinx_memo_clear(&self->core.memo);
    return 0;
}

static int pickler_traverse(pickler *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->write);
    Py_VISIT(self->buffer_callback);
    Py_VISIT(self->dispatch_table);
    Py_VISIT(self->persistent_id);
    for (size_t i = 0; i < self->core.memo.count; i++) Py_VISIT(self->core.memo.objects[i]);
    return 0;
}

static int pickler_clear(pickler *self) {
    Py_CLEAR(self->write);
    Py_CLEAR(self->buffer_callback);
    Py_CLEAR(self->dispatch_table);
    Py_CLEAR(self->persistent_id);
    if (!self->running) kinx_memo_fini(&self->core.memo);
    return 0;
}

static void pickler_dealloc(pickler *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    pickler_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static int check_ready(pickler *self) {
    if (self->write && !self->running) return 0;
    if (self->write) {
        PyErr_SetString(PyExc_RuntimeError,
                        "this Pickler is at work: dump() was called from within");
    } else {
        PyErr_Format(kinx_pickling_error(state_of(self)),
                     "Pickler.__init__() was not called by %s.__init__()", Py_TYPE(self)->tp_name);
    }
    return -1;
}

/* -- dump() ------------------------------------------------------------------------------- */

/* The hooks that are ours: what finds one of them has not been overridden. */
static PyObject *pickler_reducer_override(pickler *self, PyObject *obj);
static PyObject *no_persistent_id(PyObject *self, PyObject *obj);

static bool is_ours(PyObject *method, PyCFunction function) {
    return PyCFunction_Check(method) && PyCFunction_GET_FUNCTION(method) == function;
}

/* The hook that a base behind ours has, bound: the standard library's pickler has none that
 * could hide it.  New reference, or NULL. */
static PyObject *hidden_hook(pickler *self, PyObject *name) {
    PyObject *mro = Py_TYPE(self)->tp_mro;
    bool behind = false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(mro); i++) {
        PyTypeObject *base = (PyTypeObject *)PyTuple_GET_ITEM(mro, i);
        PyObject *found = behind ? kinx_own_attr(base, name) : NULL; /* borrowed */
        if (base == state_of(self)->pickler_type) behind = true;
        if (!found) continue;
        descrgetfunc bind = Py_TYPE(found)->tp_descr_get;
        return bind ? bind(found, (PyObject *)self, (PyObject *)Py_TYPE(self)) : Py_NewRef(found);
    }
    return NULL;
}

/* The hook `name` of self: a new reference, or NULL if it is `ours` or there is none. */
static int get_hook(pickler *self, PyObject *name, PyCFunction ours, PyObject **hook) {
    int there = kinx_lookup_attr((PyObject *)self, name, hook);
    if (there > 0 && is_ours(*hook, ours)) {
        Py_SETREF(*hook, hidden_hook(self, name));
        if (!*hook && PyErr_Occurred()) there = -1;
    }
    return there < 0 ? -1 : 0;
}

/* self.name as a truth value: subclasses may set it in the class. */
static int get_flag(pickler *self, const char *name, bool *flag) {
    PyObject *value = PyObject_GetAttrString((PyObject *)self, name);
    int yes = value ? PyObject_IsTrue(value) : -1;
    Py_XDECREF(value);
    if (yes < 0) return -1;
    *flag = yes;
    return 0;
}

/* References that hold as long as one dump. */
typedef struct hooks {
    PyObject *override, *persistent_id, *dispatch_table;
} hooks;

static void hooks_fini(hooks *h) {
    Py_XDECREF(h->override);
    Py_XDECREF(h->persistent_id);
    Py_XDECREF(h->dispatch_table);
}

static int hooks_init(pickler *self, hooks *h) {
    struct kinx_pickler_state *ps = state_of(self);
    kinx_pickler *p = &self->core;
    *h = (hooks){NULL};
    bool exact = Py_IS_TYPE(self, ps->pickler_type);
    if (get_hook(self, ps->names.dispatch_table, NULL, &h->dispatch_table) < 0) return -1;
    if (exact) {
        h->persistent_id = Py_XNewRef(self->persistent_id);
    } else {
        if (get_hook(self, ps->names.persistent_id, no_persistent_id, &h->persistent_id) < 0) {
            return -1;
        }
        if (get_hook(self, ps->names.reducer_override, (PyCFunction)pickler_reducer_override,
                     &h->override) < 0) {
            return -1;
        }
        if (get_flag(self, "by_value", &p->by_value) < 0) return -1;
        if (get_flag(self, "kin", &p->kin) < 0) return -1;
    }
    p->dispatch_table = h->dispatch_table;
    p->persistent_id = h->persistent_id;
    p->reducer_override = h->override;
    p->buffer_callback = self->buffer_callback;
    p->fast = self->fast;
    return 0;
}

static int dump_with(pickler *self, PyObject *obj) {
    kinx_output out;
    kinx_pickler *p = &self->core;
    if (kinx_output_init(&out, p->ps, p, self->write, false) < 0) return -1;
    int err = kinx_pickle(p, obj, false);
    kinx_output_fini(&out);
    if (err < 0) kinx_trail_explain(p, obj);
    kinx_memo_fini(&p->classes);
    Py_CLEAR(p->trail);
    Py_CLEAR(p->fast_seen);
    Py_CLEAR(p->homes);
    p->fast_depth = 0;
    p->dispatch_table = p->persistent_id = p->reducer_override = p->buffer_callback = NULL;
    return err;
}

static PyObject *pickler_dump(pickler *self, PyObject *obj) {
    if (check_ready(self) < 0) return NULL;
    hooks h;
    PyObject *callback = Py_XNewRef(self->buffer_callback), *write = Py_NewRef(self->write);
    int err = hooks_init(self, &h);
    if (err == 0 && check_ready(self) == 0) {
        self->running = true;
        err = dump_with(self, obj);
        self->running = false;
    } else {
        err = -1;
    }
    hooks_fini(&h);
    Py_XDECREF(callback);
    Py_DECREF(write);
    if (err < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *pickler_reducer_override(pickler *self, PyObject *obj) {
    if (!self->core.by_value) Py_RETURN_NOTIMPLEMENTED;
    return kinx_reduce_by_value(&self->core, obj);
}

static PyObject *pickler_clear_memo(pickler *self, PyObject *unused) {
    if (check_ready(self) < 0) return NULL;
    kinx_memo_clear(&self->core.memo);
    Py_RETURN_NONE;
}

static PyObject *pickler_sizeof(pickler *self, PyObject *unused) {
    size_t size = (size_t)Py_TYPE(self)->tp_basicsize;
    const kinx_memo *memo = &self->core.memo;
    size += memo->cap * sizeof *memo->objects;
    if (memo->slots) size += sizeof *memo->slots << memo->bits;
    return PyLong_FromSize_t(size);
}

/* -- persistent_id: a method to be overridden, or an attribute ------------------------------- */

static PyObject *no_persistent_id(PyObject *self, PyObject *obj) {
    Py_RETURN_NONE;
}

static PyMethodDef no_persistent_id_def = {"persistent_id", no_persistent_id, METH_O, NULL};

static PyObject *get_persistent_id(pickler *self, void *closure) {
    if (self->persistent_id) return Py_NewRef(self->persistent_id);
#if PY_VERSION_HEX >= 0x030D0000
    return PyCFunction_New(&no_persistent_id_def, (PyObject *)self);
#else
    PyErr_SetString(PyExc_AttributeError, "persistent_id");
    return NULL;
#endif
}

static int set_persistent_id(pickler *self, PyObject *value, void *closure) {
    if (!value) {
        PyErr_SetString(PyExc_TypeError, "attribute deletion is not supported");
        return -1;
    }
    if (!PyCallable_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "persistent_id must be a callable taking one argument");
        return -1;
    }
    Py_XSETREF(self->persistent_id, Py_NewRef(value));
    return 0;
}

/* -- The memo as the user sees it: {id(obj): (index, obj)} ------------------------------------- */

typedef struct memo_proxy {
    PyObject_HEAD
    pickler *owner;
} memo_proxy;

static PyObject *memo_copy(memo_proxy *self, PyObject *unused) {
    const kinx_memo *memo = &self->owner->core.memo;
    PyObject *copy = PyDict_New();
    for (size_t i = 0; copy && i < memo->count; i++) {
        PyObject *key = PyLong_FromVoidPtr(memo->objects[i]);
        PyObject *value = Py_BuildValue("nO", (Py_ssize_t)i, memo->objects[i]);
        if (!key || !value || PyDict_SetItem(copy, key, value) < 0) Py_CLEAR(copy);
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return copy;
}

static PyObject *memo_reduce(memo_proxy *self, PyObject *unused) {
    PyObject *copy = memo_copy(self, NULL);
    return copy ? Py_BuildValue("O(N)", &PyDict_Type, copy) : NULL;
}

static PyObject *memo_clear(memo_proxy *self, PyObject *unused) {
    return pickler_clear_memo(self->owner, NULL);
}

static int memo_traverse(memo_proxy *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->owner);
    return 0;
}

static int memo_tp_clear(memo_proxy *self) {
    return 0; /* the owner breaks the cycle; it is needed as long as this is there */
}

static void memo_dealloc(memo_proxy *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->owner);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef memo_methods[] = {
    {"clear", (PyCFunction)memo_clear, METH_NOARGS, "Forget everything."},
    {"copy", (PyCFunction)memo_copy, METH_NOARGS, "A dict of what has been pickled."},
    {"__reduce__", (PyCFunction)memo_reduce, METH_NOARGS, NULL},
    {NULL},
};

static PyType_Slot memo_slots[] = {
    {Py_tp_dealloc, memo_dealloc},
    {Py_tp_traverse, memo_traverse},
    {Py_tp_clear, memo_tp_clear},
    {Py_tp_methods, memo_methods},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {0, NULL},
};

static PyType_Spec memo_spec = {
    .name = "kinfolk.pickle.PicklerMemoProxy",
    .basicsize = sizeof(memo_proxy),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = memo_slots,
};

static PyObject *get_memo(pickler *self, void *closure) {
    PyTypeObject *type = state_of(self)->memo_type;
    memo_proxy *proxy = (memo_proxy *)type->tp_alloc(type, 0);
    if (proxy) proxy->owner = (pickler *)Py_NewRef((PyObject *)self);
    return (PyObject *)proxy;
}

/* Indices count from 0 without a gap: they are the places in the memo. */
static int memo_of_dict(PyObject *dict, kinx_memo *memo) {
    Py_ssize_t count = PyDict_GET_SIZE(dict);
    PyObject **objects = PyMem_Calloc((size_t)count + 1, sizeof *objects);
    if (!objects) return kinx_raise_writer(-ENOMEM);
    PyObject *key, *value;
    Py_ssize_t place = 0;
    int err = 0;
    while (err == 0 && PyDict_Next(dict, &place, &key, &value)) {
        err = -1;
        if (!PyTuple_Check(value) || PyTuple_GET_SIZE(value) != 2) {
            PyErr_SetString(PyExc_TypeError, "'memo' values must be 2-item tuples");
            break;
        }
        Py_ssize_t index = PyLong_AsSsize_t(PyTuple_GET_ITEM(value, 0));
        if (index == -1 && PyErr_Occurred()) break;
        if (index < 0 || index >= count || objects[index]) {
            PyErr_SetString(PyExc_ValueError, "'memo' indices must count from 0 without a gap");
            break;
        }
        objects[index] = PyTuple_GET_ITEM(value, 1);
        err = 0;
    }
    for (Py_ssize_t i = 0; err == 0 && i < count; i++) err = kinx_memo_add(memo, objects[i]);
    PyMem_Free(objects);
    return err;
}

static int set_memo(pickler *self, PyObject *value, void *closure) {
    if (!value) {
        PyErr_SetString(PyExc_TypeError, "attribute deletion is not supported");
        return -1;
    }
    PyObject *dict = NULL;
    if (Py_IS_TYPE(value, state_of(self)->memo_type)) dict = memo_copy((memo_proxy *)value, NULL);
    else if (PyDict_Check(value)) dict = PyDict_Copy(value);
    else {
        PyErr_Format(PyExc_TypeError,
                     "'memo' attribute must be a PicklerMemoProxy object or dict, not %.200s",
                     Py_TYPE(value)->tp_name);
    }
    if (!dict) return -1;
    kinx_memo memo = {NULL};
    int err = memo_of_dict(dict, &memo);
    if (err == 0) {
        kinx_memo old = self->core.memo;
        self->core.memo = memo;
        memo = old;
    }
    kinx_memo_fini(&memo);
    Py_DECREF(dict);
    return err;
}

/* -- The types ---------------------------------------------------------------------------------- */

static PyObject *get_by_value(pickler *self, void *closure) {
    return PyBool_FromLong(self->core.by_value);
}

static int set_by_value(pickler *self, PyObject *value, void *closure) {
    int yes = value ? PyObject_IsTrue(value) : 0;
    if (yes >= 0) self->core.by_value = yes;
    return yes < 0 ? -1 : 0;
}

static PyObject *get_kin(pickler *self, void *closure) {
    return PyBool_FromLong(self->core.kin);
}

static int set_kin(pickler *self, PyObject *value, void *closure) {
    int yes = value ? PyObject_IsTrue(value) : 0;
    if (yes >= 0) self->core.kin = yes;
    return yes < 0 ? -1 : 0;
}

static PyGetSetDef pickler_getset[] = {
    {"memo", (getter)get_memo, (setter)set_memo, "What has been pickled.", NULL},
    {"persistent_id", (getter)get_persistent_id, (setter)set_persistent_id, NULL, NULL},
    {"by_value", (getter)get_by_value, (setter)set_by_value,
     "Whether what cannot be imported is pickled by value.", NULL},
    {"kin", (getter)get_kin, (setter)set_kin,
     "Whether the receivers are members of this program's family.", NULL},
    {NULL},
};

static PyMemberDef pickler_members[] = {
    {"bin", MEMBER_INT, offsetof(pickler, bin), 0, NULL},
    {"fast", MEMBER_INT, offsetof(pickler, fast), 0, "Whether to do without a memo."},
    {"protocol", MEMBER_INT, offsetof(pickler, protocol), Py_READONLY, NULL},
    {"dispatch_table", MEMBER_OBJECT, offsetof(pickler, dispatch_table), 0, NULL},
    {NULL},
};

PyDoc_STRVAR(dump_doc, "dump($self, obj, /)\n--\n\nWrite the pickle of obj to the file.");
PyDoc_STRVAR(clear_memo_doc, "clear_memo($self, /)\n--\n\n"
                             "Forget what has been pickled: it is pickled again in full.");
PyDoc_STRVAR(override_doc,
             "reducer_override($self, obj, /)\n--\n\n"
             "The reduction of obj by value; NotImplemented where the standard one is right.");

static PyMethodDef pickler_methods[] = {
    {"dump", (PyCFunction)pickler_dump, METH_O, dump_doc},
    {"clear_memo", (PyCFunction)pickler_clear_memo, METH_NOARGS, clear_memo_doc},
    {"reducer_override", (PyCFunction)pickler_reducer_override, METH_O, override_doc},
    {"__sizeof__", (PyCFunction)pickler_sizeof, METH_NOARGS, NULL},
    {NULL},
};

PyDoc_STRVAR(pickler_doc,
             "Pickler(file, protocol=None, fix_imports=True, buffer_callback=None, *,\n"
             "        by_value=True)\n--\n\n"
             "Writes pickles to file: see kinfolk.pickle.");

static PyType_Slot pickler_slots[] = {
    {Py_tp_new, pickler_new},         {Py_tp_init, pickler_init},
    {Py_tp_dealloc, pickler_dealloc}, {Py_tp_traverse, pickler_traverse},
    {Py_tp_clear, pickler_clear},     {Py_tp_methods, pickler_methods},
    {Py_tp_members, pickler_members}, {Py_tp_getset, pickler_getset},
    {Py_tp_doc, (void *)pickler_doc}, {0, NULL},
};

static PyType_Spec pickler_spec = {
    .name = "kinfolk.pickle.Pickler",
    .basicsize = sizeof(pickler),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = pickler_slots,
};

int kinx_pickler_types_exec(PyObject *module) {
    struct kinx_pickler_state *ps = kinx_state_of(module)->pickler;
    ps->memo_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &memo_spec, NULL);
    if (!ps->memo_type) return -1;
    return kinx_add_type(module, &pickler_spec, NULL, &ps->pickler_type);
}
