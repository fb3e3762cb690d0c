/* An entry's value is a message (message.h) with everything in it, and what it mentions its
 * references.  If the key's bytes do not say all there is to the key, a message with the key stands
 * before it, and its length before that; the entry's tag says so. */
#include "entry.h"

#include "errors.h"

#define WITH_KEY 1u

/* Parts and references of up to two messages. */
typedef struct gathering {
    kin_part *parts, few_parts[16];
    kin_ref *refs, few_refs[4];
    size_t part_count;
    uint32_t ref_count;
} gathering;

static int gather_init(gathering *g, size_t parts, uint32_t refs) {
    *g = (gathering){.parts = g->few_parts, .refs = g->few_refs};
    if (parts > sizeof g->few_parts / sizeof *g->few_parts)
        g->parts = PyMem_Malloc(parts * sizeof *g->parts);
    if (refs > sizeof g->few_refs / sizeof *g->few_refs)
        g->refs = PyMem_Malloc(refs * sizeof *g->refs);
    if (g->parts && g->refs) return 0;
    PyErr_NoMemory();
    return -1;
}

static void gather_fini(gathering *g) {
    if (g->parts != g->few_parts) PyMem_Free(g->parts);
    if (g->refs != g->few_refs) PyMem_Free(g->refs);
}

/* How long it is. */
static uint64_t gather(gathering *g, const kinx_message *message) {
    size_t count = kinx_message_part_count(message);
    uint64_t len = 0;
    kinx_message_parts(message, g->parts + g->part_count);
    for (size_t i = 0; i < count; i++) len += g->parts[g->part_count++].len;
    for (uint32_t i = 0; i < message->mentions.count; i++)
        g->refs[g->ref_count++] = message->mentions.items[i]->handle.ref;
    return len;
}

static int make(kinx_state *st, const kinx_key *key, const kinx_message *key_message,
                const kinx_message *value, kin_entry *out) {
    kin_family *family = kinx_family(st);
    size_t parts = 1 + kinx_message_part_count(value);
    uint32_t refs = value->mentions.count;
    if (key_message) parts += kinx_message_part_count(key_message);
    if (key_message) refs += key_message->mentions.count;
    gathering g;
    if (!family || gather_init(&g, parts, refs) < 0) return -1;
    uint64_t key_len;
    if (key_message) {
        g.parts[g.part_count++] = (kin_part){&key_len, sizeof key_len};
        key_len = gather(&g, key_message);
    }
    gather(&g, value);
    kin_err err =
        kin_entry_create(family, key_message ? WITH_KEY : 0, key ? key->bytes : NULL,
                         key ? key->len : 0, g.parts, g.part_count, g.refs, g.ref_count, out);
    gather_fini(&g);
    if (err < 0) kinx_raise(st, err, "this value");
    return err < 0 ? -1 : 0;
}

int kinx_entry_init(kinx_state *st, kinx_key *key, PyObject *key_obj, PyObject *value,
                    kin_entry *out) {
    kinx_message message, key_message;
    bool with_key = key && !key->is_exact;
    if (kinx_message_init_whole(st, &message, value) < 0) return -1;
    int err = with_key ? kinx_message_init_whole(st, &key_message, key_obj) : 0;
    if (err == 0) {
        err = make(st, key, with_key ? &key_message : NULL, &message, out);
        if (with_key) kinx_message_fini(&key_message);
    }
    kinx_message_fini(&message);
    return err;
}

/* -- Loading ----------------------------------------------------------------------------- */

/* The message of the key and that of the value. */
static bool split(const kin_found *found, kin_part *key, kin_part *value) {
    const uint8_t *data = found->value;
    uint64_t len = found->value_len, key_len = 0;
    *key = (kin_part){NULL, 0};
    *value = (kin_part){data, len};
    if (!(found->tag & WITH_KEY)) return true;
    if (len < sizeof key_len) return false;
    memcpy(&key_len, data, sizeof key_len);
    if (key_len > len - sizeof key_len) return false;
    *key = (kin_part){data + sizeof key_len, key_len};
    *value = (kin_part){data + sizeof key_len + key_len, len - sizeof key_len - key_len};
    return true;
}

static PyObject *load(kinx_state *st, const kin_found *found, bool is_key) {
    kin_part key, value;
    if (!split(found, &key, &value)) {
        PyErr_SetString(PyExc_ValueError, "the entry holds no message of kinfolk");
        return NULL;
    }
    if (!is_key) return kinx_load_record(st, value.data, value.len);
    return key.data ? kinx_load_record(st, key.data, key.len)
                    : kinx_key_load(found->key, found->key_len);
}

PyObject *kinx_found_value(kinx_state *st, kin_found *found) {
    PyObject *value = load(st, found, false);
    kin_found_drop(found);
    return value;
}

PyObject *kinx_found_key(kinx_state *st, kin_found *found) {
    PyObject *key = load(st, found, true);
    kin_found_drop(found);
    return key;
}

PyObject *kinx_found_item(kinx_state *st, kin_found *found) {
    PyObject *key = load(st, found, true), *value = key ? load(st, found, false) : NULL;
    kin_found_drop(found);
    PyObject *item = value ? PyTuple_Pack(2, key, value) : NULL;
    Py_XDECREF(key);
    Py_XDECREF(value);
    return item;
}
