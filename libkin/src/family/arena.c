/* Blocks of the arena.
 *
 * Small blocks share units of 64 KiB, cut into pieces of one size; large ones
 * are runs of 2^k units, of which only the pages that are used cost memory.
 * Free blocks wait on lock-free lists, one a size class, and large ones on a
 * second, "cold" list when their pages were given back to the system.
 *
 * The lists are only hints.  The truth is the block's tag: a block is taken by
 * one compare-and-swap of its tag from FREE to HAND(me), wherever it was found,
 * and so can't be given out twice whatever a list says.  A member killed between
 * taking a block off its list and claiming it leaves it free but hidden.
 * kin__blocks_rescue finds such blocks: each list has an epoch, which a free
 * block's tag repeats; it empties the lists under a new epoch and lists again
 * every block that has an old one.
 *
 * Growth is counted in pages touched (`committed`).  At the limit, warm free
 * blocks are given back, the dead are buried, and the count is set right by the
 * kernel's own before anyone is refused. */
#include "arena.h"

#include <string.h>

#include "arena_internal.h"
#include "fault.h"
#include "mutex.h"
#include "os/os.h"

const uint32_t kin__small_size[KIN_SMALL_CLASSES] = {
    64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 32768,
};
#define SMALL_MAX 32768

/* -- Where things are ------------------------------------------------------ */

static uint64_t class_tag(unsigned class) {
    return (uint64_t)(class + 1) << 48;
}

static unsigned class_for(uint64_t len) {
    if (len + KIN_HEADER <= SMALL_MAX) {
        unsigned class = 0;
        while (kin__small_size[class] < len + KIN_HEADER) class++;
        return class;
    }
    unsigned class = KIN_LARGE;
    while (class < KIN_CLASSES && class_units(class) * KIN_UNIT < len) class++;
    return class;
}

kin_block_shm *kin__block(const kin_family *family, uint64_t off) {
    kin_block_shm *block = unit_block(family, unit_of(off));
    uint64_t tag = atomic_load_explicit(&block->tag, memory_order_acquire);
    return KIN_TAG_STATE(tag) == KIN_CHUNK ? kin__at(family, off) : block;
}

kin_block_shm *kin__block_find(const kin_family *family, uint64_t off) {
    uint64_t unit = unit_of(off);
    if (unit < family->arena->first_unit || unit >= family->arena->end_unit) return NULL;
    kin_block_shm *block = unit_block(family, unit);
    uint64_t tag = atomic_load_explicit(&block->tag, memory_order_acquire);
    unsigned class = tag_class(tag);
    if (tag == 0 || class >= KIN_CLASSES) return NULL;
    /* a large block, or a chunk that is cold: one block, whatever is asked for inside of it */
    if (KIN_TAG_STATE(tag) != KIN_CHUNK) return off % KIN_UNIT ? NULL : block;
    if (class >= KIN_LARGE) return NULL;
    uint64_t within = off % KIN_UNIT, size = kin__small_size[class];
    return within % size || within + size > KIN_UNIT ? NULL : kin__at(family, off);
}

static bool is_small(const kin_family *family, const kin_block_shm *block) {
    return (const uint8_t *)block >=
           (const uint8_t *)kin__at(family, family->arena->first_unit * KIN_UNIT);
}

void *kin__payload(const kin_family *family, uint64_t off) {
    uint8_t *start = kin__at(family, off);
    return is_small(family, kin__block(family, off)) ? start + KIN_HEADER : start;
}

uint64_t kin__payload_room(const kin_family *family, uint64_t off) {
    uint64_t tag =
        atomic_load_explicit(&unit_block(family, unit_of(off))->tag, memory_order_acquire);
    unsigned class = tag_class(tag);
    return class < KIN_LARGE ? kin__small_size[class] - KIN_HEADER : class_units(class) * KIN_UNIT;
}

/* -- Tags ------------------------------------------------------------------- */

bool kin__block_retag(kin_block_shm *block, uint64_t expected, uint64_t desired) {
    uint64_t tag = atomic_load_explicit(&block->tag, memory_order_relaxed);
    uint64_t class = tag & KIN_TAG_CLASS_BITS;
    expected |= class;
    /* Both ways: what was written to the block before is seen by who takes it. */
    return atomic_compare_exchange_strong_explicit(&block->tag, &expected, desired | class,
                                                   memory_order_acq_rel, memory_order_relaxed);
}

bool kin__block_take(kin_family *family, kin_block_shm *block, uint64_t expected) {
    uint64_t hand = KIN_TAG(KIN_HAND, KIN_TAG_KIND(expected), kin__token(family));
    if (!kin__block_retag(block, expected, hand)) return false;
    atomic_fetch_add_explicit(&family->hands, 1, memory_order_relaxed);
    return true;
}

void kin__block_put(kin_family *family, kin_block_shm *block, unsigned state, unsigned kind) {
    uint64_t class = atomic_load_explicit(&block->tag, memory_order_relaxed) & KIN_TAG_CLASS_BITS;
    atomic_store_explicit(&block->tag, KIN_TAG(state, kind, 0) | class, memory_order_release);
    atomic_fetch_sub_explicit(&family->hands, 1, memory_order_relaxed);
}

/* -- Free lists -------------------------------------------------------------- */

#define HEAD(granule, epoch, changes) \
    (((uint64_t)(granule) << 28) | ((uint64_t)(epoch) << 24) | ((changes) & 0xffffff))
#define HEAD_GRANULE(head) ((head) >> 28)
#define HEAD_EPOCH(head) ((uint32_t)((head) >> 24) & 0xf)
#define HEAD_CHANGES(head) ((uint32_t)(head) & 0xffffff)
/* In the tag of a free block that waits on a cold list. */
#define COLD KIN_COLD

static uint64_t free_tag(uint64_t head, uint32_t cold) {
    return KIN_TAG(KIN_FREE, 0, HEAD_EPOCH(head) | cold);
}

static bool head_swap(kin_list_shm *list, uint64_t *head, uint64_t granule, uint32_t epoch) {
    /* Pairs with the acquire loads of the head: who sees a block sees its next. */
    return atomic_compare_exchange_weak_explicit(list, head,
                                                 HEAD(granule, epoch, HEAD_CHANGES(*head) + 1),
                                                 memory_order_acq_rel, memory_order_acquire);
}

/* How many blocks a list may offer that are not free before it is taken to be
 * damaged.  Each refusal has an innocent cause (another member was quicker). */
#define REFUSALS 64

/* Take a block off the list and into the hands of `token`: its offset, or 0. */
uint64_t kin__list_take(kin_family *family, kin_list_shm *list, uint32_t cold, uint32_t token) {
    uint64_t head = atomic_load_explicit(list, memory_order_acquire);
    for (int refusals = 0; refusals < REFUSALS;) {
        uint64_t granule = HEAD_GRANULE(head);
        if (granule == 0) return 0;
        uint64_t off = granule * KIN_GRANULE;
        kin_block_shm *block = kin__block_find(family, off);
        if (!block) return 0; /* a rescue starts the list anew */
        uint64_t next = atomic_load_explicit(&block->next, memory_order_relaxed);
        uint64_t tag = free_tag(head, cold);
        if (!head_swap(list, &head, next, HEAD_EPOCH(head))) continue;
        KIN_FAULT("arena-popped");
        if (kin__block_retag(block, tag, KIN_TAG(KIN_HAND, KIN_KIND_RAW, token))) return off;
        refusals++;
        head = atomic_load_explicit(list, memory_order_acquire);
    }
    return 0;
}

/* Put a block on the list whose present tag is `tag` (in this member's hands). */
void kin__list_put(kin_list_shm *list, uint32_t cold, kin_block_shm *block, uint64_t off,
                   uint64_t tag) {
    uint64_t head = atomic_load_explicit(list, memory_order_acquire);
    uint32_t token = KIN_TAG_LOW(tag);
    for (;;) {
        uint64_t listed = free_tag(head, cold);
        atomic_store_explicit(&block->next, HEAD_GRANULE(head), memory_order_relaxed);
        /* After a change of epoch a rescuer may have listed it in our stead. */
        if (!kin__block_retag(block, tag, listed)) return;
        KIN_FAULT("arena-freed");
        if (head_swap(list, &head, off / KIN_GRANULE, HEAD_EPOCH(head))) return;
        /* Back in hand first: who rescues or cools may have taken what was FREE and on no list,
         * and its `next` be another's by now. */
        tag = KIN_TAG(KIN_HAND, KIN_KIND_RAW, token);
        if (!kin__block_retag(block, listed, tag)) return;
    }
}

/* -- Growth ------------------------------------------------------------------- */

static uint64_t pages(uint64_t len) {
    uint64_t page = kin__os_page();
    return (len + page - 1) / page * page;
}

/* Give the pages of a large block in this member's hands back to the system. */
static void cool(kin_family *family, uint64_t off) {
    kin_unit_shm *unit = &family->units[unit_of(off)];
    uint64_t touched = atomic_load_explicit(&unit->touched, memory_order_relaxed);
    if (kin__os_memory_punch(kin__at(family, off), pages(touched)) < 0) return;
    atomic_store_explicit(&unit->touched, 0, memory_order_relaxed);
    atomic_fetch_sub_explicit(&family->arena->committed, (int64_t)pages(touched),
                              memory_order_relaxed);
}

/* Give back the pages of all free large blocks. */
static void trim(kin_family *family) {
    uint32_t token = kin__token(family);
    for (unsigned class = KIN_LARGE; class < KIN_CLASSES; class++) {
        uint64_t off;
        while ((off = kin__list_take(family, warm_list(family, class), 0, token))) {
            kin_unit_shm *unit = &family->units[unit_of(off)];
            uint64_t touched = atomic_load_explicit(&unit->touched, memory_order_relaxed);
            atomic_fetch_sub_explicit(&family->arena->warm, (int64_t)touched, memory_order_relaxed);
            cool(family, off);
            kin__list_put(cold_list(family, class), COLD, &unit->block, off,
                          kin__block_tag(&unit->block));
        }
    }
}

static bool commit(kin_family *family, uint64_t len) {
    kin_arena_shm *arena = family->arena;
    int64_t before =
        atomic_fetch_add_explicit(&arena->committed, (int64_t)len, memory_order_relaxed);
    if (before + (int64_t)len <= (int64_t)arena->limit) return true;
    atomic_fetch_sub_explicit(&arena->committed, (int64_t)len, memory_order_relaxed);
    return false;
}

void kin__uncommit(kin_family *family, uint64_t len) {
    atomic_fetch_sub_explicit(&family->arena->committed, (int64_t)len, memory_order_relaxed);
}

/* Kills in the middle of counting make the count drift; the kernel knows. */
static void recount(kin_family *family) {
    uint64_t given = kin__os_memory_given(family->fd);
    int64_t counted = atomic_load_explicit(&family->arena->committed, memory_order_relaxed);
    if (given && counted > (int64_t)given)
        atomic_compare_exchange_strong_explicit(&family->arena->committed, &counted, (int64_t)given,
                                                memory_order_relaxed, memory_order_relaxed);
}

static bool commit_hard(kin_family *family, uint64_t len, bool may_reap) {
    if (commit(family, len)) return true;
    if (len > family->arena->limit) return false;
    trim(family);
    if (commit(family, len)) return true;
    kin__chunks_cool(family, true);
    if (commit(family, len)) return true;
    if (may_reap && kin_family_reap(family) > 0) {
        trim(family);
        if (commit(family, len)) return true;
    }
    recount(family);
    return commit(family, len);
}

/* Take units that were never used: their offset, or 0 if there are none left.
 * The claim is the tag; `top` follows, moved on by whoever finds it behind. */
static uint64_t units_take(kin_family *family, unsigned class, uint64_t tag) {
    kin_arena_shm *arena = family->arena;
    uint64_t count = class_units(class);
    for (;;) {
        uint64_t top = atomic_load_explicit(&arena->top, memory_order_acquire);
        if (count > arena->end_unit - top) return 0;
        uint64_t found = 0;
        kin_block_shm *block = unit_block(family, top);
        bool mine =
            atomic_compare_exchange_strong_explicit(&block->tag, &found, tag | class_tag(class),
                                                    memory_order_acq_rel, memory_order_acquire);
        KIN_FAULT("arena-claimed");
        uint64_t next = top + class_units(mine ? class : tag_class(found));
        atomic_compare_exchange_strong_explicit(&arena->top, &top, next, memory_order_acq_rel,
                                                memory_order_relaxed);
        if (mine) return top * KIN_UNIT;
    }
}

/* A unit for a chunk of this class: one that was it before, or a fresh one. */
static uint64_t chunk_unit(kin_family *family, unsigned class, uint32_t token) {
    uint64_t start = kin__list_take(family, cold_list(family, class), COLD, token);
    if (!start) return units_take(family, class, KIN_TAG(KIN_CHUNK, 0, 0));
    KIN_FAULT("chunk-warming");
    kin__block_retag(unit_block(family, unit_of(start)), KIN_TAG(KIN_HAND, KIN_KIND_RAW, token),
                     KIN_TAG(KIN_CHUNK, 0, 0));
    return start;
}

/* Cut a unit into small blocks; the first goes into the hands of `token`. */
static uint64_t chunk_take(kin_family *family, unsigned class, uint32_t token) {
    uint64_t start = chunk_unit(family, class, token);
    if (!start) return 0;
    kin__chunk_made(family, start);
    uint64_t taken = 0, size = kin__small_size[class];
    uint64_t hand = KIN_TAG(KIN_HAND, KIN_KIND_RAW, token);
    for (uint64_t at = KIN_UNIT / size * size; at > 0;) {
        at -= size;
        kin_block_shm *block = kin__at(family, start + at);
        /* A rescuer may have been here already. */
        if (!kin__block_retag(block, 0, hand)) continue;
        if (at == 0) taken = start;
        else kin__list_put(warm_list(family, class), 0, block, start + at, hand);
    }
    return taken;
}

static kin_err small_take(kin_family *family, unsigned class, uint32_t token, bool may_reap,
                          uint64_t *off) {
    for (;;) {
        *off = kin__list_take(family, warm_list(family, class), 0, token);
        if (*off) {
            kin__chunk_used(family, *off);
            return 0;
        }
        if (!commit_hard(family, KIN_UNIT, may_reap)) return KIN_EARENAFULL;
        *off = chunk_take(family, class, token);
        if (*off) return 0;
        kin__uncommit(family, KIN_UNIT);
        if (atomic_load_explicit(&family->arena->top, memory_order_relaxed) >=
            family->arena->end_unit)
            return KIN_EARENAFULL;
    }
}

/* A free large block of this class or, with no address space left, a larger one. */
static uint64_t large_find(kin_family *family, unsigned class, uint32_t token) {
    uint64_t off = kin__list_take(family, warm_list(family, class), 0, token);
    if (off) {
        uint64_t touched =
            atomic_load_explicit(&family->units[unit_of(off)].touched, memory_order_relaxed);
        atomic_fetch_sub_explicit(&family->arena->warm, (int64_t)touched, memory_order_relaxed);
        return off;
    }
    off = kin__list_take(family, cold_list(family, class), COLD, token);
    if (off) return off;
    off = units_take(family, class, KIN_TAG(KIN_HAND, KIN_KIND_RAW, token));
    if (off || ++class == KIN_CLASSES) return off;
    return large_find(family, class, token);
}

static void large_free(kin_family *family, uint64_t off);

static kin_err large_take(kin_family *family, unsigned class, uint64_t len, uint32_t token,
                          bool may_reap, uint64_t *out) {
    if (class >= KIN_CLASSES || pages(len) > family->arena->limit) return KIN_ETOOLARGE;
    uint64_t off = large_find(family, class, token);
    if (!off) return KIN_EARENAFULL;
    kin_unit_shm *unit = &family->units[unit_of(off)];
    uint64_t touched = atomic_load_explicit(&unit->touched, memory_order_relaxed);
    if (pages(len) > touched) {
        if (!commit_hard(family, pages(len) - touched, may_reap)) {
            large_free(family, off);
            return KIN_EARENAFULL;
        }
        atomic_store_explicit(&unit->touched, pages(len), memory_order_relaxed);
    }
    *out = off;
    return 0;
}

static kin_err block_new(kin_family *family, uint64_t len, uint32_t token, bool may_reap,
                         uint64_t *out) {
    uint64_t off;
    unsigned class = class_for(len);
    kin_err err = class < KIN_LARGE ? small_take(family, class, token, may_reap, &off)
                                    : large_take(family, class, len, token, may_reap, &off);
    if (err) return err;
    kin_block_shm *block = kin__block(family, off);
    uint64_t serial = atomic_fetch_add_explicit(&family->arena->serial, 1, memory_order_relaxed);
    atomic_store_explicit(&block->count, 0, memory_order_relaxed);
    atomic_store_explicit(&block->serial, serial + 1, memory_order_release);
    *out = off;
    return 0;
}

kin_err kin__block_new(kin_family *family, uint64_t len, uint64_t *off) {
    kin_err err = kin__may(family);
    if (err) return err;
    err = block_new(family, len, kin__token(family), true, off);
    if (!err) atomic_fetch_add_explicit(&family->hands, 1, memory_order_relaxed);
    return err;
}

kin_err kin__block_new_for(kin_family *family, uint64_t len, uint32_t token, uint64_t *off) {
    return block_new(family, len, token, false, off);
}

static void large_free(kin_family *family, uint64_t off) {
    kin_arena_shm *arena = family->arena;
    kin_unit_shm *unit = &family->units[unit_of(off)];
    uint64_t tag = kin__block_tag(&unit->block);
    unsigned class = tag_class(atomic_load_explicit(&unit->block.tag, memory_order_relaxed));
    int64_t touched = (int64_t)atomic_load_explicit(&unit->touched, memory_order_relaxed);
    int64_t warm = atomic_fetch_add_explicit(&arena->warm, touched, memory_order_relaxed);
    if (touched && warm + touched <= (int64_t)arena->warm_budget) {
        kin__list_put(warm_list(family, class), 0, &unit->block, off, tag);
        return;
    }
    atomic_fetch_sub_explicit(&arena->warm, touched, memory_order_relaxed);
    if (touched) cool(family, off);
    kin__list_put(cold_list(family, class), COLD, &unit->block, off, tag);
}

void kin__block_free(kin_family *family, uint64_t off) {
    kin_block_shm *block = kin__block(family, off);
    atomic_store_explicit(&block->serial, 0, memory_order_relaxed);
    atomic_fetch_sub_explicit(&family->hands, 1, memory_order_relaxed);
    if (!is_small(family, block)) {
        unsigned class = tag_class(atomic_load_explicit(&block->tag, memory_order_relaxed));
        if (class < KIN_LARGE) kin__chunk_cool(family, off);
        else large_free(family, off);
        return;
    }
    uint64_t chunk =
        atomic_load_explicit(&unit_block(family, unit_of(off))->tag, memory_order_relaxed);
    kin__list_put(warm_list(family, tag_class(chunk)), 0, block, off, kin__block_tag(block));
    kin__chunk_unused(family, off);
}

/* -- All blocks ---------------------------------------------------------------- */

void kin__blocks_walk(kin_family *family, kin__visitor *visit, void *context) {
    uint64_t top = atomic_load_explicit(&family->arena->top, memory_order_acquire);
    for (uint64_t unit = family->arena->first_unit; unit < top;) {
        kin_block_shm *block = unit_block(family, unit);
        uint64_t tag = atomic_load_explicit(&block->tag, memory_order_acquire);
        unsigned class = tag_class(tag);
        if (class >= KIN_CLASSES) return; /* torn: nothing behind it can be found */
        uint64_t start = unit * KIN_UNIT;
        if (KIN_TAG_STATE(tag) != KIN_CHUNK) {
            visit(family, start, block,
                  atomic_load_explicit(&family->units[unit].touched, memory_order_relaxed),
                  context);
            unit += class_units(class);
            continue;
        }
        uint64_t size = kin__small_size[class];
        for (uint64_t at = 0; at + size <= KIN_UNIT; at += size)
            visit(family, start + at, kin__at(family, start + at), size, context);
        unit++;
    }
}

static void rescue(kin_family *family, uint64_t off, kin_block_shm *block, uint64_t size,
                   void *context) {
    (void)size, (void)context;
    uint64_t tag = kin__block_tag(block);
    if (KIN_TAG_STATE(tag) != KIN_FREE) return;
    unsigned class = tag_class(
        atomic_load_explicit(&unit_block(family, unit_of(off))->tag, memory_order_relaxed));
    uint32_t cold = KIN_TAG_LOW(tag) & COLD;
    kin_list_shm *list = cold ? cold_list(family, class) : warm_list(family, class);
    uint64_t head = atomic_load_explicit(list, memory_order_acquire);
    if (tag == free_tag(head, cold)) return;
    uint64_t hand = KIN_TAG(KIN_HAND, KIN_KIND_RAW, kin__token(family));
    if (!kin__block_retag(block, tag, hand)) return;
    kin__list_put(list, cold, block, off, hand);
}

void kin__list_new_epoch(kin_list_shm *list) {
    uint64_t head = atomic_load_explicit(list, memory_order_acquire);
    while (!head_swap(list, &head, 0, HEAD_EPOCH(head) % 15 + 1)) continue;
}

void kin__blocks_relist(kin_family *family) {
    kin__blocks_walk(family, rescue, NULL);
}

void kin__blocks_rescue(kin_family *family) {
    kin_mutex_shm *cooler = &family->arena->cooler;
    /* who died with it has left nothing that is not found here */
    (void)!kin__mutex_lock(family, cooler);
    for (unsigned class = 0; class < KIN_CLASSES; class++) {
        kin__list_new_epoch(warm_list(family, class));
        kin__list_new_epoch(cold_list(family, class));
    }
    kin__blocks_relist(family);
    kin__mutex_unlock(cooler);
}

void kin__arena_format(kin_arena_shm *arena) {
    for (unsigned class = 0; class < KIN_CLASSES; class++) {
        atomic_init(&arena->warm_lists[class], HEAD(0, 1, 0));
        atomic_init(&arena->cold_lists[class], HEAD(0, 1, 0));
    }
    atomic_init(&arena->top, arena->first_unit);
}
