/* What the files of the pickler share: the pickler itself, its memo and its trail.
 *
 * kinx_pickler is one pickling at work, or the inside of a Pickler that the user
 * has made; for dumps() and for messages it lives on the C stack.  The way of an
 * object through the files:
 *
 *   dump.c          dumps, dump, the inside of a Pickler: set up, begin, end, explain
 *   output.c        where the bytes go: into bytes, into a file, into a message
 *   save.c          kinx_save(): what is written by hand: numbers, strings, containers
 *   save_bytes.c    what is copied as it is: strings that are not ASCII, bytes, buffers
 *   save_instance.c instances of plain classes, whose __reduce_ex__ is known beforehand
 *   save_reduce.c   what says itself how (__reduce_ex__ and the like)
 *   save_global.c   what goes by its name
 *   library.c       whose code runs when an object is pickled
 *   save_text.c     what protocols 0 to 2 write otherwise
 *   by_value*.c     functions, classes and modules that cannot go by name
 *   trail.c         the way to the culprit
 *
 * A pickling is *bare* as long as no code has run in it but the interpreter's, its
 * library's and ours, so that nobody can have handed an object out but the object
 * that holds it.  While that is so, what only its container refers to need not be
 * remembered: it cannot be met again.  docs/pickle.md argues it. */
#ifndef KINX_PICKLER_H
#define KINX_PICKLER_H

#include "../state.h"
#include "memo.h"

/* Items of a list, dict or set that are appended at a time: other unpicklers keep that
 * many on their stack. */
#define KINX_BATCH 1000

/* A buffer of at least so many bytes is not copied into the pickle but laid
 * beside it (protocol 5, out of band), and mapped in place by the receiver.  docs/messages.md
 * has the measurements.  A block with that much in it is a large one of the arena, which
 * has its pages to itself: what is kept of it can be split (kin_blob_split). */
#define KINX_OUT_OF_BAND 32768

/* -- What all picklers have in common ------------------------------------------------ */

#define KINX_PICKLER_NAMES(X) \
    X(__class__)              \
    X(__dict__)               \
    X(__getnewargs__)         \
    X(__getnewargs_ex__)      \
    X(__getstate__)           \
    X(__module__)             \
    X(__name__)               \
    X(__new__)                \
    X(__newobj__)             \
    X(__newobj_ex__)          \
    X(__qualname__)           \
    X(__reduce__)             \
    X(__reduce_ex__)          \
    X(__slotnames__)          \
    X(__iter__)               \
    X(__main__)               \
    X(_value_)                \
    X(dispatch_table)         \
    X(items)                  \
    X(persistent_id)          \
    X(reducer_override)       \
    X(write)

struct kinx_pickler_state {
#define KINX_NAME_(name) PyObject *name;
    struct {
        KINX_PICKLER_NAMES(KINX_NAME_)
    } names;
#undef KINX_NAME_
    PyTypeObject *pickler_type, *memo_type;
    PyObject *copyreg_table, *extensions, *slotnames;
    /* The object's own of these names: who has them has not overridden them. */
    PyObject *object_reduce_ex, *object_reduce, *object_getstate;
    PyObject *class_names; /* class made in C -> (reducer, name): see save_reduce.c */
    PyObject *dot;         /* "." */
    /* Top-level modules of the interpreter's library, a frozenset; where their files are. */
    PyObject *library, *library_folder, *kinfolk_folder;
    /* Imported when first needed: see kinx_import. */
    PyObject *partial, *encode, *getattr, *name_mapping, *import_mapping, *explain;
    PyObject *pickling_error; /* see kinx_pickling_error */
    struct kinx_plan *plans;  /* save_instance.c */
    kinx_memo spare_memo;
    uint8_t *scratch; /* KINX_SCRATCH bytes, NULL while in use */
};

#define KINX_SCRATCH 16384

/* _pickle.PicklingError, borrowed, to be raised; see kinx_import_error. */
PyObject *kinx_pickling_error(struct kinx_pickler_state *ps);

#define KINX_UNLIKELY(condition) __builtin_expect(!!(condition), 0)

/* -- The pickler ----------------------------------------------------------------------- */

typedef struct kinx_pickler kinx_pickler;

struct kinx_pickler {
    kinx_state *st;
    struct kinx_pickler_state *ps;
    kin_writer out;
    kinx_memo memo;

    /* What the user has asked for: borrowed by the pickling, NULL for none. */
    PyObject *dispatch_table;   /* asked instead of copyreg's */
    PyObject *extra_reducers;   /* dict type -> reducer, asked before copyreg's */
    PyObject *reducer_override; /* bound */
    PyObject *persistent_id;    /* bound */
    PyObject *buffer_callback;
    bool keep_buffers; /* those of KINX_OUT_OF_BAND bytes or more go into `buffers` */
    PyObject *buffers; /* list, or NULL: what stays out of band */
    int protocol;
    bool fix_imports;
    bool fast;
    bool by_value; /* what cannot be imported goes by value */
    bool kin;      /* the receivers are of this program's family */

    bool bare;         /* see the head of this file */
    bool restart;      /* what was written so far counts no more: begin again, not bare */
    bool gc_paused;    /* by this pickling, as long as it is bare */
    size_t unmemoised; /* objects; or lent */

    PyObject *homes;      /* by value: dict, or NULL */
    PyObject *trail;      /* list of (thing, step, key), innermost first, or NULL */
    kinx_memo classes;    /* that have been looked at: do they go by value? */
    int fast_depth;       /* of containers, in fast mode */
    PyObject *fast_seen;  /* dict of addresses, in fast mode */
    PyObject *payload_of; /* borrowed: whose large payload is being written */
    struct kinx_output *output;
};

/* Write obj.  Returns 0, or raises; also -1 and no exception if p->restart is set. */
int kinx_save(kinx_pickler *p, PyObject *obj);
/* The same; sole: nobody but its container, which is visited once only, refers to it. */
int kinx_save_known(kinx_pickler *p, PyObject *obj, bool sole);
/* The same for a part of a container that is visited once only; borrowed, it may go away
 * meanwhile. */
int kinx_save_part(kinx_pickler *p, PyObject *part);
/* Write the items of a list or dict of any class, to be put into what is on the stack. */
int kinx_save_items_of(kinx_pickler *p, PyObject *obj);
/* Write an exact tuple of the items of a tuple of any class; protocol 2 or higher. */
int kinx_save_tuple_of(kinx_pickler *p, PyObject *tuple);
/* Write a name, an attribute's or a module's. */
int kinx_save_str(kinx_pickler *p, PyObject *str);
/* Write what is neither number, string nor container. */
int kinx_save_other(kinx_pickler *p, PyObject *obj, bool sole);
/* Write a reduction (what __reduce_ex__ returns) of obj; obj may be NULL: then nothing is
 * memoised. */
int kinx_save_reduce(kinx_pickler *p, PyObject *reduced, PyObject *obj, bool sole);
/* Write the name of obj.  name: NULL for its own. */
int kinx_save_global(kinx_pickler *p, PyObject *obj, PyObject *name);
/* 1 if obj was written as the instance of a plain class, 0 if it is none, -1. */
int kinx_save_instance(kinx_pickler *p, PyObject *obj, bool sole);
/* Is it the name of a hook that an instance may have for itself?  A bare pickling that writes
 * it, wherever, begins again: an instance may have been taken for what it is not. */
bool kinx_is_hook_name(const char *name, size_t len);
/* Are instances members of an enum that are reduced as their values?  Asked once for a class. */
bool kinx_is_enumerated(kinx_pickler *p, PyTypeObject *type);
/* Is there no code but the library's in reducing obj? */
bool kinx_reduces_by_library(kinx_pickler *p, PyObject *obj);
/* Is this function the library's, and in C? */
bool kinx_is_library_function(kinx_pickler *p, PyObject *function);

int kinx_plans_init(struct kinx_pickler_state *ps);
void kinx_plans_fini(struct kinx_pickler_state *ps);

/* Remember that obj has been written, unless it is the sole reference and this is bare. */
int kinx_remember(kinx_pickler *p, PyObject *obj, bool sole);
/* Write the `index`th object that was remembered. */
int kinx_refer(kinx_pickler *p, size_t index);
/* -1 raised, 0 not remembered, 1: obj has been written meanwhile, as a part of itself;
 * `pops` items are popped, or a mark if it is -1, and the remembered one is fetched. */
int kinx_save_met_again(kinx_pickler *p, PyObject *obj, bool sole, int pops);

/* The items that an iterator of a reduction gives. */
int kinx_save_list_items(kinx_pickler *p, PyObject *iterator, PyObject *obj);
int kinx_save_dict_items(kinx_pickler *p, PyObject *iterator, PyObject *obj);

/* Protocols 0 to 2: save_text.c. */
int kinx_save_old_int(kinx_pickler *p, PyObject *obj);
int kinx_save_big_int(kinx_pickler *p, PyObject *obj);
int kinx_save_old_float(kinx_pickler *p, PyObject *obj);
int kinx_save_old_str(kinx_pickler *p, PyObject *obj);
int kinx_save_old_bytes(kinx_pickler *p, PyObject *obj);
int kinx_save_old_set(kinx_pickler *p, PyObject *obj);
int kinx_put_text(kinx_pickler *p, const char *format, ...);

/* To be called before any code is run that is not the interpreter's, its library's or
 * ours.  -1 with p->restart set, and no exception, if the pickling has to begin again. */
int kinx_not_bare(kinx_pickler *p);
/* To be called after such code was run whose answer is kept, so that it is not run again: the
 * pickling begins again, if it has to, and is bare once more.  -1 as above. */
int kinx_was_asked(kinx_pickler *p);
/* As kinx_not_bare, whatever was left out.  Always returns -1. */
int kinx_begin_again(kinx_pickler *p);

/* Borrowed: where reducers registered for a type are found besides extra_reducers. */
PyObject *kinx_dispatch_table(kinx_pickler *p);
/* The reducer registered for a type: new reference; NULL for none, or with an exception. */
PyObject *kinx_registered_reducer(kinx_pickler *p, PyTypeObject *type);

/* save_bytes.c.  A payload that is not owned by anybody who keeps it as it is has NULL for its
 * owner. */
int kinx_put_payload(kinx_pickler *p, PyObject *owner, const uint8_t *head, size_t head_len,
                     const void *data, size_t len);
int kinx_put_wide_str(kinx_pickler *p, PyObject *obj);
int kinx_save_bytes(kinx_pickler *p, PyObject *obj, bool sole);
int kinx_save_bytearray(kinx_pickler *p, PyObject *obj, bool sole);
int kinx_save_picklebuffer(kinx_pickler *p, PyObject *obj, bool sole);
/* For protocols that cannot say how large it is.  Always returns -1, as the next two do. */
int kinx_raise_too_large(const char *what);
/* Raise a PicklingError. */
int kinx_raise_pickling(kinx_pickler *p, const char *text);
/* Raise what an error of the writer stands for. */
int kinx_raise_writer(kin_err err);

static inline int kinx_reserve(kinx_pickler *p, size_t need) {
    kin_err err = kin_reserve(&p->out, need);
    return err < 0 ? kinx_raise_writer(err) : 0;
}

static inline int kinx_put_op(kinx_pickler *p, kin_opcode op) {
    kin_err err = kin_put_op(&p->out, op);
    return err < 0 ? kinx_raise_writer(err) : 0;
}

/* -- The trail: the way from the top to what could not be pickled ------------------------ */

/* How a part was reached from the thing that it is a part of. */
typedef enum kinx_step {
    KINX_STEP_ITEM,       /* key: index, in a sequence */
    KINX_STEP_KEY,        /* key: the key itself */
    KINX_STEP_VALUE,      /* key: the key of that value */
    KINX_STEP_ELEMENT,    /* of a set; key: the element */
    KINX_STEP_CLASS,      /* its class */
    KINX_STEP_MAKER,      /* what its reduction calls */
    KINX_STEP_ARG,        /* key: index among the arguments of that */
    KINX_STEP_ARGS,       /* all of the arguments */
    KINX_STEP_STATE,      /* its state */
    KINX_STEP_ATTRIBUTE,  /* key: name, in its __dict__ or a slot */
    KINX_STEP_LIST_ITEM,  /* key: index among the items that its reduction appends */
    KINX_STEP_DICT_KEY,   /* key: a key that its reduction sets */
    KINX_STEP_DICT_VALUE, /* key: the key of a value that its reduction sets */
    KINX_STEP_SETTER,     /* what puts its state into it */
    KINX_STEP_PERSISTENT, /* its persistent id */
} kinx_step;

/* Note, while failing, that the culprit was reached from `thing` by `step`.  key: may be
 * NULL.  Keeps the exception.  Always returns -1. */
int kinx_trail(kinx_pickler *p, PyObject *thing, kinx_step step, PyObject *key);
int kinx_trail_index(kinx_pickler *p, PyObject *thing, kinx_step step, Py_ssize_t index);
/* Note that `thing` itself is the culprit, unless the trail has begun. */
int kinx_trail_culprit(kinx_pickler *p, PyObject *thing);
/* With an exception set: have it say the way.  root: what the caller calls obj. */
void kinx_trail_explain(kinx_pickler *p, PyObject *obj);

int kinx_pickler_exec(PyObject *module);
int kinx_pickler_visit(kinx_state *st, visitproc visit, void *arg);
void kinx_pickler_clear(kinx_state *st);

#endif
