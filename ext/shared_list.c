/* SharedList: a list in the arena, served by no one.  As SharedDict (shared_dict.c) it is a base,
 * of what has to be one step or fast; kinfolk.shared_list has the rest. */
#include "args.h"
#include "entry.h"
#include "errors.h"

static void *raise(kinx_shared *self, kin_err err) {
    return kinx_raise(self->state, err, Py_TYPE(self)->tp_name);
}

static void *raise_range(const char *text) {
    PyErr_SetString(PyExc_IndexError, text);
    return NULL;
}

/* The entry of an item; raises also if the list was never made. */
static int make(kinx_shared *self, PyObject *value, kin_entry *out) {
    if (self->handle.family) return kinx_entry_init(self->state, NULL, NULL, value, out);
    kinx_raise_not_open(self);
    return -1;
}

static int index_of(PyObject *obj, int64_t *out) {
    Py_ssize_t index = PyNumber_AsSsize_t(obj, PyExc_IndexError);
    *out = index;
    return index == -1 && PyErr_Occurred() ? -1 : 0;
}

/* -- Single items --------------------------------------------------------------------------- */

static PyObject *get_at(kinx_shared *self, int64_t index) {
    KINX_CHECK_OPEN(self);
    kin_found found;
    kin_err err;
    KINX_TABLE(err, kin_list_get(&self->list, index, &found, until));
    if (err == -ENOENT) return raise_range("list index out of range");
    return err < 0 ? raise(self, err) : kinx_found_value(self->state, &found);
}

static int set_at(kinx_shared *self, int64_t index, PyObject *value) {
    kin_entry entry;
    if (make(self, value, &entry) < 0) return -1;
    kin_err err;
    KINX_TABLE(err, kin_list_set(&self->list, index, &entry, until));
    if (err == 0) return 0;
    kin_entry_free(&entry);
    if (err == -ENOENT) raise_range("list assignment index out of range");
    else raise(self, err);
    return -1;
}

static int delete_at(kinx_shared *self, int64_t index) {
    kin_err err;
    if (!self->handle.family) {
        kinx_raise_not_open(self);
        return -1;
    }
    KINX_TABLE(err, kin_list_take(&self->list, index, NULL, until));
    if (err == 0) return 0;
    if (err == -ENOENT) raise_range("list assignment index out of range");
    else raise(self, err);
    return -1;
}

/* Slices are kinfolk.shared_list's. */
static PyObject *subscript(kinx_shared *self, PyObject *index) {
    int64_t at;
    if (PySlice_Check(index))
        return PyObject_CallMethod((PyObject *)self, "_get_slice", "O", index);
    return index_of(index, &at) < 0 ? NULL : get_at(self, at);
}

static int ass_subscript(kinx_shared *self, PyObject *index, PyObject *value) {
    int64_t at;
    if (!PySlice_Check(index)) {
        if (index_of(index, &at) < 0) return -1;
        return value ? set_at(self, at, value) : delete_at(self, at);
    }
    PyObject *done = value ? PyObject_CallMethod((PyObject *)self, "_set_slice", "OO", index, value)
                           : PyObject_CallMethod((PyObject *)self, "_delete_slice", "O", index);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static PyObject *append(kinx_shared *self, PyObject *value) {
    kin_entry entry;
    if (make(self, value, &entry) < 0) return NULL;
    kin_err err;
    KINX_TABLE(err, kin_list_append(&self->list, &entry, until));
    if (err == 0) Py_RETURN_NONE;
    kin_entry_free(&entry);
    return raise(self, err);
}

static PyObject *insert(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_positional("insert", nargs, 2, 2)) return NULL;
    Py_ssize_t index = PyNumber_AsSsize_t(args[0], NULL); /* clamped, as list has it */
    kin_entry entry;
    if ((index == -1 && PyErr_Occurred()) || make(self, args[1], &entry) < 0) return NULL;
    kin_err err;
    KINX_TABLE(err, kin_list_insert(&self->list, index, &entry, until));
    if (err == 0) Py_RETURN_NONE;
    kin_entry_free(&entry);
    return raise(self, err);
}

static PyObject *pop(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs) {
    int64_t index = -1;
    if (!kinx_positional("pop", nargs, 0, 1)) return NULL;
    if (nargs && index_of(args[0], &index) < 0) return NULL;
    KINX_CHECK_OPEN(self);
    kin_found found;
    kin_err err;
    KINX_TABLE(err, kin_list_take(&self->list, index, &found, until));
    if (err == 0) return kinx_found_value(self->state, &found);
    if (err != -ENOENT) return raise(self, err);
    return raise_range(kin_list_len(&self->list) ? "pop index out of range"
                                                 : "pop from empty list");
}

static Py_ssize_t length(kinx_shared *self) {
    if (self->handle.family) return (Py_ssize_t)kin_list_len(&self->list);
    kinx_raise_not_open(self);
    return -1;
}

/* -- Many items at one moment ------------------------------------------------------------------- */

typedef struct snapshot {
    kin_found *found; /* its bytes follow, for what was copied */
    size_t count, room;
    uint64_t version;
} snapshot;

/* Without the GIL: malloc. */
static kin_err keep(void *context, kin_found *found) {
    snapshot *s = context;
    if (s->count == s->room) {
        size_t room = 2 * s->room + 16;
        kin_found *grown = realloc(s->found, room * sizeof *grown);
        if (!grown) {
            kin_found_drop(found);
            return -ENOMEM;
        }
        s->found = grown;
        s->room = room;
    }
    s->found[s->count++] = *found;
    return 0;
}

static void snapshot_fini(snapshot *s, size_t from) {
    for (size_t i = from; i < s->count; i++) kin_found_drop(&s->found[i]);
    free(s->found);
}

static PyObject *load_all(kinx_shared *self, snapshot *s) {
    PyObject *values = PyList_New((Py_ssize_t)s->count);
    size_t i = 0;
    for (; values && i < s->count; i++) {
        kin_found *found = &s->found[i];
        if (!found->hold.family) { /* it has moved since it was copied */
            found->key = found->buffer;
            found->value = found->buffer + found->key_len;
        }
        PyObject *value = kinx_found_value(self->state, found);
        if (value) PyList_SET_ITEM(values, (Py_ssize_t)i, value);
        else Py_CLEAR(values);
    }
    snapshot_fini(s, i);
    return values;
}

/* (values from start to stop, version). */
static PyObject *values(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs) {
    int64_t bounds[2] = {0, INT64_MAX};
    if (!kinx_positional("_values", nargs, 0, 2)) return NULL;
    for (Py_ssize_t i = 0; i < nargs; i++) {
        bounds[i] = PyNumber_AsSsize_t(args[i], NULL);
        if (bounds[i] == -1 && PyErr_Occurred()) return NULL;
    }
    KINX_CHECK_OPEN(self);
    snapshot s = {0};
    kin_err err;
    KINX_TABLE(err, kin_list_each(&self->list, bounds[0], bounds[1], keep, &s, &s.version, until));
    if (err < 0) {
        snapshot_fini(&s, 0);
        return raise(self, err);
    }
    unsigned long long version = s.version;
    PyObject *list = load_all(self, &s);
    return list ? Py_BuildValue("NK", list, version) : NULL;
}

/* The entries of a sequence's items; NULL, and raises.  To be freed. */
static kin_entry *entries_of(kinx_shared *self, PyObject *sequence, size_t *count) {
    Py_ssize_t len = PySequence_Fast_GET_SIZE(sequence);
    kin_entry *entries = PyMem_Calloc((size_t)len + 1, sizeof *entries);
    if (!entries) PyErr_NoMemory();
    for (*count = 0; entries && (Py_ssize_t)*count < len; ++*count) {
        /* pickling runs code, which may change the sequence */
        if (PySequence_Fast_GET_SIZE(sequence) != len) {
            PyErr_SetString(PyExc_RuntimeError, "the sequence was changed while it was pickled");
        } else if (make(self, PySequence_Fast_GET_ITEM(sequence, *count), &entries[*count]) == 0) {
            continue;
        }
        for (size_t i = 0; i < *count; i++) kin_entry_free(&entries[i]);
        PyMem_Free(entries);
        return NULL;
    }
    return entries;
}

static void free_entries(kin_entry *entries, size_t count) {
    for (size_t i = 0; i < count; i++) kin_entry_free(&entries[i]);
    PyMem_Free(entries);
}

static PyObject *extend(kinx_shared *self, PyObject *iterable) {
    PyObject *sequence = PySequence_List(iterable);
    size_t count, done = 0;
    kin_entry *entries = sequence ? entries_of(self, sequence, &count) : NULL;
    Py_XDECREF(sequence);
    if (!entries) return NULL;
    kin_err err;
    KINX_TABLE(err, kin_list_extend(&self->list, entries, count, &done, until));
    free_entries(entries, count);
    if (err < 0) return raise(self, err);
    Py_RETURN_NONE;
}

static int order_of(PyObject *sequence, int64_t **out, size_t *count) {
    Py_ssize_t len = PyList_GET_SIZE(sequence);
    *count = (size_t)len;
    *out = PyMem_Malloc(((size_t)len + 1) * sizeof **out);
    if (!*out) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < len; i++) {
        (*out)[i] = PyLong_AsLongLong(PyList_GET_ITEM(sequence, i));
        if ((*out)[i] != -1 || !PyErr_Occurred()) continue;
        PyMem_Free(*out);
        return -1;
    }
    return 0;
}

/* _rearrange(order, items, version): whether it had the version. */
static PyObject *rearrange(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_positional("_rearrange", nargs, 3, 3)) return NULL;
    if (!PyList_Check(args[0]) || !PyList_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "_rearrange() takes two lists and a version");
        return NULL;
    }
    uint64_t version = args[2] == Py_None ? KIN_ANY_VERSION : PyLong_AsUnsignedLongLong(args[2]);
    if (PyErr_Occurred()) return NULL;
    int64_t *order;
    size_t count, entry_count;
    kin_entry *entries = entries_of(self, args[1], &entry_count);
    if (!entries) return NULL;
    if (order_of(args[0], &order, &count) < 0) {
        free_entries(entries, entry_count);
        return NULL;
    }
    kin_err err;
    KINX_TABLE(err,
               kin_list_rearrange(&self->list, version, order, count, entries, entry_count, until));
    PyMem_Free(order);
    free_entries(entries, entry_count);
    if (err == -ESTALE) Py_RETURN_FALSE;
    if (err < 0) return raise(self, err);
    Py_RETURN_TRUE;
}

/* -- The type ------------------------------------------------------------------------------------ */

static int init(kinx_shared *self, PyObject *args, PyObject *kwds) {
    kin_family *family = kinx_shared_init(self);
    if (!family) return -1;
    kin_err err = kin_list_create(family, &self->list);
    if (err < 0) raise(self, err);
    return err < 0 ? -1 : 0;
}

static PyObject *item(kinx_shared *self, Py_ssize_t index) {
    return get_at(self, index);
}

static PyMethodDef methods[] = {
    {"append", (PyCFunction)append, METH_O, "append($self, value, /)\n--\n\nPut it at the end."},
    {"insert", (PyCFunction)(void (*)(void))insert, METH_FASTCALL,
     "insert($self, index, value, /)\n--\n\nPut it before the item at `index`."},
    {"pop", (PyCFunction)(void (*)(void))pop, METH_FASTCALL,
     "pop($self, index=-1, /)\n--\n\nTake an item out and return it."},
    {"extend", (PyCFunction)extend, METH_O,
     "extend($self, values, /)\n--\n\nPut them at the end, with nothing in between."},
    {"_values", (PyCFunction)(void (*)(void))values, METH_FASTCALL,
     "_values($self, start=0, stop=<unrepresentable>, /)\n--\n\n"
     "(items from start to stop, version), as they are at one moment."},
    {"_rearrange", (PyCFunction)(void (*)(void))rearrange, METH_FASTCALL,
     "_rearrange($self, order, items, version, /)\n--\n\n"
     "Make it consist of the items at the indices in `order`, where -1 - i is items[i]; if it\n"
     "has the version still (None: in any case).  Whether it had."},
    {NULL},
};

PyDoc_STRVAR(doc, "SharedList()\n--\n\nWhat kinfolk.SharedList is built on.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)doc},
    {Py_tp_new, kinx_shared_new},
    {Py_tp_init, init},
    {Py_tp_dealloc, kinx_shared_dealloc},
    {Py_tp_methods, methods},
    {Py_sq_item, item},
    {Py_sq_length, length},
    {Py_mp_subscript, subscript},
    {Py_mp_ass_subscript, ass_subscript},
    {Py_mp_length, length},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "kinfolk._kin.SharedList",
    .basicsize = sizeof(kinx_shared),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int kinx_shared_list_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    return kinx_add_type(module, &spec, st->shared_type, &st->kind_types[KIN_KIND_LIST]);
}
