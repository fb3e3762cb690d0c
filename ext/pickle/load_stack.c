/* The stack, its marks, and the containers that are made of what lies above a mark.
 *
 * What is taken from the stack goes over as it is, references and all: a list of the right
 * size is filled with one memcpy.  A dict whose next opcode shows that it is an instance's
 * state need not be made at all. */
#include "load.h"

/* -- The stack -------------------------------------------------------------------------- */

int kinx_stack_grow(kinx_loader *u, size_t more) {
    size_t depth = (size_t)kinx_depth(u), cap = (size_t)(u->stack_end - u->stack);
    if (cap - depth >= more) return 0;
    size_t wanted = 2 * cap > depth + more ? 2 * cap : depth + more;
    bool at_desk = u->stack == u->desk_stack;
    PyObject **grown = PyMem_Realloc(at_desk ? NULL : u->stack, wanted * sizeof *grown);
    if (!grown) {
        PyErr_NoMemory();
        return -1;
    }
    if (at_desk) memcpy(grown, u->stack, depth * sizeof *grown);
    u->stack = grown;
    u->top = grown + depth;
    u->stack_end = grown + wanted;
    return 0;
}

void kinx_stack_cut(kinx_loader *u, Py_ssize_t depth) {
    while (kinx_depth(u) > depth) Py_XDECREF(*--u->top);
}

PyObject *kinx_pop_tuple(kinx_loader *u, Py_ssize_t depth) {
    Py_ssize_t count = kinx_depth(u) - depth;
    PyObject *tuple = PyTuple_New(count);
    if (!tuple) return NULL;
    PyObject **from = u->stack + depth;
    for (Py_ssize_t i = 0; i < count; i++) PyTuple_SET_ITEM(tuple, i, from[i]);
    u->top = from;
    return tuple;
}

PyObject *kinx_pop_list(kinx_loader *u, Py_ssize_t depth) {
    Py_ssize_t count = kinx_depth(u) - depth;
    PyObject *list = PyList_New(count);
    if (!list) return NULL;
    PyObject **from = u->stack + depth;
    for (Py_ssize_t i = 0; i < count; i++) PyList_SET_ITEM(list, i, from[i]);
    u->top = from;
    return list;
}

/* -- Marks ----------------------------------------------------------------------------------- */

int kinx_grow_marks(kinx_loader *u) {
    bool at_desk = u->marks == u->desk_marks;
    size_t wanted = 2 * u->mark_cap;
    kinx_mark *grown = PyMem_Realloc(at_desk ? NULL : u->marks, wanted * sizeof *grown);
    if (!grown) {
        PyErr_NoMemory();
        return -1;
    }
    if (at_desk) memcpy(grown, u->marks, u->mark_count * sizeof *grown);
    u->marks = grown;
    u->mark_cap = wanted;
    return 0;
}

Py_ssize_t kinx_pop_mark_as_is(kinx_loader *u, kinx_mark_kind *kind) {
    if (u->mark_count == 0) {
        PyErr_SetString(kinx_unpickling_error(u->us), "could not find MARK");
        return -1;
    }
    kinx_mark mark = u->marks[--u->mark_count];
    u->fence = u->mark_count ? u->marks[u->mark_count - 1].at : 0;
    *kind = mark.kind;
    return mark.at;
}

/* Make the container that is pending below `depth`. */
static int make_pending(kinx_loader *u, Py_ssize_t depth, kinx_mark_kind kind) {
    PyObject *made = kind == KINX_MARK_PENDING_LIST ? PyList_New(0) : PyDict_New();
    u->stack[depth - 1] = made;
    return made ? 0 : -1;
}

Py_ssize_t kinx_pop_mark(kinx_loader *u) {
    kinx_mark_kind kind;
    Py_ssize_t depth = kinx_pop_mark_as_is(u, &kind);
    if (depth < 0 || kind < KINX_MARK_PENDING_DICT) return depth;
    return make_pending(u, depth, kind) < 0 ? -1 : depth;
}

int kinx_load_pop(kinx_loader *u) {
    Py_ssize_t depth = kinx_depth(u);
    if (u->mark_count && u->marks[u->mark_count - 1].at == depth) {
        return kinx_pop_mark(u) < 0 ? -1 : 0;
    }
    if (depth <= u->fence) return kinx_underflow(u);
    Py_DECREF(*--u->top);
    return 0;
}

int kinx_load_pop_mark(kinx_loader *u) {
    Py_ssize_t depth = kinx_pop_mark(u);
    if (depth < 0) return -1;
    kinx_stack_cut(u, depth);
    return 0;
}

/* -- Lists --------------------------------------------------------------------------------------- */

#if defined(Py_GIL_DISABLED) || PY_VERSION_HEX >= 0x030F0000
static int take_into_list(PyObject *list, PyObject **items, Py_ssize_t count) {
    PyObject *tail = PyList_New(count);
    if (!tail) return -1;
    for (Py_ssize_t i = 0; i < count; i++) PyList_SET_ITEM(tail, i, Py_NewRef(items[i]));
    Py_ssize_t size = PyList_GET_SIZE(list);
    int err = PyList_SetSlice(list, size, size, tail);
    Py_DECREF(tail);
    for (Py_ssize_t i = 0; err == 0 && i < count; i++) Py_DECREF(items[i]);
    return err;
}
#else
/* Append items to an exact list, stealing them if that succeeds.  By the fields of the
 * struct, which is public: the API has nothing that appends more than one without
 * making a list of them first. */
static int take_into_list(PyObject *list, PyObject **items, Py_ssize_t count) {
    PyListObject *self = (PyListObject *)list;
    Py_ssize_t size = Py_SIZE(self), wanted = size + count;
    if (wanted > self->allocated) {
        /* The first items fit exactly: mostly they are all. */
        Py_ssize_t cap = size ? wanted + (wanted >> 3) + 6 : wanted;
        PyObject **grown = PyMem_Realloc(self->ob_item, (size_t)cap * sizeof *grown);
        if (!grown) {
            PyErr_NoMemory();
            return -1;
        }
        self->ob_item = grown;
        self->allocated = cap;
    }
    memcpy(self->ob_item + size, items, (size_t)count * sizeof *items);
    Py_SET_SIZE(self, wanted);
    return 0;
}
#endif

/* Append what is above `depth` to what is right below it. */
int kinx_append(kinx_loader *u, Py_ssize_t depth) {
    Py_ssize_t count = kinx_depth(u) - depth;
    if (count < 0 || depth <= u->fence) return kinx_underflow(u);
    if (count == 0) return 0;
    PyObject *list = u->stack[depth - 1];
    if (!PyList_CheckExact(list)) return kinx_extend_other(u, depth);
    PyObject **items = u->stack + depth;
    if (take_into_list(list, items, count) < 0) return -1;
    u->top = items;
    return 0;
}

int kinx_load_appends(kinx_loader *u) {
    kinx_mark_kind kind;
    Py_ssize_t depth = kinx_pop_mark_as_is(u, &kind);
    if (depth < 0) return -1;
    if (kind == KINX_MARK_PENDING_LIST) {
        PyObject *list = kinx_pop_list(u, depth);
        u->top[-1] = list;
        return list ? 0 : -1;
    }
    if (kind == KINX_MARK_PENDING_DICT && make_pending(u, depth, kind) < 0) return -1;
    return kinx_append(u, depth);
}

/* -- Dicts and sets ------------------------------------------------------------------------------- */

/* Whether hashing and comparing it runs no foreign code. */
static inline bool is_plain_key(PyObject *key) {
    PyTypeObject *type = Py_TYPE(key);
    return type == &PyUnicode_Type || type == &PyLong_Type || type == &PyBytes_Type ||
           type == &PyFloat_Type;
}

static int set_item(kinx_loader *u, PyObject *dict, PyObject *key, PyObject *value) {
    bool exact = PyDict_CheckExact(dict);
    if (exact && is_plain_key(key)) return PyDict_SetItem(dict, key, value);
    kinx_foreign_begin(u);
    int err = exact ? PyDict_SetItem(dict, key, value) : PyObject_SetItem(dict, key, value);
    kinx_foreign_end(u);
    return err;
}

/* Put the pairs above `depth`, an even number of values, into dict, and drop them. */
static int set_pairs(kinx_loader *u, Py_ssize_t depth, PyObject *dict) {
    PyObject **item = u->stack + depth, **end = u->top;
    int err = 0;
    for (; err == 0 && item < end; item += 2) err = set_item(u, dict, item[0], item[1]);
    kinx_stack_cut(u, depth);
    return err;
}

/* The same into an exact dict that nobody else has. */
static int set_own_pairs(kinx_loader *u, Py_ssize_t depth, PyObject *dict) {
    PyObject **item = u->stack + depth, **end = u->top;
    for (; item < end && is_plain_key(item[0]); item += 2) {
        if (PyDict_SetItem(dict, item[0], item[1]) < 0) return -1;
        Py_DECREF(item[0]);
        Py_DECREF(item[1]);
        item[0] = item[1] = NULL;
    }
    if (item == end) {
        u->top = u->stack + depth;
        return 0;
    }
    int err = 0;
    for (; err == 0 && item < end; item += 2) err = set_item(u, dict, item[0], item[1]);
    kinx_stack_cut(u, depth);
    return err;
}

static int raise_odd(kinx_loader *u, const char *opcode) {
    PyErr_Format(kinx_unpickling_error(u->us), "odd number of items for %s", opcode);
    return -1;
}

/* Set the pairs above `depth` in what is right below it. */
int kinx_set_items(kinx_loader *u, Py_ssize_t depth) {
    Py_ssize_t count = kinx_depth(u) - depth;
    if (count < 0 || depth <= u->fence) return kinx_underflow(u);
    if (count == 0) return 0;
    if (count % 2) return raise_odd(u, "SETITEMS");
    PyObject *dict = u->stack[depth - 1];
    if (PyDict_CheckExact(dict)) return set_own_pairs(u, depth, dict);
    return set_pairs(u, depth, dict);
}

/* Whether the state of slots is complete here: TUPLE2 BUILD.  *len: how long that is. */
static bool ends_slots(kinx_loader *u, ptrdiff_t *len) {
    const uint8_t *at = u->at;
    if (u->end - at < 3 || at[0] != KIN_OP_TUPLE2) return false;
    if (at[1] == KIN_OP_BUILD) return *len = 2, true;
    if (at[1] != KIN_OP_MEMOIZE || at[2] != KIN_OP_BUILD) return false;
    return *len = 3, kinx_is_unwanted(u);
}

/* SETITEMS on a dict that is pending below `depth`.  The next opcodes say whether it is
 * the state of an instance, and then perhaps not needed at all. */
static int set_pending(kinx_loader *u, Py_ssize_t depth) {
    Py_ssize_t count = kinx_depth(u) - depth;
    ptrdiff_t len;
    if (count % 2 == 0 && u->at < u->end && *u->at == KIN_OP_BUILD) {
        int built = kinx_build_from_pairs(u, depth);
        if (built) return u->at++, built;
    } else if (count % 2 == 0 && ends_slots(u, &len)) {
        int built = kinx_build_slots_from_pairs(u, depth);
        if (built > 0 && len == 3) u->memo.count++;
        if (built) return u->at += len, built;
    }
    if (make_pending(u, depth, KINX_MARK_PENDING_DICT) < 0) return -1;
    if (count % 2) return raise_odd(u, "SETITEMS");
    return set_own_pairs(u, depth, u->stack[depth - 1]);
}

int kinx_load_setitems(kinx_loader *u) {
    kinx_mark_kind kind;
    Py_ssize_t depth = kinx_pop_mark_as_is(u, &kind);
    if (depth < 0) return -1;
    if (kind == KINX_MARK_PENDING_DICT) return set_pending(u, depth);
    if (kind == KINX_MARK_PENDING_LIST && make_pending(u, depth, kind) < 0) return -1;
    return kinx_set_items(u, depth);
}

int kinx_load_dict(kinx_loader *u) {
    Py_ssize_t depth = kinx_pop_mark(u);
    if (depth < 0) return -1;
    if ((kinx_depth(u) - depth) % 2) return raise_odd(u, "DICT");
    PyObject *dict = PyDict_New();
    if (!dict) return -1;
    if (set_own_pairs(u, depth, dict) == 0) return kinx_push(u, dict);
    Py_DECREF(dict);
    return -1;
}

int kinx_load_additems(kinx_loader *u) {
    Py_ssize_t depth = kinx_pop_mark(u);
    if (depth < 0) return -1;
    if (depth <= u->fence) return kinx_underflow(u);
    if (kinx_depth(u) == depth) return 0;
    PyObject *set = u->stack[depth - 1];
    if (!PySet_Check(set)) return kinx_add_other(u, depth);
    int err = 0;
    for (PyObject **item = u->stack + depth; err == 0 && item < u->top; item++) {
        bool plain = is_plain_key(*item);
        if (!plain) kinx_foreign_begin(u);
        err = PySet_Add(set, *item);
        if (!plain) kinx_foreign_end(u);
    }
    kinx_stack_cut(u, depth);
    return err;
}

int kinx_load_frozenset(kinx_loader *u) {
    Py_ssize_t depth = kinx_pop_mark(u);
    PyObject *items = depth < 0 ? NULL : kinx_pop_tuple(u, depth);
    if (!items) return -1;
    kinx_foreign_begin(u);
    PyObject *set = PyFrozenSet_New(items);
    kinx_foreign_end(u);
    Py_DECREF(items);
    return kinx_push(u, set);
}

/* -- Tuples and other lists ------------------------------------------------------------------------ */

/* A tuple, or what is called with it, if that is next. */
int kinx_make_tuple(kinx_loader *u, Py_ssize_t depth) {
    if (depth < u->fence) return kinx_underflow(u);
    if (u->end - u->at >= 2 && depth > u->fence) {
        bool memoised = u->at[0] == KIN_OP_MEMOIZE && u->at[1] == KIN_OP_REDUCE;
        if (u->at[0] == KIN_OP_REDUCE || (memoised && kinx_is_unwanted(u))) {
            u->at += 1 + memoised;
            u->memo.count += memoised;
            return kinx_load_reduce_from_stack(u, kinx_depth(u) - depth);
        }
    }
    PyObject *tuple = kinx_pop_tuple(u, depth);
    return kinx_push(u, tuple);
}

int kinx_load_tuple(kinx_loader *u) {
    Py_ssize_t depth = kinx_pop_mark(u);
    return depth < 0 ? -1 : kinx_make_tuple(u, depth);
}

int kinx_load_list(kinx_loader *u) {
    Py_ssize_t depth = kinx_pop_mark(u);
    return depth < 0 ? -1 : kinx_push(u, kinx_pop_list(u, depth));
}
