/* Semaphore: a count that any process may raise and lower; owned by nobody.
 *
 * Its methods are those of the locks (lock.c).  What _count and _is_mine say of
 * a semaphore is only what this process did through this object; a forked child
 * begins anew, which it knows by the member's token beside the count. */
#include "errors.h"
#include "lock.h"

static kin_err acquire(kinx_shared *self, kin_deadline deadline) {
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

static int init(kinx_shared *self, PyObject *args, PyObject *kwds) {
    static char *names[] = {"value", "maxvalue", NULL};
    long long value = 1, max = KIN_SEMAPHORE_MAX;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "|LL:Semaphore", names, &value, &max)) {
        return -1;
    }
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

static PyObject *repr(kinx_shared *self) {
    if (!self->handle.family) return kinx_shared_repr(self, "");
    return kinx_shared_repr(self, "value=%u maxvalue=%u", value(self), max(self));
}

static PyGetSetDef getset[] = {
    {"maxvalue", (getter)kinx_lock_maxvalue, NULL, "The most that the value can be.", NULL},
    {NULL},
};

PyDoc_STRVAR(doc, "Semaphore(value=1, maxvalue=2147483647)\n--\n\n"
                  "A count of what is free.\n\n"
                  "release() past `maxvalue` raises ValueError.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)doc}, {Py_tp_new, kinx_shared_new},
    {Py_tp_init, init},       {Py_tp_dealloc, kinx_shared_dealloc},
    {Py_tp_repr, repr},       {Py_tp_methods, kinx_lock_methods},
    {Py_tp_getset, getset},   {0, NULL},
};

static PyType_Spec spec = {
    .name = "kinfolk._kin.Semaphore",
    .basicsize = sizeof(kinx_shared),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int kinx_semaphore_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    if (PyModule_AddIntConstant(module, "SEM_VALUE_MAX", KIN_SEMAPHORE_MAX) < 0) return -1;
    return kinx_add_type(module, &spec, st->shared_type, &st->kind_types[KIN_KIND_SEMAPHORE]);
}
