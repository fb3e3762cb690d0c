/* Names and calls.
 *
 * A name (GLOBAL, STACK_GLOBAL) is two strings here; nothing is looked up.  The calls
 * that are known are those by which pickles of older protocols spell plain data,
 * and the one that names an object of the family:
 *
 *     builtins.bytearray(), bytearray(bytes), bytearray(str, "latin-1")
 *     builtins.bytes()
 *     builtins.set(list), frozenset(list)
 *     _codecs.encode(str, "latin1")           bytes, below protocol 3
 *     kinfolk._kin._open(class, ref)
 *
 * with __builtin__ for builtins, as protocols below 3 have it. */
#include "reader.h"
#include "text.h"

/* -- Names -------------------------------------------------------------------------- */

static kin_err push_name(kin__reader *r, const char *module, const char *name) {
    kin_err err = 0;
    kin_value *value = kin__make(r, KIN__NAME, &err);
    if (!value) return err;
    kin_named_ref *ref = kin__pool_alloc(&r->pool, sizeof *ref);
    if (!ref) return kin__fail_memory(r);
    *ref = (kin_named_ref){.module = module, .name = name};
    value->ref = ref;
    value->len = r->off;
    value->inside[0] = KIN__NAMES;
    return kin__push(r, value);
}

kin_err kin__push_name(kin__reader *r, const kin_value *module, const kin_value *name) {
    if (module->type != KIN_STR || name->type != KIN_STR) {
        return kin__fail(r, KIN_EPICKLE, "a name is not two strings");
    }
    if (memchr(module->text, 0, module->len) || memchr(name->text, 0, name->len)) {
        return kin__fail(r, KIN_EPICKLE, "a name has a zero in it");
    }
    return push_name(r, module->text, name->text);
}

kin_err kin__push_name_lines(kin__reader *r) {
    const uint8_t *lines = r->in + r->step.arg;
    size_t len = r->step.arg_len;
    if (!kin__utf8_is_valid(lines, len)) return kin__fail(r, KIN_EPICKLE, "a name is not UTF-8");
    if (memchr(lines, 0, len)) return kin__fail(r, KIN_EPICKLE, "a name has a zero in it");
    kin_err err = 0;
    uint8_t *copy = kin__make_bytes(r, len, &err);
    if (!copy) return err;
    memcpy(copy, lines, len);
    uint8_t *newline = memchr(copy, '\n', len);
    *newline = 0;
    return push_name(r, (char *)copy, (char *)newline + 1);
}

kin_err kin__fail_name(kin__reader *r, const kin_value *value) {
    while (value->type == KIN_TUPLE) {
        size_t i = 0;
        while (i + 1 < value->len && !(value->items[i]->inside[0] & KIN__NAMES)) i++;
        value = value->items[i];
    }
    r->error_off = value->len;
    return kin__fail(r, KIN_EPICKLECODE, "a class or a function is no plain data");
}

/* -- Calls -------------------------------------------------------------------------- */

static const kin_value *arg_of_type(const kin_value *args, size_t i, kin_type type) {
    return i < args->len && args->items[i]->type == type ? args->items[i] : NULL;
}

static kin_err fail_args(kin__reader *r) {
    return kin__fail(r, KIN_EPICKLECODE, "a call that is known, with other arguments");
}

/* Does the str name the encoding, in one of the ways in which pickles have it? */
static bool is_latin1(const kin_value *encoding) {
    return encoding &&
           (strcmp(encoding->text, "latin1") == 0 || strcmp(encoding->text, "latin-1") == 0);
}

/* Text of code points below 256 as so many bytes. */
static kin_err push_latin1(kin__reader *r, kin_type type, const kin_value *text) {
    kin_err err = 0;
    kin_value *value = kin__make(r, (uint8_t)type, &err);
    uint8_t *bytes = value ? kin__make_bytes(r, text->len, &err) : NULL;
    if (!bytes) return err;
    const uint8_t *at = text->bytes, *end = at + text->len;
    size_t len = 0;
    while (at < end) {
        uint32_t code = kin__utf8_next(&at);
        if (code > 0xff) return kin__fail(r, KIN_EPICKLE, "text for bytes is not Latin-1");
        bytes[len++] = (uint8_t)code;
    }
    bytes[len] = 0;
    value->bytes = bytes;
    value->len = len;
    return kin__push(r, value);
}

static kin_err call_encode(kin__reader *r, const kin_value *args) {
    const kin_value *text = arg_of_type(args, 0, KIN_STR);
    if (args->len != 2 || !text || !is_latin1(arg_of_type(args, 1, KIN_STR))) return fail_args(r);
    return push_latin1(r, KIN_BYTES, text);
}

static kin_err call_bytes(kin__reader *r, const kin_value *args) {
    if (args->len != 0) return fail_args(r);
    return kin__push_bytes(r, KIN_BYTES, NULL, 0);
}

static kin_err call_bytearray(kin__reader *r, const kin_value *args) {
    if (args->len == 0) return kin__push_bytes(r, KIN_BYTEARRAY, NULL, 0);
    const kin_value *bytes = arg_of_type(args, 0, KIN_BYTES);
    if (args->len == 1 && bytes) {
        return kin__push_bytes(r, KIN_BYTEARRAY, bytes->bytes, bytes->len);
    }
    const kin_value *text = arg_of_type(args, 0, KIN_STR);
    if (args->len != 2 || !text || !is_latin1(arg_of_type(args, 1, KIN_STR))) return fail_args(r);
    return push_latin1(r, KIN_BYTEARRAY, text);
}

static kin_err push_set(kin__reader *r, kin_type type, const kin_value *args) {
    if (args->len == 0) return kin__push_items(r, type, NULL, 0);
    const kin_value *list = arg_of_type(args, 0, KIN_LIST);
    if (args->len != 1 || !list) return fail_args(r);
    /* The list may be in the memo, and then they are in both. */
    for (size_t i = 0; i < list->len; i++) kin__share(list->items[i]);
    return kin__push_items(r, type, list->items, list->len);
}

static kin_err call_set(kin__reader *r, const kin_value *args) {
    return push_set(r, KIN_SET, args);
}

static kin_err call_frozenset(kin__reader *r, const kin_value *args) {
    return push_set(r, KIN_FROZENSET, args);
}

/* A ref is the family's id, then kind, offset and serial: docs/messages.md. */
#define REF_LEN (KIN_FAMILY_ID_LEN + 20)

static kin_err call_open(kin__reader *r, const kin_value *args) {
    const kin_value *bytes = arg_of_type(args, 1, KIN_BYTES);
    if (args->len != 2 || args->items[0]->type != KIN__NAME || !bytes) return fail_args(r);
    if (bytes->len != REF_LEN) return kin__fail(r, KIN_EPICKLE, "a ref is not 36 bytes");
    kin_err err = 0;
    kin_value *value = kin__make(r, KIN_REF, &err);
    if (!value) return err;
    kin_named_ref *named = kin__pool_alloc(&r->pool, sizeof *named);
    if (!named) return kin__fail_memory(r);
    const uint8_t *at = bytes->bytes + KIN_FAMILY_ID_LEN;
    *named = (kin_named_ref){
        .ref = {.kind = kin_load4(at), .off = kin_load8(at + 4), .serial = kin_load8(at + 12)},
        .module = args->items[0]->ref->module,
        .name = args->items[0]->ref->name,
    };
    memcpy(named->family, bytes->bytes, KIN_FAMILY_ID_LEN);
    value->ref = named;
    return kin__push(r, value);
}

static const struct {
    const char *module, *name;
    kin_err (*call)(kin__reader *r, const kin_value *args);
} known_calls[] = {
    {"kinfolk._kin", "_open", call_open}, {"_codecs", "encode", call_encode},
    {"builtins", "bytes", call_bytes},    {"builtins", "bytearray", call_bytearray},
    {"builtins", "set", call_set},        {"builtins", "frozenset", call_frozenset},
    {"__builtin__", "bytes", call_bytes}, {"__builtin__", "bytearray", call_bytearray},
    {"__builtin__", "set", call_set},     {"__builtin__", "frozenset", call_frozenset},
};

kin_err kin__call(kin__reader *r, const kin_value *callee, const kin_value *args) {
    if (callee->type != KIN__NAME) {
        return kin__fail(r, KIN_EPICKLE, "what is called is no class or function");
    }
    if (args->type != KIN_TUPLE) {
        return kin__fail(r, KIN_EPICKLE, "the arguments of a call are no tuple");
    }
    for (size_t i = 0; i < sizeof known_calls / sizeof *known_calls; i++) {
        if (strcmp(callee->ref->module, known_calls[i].module) == 0 &&
            strcmp(callee->ref->name, known_calls[i].name) == 0) {
            return known_calls[i].call(r, args);
        }
    }
    r->error_off = callee->len;
    return kin__fail(r, KIN_EPICKLECODE, "to load it a class or a function would be called");
}

kin_err kin__build(kin__reader *r, kin_value *object, const kin_value *state) {
    if (object->type != KIN_REF) {
        return kin__fail(r, KIN_EPICKLECODE, "only a ref may be given a state");
    }
    if (object->ref->state) return kin__fail(r, KIN_EPICKLE, "a ref is given a state twice");
    if (state->inside[0] & KIN__NAMES) return kin__fail_name(r, state);
    if (state->depth >= r->options.depth) {
        return kin__fail(r, KIN_EPICKLELIMIT, "containers lie in one another deeper than allowed");
    }
    if (object->inside[0] & KIN__SHARED) r->tangled = true;
    object->depth = state->depth + 1;
    ((kin_named_ref *)(uintptr_t)object->ref)->state = state;
    return 0;
}
