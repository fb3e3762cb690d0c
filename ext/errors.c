/* From kin_err to exceptions.
 *
 * Types and, where programs match on them, texts are those that
 * multiprocessing raises in the same place.  The texts of our own say what was
 * met, why, and what to do about it: they are read by somebody whose program
 * has just stopped working. */
#include "errors.h"

#include <unistd.h>

static const char *const stale_doc =
    "A reference to a shared object that is gone: nobody held it any more.\n"
    "\n"
    "Pickles under way in a Queue or to a starting process keep the objects that\n"
    "they mention; bytes from pickle.dumps() do not, so keep the object itself\n"
    "until they have been loaded.";

int kinx_errors_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    PyObject *bases = PyTuple_Pack(2, PyExc_LookupError, PyExc_RuntimeError);
    if (!bases) return -1;
    st->stale_reference =
        PyErr_NewExceptionWithDoc("kinfolk._kin.StaleReference", stale_doc, bases, NULL);
    Py_DECREF(bases);
    if (!st->stale_reference) return -1;
    return PyModule_AddObjectRef(module, "StaleReference", st->stale_reference);
}

/* "1.5 GiB": for people, not for programs. */
static void format_size(char *out, size_t room, uint64_t len) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    double n = (double)len;
    while (n >= 1024 && unit < sizeof units / sizeof *units - 1) {
        n /= 1024;
        unit++;
    }
    snprintf(out, room, unit ? "%.1f %s" : "%.0f %s", n, units[unit]);
}

static void raise_arena_full(kin_err err) {
    kin_family *family = kin_family_self();
    if (!family) {
        PyErr_SetString(PyExc_MemoryError, kin_strerror(err));
        return;
    }
    kin_family_stats stats;
    Py_BEGIN_ALLOW_THREADS
    kin_family_stats_read(family, &stats);
    Py_END_ALLOW_THREADS
    char used[32], committed[32], limit[32], reserved[32];
    format_size(used, sizeof used, stats.in_use);
    format_size(committed, sizeof committed, stats.committed);
    format_size(limit, sizeof limit, stats.limit);
    format_size(reserved, sizeof reserved, stats.reserved);
    PyErr_Format(PyExc_MemoryError,
                 "%s: the processes of this program share at most %s (%s of address space), "
                 "of which %s are in use and %s have memory behind them; take out what the "
                 "queues hold, or set KINFOLK_ARENA_LIMIT (now %s) higher in the environment "
                 "before the program starts",
                 kin_strerror(err), limit, reserved, used, committed, limit);
}

static void hex(char *out, const uint8_t *id, size_t len) {
    for (size_t i = 0; i < len; i++) snprintf(out + 2 * i, 3, "%02x", id[i]);
}

void *kinx_raise_foreign(const char *thing, const uint8_t *id) {
    char theirs[9] = "", ours[9] = "";
    hex(theirs, id, 4);
    kin_family *family = kin_family_self();
    if (family) hex(ours, kin_family_id(family), 4);
    PyErr_Format(PyExc_RuntimeError,
                 "cannot open %s: it lives in the memory that the processes of family %s share, "
                 "and this process (pid %ld) %s%s.  A process becomes a member by being started: "
                 "start it with kinfolk (Process, a pool), or with os.fork() in a member; "
                 "it cannot be let in later",
                 thing ? thing : "the object", theirs, (long)getpid(),
                 family ? "belongs to another one, " : "is a member of none", ours);
    return NULL;
}

static void raise_plain(PyObject *type, kin_err err, const char *thing) {
    if (thing) PyErr_Format(type, "%s: %s", thing, kin_strerror(err));
    else PyErr_SetString(type, kin_strerror(err));
}

void *kinx_raise(kinx_state *st, kin_err err, const char *thing) {
    switch (err) {
    case -EINTR:
        if (PyErr_Occurred()) return NULL;
        break;
    case -ENOMEM: PyErr_NoMemory(); return NULL;
    case KIN_EARENAFULL:
    case KIN_ETOOLARGE: raise_arena_full(err); return NULL;
    case KIN_EARENAMAP:
        PyErr_SetString(PyExc_MemoryError,
                        "not enough address space to map even the smallest arena: see "
                        "`ulimit -v` and the memory limit of the container");
        return NULL;
    case KIN_ESTALE:
        PyErr_Format(st->stale_reference ? st->stale_reference : PyExc_LookupError,
                     "%s is gone: the last process that held it let it go before this "
                     "reference was used",
                     thing ? thing : "the object");
        return NULL;
    case KIN_EOVERRELEASE:
        PyErr_SetString(PyExc_ValueError, "semaphore or lock released too many times");
        return NULL;
    case KIN_ENOTOWNER:
        PyErr_SetString(PyExc_AssertionError,
                        "attempt to release recursive lock not owned by thread");
        return NULL;
    case KIN_ENOFAMILY:
    case KIN_EFOREIGN:
    case KIN_EINFAMILY:
    case KIN_ELEFT:
    case KIN_EMEMBERS:
    case KIN_ENOLOCKER:
    case KIN_EBADARENA: raise_plain(PyExc_RuntimeError, err, thing); return NULL;
    case KIN_ECLOSED:
    case KIN_EKIND:
    case KIN_EBADLIMIT:
    case -EINVAL: raise_plain(PyExc_ValueError, err, thing); return NULL;
    default: break;
    }
    if (err < 0 && err > -2000) {
        errno = -err;
        PyErr_SetFromErrno(PyExc_OSError);
    } else {
        PyErr_Format(PyExc_SystemError, "libkin gave %d, which nobody here expects", err);
    }
    return NULL;
}
