/* Any bytes to the reader of pickles; what it makes of them must hold together.
 *
 * What was read is walked and compared with its own copy: written, and read again.
 * The limits on memory are the reader's defaults, and they are checked.
 *
 * One source, two programs: with clang -fsanitize=fuzzer (tools/fuzz) a fuzzer, and
 * without a test that runs over the files and folders that it is given. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <kin/pickler.h>
#include <kin/value.h>

#define MUST(condition)                                                                    \
    do {                                                                                   \
        if (!(condition)) {                                                                \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                       \
        }                                                                                  \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* -- Are they equal? ------------------------------------------------------------------ */

typedef struct pair {
    const kin_value *a, *b;
} pair;

/* Which container of one stands for which of the other, and the pairs to be looked at. */
typedef struct comparison {
    pair *map; /* by a; map_room is a power of 2 */
    size_t map_count, map_room;
    pair *todo;
    size_t count, room;
    bool same_depths, buffers_copied;
} comparison;

static pair *slot(pair *map, size_t room, const kin_value *a) {
    size_t i = ((uintptr_t)a >> 3) * 2654435761u & (room - 1);
    while (map[i].a && map[i].a != a) i = (i + 1) & (room - 1);
    return &map[i];
}

static void map_grow(comparison *c) {
    size_t room = c->map_room ? 2 * c->map_room : 64;
    pair *map = calloc(room, sizeof *map);
    MUST(map);
    for (size_t i = 0; i < c->map_room; i++) {
        if (c->map[i].a) *slot(map, room, c->map[i].a) = c->map[i];
    }
    free(c->map);
    c->map = map;
    c->map_room = room;
}

static void later(comparison *c, const kin_value *a, const kin_value *b) {
    if (c->count == c->room) {
        c->room = c->room ? 2 * c->room : 64;
        c->todo = realloc(c->todo, c->room * sizeof *c->todo);
        MUST(c->todo);
    }
    c->todo[c->count++] = (pair){a, b};
}

/* The first time that a is met?  If not, b must be what it was then. */
static bool first_time(comparison *c, const kin_value *a, const kin_value *b) {
    if (2 * (c->map_count + 1) > c->map_room) map_grow(c);
    pair *known = slot(c->map, c->map_room, a);
    if (known->a) {
        MUST(known->b == b);
        return false;
    }
    *known = (pair){a, b};
    c->map_count++;
    return true;
}

static void compare_refs(comparison *c, const kin_named_ref *a, const kin_named_ref *b) {
    MUST(memcmp(a->family, b->family, sizeof a->family) == 0);
    MUST(a->ref.kind == b->ref.kind && a->ref.off == b->ref.off && a->ref.serial == b->ref.serial);
    MUST(strcmp(a->module, b->module) == 0 && strcmp(a->name, b->name) == 0);
    MUST(!a->state == !b->state);
    if (a->state) later(c, a->state, b->state);
}

static void compare_containers(comparison *c, const kin_value *a, const kin_value *b) {
    size_t slots = a->type == KIN_DICT ? 2 * a->len : a->len;
    MUST(a->len == b->len);
    if (c->same_depths) MUST(a->depth == b->depth && a->depth > 0);
    for (size_t i = 0; i < slots; i++) later(c, a->items[i], b->items[i]);
}

static void compare_types(const comparison *c, const kin_value *a, const kin_value *b) {
    int type = a->type;
    if (type == KIN_BUFFER && c->buffers_copied) type = a->readonly ? KIN_BYTES : KIN_BYTEARRAY;
    MUST(type == b->type);
    MUST(kin_value_type_name(a) != NULL);
}

static void compare_one(comparison *c, const kin_value *a, const kin_value *b) {
    compare_types(c, a, b);
    switch ((kin_type)a->type) {
    case KIN_NONE: break;
    case KIN_BOOL: MUST(a->truth == b->truth); break;
    case KIN_INT: MUST(a->integer == b->integer); break;
    case KIN_FLOAT: MUST(memcmp(&a->real, &b->real, sizeof a->real) == 0); break;
    case KIN_STR: MUST(a->text[a->len] == 0); /* fall through */
    case KIN_BIGINT:
    case KIN_BYTES:
    case KIN_BYTEARRAY:
    case KIN_BUFFER:
        MUST(a->len == b->len);
        if (a->len) MUST(memcmp(a->bytes, b->bytes, a->len) == 0);
        break;
    case KIN_REF:
        if (first_time(c, a, b)) compare_refs(c, a->ref, b->ref);
        break;
    case KIN_LIST:
    case KIN_TUPLE:
    case KIN_SET:
    case KIN_FROZENSET:
    case KIN_DICT:
        if (a->len == 0 && a->type == KIN_TUPLE) MUST(b->len == 0);
        else if (first_time(c, a, b)) compare_containers(c, a, b);
        break;
    }
}

static void compare(comparison *c, const kin_value *a, const kin_value *b) {
    later(c, a, b);
    while (c->count > 0) {
        pair next = c->todo[--c->count];
        compare_one(c, next.a, next.b);
    }
    free(c->todo);
    free(c->map);
}

/* -- One input ------------------------------------------------------------------------ */

static void write_and_read_again(const kin_values *values, uint8_t protocol, bool cycles) {
    kin_pickler p;
    kin_pickled pickled;
    kin_pickler_init(&p, protocol);
    kin_err err = kin_put_value(&p, values->root);
    /* A name with a newline has no form below protocol 4. */
    if (err == -EINVAL && protocol < 4) {
        kin_pickler_fini(&p);
        return;
    }
    MUST(err == 0);
    err = kin_pickler_end(&p, &pickled);
    MUST(err == 0);
    kin_read_options options = {
        .depth = UINT32_MAX,
        .cycles = cycles,
        .buffers = pickled.buffers,
        .buffer_count = pickled.buffer_count,
    };
    kin_values again;
    kin_read_error error;
    err = kin_pickle_read(pickled.data, pickled.len, &options, &again, &error);
    if (err < 0)
        fprintf(stderr, "%s at byte %zu: %s\n", kin_strerror(err), error.off, error.reason);
    MUST(err == 0);
    MUST(again.len == pickled.len);
    comparison c = {.same_depths = !cycles, .buffers_copied = protocol < 5};
    compare(&c, values->root, again.root);
    kin_values_fini(&again);
    kin_pickler_fini(&p);
}

/* The steps alone: they end, and stay inside. */
static void step_over(const uint8_t *data, size_t size) {
    kin_step step;
    for (size_t off = 0; kin_pickle_step(data, size, off, &step) == 0; off = step.next) {
        MUST(step.next > off && step.next <= size);
        MUST(step.arg > off && step.arg <= step.next && step.arg_len <= step.next - step.arg);
        MUST(kin_opcodes[step.opcode].name);
    }
}

static void read_once(const uint8_t *data, size_t size, const kin_read_options *options) {
    kin_values values = {0};
    kin_read_error error = {.off = SIZE_MAX};
    kin_err err = kin_pickle_read(data, size, options, &values, &error);
    if (err < 0) {
        MUST(err <= KIN_EPICKLE && err >= KIN_EPICKLEORDER);
        MUST(error.off <= size && error.reason && *error.reason);
        MUST(!values.pool);
        return;
    }
    MUST(values.len <= size);
    MUST(values.memory <= 64 * size + 65536);
    MUST(values.root->depth <= options->depth);
    kin_value_get(values.root, "key");
    /* Each protocol in its turn, always the same for the same input. */
    write_and_read_again(&values, 5, options->cycles);
    write_and_read_again(&values, (uint8_t)(2 + size % 3), options->cycles);
    kin_values_fini(&values);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t writable[] = "writable";
    static const kin_buffer buffers[] = {
        {writable, sizeof writable, false}, {NULL, 0, true}, {writable, 3, true}};
    kin_read_options options = {.depth = 100, .buffers = buffers, .buffer_count = 3};
    step_over(data, size);
    read_once(data, size, &options);
    options.cycles = true;
    read_once(data, size, &options);
    return 0;
}

#ifndef KIN_LIBFUZZER
#include <dirent.h>

static void run_file(const char *path) {
    static uint8_t room[1 << 20];
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(1);
    }
    size_t len = fread(room, 1, sizeof room, file);
    fclose(file);
    /* From malloc, so that a sanitizer sees what is read behind the end. */
    uint8_t *data = malloc(len + !len);
    MUST(data);
    memcpy(data, room, len);
    LLVMFuzzerTestOneInput(data, len);
    free(data);
}

/* How many files there were. */
static int run_path(const char *path) {
    DIR *dir = opendir(path);
    if (!dir) {
        run_file(path);
        return 1;
    }
    int count = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        char name[4096];
        if (entry->d_name[0] == '.') continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        run_file(name);
        count++;
    }
    closedir(dir);
    return count;
}

int main(int argc, char **argv) {
    int count = 0;
    for (int i = 1; i < argc; i++) count += run_path(argv[i]);
    printf("%d inputs\n", count);
    return count ? 0 : 1;
}
#endif
