/* Chunks that nobody uses any more give their pages back.
 *
 * A unit that was cut into blocks of one size stays a chunk of that size for ever, so that no list,
 * and nobody who was stopped in the middle of something, can take a block of it for one of another
 * size.  But its pages go when all of its blocks are free: it gets cold.  The steps:
 *
 *   all blocks     FREE → HAND(me), by their tags: who is about to take or list one of them fails
 *   the lists      begun anew, so that none leads to what is in hand
 *   the unit       CHUNK → HAND(me); its pages punched, so that the tags inside read 0
 *                  → FREE, on the cold list of its size, by the unit's own header
 *
 * and back again when blocks of that size are needed and none is there.  Killed in between, what is
 * in hand is a burial's, which does the rest.  Steps like these and a rescue, which lists free blocks
 * by walking over them, exclude each other (the cooler's mutex).
 *
 * When it is worth a look is told by counts, which are only hints. */
#include <stdlib.h>

#include "arena_internal.h"
#include "fault.h"
#include "mutex.h"
#include "os/os.h"

/* So many chunks are to be unused, and one in so many of all: a walk over all blocks has to pay. */
#define IDLE_MIN 64
#define IDLE_SHARE 4

static kin_unit_shm *unit_at(kin_family *family, uint64_t off) {
    return &family->units[unit_of(off)];
}

static int64_t count(_Atomic int64_t *hint, int64_t change) {
    return atomic_fetch_add_explicit(hint, change, memory_order_relaxed) + change;
}

/* -- The hints ------------------------------------------------------------------------------- */

void kin__chunk_made(kin_family *family, uint64_t off) {
    atomic_store_explicit(&unit_at(family, off)->used, 1, memory_order_relaxed);
    count(&family->arena->chunks, 1);
}

void kin__chunk_used(kin_family *family, uint64_t off) {
    if (count(&unit_at(family, off)->used, 1) == 1) count(&family->arena->idle, -1);
}

void kin__chunk_unused(kin_family *family, uint64_t off) {
    if (count(&unit_at(family, off)->used, -1) != 0) return;
    int64_t idle = count(&family->arena->idle, 1);
    int64_t chunks = atomic_load_explicit(&family->arena->chunks, memory_order_relaxed);
    if (idle >= IDLE_MIN && idle * IDLE_SHARE >= chunks) kin__chunks_cool(family, false);
}

/* -- One chunk ----------------------------------------------------------------------------------- */

static unsigned class_at(kin_family *family, uint64_t off) {
    return tag_class(atomic_load_explicit(&unit_at(family, off)->block.tag, memory_order_relaxed));
}

#define BLOCKS_MAX (KIN_UNIT / KIN_GRANULE)

/* All of its blocks into this member's hands, or none.  They are counted as used meanwhile, for a
 * burial would free them. */
static bool take_all(kin_family *family, uint64_t start) {
    uint64_t size = kin__small_size[class_at(family, start)], taken = 0, tags[BLOCKS_MAX];
    uint64_t hand = KIN_TAG(KIN_HAND, KIN_KIND_RAW, kin__token(family));
    uint64_t blocks = KIN_UNIT / size;
    count(&unit_at(family, start)->used, (int64_t)blocks);
    for (; taken < blocks; taken++) {
        kin_block_shm *block = kin__at(family, start + taken * size);
        tags[taken] = kin__block_tag(block);
        if (KIN_TAG_STATE(tags[taken]) != KIN_FREE || !kin__block_retag(block, tags[taken], hand))
            break;
    }
    KIN_FAULT("chunk-taken");
    if (taken == blocks) return true;
    /* they are where they were, on a list; but see begin_lists_anew */
    while (taken--) kin__block_retag(kin__at(family, start + taken * size), hand, tags[taken]);
    count(&unit_at(family, start)->used, -(int64_t)blocks);
    return false;
}

void kin__chunk_cool(kin_family *family, uint64_t off) {
    kin_unit_shm *unit = unit_at(family, off);
    unsigned class = class_at(family, off);
    if (kin__os_memory_punch(kin__at(family, off), KIN_UNIT) == 0) kin__uncommit(family, KIN_UNIT);
    KIN_FAULT("chunk-punched");
    kin__list_put(cold_list(family, class), KIN_COLD, &unit->block, off,
                  kin__block_tag(&unit->block));
}

static void let_go(kin_family *family, uint64_t off) {
    kin_block_shm *block = &unit_at(family, off)->block;
    uint64_t hand = KIN_TAG(KIN_HAND, KIN_KIND_RAW, kin__token(family));
    kin__block_retag(block, KIN_TAG(KIN_CHUNK, 0, 0), hand);
    KIN_FAULT("chunk-in-hand");
    kin__chunk_cool(family, off);
}

/* -- All of them --------------------------------------------------------------------------------- */

typedef struct search {
    uint64_t *taken; /* chunks that are to get cold, all of their blocks in hand */
    size_t found, room;
    bool disturbed[KIN_SMALL_CLASSES]; /* blocks of this size were in hand, if only for a moment */
    int64_t chunks, idle;              /* how many others there are */
} search;

static void try(kin_family *family, search *s, uint64_t off, unsigned class, bool all) {
    int64_t used = atomic_load_explicit(&unit_at(family, off)->used, memory_order_relaxed);
    bool is_tried = (all || used <= 0) && s->found < s->room;
    if (is_tried) s->disturbed[class] = true;
    if (is_tried && take_all(family, off)) {
        s->taken[s->found++] = off;
        return;
    }
    s->chunks++;
    s->idle += used <= 0 && !is_tried;
}

static void look_through(kin_family *family, search *s, bool all) {
    uint64_t top = atomic_load_explicit(&family->arena->top, memory_order_acquire);
    for (uint64_t unit = family->arena->first_unit; unit < top;) {
        uint64_t tag = atomic_load_explicit(&unit_block(family, unit)->tag, memory_order_acquire);
        unsigned class = tag_class(tag);
        if (class >= KIN_CLASSES) break; /* torn: nothing behind it can be found */
        if (KIN_TAG_STATE(tag) == KIN_CHUNK && class < KIN_LARGE)
            try(family, s, unit * KIN_UNIT, class, all);
        unit += class_units(class);
    }
    atomic_store_explicit(&family->arena->chunks, s->chunks, memory_order_relaxed);
    atomic_store_explicit(&family->arena->idle, s->idle, memory_order_relaxed);
}

/* So that none leads to what is in hand; and since who was just about to take a block that was in
 * hand for a moment has dropped it from its list. */
static void begin_lists_anew(kin_family *family, const search *s) {
    for (unsigned class = 0; class < KIN_SMALL_CLASSES; class++)
        if (s->disturbed[class]) kin__list_new_epoch(warm_list(family, class));
    KIN_FAULT("chunk-lists");
    kin__blocks_relist(family);
}

#define AT_ONCE 4096

static void cool(kin_family *family, bool all) {
    search s = {.room = AT_ONCE, .taken = malloc(AT_ONCE * sizeof *s.taken)};
    if (!s.taken) return;
    look_through(family, &s, all);
    begin_lists_anew(family, &s);
    for (size_t i = 0; i < s.found; i++) let_go(family, s.taken[i]);
    free(s.taken);
}

void kin__chunks_cool(kin_family *family, bool all) {
    kin_mutex_shm *cooler = &family->arena->cooler;
    /* somebody alive is at it already, or nobody is: who died at it is buried by others */
    if (kin__mutex_lock_until(family, cooler, KIN_NOW) < 0) return;
    cool(family, all);
    kin__mutex_unlock(cooler);
}
