/* The reader's values.
 *
 * A container's items lie in an array of their own, with the number of items that
 * it has room for in front: it grows by half, and in place if it is a large one. */
#include "reader.h"
#include "text.h"

const kin_value kin__none = {.type = KIN_NONE};
const kin_value kin__true = {.type = KIN_BOOL, .truth = true};
const kin_value kin__false = {.type = KIN_BOOL};
const kin_value kin__empty_tuple = {.type = KIN_TUPLE, .depth = 1};

kin_value *kin__make(kin__reader *r, uint8_t type, kin_err *err) {
    if (r->made == r->options.items) {
        *err = kin__fail(r, KIN_EPICKLELIMIT, "more values than allowed");
        return NULL;
    }
    kin_value *value = kin__pool_alloc(&r->pool, sizeof *value);
    if (!value) {
        *err = kin__fail_memory(r);
        return NULL;
    }
    r->made++;
    *value = (kin_value){.type = type};
    return value;
}

uint8_t *kin__make_bytes(kin__reader *r, size_t len, kin_err *err) {
    uint8_t *bytes = len < SIZE_MAX ? kin__pool_alloc(&r->pool, len + 1) : NULL;
    if (!bytes) {
        *err = kin__fail_memory(r);
        return NULL;
    }
    bytes[len] = 0;
    return bytes;
}

kin_err kin__push(kin__reader *r, const kin_value *value) {
    if (r->count == r->room) {
        void *stack = r->stack;
        kin_err err =
            kin__pool_grow_stack(&r->pool, &stack, &r->room, r->count + 1, sizeof *r->stack);
        r->stack = stack;
        if (err < 0) return kin__fail_memory(r);
    }
    r->stack[r->count++] = (kin_value *)value;
    return 0;
}

/* -- Leaves ------------------------------------------------------------------------- */

kin_err kin__push_int(kin__reader *r, int64_t n) {
    kin_err err = 0;
    kin_value *value = kin__make(r, KIN_INT, &err);
    if (!value) return err;
    value->integer = n;
    return kin__push(r, value);
}

kin_err kin__push_float(kin__reader *r, double x) {
    kin_err err = 0;
    kin_value *value = kin__make(r, KIN_FLOAT, &err);
    if (!value) return err;
    value->real = x;
    return kin__push(r, value);
}

kin_err kin__push_bytes(kin__reader *r, kin_type type, const uint8_t *bytes, size_t len) {
    kin_err err = 0;
    kin_value *value = kin__make(r, (uint8_t)type, &err);
    uint8_t *copy = value ? kin__make_bytes(r, len, &err) : NULL;
    if (!copy) return err;
    if (len) memcpy(copy, bytes, len);
    value->len = len;
    value->bytes = copy;
    return kin__push(r, value);
}

kin_err kin__push_bigint(kin__reader *r, const uint8_t *bytes, size_t len) {
    len = kin__int_trim(bytes, len);
    if (len <= 8) return kin__push_int(r, kin__int_load(bytes, len));
    return kin__push_bytes(r, KIN_BIGINT, bytes, len);
}

kin_err kin__push_str(kin__reader *r, const uint8_t *text, size_t len) {
    if (!kin__utf8_is_valid(text, len)) return kin__fail(r, KIN_EPICKLE, "a str is not UTF-8");
    return kin__push_bytes(r, KIN_STR, text, len);
}

kin_err kin__push_old_str(kin__reader *r, const uint8_t *text, size_t len) {
    if (!kin__is_ascii(text, len)) {
        return kin__fail(r, KIN_EPICKLE, "a string of Python 2 is not ASCII");
    }
    return kin__push_bytes(r, KIN_STR, text, len);
}

kin_err kin__push_buffer(kin__reader *r) {
    if (r->buffers_used == r->options.buffer_count) {
        return kin__fail(r, KIN_EPICKLE, "more out-of-band buffers than were given");
    }
    kin_err err = 0;
    kin_value *value = kin__make(r, KIN_BUFFER, &err);
    if (!value) return err;
    const kin_buffer *buffer = &r->options.buffers[r->buffers_used++];
    value->bytes = buffer->data;
    value->len = buffer->len;
    value->readonly = buffer->readonly;
    return kin__push(r, value);
}

/* -- Leaves as lines of text ------------------------------------------------------------ */

static kin_err push_decimal(kin__reader *r, const uint8_t *text, size_t len) {
    uint8_t bytes[KIN__DECIMAL_ROOM(KIN__DECIMAL_MAX + 1)];
    size_t out_len;
    if (len > KIN__DECIMAL_MAX + 1) {
        return kin__fail(r, KIN_EPICKLELIMIT, "a decimal number of more than 4300 digits");
    }
    if (!kin__decimal(text, len, bytes, &out_len)) {
        return kin__fail(r, KIN_EPICKLE, "a line is no decimal number");
    }
    return kin__push_bigint(r, bytes, out_len);
}

kin_err kin__push_int_line(kin__reader *r) {
    const uint8_t *text = r->in + r->step.arg;
    size_t len = r->step.arg_len;
    if (len == 2 && text[0] == '0' && (text[1] == '0' || text[1] == '1')) {
        return kin__push(r, text[1] == '1' ? &kin__true : &kin__false);
    }
    return push_decimal(r, text, len);
}

kin_err kin__push_long_line(kin__reader *r) {
    const uint8_t *text = r->in + r->step.arg;
    size_t len = r->step.arg_len;
    if (len > 0 && text[len - 1] == 'L') len--;
    return push_decimal(r, text, len);
}

kin_err kin__push_float_line(kin__reader *r) {
    double x;
    if (!kin__float(r->in + r->step.arg, r->step.arg_len, &x)) {
        return kin__fail(r, KIN_EPICKLE, "a line is no float");
    }
    return kin__push_float(r, x);
}

/* A value of text whose length is known when it has been decoded. */
static kin_err push_decoded(kin__reader *r, size_t room, const char *reason,
                            bool (*decode)(const uint8_t *, size_t, uint8_t *, size_t *)) {
    kin_err err = 0;
    kin_value *value = kin__make(r, KIN_STR, &err);
    uint8_t *text = value ? kin__make_bytes(r, room, &err) : NULL;
    if (!text) return err;
    if (!decode(r->in + r->step.arg, r->step.arg_len, text, &value->len)) {
        return kin__fail(r, KIN_EPICKLE, reason);
    }
    text[value->len] = 0;
    value->bytes = text;
    return kin__push(r, value);
}

kin_err kin__push_unicode_line(kin__reader *r) {
    /* Only bytes from 128 on become longer. */
    const uint8_t *text = r->in + r->step.arg;
    size_t room = r->step.arg_len;
    for (size_t i = 0; i < r->step.arg_len; i++) room += text[i] >> 7;
    return push_decoded(r, room, "an escape in a str is broken", kin__raw_unicode);
}

kin_err kin__push_quoted_line(kin__reader *r) {
    kin_err err = push_decoded(r, r->step.arg_len, "a string of Python 2 is broken", kin__quoted);
    if (err < 0) return err;
    const kin_value *value = r->stack[r->count - 1];
    if (kin__is_ascii(value->bytes, value->len)) return 0;
    return kin__fail(r, KIN_EPICKLE, "a string of Python 2 is not ASCII");
}

/* -- Containers ------------------------------------------------------------------------- */

static size_t slots_of(const kin_value *container) {
    return container->type == KIN_DICT ? 2 * container->len : container->len;
}

static size_t *room_word(const kin_value *container) {
    return container->items ? (size_t *)(uintptr_t)container->items - 1 : NULL;
}

/* Room for `slots` items in all. */
static kin_err make_room(kin__reader *r, kin_value *container, size_t slots) {
    size_t *old = room_word(container), room = old ? *old : 0;
    if (slots <= room) return 0;
    size_t want = room + room / 2;
    if (want < slots) want = slots;
    size_t old_size = old ? sizeof *old + room * sizeof(void *) : 0;
    size_t *array = kin__pool_resize(&r->pool, old, old_size, sizeof *old + want * sizeof(void *));
    if (!array) return kin__fail_memory(r);
    *array = want;
    container->items = (const kin_value *const *)(array + 1);
    return 0;
}

static bool is_unhashable(const kin_value *value) {
    switch (value->type) {
    case KIN_LIST:
    case KIN_SET:
    case KIN_DICT:
    case KIN_BYTEARRAY: return true;
    case KIN_BUFFER: return !value->readonly;
    case KIN_TUPLE: return value->inside[0] & KIN__UNHASHABLE;
    default: return false;
    }
}

/* May this value be the item, or every other one a key, of such a container? */
static kin_err check_item(kin__reader *r, const kin_value *to, const kin_value *item,
                          bool is_hashed) {
    if (item->inside[0] & KIN__NAMES && to->type != KIN_TUPLE) return kin__fail_name(r, item);
    if (is_hashed && is_unhashable(item)) {
        return kin__fail(r, KIN_EPICKLE, "a key or an item of a set is not hashable");
    }
    if (item->depth >= r->options.depth) {
        return kin__fail(r, KIN_EPICKLELIMIT, "containers lie in one another deeper than allowed");
    }
    return 0;
}

/* What a tuple is because of its item. */
static void inherit(kin_value *tuple, const kin_value *item) {
    if (is_unhashable(item)) tuple->inside[0] |= KIN__UNHASHABLE;
    tuple->inside[0] |= item->inside[0] & KIN__NAMES;
}

kin_err kin__add_items(kin__reader *r, kin_value *to, const kin_value *const *items, size_t count) {
    bool is_dict = to->type == KIN_DICT, is_set = to->type == KIN_SET || to->type == KIN_FROZENSET;
    size_t slots = slots_of(to), more = is_dict ? 2 * count : count;
    if (count == 0) return 0;
    if (to->inside[0] & KIN__SHARED) r->tangled = true;
    kin_err err = make_room(r, to, slots + more);
    if (err < 0) return err;
    const kin_value **out = (const kin_value **)(uintptr_t)to->items + slots;
    for (size_t i = 0; i < more; i++) {
        const kin_value *item = items[i];
        err = check_item(r, to, item, is_set || (is_dict && i % 2 == 0));
        if (err < 0) return err;
        if (to->type == KIN_TUPLE) inherit(to, item);
        if (to->depth <= item->depth) to->depth = item->depth + 1;
        out[i] = item;
    }
    to->len += count;
    return 0;
}

kin_err kin__push_items(kin__reader *r, kin_type type, const kin_value *const *items,
                        size_t count) {
    if (type == KIN_TUPLE && count == 0) return kin__push(r, &kin__empty_tuple);
    kin_err err = 0;
    kin_value *value = kin__make(r, (uint8_t)type, &err);
    if (!value) return err;
    value->depth = 1;
    err = kin__add_items(r, value, items, count);
    return err < 0 ? err : kin__push(r, value);
}
