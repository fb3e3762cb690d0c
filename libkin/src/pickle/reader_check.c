/* The look at what was read when something that was already in a container was
 * changed: the one case in which depths are out of date, or a value contains itself.
 *
 * Depth first, each container once, with a stack of its own: no deeper than the
 * limit allows. */
#include "reader.h"

typedef struct frame {
    kin_value *value;
    size_t next; /* the child that comes next */
} frame;

typedef struct walk {
    kin__reader *r;
    frame *frames;
    size_t count, room;
} walk;

/* The i-th value in a container, NULL behind the last. */
static kin_value *child_of(const kin_value *value, size_t i) {
    if (value->type == KIN_REF) return i == 0 ? (kin_value *)(uintptr_t)value->ref->state : NULL;
    size_t slots = value->type == KIN_DICT ? 2 * value->len : value->len;
    return i < slots ? (kin_value *)(uintptr_t)value->items[i] : NULL;
}

/* Can there be something in it? */
static bool is_container(const kin_value *value) {
    if (value->type == KIN_TUPLE) return value->len > 0;
    if (value->type == KIN_REF) return value->ref->state != NULL;
    return value->type >= KIN_LIST;
}

static kin_err enter(walk *w, kin_value *value) {
    if (w->count == w->r->options.depth) {
        return kin__fail(w->r, KIN_EPICKLELIMIT,
                         "containers lie in one another deeper than allowed");
    }
    if (w->count == w->room) {
        void *frames = w->frames;
        kin_err err =
            kin__pool_grow_stack(&w->r->pool, &frames, &w->room, w->count + 1, sizeof *w->frames);
        w->frames = frames;
        if (err < 0) return kin__fail_memory(w->r);
    }
    value->inside[0] |= KIN__OPEN;
    value->depth = 1;
    w->frames[w->count++] = (frame){.value = value};
    return 0;
}

/* The topmost is done: it makes its container deeper. */
static void leave(walk *w) {
    kin_value *value = w->frames[--w->count].value;
    value->inside[0] &= (uint8_t)~KIN__OPEN;
    value->inside[0] |= KIN__DONE;
    if (w->count == 0) return;
    kin_value *outer = w->frames[w->count - 1].value;
    if (outer->depth <= value->depth) outer->depth = value->depth + 1;
}

/* It lies in `outer`, and is as deep as it says. */
static kin_err deepen(walk *w, kin_value *outer, const kin_value *value) {
    if (outer->depth <= value->depth) outer->depth = value->depth + 1;
    if (w->count + value->depth <= w->r->options.depth) return 0;
    return kin__fail(w->r, KIN_EPICKLELIMIT, "containers lie in one another deeper than allowed");
}

static kin_err look_at(walk *w, kin_value *outer, kin_value *value) {
    /* The empty tuple is one for all, and nothing may be noted in it. */
    if (!is_container(value)) return value->depth ? deepen(w, outer, value) : 0;
    if (value->inside[0] & KIN__OPEN) {
        if (w->r->options.cycles) return 0;
        return kin__fail(w->r, KIN_EPICKLELIMIT, "a value contains itself, which is not allowed");
    }
    return value->inside[0] & KIN__DONE ? deepen(w, outer, value) : enter(w, value);
}

static kin_err walk_all(walk *w) {
    while (w->count > 0) {
        frame *top = &w->frames[w->count - 1];
        kin_value *child = child_of(top->value, top->next++);
        kin_err err = 0;
        if (child) err = look_at(w, top->value, child);
        else leave(w);
        if (err < 0) return err;
    }
    return 0;
}

kin_err kin__check_tangle(kin__reader *r, kin_value *root) {
    if (!is_container(root)) return 0;
    walk w = {.r = r};
    kin_err err = enter(&w, root);
    if (err == 0) err = walk_all(&w);
    kin__pool_free_stack(&r->pool, w.frames, w.room, sizeof *w.frames);
    return err;
}
