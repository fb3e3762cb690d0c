/* Writing what was read: a walk over the values, with a stack of its own.
 *
 * Only what the reader has met twice (KIN__SHARED) can be met twice here: such values
 * get a number in the memo, and a place in the map from value to number.
 *
 * What can't be memoised before its items have been written, a tuple say, may be in
 * one of its items.  Then it is begun once more in there, and finished first; back
 * at its own end it has a number, its items are dropped and the number stands for
 * it.  Each time round, something else on the way gets its number, so that it ends. */
#include "pickler.h"

#include <stdlib.h>

#include "reader.h"

/* A container that is being written, and which of its items comes next. */
typedef struct frame {
    const kin_value *value;
    size_t next;
    bool late; /* it has no number before its end */
} frame;

typedef struct entry {
    const kin_value *value; /* NULL: free */
    uint32_t number;
} entry;

typedef struct walk {
    kin_pickler *p;
    frame *frames;
    size_t count, room;
    entry *map; /* map_room is a power of 2, at most half are taken */
    size_t map_count, map_room;
} walk;

/* -- Numbers -------------------------------------------------------------------------- */

/* Where it is, or where it would be. */
static entry *map_slot(entry *map, size_t room, const kin_value *value) {
    uint64_t hash = ((uint64_t)(uintptr_t)value >> 3) * 0x9e3779b97f4a7c15u;
    size_t i = (size_t)(hash >> 32) & (room - 1);
    while (map[i].value && map[i].value != value) i = (i + 1) & (room - 1);
    return &map[i];
}

static kin_err map_grow(walk *w) {
    size_t room = w->map_room ? 2 * w->map_room : 64;
    entry *map = calloc(room, sizeof *map);
    if (!map) return -ENOMEM;
    for (size_t i = 0; i < w->map_room; i++) {
        if (w->map[i].value) *map_slot(map, room, w->map[i].value) = w->map[i];
    }
    free(w->map);
    w->map = map;
    w->map_room = room;
    return 0;
}

/* Its number, if it has one. */
static const entry *map_find(const walk *w, const kin_value *value) {
    if (!w->map_count || !(value->inside[0] & KIN__SHARED)) return NULL;
    const entry *found = map_slot(w->map, w->map_room, value);
    return found->value ? found : NULL;
}

/* What was put last is this value. */
static kin_err memoize(walk *w, const kin_value *value) {
    bool is_small = value->type <= KIN_INT || value->type == KIN_FLOAT;
    if (!(value->inside[0] & KIN__SHARED) || is_small) return 0;
    kin_err err = 2 * (w->map_count + 1) > w->map_room ? map_grow(w) : 0;
    if (err < 0) return kin__pickler_fail(w->p, err);
    uint32_t number;
    err = kin_pickler_memoize(w->p, &number);
    if (err < 0) return err;
    *map_slot(w->map, w->map_room, value) = (entry){value, number};
    w->map_count++;
    return 0;
}

/* -- The walk -------------------------------------------------------------------------- */

static kin_err push_frame(walk *w, const kin_value *value, bool late) {
    void *frames = w->frames;
    kin_err err = kin__grow_array(&frames, &w->room, w->count, sizeof *w->frames);
    w->frames = frames;
    if (err < 0) return kin__pickler_fail(w->p, err);
    w->frames[w->count++] = (frame){.value = value, .late = late};
    return 0;
}

static kin_err put_buffer(kin_pickler *p, const kin_value *value) {
    void *data = (void *)(uintptr_t)value->bytes;
    if (p->writer.protocol >= 5) return kin_put_buffer(p, data, value->len, value->readonly);
    return value->readonly ? kin_put_bytes(p, data, value->len)
                           : kin_put_bytearray(p, data, value->len);
}

static kin_err begin_ref(walk *w, const kin_value *value) {
    const kin_named_ref *ref = value->ref;
    kin_err err = kin__put_open(w->p, ref->family, &ref->ref, ref->module, ref->name);
    if (err == 0) err = memoize(w, value);
    if (err == 0 && ref->state) err = kin__push_nest(w->p, KIN_REF);
    return err == 0 && ref->state ? push_frame(w, value, false) : err;
}

static kin_err begin_container(walk *w, const kin_value *value) {
    kin_err err;
    switch (value->type) {
    case KIN_LIST: err = kin_put_list_begin(w->p); break;
    case KIN_TUPLE: err = kin_put_tuple_begin(w->p); break;
    case KIN_SET: err = kin_put_set_begin(w->p); break;
    case KIN_FROZENSET: err = kin_put_frozenset_begin(w->p); break;
    default: err = kin_put_dict_begin(w->p); break;
    }
    bool late = !w->p->can_memoize;
    if (err == 0 && !late) err = memoize(w, value);
    return err < 0 ? err : push_frame(w, value, late);
}

static kin_err put_leaf(kin_pickler *p, const kin_value *value) {
    switch ((kin_type)value->type) {
    case KIN_NONE: return kin_put_none(p);
    case KIN_BOOL: return kin_put_bool(p, value->truth);
    case KIN_INT: return kin_put_int(p, value->integer);
    case KIN_BIGINT: return kin_put_bigint(p, value->bytes, value->len);
    case KIN_FLOAT: return kin_put_float(p, value->real);
    case KIN_STR: return kin_put_str(p, value->text, value->len);
    case KIN_BYTES: return kin_put_bytes(p, value->bytes, value->len);
    case KIN_BYTEARRAY: return kin_put_bytearray(p, value->bytes, value->len);
    case KIN_BUFFER: return put_buffer(p, value);
    default: return kin__pickler_fail(p, -EINVAL);
    }
}

static kin_err put_one(walk *w, const kin_value *value) {
    const entry *known = map_find(w, value);
    if (known) return kin_put_memo(w->p, known->number);
    if (value->type == KIN_REF) return begin_ref(w, value);
    if (value->type >= KIN_LIST) return begin_container(w, value);
    kin_err err = put_leaf(w->p, value);
    return err < 0 ? err : memoize(w, value);
}

static const kin_value *next_child(frame *top) {
    const kin_value *value = top->value;
    size_t i = top->next++;
    if (value->type == KIN_REF) return i == 0 ? value->ref->state : NULL;
    size_t slots = value->type == KIN_DICT ? 2 * value->len : value->len;
    return i < slots ? value->items[i] : NULL;
}

static kin_err end_container(walk *w) {
    frame *top = &w->frames[--w->count];
    const kin_value *value = top->value;
    const entry *known = top->late ? map_find(w, value) : NULL;
    if (known) return kin__put_instead(w->p, known->number);
    kin_err err = kin_put_end(w->p);
    return err == 0 && top->late ? memoize(w, value) : err;
}

kin_err kin_put_value(kin_pickler *p, const kin_value *value) {
    walk w = {.p = p};
    kin_err err = put_one(&w, value);
    while (err == 0 && w.count > 0) {
        const kin_value *child = next_child(&w.frames[w.count - 1]);
        err = child ? put_one(&w, child) : end_container(&w);
    }
    free(w.frames);
    free(w.map);
    return err;
}
