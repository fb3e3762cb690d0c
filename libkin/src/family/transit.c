/* Holds for messages under way outside of the arena.
 *
 * A transit is a list of passages: places, as references in blobs are, each with the number of the
 * hold that it belongs to.  They are in the transit's own block and, when there are more, in
 * further ones that hang from it one behind the other; a block stays until the transit ends.  A
 * number says where its first passage is, and each passage how many of its hold come behind it, so
 * that a drop looks at few others.
 *
 * One robust mutex guards it all.  While a hold is made or dropped its number is `pending`: if the
 * member that does so is killed, the message was not sent yet, or has been opened already, and
 * who takes the mutex over gives back what has that number.  A member killed when the hold was
 * made and before its message was sent leaves the hold until the transit ends: nobody can know. */
#include "transit.h"

#include <string.h>

#include "arena.h"
#include "fault.h"
#include "mutex.h"
#include "refs.h"

typedef struct kin_passage_shm {
    _Atomic uint64_t object; /* a place; 0: the passage is free */
    _Atomic uint64_t number;
    _Atomic uint64_t behind; /* how many of the same hold follow */
} kin_passage_shm;

typedef struct kin_passages_shm {
    _Atomic uint64_t next; /* a place */
    kin_passage_shm passage[];
} kin_passages_shm;

typedef struct kin_transit_shm {
    kin_mutex_shm mutex;
    uint32_t pad;
    _Atomic uint64_t holds;   /* made so far */
    _Atomic uint64_t pending; /* number of the one that is being made or dropped, or 0 */
    _Atomic uint64_t free;    /* there is no free passage before this one */
    kin_passages_shm first;
} kin_transit_shm;

/* Of a block: the first one, and the largest. */
#define BLOCK_FIRST 192
#define BLOCK_LAST 4096

/* A number: the how-manieth hold of this transit it is, and where its first passage. */
#define INDEX_BITS 24
#define NUMBER(holds, index) ((holds) << INDEX_BITS | (index))
#define INDEX(number) ((number) & ((1u << INDEX_BITS) - 1))

static uint64_t get(const _Atomic uint64_t *word) {
    return atomic_load_explicit(word, memory_order_relaxed); /* the mutex orders all of them */
}

static void set(_Atomic uint64_t *word, uint64_t value) {
    atomic_store_explicit(word, value, memory_order_relaxed);
}

/* -- Walking over passages ------------------------------------------------------------ */

typedef struct kin_walk {
    kin_family *family;
    kin_passages_shm *block; /* NULL: at the end */
    uint64_t count;          /* passages in it */
    uint64_t at;             /* the next one in it */
    uint64_t index;          /* the next one of all */
} kin_walk;

static void enter(kin_walk *walk, uint64_t off, kin_passages_shm *block) {
    uint64_t end = kin__off(walk->family, kin__payload(walk->family, off)) +
                   kin__payload_room(walk->family, off);
    walk->block = block;
    walk->count = (end - kin__off(walk->family, block->passage)) / sizeof(kin_passage_shm);
    walk->at = 0;
}

static void enter_next(kin_walk *walk) {
    uint64_t off = atomic_load_explicit(&walk->block->next, memory_order_acquire);
    kin_block_shm *block = off ? kin__block_find(walk->family, off) : NULL;
    if (block && kin__block_tag(block) == KIN_TAG(KIN_OBJECT, KIN_KIND_PASSAGES, 0))
        enter(walk, off, kin__payload(walk->family, off));
    else walk->block = NULL;
}

/* The next passage, NULL at the end. */
static kin_passage_shm *step(kin_walk *walk) {
    while (walk->block && walk->at == walk->count) enter_next(walk);
    if (!walk->block) return NULL;
    walk->index++;
    return &walk->block->passage[walk->at++];
}

static kin_walk walk_from(kin_family *family, uint64_t off, uint64_t index) {
    kin_transit_shm *shm = kin__payload(family, off);
    kin_walk walk = {.family = family};
    enter(&walk, off, &shm->first);
    while (walk.block && walk.index + walk.count <= index) {
        walk.index += walk.count;
        enter_next(&walk);
    }
    walk.at = index - walk.index;
    walk.index = index;
    return walk;
}

/* -- The mutex ---------------------------------------------------------------------------- */

static void release(kin_family *family, kin_passage_shm *passage) {
    kin__ref_out_of(family, &passage->object);
    KIN_FAULT("transit-released");
    set(&passage->number, 0);
}

/* Give back what is pending, wherever it is. */
static void settle(kin_family *family, uint64_t off) {
    kin_transit_shm *shm = kin__payload(family, off);
    uint64_t pending = get(&shm->pending);
    if (!pending) return;
    kin_walk walk = walk_from(family, off, 0);
    kin_passage_shm *passage;
    while ((passage = step(&walk)))
        if (get(&passage->number) == pending) release(family, passage);
    set(&shm->free, 0);
    set(&shm->pending, 0);
}

static kin_err lock(kin_family *family, uint64_t off) {
    kin_transit_shm *shm = kin__payload(family, off);
    kin_err err = kin__mutex_lock(family, &shm->mutex);
    if (err < 0) return err;
    if (err == KIN_OWNER_DIED) settle(family, off);
    return 0;
}

static void unlock(kin_family *family, uint64_t off) {
    kin_transit_shm *shm = kin__payload(family, off);
    kin__mutex_unlock(&shm->mutex);
}

/* -- Transits ----------------------------------------------------------------------------- */

kin_err kin_transit_create(kin_family *family, kin_transit *out) {
    kin_handle handle;
    kin_err err = kin__object_new(family, BLOCK_FIRST - KIN_HEADER, &handle);
    if (err) return err;
    memset(handle.shm, 0, kin__payload_room(family, handle.ref.off));
    kin__object_share(&handle, KIN_KIND_TRANSIT);
    out->handle = handle;
    return 0;
}

kin_err kin_transit_open(kin_family *family, const kin_ref *ref, kin_transit *out) {
    return kin__object_open(family, ref, KIN_KIND_TRANSIT, &out->handle);
}

void kin_transit_close(kin_transit *transit) {
    kin_handle_close(&transit->handle);
}

/* A block of `kind`, zeroed, held by the place; or nothing if the place is taken by then. */
static kin_err hang(kin_family *family, uint64_t size, unsigned kind, _Atomic uint64_t *place) {
    uint64_t off;
    kin_err err = kin__block_new(family, size - KIN_HEADER, &off);
    if (err) return err;
    memset(kin__payload(family, off), 0, kin__payload_room(family, off));
    KIN_FAULT("transit-growing");
    if (!kin__object_share_at(family, off, kind, place)) kin__block_free(family, off);
    return 0;
}

kin_err kin_transit_of_family(kin_family *family, kin_transit *out) {
    _Atomic uint64_t *place = &family->arena->transit;
    kin_err err = kin__may(family);
    if (!err && !atomic_load_explicit(place, memory_order_acquire))
        err = hang(family, BLOCK_LAST, KIN_KIND_TRANSIT, place);
    if (err) return err;
    uint64_t off = atomic_load_explicit(place, memory_order_acquire);
    return kin__object_pin(family, off, KIN_KIND_TRANSIT, &out->handle);
}

static void end_passages(kin_family *family, uint64_t off, kin_passages_shm *passages) {
    kin_walk walk = {.family = family};
    enter(&walk, off, passages);
    for (uint64_t i = 0; i < walk.count; i++) kin__ref_out_of(family, &passages->passage[i].object);
    kin__ref_out_of(family, &passages->next);
}

void kin__transit_end(kin_family *family, uint64_t off) {
    kin_transit_shm *shm = kin__payload(family, off);
    end_passages(family, off, &shm->first);
}

void kin__passages_end(kin_family *family, uint64_t off) {
    end_passages(family, off, kin__payload(family, off));
}

void kin__transit_bury(kin_family *family, uint64_t off, uint32_t token) {
    kin_transit_shm *shm = kin__payload(family, off);
    kin_handle pin;
    if (!kin__mutex_is_held_by(&shm->mutex, token)) return;
    if (kin__object_pin(family, off, KIN_KIND_TRANSIT, &pin)) return;
    if (!lock(family, off)) unlock(family, off);
    kin_handle_close(&pin);
}

/* -- Holds ---------------------------------------------------------------------------------- */

static bool has_room(kin_family *family, uint64_t off, uint32_t count) {
    kin_transit_shm *shm = kin__payload(family, off);
    kin_walk walk = walk_from(family, off, get(&shm->free));
    while (count) {
        kin_passage_shm *passage = step(&walk);
        if (!passage) break;
        if (!get(&passage->object)) count--;
    }
    return count == 0 && walk.index <= 1u << INDEX_BITS;
}

/* One more block behind the others, without the mutex: to make a block may mean to bury a member.
 * If there is one more by then, that will do. */
static kin_err grow(kin_family *family, uint64_t off) {
    uint64_t size = 2 * BLOCK_FIRST;
    kin_walk walk = walk_from(family, off, 0);
    kin_passages_shm *last = walk.block;
    for (enter_next(&walk); walk.block; enter_next(&walk)) {
        last = walk.block;
        if (size < BLOCK_LAST) size *= 2;
    }
    return hang(family, size < BLOCK_LAST ? size : BLOCK_LAST, KIN_KIND_PASSAGES, &last->next);
}

static kin_err lock_with_room(kin_family *family, uint64_t off, uint32_t count) {
    for (;;) {
        kin_err err = lock(family, off);
        if (err || has_room(family, off, count)) return err;
        unlock(family, off);
        err = grow(family, off);
        if (err) return err;
    }
}

static kin_passage_shm *next_free(kin_walk *walk) {
    kin_passage_shm *passage;
    while ((passage = step(walk)))
        if (!get(&passage->object)) break;
    return passage;
}

static kin_err hold_all(kin_family *family, uint64_t off, const kin_ref *refs, uint32_t count,
                        uint64_t *number) {
    kin_transit_shm *shm = kin__payload(family, off);
    kin_walk walk = walk_from(family, off, get(&shm->free));
    kin_err err = 0;
    set(&shm->holds, get(&shm->holds) + 1);
    for (uint32_t i = 0; i < count && !err; i++) {
        kin_passage_shm *passage = next_free(&walk);
        if (i == 0) {
            *number = NUMBER(get(&shm->holds), walk.index - 1);
            atomic_store_explicit(&shm->pending, *number, memory_order_release);
        }
        set(&passage->behind, count - 1 - i);
        set(&passage->number, *number);
        KIN_FAULT("transit-holding");
        err = kin__ref_into(family, &refs[i], &passage->object);
    }
    if (err) settle(family, off);
    else set(&shm->free, walk.index);
    set(&shm->pending, 0);
    return err;
}

kin_err kin_transit_hold(kin_transit *transit, const kin_ref *refs, uint32_t count,
                         uint64_t *number) {
    kin_family *family = transit->handle.family;
    uint64_t off = transit->handle.ref.off, made = NUMBER(0ull, 1); /* of none: never one of some */
    kin_err err = kin__may(family);
    if (!err && count) {
        err = lock_with_room(family, off, count);
        if (err) return err;
        err = hold_all(family, off, refs, count, &made);
        unlock(family, off);
    }
    if (!err) *number = made;
    return err;
}

static void drop_all(kin_family *family, uint64_t off, uint64_t number) {
    kin_transit_shm *shm = kin__payload(family, off);
    kin_walk walk = walk_from(family, off, INDEX(number));
    kin_passage_shm *passage = step(&walk);
    if (!passage || get(&passage->number) != number) return;
    uint64_t behind = get(&passage->behind);
    atomic_store_explicit(&shm->pending, number, memory_order_release);
    release(family, passage);
    while (behind) {
        passage = step(&walk);
        if (!passage) break;
        if (get(&passage->number) != number) continue;
        behind = get(&passage->behind);
        release(family, passage);
    }
    if (INDEX(number) < get(&shm->free)) set(&shm->free, INDEX(number));
    set(&shm->pending, 0);
}

void kin_transit_drop(kin_transit *transit, uint64_t number) {
    kin_family *family = transit->handle.family;
    uint64_t off = transit->handle.ref.off;
    if (!number || kin__may(family) || lock(family, off)) return;
    drop_all(family, off, number);
    unlock(family, off);
}
