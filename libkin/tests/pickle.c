/* Pickles: the table of opcodes, the writer for C programs, the reader, and hostile bytes. */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "kin.h"

/* -- Help ----------------------------------------------------------------------------- */

#define CHECK_TEXT(a, b)                                             \
    do {                                                             \
        const char *check_a = (a), *check_b = (b);                   \
        if (strcmp(check_a, check_b) != 0) {                         \
            fprintf(stderr, "'%s' is not '%s'\n", check_a, check_b); \
            check_failed(__FILE__, __LINE__, #a " == " #b);          \
        }                                                            \
    } while (0)

/* A literal with zeros in it, and its length. */
#define BYTES(literal) literal, sizeof(literal) - 1

static kin_values read_all(const void *data, size_t len, const kin_read_options *options) {
    kin_values values;
    kin_read_error error;
    /* From malloc, so that a sanitizer sees what is read behind the end. */
    void *copy = malloc(len + !len);
    CHECK(copy);
    memcpy(copy, data, len);
    kin_err err = kin_pickle_read(copy, len, options, &values, &error);
    free(copy);
    if (err < 0) {
        fprintf(stderr, "%s at byte %zu: %s\n", kin_strerror(err), error.off, error.reason);
    }
    CHECK_EQ(err, 0);
    CHECK(values.memory <= 64 * len + 65536);
    return values;
}

/* The error that these bytes are, with its offset and the beginning of its reason. */
static void check_error(const void *data, size_t len, const kin_read_options *options,
                        kin_err expected, size_t off, const char *reason) {
    kin_values values = {.len = 77};
    kin_read_error error;
    void *copy = malloc(len + !len);
    CHECK(copy);
    memcpy(copy, data, len);
    kin_err err = kin_pickle_read(copy, len, options, &values, &error);
    free(copy);
    CHECK_EQ(values.len, 77); /* untouched */
    if (err != expected || error.off != off || strcmp(error.reason, reason) != 0) {
        fprintf(stderr, "%s at byte %zu: %s\nshould be\n%s at byte %zu: %s\n", kin_strerror(err),
                error.off, error.reason, kin_strerror(expected), off, reason);
        CHECK(!"the error is another one");
    }
    CHECK(kin_errname(err) && strncmp(kin_errname(err), "KIN_EPICKLE", 11) == 0);
}

#define FAILS(literal, err, off, reason) check_error(BYTES(literal), NULL, err, off, reason)

static kin_pickled finish(kin_pickler *p) {
    kin_pickled pickled = {0};
    CHECK_EQ(kin_pickler_end(p, &pickled), 0);
    CHECK(pickled.data[pickled.len - 1] == '.');
    return pickled;
}

static kin_values finish_and_read(kin_pickler *p) {
    kin_pickled pickled = finish(p);
    kin_read_options options = {.buffers = pickled.buffers, .buffer_count = pickled.buffer_count};
    return read_all(pickled.data, pickled.len, &options);
}

/* -- Opcodes -------------------------------------------------------------------------- */

static void knows_its_opcodes(void) {
    int count = 0;
    for (int i = 0; i < 256; i++) {
        if (!kin_opcodes[i].name) continue;
        count++;
        CHECK(kin_opcodes[i].protocol <= KIN_PICKLE_PROTOCOL);
    }
    CHECK_EQ(count, 68);
    CHECK_TEXT(kin_opcodes['.'].name, "STOP");
    CHECK_EQ(kin_opcodes[0x96].protocol, 5);
    CHECK_EQ(kin_opcodes['c'].arg, KIN_ARG_LINES2);
}

static void check_step(const char *data, size_t len, size_t arg, size_t arg_len, size_t next) {
    kin_step step;
    CHECK_EQ(kin_pickle_step((const uint8_t *)data, len, 1, &step), 0);
    CHECK_EQ(step.opcode, (uint8_t)data[1]);
    CHECK_EQ((long long)step.arg, (long long)arg);
    CHECK_EQ((long long)step.arg_len, (long long)arg_len);
    CHECK_EQ((long long)step.next, (long long)next);
    /* Every shorter one is too short. */
    for (size_t shorter = 1; shorter < next; shorter++) {
        CHECK_EQ(kin_pickle_step((const uint8_t *)data, shorter, 1, &step), KIN_EPICKLESHORT);
    }
}

static void steps_over_each_kind_of_argument(void) {
    check_step(BYTES("NN."), 2, 0, 2);
    check_step(BYTES("NK\x01."), 2, 1, 3);
    check_step(BYTES("NM\x01\x02."), 2, 2, 4);
    check_step(BYTES("NJ\x01\x02\x03\x04."), 2, 4, 6);
    check_step(BYTES("NG12345678."), 2, 8, 10);
    check_step(BYTES("N\x95\x01\0\0\0\0\0\0\0."), 2, 8, 10);
    check_step(BYTES("NC\x03"
                     "abc."),
               3, 3, 6);
    check_step(BYTES("NX\x03\0\0\0abc."), 6, 3, 9);
    check_step(BYTES("NT\x03\0\0\0abc."), 6, 3, 9);
    check_step(BYTES("N\x8d\x03\0\0\0\0\0\0\0abc."), 10, 3, 13);
    check_step(BYTES("NI12\n."), 2, 2, 5);
    check_step(BYTES("NI\n."), 2, 0, 3);
    check_step(BYTES("Nca\nbc\n."), 2, 4, 7);
    kin_step step;
    CHECK_EQ(kin_pickle_step((const uint8_t *)"\xff", 1, 0, &step), KIN_EPICKLE);
    CHECK_EQ(kin_pickle_step((const uint8_t *)"T\xff\xff\xff\xff", 5, 0, &step), KIN_EPICKLE);
    CHECK_EQ(kin_pickle_step((const uint8_t *)"\x8e\xff\xff\xff\xff\xff\xff\xff\xff", 9, 0, &step),
             KIN_EPICKLESHORT);
    CHECK_EQ(kin_pickle_step((const uint8_t *)".", 1, 1, &step), KIN_EPICKLESHORT);
}

/* -- Round trips ---------------------------------------------------------------------- */

static const int64_t integers[] = {
    0,
    1,
    -1,
    127,
    128,
    255,
    256,
    65535,
    65536,
    -128,
    -129,
    INT32_MAX,
    INT32_MIN,
    INT32_MAX + 1ll,
    INT32_MIN - 1ll,
    INT64_MAX,
    INT64_MIN,
    1ll << 39,
    -(1ll << 39),
    (1ll << 47) - 1,
    -(1ll << 55),
};
enum { INTEGERS = sizeof integers / sizeof *integers };

static const double floats[] = {0.0, -0.0, 1.5, -1e308, 5e-324, INFINITY, -INFINITY};
enum { FLOATS = sizeof floats / sizeof *floats };

static void put_numbers(kin_pickler *p) {
    kin_put_list_begin(p);
    for (int i = 0; i < INTEGERS; i++) kin_put_int(p, integers[i]);
    for (int i = 0; i < FLOATS; i++) kin_put_float(p, floats[i]);
    kin_put_none(p);
    kin_put_bool(p, true);
    kin_put_bool(p, false);
    kin_put_end(p);
}

static void check_numbers(const kin_value *list) {
    CHECK_EQ(list->type, KIN_LIST);
    CHECK_EQ((long long)list->len, INTEGERS + FLOATS + 3);
    for (int i = 0; i < INTEGERS; i++) {
        CHECK_EQ(list->items[i]->type, KIN_INT);
        CHECK_EQ(list->items[i]->integer, integers[i]);
    }
    for (int i = 0; i < FLOATS; i++) {
        CHECK_EQ(list->items[INTEGERS + i]->type, KIN_FLOAT);
        CHECK(memcmp(&list->items[INTEGERS + i]->real, &floats[i], 8) == 0);
    }
    CHECK_EQ(list->items[list->len - 3]->type, KIN_NONE);
    CHECK(list->items[list->len - 2]->truth);
    CHECK(!list->items[list->len - 1]->truth);
}

/* So long that each has another head: 255, 256, and outside of frames. */
static const size_t lengths[] = {0, 1, 255, 256, 65535, 65536, 200000};
enum { LENGTHS = sizeof lengths / sizeof *lengths };

static uint8_t *pattern(size_t len, bool is_text) {
    uint8_t *bytes = malloc(len + 1);
    CHECK(bytes);
    for (size_t i = 0; i < len; i++) bytes[i] = (uint8_t)(is_text ? i % 128 : i * 7);
    return bytes;
}

static void put_strings(kin_pickler *p) {
    kin_put_tuple_begin(p);
    for (int i = 0; i < LENGTHS; i++) {
        uint8_t *text = pattern(lengths[i], true), *bytes = pattern(lengths[i], false);
        kin_put_str(p, (char *)text, lengths[i]);
        kin_put_bytes(p, bytes, lengths[i]);
        kin_put_bytearray(p, bytes, lengths[i]);
        free(text);
        free(bytes);
    }
    kin_put_end(p);
}

static void check_string(const kin_value *value, kin_type type, size_t len) {
    uint8_t *expected = pattern(len, type == KIN_STR);
    CHECK_EQ(value->type, type);
    CHECK_EQ((long long)value->len, (long long)len);
    CHECK(memcmp(value->bytes, expected, len) == 0);
    CHECK_EQ(value->bytes[len], 0);
    free(expected);
}

static void check_strings(const kin_value *tuple) {
    CHECK_EQ(tuple->type, KIN_TUPLE);
    for (int i = 0; i < LENGTHS; i++) {
        check_string(tuple->items[3 * i], KIN_STR, lengths[i]);
        check_string(tuple->items[3 * i + 1], KIN_BYTES, lengths[i]);
        check_string(tuple->items[3 * i + 2], KIN_BYTEARRAY, lengths[i]);
    }
}

/* {"empty": [(), [], {}, set(), frozenset()], "full": (1, 2, 3, {4: 5}, {6}, frozenset({7}))} */
static void put_containers(kin_pickler *p) {
    kin_put_dict_begin(p);
    kin_put_str(p, "empty", 5);
    kin_put_list_begin(p);
    kin_put_tuple_begin(p);
    kin_put_end(p);
    kin_put_list_begin(p);
    kin_put_end(p);
    kin_put_dict_begin(p);
    kin_put_end(p);
    kin_put_set_begin(p);
    kin_put_end(p);
    kin_put_frozenset_begin(p);
    kin_put_end(p);
    kin_put_end(p);
    kin_put_str(p, "full", 4);
    kin_put_tuple_begin(p);
    for (int i = 1; i <= 3; i++) kin_put_int(p, i);
    kin_put_dict_begin(p);
    kin_put_int(p, 4);
    kin_put_int(p, 5);
    kin_put_end(p);
    kin_put_set_begin(p);
    kin_put_int(p, 6);
    kin_put_end(p);
    kin_put_frozenset_begin(p);
    kin_put_int(p, 7);
    kin_put_end(p);
    kin_put_end(p);
    kin_put_end(p);
}

static void check_containers(const kin_value *dict) {
    CHECK_EQ(dict->type, KIN_DICT);
    CHECK_EQ(dict->depth, 3);
    const kin_value *empty = kin_value_get(dict, "empty"), *full = kin_value_get(dict, "full");
    static const kin_type types[] = {KIN_TUPLE, KIN_LIST, KIN_DICT, KIN_SET, KIN_FROZENSET};
    CHECK_EQ((long long)empty->len, 5);
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(empty->items[i]->type, types[i]);
        CHECK_EQ((long long)empty->items[i]->len, 0);
        CHECK_EQ(empty->items[i]->depth, 1);
    }
    CHECK_EQ((long long)full->len, 6);
    CHECK_EQ(full->items[3]->items[1]->integer, 5);
    CHECK_EQ(full->items[4]->items[0]->integer, 6);
    CHECK_EQ(full->items[5]->items[0]->integer, 7);
    CHECK(!kin_value_get(dict, "nothing"));
    CHECK(!kin_value_get(empty, "empty"));
    CHECK(!kin_value_get(NULL, "empty"));
}

static void round_trip(void (*put)(kin_pickler *), void (*check)(const kin_value *)) {
    kin_pickler p;
    kin_pickler_init(&p, 2);
    for (uint8_t protocol = 2; protocol <= 5; protocol++) {
        kin_pickler_reset(&p, protocol);
        put(&p);
        kin_values values = finish_and_read(&p);
        check(values.root);
        /* Once more, from the values. */
        for (uint8_t other = 2; other <= 5; other++) {
            kin_pickler q;
            kin_pickler_init(&q, other);
            CHECK_EQ(kin_put_value(&q, values.root), 0);
            kin_values again = finish_and_read(&q);
            check(again.root);
            kin_values_fini(&again);
            kin_pickler_fini(&q);
        }
        kin_values_fini(&values);
    }
    kin_pickler_fini(&p);
}

static void put_big_ints(kin_pickler *p) {
    uint8_t bytes[300] = {0};
    kin_put_list_begin(p);
    bytes[8] = 1;
    kin_put_bigint(p, bytes, 9); /* 2**64 */
    kin_put_bigint(p, bytes, 300);
    kin_put_bigint(p, bytes, 8); /* 0, and no big one */
    kin_put_bigint(p, bytes, 0);
    memset(bytes, 0xff, sizeof bytes);
    kin_put_bigint(p, bytes, 300); /* -1 */
    bytes[8] = 0x80;
    kin_put_bigint(p, bytes, 9);
    bytes[299] = 0x7f;
    kin_put_bigint(p, bytes, 300); /* LONG4 */
    kin_put_end(p);
}

static void check_big_ints(const kin_value *list) {
    CHECK_EQ((long long)list->len, 7);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(list->items[i]->type, KIN_BIGINT);
        CHECK_EQ((long long)list->items[i]->len, 9);
        CHECK(memcmp(list->items[i]->bytes, "\0\0\0\0\0\0\0\0\1", 9) == 0);
    }
    CHECK_EQ(list->items[2]->type, KIN_INT);
    CHECK_EQ(list->items[3]->integer, 0);
    CHECK_EQ(list->items[4]->integer, -1);
    CHECK_EQ((long long)list->items[5]->len, 9);
    CHECK_EQ((long long)list->items[6]->len, 300);
}

static void batches_of_a_thousand(void) {
    kin_pickler p;
    for (uint8_t protocol = 2; protocol <= 5; protocol++) {
        kin_pickler_init(&p, protocol);
        kin_put_tuple_begin(&p);
        for (int kind = 0; kind < 3; kind++) {
            if (kind == 0) kin_put_list_begin(&p);
            else if (kind == 1) kin_put_set_begin(&p);
            else kin_put_dict_begin(&p);
            for (int i = 0; i < 3000; i++) {
                kin_put_int(&p, i);
                if (kind == 2) kin_put_int(&p, -i);
            }
            kin_put_end(&p);
        }
        kin_put_end(&p);
        kin_pickled pickled = finish(&p);
        int batches = 0;
        kin_step step = {0};
        for (size_t off = 0; kin_pickle_step(pickled.data, pickled.len, off, &step) == 0;
             off = step.next) {
            batches += step.opcode == KIN_OP_APPENDS || step.opcode == KIN_OP_ADDITEMS ||
                       step.opcode == KIN_OP_SETITEMS;
        }
        CHECK_EQ(batches, 9);
        kin_values values = finish_and_read(&p);
        for (int kind = 0; kind < 3; kind++) {
            const kin_value *container = values.root->items[kind];
            CHECK_EQ((long long)container->len, 3000);
            CHECK_EQ(container->items[2999]->integer, kind == 2 ? -1499 : 2999);
        }
        kin_values_fini(&values);
        kin_pickler_fini(&p);
    }
}

static void shares_what_is_shared(void) {
    kin_pickler p;
    uint32_t list, text;
    for (uint8_t protocol = 2; protocol <= 5; protocol++) {
        kin_pickler_init(&p, protocol);
        kin_put_tuple_begin(&p);
        kin_put_list_begin(&p);
        kin_pickler_memoize(&p, &list);
        kin_put_str(&p, "again", 5);
        kin_pickler_memoize(&p, &text);
        kin_put_end(&p);
        kin_put_memo(&p, text);
        kin_put_memo(&p, list);
        kin_put_end(&p);
        kin_values values = finish_and_read(&p);
        kin_pickler_reset(&p, (uint8_t)(7 - protocol));
        CHECK_EQ(kin_put_value(&p, values.root), 0);
        kin_values again = finish_and_read(&p);
        const kin_value *const roots[] = {values.root, again.root};
        for (int i = 0; i < 2; i++) {
            CHECK(roots[i]->items[0] == roots[i]->items[2]);
            CHECK(roots[i]->items[0]->items[0] == roots[i]->items[1]);
        }
        kin_values_fini(&again);
        kin_values_fini(&values);
        kin_pickler_fini(&p);
    }
}

/* What is in a list from which a set is made is in both, if the list is kept. */
static void shares_items_of_a_set_with_its_list(void) {
    kin_values values = read_all(BYTES("cbuiltins\nset\n]q\0(C\1ae\x85Rh\0\x86."), NULL);
    kin_pickler p;
    kin_pickler_init(&p, 5);
    CHECK_EQ(kin_put_value(&p, values.root), 0);
    kin_values again = finish_and_read(&p);
    CHECK(again.root->items[0]->items[0] == again.root->items[1]->items[0]);
    kin_values_fini(&again);
    kin_values_fini(&values);
    kin_pickler_fini(&p);
}

/* -- Cycles --------------------------------------------------------------------------- */

#define REF36 \
    "C\x24"   \
    "0123456789abcdef\5\0\0\0\1\2\3\4\5\6\7\x8\x8\7\6\5\4\3\2\1"
#define OPEN_QUEUE "ckinfolk._kin\n_open\nckinfolk.queues\nQueue\n" REF36 "\x86R"

static const kin_value *list_in_itself(const kin_value *root) {
    return root->items[0];
}

static const kin_value *dict_in_itself(const kin_value *root) {
    return root->items[1];
}

static const kin_value *tuple_in_its_list(const kin_value *root) {
    return root->items[0]->items[0];
}

static const kin_value *ref_in_its_state(const kin_value *root) {
    return root->ref->state->items[0];
}

static const kin_value *frozenset_of_a_ref_of_itself(const kin_value *root) {
    return root->items[0]->ref->state;
}

static const struct {
    const char *bytes;
    size_t len;
    const kin_value *(*find)(const kin_value *root); /* the root again */
} cyclic[] = {
    {BYTES("]2a."), list_in_itself},
    {BYTES("}q\0Nh\0s."), dict_in_itself},
    {BYTES("]q\0h\0\x85q\1ah\0\x8b\0\0\0\0"
           "00h\1."),
     tuple_in_its_list},
    {BYTES(OPEN_QUEUE "q\0]h\0ab."), ref_in_its_state},
    {BYTES("(" OPEN_QUEUE "q\0\x91q\1h\0h\1b0."), frozenset_of_a_ref_of_itself},
};
enum { CYCLIC = sizeof cyclic / sizeof *cyclic };

static void keeps_cycles_if_asked_to(void) {
    kin_read_options options = {.cycles = true};
    for (int i = 0; i < CYCLIC; i++) {
        check_error(cyclic[i].bytes, cyclic[i].len, NULL, KIN_EPICKLELIMIT, cyclic[i].len - 1,
                    "a value contains itself, which is not allowed");
        kin_values values = read_all(cyclic[i].bytes, cyclic[i].len, &options);
        CHECK(cyclic[i].find(values.root) == values.root);
        for (uint8_t protocol = 2; protocol <= 5; protocol++) {
            kin_pickler p;
            kin_pickler_init(&p, protocol);
            CHECK_EQ(kin_put_value(&p, values.root), 0);
            kin_pickled pickled = finish(&p);
            kin_values again = read_all(pickled.data, pickled.len, &options);
            CHECK(cyclic[i].find(again.root) == again.root);
            kin_values_fini(&again);
            kin_pickler_fini(&p);
        }
        kin_values_fini(&values);
    }
}

/* What was changed after it had been put somewhere makes all that is around it deeper. */
static void works_out_depths_anew(void) {
    /* a = []; b = [a]; c = [b]; a.append(()) */
    kin_values values = read_all(BYTES("]]]q\0aah\0)a0."), NULL);
    CHECK_EQ(values.root->depth, 4);
    kin_values_fini(&values);
    kin_read_options options = {.depth = 3};
    check_error(BYTES("]]]q\0aah\0)a0."), &options, KIN_EPICKLELIMIT, 12,
                "containers lie in one another deeper than allowed");
    check_error(BYTES("]]]q\0aah\0]a0."), &options, KIN_EPICKLELIMIT, 12,
                "containers lie in one another deeper than allowed");
}

/* -- Old pickles ---------------------------------------------------------------------- */

static void check_text(const void *data, size_t len, const char *text, size_t text_len) {
    kin_values values = read_all(data, len, NULL);
    CHECK_EQ(values.root->type, KIN_STR);
    CHECK_EQ((long long)values.root->len, (long long)text_len);
    CHECK(memcmp(values.root->text, text, text_len + 1) == 0);
    kin_values_fini(&values);
}

static void reads_text_of_old_protocols(void) {
    check_text(BYTES("Vabc\n."), BYTES("abc"));
    check_text(BYTES("V\\u0041\\U0001f600\n."), BYTES("A\xf0\x9f\x98\x80"));
    check_text(BYTES("V\xe9\\\\u0041\\\n."), BYTES("\xc3\xa9\\\\u0041\\"));
    check_text(BYTES("V\\ud800\n."), BYTES("\xed\xa0\x80"));
    check_text(BYTES("S'it\\'s \\x41\\101\\0 \\n\\\\'\n."), BYTES("it's AA\0 \n\\"));
    check_text(BYTES("S\"'\"\n."), BYTES("'"));
    check_text(BYTES("U\3abc."), BYTES("abc"));
    check_text(BYTES("T\3\0\0\0abc."), BYTES("abc"));
}

static void check_double(const void *data, size_t len, double expected) {
    kin_values values = read_all(data, len, NULL);
    CHECK_EQ(values.root->type, KIN_FLOAT);
    CHECK(values.root->real == expected || (isnan(expected) && isnan(values.root->real)));
    kin_values_fini(&values);
}

static void check_int(const void *data, size_t len, int64_t expected) {
    kin_values values = read_all(data, len, NULL);
    CHECK_EQ(values.root->type, KIN_INT);
    CHECK_EQ(values.root->integer, expected);
    kin_values_fini(&values);
}

static void reads_numbers_of_old_protocols(void) {
    check_int(BYTES("I0\n."), 0);
    check_int(BYTES("I-7\n."), -7);
    check_int(BYTES("L9223372036854775807L\n."), INT64_MAX);
    check_int(BYTES("L-9223372036854775808L\n."), INT64_MIN);
    check_int(BYTES("L+1234567890123456\n."), 1234567890123456);
    check_int(BYTES("\x8a\0."), 0);
    check_int(BYTES("\x8a\2\xff\xff."), -1);
    kin_values values = read_all(BYTES("L-18446744073709551616L\n."), NULL);
    CHECK_EQ(values.root->type, KIN_BIGINT);
    CHECK_EQ((long long)values.root->len, 9);
    CHECK(memcmp(values.root->bytes, "\0\0\0\0\0\0\0\0\xff", 9) == 0);
    kin_values_fini(&values);
    values = read_all(BYTES("I01\n."), NULL);
    CHECK(values.root->type == KIN_BOOL && values.root->truth);
    kin_values_fini(&values);
    check_double(BYTES("F1e-5\n."), 1e-5);
    check_double(BYTES("F-.5\n."), -0.5);
    check_double(BYTES("F3\n."), 3);
    check_double(BYTES("F-inf\n."), -INFINITY);
    check_double(BYTES("Fnan\n."), NAN);
    check_double(BYTES("F1e999\n."), INFINITY);
}

static void reads_known_calls(void) {
    static const struct {
        const char *bytes;
        size_t len;
        kin_type type;
        const char *expected;
    } calls[] = {
        {BYTES("c_codecs\nencode\n(V\xe9\nVlatin1\ntR."), KIN_BYTES, "\xe9"},
        {BYTES("c__builtin__\nbytes\n)R."), KIN_BYTES, ""},
        {BYTES("cbuiltins\nbytearray\n)R."), KIN_BYTEARRAY, ""},
        {BYTES("cbuiltins\nbytearray\nC\2ab\x85R."), KIN_BYTEARRAY, "ab"},
        {BYTES("c__builtin__\nbytearray\nVab\nVlatin-1\n\x86R."), KIN_BYTEARRAY, "ab"},
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        kin_values values = read_all(calls[i].bytes, calls[i].len, NULL);
        CHECK_EQ(values.root->type, calls[i].type);
        CHECK_TEXT((const char *)values.root->bytes, calls[i].expected);
        kin_values_fini(&values);
    }
    kin_values values = read_all(BYTES("\x80\4\x8c\x8"
                                       "builtins\x8c\3set\x93)R."),
                                 NULL);
    CHECK_EQ(values.root->type, KIN_SET);
    kin_values_fini(&values);
}

static void last_key_wins(void) {
    kin_values values = read_all(BYTES("}(\x8c\1aK\1\x8c\1aK\2K\1Nu."), NULL);
    CHECK_EQ((long long)values.root->len, 3);
    CHECK_EQ(kin_value_get(values.root, "a")->integer, 2);
    CHECK_TEXT(kin_value_type_name(values.root), "dict");
    kin_values_fini(&values);
}

static void ends_at_stop(void) {
    kin_values values = read_all(BYTES("N.more"), NULL);
    CHECK_EQ((long long)values.len, 2);
    CHECK_EQ(values.root->type, KIN_NONE);
    kin_values_fini(&values);
    kin_values_fini(&values); /* twice is fine */
}

/* -- Buffers and refs ------------------------------------------------------------------- */

static void buffers_stay_where_they_are(void) {
    char a[] = "abc";
    kin_pickler p;
    kin_pickler_init(&p, 5);
    kin_put_list_begin(&p);
    kin_put_buffer(&p, a, 3, false);
    kin_put_buffer(&p, NULL, 0, true);
    kin_put_end(&p);
    kin_pickled pickled = finish(&p);
    CHECK_EQ((long long)pickled.buffer_count, 2);
    CHECK(pickled.buffers[0].data == a);
    kin_values values = finish_and_read(&p);
    CHECK_EQ(values.root->items[0]->type, KIN_BUFFER);
    CHECK(values.root->items[0]->bytes == (uint8_t *)a && !values.root->items[0]->readonly);
    CHECK(values.root->items[1]->readonly);
    kin_pickler q;
    kin_pickler_init(&q, 4);
    CHECK_EQ(kin_put_value(&q, values.root), 0);
    kin_values copied = finish_and_read(&q);
    CHECK_EQ(copied.root->items[0]->type, KIN_BYTEARRAY);
    CHECK_EQ(copied.root->items[1]->type, KIN_BYTES);
    kin_values_fini(&copied);
    kin_values_fini(&values);
    kin_pickler_fini(&q);
    FAILS("]\x97.", KIN_EPICKLE, 1, "more out-of-band buffers than were given");
    FAILS("]\x98.", KIN_EPICKLE, 1, "only a buffer can be read-only");
    kin_pickler_fini(&p);
}

static void reads_refs(void) {
    kin_values values = read_all(BYTES(OPEN_QUEUE "}Vname\nK\7sb."), NULL);
    CHECK_EQ(values.root->type, KIN_REF);
    CHECK_EQ(values.root->depth, 2);
    const kin_named_ref *ref = values.root->ref;
    CHECK(memcmp(ref->family, "0123456789abcdef", 16) == 0);
    CHECK_EQ(ref->ref.kind, KIN_KIND_QUEUE);
    CHECK(ref->ref.off == 0x0807060504030201 && ref->ref.serial == 0x0102030405060708);
    CHECK_TEXT(ref->module, "kinfolk.queues");
    CHECK_TEXT(ref->name, "Queue");
    CHECK_EQ(kin_value_get(ref->state, "name")->integer, 7);
    kin_values_fini(&values);
    values = read_all(BYTES(OPEN_QUEUE "."), NULL);
    CHECK(!values.root->ref->state);
    CHECK_EQ(values.root->depth, 0);
    kin_values_fini(&values);
}

/* A queue's ref goes through the queue itself, and is opened by who takes it. */
static void refs_open(void) {
    kin_family *family;
    kin_queue queue, opened;
    CHECK_EQ(kin_family_found(NULL, &family), 0);
    CHECK_EQ(kin_queue_create(family, 0, &queue), 0);
    kin_pickler p;
    kin_pickler_init(&p, 5);
    kin_put_ref(&p, family, &queue.handle.ref, NULL, NULL);
    kin_pickled pickled = finish(&p);
    CHECK_EQ((long long)pickled.ref_count, 1);
    kin_values values = finish_and_read(&p);
    CHECK_TEXT(values.root->ref->module, "kinfolk.queues");
    kin_ref ref;
    CHECK_EQ(kin_value_ref(values.root, family, &ref), 0);
    CHECK_EQ(kin_queue_open(family, &ref, &opened), 0);
    kin_queue_close(&opened);
    kin_values_fini(&values);
    values = read_all(BYTES(OPEN_QUEUE "."), NULL);
    CHECK_EQ(kin_value_ref(values.root, family, &ref), KIN_EFOREIGN);
    kin_values_fini(&values);
    values = read_all(BYTES("N."), NULL);
    CHECK_EQ(kin_value_ref(values.root, family, &ref), -EINVAL);
    kin_values_fini(&values);
    kin_pickler_fini(&p);
    kin_queue_close(&queue);
    kin_family_leave(family);
}

/* -- Errors --------------------------------------------------------------------------- */

static void says_where_bytes_are_damaged(void) {
    FAILS("", KIN_EPICKLESHORT, 0, "the bytes end");
    FAILS("N", KIN_EPICKLESHORT, 1, "the bytes end");
    FAILS("NX\4\0\0\0abc", KIN_EPICKLESHORT, 1, "the bytes end");
    FAILS("N\xff.", KIN_EPICKLE, 1, "no opcode");
    FAILS("NT\xff\xff\xff\xff.", KIN_EPICKLE, 1, "a length below zero");
    FAILS("\x80\x06N.", KIN_EPICKLE, 0, "of a protocol that is not known");
    FAILS("\x80\4\x95\3\0\0\0\0\0\0\0N.", KIN_EPICKLESHORT, 2, "a frame ends behind the end");
    FAILS(".", KIN_EPICKLE, 0, "too little is on the stack");
    FAILS("N(.", KIN_EPICKLE, 2, "a mark is left on the stack");
    FAILS("N(2.", KIN_EPICKLE, 2, "too little is on the stack");
    FAILS("0.", KIN_EPICKLE, 0, "too little is on the stack");
    FAILS("N1.", KIN_EPICKLE, 1, "no mark is on the stack");
    FAILS("Nt.", KIN_EPICKLE, 1, "no mark is on the stack");
    FAILS("N\x86.", KIN_EPICKLE, 1, "too little is on the stack");
    FAILS("(NNe.", KIN_EPICKLE, 3, "too little is on the stack");
    FAILS("](N\x85"
          "a.",
          KIN_EPICKLE, 4, "too little is on the stack");
    FAILS("}Na.", KIN_EPICKLE, 2, "items are added to what does not take them");
    FAILS("](Nu.", KIN_EPICKLE, 3, "items are added to what does not take them");
    FAILS("}(Nu.", KIN_EPICKLE, 3, "a key without a value");
    FAILS("(Nd.", KIN_EPICKLE, 2, "a key without a value");
    FAILS("h\0.", KIN_EPICKLE, 0, "nothing has this number in the memo");
    FAILS("Nq\1j\0\0\0\0.", KIN_EPICKLE, 3, "nothing has this number in the memo");
    FAILS("Nr\xff\xff\xff\xff.", KIN_EPICKLE, 1, "a memo number beyond all reason");
    FAILS("Np4294967295\n.", KIN_EPICKLE, 1, "a memo number beyond all reason");
    FAILS("Np-1\n.", KIN_EPICKLE, 1, "a line is no memo number");
    FAILS("Ng99999999999999999999\n.", KIN_EPICKLE, 1, "a line is no memo number");
    FAILS("q\0.", KIN_EPICKLE, 0, "too little is on the stack");
    FAILS("I\n.", KIN_EPICKLE, 0, "a line is no decimal number");
    FAILS("I1x\n.", KIN_EPICKLE, 0, "a line is no decimal number");
    FAILS("L-L\n.", KIN_EPICKLE, 0, "a line is no decimal number");
    FAILS("F\n.", KIN_EPICKLE, 0, "a line is no float");
    FAILS("F1e\n.", KIN_EPICKLE, 0, "a line is no float");
    FAILS("F0x1\n.", KIN_EPICKLE, 0, "a line is no float");
    FAILS("F1\0\n.", KIN_EPICKLE, 0, "a line is no float");
    FAILS("X\2\0\0\0\xc3(.", KIN_EPICKLE, 0, "a str is not UTF-8");
    FAILS("X\2\0\0\0\xc0\x80.", KIN_EPICKLE, 0, "a str is not UTF-8");
    FAILS("X\4\0\0\0\xf4\x90\x80\x80.", KIN_EPICKLE, 0, "a str is not UTF-8");
    FAILS("V\\u12\n.", KIN_EPICKLE, 0, "an escape in a str is broken");
    FAILS("V\\U00110000\n.", KIN_EPICKLE, 0, "an escape in a str is broken");
    FAILS("Sabc\n.", KIN_EPICKLE, 0, "a string of Python 2 is broken");
    FAILS("S'\\x1'\n.", KIN_EPICKLE, 0, "a string of Python 2 is broken");
    FAILS("S'\\xe9'\n.", KIN_EPICKLE, 0, "a string of Python 2 is not ASCII");
    FAILS("U\1\xe9.", KIN_EPICKLE, 0, "a string of Python 2 is not ASCII");
    FAILS("}]Ns.", KIN_EPICKLE, 3, "a key or an item of a set is not hashable");
    FAILS("}]\x85\x85Ns.", KIN_EPICKLE, 5, "a key or an item of a set is not hashable");
    FAILS("(}\x91.", KIN_EPICKLE, 2, "a key or an item of a set is not hashable");
}

static void runs_no_code(void) {
    FAILS("cos\nsystem\n(S'true'\ntR.", KIN_EPICKLECODE, 0,
          "to load it a class or a function would be called");
    FAILS("]cos\nsystem\na.", KIN_EPICKLECODE, 1, "a class or a function is no plain data");
    FAILS("NNcos\nsystem\n\x87.", KIN_EPICKLECODE, 2, "a class or a function is no plain data");
    FAILS("(cos\nsystem\n\x91.", KIN_EPICKLECODE, 1, "a class or a function is no plain data");
    FAILS("(Ncos\nsystem\nd.", KIN_EPICKLECODE, 2, "a class or a function is no plain data");
    FAILS("NNR.", KIN_EPICKLE, 2, "what is called is no class or function");
    FAILS("cbuiltins\nset\nNR.", KIN_EPICKLE, 15, "the arguments of a call are no tuple");
    FAILS("cbuiltins\nset\nN\x85R.", KIN_EPICKLECODE, 16,
          "a call that is known, with other arguments");
    FAILS("cbuiltins\nbytearray\nK\5\x85R.", KIN_EPICKLECODE, 23,
          "a call that is known, with other arguments");
    FAILS("cbuiltins\nbytes\nK\5\x85R.", KIN_EPICKLECODE, 19,
          "a call that is known, with other arguments");
    FAILS("c_codecs\nencode\n(Va\nVutf8\ntR.", KIN_EPICKLECODE, 27,
          "a call that is known, with other arguments");
    FAILS("c_codecs\nencode\n(V\\u0100\nVlatin1\ntR.", KIN_EPICKLE, 34,
          "text for bytes is not Latin-1");
    FAILS("ckinfolk._kin\n_open\n(NC\0tR.", KIN_EPICKLECODE, 25,
          "a call that is known, with other arguments");
    FAILS("ckinfolk._kin\n_open\n(ca\nb\nC\0tR.", KIN_EPICKLE, 29, "a ref is not 36 bytes");
    FAILS("]}b.", KIN_EPICKLECODE, 2, "only a ref may be given a state");
    FAILS(OPEN_QUEUE "}b}b.", KIN_EPICKLE, sizeof OPEN_QUEUE + 2, "a ref is given a state twice");
    FAILS(OPEN_QUEUE "ca\nb\nb.", KIN_EPICKLECODE, sizeof OPEN_QUEUE - 1,
          "a class or a function is no plain data");
    FAILS("NN\x93.", KIN_EPICKLE, 2, "a name is not two strings");
    FAILS("\x8c\1a\x8c\1\0\x93.", KIN_EPICKLE, 6, "a name has a zero in it");
    FAILS("ca\n\0\n.", KIN_EPICKLE, 0, "a name has a zero in it");
    FAILS("c\xff\na\n.", KIN_EPICKLE, 0, "a name is not UTF-8");
    FAILS("N(i__main__\nThing\n.", KIN_EPICKLECODE, 2, "an instance of a class is no plain data");
    FAILS("N)\x81.", KIN_EPICKLECODE, 2, "an instance of a class is no plain data");
    FAILS("\x82\1.", KIN_EPICKLECODE, 0, "codes of copyreg are not known here");
    FAILS("NQ.", KIN_EPICKLECODE, 1, "persistent ids are not known here");
}

static void keeps_its_limits(void) {
    kin_read_options depth = {.depth = 2}, items = {.items = 3}, memory = {.memory = 600};
    kin_values values = read_all(BYTES("]]a."), &depth);
    kin_values_fini(&values);
    check_error(BYTES("]]]aa."), &depth, KIN_EPICKLELIMIT, 4,
                "containers lie in one another deeper than allowed");
    check_error(BYTES("N\x85\x85\x85."), &depth, KIN_EPICKLELIMIT, 3,
                "containers lie in one another deeper than allowed");
    check_error(BYTES(OPEN_QUEUE "]]ab."), &depth, KIN_EPICKLELIMIT, sizeof OPEN_QUEUE + 2,
                "containers lie in one another deeper than allowed");
    check_error(BYTES("]K\1aK\1aK\1a."), &items, KIN_EPICKLELIMIT, 7, "more values than allowed");
    check_error(BYTES("((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((."),
                &memory, KIN_EPICKLELIMIT, 36, "more memory than allowed");
    check_error(BYTES("]]."), &(kin_read_options){.memory = 128}, KIN_EPICKLELIMIT, 0,
                "more memory than allowed");
    /* A list is made into a set again and again: each is a copy. */
    enum { TIMES = 20000 };
    size_t len = 3 + TIMES + 1 + TIMES * 8;
    char *bytes = malloc(len + 64), *at = bytes;
    CHECK(bytes);
    at += sprintf(at, "cbuiltins\nset\np0\n](");
    for (int i = 0; i < TIMES; i++) *at++ = 'N';
    at += sprintf(at, "ep1\n");
    for (int i = 0; i < TIMES; i++) {
        memcpy(at, "h\0h\1\x85R0", 7);
        at += 7;
    }
    *at++ = '.';
    kin_read_error error;
    CHECK_EQ(kin_pickle_read(bytes, (size_t)(at - bytes), NULL, &values, &error), KIN_EPICKLELIMIT);
    CHECK_TEXT(error.reason, "more memory than allowed");
    free(bytes);
    /* Decimal numbers take a time that grows with the square of their digits. */
    char digits[4400];
    memset(digits, '9', sizeof digits);
    memcpy(digits, "I", 1);
    memcpy(digits + sizeof digits - 3, "\n.", 3);
    check_error(digits, sizeof digits, NULL, KIN_EPICKLELIMIT, 0,
                "a decimal number of more than 4300 digits");
    memcpy(digits + 1 + 4300, "\n.", 2);
    values = read_all(digits, sizeof digits, NULL);
    CHECK_EQ((long long)values.root->len, 1786);
    kin_values_fini(&values);
}

/* Whatever is honest comes nowhere near the default limit on memory: these need the most. */
static void honest_pickles_fit(void) {
    static const char *const items[] = {"]",     "]\x94", "}",      ")",    "N",   "K\1",
                                        "N\x85", "]\x85", "NN\x86", "\x8f", "C\0", "\x8c\0"};
    enum { TIMES = 300000 };
    for (size_t i = 0; i < sizeof items / sizeof *items; i++) {
        size_t item = i == 10 || i == 11 ? 2 : strlen(items[i]);
        for (int batch = 1000; batch <= TIMES; batch *= 300) {
            char *bytes = malloc((item + 1) * TIMES + 2000), *at = bytes;
            CHECK(bytes);
            *at++ = ']';
            for (int k = 0; k < TIMES; k++) {
                if (k % batch == 0) *at++ = '(';
                memcpy(at, items[i], item);
                at += item;
                if ((k + 1) % batch == 0) *at++ = 'e';
            }
            *at++ = '.';
            kin_values values = read_all(bytes, (size_t)(at - bytes), NULL);
            CHECK_EQ((long long)values.root->len, TIMES);
            kin_values_fini(&values);
            free(bytes);
        }
    }
}

/* As deep as the bytes allow, and nothing overflows: reading, writing, freeing. */
static void bears_deep_nesting(void) {
    enum { DEPTH = 300000 };
    char *bytes = malloc(2 * DEPTH + 2);
    CHECK(bytes);
    memset(bytes, ']', DEPTH);
    memset(bytes + DEPTH, 'a', DEPTH - 1);
    bytes[2 * DEPTH - 1] = '.';
    check_error(bytes, 2 * DEPTH, NULL, KIN_EPICKLELIMIT, DEPTH + 999,
                "containers lie in one another deeper than allowed");
    kin_read_options options = {.depth = UINT32_MAX};
    kin_values values = read_all(bytes, 2 * DEPTH, &options);
    CHECK_EQ(values.root->depth, DEPTH);
    kin_pickler p;
    kin_pickler_init(&p, 5);
    CHECK_EQ(kin_put_value(&p, values.root), 0);
    kin_pickled pickled = finish(&p);
    kin_values_fini(&values);
    values = read_all(pickled.data, pickled.len, &options);
    CHECK_EQ(values.root->depth, DEPTH);
    kin_values_fini(&values);
    kin_pickler_fini(&p);
    free(bytes);
}

/* -- Wrong calls ---------------------------------------------------------------------- */

static void check_order(kin_pickler *p, kin_err expected) {
    kin_pickled pickled;
    CHECK_EQ(kin_pickler_end(p, &pickled), expected);
    CHECK_EQ(kin_put_none(p), expected); /* and so it stays */
    kin_pickler_fini(p);
}

static void refuses_what_makes_no_pickle(void) {
    kin_pickler p;
    uint32_t number;
    kin_pickler_init(&p, 5);
    check_order(&p, KIN_EPICKLEORDER); /* nothing */
    kin_pickler_init(&p, 5);
    kin_put_none(&p);
    kin_put_none(&p);
    check_order(&p, KIN_EPICKLEORDER); /* two */
    kin_pickler_init(&p, 5);
    kin_put_end(&p);
    check_order(&p, KIN_EPICKLEORDER); /* an end of nothing */
    kin_pickler_init(&p, 5);
    kin_put_list_begin(&p);
    check_order(&p, KIN_EPICKLEORDER); /* no end */
    kin_pickler_init(&p, 5);
    kin_put_dict_begin(&p);
    kin_put_none(&p);
    kin_put_end(&p);
    check_order(&p, KIN_EPICKLEORDER); /* a key alone */
    kin_pickler_init(&p, 5);
    kin_put_memo(&p, 0);
    check_order(&p, KIN_EPICKLEORDER);
    kin_pickler_init(&p, 5);
    kin_put_tuple_begin(&p);
    kin_pickler_memoize(&p, &number);
    check_order(&p, KIN_EPICKLEORDER); /* a tuple has no number before its end */
    kin_pickler_init(&p, 5);
    kin_put_str(&p, "\xff", 1);
    check_order(&p, -EILSEQ);
    kin_pickler_init(&p, 4);
    kin_put_buffer(&p, NULL, 0, true);
    check_order(&p, -ENOTSUP);
    kin_pickler_init(&p, 1);
    check_order(&p, -EINVAL);
    kin_pickler_init(&p, 6);
    check_order(&p, -EINVAL);
}

static void can_begin_anew_after_an_error(void) {
    kin_pickler p;
    kin_pickler_init(&p, 5);
    kin_put_end(&p);
    kin_pickler_reset(&p, 5);
    kin_put_int(&p, 5);
    kin_values values = finish_and_read(&p);
    CHECK_EQ(values.root->integer, 5);
    kin_values_fini(&values);
    kin_pickler_fini(&p);
}

int main(void) {
    knows_its_opcodes();
    steps_over_each_kind_of_argument();
    round_trip(put_numbers, check_numbers);
    round_trip(put_strings, check_strings);
    round_trip(put_containers, check_containers);
    round_trip(put_big_ints, check_big_ints);
    batches_of_a_thousand();
    shares_what_is_shared();
    shares_items_of_a_set_with_its_list();
    keeps_cycles_if_asked_to();
    works_out_depths_anew();
    reads_text_of_old_protocols();
    reads_numbers_of_old_protocols();
    reads_known_calls();
    last_key_wins();
    ends_at_stop();
    buffers_stay_where_they_are();
    reads_refs();
    refs_open();
    says_where_bytes_are_damaged();
    runs_no_code();
    keeps_its_limits();
    honest_pickles_fit();
    bears_deep_nesting();
    refuses_what_makes_no_pickle();
    can_begin_anew_after_an_error();
    return 0;
}
