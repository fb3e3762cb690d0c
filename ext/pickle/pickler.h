/* What the files of the pickler share: the pickler itself, its memo and its trail.
 *
 * kinx_pickler is one pickling at work, or the inside of a Pickler that the user
 * has made; it lives on the C stack for dumps() and for messages.  The way of an
 * object through the files:
 *
 *   dump.c          dumps, dump, a message: sets up, begins, ends, explains a failure
 *   save.c          kinx_save(): what is written by hand: numbers, strings, containers
 *   save_global.c   what goes by its name
 *   save_reduce.c   what says itself how (__reduce_ex__ and the like)
 *   save_instance.c instances of plain classes, whose __reduce_ex__ is known beforehand
 *   by_value_*.c    functions, classes and modules that cannot go by name
 *
 * Words: a pickling is *bare* as long as none but the interpreter's own code has
 * run in it, so that nobody but this pickler can have handed an object out; then
 * what only its container refers to need not be memoised.  docs/pickle.md argues it. */
#ifndef KINX_PICKLER_H
#define KINX_PICKLER_H

#include "../state.h"

/* -- The memo: object -> index, in the order of writing ----------------------------- */

typedef struct kinx_memo {
    PyObject **objects; /* strong references; the index of each is its place */
    uint32_t *slots;    /* open addressing: 0 free, else index + 1 */
    size_t count, cap;  /* of objects */
    size_t mask;        /* slots - 1 */
} kinx_memo;

void kinx_memo_init(kinx_memo *memo);
void kinx_memo_fini(kinx_memo *memo);
void kinx_memo_clear(kinx_memo *memo);
/* The index of obj, or -1. */
Py_ssize_t kinx_memo_find(const kinx_memo *memo, const PyObject *obj);
/* The next index is obj's from now on.  Raises MemoryError. */
int kinx_memo_add(kinx_memo *memo, PyObject *obj);

/* -- The trail: the way from the top to what could not be pickled ---------------------- */

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

/* -- The pickler ---------------------------------------------------------------------- */

typedef struct kinx_pickler kinx_pickler;

struct kinx_pickler {
    kinx_state *st;
    PyObject *self; /* borrowed: the Pickler that the user has; NULL in dumps() and messages */
    kin_writer out;
    kinx_memo memo;

    /* What the user has asked for.  Borrowed or strong as the owner of this struct
     * likes; NULL for none. */
    PyObject *dispatch_table;   /* NULL: copyreg's */
    PyObject *extra_reducers;   /* dict type -> reducer, asked before copyreg's */
    PyObject *reducer_override; /* bound, or NULL */
    PyObject *persistent_id;    /* bound, or NULL */
    PyObject *buffer_callback;
    int protocol;
    bool fix_imports;
    bool fast;
    bool by_value; /* what cannot be imported goes by value */
    bool kin;      /* the receivers are of this program's family */

    bool bare;    /* see the head of this file */
    bool restart; /* what was written so far counts no more: begin again, not bare */
    size_t unmemoised;

    PyObject *homes;         /* by value: dict, or NULL */
    struct kinx_plan *plans; /* save_instance.c */
    PyObject *trail;         /* list of (thing, step, key), innermost first, or NULL */
    int fast_depth;
    PyObject *fast_seen;
    void *sink; /* what out.ops write to */
};

/* Write obj.  Returns 0, or raises. */
int kinx_save(kinx_pickler *p, PyObject *obj);
/* Write a reduction (what __reduce_ex__ returns) of obj; obj may be NULL: then nothing is
 * memoised. */
int kinx_save_reduce(kinx_pickler *p, PyObject *reduced, PyObject *obj);
/* Write the name of obj.  name: NULL for its own. */
int kinx_save_global(kinx_pickler *p, PyObject *obj, PyObject *name);
/* To be called before any code is run that is not the interpreter's, its library's or
 * ours.  -1 with p->restart set, and no exception, if the pickling has to begin again. */
int kinx_not_bare(kinx_pickler *p);
/* Note, while failing, that the culprit was reached from `thing` by `step`.  key: may be
 * NULL.  Keeps the exception.  Always returns -1. */
int kinx_trail(kinx_pickler *p, PyObject *thing, kinx_step step, PyObject *key);
int kinx_trail_index(kinx_pickler *p, PyObject *thing, kinx_step step, Py_ssize_t index);

int kinx_pickler_exec(PyObject *module);
int kinx_pickler_visit(kinx_state *st, visitproc visit, void *arg);
void kinx_pickler_clear(kinx_state *st);

/* Borrowed: where reducers registered for a type are found besides extra_reducers. */
PyObject *kinx_dispatch_table(kinx_pickler *p);

#endif
