/* The unpickler's machine: the loop over a pickle's opcodes.
 *
 * One switch; where it reads and the top of the stack are in locals (see load.h).  What
 * comes in rows, the numbers of a list say, is taken in rows; and where the next opcode
 * tells what is to become of a container it is made at its size, or not at all. */
#include "load.h"

/* -- Errors ------------------------------------------------------------------------- */

int kinx_truncated(kinx_loader *u) {
    PyErr_SetString(u->us->error, "pickle data was truncated");
    return -1;
}

int kinx_underflow(kinx_loader *u) {
    PyErr_SetString(u->us->error,
                    u->mark_count ? "unexpected MARK found" : "unpickling stack underflow");
    return -1;
}

static int raise_opcode(kinx_loader *u, uint8_t op) {
    if (op >= 0x20 && op <= 0x7e && op != '\'' && op != '\\') {
        PyErr_Format(u->us->error, "invalid load key, '%c'.", op);
    } else {
        PyErr_Format(u->us->error, "invalid load key, '\\x%02x'.", op);
    }
    return -1;
}

static int raise_too_long(PyObject *error, const char *what, const char *of) {
    PyErr_Format(error, "%s exceeds system's maximum %s%zd bytes", what, of, PY_SSIZE_T_MAX);
    return -1;
}

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

static int grow_marks(kinx_loader *u) {
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

static inline int push_mark(kinx_loader *u, kinx_mark_kind kind) {
    if (u->mark_count == u->mark_cap && grow_marks(u) < 0) return -1;
    u->fence = kinx_depth(u);
    u->marks[u->mark_count++] = (kinx_mark){.at = u->fence, .kind = kind};
    return 0;
}

/* Whether the next value to be pushed is a dict's key, as far as one can tell. */
static inline bool at_key(const kinx_loader *u, PyObject **top) {
    if (u->mark_count == 0) return false;
    const kinx_mark *mark = &u->marks[u->mark_count - 1];
    if (mark->kind != KINX_MARK_DICT && mark->kind != KINX_MARK_PENDING_DICT) return false;
    Py_ssize_t above = top - u->stack - mark->at;
    return (above & 1) == 0 && above < 2 * KINX_KEYS_OF_ONE;
}

Py_ssize_t kinx_pop_mark_as_is(kinx_loader *u, kinx_mark_kind *kind) {
    if (u->mark_count == 0) {
        PyErr_SetString(u->us->error, "could not find MARK");
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
static int append(kinx_loader *u, Py_ssize_t depth) {
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

static int load_appends(kinx_loader *u) {
    kinx_mark_kind kind;
    Py_ssize_t depth = kinx_pop_mark_as_is(u, &kind);
    if (depth < 0) return -1;
    if (kind == KINX_MARK_PENDING_LIST) {
        PyObject *list = kinx_pop_list(u, depth);
        u->top[-1] = list;
        return list ? 0 : -1;
    }
    if (kind == KINX_MARK_PENDING_DICT && make_pending(u, depth, kind) < 0) return -1;
    return append(u, depth);
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
    PyErr_Format(u->us->error, "odd number of items for %s", opcode);
    return -1;
}

/* Set the pairs above `depth` in what is right below it. */
static int set_items(kinx_loader *u, Py_ssize_t depth) {
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

static int load_setitems(kinx_loader *u) {
    kinx_mark_kind kind;
    Py_ssize_t depth = kinx_pop_mark_as_is(u, &kind);
    if (depth < 0) return -1;
    if (kind == KINX_MARK_PENDING_DICT) return set_pending(u, depth);
    if (kind == KINX_MARK_PENDING_LIST && make_pending(u, depth, kind) < 0) return -1;
    return set_items(u, depth);
}

static int load_dict(kinx_loader *u) {
    Py_ssize_t depth = kinx_pop_mark(u);
    if (depth < 0) return -1;
    if ((kinx_depth(u) - depth) % 2) return raise_odd(u, "DICT");
    PyObject *dict = PyDict_New();
    if (!dict) return -1;
    if (set_own_pairs(u, depth, dict) == 0) return kinx_push(u, dict);
    Py_DECREF(dict);
    return -1;
}

static int load_additems(kinx_loader *u) {
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

static int load_frozenset(kinx_loader *u) {
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
static int make_tuple(kinx_loader *u, Py_ssize_t depth) {
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

static int load_tuple(kinx_loader *u) {
    Py_ssize_t depth = kinx_pop_mark(u);
    return depth < 0 ? -1 : make_tuple(u, depth);
}

static int load_list(kinx_loader *u) {
    Py_ssize_t depth = kinx_pop_mark(u);
    return depth < 0 ? -1 : kinx_push(u, kinx_pop_list(u, depth));
}

/* -- Numbers ------------------------------------------------------------------------------------------ */

static PyObject *long_of(const uint8_t *at, size_t len) {
    if (len <= 8) {
        uint64_t n = 0;
        for (size_t i = 0; i < len; i++) n |= (uint64_t)at[i] << (8 * i);
        unsigned unused = 64 - 8 * (unsigned)len;
        if (unused == 64) return PyLong_FromLong(0);
        return PyLong_FromLongLong((int64_t)(n << unused) >> unused);
    }
#if PY_VERSION_HEX >= 0x030D0000
    return PyLong_FromNativeBytes(at, len, Py_ASNATIVEBYTES_LITTLE_ENDIAN);
#else
    return _PyLong_FromByteArray(at, len, 1, 1); /* public by that other name from 3.13 on */
#endif
}

/* -- Buffers --------------------------------------------------------------------------------------------- */

static int load_next_buffer(kinx_loader *u) {
    if (!u->buffers) {
        PyErr_SetString(u->us->error, "pickle stream refers to out-of-band data "
                                      "but no *buffers* argument was given");
        return -1;
    }
    kinx_foreign_begin(u);
    PyObject *buffer = PyIter_Next(u->buffers);
    kinx_foreign_end(u);
    if (!buffer && !PyErr_Occurred()) {
        PyErr_SetString(u->us->error, "not enough out-of-band buffers");
    }
    return kinx_push(u, buffer);
}

static int load_readonly_buffer(kinx_loader *u) {
    if (kinx_reach(u) < 1) return kinx_underflow(u);
    PyObject *obj = u->top[-1];
    kinx_foreign_begin(u);
    PyObject *view = PyMemoryView_FromObject(obj);
    kinx_foreign_end(u);
    if (!view) return -1;
    if (PyMemoryView_GET_BUFFER(view)->readonly) {
        Py_DECREF(view);
        return 0;
    }
    PyMemoryView_GET_BUFFER(view)->readonly = 1; /* as the standard library's does it */
    u->top[-1] = view;
    Py_DECREF(obj);
    return 0;
}

/* -- The rest of the stack's own opcodes ------------------------------------------------------------------- */

static int load_pop(kinx_loader *u) {
    Py_ssize_t depth = kinx_depth(u);
    if (u->mark_count && u->marks[u->mark_count - 1].at == depth) {
        return kinx_pop_mark(u) < 0 ? -1 : 0;
    }
    if (depth <= u->fence) return kinx_underflow(u);
    Py_DECREF(*--u->top);
    return 0;
}

static int load_pop_mark(kinx_loader *u) {
    Py_ssize_t depth = kinx_pop_mark(u);
    if (depth < 0) return -1;
    kinx_stack_cut(u, depth);
    return 0;
}

static int raise_no_memo(kinx_loader *u, size_t index) {
    if (!PyErr_Occurred()) {
        PyErr_Format(u->us->error, "Memo value not found at index %zd", (Py_ssize_t)index);
    }
    return -1;
}

static int get_slow(kinx_loader *u, size_t index) {
    PyObject *obj = kinx_memo_get(&u->memo, index);
    return obj ? kinx_push(u, Py_NewRef(obj)) : raise_no_memo(u, index);
}

static inline int put(kinx_loader *u, size_t index) {
    if (kinx_reach(u) < 1) return kinx_underflow(u);
    kinx_memo_table *memo = &u->memo;
    if (index == memo->filled && index < memo->cap && index == memo->count) {
        memo->objects[index] = Py_NewRef(u->top[-1]);
        memo->filled = ++memo->count;
        return 0;
    }
    return kinx_memo_put(memo, index, u->top[-1]);
}

/* An object that has just been pushed, by the opcode before MEMOIZE. */
static inline int memoize(kinx_loader *u) {
    if (u->wanted && kinx_reach(u) > 0 && kinx_is_unwanted(u)) {
        u->memo.count++;
        return 0;
    }
    return put(u, u->memo.count);
}

/* Whether the empty container that was just met stands below a mark, and nobody sees it
 * before that goes; then u->at is behind the mark. */
static inline bool is_pending(kinx_loader *u, kinx_mark_kind kind) {
    const uint8_t *at = u->at;
    if (at < u->end && *at == KIN_OP_MARK) return u->at++, true;
    if (u->end - at < 2 || at[0] != KIN_OP_MEMOIZE || at[1] != KIN_OP_MARK) return false;
    if (!u->looked && kind == KINX_MARK_PENDING_DICT && kinx_at_state(u)) kinx_look_ahead(u);
    if (!kinx_is_unwanted(u)) return false;
    u->memo.count++;
    u->at += 2;
    return true;
}

static inline int empty_container(kinx_loader *u, kinx_mark_kind kind) {
    if (!is_pending(u, kind)) {
        return kinx_push(u, kind == KINX_MARK_PENDING_LIST ? PyList_New(0) : PyDict_New());
    }
    *u->top++ = NULL;
    return push_mark(u, kind);
}

/* -- The loop -------------------------------------------------------------------------------------------------- */

static inline uint32_t fetch2(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8;
}

static inline uint32_t fetch4(const uint8_t *at) {
    return fetch2(at) | fetch2(at + 2) << 16;
}

static inline uint64_t fetch8(const uint8_t *at) {
    return fetch4(at) | (uint64_t)fetch4(at + 4) << 32;
}

static inline double fetch_double(const uint8_t *at) {
    uint64_t n = 0;
    for (int i = 0; i < 8; i++) n = n << 8 | at[i];
    double x;
    memcpy(&x, &n, sizeof x);
    return x;
}

/* Out of the locals into the loader, and back. */
#define SAVE() (u->at = at, u->top = top)
#define RESTORE() (at = u->at, end = u->end, top = u->top)
/* Run what returns -1 if it failed, with the loader up to date. */
#define RUN(call)                  \
    do {                           \
        SAVE();                    \
        if ((call) < 0) return -1; \
        RESTORE();                 \
    } while (0)
#define NEED(n)                                                                            \
    do {                                                                                   \
        if (KINX_RARELY((size_t)(end - at) < (size_t)(n))) RUN(kinx_fill(u, (size_t)(n))); \
    } while (0)
/* There is room for one: see the loop's head. */
#define PUSH(made)                                  \
    do {                                            \
        PyObject *made_ = (made);                   \
        if (KINX_RARELY(!made_)) return SAVE(), -1; \
        *top++ = made_;                             \
    } while (0)
/* Whether `opcode` with an argument of n bytes is next, and there is room for what it pushes. */
#define AGAIN(opcode, n) (end - at > (n) && *at == (opcode) && top < u->stack_end)

#define KINX_RARELY(condition) __builtin_expect(!!(condition), 0)

/* What stands at u->at is a payload of `len` bytes that is not all there. */
static int load_far_text(kinx_loader *u, size_t len) {
    if (kinx_fill(u, len) < 0) return -1;
    PyObject *text = kinx_text(u->at, len);
    u->at += len;
    return kinx_push(u, text);
}

static int out_of_input(kinx_loader *u) {
    if (kinx_fill(u, 1) == 0) return 0;
    if (PyErr_ExceptionMatches(u->us->error)) {
        PyErr_SetString(PyExc_EOFError, "Ran out of input");
    }
    return -1;
}

static int load_frame(kinx_loader *u, uint64_t len) {
    if (len > PY_SSIZE_T_MAX) {
        return raise_too_long(PyExc_OverflowError, "FRAME length", "of ");
    }
    return kinx_fill(u, (size_t)len);
}

/* Up to STOP, whose value is at the top then. */
static int run(kinx_loader *u) {
    const uint8_t *at = u->at, *end = u->end;
    PyObject **top = u->top;
    kinx_unpickler_state *us = u->us;
    for (;;) {
        if (KINX_RARELY(at == end)) RUN(out_of_input(u));
        if (KINX_RARELY(top == u->stack_end)) RUN(kinx_stack_grow(u, 1));
        uint8_t op = *at++;
        uint64_t len;
        switch (op) {
        case KIN_OP_NONE: PUSH(Py_NewRef(Py_None)); continue;
        case KIN_OP_NEWTRUE: PUSH(Py_NewRef(Py_True)); continue;
        case KIN_OP_NEWFALSE: PUSH(Py_NewRef(Py_False)); continue;

        case KIN_OP_BININT1:
            NEED(1);
            PUSH(Py_NewRef(us->small[*at++]));
            while (AGAIN(KIN_OP_BININT1, 1)) {
                *top++ = Py_NewRef(us->small[at[1]]);
                at += 2;
            }
            continue;
        case KIN_OP_BININT2:
            NEED(2);
            PUSH(PyLong_FromLong((long)fetch2(at)));
            at += 2;
            while (AGAIN(KIN_OP_BININT2, 2)) {
                PUSH(PyLong_FromLong((long)fetch2(at + 1)));
                at += 3;
            }
            continue;
        case KIN_OP_BININT:
            NEED(4);
            PUSH(PyLong_FromLong((int32_t)fetch4(at)));
            at += 4;
            while (AGAIN(KIN_OP_BININT, 4)) {
                PUSH(PyLong_FromLong((int32_t)fetch4(at + 1)));
                at += 5;
            }
            continue;
        case KIN_OP_BINFLOAT:
            NEED(8);
            PUSH(PyFloat_FromDouble(fetch_double(at)));
            at += 8;
            while (AGAIN(KIN_OP_BINFLOAT, 8)) {
                PUSH(PyFloat_FromDouble(fetch_double(at + 1)));
                at += 9;
            }
            continue;
        case KIN_OP_LONG1:
            NEED(1);
            len = *at++;
            goto integer;
        case KIN_OP_LONG4:
            NEED(4);
            len = fetch4(at);
            at += 4;
            if (len > INT32_MAX) {
                PyErr_SetString(us->error, "LONG pickle has negative byte count");
                return SAVE(), -1;
            }
        integer:
            NEED(len);
            PUSH(long_of(at, len));
            at += len;
            continue;

        case KIN_OP_SHORT_BINUNICODE:
            NEED(1);
            len = *at++;
            if (len <= KINX_KEY_MAX && at_key(u, top)) {
                NEED(len);
                PyObject *key = kinx_key(us, at, len);
                if (!key && !PyErr_Occurred()) key = kinx_text(at, len);
                PUSH(key);
                at += len;
                continue;
            }
            goto text;
        case KIN_OP_BINUNICODE:
            NEED(4);
            len = fetch4(at);
            at += 4;
            goto text;
        case KIN_OP_BINUNICODE8:
            NEED(8);
            len = fetch8(at);
            at += 8;
            if (len > PY_SSIZE_T_MAX) {
                SAVE();
                return raise_too_long(PyExc_OverflowError, "BINUNICODE", "size of ");
            }
        text:
            if (KINX_RARELY((size_t)(end - at) < len)) {
                RUN(load_far_text(u, len));
                continue;
            }
            PUSH(kinx_text(at, len));
            at += len;
            continue;

        case KIN_OP_SHORT_BINBYTES:
            NEED(1);
            len = *at++;
            goto bytes;
        case KIN_OP_BINBYTES:
            NEED(4);
            len = fetch4(at);
            at += 4;
            goto bytes;
        case KIN_OP_BINBYTES8:
            NEED(8);
            len = fetch8(at);
            at += 8;
            if (len > PY_SSIZE_T_MAX) {
                SAVE();
                return raise_too_long(PyExc_OverflowError, "BINBYTES", "size of ");
            }
        bytes:
            if (KINX_RARELY((size_t)(end - at) < len)) {
                RUN(kinx_push(u, kinx_read_bytes(u, len, false)));
                continue;
            }
            PUSH(PyBytes_FromStringAndSize((const char *)at, (Py_ssize_t)len));
            at += len;
            continue;
        case KIN_OP_BYTEARRAY8:
            NEED(8);
            len = fetch8(at);
            at += 8;
            if (len > PY_SSIZE_T_MAX) {
                SAVE();
                return raise_too_long(PyExc_OverflowError, "BYTEARRAY8", "size of ");
            }
            RUN(kinx_push(u, kinx_read_bytes(u, len, true)));
            continue;

        case KIN_OP_SHORT_BINSTRING:
            NEED(1);
            len = *at++;
            RUN(kinx_load_binstring(u, len));
            continue;
        case KIN_OP_BINSTRING:
            NEED(4);
            len = fetch4(at);
            at += 4;
            RUN(kinx_load_binstring(u, len));
            continue;

        case KIN_OP_EMPTY_DICT: RUN(empty_container(u, KINX_MARK_PENDING_DICT)); continue;
        case KIN_OP_EMPTY_LIST: RUN(empty_container(u, KINX_MARK_PENDING_LIST)); continue;
        case KIN_OP_EMPTY_SET: PUSH(PySet_New(NULL)); continue;
        case KIN_OP_MARK: {
            bool pairs = top - u->stack > u->fence && PyDict_CheckExact(top[-1]);
            RUN(push_mark(u, pairs ? KINX_MARK_DICT : KINX_MARK_PLAIN));
            continue;
        }
        case KIN_OP_APPEND: RUN(append(u, kinx_depth(u) - 1)); continue;
        case KIN_OP_APPENDS: RUN(load_appends(u)); continue;
        case KIN_OP_SETITEM: RUN(set_items(u, kinx_depth(u) - 2)); continue;
        case KIN_OP_SETITEMS: RUN(load_setitems(u)); continue;
        case KIN_OP_ADDITEMS: RUN(load_additems(u)); continue;
        case KIN_OP_DICT: RUN(load_dict(u)); continue;
        case KIN_OP_LIST: RUN(load_list(u)); continue;
        case KIN_OP_FROZENSET: RUN(load_frozenset(u)); continue;

        case KIN_OP_EMPTY_TUPLE:
            if (at < end && *at == KIN_OP_NEWOBJ) {
                at++;
                RUN(kinx_load_newobj_bare(u));
                continue;
            }
            PUSH(Py_NewRef(us->empty_tuple));
            continue;
        case KIN_OP_TUPLE1: RUN(make_tuple(u, kinx_depth(u) - 1)); continue;
        case KIN_OP_TUPLE2: RUN(make_tuple(u, kinx_depth(u) - 2)); continue;
        case KIN_OP_TUPLE3: RUN(make_tuple(u, kinx_depth(u) - 3)); continue;
        case KIN_OP_TUPLE: RUN(load_tuple(u)); continue;

        case KIN_OP_MEMOIZE: RUN(memoize(u)); continue;
        case KIN_OP_BINPUT:
            NEED(1);
            len = *at++;
            RUN(put(u, len));
            continue;
        case KIN_OP_LONG_BINPUT:
            NEED(4);
            len = fetch4(at);
            at += 4;
            RUN(put(u, len));
            continue;
        case KIN_OP_BINGET:
            NEED(1);
            len = *at++;
            goto get;
        case KIN_OP_LONG_BINGET:
            NEED(4);
            len = fetch4(at);
            at += 4;
        get:
            if (len < u->memo.filled && u->memo.objects[len]) {
                *top++ = Py_NewRef(u->memo.objects[len]);
                continue;
            }
            RUN(get_slow(u, len));
            continue;

        case KIN_OP_POP: RUN(load_pop(u)); continue;
        case KIN_OP_POP_MARK: RUN(load_pop_mark(u)); continue;
        case KIN_OP_DUP:
            if (top - u->stack <= u->fence) return SAVE(), kinx_underflow(u);
            PyObject *last = top[-1];
            *top++ = Py_NewRef(last);
            continue;

        case KIN_OP_GLOBAL: RUN(kinx_load_global(u)); continue;
        case KIN_OP_STACK_GLOBAL: RUN(kinx_load_stack_global(u)); continue;
        case KIN_OP_EXT1:
            NEED(1);
            len = *at++;
            RUN(kinx_load_extension(u, (long)len));
            continue;
        case KIN_OP_EXT2:
            NEED(2);
            len = fetch2(at);
            at += 2;
            RUN(kinx_load_extension(u, (long)len));
            continue;
        case KIN_OP_EXT4:
            NEED(4);
            len = fetch4(at);
            at += 4;
            RUN(kinx_load_extension(u, (int32_t)len));
            continue;
        case KIN_OP_INST: RUN(kinx_load_inst(u)); continue;
        case KIN_OP_OBJ: RUN(kinx_load_obj(u)); continue;
        case KIN_OP_NEWOBJ: RUN(kinx_load_newobj(u, false)); continue;
        case KIN_OP_NEWOBJ_EX: RUN(kinx_load_newobj(u, true)); continue;
        case KIN_OP_REDUCE: RUN(kinx_load_reduce(u)); continue;
        case KIN_OP_BUILD: RUN(kinx_load_build(u)); continue;

        case KIN_OP_NEXT_BUFFER: RUN(load_next_buffer(u)); continue;
        case KIN_OP_READONLY_BUFFER: RUN(load_readonly_buffer(u)); continue;
        case KIN_OP_PERSID: RUN(kinx_load_persid(u)); continue;
        case KIN_OP_BINPERSID: RUN(kinx_load_binpersid(u)); continue;
        case KIN_OP_INT: RUN(kinx_load_int(u)); continue;
        case KIN_OP_LONG: RUN(kinx_load_long(u)); continue;
        case KIN_OP_FLOAT: RUN(kinx_load_float(u)); continue;
        case KIN_OP_STRING: RUN(kinx_load_string(u)); continue;
        case KIN_OP_UNICODE: RUN(kinx_load_unicode(u)); continue;
        case KIN_OP_GET: RUN(kinx_load_get(u)); continue;
        case KIN_OP_PUT: RUN(kinx_load_put(u)); continue;

        case KIN_OP_PROTO:
            NEED(1);
            if (*at > KIN_PICKLE_PROTOCOL) {
                PyErr_Format(PyExc_ValueError, "unsupported pickle protocol: %d", *at);
                return SAVE(), -1;
            }
            u->proto = *at++;
            continue;
        case KIN_OP_FRAME:
            NEED(8);
            len = fetch8(at);
            at += 8;
            RUN(load_frame(u, len));
            continue;
        case KIN_OP_STOP: return SAVE(), 0;
        default: return SAVE(), raise_opcode(u, op);
        }
    }
}

/* -- A loading as a whole ------------------------------------------------------------------------------------------ */

void kinx_loader_init(kinx_loader *u, kinx_state *st) {
    u->st = st;
    u->us = st->unpickler;
    u->self = NULL;
    u->at = u->end = NULL;
    u->source = NULL;
    u->stack = u->top = u->stack_end = u->desk_stack = NULL;
    u->marks = u->desk_marks = NULL;
    u->mark_count = u->mark_cap = 0;
    u->fence = 0;
    u->memo = (kinx_memo_table){0};
    u->looked = false;
    u->wanted = NULL;
    u->persistent_load = u->buffers = NULL;
    u->encoding = "ASCII";
    u->errors = "strict";
    u->proto = 0;
    u->fix_imports = true;
    u->running = u->paused = false;
    u->foreign = 0;
    u->blank_count = 0;
    u->shapes = NULL;
    u->shape_count = 0;
}

void kinx_loader_fini(kinx_loader *u) {
    kinx_memo_drop(&u->memo);
    PyMem_Free(u->wanted);
    u->wanted = NULL;
    Py_CLEAR(u->persistent_load);
    Py_CLEAR(u->buffers);
}

/* Shorter pickles make so little that no collection would come of it. */
#define PAUSE_FROM 1024 /* bytes */

/* In 3.10 and 3.11 a collection may come with any object that is made, and would go through
 * all that has been loaded so far again and again.  There is nothing in it to collect. */
static void pause_collector(kinx_loader *u) {
#if PY_VERSION_HEX < 0x030C0000
    if (u->source || u->end - u->at >= PAUSE_FROM) u->paused = PyGC_Disable();
#endif
}

static void resume_collector(kinx_loader *u) {
#if PY_VERSION_HEX < 0x030C0000
    if (u->paused) PyGC_Enable();
    u->paused = false;
#endif
}

static PyObject *pop_result(kinx_loader *u) {
    if (u->source && kinx_source_settle(u) < 0) return NULL;
    if (kinx_reach(u) > 0) return *--u->top;
    kinx_underflow(u);
    return NULL;
}

/* What is left on the stack may have finalizers. */
static void clear_desk(kinx_loader *u, kinx_desk *desk) {
    if (kinx_depth(u) > 0) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        kinx_stack_cut(u, 0);
        PyErr_Restore(type, value, traceback);
    }
    if (u->shapes) kinx_shapes_drop(u);
    if (u->stack != desk->stack) PyMem_Free(u->stack);
    if (u->marks != desk->marks) PyMem_Free(u->marks);
    u->stack = u->top = u->stack_end = NULL;
    u->marks = NULL;
}

PyObject *kinx_load(kinx_loader *u) {
    kinx_desk desk;
    u->stack = u->top = u->desk_stack = desk.stack;
    u->stack_end = desk.stack + KINX_FIRST_STACK;
    u->marks = u->desk_marks = desk.marks;
    u->mark_count = 0;
    u->mark_cap = KINX_FIRST_MARKS;
    u->fence = 0;
    u->proto = 0;
    u->blank_count = 0;
    pause_collector(u);
    PyObject *result = run(u) < 0 ? NULL : pop_result(u);
    resume_collector(u);
    clear_desk(u, &desk);
    return result;
}
