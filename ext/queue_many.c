/* put_many() and get_many(): the same messages as put() and get(), a batch at a time.
 *
 * Nothing may be lost on the way.  put_many() sends a batch when it is full, when a large message
 * (a blob) is at its end, and before it raises.  get_many() takes a batch out of the queue before
 * it loads it, and loading may run anybody's code.  So a batch ends with the first message that is
 * not plain (queue.h): only its last one can be refused.  What could not be handed over because of
 * that (the error, or what was loaded before an interrupt) is owed, and comes first in
 * the next get of this object, in this process. */
#include "args.h"
#include "errors.h"
#include "queue.h"

#define BATCH 128
#define BATCH_BYTES (8 * KIN_RECORD_MAX)

enum { FIRST, BLOCK, TIMEOUT, PARAMETERS };

/* -- put_many ---------------------------------------------------------------------------- */

typedef struct outgoing {
    size_t count, done; /* items; of these, in the queue */
    size_t used;        /* of the bytes */
    uint64_t put;       /* by the batches before this one */
    kin_item items[BATCH];
    kin_blob blob; /* of the last item, if that has one */
    uint8_t bytes[BATCH_BYTES];
} outgoing;

/* Send what there is.  On failure the rest of it is given up. */
static int send_batch(kinx_shared *self, outgoing *out, kin_deadline deadline) {
    kin_err err;
    KINX_WAIT(err, deadline,
              kin_queue_push_many(&self->queue, out->items, out->count, &out->done, until));
    if (err < 0) kin_blob_free(&out->blob);
    out->put += out->done;
    out->count = out->done = out->used = 0;
    if (err == 0) return 0;
    kinx_queue_raise(self, err, true);
    return -1;
}

static int add_blob(kinx_shared *self, outgoing *out, kinx_message *message) {
    kin_err err = kinx_message_to_blob(self->state, message, &out->blob);
    if (err < 0) {
        kinx_queue_raise(self, err, true);
        return -1;
    }
    out->items[out->count++] = (kin_item){.blob = &out->blob};
    return 0;
}

static void add_small(outgoing *out, const kinx_message *message) {
    uint8_t *place = out->bytes + out->used;
    kin_item item = {.data = place, .tag = message->is_pickled ? 0 : KINX_TAG_PLAIN};
    const uint8_t *data = kinx_message_flat(message, place, &item.len);
    if (data != place) memcpy(place, data, item.len);
    out->items[out->count++] = item;
    out->used += item.len;
}

static int add(kinx_shared *self, outgoing *out, PyObject *obj, kin_deadline deadline) {
    kinx_message message;
    if (kinx_message_init(self->state, &message, obj) < 0) return -1;
    bool is_small = kinx_message_is_small(&message);
    int err = 0;
    if (is_small) add_small(out, &message);
    else err = add_blob(self, out, &message);
    kinx_message_fini(&message);
    if (err < 0) return -1;
    bool is_full = out->count == BATCH || BATCH_BYTES - out->used < KIN_RECORD_MAX;
    return !is_small || is_full ? send_batch(self, out, deadline) : 0;
}

static int add_all(kinx_shared *self, outgoing *out, PyObject *objs, kin_deadline deadline) {
    PyObject *iterator = PyObject_GetIter(objs), *obj;
    if (!iterator) return -1;
    int err = 0;
    while (err == 0 && (obj = PyIter_Next(iterator))) {
        err = add(self, out, obj, deadline);
        Py_DECREF(obj);
    }
    Py_DECREF(iterator);
    return PyErr_Occurred() ? -1 : 0;
}

/* The exception that is set, which is taken.  New reference. */
static PyObject *take_error(void) {
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback) PyException_SetTraceback(error, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return error;
}

/* Raise it again.  Steals. */
static void set_error(PyObject *error) {
    PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_DECREF(error);
}

/* With an exception set: what was encoded before it is to be in the queue.  If that fails it comes
 * first, for it is about an earlier object; but an interrupt waits for nothing. */
static void send_before_error(kinx_shared *self, outgoing *out, kin_deadline deadline) {
    bool is_interrupt = !PyErr_ExceptionMatches(PyExc_Exception);
    PyObject *error = take_error();
    if (send_batch(self, out, is_interrupt ? KIN_NOW : deadline) == 0 || is_interrupt) {
        PyErr_Clear();
        set_error(error);
        return;
    }
    PyObject *earlier = take_error();
    PyException_SetContext(earlier, error);
    set_error(earlier);
}

/* The exception that is set gets an attribute `put`, and a note, as far as it can have them. */
static void say_how_many(uint64_t put) {
    PyObject *error = take_error();
    PyObject *count = PyLong_FromUnsignedLongLong(put);
    if (count && PyObject_SetAttrString(error, "put", count) < 0) PyErr_Clear();
    PyObject *note =
        PyUnicode_FromFormat("put_many(): %llu put before this", (unsigned long long)put);
    PyObject *none = note ? PyObject_CallMethod(error, "add_note", "O", note) : NULL;
    if (!none) PyErr_Clear();
    Py_XDECREF(none);
    Py_XDECREF(note);
    Py_XDECREF(count);
    set_error(error);
}

static PyObject *put_all(kinx_shared *self, PyObject *objs, kin_deadline deadline) {
    outgoing *out = PyMem_Malloc(sizeof *out);
    if (!out) return PyErr_NoMemory();
    out->count = out->done = out->used = 0;
    out->put = 0;
    out->blob.family = NULL;
    int err = add_all(self, out, objs, deadline);
    if (err == 0) err = send_batch(self, out, deadline);
    else send_before_error(self, out, deadline);
    uint64_t put = out->put;
    PyMem_Free(out);
    if (err == 0) return PyLong_FromUnsignedLongLong(put);
    say_how_many(put);
    return NULL;
}

PyObject *kinx_queue_put_many(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames) {
    static const char *const names[PARAMETERS] = {"objs", "block", "timeout"};
    static const kinx_parameters params = {names, FIRST, BLOCK, PARAMETERS, PARAMETERS};
    PyObject *slots[PARAMETERS] = {NULL};
    kin_deadline deadline;
    if (kinx_fill_slots("put_many", &params, slots, args, nargs, kwnames) < 0) return NULL;
    if (kinx_deadline_of(slots[BLOCK], slots[TIMEOUT], &deadline) < 0) return NULL;
    KINX_QUEUE_CHECK(self);
    return put_all(self, slots[FIRST], deadline);
}

/* -- What is owed ---------------------------------------------------------------------------- */

/* A list of pairs: is it an error, and the object or error.  A forked child owes nothing. */
Py_ssize_t kinx_queue_owes_slow(kinx_shared *self) {
    if (self->owed_to != kin_family_member(self->handle.family)) Py_CLEAR(self->owed);
    return self->owed ? PyList_GET_SIZE(self->owed) : 0;
}

/* Add to it; value: stolen, may be NULL, then an exception is set and is what is owed. */
static int owe(kinx_shared *self, PyObject *value) {
    PyObject *is_error = value ? Py_False : Py_True;
    if (!value) value = take_error();
    if (!kinx_queue_owes(self)) {
        Py_XSETREF(self->owed, PyList_New(0));
        self->owed_to = kin_family_member(self->handle.family);
    }
    PyObject *pair = self->owed ? PyTuple_Pack(2, is_error, value) : NULL;
    int err = pair ? PyList_Append(self->owed, pair) : -1;
    Py_XDECREF(pair);
    Py_DECREF(value);
    return err;
}

static bool owes_error(const kinx_shared *self) {
    return PyTuple_GET_ITEM(PyList_GET_ITEM(self->owed, 0), 0) == Py_True;
}

PyObject *kinx_queue_pay(kinx_shared *self) {
    bool is_error = owes_error(self);
    PyObject *value = PyTuple_GET_ITEM(PyList_GET_ITEM(self->owed, 0), 1);
    Py_INCREF(value);
    if (PyList_GET_SIZE(self->owed) == 1) Py_CLEAR(self->owed);
    else if (PyList_SetSlice(self->owed, 0, 1, NULL) < 0) Py_CLEAR(value);
    if (!is_error || !value) return value;
    set_error(value);
    return NULL;
}

/* Up to the next error: `list` is empty, and there is something. */
static int pay_many(kinx_shared *self, PyObject *list, Py_ssize_t most) {
    do {
        PyObject *value = kinx_queue_pay(self);
        int err = value ? PyList_Append(list, value) : -1;
        Py_XDECREF(value);
        if (err < 0) return -1;
    } while (PyList_GET_SIZE(list) < most && kinx_queue_owes(self) && !owes_error(self));
    return 0;
}

/* -- get_many ---------------------------------------------------------------------------------- */

typedef struct incoming {
    size_t taken;
    kin_record records[BATCH];
    uint8_t bytes[BATCH_BYTES];
} incoming;

static kin_err take_batch(kinx_shared *self, incoming *in, size_t most, kin_deadline deadline) {
    if (most > BATCH) most = BATCH;
    kin_err err;
    KINX_WAIT(err, deadline,
              kin_queue_pop_many(&self->queue, in->bytes, BATCH_BYTES, in->records, most,
                                 KINX_TAG_PLAIN, &in->taken, until));
    return err;
}

/* Load the batch to the end of the list; an exception ends that.  Returns how many it has loaded. */
static size_t load_batch(kinx_shared *self, incoming *in, PyObject *list) {
    size_t i = 0;
    for (; i < in->taken; i++) {
        PyObject *obj = kinx_queue_load(self->state, in->bytes, &in->records[i]);
        int err = obj ? PyList_Append(list, obj) : -1;
        Py_XDECREF(obj);
        if (err < 0) break;
    }
    return i;
}

/* The batch's messages from `first` on are out of the queue already. */
static int owe_rest(kinx_shared *self, incoming *in, size_t first) {
    for (size_t i = first; i < in->taken; i++)
        if (owe(self, kinx_queue_load(self->state, in->bytes, &in->records[i])) < 0) return -1;
    return 0;
}

/* An interrupt goes out at once; what was loaded before it is for later. */
static int owe_list(kinx_shared *self, PyObject *list) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *value = PyList_GET_ITEM(list, i);
        Py_INCREF(value);
        if (owe(self, value) < 0) return -1;
    }
    return 0;
}

/* With an exception set, and `in` loaded up to `loaded`.  0: it is owed, and the list is returned. */
static int put_off(kinx_shared *self, incoming *in, size_t loaded, PyObject *list) {
    if (PyList_GET_SIZE(list) > 0 && PyErr_ExceptionMatches(PyExc_Exception)) {
        if (owe(self, NULL) < 0) return -1;
        return owe_rest(self, in, loaded + 1);
    }
    PyObject *error = take_error();
    int err = owe_list(self, list);
    if (err == 0) err = owe_rest(self, in, loaded + 1);
    if (err < 0) {
        Py_DECREF(error);
        return -1;
    }
    set_error(error);
    return -1;
}

/* Take and load until the queue has been found empty, or as many are there as there were at
 * first: then whoever puts all the time can't hold it up. */
static int get_all(kinx_shared *self, incoming *in, PyObject *list, size_t most,
                   kin_deadline deadline) {
    size_t got = 0, limit = most;
    do {
        kin_err err = take_batch(self, in, limit - got, got ? KIN_NOW : deadline);
        if (got == 0 && in->taken) limit = Py_MIN(most, in->taken + kin_queue_len(&self->queue));
        size_t loaded = load_batch(self, in, list);
        if (loaded < in->taken) return put_off(self, in, loaded, list);
        got += loaded;
        if (err == 0) continue;
        if (got && (err == -ETIMEDOUT || err == KIN_ECLOSED)) break;
        kinx_queue_raise(self, err, false);
        return put_off(self, in, loaded, list);
    } while (got < limit);
    return 0;
}

static PyObject *get_list(kinx_shared *self, size_t most, kin_deadline deadline) {
    incoming *in = PyMem_Malloc(sizeof *in);
    PyObject *list = in ? PyList_New(0) : PyErr_NoMemory();
    int err = -1;
    if (list && kinx_queue_owes(self)) err = pay_many(self, list, (Py_ssize_t)most);
    else if (list) err = get_all(self, in, list, most, deadline);
    kinx_queue_settle(self);
    PyMem_Free(in);
    if (err < 0) Py_CLEAR(list);
    return list;
}

/* PY_SSIZE_T_MAX for None. */
static Py_ssize_t read_most(PyObject *max_items) {
    if (!max_items || max_items == Py_None) return PY_SSIZE_T_MAX;
    Py_ssize_t most = PyNumber_AsSsize_t(max_items, PyExc_OverflowError);
    if (most > 0) return most;
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "max_items must be positive, or None");
    return -1;
}

PyObject *kinx_queue_get_many(kinx_shared *self, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames) {
    static const char *const names[PARAMETERS] = {"max_items", "block", "timeout"};
    static const kinx_parameters params = {names, FIRST, FIRST, PARAMETERS, PARAMETERS};
    PyObject *slots[PARAMETERS] = {NULL};
    kin_deadline deadline;
    if (kinx_fill_slots("get_many", &params, slots, args, nargs, kwnames) < 0) return NULL;
    if (kinx_deadline_of(slots[BLOCK], slots[TIMEOUT], &deadline) < 0) return NULL;
    Py_ssize_t most = read_most(slots[FIRST]);
    if (most < 0) return NULL;
    KINX_QUEUE_CHECK(self);
    return get_list(self, (size_t)most, deadline);
}

/* -- Taking back ----------------------------------------------------------------------------- */

/* All that there is goes in one step, so that what a reader takes meanwhile lies before it: room for
 * as many records as can be, of any size. */
typedef struct taken_back {
    size_t count;
    kin_record records[BATCH];
    uint8_t bytes[BATCH * KIN_RECORD_MAX];
} taken_back;

/* What they are may be anybody's objects: none is loaded. */
static void drop(taken_back *back) {
    for (size_t i = 0; i < back->count; i++)
        if (back->records[i].blob.family) kin_blob_free(&back->records[i].blob);
}

PyObject *kinx_queue_take_back(kinx_shared *self, PyObject *unused) {
    KINX_QUEUE_CHECK(self);
    taken_back *back = PyMem_Malloc(sizeof *back);
    if (!back) return PyErr_NoMemory();
    kin_err err = 0;
    back->count = 0;
    /* A reader is at its side of the queue for a moment, or dead, or stopped: not for ever. */
    kin_deadline end = kin_deadline_after(100000000);
    while (back->count == 0 && kin_queue_len(&self->queue) > 0 && kin_clock() < end) {
        kin_deadline deadline = kin_deadline_after(1000000);
        KINX_WAIT(err, deadline,
                  kin_queue_pop_many(&self->queue, back->bytes, sizeof back->bytes, back->records,
                                     BATCH, 0, &back->count, until));
        if (err < 0 && err != -ETIMEDOUT && err != -EAGAIN) break;
    }
    drop(back);
    size_t count = back->count;
    PyMem_Free(back);
    kinx_queue_settle(self);
    if (err < 0 && err != -ETIMEDOUT && err != -EAGAIN && err != KIN_ECLOSED)
        return kinx_queue_raise(self, err, false);
    return PyLong_FromSize_t(count);
}
