/* What the files of by value share.
 *
 *   by_value.c           which reducer is whose; the state; what the module exports
 *   by_value_standing.c  what can go by its name
 *   by_value_identity.c  maps that do not keep their keys alive; tokens
 *   by_value_names.c     what is known of a code object: the names in it, its marshalled form
 *   by_value_function.c  sender: functions, cells, code, modules
 *   by_value_class.c     sender: classes
 *   by_value_small.c     sender: what functions and classes have in them
 *   by_value_make.c      receiver: functions and the small things
 *   by_value_class_make.c  receiver: classes
 *
 * What happens once per program, module or kind of class is left to Python and imported
 * when it is first needed: kinfolk._findable (can others import this module?), _mainnames
 * (what has the family of the main module?), _fingerprint (digests), _enums, _late_types
 * (typing, dataclasses). */
#ifndef KINX_BY_VALUE_PARTS_H
#define KINX_BY_VALUE_PARTS_H

#include "ask.h"
#include "by_value.h"

/* -- The state ------------------------------------------------------------------------ */

/* Tables and finds, by whom they belong to. */
#define KINX_BV_OBJECTS(X)                                                                 \
    X(facts)           /* weak: code -> list of its facts */                               \
    X(tokens)          /* weak: class -> token */                                          \
    X(things)          /* token -> (weak reference, None) */                               \
    X(unfilled)        /* weak: what was made here and has no contents yet -> None */      \
    X(received)        /* weak: class -> {name: mark of the value last received} */        \
    X(digests)         /* weak: class -> (addresses of its attributes, fingerprint) */     \
    X(codes)           /* marshalled form -> code */                                       \
    X(registered)      /* set of module names, shared with kinfolk._findable */            \
    X(verdicts)        /* module name -> (weak reference, whether others can import it) */ \
    X(kin_main)        /* weak reference to the main module that kin_names is about */     \
    X(kin_names)       /* name in the main module -> address of what kin have under it */  \
    X(aliases)         /* address of a class -> (module, name), see by_value_class.c */    \
    X(opcodes)         /* bytes: what each opcode says of its argument */                  \
    X(building)        /* RLock: one thread at a time looks up or makes a class */         \
    X(builtins)        /* the dict of the module */                                        \
    X(half_made)       /* the __module__ of a function that has no contents yet */         \
    X(made_with_class) /* frozenset: attributes that are there from the making */          \
    X(home_type)                                                                           \
    /* Imported, some when first needed. */ X(lru_cache)                                   \
    X(cached_property)                                                                     \
    X(weak_set)                                                                            \
    X(weak_key_dict)                                                                       \
    X(weak_value_dict)                                                                     \
    X(urandom)                                                                             \
    X(get_dump)                                                                            \
    X(abc_meta)                                                                            \
    X(type_setattr)                                                                        \
    X(unpickling_error)                                                                    \
    X(verdict)                                                                             \
    X(kin_have)                                                                            \
    X(kin_have_module)                                                                     \
    X(digest)                                                                              \
    X(digest_code)                                                                         \
    X(enum_creation)                                                                       \
    X(enum_prune)                                                                          \
    X(enum_make)                                                                           \
    X(late_learn)

#define KINX_BV_NAMES(X) \
    X(module)            \
    X(qualname)          \
    X(name)              \
    X(doc)               \
    X(dict)              \
    X(defaults)          \
    X(kwdefaults)        \
    X(wrapped)           \
    X(annotations)       \
    X(annotate)          \
    X(type_params)       \
    X(slots)             \
    X(builtins)          \
    X(orig_bases)        \
    X(new)               \
    X(init)              \
    X(init_subclass)     \
    X(spec)              \
    X(path)              \
    X(file)              \
    X(package)           \
    X(loader)            \
    X(setattr)           \
    X(weakref)

typedef struct kinx_bv_names {
#define X(name) PyObject *name;
    KINX_BV_NAMES(X) /* each is "__name__" */
#undef X
} kinx_bv_names;

typedef PyObject *(*kinx_reducer)(kinx_pickler *p, PyObject *thing);

typedef struct kinx_reducer_slot {
    PyTypeObject *type;  /* strong; NULL: free */
    kinx_reducer reduce; /* NULL: python(kin, thing) */
    PyObject *python;
} kinx_reducer_slot;

#define KINX_HOME_NAMES 4 /* globals that a home has from the start */

#define KINX_LATE_MODULES 3
#define KINX_BV_SLOTS 128 /* at least twice what is ever in there */

/* The makers and fillers, in the order of `makers` in by_value.c. */
#define KINX_BV_MAKERS(X) \
    X(function)           \
    X(fill_function)      \
    X(code)               \
    X(cell)               \
    X(fill_cell)          \
    X(home)               \
    X(module)             \
    X(made_module)        \
    X(fill_module)        \
    X(method)             \
    X(lru_cache)          \
    X(fill_lru_cache)     \
    X(class)              \
    X(enum)               \
    X(fill_class)         \
    X(type_variable)      \
    X(attribute)          \
    X(descriptor)         \
    X(view)

typedef enum kinx_maker {
#define X(name) KINX_MAKER_##name,
    KINX_BV_MAKERS(X)
#undef X
        KINX_MAKERS,
    KINX_NO_FILLER = KINX_MAKERS,
} kinx_maker;

typedef struct kinx_by_value_state {
#define X(name) PyObject *name;
    KINX_BV_OBJECTS(X)
#undef X
    kinx_bv_names names;
    PyObject *home_names[KINX_HOME_NAMES]; /* borrowed from names */
    PyObject *makers[KINX_MAKERS];
    PyObject *maker_names[KINX_MAKERS];
    kinx_reducer_slot slots[KINX_BV_SLOTS];
    PyObject *module; /* borrowed: it owns this */
    bool late_known[KINX_LATE_MODULES];
    bool typing_known, dataclasses_known, all_known;
    Py_ssize_t modules_seen; /* how many there were when they were last looked for */
} kinx_by_value;

static inline kinx_by_value *kinx_by_value_of(PyObject *module) {
    return kinx_state_of(module)->by_value;
}

/* -- by_value.c ------------------------------------------------------------------------- */

/* New: (maker, args, state, None, None, filler), or (maker, args) without a filler.  Steals
 * args and state; raises what made one of them NULL. */
PyObject *kinx_reduction(kinx_by_value *bv, kinx_maker maker, PyObject *args, PyObject *state,
                         kinx_maker filler);
/* Let `reduce`, or python(kin, thing), reduce what is exactly of this type.  Raises. */
int kinx_add_reducer(kinx_by_value *bv, PyObject *type, kinx_reducer reduce, PyObject *python);
/* What the functions here need of a pickler, in *p, which pickles nothing. */
int kinx_pickler_to_ask(PyObject *module, PyObject *kin, kinx_pickler *p);
/* Add the reducers for types of modules that have been imported meanwhile. */
int kinx_learn_late_types(kinx_by_value *bv);
/* Borrowed; see kinx_import. */
PyObject *kinx_hook(PyObject **slot, const char *module, const char *name);
/* Borrowed: the namespace of a module.  Raises, for one that is all new (Python 3.10). */
PyObject *kinx_module_dict(PyObject *module);
/* Borrowed or NULL; raises nothing but what comparing does. */
PyObject *kinx_loaded_module(PyObject *name);
/* After an error in somebody else's code: 0 if it may be taken for a "no". */
int kinx_swallow(void);
/* Whether a function of the module can go to work: it was given as many arguments as it wants.
 * Raises. */
bool kinx_takes(PyObject *module, const char *maker, Py_ssize_t nargs, Py_ssize_t want);

/* -- by_value_standing.c ---------------------------------------------------------------- */

enum { KINX_BY_NAME, KINX_BY_SPARE, KINX_BY_VALUE };

/* These may run code of the user's: a module's __getattr__, a metaclass's, an import finder.
 * Before they do they call kinx_not_bare; so -1 and NULL also mean that p->restart is set.  p may be
 * NULL: nothing is being pickled. */

/* How thing, which says that its name is module_name.qualname, can travel; -1 and an exception.
 * Both names may be NULL. */
int kinx_standing(kinx_pickler *p, PyObject *thing, PyObject *module_name, PyObject *qualname);
/* The same for a thing with the attributes __module__ and __qualname__ (or __name__). */
int kinx_standing_of(kinx_pickler *p, PyObject *thing);
/* What the name means in this process: 1 and a new reference, 0 if nothing, -1. */
int kinx_resolve(kinx_pickler *p, PyObject *module_name, PyObject *qualname, PyObject **found);
/* *name: the name of the module whose globals these are, if all receivers have it, else NULL. */
int kinx_home_name(kinx_pickler *p, PyObject *namespace, PyObject **name);
/* The thing's name in the reduction of one that goes by spare: (module, qualname, fingerprint);
 * None if it goes by value.  New. */
PyObject *kinx_where(kinx_pickler *p, int standing, PyObject *thing);
/* What the receiver has under that name; NULL without an exception if not the same.  New. */
PyObject *kinx_find_here(kinx_by_value *bv, PyObject *where);
bool kinx_is_main(PyObject *module_name);

PyObject *kinx_bv_can_import(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *kinx_bv_resolve(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *kinx_bv_standing(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *kinx_bv_is_registered(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *kinx_bv_forget_kin(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *kinx_bv_holds_still(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

/* -- by_value_identity.c ------------------------------------------------------------------ */

/* A weak map is a dict: address -> (weak reference, value).  get: 1 and a new reference, 0, or
 * -1.  pop: 1 if it was there. */
int kinx_weak_get(PyObject *map, PyObject *thing, PyObject **value);
int kinx_weak_set(PyObject *map, PyObject *thing, PyObject *value);
int kinx_weak_pop(PyObject *map, PyObject *thing);
/* The token of thing, given to it now if it has none yet.  New. */
PyObject *kinx_token(kinx_by_value *bv, PyObject *thing);
/* The thing that this process knows under the token: 1 and a new reference, 0, or -1. */
int kinx_known(kinx_by_value *bv, PyObject *token, PyObject **thing);
/* Let token mean thing here. */
int kinx_adopt(kinx_by_value *bv, PyObject *token, PyObject *thing);

PyObject *kinx_bv_token(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

/* -- by_value_names.c ----------------------------------------------------------------------- */

typedef enum kinx_fact {
    KINX_FACT_DATA,    /* bytes: magic number and marshalled form */
    KINX_FACT_GLOBALS, /* tuple: the globals that it reads or assigns */
    KINX_FACT_NAMES,   /* tuple: all names in it */
    KINX_FACT_DIGEST,  /* bytes: its part in a fingerprint */
    KINX_FACTS,
} kinx_fact;

/* New; raises. */
PyObject *kinx_code_fact(kinx_by_value *bv, PyObject *code, kinx_fact fact);
/* The code object behind the magic number in data.  New; raises UnpicklingError. */
PyObject *kinx_code_from(kinx_by_value *bv, PyObject *data);
/* Modules to be imported before function runs, though it names them nowhere whole: a tuple. */
PyObject *kinx_submodules_used(kinx_by_value *bv, PyObject *function, PyObject *namespace);

PyObject *kinx_bv_names_used(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *kinx_bv_code_digest(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

/* -- The sender's reducers ---------------------------------------------------------------- */

PyObject *kinx_reduce_function(kinx_pickler *p, PyObject *function);
PyObject *kinx_reduce_home(kinx_pickler *p, PyObject *home);
PyObject *kinx_reduce_code(kinx_pickler *p, PyObject *code);
PyObject *kinx_reduce_cell(kinx_pickler *p, PyObject *cell);
PyObject *kinx_reduce_module(kinx_pickler *p, PyObject *module);
PyObject *kinx_reduce_class(kinx_pickler *p, PyObject *cls);
extern PyType_Spec kinx_home_spec;

/* Whether cls may have been made in Python; sure only of the interpreter's own classes. */
bool kinx_may_go_by_value(PyTypeObject *cls);

/* Fills the table of reducers with those of by_value_small.c. */
int kinx_add_small_reducers(kinx_by_value *bv);
/* Modules in Python, milliseconds to import: what is known of their types is learned once the
 * program has imported them. */
typedef struct kinx_late_module {
    const char *name;
    int (*learn)(kinx_by_value *bv);
} kinx_late_module;
extern const kinx_late_module kinx_late_modules[KINX_LATE_MODULES];

/* -- The receiver's ------------------------------------------------------------------------ */

#define X(name) PyObject *kinx_make_##name(PyObject *, PyObject *const *, Py_ssize_t);
KINX_BV_MAKERS(X)
#undef X

/* 1 if cls, or a class that it inherits from, has no contents yet. */
int kinx_is_unfilled(kinx_by_value *bv, PyTypeObject *cls);
/* importlib.import_module.  New. */
PyObject *kinx_import_module(PyObject *name);

#endif
