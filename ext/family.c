/* The family of this process: founding, joining, leaving, and what is in it.
 *
 * A process founds a family when it first makes something shared, or asks for
 * the arena's descriptor in order to start a child; a child that was executed
 * joins its parent's before it does anything else. */
#include "errors.h"

kin_family *kinx_family(kinx_state *st) {
    kin_family *family = kin_family_self();
    if (family) return family;
    kin_err err = kin_family_found(NULL, &family);
    if (err == KIN_EINFAMILY) family = kin_family_self(); /* another thread was faster */
    else if (err < 0) return kinx_raise(st, err, "cannot found a family of processes");
    return family;
}

static PyObject *family_fds(PyObject *module, PyObject *unused) {
    kin_family *family = kinx_family(kinx_state_of(module));
    if (!family) return NULL;
    int arena, locker;
    kin_family_fds(family, &arena, &locker);
    return Py_BuildValue("ii", arena, locker);
}

static PyObject *family_id(PyObject *module, PyObject *unused) {
    kin_family *family = kin_family_self();
    if (!family) Py_RETURN_NONE;
    return PyBytes_FromStringAndSize((const char *)kin_family_id(family), KIN_FAMILY_ID_LEN);
}

static PyObject *join_family(PyObject *module, PyObject *args) {
    int arena, locker;
    if (!PyArg_ParseTuple(args, "ii:join_family", &arena, &locker)) return NULL;
    kin_family *family;
    kin_err err = kin_family_join(arena, locker, &family);
    if (err < 0) return kinx_raise(kinx_state_of(module), err, "cannot join the family");
    Py_RETURN_NONE;
}

static PyObject *leave(PyObject *module, PyObject *unused) {
    kin_family *family = kin_family_self();
    if (family) kin_family_leave(family);
    Py_RETURN_NONE;
}

static PyObject *reap(PyObject *module, PyObject *unused) {
    kin_family *family = kin_family_self();
    if (!family) return PyLong_FromLong(0);
    int buried;
    Py_BEGIN_ALLOW_THREADS
    buried = kin_family_reap(family);
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(buried);
}

static PyObject *member(PyObject *module, PyObject *unused) {
    kin_family *family = kin_family_self();
    return PyLong_FromUnsignedLong(family ? kin_family_member(family) : 0);
}

/* A token from an argument.  Raises and returns false if it cannot be one. */
static bool token_of(PyObject *arg, uint32_t *out) {
    unsigned long token = PyLong_AsUnsignedLong(arg);
    if (token == (unsigned long)-1 && PyErr_Occurred()) return false;
    *out = token <= UINT32_MAX ? (uint32_t)token : 0;
    return true;
}

static PyObject *is_member_alive(PyObject *module, PyObject *arg) {
    uint32_t token;
    if (!token_of(arg, &token)) return NULL;
    kin_family *family = kin_family_self();
    return PyBool_FromLong(family && token && kin_member_is_alive(family, token));
}

static PyObject *member_pid(PyObject *module, PyObject *arg) {
    uint32_t token;
    if (!token_of(arg, &token)) return NULL;
    kin_family *family = kin_family_self();
    return PyLong_FromLong(family && token ? kin_member_pid(family, token) : 0);
}

static PyObject *set_member_name(PyObject *module, PyObject *arg) {
    const char *name = PyUnicode_AsUTF8(arg);
    if (!name) return NULL;
    kin_family *family = kin_family_self();
    if (family) kin_member_name_set(family, name);
    Py_RETURN_NONE;
}

static PyObject *stats(PyObject *module, PyObject *unused) {
    kin_family *family = kin_family_self();
    kin_family_stats stats = {0};
    if (family) {
        Py_BEGIN_ALLOW_THREADS
        kin_family_stats_read(family, &stats);
        Py_END_ALLOW_THREADS
    }
    return Py_BuildValue(
        "{s:K,s:K,s:K,s:K,s:K,s:K,s:I,s:I}", "in_use", (unsigned long long)stats.in_use,
        "committed", (unsigned long long)stats.committed, "limit", (unsigned long long)stats.limit,
        "reserved", (unsigned long long)stats.reserved, "blocks", (unsigned long long)stats.blocks,
        "objects", (unsigned long long)stats.objects, "members", (unsigned int)stats.members,
        "waiting", (unsigned int)stats.waiting);
}

static PyMethodDef functions[] = {
    {"family_fds", family_fds, METH_NOARGS,
     "family_fds($module, /)\n--\n\n"
     "The descriptors of the family's arena and its locker, close-on-exec; not to be closed.\n\n"
     "Founds the family if this process is in none."},
    {"family_id", family_id, METH_NOARGS,
     "family_id($module, /)\n--\n\n"
     "16 bytes, the same in every member; None before any family."},
    {"join_family", join_family, METH_VARARGS,
     "join_family($module, arena, locker, /)\n--\n\n"
     "Become a member of the family that has these descriptors, and own them.\n\n"
     "RuntimeError if this process is in a family already, or they are none of a family's."},
    {"leave", leave, METH_NOARGS,
     "leave($module, /)\n--\n\n"
     "The normal end of this member, called last; again is fine.\n\n"
     "What it holds is given back; locks that it holds stay held."},
    {"reap", reap, METH_NOARGS,
     "reap($module, /)\n--\n\n"
     "Give back what dead members held; how many were buried."},
    {"member", member, METH_NOARGS,
     "member($module, /)\n--\n\n"
     "The token of this member, 0 before any family."},
    {"is_member_alive", is_member_alive, METH_O,
     "is_member_alive($module, token, /)\n--\n\n"
     "Does that member's process live?"},
    {"member_pid", member_pid, METH_O,
     "member_pid($module, token, /)\n--\n\n"
     "The process id of that member, 0 if it is gone."},
    {"set_member_name", set_member_name, METH_O,
     "set_member_name($module, name, /)\n--\n\n"
     "What this process is called in news of its death; nothing before any family."},
    {"stats", stats, METH_NOARGS,
     "stats($module, /)\n--\n\n"
     "in_use, committed, limit, reserved (bytes); blocks, objects, members;\n"
     "waiting: descriptors in the locker.\n\n"
     "Walks the arena: for tests and for the curious.  All 0 before any family."},
    {NULL},
};

static void leave_last(void) {
    kin_family *family = kin_family_self();
    if (family) kin_family_leave(family);
}

/* Not by atexit, the module: what was registered there before we came runs after what we
 * could register, and may yet use a queue.  If there is no room for one more, the end of
 * the process will be noticed all the same. */
static void leave_when_the_interpreter_is_gone(void) {
    static bool asked;
    if (!asked) asked = Py_AtExit(leave_last) == 0;
}

int kinx_family_exec(PyObject *module) {
    leave_when_the_interpreter_is_gone();
    return PyModule_AddFunctions(module, functions);
}
