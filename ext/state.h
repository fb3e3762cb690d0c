/* The module's state, and what every file of the extension shares.
 *
 * Nothing is static but constants: an interpreter that loads the module has a
 * state of its own, while the family is the process's and lives in libkin.
 * Objects carry a borrowed pointer to the state.  It outlives them, for an
 * object holds its type, the type the module, and the module the state.
 *
 * Words in the comments of this directory: "new reference", "borrowed" and
 * "steals" as in CPython's own documentation; "raises" means that an exception
 * is set and that the function returns NULL or -1. */
#ifndef KINX_STATE_H
#define KINX_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

#include <kin.h>

#if PY_VERSION_HEX < 0x030C0000 /* these names are newer than what they name */
#include <structmember.h>
#define Py_T_INT T_INT
#define Py_T_PYSSIZET T_PYSSIZET
#define Py_READONLY READONLY
#define Py_T_OBJECT_EX T_OBJECT_EX
#endif

#define KINX_KINDS KIN_KINDS_NAMED

typedef struct kinx_state {
    /* Types: the base of all that lives in the arena, one for each kind of
     * object that a ref can name, and the message. */
    PyTypeObject *shared_type;
    PyTypeObject *semlock_type; /* the base of locks and semaphores */
    PyTypeObject *dict_iterator_type;
    PyTypeObject *kind_types[KINX_KINDS];
    PyTypeObject *synchronized; /* SynchronizedBase */
    PyTypeObject *blob_type;
    PyTypeObject *doorbell_type;
    PyTypeObject *ticket_type, *job_type;
    PyObject *stale_reference;

    PyObject *open; /* kinfolk._kin._open, which pickles of refs call */

    struct kinx_kept *kept;                   /* Blobs with views: see blob.c */
    struct kinx_places *places;               /* place.c */
    struct kinx_pickler_state *pickler;       /* pickle/dump.c */
    struct kinx_unpickler_state *unpickler;   /* pickle/unpickler.c */
    struct kinx_by_value_state *by_value;     /* pickle/by_value.c */
    struct kinx_connection_state *connection; /* connection.c */
    bool fork_hooked;

    /* Imported when first needed: see kinx_import. */
    PyObject *queue_full, *queue_empty;                    /* queue.Full, queue.Empty */
    PyObject *broken_barrier;                              /* threading.BrokenBarrierError */
    PyObject *describe_lock;                               /* kinfolk.synchronize's */
    PyObject *encode_key;                                  /* kinfolk._shared_keys.encode */
    PyObject *queue_shutdown;                              /* kinfolk.queues.ShutDown */
    PyObject *extra_reducers, *late_reducers, *learn_late; /* kinfolk.reduction's */
    PyObject *codes, *synchronize;                         /* kinfolk.sharedctypes' */
    PyObject *get_context;                                 /* kinfolk's */

    struct {
        PyObject *acquire, *release, *value;
    } names; /* interned */
} kinx_state;

/* Calls `visit` for each reference that the state holds. */
#define KINX_STATE_EACH(visit, st)                                                       \
    do {                                                                                 \
        visit((st)->shared_type);                                                        \
        visit((st)->semlock_type);                                                       \
        for (int kind_ = 0; kind_ < KINX_KINDS; kind_++) visit((st)->kind_types[kind_]); \
        visit((st)->blob_type);                                                          \
        visit((st)->doorbell_type);                                                      \
        visit((st)->ticket_type);                                                        \
        visit((st)->job_type);                                                           \
        visit((st)->stale_reference);                                                    \
        visit((st)->open);                                                               \
        visit((st)->queue_full);                                                         \
        visit((st)->queue_empty);                                                        \
        visit((st)->broken_barrier);                                                     \
        visit((st)->describe_lock);                                                      \
        visit((st)->encode_key);                                                         \
        visit((st)->dict_iterator_type);                                                 \
        visit((st)->queue_shutdown);                                                     \
        visit((st)->extra_reducers);                                                     \
        visit((st)->late_reducers);                                                      \
        visit((st)->learn_late);                                                         \
        visit((st)->codes);                                                              \
        visit((st)->synchronize);                                                        \
        visit((st)->get_context);                                                        \
        visit((st)->synchronized);                                                       \
    } while (0)

extern struct PyModuleDef kinx_module;

static inline kinx_state *kinx_state_of(PyObject *module) {
    return (kinx_state *)PyModule_GetState(module);
}

/* The state behind a type of this module or a subclass of one.  Raises TypeError. */
kinx_state *kinx_state_of_type(PyTypeObject *type);

/* Borrowed: *slot, which is filled with module.name when it is empty.  Raises
 * what the import raises. */
PyObject *kinx_import(PyObject **slot, const char *module, const char *name);
/* The same for a class of errors, which is about to be raised, perhaps in place of another one: if
 * the import fails it is Exception.  A module that costs a millisecond is not loaded for an error
 * that most processes never see. */
PyObject *kinx_import_error(PyObject **slot, const char *module, const char *name);

/* Make a type of the module, add it under its name, and keep a reference in
 * *slot.  base: NULL for object. */
int kinx_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject *base, PyTypeObject **slot);

/* "_kin.Lock" for the types of this module, the name of any other. */
const char *kinx_type_label(PyTypeObject *type);

/* The family of this process, founded now if there is none.  Raises. */
kin_family *kinx_family(kinx_state *st);

/* Each file adds what it has to the module: 0, or raises and returns -1. */
int kinx_errors_exec(PyObject *module);
int kinx_family_exec(PyObject *module);
int kinx_ref_exec(PyObject *module);
int kinx_lock_exec(PyObject *module);
int kinx_semaphore_exec(PyObject *module);
int kinx_event_exec(PyObject *module);
int kinx_condition_exec(PyObject *module);
int kinx_barrier_exec(PyObject *module);
int kinx_shared_dict_exec(PyObject *module);
int kinx_shared_list_exec(PyObject *module);
int kinx_memory_exec(PyObject *module);
int kinx_synchronized_exec(PyObject *module);
/* With the module: until then, objects need the names. */
void kinx_synchronized_free(kinx_state *st);
int kinx_blob_exec(PyObject *module);
int kinx_descriptor_exec(PyObject *module);
int kinx_queue_exec(PyObject *module);
int kinx_wait_exec(PyObject *module);
int kinx_ticket_exec(PyObject *module);

/* Make a call that parks, without the GIL, until it ends for another reason
 * than a signal.  If a signal's handler raises, err is -EINTR and the exception
 * is set (kinx_raise leaves it as it is). */
#define KINX_PARK(err, call)                          \
    do {                                              \
        PyThreadState *parked_ = PyEval_SaveThread(); \
        (err) = (call);                               \
        PyEval_RestoreThread(parked_);                \
    } while ((err) == -EINTR && PyErr_CheckSignals() == 0)

/* A long wait is made of stretches.  A signal that comes when the thread is just about
 * to enter the system call interrupts nothing: it is seen at the end of the stretch.  Each
 * is twice as long as the one before, to a limit: who waits for long shall cost nothing. */
#define KINX_STRETCH ((int64_t)1000000000) /* ns */
#define KINX_STRETCH_MAX (8 * KINX_STRETCH)

static inline kin_deadline kinx_stretch_of(kin_deadline deadline, int64_t *stretch) {
    kin_deadline end = kin_deadline_after(*stretch);
    if (*stretch < KINX_STRETCH_MAX) *stretch *= 2;
    return end < deadline ? end : deadline;
}

/* After a stretch: whether there is another.  -EINTR if not, because of an exception. */
static inline bool kinx_goes_on(kin_err *err, kin_deadline until, kin_deadline deadline) {
    if (*err != -ETIMEDOUT || until == deadline) return false;
    if (PyErr_CheckSignals() == 0) return true;
    *err = -EINTR;
    return false;
}

/* Make a call that may have to wait until `deadline`: first at once, with the GIL,
 * and only if that was not to be, parked without it.  `call` gives a kin_err and
 * names its own deadline `until`.  -EAGAIN from it says that somebody else is at
 * work just there, so that the answer is not known: then it is worth the short wait,
 * for "the queue is empty" must be the truth. */
#define KINX_WAIT(err, deadline, call)                                            \
    do {                                                                          \
        kin_deadline until = KIN_NOW;                                             \
        (err) = (call);                                                           \
        if ((deadline) != KIN_NOW && ((err) == -ETIMEDOUT || (err) == -EAGAIN)) { \
            int64_t stretch_ = KINX_STRETCH;                                      \
            do {                                                                  \
                until = kinx_stretch_of(deadline, &stretch_);                     \
                KINX_PARK(err, call);                                             \
            } while (kinx_goes_on(&(err), until, (deadline)));                    \
        }                                                                         \
        while ((err) == -EAGAIN) {                                                \
            until = kin_deadline_after(KINX_SHORT_WAIT);                          \
            KINX_PARK(err, call);                                                 \
            if ((err) != -ETIMEDOUT) break;                                       \
            until = KIN_NOW;                                                      \
            (err) = (call);                                                       \
        }                                                                         \
    } while (0)

#define KINX_SHORT_WAIT 1000000 /* ns */

#endif
