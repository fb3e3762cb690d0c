/* libkin's reader and writer of pickles, for test_libkin_pickle.py to talk to.
 *
 * Requests on standard input: a letter, a length (4 bytes, little-endian), so many bytes.
 *
 *     t PICKLE       the value as text, see below
 *     2…5 PICKLE     the value written again, at this protocol
 *     w PROTOCOL     what each call of the writer writes, in one tuple: everything()
 *
 * Each is answered by "+" and a result, or "-" and "CODE OFFSET REASON", with a length too.
 *
 * The text has a letter for the type and what is exact: N, T, F, i-5 (decimal), I (two's
 * complement), f (the eight bytes, or nan), s (UTF-8), b, a in hexadecimal digits; [, (, {, <, | for list,
 * tuple, dict, set, frozenset, each item followed by a comma, then ], ), }, > or !. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <kin.h>

typedef struct text {
    char *data;
    size_t len, room;
} text;

static void *must(void *memory) {
    if (!memory) abort();
    return memory;
}

static void add(text *out, const void *data, size_t len) {
    if (out->room - out->len < len) {
        out->room = 2 * (out->room + len);
        out->data = must(realloc(out->data, out->room));
    }
    memcpy(out->data + out->len, data, len);
    out->len += len;
}

static void add_hex(text *out, char kind, const void *bytes, size_t len) {
    add(out, &kind, 1);
    for (size_t i = 0; i < len; i++) {
        char digits[3];
        snprintf(digits, sizeof digits, "%02x", ((const uint8_t *)bytes)[i]);
        add(out, digits, 2);
    }
}

static void add_value(text *out, const kin_value *value);

/* Recursion is fine: the reader keeps to 1000 levels, and allows no cycles. */
static void add_items(text *out, const kin_value *value, const char *brackets) {
    size_t slots = value->type == KIN_DICT ? 2 * value->len : value->len;
    add(out, brackets, 1);
    for (size_t i = 0; i < slots; i++) {
        add_value(out, value->items[i]);
        add(out, ",", 1);
    }
    add(out, brackets + 1, 1);
}

static void add_value(text *out, const kin_value *value) {
    char number[32];
    switch ((kin_type)value->type) {
    case KIN_NONE: add(out, "N", 1); break;
    case KIN_BOOL: add(out, value->truth ? "T" : "F", 1); break;
    case KIN_INT:
        snprintf(number, sizeof number, "i%" PRId64, value->integer);
        add(out, number, strlen(number));
        break;
    case KIN_BIGINT: add_hex(out, 'I', value->bytes, value->len); break;
    case KIN_FLOAT:
        /* Protocol 0 has no sign for it. */
        if (value->real != value->real) add(out, "fnan", 4);
        else add_hex(out, 'f', &value->real, 8);
        break;
    case KIN_STR: add_hex(out, 's', value->text, value->len); break;
    case KIN_BYTES: add_hex(out, 'b', value->bytes, value->len); break;
    case KIN_BYTEARRAY: add_hex(out, 'a', value->bytes, value->len); break;
    case KIN_BUFFER: add_hex(out, 'B', value->bytes, value->len); break;
    case KIN_REF: add_hex(out, 'R', &value->ref->ref.serial, 8); break;
    case KIN_LIST: add_items(out, value, "[]"); break;
    case KIN_TUPLE: add_items(out, value, "()"); break;
    case KIN_DICT: add_items(out, value, "{}"); break;
    case KIN_SET: add_items(out, value, "<>"); break;
    case KIN_FROZENSET: add_items(out, value, "|!"); break;
    }
}

static void answer(char status, const void *data, size_t len) {
    uint8_t head[5] = {(uint8_t)status};
    kin_store4(head + 1, (uint32_t)len);
    fwrite(head, 1, sizeof head, stdout);
    fwrite(data, 1, len, stdout);
    fflush(stdout);
}

static void answer_error(kin_err err, const kin_read_error *error) {
    char line[300];
    snprintf(line, sizeof line, "%s %zu %s", kin_errname(err) ? kin_errname(err) : "-",
             error ? error->off : 0, error ? error->reason : kin_strerror(err));
    answer('-', line, strlen(line));
}

static void answer_pickle(kin_pickler *p) {
    kin_pickled pickled;
    kin_err err = kin_pickler_end(p, &pickled);
    if (err < 0) answer_error(err, NULL);
    else answer('+', pickled.data, pickled.len);
    kin_pickler_fini(p);
}

static void show(const kin_value *value) {
    text out = {0};
    add_value(&out, value);
    answer('+', out.data, out.len);
    free(out.data);
}

static void rewrite(const kin_value *value, uint8_t protocol) {
    kin_pickler p;
    kin_pickler_init(&p, protocol);
    kin_put_value(&p, value);
    answer_pickle(&p);
}

static void with_value(char command, const uint8_t *data, size_t len) {
    kin_read_options options = {.cycles = command != 't'};
    kin_values values;
    kin_read_error error;
    kin_err err = kin_pickle_read(data, len, &options, &values, &error);
    if (err < 0) {
        answer_error(err, &error);
        return;
    }
    if (command == 't') show(values.root);
    else rewrite(values.root, (uint8_t)(command - '0'));
    kin_values_fini(&values);
}

static void put_strings(kin_pickler *p, size_t len) {
    char *bytes = must(malloc(len + 1));
    for (size_t i = 0; i < len; i++) bytes[i] = (char)('a' + i % 26);
    kin_put_str(p, bytes, len);
    memset(bytes, 0xe9, len);
    kin_put_bytes(p, bytes, len);
    kin_put_bytearray(p, bytes, len);
    free(bytes);
}

static void put_containers(kin_pickler *p, int count) {
    kin_err (*const begin[])(kin_pickler *) = {kin_put_list_begin, kin_put_tuple_begin,
                                               kin_put_set_begin, kin_put_frozenset_begin};
    for (int kind = 0; kind < 4; kind++) {
        begin[kind](p);
        for (int i = 0; i < count; i++) kin_put_int(p, i);
        kin_put_end(p);
    }
    kin_put_dict_begin(p);
    for (int i = 0; i < count; i++) {
        kin_put_int(p, i);
        kin_put_float(p, i / 2.0);
    }
    kin_put_end(p);
}

/* test_libkin_pickle.py has the same in Python. */
static void everything(uint8_t protocol) {
    static const int64_t ints[] = {0, -1, 255, 256, 65535, 65536, INT32_MIN, INT64_MIN, INT64_MAX};
    uint8_t big[256] = {0};
    uint32_t number;
    kin_pickler p;
    kin_pickler_init(&p, protocol);
    kin_put_tuple_begin(&p);
    kin_put_none(&p);
    kin_put_bool(&p, true);
    kin_put_bool(&p, false);
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) kin_put_int(&p, ints[i]);
    for (size_t i = 8; i < sizeof big; i *= 2) {
        big[i] = 1;
        kin_put_bigint(&p, big, i + 1);
    }
    kin_put_float(&p, 1e100);
    for (size_t len = 0; len < 200000; len = 4 * len + 1) put_strings(&p, len);
    for (int count = 0; count < 3000; count = 4 * count + 1) put_containers(&p, count);
    kin_put_list_begin(&p);
    kin_pickler_memoize(&p, &number);
    kin_put_memo(&p, number);
    kin_put_end(&p);
    kin_put_memo(&p, number);
    kin_put_end(&p);
    answer_pickle(&p);
}

int main(void) {
    uint8_t head[5];
    while (fread(head, 1, sizeof head, stdin) == sizeof head) {
        size_t len = kin_load4(head + 1);
        uint8_t *data = must(malloc(len + 1));
        if (fread(data, 1, len, stdin) != len) return 1;
        if (head[0] == 'w') everything(data[0]);
        else with_value((char)head[0], data, len);
        free(data);
    }
    return 0;
}
