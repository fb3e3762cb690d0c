/* Starting processes, for Python: exec, the zygote, lifelines.
 *
 * Thin: what a start is, and what it keeps out of the child, is libkin's (kin/process.h).
 * Here arguments become C, waiting happens without the GIL, and a fork in the zygote gets
 * what the interpreter wants done around it, as os.fork() does it. */
#include "process.h"

#include <unistd.h>

#include "errors.h"

/* -- Arguments ------------------------------------------------------------------------- */

/* A NULL-ended array of C strings, and the bytes objects that they are in. */
struct strings {
    PyObject *held;
    char **items;
};

static void strings_fini(struct strings *strings) {
    Py_CLEAR(strings->held);
    PyMem_Free(strings->items);
    strings->items = NULL;
}

/* From a list of bytes, which it steals (NULL: an exception is set).  Raises. */
static int strings_from_list(struct strings *strings, PyObject *list) {
    strings->held = list;
    strings->items = NULL;
    if (!list) return -1;
    Py_ssize_t count = PyList_GET_SIZE(list);
    strings->items = PyMem_New(char *, count + 1);
    if (!strings->items) {
        Py_CLEAR(strings->held);
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        strings->items[i] = PyBytes_AS_STRING(PyList_GET_ITEM(list, i));
    }
    strings->items[count] = NULL;
    return 0;
}

/* New reference: a list of the items as bytes, as the file system has them.  Raises. */
static PyObject *encoded(PyObject *items, const char *what) {
    PyObject *sequence = PySequence_Fast(items, what);
    if (!sequence) return NULL;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(sequence);
    PyObject *list = PyList_New(0);
    for (Py_ssize_t i = 0; list && i < count; i++) {
        PyObject *bytes = NULL;
        if (!PyUnicode_FSConverter(PySequence_Fast_GET_ITEM(sequence, i), &bytes) ||
            PyList_Append(list, bytes) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(bytes);
    }
    Py_DECREF(sequence);
    return list;
}

/* New reference: the environment as it is now.  A copy, for another thread may change it
 * while the child, without the GIL, is still to read it.  Raises. */
static PyObject *own_environment(void) {
    PyObject *list = PyList_New(0);
    for (char **at = environ; list && *at; at++) {
        PyObject *bytes = PyBytes_FromString(*at);
        if (!bytes || PyList_Append(list, bytes) < 0) Py_CLEAR(list);
        Py_XDECREF(bytes);
    }
    return list;
}

struct descriptors {
    int *fds;
    size_t count;
};

/* From a sequence of integers or things with a fileno(); PyMem_Free the fds.  Raises. */
static int descriptors_from(struct descriptors *out, PyObject *items) {
    PyObject *sequence = PySequence_Fast(items, "descriptors: expected a sequence of int");
    if (!sequence) return -1;
    out->count = (size_t)PySequence_Fast_GET_SIZE(sequence);
    out->fds = PyMem_New(int, out->count + 1);
    int failed = out->fds ? 0 : -1;
    if (failed) PyErr_NoMemory();
    for (size_t i = 0; !failed && i < out->count; i++) {
        out->fds[i] = PyObject_AsFileDescriptor(PySequence_Fast_GET_ITEM(sequence, (Py_ssize_t)i));
        if (out->fds[i] < 0) failed = -1;
    }
    Py_DECREF(sequence);
    if (failed) {
        PyMem_Free(out->fds);
        out->fds = NULL;
    }
    return failed;
}

/* -- Exec ------------------------------------------------------------------------------- */

static PyObject *raise_spawn(PyObject *module, kin_err err, PyObject *path) {
    if (err == -ENOMEM) return kinx_raise(kinx_state_of(module), err, NULL);
    errno = -err;
    return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path);
}

/* Consumes nothing; all of `what` is C already. */
static PyObject *spawn_prepared(PyObject *module, const kin_spawn *what, PyObject *path) {
    kin_process process;
    kin_err err;
    Py_BEGIN_ALLOW_THREADS
    err = kin_process_spawn(what, &process);
    Py_END_ALLOW_THREADS
    if (err < 0) return raise_spawn(module, err, path);
    int pid = process.pid;
    kin_process_close(&process);
    return PyLong_FromLong(pid);
}

static PyObject *spawn(PyObject *module, PyObject *args) {
    PyObject *path, *argv_items, *env_items, *keep_items, *program = NULL;
    struct strings argv = {NULL, NULL}, env = {NULL, NULL};
    struct descriptors keep = {NULL, 0};
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "OOOO:spawn", &path, &argv_items, &env_items, &keep_items)) {
        return NULL;
    }
    if (!PyUnicode_FSConverter(path, &program)) return NULL;
    if (strings_from_list(&argv, encoded(argv_items, "argv: expected a sequence")) == 0 &&
        strings_from_list(&env, env_items == Py_None
                                    ? own_environment()
                                    : encoded(env_items, "env: expected a sequence")) == 0 &&
        descriptors_from(&keep, keep_items) == 0) {
        kin_spawn what = {
            .path = PyBytes_AS_STRING(program),
            .argv = argv.items,
            .env = env.items,
            .keep_fds = keep.fds,
            .keep_count = keep.count,
        };
        result = spawn_prepared(module, &what, path);
    }
    PyMem_Free(keep.fds);
    strings_fini(&env);
    strings_fini(&argv);
    Py_DECREF(program);
    return result;
}

static PyObject *pidfd_open(PyObject *module, PyObject *arg) {
    int pid;
    if (!PyArg_Parse(arg, "i:pidfd_open", &pid)) return NULL;
    kin_process process;
    kin_err err = kin_process_open(pid, &process);
    if (err == 0 && process.pidfd < 0) err = -ENOSYS;
    if (err < 0) return kinx_raise(kinx_state_of(module), err, NULL);
    return PyLong_FromLong(process.pidfd);
}

/* -- The zygote --------------------------------------------------------------------------- */

static PyObject *thread_count(PyObject *module, PyObject *unused) {
    return PyLong_FromLong(kin_thread_count());
}

static PyObject *processors(PyObject *module, PyObject *unused) {
    return PyLong_FromLong(kin_processors());
}

static PyObject *oom_kills(PyObject *module, PyObject *unused) {
    return PyLong_FromUnsignedLongLong(kin_oom_kills());
}

/* os.fork() without its warning of other threads. */
static PyObject *fork_process(PyObject *module, PyObject *unused) {
    if (PySys_Audit("os.fork", NULL) < 0) return NULL;
    PyOS_BeforeFork();
    pid_t pid = fork();
    if (pid == 0) {
        PyOS_AfterFork_Child();
    } else {
        int err = errno;
        PyOS_AfterFork_Parent();
        errno = err;
    }
    return pid < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(pid);
}

static PyObject *zygote_channel(PyObject *module, PyObject *unused) {
    int ends[2];
    kin_err err = kin_zygote_channel(ends);
    if (err < 0) return kinx_raise(kinx_state_of(module), err, NULL);
    return Py_BuildValue("(ii)", ends[0], ends[1]);
}

typedef struct server {
    PyThreadState *thread;
    PyObject *ahead; /* borrowed; NULL: nothing */
} server;

/* libkin serves without the GIL; the hooks take it for what surrounds a fork, and in the
 * child it is then kept. */
static void before_fork(void *arg) {
    PyEval_RestoreThread(((server *)arg)->thread);
    PyOS_BeforeFork();
}

static void after_fork_in_parent(void *arg) {
    PyOS_AfterFork_Parent();
    ((server *)arg)->thread = PyEval_SaveThread();
}

static void after_fork_in_child(void *arg) {
    PyOS_AfterFork_Child();
}

static void call_ahead(void *arg) {
    PyObject *done = PyObject_CallNoArgs(((server *)arg)->ahead);
    if (!done) PyErr_WriteUnraisable(((server *)arg)->ahead);
    Py_XDECREF(done);
}

static kin_err serve_without_gil(kin_zygote *zygote, PyObject *ahead, kin_zygote_order *order) {
    server self = {PyEval_SaveThread(), ahead};
    kin_zygote_hooks hooks = {before_fork, after_fork_in_parent, after_fork_in_child,
                              ahead ? call_ahead : NULL, &self};
    kin_err err = kin_zygote_serve(zygote, &hooks, order);
    if (err == KIN_ZYGOTE_UNUSED) {
        kin_family *family = kin_family_self();
        if (family) kin_family_leave(family);
        _exit(0);
    }
    if (err != KIN_ZYGOTE_CHILD) PyEval_RestoreThread(self.thread);
    return err;
}

static PyObject *order_as_tuple(const kin_zygote_order *order) {
    PyObject *fds = PyList_New((Py_ssize_t)order->fd_count);
    for (size_t i = 0; fds && i < order->fd_count; i++) {
        PyObject *fd = PyLong_FromLong(order->fds[i]);
        if (!fd) Py_CLEAR(fds);
        else PyList_SET_ITEM(fds, (Py_ssize_t)i, fd);
    }
    if (!fds) return NULL;
    return Py_BuildValue("(y#N)", order->payload, (Py_ssize_t)order->len, fds);
}

static PyObject *zygote_serve(PyObject *module, PyObject *args) {
    int fd;
    PyObject *ahead = NULL;
    if (!PyArg_ParseTuple(args, "i|O:zygote_serve", &fd, &ahead)) return NULL;
    kin_zygote *zygote;
    kin_zygote_order order;
    kin_err err = kin_zygote_new(fd, &zygote);
    if (err < 0) return kinx_raise(kinx_state_of(module), err, NULL);
    do {
        err = serve_without_gil(zygote, ahead, &order);
    } while (err == -EINTR && PyErr_CheckSignals() == 0);
    kin_zygote_free(zygote);
    if (err < 0) return kinx_raise(kinx_state_of(module), err, NULL);
    if (err != KIN_ZYGOTE_CHILD) Py_RETURN_NONE;
    PyObject *result = order_as_tuple(&order);
    kin_zygote_order_fini(&order);
    return result;
}

/* Ask and take the answer; a signal's handler that raises ends the waiting for it. */
static kin_err start_parked(int sock, const Py_buffer *payload, const struct descriptors *fds,
                            kin_process *out) {
    kin_err err;
    int answer;
    KINX_PARK(err, kin_zygote_ask(sock, payload->buf, (size_t)payload->len, fds->fds, fds->count,
                                  &answer));
    if (err < 0) return err;
    KINX_PARK(err, kin_zygote_answer(answer, KIN_FOREVER, out));
    if (err < 0) close(answer);
    return err;
}

static PyObject *zygote_start(PyObject *module, PyObject *args) {
    int sock;
    Py_buffer payload;
    PyObject *items = NULL;
    struct descriptors fds = {NULL, 0};
    kin_process process;
    if (!PyArg_ParseTuple(args, "iy*|O:zygote_start", &sock, &payload, &items)) return NULL;
    if (items && descriptors_from(&fds, items) < 0) {
        PyBuffer_Release(&payload);
        return NULL;
    }
    kin_err err = start_parked(sock, &payload, &fds, &process);
    PyMem_Free(fds.fds);
    PyBuffer_Release(&payload);
    if (err < 0) return kinx_raise(kinx_state_of(module), err, NULL);
    if (process.pidfd < 0) {
        return Py_BuildValue("(iOi)", process.pid, Py_None, process.status_fd);
    }
    return Py_BuildValue("(iii)", process.pid, process.pidfd, process.status_fd);
}

/* -- Lifelines ------------------------------------------------------------------------------- */

static PyObject *lifeline_fd(PyObject *module, PyObject *unused) {
    int fd;
    kin_err err = kin_lifeline_fd(&fd);
    if (err < 0) return kinx_raise(kinx_state_of(module), err, NULL);
    return PyLong_FromLong(fd);
}

static PyObject *lifeline_bind(PyObject *module, PyObject *args) {
    int fd, signo;
    if (!PyArg_ParseTuple(args, "ii:lifeline_bind", &fd, &signo)) return NULL;
    kin_err err = kin_lifeline_bind(fd, signo);
    if (err < 0) return kinx_raise(kinx_state_of(module), err, "the lifeline");
    if (PyErr_CheckSignals() < 0) return NULL; /* it may have ended already */
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"spawn", spawn, METH_VARARGS,
     "spawn(path, argv, env, keep_fds) -> pid: execute a program in a child.\n\n"
     "env: a sequence of b'NAME=value', None for this process's own.  Of this process's\n"
     "descriptors the child has 0, 1, 2 and keep_fds, under their numbers, and no other.\n"
     "OSError with the path and the reason if it cannot be executed."},
    {"pidfd_open", pidfd_open, METH_O,
     "pidfd_open(pid) -> fd: readable once the process has ended; close-on-exec.\n\n"
     "ProcessLookupError; OSError (ENOSYS) where the system has none."},
    {"thread_count", thread_count, METH_NOARGS,
     "thread_count() -> int: the threads of this process, Python's or not; 0: not known."},
    {"processors", processors, METH_NOARGS,
     "processors() -> int: those that this process may use, by affinity and control groups' quota."},
    {"oom_kills", oom_kills, METH_NOARGS,
     "oom_kills() -> int: the processes of this one's control group that were killed for want of\n"
     "memory, so far; 0 also where that is not known."},
    {"fork", fork_process, METH_NOARGS,
     "fork() -> int: os.fork() without its warning of other threads."},
    {"zygote_channel", zygote_channel, METH_NOARGS,
     "zygote_channel() -> (clients_fd, zygote_fd): two connected sockets, close-on-exec."},
    {"zygote_serve", zygote_serve, METH_VARARGS,
     "zygote_serve(fd, ahead=None) -> (payload, [fd, ...]) | None: fork children that clients ask\n"
     "for.\n\n"
     "Returns in each child, with what it was started with; in the zygote it returns None\n"
     "when no client is left.  In the child `fd` is closed.  ahead() is called in children that\n"
     "are forked ahead, before they wait for what they are to do."},
    {"zygote_start", zygote_start, METH_VARARGS,
     "zygote_start(fd, payload, fds=()) -> (pid, pidfd | None, status_fd): have the zygote\n"
     "behind the socket `fd` fork a child that gets the payload and copies of `fds`.\n\n"
     "On status_fd the exit code comes, 4 bytes, little-endian, signed as in\n"
     "Process.exitcode, or its end if the zygote died.  BrokenPipeError: the zygote is gone."},
    {"lifeline_fd", lifeline_fd, METH_NOARGS,
     "lifeline_fd() -> fd: of this process's lifeline, to hand to a child and to close."},
    {"lifeline_bind", lifeline_bind, METH_VARARGS,
     "lifeline_bind(fd, signo): be sent `signo` when the process whose lifeline it is has\n"
     "ended, however it ended; at once if it has.  Takes `fd` over.  ValueError: no lifeline."},
    {NULL},
};

int kinx_process_exec(PyObject *module) {
    return PyModule_AddFunctions(module, functions);
}
