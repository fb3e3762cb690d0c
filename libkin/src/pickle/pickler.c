/* Writing pickles, value by value.
 *
 * An open container is a nest on a stack.  Its MARK is written when its first item
 * comes, so that an empty one has none; and a batch goes in when the item after it
 * comes, so that the value that was put last is always on top of the loader's
 * stack, where it can be memoised. */
#include "pickler.h"

#include <stdlib.h>

#include "text.h"

/* -- Room ----------------------------------------------------------------------------- */

static kin_err grow(kin_writer *w, size_t need) {
    size_t len = (size_t)(w->at - w->start), room = (size_t)(w->limit - w->start);
    if (need > SIZE_MAX / 2 - len) return -ENOMEM;
    size_t want = room < 128 ? 256 : 2 * room;
    if (want < len + need) want = len + need;
    uint8_t *moved = realloc(w->start, want);
    if (!moved) return -ENOMEM;
    w->start = moved;
    w->at = moved + len;
    w->limit = moved + want;
    return 0;
}

static const kin_writer_ops malloc_ops = {.grow = grow};

kin_err kin__grow_array(void **items, size_t *room, size_t count, size_t item_size) {
    if (count < *room) return 0;
    size_t want = *room ? 2 * *room : 8;
    if (want > SIZE_MAX / 2 / item_size) return -ENOMEM;
    void *moved = realloc(*items, want * item_size);
    if (!moved) return -ENOMEM;
    *items = moved;
    *room = want;
    return 0;
}

kin_err kin__pickler_fail(kin_pickler *p, kin_err err) {
    if (p->err == 0) p->err = err;
    return p->err;
}

/* -- Begin and end --------------------------------------------------------------------- */

void kin_pickler_init(kin_pickler *p, uint8_t protocol) {
    *p = (kin_pickler){.writer = {.ops = &malloc_ops, .protocol = protocol}};
    if (protocol < 2 || protocol > KIN_PICKLE_PROTOCOL) p->err = -EINVAL;
}

void kin_pickler_reset(kin_pickler *p, uint8_t protocol) {
    kin_pickler old = *p;
    kin_pickler_init(p, protocol);
    p->writer.start = p->writer.at = old.writer.start;
    p->writer.end = p->writer.limit = old.writer.limit;
    p->nests = old.nests;
    p->nest_room = old.nest_room;
    p->buffers = old.buffers;
    p->buffer_room = old.buffer_room;
    p->refs = old.refs;
    p->ref_room = old.ref_room;
}

void kin_pickler_fini(kin_pickler *p) {
    free(p->writer.start);
    free(p->nests);
    free(p->buffers);
    free(p->refs);
    *p = (kin_pickler){.err = -EINVAL};
}

kin_err kin_pickler_end(kin_pickler *p, kin_pickled *out) {
    if (p->err < 0) return p->err;
    if (p->nest_count || p->root_count != 1) return kin__pickler_fail(p, KIN_EPICKLEORDER);
    if (!p->ended) {
        kin_err err = kin_writer_end(&p->writer);
        if (err < 0) return kin__pickler_fail(p, err);
        p->ended = true;
    }
    *out = (kin_pickled){
        .data = p->writer.start,
        .len = (size_t)(p->writer.at - p->writer.start),
        .buffers = p->buffers,
        .buffer_count = p->buffer_count,
        .refs = p->refs,
        .ref_count = p->ref_count,
    };
    return 0;
}

/* -- Each value ------------------------------------------------------------------------ */

/* Sets below protocol 4 are made by a call, from a list. */
static bool is_called(const kin_pickler *p, uint8_t type) {
    return p->writer.protocol < 4 && (type == KIN_SET || type == KIN_FROZENSET);
}

/* Does what was put so far go in by an opcode that can come many times? */
static bool is_batched(const kin_pickler *p, uint8_t type) {
    return type == KIN_LIST || type == KIN_DICT || type == KIN_SET || is_called(p, type);
}

/* The opcode that puts what is behind the MARK into the container. */
static kin_err put_batch(kin_pickler *p, kin__nest *nest) {
    if (!nest->marked) return 0;
    nest->marked = false;
    nest->batched = 0;
    kin_opcode op = nest->type == KIN_DICT ? KIN_OP_SETITEMS : KIN_OP_ADDITEMS;
    if (nest->type == KIN_LIST || is_called(p, nest->type)) op = KIN_OP_APPENDS;
    return kin_put_op(&p->writer, op);
}

static kin_err make_place(kin_pickler *p, kin__nest *nest) {
    /* The state of a ref: it stands behind the ref, alone. */
    if (nest->type == KIN_REF) return nest->count++ == 0 ? 0 : KIN_EPICKLEORDER;
    kin_err err = 0;
    size_t full = nest->type == KIN_DICT ? 2 * KIN__BATCH : KIN__BATCH;
    if (nest->batched == full && is_batched(p, nest->type)) err = put_batch(p, nest);
    if (err == 0 && !nest->marked) {
        nest->marked = true;
        err = kin_put_op(&p->writer, KIN_OP_MARK);
    }
    nest->count++;
    nest->batched++;
    return err;
}

kin_err kin__put_begin(kin_pickler *p) {
    if (p->err < 0) return p->err;
    kin_err err = 0;
    if (!p->begun) {
        p->begun = true;
        err = kin_writer_begin(&p->writer, p->writer.protocol);
    }
    if (err == 0 && p->nest_count) err = make_place(p, &p->nests[p->nest_count - 1]);
    else if (err == 0) err = p->root_count++ == 0 ? 0 : KIN_EPICKLEORDER;
    return err < 0 ? kin__pickler_fail(p, err) : 0;
}

kin_err kin__put_done(kin_pickler *p, kin_err err) {
    if (err == 0) err = kin_boundary(&p->writer);
    if (err < 0) return kin__pickler_fail(p, err);
    p->can_memoize = true;
    return 0;
}

/* -- Leaves ---------------------------------------------------------------------------- */

static kin_err put_opcode(kin_pickler *p, kin_opcode op) {
    kin_err err = kin__put_begin(p);
    return err < 0 ? err : kin__put_done(p, kin_put_op(&p->writer, op));
}

kin_err kin_put_none(kin_pickler *p) {
    return put_opcode(p, KIN_OP_NONE);
}

kin_err kin_put_bool(kin_pickler *p, bool truth) {
    return put_opcode(p, truth ? KIN_OP_NEWTRUE : KIN_OP_NEWFALSE);
}

kin_err kin_put_int(kin_pickler *p, int64_t n) {
    kin_err err = kin__put_begin(p);
    if (err < 0) return err;
    err = kin_reserve(&p->writer, KIN_INT_ROOM);
    if (err == 0) p->writer.at = kin_store_int(p->writer.at, n);
    return kin__put_done(p, err);
}

kin_err kin_put_bigint(kin_pickler *p, const void *bytes, size_t len) {
    len = kin__int_trim(bytes, len);
    if (len <= 8) return kin_put_int(p, kin__int_load(bytes, len));
    kin_err err = kin__put_begin(p);
    if (err < 0) return err;
    if (len > INT32_MAX) return kin__pickler_fail(p, -EOVERFLOW);
    uint8_t head[5] = {len < 256 ? KIN_OP_LONG1 : KIN_OP_LONG4, (uint8_t)len};
    if (len >= 256) kin_store4(head + 1, (uint32_t)len);
    return kin__put_done(p, kin_put_payload(&p->writer, head, len < 256 ? 2 : 5, bytes, len));
}

kin_err kin_put_float(kin_pickler *p, double x) {
    kin_err err = kin__put_begin(p);
    if (err < 0) return err;
    err = kin_reserve(&p->writer, 9);
    if (err == 0) p->writer.at = kin_store_float(p->writer.at, x);
    return kin__put_done(p, err);
}

/* The parts of values, in no place of their own. */

static kin_err write_str(kin_pickler *p, const char *text, size_t len) {
    uint8_t head[9];
    if (len > UINT32_MAX && p->writer.protocol < 4) return -EOVERFLOW;
    size_t head_len = (size_t)(kin_store_str_head(head, len, p->writer.protocol) - head);
    return kin_put_payload(&p->writer, head, head_len, len ? text : "", len);
}

static kin_err write_name(kin_pickler *p, const char *module, const char *name) {
    kin_writer *w = &p->writer;
    kin_err err;
    if (w->protocol >= 4) {
        err = write_str(p, module, strlen(module));
        if (err == 0) err = write_str(p, name, strlen(name));
        return err < 0 ? err : kin_put_op(w, KIN_OP_STACK_GLOBAL);
    }
    err = kin_put_op(w, KIN_OP_GLOBAL);
    if (err == 0) err = kin_put_raw(w, module, strlen(module));
    if (err == 0) err = kin_put_raw(w, "\n", 1);
    if (err == 0) err = kin_put_raw(w, name, strlen(name));
    return err < 0 ? err : kin_put_raw(w, "\n", 1);
}

static kin_err write_builtin(kin_pickler *p, const char *name) {
    return write_name(p, p->writer.protocol < 3 ? "__builtin__" : "builtins", name);
}

/* The arguments, which have been written, become a tuple, and the call is made. */
static kin_err write_call(kin_pickler *p, kin_opcode tuple) {
    kin_err err = kin_put_op(&p->writer, tuple);
    return err < 0 ? err : kin_put_op(&p->writer, KIN_OP_REDUCE);
}

/* Bytes as the text of so many code points. */
static kin_err write_latin1(kin_pickler *p, const uint8_t *bytes, size_t len) {
    kin_writer *w = &p->writer;
    size_t text_len = len;
    for (size_t i = 0; i < len; i++) text_len += bytes[i] >> 7;
    if (text_len > UINT32_MAX) return -EOVERFLOW;
    kin_err err = kin_reserve(w, text_len + 9);
    if (err < 0) return err;
    w->at = kin_store_str_head(w->at, text_len, w->protocol);
    for (size_t i = 0; i < len; i++) w->at = kin__utf8_put(w->at, bytes[i]);
    return 0;
}

/* Protocol 2 has no bytes: Python 2 would make a str of this, Python 3 bytes. */
static kin_err write_encoded(kin_pickler *p, const uint8_t *bytes, size_t len) {
    kin_err err;
    if (len == 0) {
        err = write_builtin(p, "bytes");
        return err < 0 ? err : write_call(p, KIN_OP_EMPTY_TUPLE);
    }
    err = write_name(p, "_codecs", "encode");
    if (err == 0) err = write_latin1(p, bytes, len);
    if (err == 0) err = write_str(p, "latin1", 6);
    return err < 0 ? err : write_call(p, KIN_OP_TUPLE2);
}

static kin_err write_bytes(kin_pickler *p, const void *bytes, size_t len) {
    if (p->writer.protocol < 3) return write_encoded(p, bytes, len);
    if (len > UINT32_MAX && p->writer.protocol < 4) return -EOVERFLOW;
    uint8_t head[9];
    size_t head_len = (size_t)(kin_store_bytes_head(head, len) - head);
    return kin_put_payload(&p->writer, head, head_len, len ? bytes : "", len);
}

static kin_err write_bytearray(kin_pickler *p, const void *bytes, size_t len) {
    if (p->writer.protocol >= 5) {
        uint8_t head[9] = {KIN_OP_BYTEARRAY8};
        kin_store8(head + 1, len);
        return kin_put_payload(&p->writer, head, sizeof head, len ? bytes : "", len);
    }
    kin_err err = write_builtin(p, "bytearray");
    if (err < 0) return err;
    if (len == 0) return write_call(p, KIN_OP_EMPTY_TUPLE);
    err = write_bytes(p, bytes, len);
    return err < 0 ? err : write_call(p, KIN_OP_TUPLE1);
}

kin_err kin_put_str(kin_pickler *p, const char *text, size_t len) {
    kin_err err = kin__put_begin(p);
    if (err < 0) return err;
    if (!kin__utf8_is_valid((const uint8_t *)text, len)) return kin__pickler_fail(p, -EILSEQ);
    return kin__put_done(p, write_str(p, text, len));
}

kin_err kin_put_bytes(kin_pickler *p, const void *bytes, size_t len) {
    kin_err err = kin__put_begin(p);
    return err < 0 ? err : kin__put_done(p, write_bytes(p, bytes, len));
}

kin_err kin_put_bytearray(kin_pickler *p, const void *bytes, size_t len) {
    kin_err err = kin__put_begin(p);
    return err < 0 ? err : kin__put_done(p, write_bytearray(p, bytes, len));
}

kin_err kin_put_buffer(kin_pickler *p, void *data, size_t len, bool readonly) {
    kin_err err = kin__put_begin(p);
    if (err < 0) return err;
    if (p->writer.protocol < 5) return kin__pickler_fail(p, -ENOTSUP);
    void *buffers = p->buffers;
    err = kin__grow_array(&buffers, &p->buffer_room, p->buffer_count, sizeof *p->buffers);
    if (err < 0) return kin__pickler_fail(p, err);
    p->buffers = buffers;
    p->buffers[p->buffer_count++] = (kin_buffer){data, len, readonly};
    err = kin_put_op(&p->writer, KIN_OP_NEXT_BUFFER);
    if (err == 0 && readonly) err = kin_put_op(&p->writer, KIN_OP_READONLY_BUFFER);
    return kin__put_done(p, err);
}

/* -- Refs ------------------------------------------------------------------------------ */

/* In a pickle below protocol 4 a name is a line. */
static bool is_name(const kin_pickler *p, const char *name) {
    size_t len = strlen(name);
    if (!kin__utf8_is_valid((const uint8_t *)name, len)) return false;
    return p->writer.protocol >= 4 || !strchr(name, '\n');
}

static kin_err note_ref(kin_pickler *p, const kin_ref *ref) {
    void *refs = p->refs;
    kin_err err = kin__grow_array(&refs, &p->ref_room, p->ref_count, sizeof *p->refs);
    if (err < 0) return err;
    p->refs = refs;
    p->refs[p->ref_count++] = *ref;
    return 0;
}

kin_err kin__put_open(kin_pickler *p, const uint8_t *family, const kin_ref *ref, const char *module,
                      const char *name) {
    uint8_t bytes[KIN_FAMILY_ID_LEN + 20];
    kin_err err = kin__put_begin(p);
    if (err < 0) return err;
    if (!is_name(p, module) || !is_name(p, name)) return kin__pickler_fail(p, -EINVAL);
    memcpy(bytes, family, KIN_FAMILY_ID_LEN);
    kin_store4(bytes + KIN_FAMILY_ID_LEN, ref->kind);
    kin_store8(bytes + KIN_FAMILY_ID_LEN + 4, ref->off);
    kin_store8(bytes + KIN_FAMILY_ID_LEN + 12, ref->serial);
    err = note_ref(p, ref);
    if (err == 0) err = write_name(p, "kinfolk._kin", "_open");
    if (err == 0) err = write_name(p, module, name);
    if (err == 0) err = write_bytes(p, bytes, sizeof bytes);
    if (err == 0) err = write_call(p, KIN_OP_TUPLE2);
    return kin__put_done(p, err);
}

kin_err kin_put_ref(kin_pickler *p, const kin_family *family, const kin_ref *ref,
                    const char *module, const char *name) {
    static const char *const classes[][2] = {
        [KIN_KIND_LOCK] = {"kinfolk.synchronize", "Lock"},
        [KIN_KIND_RLOCK] = {"kinfolk.synchronize", "RLock"},
        [KIN_KIND_SEMAPHORE] = {"kinfolk.synchronize", "Semaphore"},
        [KIN_KIND_EVENT] = {"kinfolk.synchronize", "Event"},
        [KIN_KIND_QUEUE] = {"kinfolk.queues", "Queue"},
        [KIN_KIND_MEMORY] = {"kinfolk._kin", "Memory"},
    };
    bool known = ref->kind < sizeof classes / sizeof *classes && classes[ref->kind][0];
    if (!known && (!module || !name)) return kin__pickler_fail(p, -EINVAL);
    return kin__put_open(p, kin_family_id(family), ref, module ? module : classes[ref->kind][0],
                         name ? name : classes[ref->kind][1]);
}

/* -- Containers ------------------------------------------------------------------------- */

kin_err kin__push_nest(kin_pickler *p, kin_type type) {
    if (p->err < 0) return p->err;
    void *nests = p->nests;
    kin_err err = kin__grow_array(&nests, &p->nest_room, p->nest_count, sizeof *p->nests);
    p->nests = nests;
    if (err < 0) return kin__pickler_fail(p, err);
    p->nests[p->nest_count++] = (kin__nest){.type = (uint8_t)type};
    return 0;
}

/* What stands in front of the items. */
static kin_err write_begin(kin_pickler *p, kin_type type) {
    switch (type) {
    case KIN_LIST: return kin_put_op(&p->writer, KIN_OP_EMPTY_LIST);
    case KIN_DICT: return kin_put_op(&p->writer, KIN_OP_EMPTY_DICT);
    case KIN_SET:
    case KIN_FROZENSET:
        if (is_called(p, type)) {
            kin_err err = write_builtin(p, type == KIN_SET ? "set" : "frozenset");
            return err < 0 ? err : kin_put_op(&p->writer, KIN_OP_EMPTY_LIST);
        }
        return type == KIN_SET ? kin_put_op(&p->writer, KIN_OP_EMPTY_SET) : 0;
    default: return 0;
    }
}

static kin_err put_container(kin_pickler *p, kin_type type) {
    kin_err err = kin__put_begin(p);
    if (err == 0) err = write_begin(p, type);
    if (err < 0) return kin__pickler_fail(p, err);
    p->can_memoize =
        type == KIN_LIST || type == KIN_DICT || (type == KIN_SET && !is_called(p, type));
    return kin__push_nest(p, type);
}

kin_err kin_put_list_begin(kin_pickler *p) {
    return put_container(p, KIN_LIST);
}

kin_err kin_put_tuple_begin(kin_pickler *p) {
    return put_container(p, KIN_TUPLE);
}

kin_err kin_put_dict_begin(kin_pickler *p) {
    return put_container(p, KIN_DICT);
}

kin_err kin_put_set_begin(kin_pickler *p) {
    return put_container(p, KIN_SET);
}

kin_err kin_put_frozenset_begin(kin_pickler *p) {
    return put_container(p, KIN_FROZENSET);
}

static kin_err write_frozenset(kin_pickler *p, bool marked) {
    kin_err err = marked ? 0 : kin_put_op(&p->writer, KIN_OP_MARK);
    return err < 0 ? err : kin_put_op(&p->writer, KIN_OP_FROZENSET);
}

/* What stands behind the items. */
static kin_err write_end(kin_pickler *p, kin__nest *nest) {
    kin_err err;
    switch (nest->type) {
    case KIN_TUPLE: return kin_put_op(&p->writer, nest->marked ? KIN_OP_TUPLE : KIN_OP_EMPTY_TUPLE);
    case KIN_REF: return nest->count ? kin_put_op(&p->writer, KIN_OP_BUILD) : KIN_EPICKLEORDER;
    case KIN_FROZENSET:
        if (!is_called(p, nest->type)) return write_frozenset(p, nest->marked);
        break;
    case KIN_DICT:
        if (nest->count % 2) return KIN_EPICKLEORDER;
        break;
    default: break;
    }
    err = put_batch(p, nest);
    return err == 0 && is_called(p, nest->type) ? write_call(p, KIN_OP_TUPLE1) : err;
}

kin_err kin_put_end(kin_pickler *p) {
    if (p->err < 0) return p->err;
    if (p->nest_count == 0) return kin__pickler_fail(p, KIN_EPICKLEORDER);
    kin_err err = write_end(p, &p->nests[p->nest_count - 1]);
    p->nest_count--;
    return kin__put_done(p, err);
}

/* -- The memo --------------------------------------------------------------------------- */

kin_err kin_pickler_memoize(kin_pickler *p, uint32_t *out) {
    if (p->err < 0) return p->err;
    if (!p->can_memoize || p->ended) return kin__pickler_fail(p, KIN_EPICKLEORDER);
    kin_writer *w = &p->writer;
    if (p->memo_count == UINT32_MAX) return kin__pickler_fail(p, -EOVERFLOW);
    uint32_t number = p->memo_count++;
    kin_err err = kin_reserve(w, 5);
    if (err < 0) return kin__pickler_fail(p, err);
    if (w->protocol >= 4) {
        *w->at++ = KIN_OP_MEMOIZE;
    } else if (number < 256) {
        *w->at++ = KIN_OP_BINPUT;
        *w->at++ = (uint8_t)number;
    } else {
        *w->at++ = KIN_OP_LONG_BINPUT;
        w->at = kin_store4(w->at, number);
    }
    *out = number;
    return 0;
}

static kin_err write_get(kin_writer *w, uint32_t number) {
    kin_err err = kin_reserve(w, 5);
    if (err < 0) return err;
    *w->at++ = number < 256 ? KIN_OP_BINGET : KIN_OP_LONG_BINGET;
    if (number < 256) *w->at++ = (uint8_t)number;
    else w->at = kin_store4(w->at, number);
    return 0;
}

kin_err kin_put_memo(kin_pickler *p, uint32_t number) {
    kin_err err = kin__put_begin(p);
    if (err < 0) return err;
    if (number >= p->memo_count) return kin__pickler_fail(p, KIN_EPICKLEORDER);
    return kin__put_done(p, write_get(&p->writer, number));
}

kin_err kin__put_instead(kin_pickler *p, uint32_t number) {
    if (p->err < 0) return p->err;
    const kin__nest *nest = &p->nests[--p->nest_count];
    kin_err err = nest->marked ? kin_put_op(&p->writer, KIN_OP_POP_MARK) : 0;
    for (int i = 0; err == 0 && i < 2 && is_called(p, nest->type); i++) {
        err = kin_put_op(&p->writer, KIN_OP_POP); /* the list, and the name */
    }
    if (err == 0) err = write_get(&p->writer, number);
    return kin__put_done(p, err);
}
