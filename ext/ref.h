/* What lives in the arena, as Python objects, and the pickling of refs. */
#ifndef KINX_REF_H
#define KINX_REF_H

#include "state.h"

/* An object of any type over libkin's handles; Python's subclasses too.
 * Not open (handle.family == NULL, kind 0) until __init__ or _open was there. */
typedef struct kinx_shared {
    PyObject_HEAD
    PyObject *weakrefs;
    PyObject *attributes; /* of types with them, NULL until there are any (KINX_ATTRIBUTES) */
    kinx_state *state;    /* borrowed */
    union {
        kin_handle handle;
        kin_lock lock;
        kin_rlock rlock;
        kin_semaphore semaphore;
        kin_event event;
        kin_condition condition;
        kin_barrier barrier;
        kin_dict dict;
        kin_list list;
        kin_queue queue;
        kin_transit transit;
    };
    /* Locks: the thread that took it last through this object. */
    unsigned long thread;
    /* Semaphores: how often `member` has taken it through this object.  Memory: how many views of it
     * there are. */
    uint32_t member, count;
    /* Queues: the member that closed it, for itself, through this object. */
    uint32_t closed;
    /* Queues: what get_many() has taken for this member and not handed over, or NULL. */
    uint32_t owed_to;
    PyObject *owed;
    /* Queues: for who has asked for a descriptor (wait.c); NULL else. */
    kin_doorbell *doorbell;
} kinx_shared;

/* tp_new and tp_dealloc of all of them. */
PyObject *kinx_shared_new(PyTypeObject *type, PyObject *args, PyObject *kwds);
void kinx_shared_dealloc(kinx_shared *self);
/* A type whose objects can be given attributes, as they can in multiprocessing: flags, members and
 * getters for its spec, and what the collector asks. */
#define KINX_ATTRIBUTES_FLAGS \
    (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC)
#define KINX_ATTRIBUTES_MEMBER \
    {"__dictoffset__", Py_T_PYSSIZET, offsetof(kinx_shared, attributes), Py_READONLY, NULL}
#define KINX_ATTRIBUTES_GETSET \
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL}
extern PyMemberDef kinx_attributes_members[];
int kinx_attributes_traverse(kinx_shared *self, visitproc visit, void *arg);
int kinx_attributes_clear(kinx_shared *self);

/* Close its doorbell, if there is one (wait.c). */
void kinx_shared_silence(kinx_shared *self);

/* At the beginning of __init__: the family to make the object in; raises if
 * the object was made before. */
kin_family *kinx_shared_init(kinx_shared *self);

/* Raises RuntimeError: __init__ was not called.  Always returns NULL. */
PyObject *kinx_raise_not_open(kinx_shared *self);
#define KINX_CHECK_OPEN(self)                                         \
    do {                                                              \
        if (!(self)->handle.family) return kinx_raise_not_open(self); \
    } while (0)

/* Shared.__reduce__. */
PyObject *kinx_shared_reduce(kinx_shared *self, PyObject *unused);

/* "<LABEL at 0x… STATE>".  New reference. */
PyObject *kinx_shared_repr(kinx_shared *self, const char *format, ...);

/* -- Refs as bytes ------------------------------------------------------ */

/* The family's id, then kind, offset and serial, little-endian. */
#define KINX_REF_LEN (KIN_FAMILY_ID_LEN + 4 + 8 + 8)

/* New reference: bytes. */
PyObject *kinx_ref_pack(kin_family *family, const kin_ref *ref);
/* Read a ref and check that its family is this process's: the family, or
 * raises and returns NULL.  thing: as in kinx_raise. */
kin_family *kinx_ref_unpack(PyObject *bytes, kin_ref *out, const char *thing);

/* -- The shared objects that a pickle under way mentions -------------------- */

/* While one of these is open, whatever this thread pickles of the arena is
 * noted in it, and kept alive: the message will carry the refs.  They nest, for
 * pickling runs the user's code, which may put something into a queue. */
typedef struct kinx_mentions {
    struct kinx_mentions *outer;
    kinx_shared **items; /* strong references */
    uint32_t count, room;
    kinx_shared *few[4];
} kinx_mentions;

void kinx_mentions_begin(kinx_mentions *mentions);
/* Note an object in the innermost, if there is one.  Raises. */
int kinx_mention(kinx_shared *self);
/* Is one open in this thread?  Else nobody keeps what is pickled now. */
bool kinx_mentions_are_noted(void);
/* No more is noted; what was noted stays. */
void kinx_mentions_end(kinx_mentions *mentions);
void kinx_mentions_clear(kinx_mentions *mentions);

#endif
