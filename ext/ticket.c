/* Job and Ticket: the tasks of a pool on their way from an iterable to a worker (docs/pool.md).
 *
 * A Job is a call of a map: it turns what its iterable gives into tickets, a number of them ahead if
 * that runs nobody's code.  A Ticket is one task; it says what is to be put into a worker's line:
 *
 *     (how, func, args)  or  (how, func, args, kwds)
 *
 * how: one of kinfolk._pool_worker.How.  func: itself, or its pickle: a function is pickled once for
 * the whole job, since by value that is dear.
 *
 * Neither is the collector's business: a pool's threads know both as long as they are anybody's. */
#include "message.h"

typedef struct kinx_job {
    PyObject_HEAD
    PyObject *number;   /* under which its result waits */
    PyObject *func;     /* what its tasks call, */
    PyObject *packed;   /* and its pickle (see pack), or NULL */
    PyObject *iterable; /* once it is begun, its iterator; NULL: the one ticket is made */
    Py_ssize_t size;    /* how many things a task has; 0: there are no tasks */
    Py_ssize_t count;   /* tickets so far */
    unsigned char how;
    bool has_begun;
    bool packs;       /* its workers are processes */
    bool has_sent;    /* the function, as it is */
    bool runs_nobody; /* the iterable is of a type whose iterator is the interpreter's own */
} kinx_job;

typedef struct kinx_ticket {
    PyObject_HEAD
    kinx_job *job;
    PyObject *args, *kwds; /* kwds: NULL if there are none */
    Py_ssize_t index;
    int returns; /* how often it came back, untouched, from a worker that died */
    int retries; /* how often it was given to another after a worker had died working on it */
} kinx_ticket;

static void dealloc_type(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* -- Ticket ------------------------------------------------------------------------------ */

static void ticket_dealloc(kinx_ticket *self) {
    Py_XDECREF(self->job);
    Py_XDECREF(self->args);
    Py_XDECREF(self->kwds);
    dealloc_type((PyObject *)self);
}

/* Steals args.  New reference. */
static PyObject *ticket_new(kinx_state *st, kinx_job *job, PyObject *args, PyObject *kwds) {
    kinx_ticket *self = (kinx_ticket *)st->ticket_type->tp_alloc(st->ticket_type, 0);
    if (!self) {
        Py_DECREF(args);
        return NULL;
    }
    Py_INCREF(job);
    self->job = job;
    self->args = args;
    Py_XINCREF(kwds);
    self->kwds = kwds;
    self->index = job->count++;
    return (PyObject *)self;
}

/* The function's pickle, for kin: a new reference, None if it mentions what lives in the arena (which
 * only a message keeps alive), or raises. */
static PyObject *pack(kinx_state *st, PyObject *func) {
    kinx_message message;
    if (kinx_message_init_whole(st, &message, func) < 0) return NULL;
    PyObject *packed = Py_None;
    if (message.mentions.count) Py_INCREF(packed);
    else packed = kinx_message_bytes(&message);
    kinx_message_fini(&message);
    return packed;
}

/* What stands for the function in a task.  Other things that are called may have a state of their
 * own (a bound method, a partial), which tasks do not share: they are pickled with each.  So is a
 * function at first: it may be the only task. */
static PyObject *function_of(kinx_ticket *self) {
    kinx_job *job = self->job;
    PyObject *func = job->func;
    if (job->packs && job->has_sent && PyFunction_Check(func)) {
        if (!job->packed) {
            kinx_state *st = kinx_state_of_type(Py_TYPE(self));
            PyObject *packed = st ? pack(st, func) : NULL;
            if (!packed) return NULL;
            Py_XSETREF(job->packed, packed); /* another thread may have been here */
        }
        if (job->packed != Py_None) func = job->packed;
    }
    job->has_sent = true;
    Py_INCREF(func);
    return func;
}

static PyObject *task(kinx_ticket *self, PyObject *unused) {
    PyObject *func = function_of(self);
    if (!func) return NULL;
    PyObject *how = PyLong_FromLong(self->job->how), *made = NULL;
    if (how && self->kwds) made = PyTuple_Pack(4, how, func, self->args, self->kwds);
    else if (how) made = PyTuple_Pack(3, how, func, self->args);
    Py_XDECREF(how);
    Py_DECREF(func);
    return made;
}

static PyObject *new_or_none(PyObject *object) {
    if (!object) object = Py_None;
    Py_INCREF(object);
    return object;
}

static PyObject *get_job(kinx_ticket *self, void *unused) {
    return new_or_none(self->job->number);
}

static PyObject *get_func(kinx_ticket *self, void *unused) {
    return new_or_none(self->job->func);
}

static PyObject *get_kwds(kinx_ticket *self, void *unused) {
    if (!self->kwds) return PyDict_New();
    return new_or_none(self->kwds);
}

static PyGetSetDef ticket_getset[] = {
    {"job", (getter)get_job, NULL, "The number under which the result waits.", NULL},
    {"func", (getter)get_func, NULL, "What is called.", NULL},
    {"kwds", (getter)get_kwds, NULL, "With what, by name.", NULL},
    {NULL},
};

static PyMemberDef ticket_members[] = {
    {"args", Py_T_OBJECT_EX, offsetof(kinx_ticket, args), Py_READONLY, "With what."},
    {"index", Py_T_PYSSIZET, offsetof(kinx_ticket, index), Py_READONLY, "Which of the job's."},
    {"returns", Py_T_INT, offsetof(kinx_ticket, returns), 0,
     "How often it came back, untouched, from a worker that died."},
    {"retries", Py_T_INT, offsetof(kinx_ticket, retries), 0,
     "How often it was given to another after a worker had died working on it."},
    {NULL},
};

static PyMethodDef ticket_methods[] = {
    {"task", (PyCFunction)task, METH_NOARGS,
     "task($self, /)\n--\n\nWhat is to be put into a worker's line.  Raises what pickling the\n"
     "function raises."},
    {NULL},
};

static PyType_Slot ticket_slots[] = {
    {Py_tp_dealloc, ticket_dealloc},
    {Py_tp_getset, ticket_getset},
    {Py_tp_members, ticket_members},
    {Py_tp_methods, ticket_methods},
    {Py_tp_doc, "One task of a pool, on its way."},
    {0, NULL},
};

static PyType_Spec ticket_spec = {
    .name = "kinfolk._kin.Ticket",
    .basicsize = sizeof(kinx_ticket),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ticket_slots,
};

/* -- Job --------------------------------------------------------------------------------- */

static void job_dealloc(kinx_job *self) {
    Py_XDECREF(self->number);
    Py_XDECREF(self->func);
    Py_XDECREF(self->packed);
    Py_XDECREF(self->iterable);
    dealloc_type((PyObject *)self);
}

/* New reference, without an iterable. */
static kinx_job *job_alloc(PyTypeObject *type, PyObject *number, PyObject *func) {
    kinx_job *self = (kinx_job *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    Py_INCREF(number);
    self->number = number;
    Py_INCREF(func);
    self->func = func;
    return self;
}

static bool runs_nobody(PyObject *iterable) {
    return PyList_CheckExact(iterable) || PyTuple_CheckExact(iterable) || PyRange_Check(iterable) ||
           PyDict_CheckExact(iterable) || PyAnySet_CheckExact(iterable) ||
           PyUnicode_CheckExact(iterable) || PyBytes_CheckExact(iterable);
}

static PyObject *job_new(PyTypeObject *type, PyObject *args, PyObject *kwds) {
    static char *names[] = {"number", "func", "iterable", "how", "size", "packs", NULL};
    PyObject *number, *func, *iterable;
    unsigned char how;
    Py_ssize_t size;
    int packs;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "OOObnp:Job", names, &number, &func, &iterable,
                                     &how, &size, &packs))
        return NULL;
    kinx_job *self = job_alloc(type, number, func);
    if (!self) return NULL;
    self->how = how;
    self->size = size;
    self->packs = packs;
    self->runs_nobody = runs_nobody(iterable);
    Py_INCREF(iterable);
    self->iterable = iterable;
    return (PyObject *)self;
}

/* Up to `size` things in a tuple; NULL if there are none, or with an exception.  New reference. */
static PyObject *next_chunk(kinx_job *self) {
    PyObject *things = PyList_New(0), *thing;
    if (!things) return NULL;
    while (PyList_GET_SIZE(things) < self->size && (thing = PyIter_Next(self->iterable))) {
        int err = PyList_Append(things, thing);
        Py_DECREF(thing);
        if (err < 0) break;
    }
    PyObject *chunk = NULL;
    if (!PyErr_Occurred() && PyList_GET_SIZE(things) > 0) chunk = PyList_AsTuple(things);
    Py_DECREF(things);
    return chunk;
}

/* It may be anything: iter() of it is part of the work, not of the call that asked for it. */
static int begin(kinx_job *self) {
    PyObject *iterator = PyObject_GetIter(self->iterable);
    if (!iterator) return -1;
    Py_SETREF(self->iterable, iterator);
    self->has_begun = true;
    return 0;
}

static PyObject *next_args(kinx_job *self) {
    if (self->size <= 0 || !self->iterable) return NULL;
    if (!self->has_begun && begin(self) < 0) return NULL;
    if (self->size > 1) return next_chunk(self);
    PyObject *thing = PyIter_Next(self->iterable);
    PyObject *args = thing ? PyTuple_Pack(1, thing) : NULL;
    Py_XDECREF(thing);
    return args;
}

static PyObject *take(kinx_job *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "take() needs a function and a number");
        return NULL;
    }
    kinx_state *st = kinx_state_of_type(Py_TYPE(self));
    Py_ssize_t most = PyNumber_AsSsize_t(args[1], PyExc_OverflowError), made = 0;
    if (!st || (most == -1 && PyErr_Occurred())) return NULL;
    /* What others' code has given shall not wait for what it gives next. */
    if (most > 1 && !self->runs_nobody) most = 1;
    for (; made < most; made++) {
        PyObject *given = next_args(self);
        PyObject *ticket = given ? ticket_new(st, self, given, NULL) : NULL;
        PyObject *none = ticket ? PyObject_CallOneArg(args[0], ticket) : NULL;
        Py_XDECREF(ticket);
        if (!none) break;
        Py_DECREF(none);
    }
    return PyErr_Occurred() ? NULL : PyLong_FromSsize_t(made);
}

static PyMemberDef job_members[] = {
    {"number", Py_T_OBJECT_EX, offsetof(kinx_job, number), Py_READONLY,
     "Under which its result waits."},
    {"count", Py_T_PYSSIZET, offsetof(kinx_job, count), Py_READONLY, "How many tickets it has."},
    {NULL},
};

static PyMethodDef job_methods[] = {
    {"take", (PyCFunction)(void (*)(void))take, METH_FASTCALL,
     "take($self, append, most, /)\n--\n\n"
     "Call append(ticket) for the next tasks, `most` at the most, and return how many: 0 after\n"
     "the last one.  One at a time if the iterable runs anybody's code.  Raises what that\n"
     "raises; then `count` says how many there have been."},
    {NULL},
};

static PyType_Slot job_slots[] = {
    {Py_tp_new, job_new},
    {Py_tp_dealloc, job_dealloc},
    {Py_tp_members, job_members},
    {Py_tp_methods, job_methods},
    {Py_tp_doc, "Job(number, func, iterable, how, size, packs)\n--\n\n"
                "The tasks of a map: func by `how`, with `size` things of the iterable each.\n"
                "packs: the workers are processes."},
    {0, NULL},
};

static PyType_Spec job_spec = {
    .name = "kinfolk._kin.Job",
    .basicsize = sizeof(kinx_job),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = job_slots,
};

/* -- Functions --------------------------------------------------------------------------- */

/* make_ticket(number, index, how, func, args, kwds) */
static PyObject *make_ticket(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 6) {
        PyErr_SetString(PyExc_TypeError, "make_ticket() needs 6 arguments");
        return NULL;
    }
    kinx_state *st = kinx_state_of(module);
    Py_ssize_t index = PyNumber_AsSsize_t(args[1], PyExc_OverflowError);
    long how = PyLong_AsLong(args[2]);
    int has_kwds = PyObject_IsTrue(args[5]);
    if (PyErr_Occurred() || has_kwds < 0) return NULL;
    kinx_job *job = job_alloc(st->job_type, args[0], args[3]);
    if (!job) return NULL;
    job->how = (unsigned char)how;
    job->count = index;
    Py_INCREF(args[4]);
    PyObject *ticket = ticket_new(st, job, args[4], has_kwds ? args[5] : NULL);
    Py_DECREF(job);
    return ticket;
}

/* A new list of [number, [(index, outcome), …]]: add a pair to the last one, or begin another. */
static int add_outcome(PyObject *groups, kinx_ticket *ticket, PyObject *outcome) {
    Py_ssize_t count = PyList_GET_SIZE(groups);
    PyObject *last = count ? PyList_GET_ITEM(groups, count - 1) : NULL;
    if (!last || PyTuple_GET_ITEM(last, 0) != ticket->job->number) {
        PyObject *batch = PyList_New(0);
        PyObject *group = batch ? PyTuple_Pack(2, ticket->job->number, batch) : NULL;
        int err = group ? PyList_Append(groups, group) : -1;
        Py_XDECREF(batch);
        Py_XDECREF(group);
        if (err < 0) return -1;
        last = PyList_GET_ITEM(groups, count);
    }
    PyObject *index = PyLong_FromSsize_t(ticket->index);
    PyObject *pair = index ? PyTuple_Pack(2, index, outcome) : NULL;
    int err = pair ? PyList_Append(PyTuple_GET_ITEM(last, 1), pair) : -1;
    Py_XDECREF(index);
    Py_XDECREF(pair);
    return err;
}

/* by_job(tickets, outcomes) */
static PyObject *by_job(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    kinx_state *st = kinx_state_of(module);
    if (nargs != 2 || !PyList_CheckExact(args[0]) || !PyList_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "by_job() needs two lists");
        return NULL;
    }
    PyObject *tickets = args[0], *outcomes = args[1], *groups = PyList_New(0);
    Py_ssize_t count = Py_MIN(PyList_GET_SIZE(tickets), PyList_GET_SIZE(outcomes));
    for (Py_ssize_t i = 0; groups && i < count; i++) {
        PyObject *ticket = PyList_GET_ITEM(tickets, i);
        if (Py_TYPE(ticket) != st->ticket_type) {
            PyErr_SetString(PyExc_TypeError, "by_job() needs tickets");
            Py_CLEAR(groups);
        } else if (add_outcome(groups, (kinx_ticket *)ticket, PyList_GET_ITEM(outcomes, i)) < 0) {
            Py_CLEAR(groups);
        }
    }
    return groups;
}

static PyMethodDef functions[] = {
    {"make_ticket", (PyCFunction)(void (*)(void))make_ticket, METH_FASTCALL,
     "make_ticket(number, index, how, func, args, kwds, /)\n--\n\n"
     "The ticket of a task that is no Job's.  Its function is pickled with it."},
    {"by_job", (PyCFunction)(void (*)(void))by_job, METH_FASTCALL,
     "by_job(tickets, outcomes, /)\n--\n\n"
     "[(job, [(index, outcome), …]), …], for two lists; those of a job that follow each other are\n"
     "together.  What one list has more than the other is left out."},
    {NULL},
};

int kinx_ticket_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    if (kinx_add_type(module, &ticket_spec, NULL, &st->ticket_type) < 0) return -1;
    if (kinx_add_type(module, &job_spec, NULL, &st->job_type) < 0) return -1;
    return PyModule_AddFunctions(module, functions);
}
