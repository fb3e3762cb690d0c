/* Semaphore: a count that any process may raise and lower; owned by nobody.
 *
 * Its methods are those of the locks (lock.c).  What _count and _is_mine say of
 * a semaphore is only what this process did through this object; a forked child
 * begins anew, which it knows by the member's token beside the count. */
#include "errors.h"
#include "lock.h"

static kin_err acquire(kinx_shared *self, kin_deadline deadline, uint32_t place) {
    return kin_semaphore_acquire(&self->semaphore, deadline);
}

static uint32_t count(const kinx_shared *self) {
    return self->member == kin_family_member(self->handle.family) ? self->count : 0;
}

static void acquired(kinx_shared *self) {
    self->count = count(self) + 1;
    self->member = kin_family_member(self->handle.family);
}

static kin_err release(kinx_shared *self) {
    kin_err err = kin_semaphore_release(&self->semaphore, 1);
    if (err == 0 && count(self) > 0) self->count--;
    return err;
}

static bool is_mine(const kinx_shared *self) {
    return count(self) && self->thread == PyThread_get_thread_ident();
}

static uint32_t value(const kinx_shared *self) {
    return kin_semaphore_value(&self->semaphore);
}

static uint32_t max(const kinx_shared *self) {
    return kin_semaphore_max(&self->semaphore);
}

static int died(const kinx_shared *self) {
    return 0;
}

const kinx_lock_ops kinx_semaphore_ops = {
    .acquire = acquire,
    .release = release,
    .acquired = acquired,
    .value = value,
    .max = max,
    .count = count,
    .is_mine = is_mine,
    .died = died,
};

/* -- The type ------------------------------------------------------------- */

static int create(kinx_shared *self, long long value, long long max) {
    if (value < 0 || max < value || max > (long long)KIN_SEMAPHORE_MAX) {
        PyErr_SetString(PyExc_ValueError, "semaphore needs 0 <= value <= maxvalue <= 2**31 - 1");
        return -1;
    }
    kin_family *family = kinx_shared_init(self);
    if (!family) return -1;
    kin_err err = kin_semaphore_create(family, (uint32_t)value, (uint32_t)max, &self->semaphore);
    if (err == 0) return 0;
    kinx_raise(self->state, err, Py_TYPE(self)->tp_name);
    return -1;
}

static int init(kinx_shared *self, PyObject *args, PyObject *kwds) {
    static char *names[] = {"value", "maxvalue", "ctx", NULL};
    long long value = 1, max = KIN_SEMAPHORE_MAX;
    PyObject *ctx;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "|LL$O:Semaphore", names, &value, &max, &ctx))
        return -1;
    return create(self, value, max);
}

static int bounded_init(kinx_shared *self, PyObject *args, PyObject *kwds) {
    static char *names[] = {"value", "ctx", NULL};
    long long value = 1;
    PyObject *ctx;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "|L$O:BoundedSemaphore", names, &value, &ctx))
        return -1;
    return create(self, value, value);
}

PyDoc_STRVAR(doc, "Semaphore(value=1, maxvalue=2147483647, *, ctx=None)\n--\n\n"
                  "A count that acquire() lowers, waiting at 0, and release() raises.\n\n"
                  "release() past `maxvalue` raises ValueError.");
PyDoc_STRVAR(bounded_doc, "BoundedSemaphore(value=1, *, ctx=None)\n--\n\n"
                          "A semaphore that does not rise above where it began: release() raises\n"
                          "ValueError.");

static PyType_Slot slots[] = {KINX_LOCK_SLOTS(doc, init), {0, NULL}};
static PyType_Slot bounded_slots[] = {KINX_LOCK_SLOTS(bounded_doc, bounded_init), {0, NULL}};

static PyType_Spec spec = {
    .name = "kinfolk.synchronize.Semaphore",
    .basicsize = sizeof(kinx_shared),
    .flags = KINX_ATTRIBUTES_FLAGS,
    .slots = slots,
};

static PyType_Spec bounded_spec = {
    .name = "kinfolk.synchronize.BoundedSemaphore",
    .basicsize = sizeof(kinx_shared),
    .flags = KINX_ATTRIBUTES_FLAGS,
    .slots = bounded_slots,
};

int kinx_semaphore_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    PyTypeObject **type = &st->kind_types[KIN_KIND_SEMAPHORE], *bounded = NULL;
    if (PyModule_AddIntConstant(module, "SEM_VALUE_MAX", KIN_SEMAPHORE_MAX) < 0) return -1;
    if (kinx_add_type(module, &spec, st->semlock_type, type) < 0) return -1;
    int err = kinx_add_type(module, &bounded_spec, *type, &bounded);
    Py_XDECREF(bounded); /* the module has it */
    return err;
}
