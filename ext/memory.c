/* Memory: a plain piece of shared memory, as a buffer.
 *
 * What Value, Array and the like are laid over.  A view of it keeps the object,
 * and the object the memory. */
#include "errors.h"
#include "ref.h"

static int init(kinx_shared *self, PyObject *args, PyObject *kwds) {
    static char *names[] = {"len", NULL};
    Py_ssize_t len;
    if (!PyArg_ParseTupleAndKeywords(args, kwds, "n:Memory", names, &len)) return -1;
    if (len < 0) {
        PyErr_SetString(PyExc_ValueError, "the length of a Memory cannot be negative");
        return -1;
    }
    kin_family *family = kinx_shared_init(self);
    if (!family) return -1;
    kin_err err = kin_memory_create(family, (uint64_t)len, &self->handle);
    if (err == 0) return 0;
    kinx_raise(self->state, err, Py_TYPE(self)->tp_name);
    return -1;
}

static Py_ssize_t length(kinx_shared *self) {
    return self->handle.family ? (Py_ssize_t)kin_memory_len(&self->handle) : 0;
}

static int get_buffer(kinx_shared *self, Py_buffer *view, int flags) {
    if (!self->handle.family) {
        PyErr_SetString(PyExc_BufferError, "Memory.__init__() has not been called");
        view->obj = NULL;
        return -1;
    }
    return PyBuffer_FillInfo(view, (PyObject *)self, kin_memory_data(&self->handle), length(self),
                             0, flags);
}

static PyObject *repr(kinx_shared *self) {
    return kinx_shared_repr(self, "len=%zd", length(self));
}

PyDoc_STRVAR(doc, "Memory(len)\n--\n\n"
                  "`len` bytes of shared memory, zeroed; a writable buffer.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)doc},
    {Py_tp_new, kinx_shared_new},
    {Py_tp_init, init},
    {Py_tp_dealloc, kinx_shared_dealloc},
    {Py_tp_repr, repr},
    {Py_sq_length, length},
    {Py_bf_getbuffer, get_buffer},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "kinfolk._kin.Memory",
    .basicsize = sizeof(kinx_shared),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int kinx_memory_exec(PyObject *module) {
    kinx_state *st = kinx_state_of(module);
    return kinx_add_type(module, &spec, st->shared_type, &st->kind_types[KIN_KIND_MEMORY]);
}
