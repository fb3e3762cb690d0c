/* The stack machine: what each instruction does.
 *
 * A loop, no recursion.  Each instruction does work in proportion to its own
 * bytes, or to what it takes off the stack, or to what it copies, of which the
 * limit on memory is the bound; so the whole is linear in the pickle's length. */
#include "reader.h"

#include <stdlib.h>

kin_err kin__fail(kin__reader *r, kin_err err, const char *reason) {
    r->reason = reason;
    return err;
}

kin_err kin__fail_memory(kin__reader *r) {
    kin_err err = kin__pool_error(&r->pool);
    return kin__fail(r, err, err == -ENOMEM ? "out of memory" : "more memory than allowed");
}

static kin_err fail_code(kin__reader *r, const char *reason) {
    return kin__fail(r, KIN_EPICKLECODE, reason);
}

/* -- The stack ------------------------------------------------------------------------ */

/* Are there `count` values above the topmost mark? */
static kin_err need(kin__reader *r, size_t count) {
    if (r->count - r->fence >= count) return 0;
    return kin__fail(r, KIN_EPICKLE, "too little is on the stack");
}

static kin_value *top(kin__reader *r) {
    return r->stack[r->count - 1];
}

void kin__share(const kin_value *value) {
    bool is_static = value->type <= KIN_BOOL || (value->type == KIN_TUPLE && value->len == 0);
    if (!is_static) ((kin_value *)(uintptr_t)value)->inside[0] |= KIN__SHARED;
}

static kin_err mark(kin__reader *r) {
    if (r->mark_count == r->mark_room) {
        void *marks = r->marks;
        kin_err err = kin__pool_grow_stack(&r->pool, &marks, &r->mark_room, r->mark_count + 1,
                                           sizeof *r->marks);
        r->marks = marks;
        if (err < 0) return kin__fail_memory(r);
    }
    r->marks[r->mark_count++] = r->fence = r->count;
    return 0;
}

/* Take the topmost mark away: what was above it begins at *from. */
static kin_err unmark(kin__reader *r, size_t *from) {
    if (r->mark_count == 0) return kin__fail(r, KIN_EPICKLE, "no mark is on the stack");
    *from = r->marks[--r->mark_count];
    r->fence = r->mark_count ? r->marks[r->mark_count - 1] : 0;
    return 0;
}

static kin_err pop(kin__reader *r) {
    size_t from;
    if (r->mark_count > 0 && r->fence == r->count) return unmark(r, &from);
    kin_err err = need(r, 1);
    if (err == 0) r->count--;
    return err;
}

static kin_err pop_mark(kin__reader *r) {
    size_t from;
    kin_err err = unmark(r, &from);
    if (err == 0) r->count = from;
    return err;
}

static kin_err dup(kin__reader *r) {
    kin_err err = need(r, 1);
    if (err < 0) return err;
    kin__share(top(r));
    return kin__push(r, top(r));
}

/* -- The memo ------------------------------------------------------------------------- */

/* No pickle has a use for more numbers than it has bytes: a larger one is only there to make the
 * memo large. */
static kin_err memo_put(kin__reader *r, uint64_t index) {
    kin_err err = need(r, 1);
    if (err < 0) return err;
    if (index >= r->len) return kin__fail(r, KIN_EPICKLE, "a memo number beyond all reason");
    if (index >= r->memo_room) {
        void *memo = r->memo;
        size_t old = r->memo_room;
        err = kin__pool_grow_stack(&r->pool, &memo, &r->memo_room, (size_t)index + 1,
                                   sizeof *r->memo);
        r->memo = memo;
        if (err < 0) return kin__fail_memory(r);
        memset(r->memo + old, 0, (r->memo_room - old) * sizeof *r->memo);
    }
    if (!r->memo[index]) r->memo_count++;
    r->memo[index] = top(r);
    return 0;
}

static kin_err memo_get(kin__reader *r, uint64_t index) {
    if (index >= r->memo_room || !r->memo[index]) {
        return kin__fail(r, KIN_EPICKLE, "nothing has this number in the memo");
    }
    kin__share(r->memo[index]);
    return kin__push(r, r->memo[index]);
}

/* The number that is the instruction's line. */
static kin_err line_number(kin__reader *r, uint64_t *out) {
    const uint8_t *text = r->in + r->step.arg;
    size_t len = r->step.arg_len;
    uint64_t n = 0;
    bool fine = len > 0 && len < 19;
    for (size_t i = 0; fine && i < len; i++) {
        fine = text[i] >= '0' && text[i] <= '9';
        n = n * 10 + (uint64_t)(text[i] - '0');
    }
    if (!fine) return kin__fail(r, KIN_EPICKLE, "a line is no memo number");
    *out = n;
    return 0;
}

static kin_err put_line(kin__reader *r) {
    uint64_t index;
    kin_err err = line_number(r, &index);
    return err < 0 ? err : memo_put(r, index);
}

static kin_err get_line(kin__reader *r) {
    uint64_t index;
    kin_err err = line_number(r, &index);
    return err < 0 ? err : memo_get(r, index);
}

/* -- Containers ----------------------------------------------------------------------- */

static const kin_value *const *above(const kin__reader *r, size_t from) {
    /* Before the first push there is no stack: (t makes a tuple of nothing. */
    return r->stack ? (const kin_value *const *)r->stack + from : NULL;
}

/* A container of the topmost `count` values. */
static kin_err gather(kin__reader *r, kin_type type, size_t count) {
    kin_err err = need(r, count);
    if (err < 0) return err;
    r->count -= count;
    return kin__push_items(r, type, above(r, r->count), count);
}

/* A container of what is above the mark. */
static kin_err gather_marked(kin__reader *r, kin_type type) {
    size_t from;
    kin_err err = unmark(r, &from);
    return err < 0 ? err : gather(r, type, r->count - from);
}

static kin_err gather_dict(kin__reader *r) {
    size_t from;
    kin_err err = unmark(r, &from);
    if (err < 0) return err;
    size_t count = r->count - from;
    if (count % 2) return kin__fail(r, KIN_EPICKLE, "a key without a value");
    r->count = from;
    return kin__push_items(r, KIN_DICT, above(r, from), count / 2);
}

/* Into the container that lies below them, which is of this type, put the values from `from` on. */
static kin_err add(kin__reader *r, kin_type type, size_t from) {
    size_t count = r->count - from;
    if (from <= r->fence) return kin__fail(r, KIN_EPICKLE, "too little is on the stack");
    kin_value *to = r->stack[from - 1];
    if (to->type != type) {
        return kin__fail(r, KIN_EPICKLE, "items are added to what does not take them");
    }
    if (type == KIN_DICT && count % 2) return kin__fail(r, KIN_EPICKLE, "a key without a value");
    r->count = from;
    return kin__add_items(r, to, above(r, from), type == KIN_DICT ? count / 2 : count);
}

static kin_err add_top(kin__reader *r, kin_type type, size_t count) {
    kin_err err = need(r, count + 1);
    return err < 0 ? err : add(r, type, r->count - count);
}

static kin_err add_marked(kin__reader *r, kin_type type) {
    size_t from;
    kin_err err = unmark(r, &from);
    return err < 0 ? err : add(r, type, from);
}

/* -- Calls ---------------------------------------------------------------------------- */

static kin_err stack_global(kin__reader *r) {
    kin_err err = need(r, 2);
    if (err < 0) return err;
    r->count -= 2;
    return kin__push_name(r, r->stack[r->count], r->stack[r->count + 1]);
}

static kin_err reduce(kin__reader *r) {
    kin_err err = need(r, 2);
    if (err < 0) return err;
    r->count -= 2;
    return kin__call(r, r->stack[r->count], r->stack[r->count + 1]);
}

static kin_err build(kin__reader *r) {
    kin_err err = need(r, 2);
    if (err < 0) return err;
    r->count--;
    return kin__build(r, top(r), r->stack[r->count]);
}

static kin_err readonly_buffer(kin__reader *r) {
    kin_err err = need(r, 1);
    if (err < 0) return err;
    const kin_value *old = top(r);
    if (old->type != KIN_BUFFER) return kin__fail(r, KIN_EPICKLE, "only a buffer can be read-only");
    if (old->readonly) return 0;
    kin_value *value = kin__make(r, KIN_BUFFER, &err);
    if (!value) return err;
    value->bytes = old->bytes;
    value->len = old->len;
    value->readonly = true;
    r->stack[r->count - 1] = value;
    return 0;
}

/* -- The pickle as a whole ------------------------------------------------------------- */

static kin_err proto(kin__reader *r) {
    if (r->in[r->step.arg] <= KIN_PICKLE_PROTOCOL) return 0;
    return kin__fail(r, KIN_EPICKLE, "of a protocol that is not known");
}

static kin_err frame(kin__reader *r) {
    if (kin_load8(r->in + r->step.arg) <= r->len - r->step.next) return 0;
    return kin__fail(r, KIN_EPICKLESHORT, "a frame ends behind the end");
}

static kin_err stop(kin__reader *r) {
    if (r->mark_count > 0) return kin__fail(r, KIN_EPICKLE, "a mark is left on the stack");
    kin_err err = need(r, 1);
    if (err < 0) return err;
    if (top(r)->inside[0] & KIN__NAMES) return kin__fail_name(r, top(r));
    return r->tangled ? kin__check_tangle(r, top(r)) : 0;
}

static kin_err run(kin__reader *r) {
    const uint8_t *arg = r->in + r->step.arg;
    size_t len = r->step.arg_len;
    switch ((kin_opcode)r->step.opcode) {
    case KIN_OP_PROTO: return proto(r);
    case KIN_OP_FRAME: return frame(r);
    case KIN_OP_STOP: return stop(r);

    case KIN_OP_MARK: return mark(r);
    case KIN_OP_POP: return pop(r);
    case KIN_OP_POP_MARK: return pop_mark(r);
    case KIN_OP_DUP: return dup(r);

    case KIN_OP_PUT: return put_line(r);
    case KIN_OP_BINPUT: return memo_put(r, *arg);
    case KIN_OP_LONG_BINPUT: return memo_put(r, kin_load4(arg));
    case KIN_OP_MEMOIZE: return memo_put(r, r->memo_count);
    case KIN_OP_GET: return get_line(r);
    case KIN_OP_BINGET: return memo_get(r, *arg);
    case KIN_OP_LONG_BINGET: return memo_get(r, kin_load4(arg));

    case KIN_OP_NONE: return kin__push(r, &kin__none);
    case KIN_OP_NEWTRUE: return kin__push(r, &kin__true);
    case KIN_OP_NEWFALSE: return kin__push(r, &kin__false);
    case KIN_OP_BININT1: return kin__push_int(r, *arg);
    case KIN_OP_BININT2: return kin__push_int(r, kin_load2(arg));
    case KIN_OP_BININT: return kin__push_int(r, (int32_t)kin_load4(arg));
    case KIN_OP_LONG1:
    case KIN_OP_LONG4: return kin__push_bigint(r, arg, len);
    case KIN_OP_INT: return kin__push_int_line(r);
    case KIN_OP_LONG: return kin__push_long_line(r);
    case KIN_OP_BINFLOAT: return kin__push_float(r, kin_load_double(arg));
    case KIN_OP_FLOAT: return kin__push_float_line(r);

    case KIN_OP_SHORT_BINUNICODE:
    case KIN_OP_BINUNICODE:
    case KIN_OP_BINUNICODE8: return kin__push_str(r, arg, len);
    case KIN_OP_UNICODE: return kin__push_unicode_line(r);
    case KIN_OP_SHORT_BINSTRING:
    case KIN_OP_BINSTRING: return kin__push_old_str(r, arg, len);
    case KIN_OP_STRING: return kin__push_quoted_line(r);
    case KIN_OP_SHORT_BINBYTES:
    case KIN_OP_BINBYTES:
    case KIN_OP_BINBYTES8: return kin__push_bytes(r, KIN_BYTES, arg, len);
    case KIN_OP_BYTEARRAY8: return kin__push_bytes(r, KIN_BYTEARRAY, arg, len);
    case KIN_OP_NEXT_BUFFER: return kin__push_buffer(r);
    case KIN_OP_READONLY_BUFFER: return readonly_buffer(r);

    case KIN_OP_EMPTY_LIST: return kin__push_items(r, KIN_LIST, NULL, 0);
    case KIN_OP_EMPTY_DICT: return kin__push_items(r, KIN_DICT, NULL, 0);
    case KIN_OP_EMPTY_SET: return kin__push_items(r, KIN_SET, NULL, 0);
    case KIN_OP_EMPTY_TUPLE: return kin__push(r, &kin__empty_tuple);
    case KIN_OP_LIST: return gather_marked(r, KIN_LIST);
    case KIN_OP_DICT: return gather_dict(r);
    case KIN_OP_TUPLE: return gather_marked(r, KIN_TUPLE);
    case KIN_OP_FROZENSET: return gather_marked(r, KIN_FROZENSET);
    case KIN_OP_TUPLE1: return gather(r, KIN_TUPLE, 1);
    case KIN_OP_TUPLE2: return gather(r, KIN_TUPLE, 2);
    case KIN_OP_TUPLE3: return gather(r, KIN_TUPLE, 3);
    case KIN_OP_APPEND: return add_top(r, KIN_LIST, 1);
    case KIN_OP_SETITEM: return add_top(r, KIN_DICT, 2);
    case KIN_OP_APPENDS: return add_marked(r, KIN_LIST);
    case KIN_OP_SETITEMS: return add_marked(r, KIN_DICT);
    case KIN_OP_ADDITEMS: return add_marked(r, KIN_SET);

    case KIN_OP_GLOBAL: return kin__push_name_lines(r);
    case KIN_OP_STACK_GLOBAL: return stack_global(r);
    case KIN_OP_REDUCE: return reduce(r);
    case KIN_OP_BUILD: return build(r);
    case KIN_OP_INST:
    case KIN_OP_OBJ:
    case KIN_OP_NEWOBJ:
    case KIN_OP_NEWOBJ_EX: return fail_code(r, "an instance of a class is no plain data");
    case KIN_OP_EXT1:
    case KIN_OP_EXT2:
    case KIN_OP_EXT4: return fail_code(r, "codes of copyreg are not known here");
    case KIN_OP_PERSID:
    case KIN_OP_BINPERSID: return fail_code(r, "persistent ids are not known here");
    }
    return kin__fail(r, KIN_EPICKLE, "no opcode");
}

/* Take the next instruction apart. */
static kin_err fetch(kin__reader *r) {
    kin_err err = kin_pickle_step(r->in, r->len, r->off, &r->step);
    if (err == 0) return 0;
    if (err == KIN_EPICKLESHORT) return kin__fail(r, err, "the bytes end");
    return kin__fail(r, err, kin_opcodes[r->in[r->off]].name ? "a length below zero" : "no opcode");
}

static kin_err run_all(kin__reader *r) {
    for (;;) {
        kin_err err = fetch(r);
        if (err == 0) err = run(r);
        if (err < 0 || r->step.opcode == KIN_OP_STOP) return err;
        r->off = r->step.next;
    }
}

/* -- From outside ---------------------------------------------------------------------- */

#define DEFAULT_DEPTH 1000
/* The most for each byte needs a list of empty lists, one byte each: two thirds of this. */
#define MEMORY_PER_BYTE 64
#define MEMORY_AT_LEAST 65536

static void reader_init(kin__reader *r, const void *data, size_t len,
                        const kin_read_options *options) {
    *r = (kin__reader){.in = data, .len = len, .error_off = SIZE_MAX, .reason = ""};
    if (options) r->options = *options;
    if (!r->options.depth) r->options.depth = DEFAULT_DEPTH;
    if (!r->options.items) r->options.items = len;
    if (!r->options.memory) {
        bool fits = len < (SIZE_MAX - MEMORY_AT_LEAST) / MEMORY_PER_BYTE;
        r->options.memory = fits ? MEMORY_AT_LEAST + MEMORY_PER_BYTE * len : SIZE_MAX;
    }
    kin__pool_init(&r->pool, r->options.memory);
}

/* The pool goes on living. */
static void reader_fini(kin__reader *r) {
    kin__pool_free_stack(&r->pool, r->stack, r->room, sizeof *r->stack);
    kin__pool_free_stack(&r->pool, r->marks, r->mark_room, sizeof *r->marks);
    kin__pool_free_stack(&r->pool, r->memo, r->memo_room, sizeof *r->memo);
}

static void say_error(const kin__reader *r, kin_read_error *error) {
    if (!error) return;
    error->off = r->error_off == SIZE_MAX ? r->off : r->error_off;
    error->reason = r->reason;
}

kin_err kin_pickle_read(const void *data, size_t len, const kin_read_options *options,
                        kin_values *out, kin_read_error *error) {
    kin__reader r;
    reader_init(&r, data, len, options);
    kin_err err = run_all(&r);
    const kin_value *root = err == 0 ? top(&r) : NULL;
    kin__pool *pool = err == 0 ? malloc(sizeof *pool) : NULL;
    if (err == 0 && !pool) err = kin__fail(&r, -ENOMEM, "out of memory");
    reader_fini(&r);
    if (!pool) {
        kin__pool_fini(&r.pool);
        say_error(&r, error);
        return err;
    }
    *pool = r.pool;
    *out = (kin_values){
        .root = root,
        .len = r.step.next,
        .memory = r.pool.taken,
        .pool = pool,
    };
    return 0;
}

void kin_values_fini(kin_values *values) {
    if (values->pool) {
        kin__pool_fini(values->pool);
        free(values->pool);
    }
    *values = (kin_values){0};
}
