/* Looking at values. */
#include <kin/value.h>

#include <string.h>

static bool is_key(const kin_value *value, const char *key, size_t len) {
    return value->type == KIN_STR && value->len == len && memcmp(value->text, key, len) == 0;
}

const kin_value *kin_value_get(const kin_value *dict, const char *key) {
    if (!dict || dict->type != KIN_DICT) return NULL;
    size_t len = strlen(key);
    for (size_t i = dict->len; i-- > 0;) {
        if (is_key(dict->items[2 * i], key, len)) return dict->items[2 * i + 1];
    }
    return NULL;
}

const char *kin_value_type_name(const kin_value *value) {
    static const char *const names[] = {
        [KIN_NONE] = "None",   [KIN_BOOL] = "bool",           [KIN_INT] = "int",
        [KIN_BIGINT] = "int",  [KIN_FLOAT] = "float",         [KIN_STR] = "str",
        [KIN_BYTES] = "bytes", [KIN_BYTEARRAY] = "bytearray", [KIN_BUFFER] = "buffer",
        [KIN_LIST] = "list",   [KIN_TUPLE] = "tuple",         [KIN_SET] = "set",
        [KIN_DICT] = "dict",   [KIN_FROZENSET] = "frozenset", [KIN_REF] = "ref",
    };
    return names[value->type];
}

kin_err kin_value_ref(const kin_value *value, const kin_family *family, kin_ref *out) {
    if (value->type != KIN_REF) return -EINVAL;
    if (memcmp(value->ref->family, kin_family_id(family), KIN_FAMILY_ID_LEN) != 0) {
        return KIN_EFOREIGN;
    }
    *out = value->ref->ref;
    return 0;
}
