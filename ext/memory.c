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
    int err = PyBuffer_FillInfo(view, (PyObject *)self, kin_memory_data(&self->handle),
                                length(self), 0, flags);
    if (err == 0) self->count++;
    return err;
}

static void release_buffer(kinx_shared *self, Py_buffer *view) {
    self->count--;
}

static PyObject *get_views(kinx_shared *self, void *closure) {
    return PyLong_FromUnsignedLong(self->count);
}

static PyObject *repr(kinx_shared *self) {
    return kinx_shared_repr(self, "len=%zd", length(self));
}

static PyObject *get_address(kinx_shared *self, void *closure) {
    KINX_CHECK_OPEN(self);
    return PyLong_FromVoidPtr(kin_memory_data(&self->handle));
}

static PyObject *link_memory(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    kin_err err = kin_memory_link(&self->handle);
    if (err < 0 && err != -ENOENT) return kinx_raise(self->state, err, Py_TYPE(self)->tp_name);
    return PyBool_FromLong(err == 0);
}

static PyObject *unlink_memory(kinx_shared *self, PyObject *unused) {
    KINX_CHECK_OPEN(self);
    kin_err err = kin_memory_unlink(&self->handle);
    /* One that has left is at its very end, and has nobody to tell. */
    return PyBool_FromLong(err != -ENOENT);
}

static PyObject *get_unlinked(kinx_shared *self, void *closure) {
    KINX_CHECK_OPEN(self);
    return PyBool_FromLong(kin_memory_is_unlinked(&self->handle));
}

static PyObject *open_at(PyTypeObject *cls, PyObject *args) {
    unsigned long long off, serial;
    if (!PyArg_ParseTuple(args, "KK:at", &off, &serial)) return NULL;
    kin_family *family = kin_family_self();
    kinx_shared *self = family ? (kinx_shared *)kinx_shared_new(cls, NULL, NULL) : NULL;
    if (!family) PyErr_SetString(PyExc_ValueError, "this process is in no family");
    if (!self) return NULL;
    kin_ref ref = {.off = off, .serial = serial, .kind = KIN_KIND_MEMORY};
    kin_err err = kin_handle_open(family, &ref, &self->handle);
    if (err == 0) return (PyObject *)self;
    kinx_raise(self->state, err == KIN_EKIND ? KIN_ESTALE : err, "this memory");
    Py_DECREF(self);
    return NULL;
}

static PyMethodDef methods[] = {
    {"at", (PyCFunction)open_at, METH_VARARGS | METH_CLASS,
     "at($type, offset, serial, /)\n--\n\n"
     "The memory that a ref names by these two.  StaleReference if it is gone."},
    {"link", (PyCFunction)link_memory, METH_NOARGS,
     "link($self, /)\n--\n\n"
     "Let it live without holders until unlink(); False if it was unlinked already."},
    {"unlink", (PyCFunction)unlink_memory, METH_NOARGS,
     "unlink($self, /)\n--\n\n"
     "From now on it goes with its last holder; False if that was so already."},
    {NULL},
};

static PyGetSetDef getset[] = {
    {"address", (getter)get_address, NULL, "Where its first byte lies in this process.", NULL},
    {"views", (getter)get_views, NULL, "How many buffers of it are in use in this process.", NULL},
    {"unlinked", (getter)get_unlinked, NULL, "Was it unlinked?", NULL},
    {NULL},
};

PyDoc_STRVAR(doc, "Memory(len)\n--\n\n"
                  "`len` bytes of shared memory, zeroed; a writable buffer.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)doc},
    {Py_tp_new, kinx_shared_new},
    {Py_tp_init, init},
    {Py_tp_dealloc, kinx_shared_dealloc},
    {Py_tp_repr, repr},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {Py_sq_length, length},
    {Py_bf_getbuffer, get_buffer},
    {Py_bf_releasebuffer, release_buffer},
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
