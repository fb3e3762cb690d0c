/* One pickling from beginning to end: dumps(), dump(), and what is sent.
 *
 * A pickling begins bare (pickler.h).  When code of the user's is about to run, and
 * something was left out of the memo by then, it begins again, once, and remembers
 * everything.  Nothing has happened until then that could not happen twice: no
 * reducer has run, no byte has left.  So a pickle that goes to a file as it is
 * written is not bare, nor one by a Pickler, whose memo its user can see. */
#include "dump.h"

#include "../args.h"
#include "by_value.h"
#include "library.h"

/* -- Bare or not ------------------------------------------------------------------------- */

/* Collecting garbage runs finalizers: the user's code.  Not while a pickling is bare, which
 * makes next to no garbage. */
static void become_bare(kinx_pickler *p) {
#ifdef Py_GIL_DISABLED
    p->bare = false; /* reference counts of other threads are not seen */
#else
    p->bare = true;
    p->gc_paused = PyGC_Disable() == 1;
#endif
}

static void resume_gc(kinx_pickler *p) {
    if (p->gc_paused) PyGC_Enable();
    p->gc_paused = false;
}

int kinx_begin_again(kinx_pickler *p) {
    p->bare = false;
    resume_gc(p);
    p->restart = true;
    return -1;
}

int kinx_not_bare(kinx_pickler *p) {
    if (!p->bare) return 0;
    if (p->unmemoised > 0) return kinx_begin_again(p);
    p->bare = false;
    resume_gc(p);
    return 0;
}

int kinx_was_asked(kinx_pickler *p) {
    p->restart = p->bare && p->unmemoised > 0;
    return p->restart ? -1 : 0;
}

/* -- From beginning to end ------------------------------------------------------------------ */

void kinx_pickler_init(kinx_pickler *p, kinx_state *st) {
    memset(p, 0, sizeof *p);
    p->st = st;
    p->ps = st->pickler;
    p->protocol = KIN_PICKLE_PROTOCOL;
    p->fix_imports = p->by_value = true;
    p->memo = p->ps->spare_memo;
    memset(&p->ps->spare_memo, 0, sizeof p->ps->spare_memo);
}

enum { SPARE_BITS = 12 }; /* the largest memo whose room is kept */

void kinx_pickler_fini(kinx_pickler *p) {
    kinx_memo_clear(&p->memo);
    if (p->ps->spare_memo.slots || p->memo.bits > SPARE_BITS) kinx_memo_fini(&p->memo);
    else p->ps->spare_memo = p->memo;
    kinx_memo_fini(&p->classes);
    Py_CLEAR(p->homes);
    Py_CLEAR(p->buffers);
    Py_CLEAR(p->trail);
    Py_CLEAR(p->fast_seen);
}

static int write_pickle(kinx_pickler *p, PyObject *obj) {
    kin_err err = kin_writer_begin(&p->out, (uint8_t)p->protocol);
    if (err < 0) return kinx_raise_writer(err);
    if (kinx_save(p, obj) < 0) return -1;
    err = kin_writer_end(&p->out);
    return err < 0 ? kinx_raise_writer(err) : 0;
}

static void rewind_all(kinx_pickler *p) {
    p->restart = false;
    p->unmemoised = 0;
    kinx_memo_clear(&p->memo);
    kinx_memo_clear(&p->classes);
    Py_CLEAR(p->buffers);
    kinx_output_rewind(p->output);
}

int kinx_pickle(kinx_pickler *p, PyObject *obj, bool bare) {
    /* Old protocols are for old readers: they get what they know, to the byte. */
    if (bare && p->protocol >= 4 && !p->persistent_id && !p->reducer_override) become_bare(p);
    int err = write_pickle(p, obj);
    while (err < 0 && p->restart) {
        rewind_all(p);
        err = write_pickle(p, obj);
    }
    p->bare = false;
    resume_gc(p);
    return err;
}

/* -- dumps() and dump() ------------------------------------------------------------------------ */

static int parse_int(PyObject *given) {
    long n = PyLong_AsLong(given);
    if (n >= INT_MIN && n <= INT_MAX) return (int)n;
    PyErr_SetString(PyExc_OverflowError, "Python int too large to convert to C int");
    return -1;
}

int kinx_parse_protocol(PyObject *given, PyObject *buffer_callback, int *protocol) {
    *protocol = KIN_PICKLE_PROTOCOL;
    if (given && given != Py_None) {
        int n = parse_int(given);
        if (n == -1 && PyErr_Occurred()) return -1;
        if (n > KIN_PICKLE_PROTOCOL) {
            PyErr_Format(PyExc_ValueError, "pickle protocol must be <= %d", KIN_PICKLE_PROTOCOL);
            return -1;
        }
        *protocol = n < 0 ? KIN_PICKLE_PROTOCOL : n;
    }
    if (buffer_callback && buffer_callback != Py_None && *protocol < 5) {
        PyErr_SetString(PyExc_ValueError, "buffer_callback needs protocol >= 5");
        return -1;
    }
    return 0;
}

enum { OBJ, FILE_, PROTOCOL, BUFFER_CALLBACK, FIX_IMPORTS, BY_VALUE, KIN, PARAMETERS };

static int parse_flag(PyObject *given, bool *flag) {
    if (!given) return 0;
    int yes = PyObject_IsTrue(given);
    if (yes < 0) return -1;
    *flag = yes;
    return 0;
}

static int set_options(kinx_pickler *p, PyObject *const *slots) {
    PyObject *callback = slots[BUFFER_CALLBACK];
    if (kinx_parse_protocol(slots[PROTOCOL], callback, &p->protocol) < 0) return -1;
    if (parse_flag(slots[FIX_IMPORTS], &p->fix_imports) < 0) return -1;
    if (parse_flag(slots[BY_VALUE], &p->by_value) < 0) return -1;
    if (parse_flag(slots[KIN], &p->kin) < 0) return -1;
    p->buffer_callback = callback == Py_None ? NULL : callback;
    return 0;
}

/* Pickle into memory, or through `write`, and explain what fails.  bytes: may be NULL. */
static int pickle_with(kinx_pickler *p, PyObject *obj, PyObject *write, PyObject **bytes) {
    kinx_output out;
    if (kinx_output_init(&out, p->ps, p, write, false) < 0) return -1;
    int err = kinx_pickle(p, obj, !write);
    if (err == 0 && bytes) {
        *bytes = kinx_output_take(&out);
        if (!*bytes) err = -1;
    }
    kinx_output_fini(&out);
    if (err < 0) kinx_trail_explain(p, obj);
    return err;
}

static PyObject *pickle_dumps(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames) {
    static const char *const names[] = {"obj",         "protocol", "buffer_callback",
                                        "fix_imports", "by_value", "kin"};
    static const kinx_parameters params = {names, 0, 1, 3, 6};
    kinx_pickler p;
    kinx_pickler_init(&p, kinx_state_of(module));
    PyObject *given[6] = {NULL}, *bytes = NULL;
    if (nargs == 1 && !kwnames) {
        pickle_with(&p, args[0], NULL, &bytes);
    } else if (kinx_fill_slots("dumps", &params, given, args, nargs, kwnames) == 0) {
        PyObject *slots[PARAMETERS] = {given[0], NULL,     given[1], given[2],
                                       given[3], given[4], given[5]};
        if (set_options(&p, slots) == 0) pickle_with(&p, given[0], NULL, &bytes);
    }
    kinx_pickler_fini(&p);
    return bytes;
}

/* What goes to kin by another way than a queue: in one piece, with the reducers registered for
 * sending. */
static PyObject *dumps_for_kin(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs < 1 || nargs > 2) {
        PyErr_SetString(PyExc_TypeError, "dumps_for_kin() takes an object and a protocol");
        return NULL;
    }
    kinx_state *st = kinx_state_of(module);
    PyObject *reducers = kinx_sending_reducers(st), *bytes = NULL;
    if (!reducers) return NULL;
    kinx_pickler p;
    kinx_pickler_init(&p, st);
    p.kin = true;
    p.extra_reducers = reducers;
    if (kinx_parse_protocol(nargs > 1 ? args[1] : NULL, NULL, &p.protocol) == 0) {
        pickle_with(&p, args[0], NULL, &bytes);
    }
    kinx_pickler_fini(&p);
    return bytes;
}

PyObject *kinx_write_method(struct kinx_pickler_state *ps, PyObject *file) {
    PyObject *write = PyObject_GetAttr(file, ps->names.write);
    if (!write && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_SetString(PyExc_TypeError, "file must have a 'write' attribute");
    }
    return write;
}

static PyObject *pickle_dump(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames) {
    static const char *const names[] = {"obj",         "file",     "protocol", "buffer_callback",
                                        "fix_imports", "by_value", "kin"};
    static const kinx_parameters params = {names, 0, 2, 4, PARAMETERS};
    kinx_pickler p;
    kinx_pickler_init(&p, kinx_state_of(module));
    PyObject *slots[PARAMETERS] = {NULL};
    int err = kinx_fill_slots("dump", &params, slots, args, nargs, kwnames);
    if (err == 0) err = set_options(&p, slots);
    PyObject *write = err == 0 ? kinx_write_method(p.ps, slots[FILE_]) : NULL;
    if (write) err = pickle_with(&p, slots[OBJ], write, NULL);
    bool done = write && err == 0;
    Py_XDECREF(write);
    kinx_pickler_fini(&p);
    if (!done) return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(dumps_doc,
             "dumps($module, /, obj, protocol=None, buffer_callback=None, *, fix_imports=True,\n"
             "      by_value=True, kin=False)\n--\n\n"
             "The pickle of obj, as bytes: see kinfolk.pickle.");
PyDoc_STRVAR(dump_doc, "dump($module, /, obj, file, protocol=None, buffer_callback=None, *,\n"
                       "     fix_imports=True, by_value=True, kin=False)\n--\n\n"
                       "Write the pickle of obj to file: see kinfolk.pickle.");

PyDoc_STRVAR(for_kin_doc,
             "dumps_for_kin($module, obj, protocol=None, /)\n--\n\n"
             "The pickle of obj, as bytes, for members of this program's family, with the\n"
             "reducers of kinfolk.reduction.ForkingPickler.");

static PyMethodDef functions[] = {
    {"dumps", (PyCFunction)(void (*)(void))pickle_dumps, METH_FASTCALL | METH_KEYWORDS, dumps_doc},
    {"dump", (PyCFunction)(void (*)(void))pickle_dump, METH_FASTCALL | METH_KEYWORDS, dump_doc},
    {"dumps_for_kin", (PyCFunction)(void (*)(void))dumps_for_kin, METH_FASTCALL, for_kin_doc},
    {NULL},
};

/* -- What all picklers have in common -------------------------------------------------------- */

static int intern_names(struct kinx_pickler_state *ps) {
#define KINX_INTERN_(name) \
    if (!(ps->names.name = PyUnicode_InternFromString(#name))) return -1;
    KINX_PICKLER_NAMES(KINX_INTERN_)
#undef KINX_INTERN_
    return 0;
}

PyObject *kinx_pickling_error(struct kinx_pickler_state *ps) {
    return kinx_import_error(&ps->pickling_error, "_pickle", "PicklingError");
}

static PyObject *attr_of(const char *module, const char *name) {
    PyObject *slot = NULL;
    return kinx_import(&slot, module, name);
}

static int import_all(struct kinx_pickler_state *ps) {
    ps->copyreg_table = attr_of("copyreg", "dispatch_table");
    ps->extensions = ps->copyreg_table ? attr_of("copyreg", "_extension_registry") : NULL;
    ps->slotnames = ps->extensions ? attr_of("copyreg", "_slotnames") : NULL;
    ps->class_names = ps->slotnames ? PyDict_New() : NULL;
    ps->dot = ps->class_names ? PyUnicode_InternFromString(".") : NULL;
    return ps->dot ? kinx_library_init(ps) : -1;
}

int kinx_pickler_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    struct kinx_pickler_state *ps = PyMem_Calloc(1, sizeof *ps);
    if (!ps) {
        PyErr_NoMemory();
        return -1;
    }
    st->pickler = ps;
    if (kinx_plans_init(ps) < 0 || intern_names(ps) < 0 || import_all(ps) < 0) return -1;
    if (kinx_pickler_types_exec(module) < 0) return -1;
    return PyModule_AddFunctions(module, functions);
}

/* Calls `visit` for each reference that the pickler's state holds. */
#define EACH(visit, ps)              \
    do {                             \
        visit((ps)->pickler_type);   \
        visit((ps)->memo_type);      \
        visit((ps)->pickling_error); \
        visit((ps)->copyreg_table);  \
        visit((ps)->extensions);     \
        visit((ps)->slotnames);      \
        visit((ps)->class_names);    \
        visit((ps)->dot);            \
        visit((ps)->library);        \
        visit((ps)->library_folder); \
        visit((ps)->kinfolk_folder); \
        visit((ps)->partial);        \
        visit((ps)->encode);         \
        visit((ps)->getattr);        \
        visit((ps)->name_mapping);   \
        visit((ps)->import_mapping); \
        visit((ps)->explain);        \
    } while (0)

int kinx_pickler_visit(kinx_state *st, visitproc visit, void *arg) {
    if (st->pickler) EACH(Py_VISIT, st->pickler);
    return 0;
}

void kinx_pickler_clear(kinx_state *st) {
    struct kinx_pickler_state *ps = st->pickler;
    if (!ps) return;
    st->pickler = NULL;
    EACH(Py_CLEAR, ps);
#define KINX_CLEAR_(name) Py_CLEAR(ps->names.name);
    KINX_PICKLER_NAMES(KINX_CLEAR_)
#undef KINX_CLEAR_
    kinx_plans_fini(ps);
    kinx_memo_fini(&ps->spare_memo);
    PyMem_Free(ps->scratch);
    PyMem_Free(ps);
}
