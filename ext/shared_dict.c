/* SharedDict: a dict in the arena, served by no one.
 *
 * Keys and values are pickled before libkin is called and loaded after it returned, so that no code
 * of the user's runs while the dict is locked.  What is here is what has to be one step or fast;
 * kinfolk.shared_dict makes a mapping of it, with all of dict's methods. */
#include "args.h"
#include "entry.h"
#include "errors.h"

static void *raise_missing(PyObject *key) {
    PyObject *args = PyTuple_Pack(1, key); /* a tuple as key is one argument, too */
    if (args) PyErr_SetObject(PyExc_KeyError, args);
    Py_XDECREF(args);
    return NULL;
}

static void *raise(kinx_shared *self, kin_err err) {
    return kinx_raise(self->state, err, Py_TYPE(self)->tp_name);
}

/* -- Looking ------------------------------------------------------------------------------ */

/* 0, -ENOENT, or an exception is set. */
static kin_err find(kinx_shared *self, PyObject *obj, kin_found *found) {
    kinx_key key;
    if (!self->handle.family) kinx_raise_not_open(self);
    if (!self->handle.family || kinx_key_init(self->state, &key, obj) < 0) return KINX_RAISED;
    kin_err err;
    KINX_TABLE(err, kin_dict_get(&self->dict, key.bytes, key.len, found, until));
    kinx_key_fini(&key);
    if (err < 0 && err != -ENOENT) raise(self, err);
    return err;
}

static PyObject *subscript(kinx_shared *self, PyObject *key) {
    kin_found found;
    kin_err err = find(self, key, &found);
    if (err == -ENOENT) return raise_missing(key);
    return err < 0 ? NULL : kinx_found_value(self->state, &found);
}

static int contains(kinx_shared *self, PyObject *key) {
    kin_found found;
    kin_err err = find(self, key, &found);
    if (err == -ENOENT) return 0;
    if (err < 0) return -1;
    kin_found_drop(&found);
    return 1;
}

static PyObject *get(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_positional("get", nargs, 1, 2)) return NULL;
    kin_found found;
    kin_err err = find(self, args[0], &found);
    if (err == -ENOENT) return Py_NewRef(nargs > 1 ? args[1] : Py_None);
    return err < 0 ? NULL : kinx_found_value(self->state, &found);
}

/* (value, serial) of what is there, or None. */
static PyObject *look(kinx_shared *self, PyObject *key) {
    kin_found found;
    kin_err err = find(self, key, &found);
    if (err == -ENOENT) Py_RETURN_NONE;
    if (err < 0) return NULL;
    uint64_t serial = found.serial;
    PyObject *value = kinx_found_value(self->state, &found);
    return value ? Py_BuildValue("NK", value, (unsigned long long)serial) : NULL;
}

static Py_ssize_t length(kinx_shared *self) {
    if (self->handle.family) return (Py_ssize_t)kin_dict_len(&self->dict);
    kinx_raise_not_open(self);
    return -1;
}

/* -- Putting ------------------------------------------------------------------------------ */

/* The key that is there already, if one is that equals it: that stays, as in dict.  New reference. */
static PyObject *standing_key(kinx_shared *self, kinx_key *key, PyObject *obj) {
    kin_found found;
    kin_err err = -ENOENT;
    if (!key->is_exact)
        KINX_TABLE(err, kin_dict_get(&self->dict, key->bytes, key->len, &found, until));
    return err == 0 ? kinx_found_key(self->state, &found) : Py_NewRef(obj);
}

static int make(kinx_shared *self, PyObject *obj, PyObject *value, kin_entry *out) {
    kinx_key key;
    if (kinx_key_init(self->state, &key, obj) < 0) return -1;
    PyObject *standing = standing_key(self, &key, obj);
    int made = standing ? kinx_entry_init(self->state, &key, standing, value, out) : -1;
    Py_XDECREF(standing);
    kinx_key_fini(&key);
    return made;
}

/* 0, -EEXIST, -ESTALE, or an exception is set. */
static kin_err put(kinx_shared *self, PyObject *key, PyObject *value, int how, uint64_t serial,
                   kin_found *found) {
    kin_entry entry;
    if (!self->handle.family) kinx_raise_not_open(self);
    int made = self->handle.family ? make(self, key, value, &entry) : -1;
    if (made < 0) return KINX_RAISED;
    kin_err err;
    KINX_TABLE(err, kin_dict_put(&self->dict, &entry, how, serial, found, until));
    if (err < 0) kin_entry_free(&entry);
    if (err < 0 && err != -EEXIST && err != -ESTALE) raise(self, err);
    return err;
}

static kin_err take(kinx_shared *self, PyObject *obj, kin_found *found) {
    kinx_key key;
    if (!self->handle.family) kinx_raise_not_open(self);
    if (!self->handle.family || kinx_key_init(self->state, &key, obj) < 0) return KINX_RAISED;
    kin_err err;
    KINX_TABLE(err, kin_dict_take(&self->dict, key.bytes, key.len, found, until));
    kinx_key_fini(&key);
    if (err < 0 && err != -ENOENT) raise(self, err);
    return err;
}

static int ass_subscript(kinx_shared *self, PyObject *key, PyObject *value) {
    if (value) return put(self, key, value, KIN_PUT_ALWAYS, 0, NULL) < 0 ? -1 : 0;
    kin_err err = take(self, key, NULL);
    if (err == -ENOENT) raise_missing(key);
    return err < 0 ? -1 : 0;
}

static PyObject *setdefault(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_positional("setdefault", nargs, 1, 2)) return NULL;
    PyObject *value = nargs > 1 ? args[1] : Py_None;
    kin_found found;
    kin_err err = find(self, args[0], &found);
    if (err == -ENOENT) {
        err = put(self, args[0], value, KIN_PUT_NEW, 0, &found);
        if (err == 0) return Py_NewRef(value);
    }
    return err == 0 || err == -EEXIST ? kinx_found_value(self->state, &found) : NULL;
}

/* Put it in if what look() said is there is there still (None: nothing). */
static PyObject *put_if(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_positional("_put_if", nargs, 3, 3)) return NULL;
    unsigned long long serial = args[2] == Py_None ? 0 : PyLong_AsUnsignedLongLong(args[2]);
    if (PyErr_Occurred()) return NULL;
    kin_err err = put(self, args[0], args[1], KIN_PUT_SAME, serial, NULL);
    if (err == -ESTALE) Py_RETURN_FALSE;
    if (err < 0) return NULL;
    Py_RETURN_TRUE;
}

static PyObject *pop(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_positional("pop", nargs, 1, 2)) return NULL;
    kin_found found;
    kin_err err = take(self, args[0], &found);
    if (err == -ENOENT) return nargs > 1 ? Py_NewRef(args[1]) : raise_missing(args[0]);
    return err < 0 ? NULL : kinx_found_value(self->state, &found);
}

static PyObject *popitem(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    kin_found found;
    kin_err err;
    KINX_TABLE(err, kin_dict_take_last(&self->dict, &found, until));
    if (err == 0) return kinx_found_item(self->state, &found);
    if (err != -ENOENT) return raise(self, err);
    PyErr_SetString(PyExc_KeyError, "popitem(): dictionary is empty");
    return NULL;
}

static PyObject *clear(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    kin_err err;
    KINX_TABLE(err, kin_dict_clear(&self->dict, until));
    if (err < 0) return raise(self, err);
    Py_RETURN_NONE;
}

/* -- Iterating ------------------------------------------------------------------------------ */

enum { KEYS, VALUES, ITEMS };

typedef struct kinx_dict_iterator {
    PyObject_HEAD
    kinx_shared *dict; /* strong reference; NULL at the end */
    uint64_t number, row;
    int what, back;
} kinx_dict_iterator;

static PyObject *iterate(kinx_shared *self, int what, int back) {
    KINX_CHECK_OPEN(self);
    PyTypeObject *type = self->state->dict_iterator_type;
    kinx_dict_iterator *iterator = (kinx_dict_iterator *)type->tp_alloc(type, 0);
    if (!iterator) return NULL;
    iterator->dict = (kinx_shared *)Py_NewRef((PyObject *)self);
    iterator->number = back ? UINT64_MAX : 0;
    iterator->what = what;
    iterator->back = back;
    return (PyObject *)iterator;
}

static PyObject *iter(kinx_shared *self) {
    return iterate(self, KEYS, 0);
}

static PyObject *iter_over(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs) {
    if (!kinx_positional("_iterate", nargs, 2, 2)) return NULL;
    long what = PyLong_AsLong(args[0]);
    int back = PyObject_IsTrue(args[1]);
    if ((what == -1 && PyErr_Occurred()) || back < 0) return NULL;
    return iterate(self, (int)what, back);
}

static PyObject *iterator_next(kinx_dict_iterator *self) {
    kinx_shared *dict = self->dict;
    if (!dict) return NULL;
    kin_found found;
    kin_err err;
    KINX_TABLE(err,
               kin_dict_next(&dict->dict, self->number, self->back, &self->row, &found, until));
    if (err < 0) {
        if (err != -ENOENT) raise(dict, err);
        self->dict = NULL;
        Py_DECREF(dict);
        return NULL;
    }
    self->number = found.number;
    if (self->what == KEYS) return kinx_found_key(dict->state, &found);
    return self->what == VALUES ? kinx_found_value(dict->state, &found)
                                : kinx_found_item(dict->state, &found);
}

static void iterator_dealloc(kinx_dict_iterator *self) {
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(self->dict);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot iterator_slots[] = {
    {Py_tp_dealloc, iterator_dealloc},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, iterator_next},
    {0, NULL},
};

static PyType_Spec iterator_spec = {
    .name = "kinfolk._kin.DictIterator",
    .basicsize = sizeof(kinx_dict_iterator),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = iterator_slots,
};

/* -- The type ---------------------------------------------------------------------------------- */

/* Once made, it takes what else __init__ is given: see kinfolk.shared_dict. */
static int init(kinx_shared *self, PyObject *args, PyObject *kwds) {
    kin_family *family = kinx_shared_init(self);
    if (!family) return -1;
    kin_err err = kin_dict_create(family, &self->dict);
    if (err < 0) raise(self, err);
    return err < 0 ? -1 : 0;
}

static PyMethodDef methods[] = {
    {"get", (PyCFunction)(void (*)(void))get, METH_FASTCALL,
     "get($self, key, default=None, /)\n--\n\nThe value of the key, or the default."},
    {"pop", (PyCFunction)(void (*)(void))pop, METH_FASTCALL,
     "pop($self, key, default=<unrepresentable>, /)\n--\n\n"
     "Take the key out and return its value, or the default; KeyError without one."},
    {"popitem", (PyCFunction)popitem, METH_NOARGS,
     "popitem($self, /)\n--\n\nTake the item out that was put in last.  KeyError if it is empty."},
    {"setdefault", (PyCFunction)(void (*)(void))setdefault, METH_FASTCALL,
     "setdefault($self, key, default=None, /)\n--\n\n"
     "The value of the key, which is put in with the default if it is not there.  One step."},
    {"clear", (PyCFunction)clear, METH_NOARGS, "clear($self, /)\n--\n\nTake everything out."},
    {"_look", (PyCFunction)look, METH_O,
     "_look($self, key, /)\n--\n\n(value, serial) of what is there, or None."},
    {"_put_if", (PyCFunction)(void (*)(void))put_if, METH_FASTCALL,
     "_put_if($self, key, value, serial, /)\n--\n\n"
     "Put it in if what _look() saw is there still (None: nothing); whether it was."},
    {"_iterate", (PyCFunction)(void (*)(void))iter_over, METH_FASTCALL,
     "_iterate($self, what, back, /)\n--\n\n"
     "An iterator over keys (0), values (1) or items (2)."},
    {NULL},
};

PyDoc_STRVAR(doc, "SharedDict()\n--\n\nWhat kinfolk.SharedDict is built on.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)doc},
    {Py_tp_new, kinx_shared_new},
    {Py_tp_init, init},
    {Py_tp_dealloc, kinx_shared_dealloc},
    {Py_tp_iter, iter},
    {Py_tp_methods, methods},
    {Py_mp_subscript, subscript},
    {Py_mp_ass_subscript, ass_subscript},
    {Py_mp_length, length},
    {Py_sq_contains, contains},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "kinfolk._kin.SharedDict",
    .basicsize = sizeof(kinx_shared),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int kinx_shared_dict_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    if (kinx_add_type(module, &iterator_spec, NULL, &st->dict_iterator_type) < 0) return -1;
    return kinx_add_type(module, &spec, st->shared_type, &st->kind_types[KIN_KIND_DICT]);
}
