/* What the allocator's two files know of each other: arena.c, chunks.c. */
#ifndef KIN_FAMILY_ARENA_INTERNAL_H
#define KIN_FAMILY_ARENA_INTERNAL_H

#include "arena.h"

extern const uint32_t kin__small_size[KIN_SMALL_CLASSES];

/* In the tag of a free block that waits on a cold list. */
#define KIN_COLD 0x100u

static inline uint64_t unit_of(uint64_t off) {
    return off / KIN_UNIT;
}

static inline kin_block_shm *unit_block(const kin_family *family, uint64_t unit) {
    return &family->units[unit].block;
}

static inline unsigned tag_class(uint64_t tag) {
    return (unsigned)(tag >> 48 & 0xff) - 1;
}

/* A chunk is one unit. */
static inline uint64_t class_units(unsigned class) {
    return class < KIN_LARGE ? 1 : 1ull << (class - KIN_LARGE);
}

static inline kin_list_shm *warm_list(const kin_family *family, unsigned class) {
    return &family->arena->warm_lists[class];
}

static inline kin_list_shm *cold_list(const kin_family *family, unsigned class) {
    return &family->arena->cold_lists[class];
}

/* Take a block off the list and into the hands of `token`: its offset, or 0. */
uint64_t kin__list_take(kin_family *family, kin_list_shm *list, uint32_t cold, uint32_t token);
/* Put a block on the list whose present tag is `tag` (in this member's hands). */
void kin__list_put(kin_list_shm *list, uint32_t cold, kin_block_shm *block, uint64_t off,
                   uint64_t tag);
/* Empty the list, and say of all that was on it that it is not. */
void kin__list_new_epoch(kin_list_shm *list);
/* List again what no list has.  With the cooler locked. */
void kin__blocks_relist(kin_family *family);
void kin__uncommit(kin_family *family, uint64_t len);

/* -- Chunks (chunks.c) ------------------------------------------------------------------- */

/* A chunk was made, of which one block is in use; a block of a chunk is in use, or is not: only
 * hints of when to look for chunks that nobody uses. */
void kin__chunk_made(kin_family *family, uint64_t off);
void kin__chunk_used(kin_family *family, uint64_t off);
void kin__chunk_unused(kin_family *family, uint64_t off);
/* A chunk whose unit is in this member's hands: give its pages back, and let it wait. */
void kin__chunk_cool(kin_family *family, uint64_t off);
/* Do so with those that nobody uses; `all`: with every one that there is. */
void kin__chunks_cool(kin_family *family, bool all);

#endif
