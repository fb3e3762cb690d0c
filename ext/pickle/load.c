/* The unpickler's machine: the loop over a pickle's opcodes.
 *
 * One switch; where it reads and the top of the stack are in locals (see load.h).  What
 * comes in rows, the numbers of a list say, is taken in rows; and where the next opcode
 * tells what is to become of a container it is made at its size, or not at all. */
#include "load.h"
#include "../bytes.h"

/* -- Errors ------------------------------------------------------------------------- */

int kinx_truncated(kinx_loader *u) {
    PyErr_SetString(kinx_unpickling_error(u->us), "pickle data was truncated");
    return -1;
}

int kinx_underflow(kinx_loader *u) {
    PyErr_SetString(kinx_unpickling_error(u->us),
                    u->mark_count ? "unexpected MARK found" : "unpickling stack underflow");
    return -1;
}

static int raise_opcode(kinx_loader *u, uint8_t op) {
    if (op >= 0x20 && op <= 0x7e && op != '\'' && op != '\\') {
        PyErr_Format(kinx_unpickling_error(u->us), "invalid load key, '%c'.", op);
    } else {
        PyErr_Format(kinx_unpickling_error(u->us), "invalid load key, '\\x%02x'.", op);
    }
    return -1;
}

static int raise_too_long(PyObject *error, const char *what, const char *of) {
    PyErr_Format(error, "%s exceeds system's maximum %s%zd bytes", what, of, PY_SSIZE_T_MAX);
    return -1;
}

/* -- Marks ----------------------------------------------------------------------------------- */

static inline int push_mark(kinx_loader *u, kinx_mark_kind kind) {
    if (u->mark_count == u->mark_cap && kinx_grow_marks(u) < 0) return -1;
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
        PyErr_SetString(kinx_unpickling_error(u->us), "pickle stream refers to out-of-band data "
                                                      "but no *buffers* argument was given");
        return -1;
    }
    kinx_foreign_begin(u);
    PyObject *buffer = PyIter_Next(u->buffers);
    kinx_foreign_end(u);
    if (!buffer && !PyErr_Occurred()) {
        PyErr_SetString(kinx_unpickling_error(u->us), "not enough out-of-band buffers");
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

/* -- The memo ------------------------------------------------------------------- */

static int raise_no_memo(kinx_loader *u, size_t index) {
    if (!PyErr_Occurred()) {
        PyErr_Format(kinx_unpickling_error(u->us), "Memo value not found at index %zd",
                     (Py_ssize_t)index);
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
    if (PyErr_ExceptionMatches(kinx_unpickling_error(u->us))) {
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
                PyErr_SetString(kinx_unpickling_error(us), "LONG pickle has negative byte count");
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
            if (KINX_RARELY((size_t)(end - at) < len || len >= KINX_LARGE)) {
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
        case KIN_OP_APPEND: RUN(kinx_append(u, kinx_depth(u) - 1)); continue;
        case KIN_OP_APPENDS: RUN(kinx_load_appends(u)); continue;
        case KIN_OP_SETITEM: RUN(kinx_set_items(u, kinx_depth(u) - 2)); continue;
        case KIN_OP_SETITEMS: RUN(kinx_load_setitems(u)); continue;
        case KIN_OP_ADDITEMS: RUN(kinx_load_additems(u)); continue;
        case KIN_OP_DICT: RUN(kinx_load_dict(u)); continue;
        case KIN_OP_LIST: RUN(kinx_load_list(u)); continue;
        case KIN_OP_FROZENSET: RUN(kinx_load_frozenset(u)); continue;

        case KIN_OP_EMPTY_TUPLE:
            if (at < end && *at == KIN_OP_NEWOBJ) {
                at++;
                RUN(kinx_load_newobj_bare(u));
                continue;
            }
            PUSH(Py_NewRef(us->empty_tuple));
            continue;
        case KIN_OP_TUPLE1: RUN(kinx_make_tuple(u, kinx_depth(u) - 1)); continue;
        case KIN_OP_TUPLE2: RUN(kinx_make_tuple(u, kinx_depth(u) - 2)); continue;
        case KIN_OP_TUPLE3: RUN(kinx_make_tuple(u, kinx_depth(u) - 3)); continue;
        case KIN_OP_TUPLE: RUN(kinx_load_tuple(u)); continue;

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

        case KIN_OP_POP: RUN(kinx_load_pop(u)); continue;
        case KIN_OP_POP_MARK: RUN(kinx_load_pop_mark(u)); continue;
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
