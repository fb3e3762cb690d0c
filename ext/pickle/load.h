/* What the files of the unpickler share: one loading, and the machine it runs.
 *
 * A pickle is a program for a stack machine; load.c runs it.  The others:
 *
 *   unpickler.c     loads, load, the Unpickler and its memo's proxy
 *   load.c          the loop, and what belongs in it: numbers, strings, the memo at its best
 *   load_stack.c    the stack and its marks; lists, dicts, sets and tuples
 *   load_source.c   where the bytes come from, if from a file
 *   load_memo.c     the memo, where it is not simply the next place
 *   load_ahead.c    what of the memo will be asked for
 *   load_text.c     opcodes with lines of text, and other things of protocol 0
 *   load_global.c   what is named: find_class, extension codes
 *   load_object.c   objects that are called into being, and BUILD
 *   load_state.c    BUILD for plain classes
 *   keys.c          a small cache of the strings that are dicts' keys
 *
 * The code that a pickle names may do anything, but it cannot get at a loader, save by
 * the Unpickler whose inside it is; and that refuses while it is at work.  So the
 * loop keeps its registers (where it reads, the top of the stack) in locals, and the
 * loader's own are right only while a function of another file has the loader.
 *
 * Two words: a mark's *pending* container is an empty dict or list whose making was put
 * off, because it stands right below a mark and so is out of reach until the mark goes:
 * by then it is known what is to be in it.  Its place on the stack is NULL.  A
 * *foreign* call runs code that is neither the interpreter's own nor ours. */
#ifndef KINX_LOAD_H
#define KINX_LOAD_H

#include "ask.h"
#include "unpickler.h"

/* -- What belongs to the module ------------------------------------------------------ */

#define KINX_KEYS 1024      /* a power of two */
#define KINX_KEY_MAX 32     /* bytes */
#define KINX_KEYS_OF_ONE 64 /* a dict with more keys is no record: its keys are its own */
#define KINX_SMALL 256      /* ints below it are at hand */

/* Strings, interned.  X(name, text) */
#define KINX_UNPICKLER_STRINGS(X)         \
    X(import, "__import__")               \
    X(spec, "__spec__")                   \
    X(initializing, "_initializing")      \
    X(own_name, "kinfolk._kin")           \
    X(find_class, "find_class")           \
    X(persistent_load, "persistent_load") \
    X(setstate, "__setstate__")           \
    X(dict, "__dict__")                   \
    X(getinitargs, "__getinitargs__")     \
    X(new, "__new__")                     \
    X(extend, "extend")                   \
    X(append, "append")                   \
    X(add, "add")                         \
    X(locals, "<locals>")                 \
    X(dot, ".")                           \
    X(peek, "peek")                       \
    X(read, "read")                       \
    X(readinto, "readinto")               \
    X(readline, "readline")

typedef struct kinx_unpickler_state {
    PyTypeObject *unpickler_type;
    PyTypeObject *proxy_type; /* of an Unpickler's memo */
    PyObject *empty_tuple;
    PyObject *import; /* builtins.__import__, as it was at first */

    /* Imported when first needed. */
    PyObject *error;                               /* see kinx_unpickling_error */
    PyObject *name_mapping, *import_mapping;       /* _compat_pickle's */
    PyObject *extension_cache, *inverted_registry; /* copyreg's */

#define KINX_FIELD_(name, text) PyObject *str_##name;
    KINX_UNPICKLER_STRINGS(KINX_FIELD_)
#undef KINX_FIELD_
    PyObject *small[KINX_SMALL]; /* the ints from 0 on */
    PyObject *keys[KINX_KEYS];   /* see keys.c */

    PyObject *own_dict; /* borrowed: the module's, which has the state */
    uint8_t ahead[256]; /* see load_ahead.c */
    getter plain_dict;  /* how classes made by a class statement give __dict__ */
} kinx_unpickler_state;

/* _pickle.UnpicklingError, borrowed, to be raised; see kinx_import_error. */
PyObject *kinx_unpickling_error(kinx_unpickler_state *us);

/* -- One loading ---------------------------------------------------------------------- */

/* What stands below a mark. */
typedef enum kinx_mark_kind {
    KINX_MARK_PLAIN,
    KINX_MARK_DICT, /* a dict: what follows are keys and values in turn */
    KINX_MARK_PENDING_DICT,
    KINX_MARK_PENDING_LIST,
} kinx_mark_kind;

typedef struct kinx_mark {
    Py_ssize_t at; /* how many are on the stack below it */
    kinx_mark_kind kind;
} kinx_mark;

#define KINX_FIRST_STACK 192
#define KINX_FIRST_MARKS 24
#define KINX_FIRST_MEMO 64

/* Where a loading begins to work: on the C stack. */
typedef struct kinx_desk {
    PyObject *stack[KINX_FIRST_STACK];
    kinx_mark marks[KINX_FIRST_MARKS];
} kinx_desk;

/* Index -> object.  A pickle numbers what it memoises 0, 1, 2, …, so that an array will
 * do; what a (hostile) one numbers otherwise is in a dict, for memory has to be in
 * proportion to the pickle. */
typedef struct kinx_memo_table {
    PyObject **objects; /* strong references or NULL: `filled` of them, of `cap` */
    size_t filled, cap;
    size_t count;  /* objects in all: the next index that MEMOIZE gives */
    PyObject *far; /* dict, or NULL */
} kinx_memo_table;

/* A file, and the bytes that were read ahead of it. */
typedef struct kinx_source {
    PyObject *read, *readline; /* strong */
    PyObject *readinto, *peek; /* strong, or NULL */
    uint8_t *hold;             /* what was read, or seen by peek() */
    size_t cap;
    const uint8_t *unread; /* NULL, or: the file is here; what follows was only peeked at */
} kinx_source;

/* What BUILD has to know of a class; see load_state.c. */
typedef struct kinx_shape kinx_shape;

#define KINX_BLANKS 32

typedef struct kinx_loader {
    kinx_state *st;
    kinx_unpickler_state *us;
    PyObject *self; /* borrowed: the Unpickler, NULL in loads() and load() */

    const uint8_t *at, *end; /* the bytes that are there to read */
    kinx_source *source;     /* NULL: there are no more */

    PyObject **stack, **top, **stack_end; /* top: the first free place */
    kinx_mark *marks;
    size_t mark_count, mark_cap;
    Py_ssize_t fence; /* what is below it is behind a mark */
    PyObject **desk_stack;
    kinx_mark *desk_marks;

    kinx_memo_table memo;
    bool looked;     /* ahead; then, unless it is NULL: */
    uint8_t *wanted; /* bits: which of the entries to come will be asked for */
    size_t wanted_count;

    PyObject *persistent_load; /* strong, while loading, or NULL */
    PyObject *buffers;         /* strong, an iterator, or NULL */
    const char *encoding, *errors;
    int proto;
    bool fix_imports;
    bool running;
    bool paused; /* the cyclic collector, by us */

    size_t foreign; /* foreign calls so far */
    struct {
        PyObject *obj; /* borrowed, may be gone: only to be compared */
        size_t foreign;
    } blanks[KINX_BLANKS]; /* instances just made, with nothing in them: the last ones */
    size_t blank_count;
    kinx_shape *shapes;
    size_t shape_count;
} kinx_loader;

void kinx_loader_init(kinx_loader *u, kinx_state *st);
/* Drops all that it has but the source. */
void kinx_loader_fini(kinx_loader *u);
/* Run the pickle at u->at up to its STOP.  New reference; raises. */
PyObject *kinx_load(kinx_loader *u);

/* -- Errors: always -1 ------------------------------------------------------------------ */

int kinx_truncated(kinx_loader *u);
int kinx_underflow(kinx_loader *u);

/* -- load_stack.c -------------------------------------------------------------------------- */

/* Room for one more.  Raises MemoryError. */
int kinx_stack_grow(kinx_loader *u, size_t more);

/* Steals obj, which may be NULL: then an exception is set, and this returns -1. */
static inline int kinx_push(kinx_loader *u, PyObject *obj) {
    if (!obj) return -1;
    if (u->top == u->stack_end && kinx_stack_grow(u, 1) < 0) {
        Py_DECREF(obj);
        return -1;
    }
    *u->top++ = obj;
    return 0;
}

static inline Py_ssize_t kinx_depth(const kinx_loader *u) {
    return u->top - u->stack;
}

/* How many of the values at the top are above the fence. */
static inline Py_ssize_t kinx_reach(const kinx_loader *u) {
    return kinx_depth(u) - u->fence;
}

/* Take the last mark away.  Returns how deep it was, and sees to it that what is below it
 * is there; -1 if there is no mark. */
Py_ssize_t kinx_pop_mark(kinx_loader *u);
/* The same, and leaves a pending container for the caller to make; *kind says so. */
Py_ssize_t kinx_pop_mark_as_is(kinx_loader *u, kinx_mark_kind *kind);
/* Room for one mark more.  Raises MemoryError. */
int kinx_grow_marks(kinx_loader *u);
/* Drop what is above `depth`. */
void kinx_stack_cut(kinx_loader *u, Py_ssize_t depth);
/* What is above `depth`, which is taken from there.  New reference. */
PyObject *kinx_pop_tuple(kinx_loader *u, Py_ssize_t depth);
PyObject *kinx_pop_list(kinx_loader *u, Py_ssize_t depth);

/* Append, or set the pairs, that are above `depth` to what is right below it. */
int kinx_append(kinx_loader *u, Py_ssize_t depth);
int kinx_set_items(kinx_loader *u, Py_ssize_t depth);
/* Push a tuple of what is above `depth`; or what is called with it, if that is next. */
int kinx_make_tuple(kinx_loader *u, Py_ssize_t depth);
int kinx_load_appends(kinx_loader *u);
int kinx_load_setitems(kinx_loader *u);
int kinx_load_additems(kinx_loader *u);
int kinx_load_dict(kinx_loader *u);
int kinx_load_list(kinx_loader *u);
int kinx_load_tuple(kinx_loader *u);
int kinx_load_frozenset(kinx_loader *u);
int kinx_load_pop(kinx_loader *u);
int kinx_load_pop_mark(kinx_loader *u);

/* -- Calls ---------------------------------------------------------------------------------- */

/* Around a foreign call: the collector is as the program has it. */
static inline void kinx_foreign_begin(kinx_loader *u) {
    u->foreign++;
#if PY_VERSION_HEX < 0x030C0000
    if (u->paused) PyGC_Enable();
#endif
}

static inline void kinx_foreign_end(kinx_loader *u) {
#if PY_VERSION_HEX < 0x030C0000
    if (u->paused) u->paused = PyGC_Disable();
#endif
}

/* -- load_source.c ---------------------------------------------------------------------- */

/* See to it that `n` bytes, at least, are at u->at.  Raises; UnpicklingError if there are
 * no more. */
int kinx_fill(kinx_loader *u, size_t n);
/* A line, with its newline, at u->at; *len with the newline.  *line stays as long as
 * nothing else is read.  u->at is behind it then. */
int kinx_read_line(kinx_loader *u, const uint8_t **line, size_t *len);
/* `n` bytes, as bytes or (mutable) as a bytearray.  New reference. */
PyObject *kinx_read_bytes(kinx_loader *u, size_t n, bool mutable);
/* Leave the file where the pickle ended. */
int kinx_source_settle(kinx_loader *u);
/* Raises TypeError if it is no file to read from. */
int kinx_source_init(kinx_unpickler_state *us, kinx_source *source, PyObject *file);
void kinx_source_fini(kinx_source *source);

/* -- load_memo.c ------------------------------------------------------------------------- */

/* obj's index is `index` from now on.  Takes a reference of its own. */
int kinx_memo_put(kinx_memo_table *memo, size_t index, PyObject *obj);
/* Borrowed; NULL if there is none, without an exception, mostly. */
PyObject *kinx_memo_get(const kinx_memo_table *memo, size_t index);
/* A dict of all.  New reference. */
PyObject *kinx_memo_as_dict(const kinx_memo_table *memo);
void kinx_memo_drop(kinx_memo_table *memo);

/* -- load_ahead.c -------------------------------------------------------------------------- */

void kinx_ahead_table(uint8_t table[256]);
/* Look at all that is to come, and fill u->wanted. */
void kinx_look_ahead(kinx_loader *u);

/* Whether what is memoised next is known never to be asked for. */
static inline bool kinx_is_unwanted(const kinx_loader *u) {
    size_t index = u->memo.count;
    return u->wanted && index < u->wanted_count && !(u->wanted[index / 8] >> index % 8 & 1);
}

#if PY_VERSION_HEX >= 0x030C0000
#define KINX_NO_PERSISTENT_LOAD                          \
    "A load persistent id instruction was encountered, " \
    "but no persistent_load function was specified."
#else
#define KINX_NO_PERSISTENT_LOAD                           \
    "A load persistent id instruction was encountered,\n" \
    "but no persistent_load function was specified."
#endif

/* -- load_text.c: each reads its argument, and pushes -------------------------------------- */

int kinx_load_int(kinx_loader *u);
int kinx_load_long(kinx_loader *u);
int kinx_load_float(kinx_loader *u);
int kinx_load_string(kinx_loader *u);
int kinx_load_unicode(kinx_loader *u);
int kinx_load_persid(kinx_loader *u);
int kinx_load_binpersid(kinx_loader *u);
int kinx_load_get(kinx_loader *u);
int kinx_load_put(kinx_loader *u);
/* Push what Python 2 had as a str. */
int kinx_load_binstring(kinx_loader *u, size_t len);

/* -- load_global.c ---------------------------------------------------------------------------- */

int kinx_load_global(kinx_loader *u);
int kinx_load_stack_global(kinx_loader *u);
int kinx_load_extension(kinx_loader *u, long code);
/* What is named module.name, by the Unpickler's find_class if it has one of its own. */
PyObject *kinx_find(kinx_loader *u, PyObject *module, PyObject *name);
/* The same as find_class itself does it.  New reference. */
PyObject *kinx_find_class(kinx_loader *u, PyObject *module, PyObject *name);

/* -- load_object.c ----------------------------------------------------------------------------- */

int kinx_load_inst(kinx_loader *u);
int kinx_load_obj(kinx_loader *u);
int kinx_load_newobj(kinx_loader *u, bool with_kwargs);
/* NEWOBJ with no arguments: the class is at the top. */
int kinx_load_newobj_bare(kinx_loader *u);
int kinx_load_reduce(kinx_loader *u);
/* REDUCE with the `count` values at the top for its arguments. */
int kinx_load_reduce_from_stack(kinx_loader *u, Py_ssize_t count);
int kinx_load_build(kinx_loader *u);
/* APPENDS and the like for what is above `depth`, onto something odd. */
int kinx_extend_other(kinx_loader *u, Py_ssize_t depth);
int kinx_add_other(kinx_loader *u, Py_ssize_t depth);

/* -- load_state.c ------------------------------------------------------------------------------ */

/* obj has just been made, by object.__new__. */
void kinx_note_blank(kinx_loader *u, PyObject *obj);
/* Whether the next value is the state, or the one for slots, of what was just noted. */
bool kinx_at_state(const kinx_loader *u);
/* BUILD with the pairs above `depth` for a state, which is a dict that nobody has seen;
 * the instance is below.  1: done; 0: not to be done in this way; -1. */
int kinx_build_from_pairs(kinx_loader *u, Py_ssize_t depth);
/* The same for the state (None, {pairs}): the None is below, the instance below that. */
int kinx_build_slots_from_pairs(kinx_loader *u, Py_ssize_t depth);
/* BUILD with any state.  The same. */
int kinx_build_plain(kinx_loader *u, PyObject *inst, PyObject *state);
void kinx_shapes_drop(kinx_loader *u);

/* -- keys.c ---------------------------------------------------------------------------------------- */

/* The str of `len` bytes, at most KINX_KEY_MAX, from the cache if it is there.  NULL
 * without an exception if they are not all ASCII.  New reference. */
PyObject *kinx_key(kinx_unpickler_state *us, const uint8_t *text, size_t len);
/* key is interned: have it in place of an equal one. */
void kinx_key_prefer(kinx_unpickler_state *us, PyObject *key);

/* A str.  New reference. */
PyObject *kinx_text(const uint8_t *text, size_t len);

#endif
