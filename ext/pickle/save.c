/* The heart of the pickler: numbers, strings and containers, written by hand.
 *
 * save() writes one object.  Atoms first, without a look at the memo; then what
 * has been written before is fetched, and everything else is written and
 * remembered.  `sole` says that this is the only reference there is to the object
 * (kinx_save_part sees it): then it is not in the memo, and as long as the
 * pickling is bare it need not get there.
 *
 * User code can run wherever kinx_save_other() is reached, and may change the very
 * list that is being written.  So each part is held while it is written, and
 * sizes are looked at again after it. */
#include "pickler.h"

#if PY_VERSION_HEX < 0x030B0000
#include <longintrepr.h>
#endif

static int save(kinx_pickler *p, PyObject *obj, bool sole);

int kinx_raise_writer(kin_err err) {
    if (err == -ENOMEM) PyErr_NoMemory();
    return -1; /* any other has been raised where it came up: in the user's file */
}

int kinx_raise_pickling(kinx_pickler *p, const char *text) {
    PyErr_SetString(kinx_pickling_error(p->ps), text);
    return -1;
}

static inline int put_op(kinx_pickler *p, kin_opcode op) {
    return kinx_put_op(p, op);
}

/* -- Atoms ----------------------------------------------------------------------------- */

/* The value of an int of one digit, the usual kind, without a call; false for any other. */
static inline bool is_compact_int(PyObject *obj, long *value) {
#if PY_VERSION_HEX >= 0x030C0000
    if (!PyUnstable_Long_IsCompact((PyLongObject *)obj)) return false;
    *value = (long)PyUnstable_Long_CompactValue((PyLongObject *)obj);
#else
    Py_ssize_t digits = Py_SIZE(obj);
    if (digits < -1 || digits > 1) return false;
    *value = digits == 0 ? 0 : (long)digits * (long)((PyLongObject *)obj)->ob_digit[0];
#endif
    return true;
}

static inline int save_int(kinx_pickler *p, PyObject *obj) {
    if (p->protocol < 2) return kinx_save_old_int(p, obj);
    long compact;
    long long n;
    if (is_compact_int(obj, &compact)) {
        n = compact;
    } else {
        int overflow;
        n = PyLong_AsLongLongAndOverflow(obj, &overflow);
        if (overflow) return kinx_save_big_int(p, obj);
    }
    if (kinx_reserve(p, KIN_INT_ROOM) < 0) return -1;
    p->out.at = kin_store_int(p->out.at, n);
    return 0;
}

static inline int save_float(kinx_pickler *p, PyObject *obj) {
    if (p->protocol < 1) return kinx_save_old_float(p, obj);
    if (kinx_reserve(p, 9) < 0) return -1;
    p->out.at = kin_store_float(p->out.at, PyFloat_AS_DOUBLE(obj));
    return 0;
}

static inline int save_bool(kinx_pickler *p, PyObject *obj) {
    if (p->protocol < 2) return kinx_put_text(p, obj == Py_True ? "I01\n" : "I00\n");
    return put_op(p, obj == Py_True ? KIN_OP_NEWTRUE : KIN_OP_NEWFALSE);
}

/* 1: it was an atom, and is written; 0: it is none. */
static inline int save_atom(kinx_pickler *p, PyObject *obj) {
    PyTypeObject *type = Py_TYPE(obj);
    int err;
    if (type == &PyLong_Type) err = save_int(p, obj);
    else if (obj == Py_None) err = put_op(p, KIN_OP_NONE);
    else if (type == &PyFloat_Type) err = save_float(p, obj);
    else if (type == &PyBool_Type) err = save_bool(p, obj);
    else return 0;
    return err < 0 ? -1 : 1;
}

/* -- The memo ----------------------------------------------------------------------------- */

int kinx_remember(kinx_pickler *p, PyObject *obj, bool sole) {
    if (sole && p->bare) {
        p->unmemoised++;
        return 0;
    }
    if (p->fast) return 0;
    size_t index = p->memo.count;
    if (kinx_memo_add(&p->memo, obj) < 0) return -1;
    if (p->protocol >= 4) return put_op(p, KIN_OP_MEMOIZE);
    if (p->protocol < 1) return kinx_put_text(p, "p%zu\n", index);
    if (kinx_reserve(p, 5) < 0) return -1;
    if (index < 256) {
        *p->out.at++ = KIN_OP_BINPUT;
        *p->out.at++ = (uint8_t)index;
    } else {
        *p->out.at++ = KIN_OP_LONG_BINPUT;
        p->out.at = kin_store4(p->out.at, (uint32_t)index);
    }
    return 0;
}

static inline int refer(kinx_pickler *p, size_t index) {
    if (p->protocol < 1) return kinx_put_text(p, "g%zu\n", index);
    if (kinx_reserve(p, 5) < 0) return -1;
    if (index < 256) {
        *p->out.at++ = KIN_OP_BINGET;
        *p->out.at++ = (uint8_t)index;
    } else {
        *p->out.at++ = KIN_OP_LONG_BINGET;
        p->out.at = kin_store4(p->out.at, (uint32_t)index);
    }
    return 0;
}

int kinx_refer(kinx_pickler *p, size_t index) {
    return refer(p, index);
}

int kinx_save_met_again(kinx_pickler *p, PyObject *obj, bool sole, int pops) {
    if (sole && p->bare) return 0;
    Py_ssize_t index = kinx_memo_find(&p->memo, obj);
    if (index < 0) return 0;
    if (pops < 0 && p->protocol >= 1) {
        if (put_op(p, KIN_OP_POP_MARK) < 0) return -1;
    } else {
        /* Protocol 0 has no POP_MARK: -n - 1 is a mark with n items on it. */
        for (int i = pops < 0 ? pops : -pops; i < 0; i++) {
            if (put_op(p, KIN_OP_POP) < 0) return -1;
        }
    }
    return kinx_refer(p, (size_t)index) < 0 ? -1 : 1;
}

/* -- Strings ----------------------------------------------------------------------- */

static inline bool is_hook_name(const char *name, size_t len) {
    return len >= 12 && name[0] == '_' && name[1] == '_' && kinx_is_hook_name(name, len);
}

static inline int put_str(kinx_pickler *p, PyObject *obj) {
    if (p->protocol < 1) return kinx_save_old_str(p, obj);
#if PY_VERSION_HEX < 0x030C0000
    if (PyUnicode_READY(obj) < 0) return -1;
#endif
    if (!PyUnicode_IS_ASCII(obj)) return kinx_put_wide_str(p, obj);
    size_t len = (size_t)PyUnicode_GET_LENGTH(obj);
    const void *data = PyUnicode_DATA(obj);
    if (KINX_UNLIKELY(p->bare && is_hook_name(data, len))) return kinx_begin_again(p);
    if (len <= 0xff && p->protocol >= 4) {
        if (kinx_reserve(p, 2 + 256) < 0) return -1;
        uint8_t *at = p->out.at;
        at[0] = KIN_OP_SHORT_BINUNICODE;
        at[1] = (uint8_t)len;
        memcpy(at + 2, data, len);
        p->out.at = at + 2 + len;
        return 0;
    }
    if (len > UINT32_MAX && p->protocol < 4) return kinx_raise_too_large("string");
    uint8_t head[9];
    size_t head_len = (size_t)(kin_store_str_head(head, len, p->out.protocol) - head);
    return kinx_put_payload(p, obj, head, head_len, data, len);
}

static inline int save_str(kinx_pickler *p, PyObject *obj, bool sole) {
    if (!sole) {
        Py_ssize_t index = kinx_memo_find(&p->memo, obj);
        if (index >= 0) return refer(p, (size_t)index);
    }
    if (put_str(p, obj) < 0) return -1;
    return kinx_remember(p, obj, sole);
}

int kinx_save_str(kinx_pickler *p, PyObject *str) {
    return save_str(p, str, false);
}

/* -- Containers ---------------------------------------------------------------------------- */

enum { RUN = 32 };

/* Numbers at the beginning of items[0:count], up to RUN of them: written with one look at the
 * room.  Returns how many; or -1. */
static inline Py_ssize_t save_numbers(kinx_pickler *p, PyObject *const *items, Py_ssize_t count) {
    if (p->persistent_id || p->protocol < 2) return 0;
    if (kinx_reserve(p, RUN * KIN_INT_ROOM) < 0) return -1;
    uint8_t *at = p->out.at;
    Py_ssize_t i = 0;
    for (long n; i < count && i < RUN; i++) {
        PyTypeObject *type = Py_TYPE(items[i]);
        if (type == &PyFloat_Type) at = kin_store_float(at, PyFloat_AS_DOUBLE(items[i]));
        else if (type == &PyLong_Type && is_compact_int(items[i], &n)) at = kin_store_int(at, n);
        else break;
    }
    p->out.at = at;
    kin_err err = kin_boundary(&p->out);
    return err < 0 ? kinx_raise_writer(err) : i;
}

int kinx_save_part(kinx_pickler *p, PyObject *part) {
    bool sole = p->bare && Py_REFCNT(part) == 1;
    Py_INCREF(part);
    int err = save(p, part, sole);
    Py_DECREF(part);
    return err;
}

static int save_list_batch(kinx_pickler *p, PyObject *list, Py_ssize_t *next) {
    Py_ssize_t end = *next + KINX_BATCH;
    if (put_op(p, KIN_OP_MARK) < 0) return -1;
    while (*next < end && *next < PyList_GET_SIZE(list)) {
        Py_ssize_t left = Py_MIN(end, PyList_GET_SIZE(list)) - *next;
        Py_ssize_t run = save_numbers(p, ((PyListObject *)list)->ob_item + *next, left);
        if (run < 0) return -1;
        *next += run;
        if (run == left || run == RUN) continue;
        if (kinx_save_part(p, PyList_GET_ITEM(list, *next)) < 0) {
            return kinx_trail_index(p, list, KINX_STEP_ITEM, *next);
        }
        ++*next;
    }
    return put_op(p, KIN_OP_APPENDS);
}

static int save_list_parts(kinx_pickler *p, PyObject *list) {
    if (PyList_GET_SIZE(list) == 1) {
        if (kinx_save_part(p, PyList_GET_ITEM(list, 0)) < 0) {
            return kinx_trail_index(p, list, KINX_STEP_ITEM, 0);
        }
        return put_op(p, KIN_OP_APPEND);
    }
    Py_ssize_t next = 0;
    while (next < PyList_GET_SIZE(list)) {
        if (save_list_batch(p, list, &next) < 0) return -1;
    }
    return 0;
}

static int save_list(kinx_pickler *p, PyObject *obj, bool sole) {
    if (p->protocol >= 1) {
        if (put_op(p, KIN_OP_EMPTY_LIST) < 0) return -1;
    } else if (kinx_put_text(p, "(l") < 0) {
        return -1;
    }
    if (kinx_remember(p, obj, sole) < 0) return -1;
    if (PyList_GET_SIZE(obj) == 0) return 0;
    if (p->protocol >= 1) return save_list_parts(p, obj);
    PyObject *iterator = PyObject_GetIter(obj);
    if (!iterator) return -1;
    int err = kinx_save_list_items(p, iterator, NULL);
    Py_DECREF(iterator);
    return err;
}

static int save_pair(kinx_pickler *p, PyObject *dict, PyObject *key, PyObject *value) {
    Py_INCREF(key); /* the trail needs it, and the value may go with it */
    Py_INCREF(value);
    bool sole_key = p->bare && Py_REFCNT(key) == 2, sole_value = p->bare && Py_REFCNT(value) == 2;
    int err = save(p, key, sole_key);
    if (err < 0) {
        kinx_trail(p, dict, KINX_STEP_KEY, key);
    } else {
        err = save(p, value, sole_value);
        if (err < 0) kinx_trail(p, dict, KINX_STEP_VALUE, key);
    }
    Py_DECREF(key);
    Py_DECREF(value);
    return err;
}

static int raise_dict_changed(void) {
    PyErr_SetString(PyExc_RuntimeError, "dictionary changed size during iteration");
    return -1;
}

/* Neither an iterator nor a list of pairs is made: as long as the size is the same
 * PyDict_Next goes on where it was. */
static int save_dict_parts(kinx_pickler *p, PyObject *dict) {
    PyObject *key, *value;
    Py_ssize_t place = 0, size = PyDict_GET_SIZE(dict), left = size;
    if (size == 1) {
        PyDict_Next(dict, &place, &key, &value);
        if (save_pair(p, dict, key, value) < 0) return -1;
        if (PyDict_GET_SIZE(dict) != size) return raise_dict_changed();
        return put_op(p, KIN_OP_SETITEM);
    }
    while (left > 0) {
        if (put_op(p, KIN_OP_MARK) < 0) return -1;
        Py_ssize_t batch = left < KINX_BATCH ? left : KINX_BATCH;
        left -= batch;
        for (; batch > 0 && PyDict_Next(dict, &place, &key, &value); batch--) {
            if (save_pair(p, dict, key, value) < 0) return -1;
            if (PyDict_GET_SIZE(dict) != size) return raise_dict_changed();
        }
        if (put_op(p, KIN_OP_SETITEMS) < 0) return -1;
    }
    return 0;
}

static int save_dict(kinx_pickler *p, PyObject *obj, bool sole) {
    if (p->protocol >= 1) {
        if (put_op(p, KIN_OP_EMPTY_DICT) < 0) return -1;
    } else if (kinx_put_text(p, "(d") < 0) {
        return -1;
    }
    if (kinx_remember(p, obj, sole) < 0) return -1;
    if (PyDict_GET_SIZE(obj) == 0) return 0;
    if (p->protocol >= 1) return save_dict_parts(p, obj);
    PyObject *items = PyDict_Items(obj);
    PyObject *iterator = items ? PyObject_GetIter(items) : NULL;
    int err = iterator ? kinx_save_dict_items(p, iterator, NULL) : -1;
    Py_XDECREF(iterator);
    Py_XDECREF(items);
    return err;
}

/* The next element of a set, from table place *place on; borrowed, NULL behind the last one.
 * In the table, as the headers have it: an iterator would cost more than the elements.
 * Taken-out elements leave a dummy whose hash is -1, which no element's is. */
static PyObject *next_element(PyObject *set, Py_ssize_t *place) {
    const PySetObject *so = (PySetObject *)set;
    while (*place <= so->mask) {
        const setentry *entry = &so->table[(*place)++];
        if (entry->key && entry->hash != -1) return entry->key;
    }
    return NULL;
}

static int save_element(kinx_pickler *p, PyObject *set, PyObject *element) {
    Py_ssize_t size = PySet_GET_SIZE(set);
    Py_INCREF(element); /* the trail needs it */
    bool sole = p->bare && Py_REFCNT(element) == 2;
    int err = save(p, element, sole);
    if (err < 0) kinx_trail(p, set, KINX_STEP_ELEMENT, element);
    Py_DECREF(element);
    if (err < 0) return -1;
    if (PySet_GET_SIZE(set) == size) return 0;
    PyErr_SetString(PyExc_RuntimeError, "set changed size during iteration");
    return -1;
}

static int save_set_parts(kinx_pickler *p, PyObject *set) {
    Py_ssize_t place = 0;
    PyObject *element = next_element(set, &place);
    while (element) {
        if (put_op(p, KIN_OP_MARK) < 0) return -1;
        for (Py_ssize_t left = KINX_BATCH; element && left > 0; left--) {
            if (save_element(p, set, element) < 0) return -1;
            element = next_element(set, &place);
        }
        if (put_op(p, KIN_OP_ADDITEMS) < 0) return -1;
    }
    return 0;
}

static int save_set(kinx_pickler *p, PyObject *obj, bool sole) {
    if (p->protocol < 4) return kinx_save_old_set(p, obj);
    if (put_op(p, KIN_OP_EMPTY_SET) < 0 || kinx_remember(p, obj, sole) < 0) return -1;
    return PySet_GET_SIZE(obj) ? save_set_parts(p, obj) : 0;
}

static int save_frozenset(kinx_pickler *p, PyObject *obj, bool sole) {
    if (p->protocol < 4) return kinx_save_old_set(p, obj);
    if (put_op(p, KIN_OP_MARK) < 0) return -1;
    Py_ssize_t place = 0;
    for (PyObject *element; (element = next_element(obj, &place)) != NULL;) {
        if (save_element(p, obj, element) < 0) return -1;
    }
    int met = kinx_save_met_again(p, obj, sole, -1);
    if (met) return met < 0 ? -1 : 0;
    return put_op(p, KIN_OP_FROZENSET) < 0 ? -1 : kinx_remember(p, obj, sole);
}

static int save_tuple_parts(kinx_pickler *p, PyObject *obj) {
    Py_ssize_t count = PyTuple_GET_SIZE(obj);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (kinx_save_part(p, PyTuple_GET_ITEM(obj, i)) < 0) {
            return kinx_trail_index(p, obj, KINX_STEP_ITEM, i);
        }
    }
    return 0;
}

int kinx_save_items_of(kinx_pickler *p, PyObject *obj) {
    if (PyList_Check(obj)) return PyList_GET_SIZE(obj) ? save_list_parts(p, obj) : 0;
    return PyDict_GET_SIZE(obj) ? save_dict_parts(p, obj) : 0;
}

int kinx_save_tuple_of(kinx_pickler *p, PyObject *tuple) {
    static const kin_opcode short_ops[] = {KIN_OP_EMPTY_TUPLE, KIN_OP_TUPLE1, KIN_OP_TUPLE2,
                                           KIN_OP_TUPLE3};
    Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    if (count > 3 && put_op(p, KIN_OP_MARK) < 0) return -1;
    if (save_tuple_parts(p, tuple) < 0) return -1;
    return put_op(p, count > 3 ? KIN_OP_TUPLE : short_ops[count]);
}

/* A tuple is remembered when it is complete, for only then is it there to be fetched.
 * If it was a part of itself it has been written inside itself by then. */
static int save_tuple(kinx_pickler *p, PyObject *obj, bool sole) {
    static const kin_opcode short_ops[] = {KIN_OP_EMPTY_TUPLE, KIN_OP_TUPLE1, KIN_OP_TUPLE2,
                                           KIN_OP_TUPLE3};
    Py_ssize_t count = PyTuple_GET_SIZE(obj);
    if (count == 0) return p->protocol ? put_op(p, KIN_OP_EMPTY_TUPLE) : kinx_put_text(p, "(t");
    bool is_short = count <= 3 && p->protocol >= 2;
    if (!is_short && put_op(p, KIN_OP_MARK) < 0) return -1;
    if (save_tuple_parts(p, obj) < 0) return -1;
    int pops = is_short ? (int)count : p->protocol >= 1 ? -1 : -(int)count - 1;
    int met = kinx_save_met_again(p, obj, sole, pops);
    if (met) return met < 0 ? -1 : 0;
    if (put_op(p, is_short ? short_ops[count] : KIN_OP_TUPLE) < 0) return -1;
    return kinx_remember(p, obj, sole);
}

/* -- Fast mode: without a memo, so that a cycle would have no end ------------------------------ */

enum { FAST_DEPTH = 50 }; /* from where on cycles are looked for */

static int fast_enter(kinx_pickler *p, PyObject *obj) {
    if (++p->fast_depth < FAST_DEPTH) return 0;
    if (!p->fast_seen) p->fast_seen = PyDict_New();
    PyObject *address = p->fast_seen ? PyLong_FromVoidPtr(obj) : NULL;
    if (!address) return -1;
    int seen = PyDict_Contains(p->fast_seen, address);
    if (seen == 0) seen = PyDict_SetItem(p->fast_seen, address, Py_None);
    Py_DECREF(address);
    if (seen <= 0) return seen;
    PyErr_Format(PyExc_ValueError,
                 "fast mode: can't pickle cyclic objects including object type %.200s at %p",
                 Py_TYPE(obj)->tp_name, obj);
    return -1;
}

static void fast_leave(kinx_pickler *p, PyObject *obj) {
    if (p->fast_depth-- < FAST_DEPTH) return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *address = PyLong_FromVoidPtr(obj);
    if (!address || PyDict_DelItem(p->fast_seen, address) < 0) PyErr_Clear();
    Py_XDECREF(address);
    PyErr_Restore(type, value, traceback);
}

static int save_unguarded(kinx_pickler *p, PyObject *obj, bool sole) {
    if (PyByteArray_CheckExact(obj)) return kinx_save_bytearray(p, obj, sole);
    if (Py_IS_TYPE(obj, &PyPickleBuffer_Type)) return kinx_save_picklebuffer(p, obj, sole);
    /* Here and not in there: where objects are nested deep, each frame less counts. */
    int done = p->reducer_override ? 0 : kinx_save_instance(p, obj, sole);
    return done == 0 ? kinx_save_other(p, obj, sole) : done < 0 ? -1 : 0;
}

static int save_in_fast_mode(kinx_pickler *p, PyObject *obj, bool sole) {
    PyTypeObject *type = Py_TYPE(obj);
    int (*save_kind)(kinx_pickler *, PyObject *, bool) = type == &PyDict_Type   ? save_dict
                                                         : type == &PyList_Type ? save_list
                                                         : type == &PySet_Type  ? save_set
                                                         : type == &PyFrozenSet_Type
                                                             ? save_frozenset
                                                             : NULL;
    if (!save_kind) return save_unguarded(p, obj, sole);
    if (fast_enter(p, obj) < 0) {
        p->fast_depth--;
        return -1;
    }
    int err = save_kind(p, obj, sole);
    fast_leave(p, obj);
    return err;
}

/* -- One object --------------------------------------------------------------------------- */

/* 1 if the user's pickler knows obj by an id of its own; then that is written. */
static int save_persistent(kinx_pickler *p, PyObject *obj) {
    PyObject *id = PyObject_CallOneArg(p->persistent_id, obj);
    if (!id) return -1;
    int done = 1;
    if (id == Py_None) {
        done = 0;
    } else if (p->protocol >= 1) {
        PyObject *persistent_id = p->persistent_id;
        p->persistent_id = NULL; /* an id has none */
        if (save(p, id, false) < 0) done = kinx_trail(p, obj, KINX_STEP_PERSISTENT, NULL);
        p->persistent_id = persistent_id;
        if (done > 0 && put_op(p, KIN_OP_BINPERSID) < 0) done = -1;
    } else {
        PyObject *text = PyObject_Str(id);
        if (!text) done = -1;
        else if (!PyUnicode_IS_ASCII(text)) {
            done = kinx_raise_pickling(p, "persistent IDs in protocol 0 must be ASCII strings");
        } else if (kinx_put_text(p, "P%s\n", (const char *)PyUnicode_DATA(text)) < 0) {
            done = -1;
        }
        Py_XDECREF(text);
    }
    Py_DECREF(id);
    return done;
}

static int save_container(kinx_pickler *p, PyObject *obj, bool sole) {
    PyTypeObject *type = Py_TYPE(obj);
    if (type == &PyTuple_Type) return save_tuple(p, obj, sole);
    if (KINX_UNLIKELY(p->fast)) return save_in_fast_mode(p, obj, sole);
    if (type == &PyDict_Type) return save_dict(p, obj, sole);
    if (type == &PyList_Type) return save_list(p, obj, sole);
    if (type == &PySet_Type) return save_set(p, obj, sole);
    if (type == &PyFrozenSet_Type) return save_frozenset(p, obj, sole);
    return save_unguarded(p, obj, sole);
}

/* What is remembered is fetched, bytes are written; containers and the rest are a level deeper. */
static int save_compound(kinx_pickler *p, PyObject *obj, bool sole) {
    if (!sole) {
        Py_ssize_t index = kinx_memo_find(&p->memo, obj);
        if (index >= 0) return kinx_refer(p, (size_t)index);
    }
    if (PyBytes_CheckExact(obj)) return kinx_save_bytes(p, obj, sole);
    if (Py_EnterRecursiveCall(" while pickling an object")) return -1;
    int err = save_container(p, obj, sole);
    Py_LeaveRecursiveCall();
    return err;
}

static int save(kinx_pickler *p, PyObject *obj, bool sole) {
    int err;
    if (KINX_UNLIKELY(p->persistent_id != NULL)) {
        int done = save_persistent(p, obj);
        if (done) return done < 0 ? -1 : 0;
    }
    if (PyUnicode_CheckExact(obj)) err = save_str(p, obj, sole);
    else if ((err = save_atom(p, obj)) > 0) err = 0;
    else if (err == 0) err = save_compound(p, obj, sole);
    if (err < 0) return kinx_trail_culprit(p, obj);
    kin_err cut = kin_boundary(&p->out);
    return cut < 0 ? kinx_raise_writer(cut) : 0;
}

int kinx_save(kinx_pickler *p, PyObject *obj) {
    return save(p, obj, false);
}

int kinx_save_known(kinx_pickler *p, PyObject *obj, bool sole) {
    return save(p, obj, sole);
}
