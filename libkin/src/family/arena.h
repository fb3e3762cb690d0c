/* The block allocator.  See arena.c for how it works. */
#ifndef KIN_FAMILY_ARENA_H
#define KIN_FAMILY_ARENA_H

#include "family_internal.h"

/* A block with room for `len` bytes of payload, in this member's hands, of
 * kind RAW, with a serial of its own.  The payload is not zeroed.
 * Errors: KIN_EARENAFULL, KIN_ETOOLARGE, KIN_ENOFAMILY, KIN_ELEFT. */
KIN_NODISCARD kin_err kin__block_new(kin_family *family, uint64_t len, uint64_t *off);
/* The same in the hands of `token`, counted as nobody's: tables of holds. */
KIN_NODISCARD kin_err kin__block_new_for(kin_family *family, uint64_t len, uint32_t token,
                                         uint64_t *off);
/* Free a block that is in this member's hands. */
void kin__block_free(kin_family *family, uint64_t off);
/* The header of the block that starts at `off`, NULL if none does.  For offsets
 * that come from outside: everything is checked. */
kin_block_shm *kin__block_find(const kin_family *family, uint64_t off);
/* The same for an offset that is known to be good. */
kin_block_shm *kin__block(const kin_family *family, uint64_t off);
void *kin__payload(const kin_family *family, uint64_t off);
uint64_t kin__payload_room(const kin_family *family, uint64_t off);

/* Change the tag of a block, if it is the expected one, keeping its class. */
bool kin__block_retag(kin_block_shm *block, uint64_t expected, uint64_t desired);
/* Tag without the class bits. */
static inline uint64_t kin__block_tag(kin_block_shm *block) {
    return atomic_load_explicit(&block->tag, memory_order_acquire) & ~KIN_TAG_CLASS_BITS;
}

/* Take a block from where it is (`expected`, RAW or not) into this member's hands,
 * or let it go from there; false if it is not there any more. */
bool kin__block_take(kin_family *family, kin_block_shm *block, uint64_t expected);
void kin__block_put(kin_family *family, kin_block_shm *block, unsigned state, unsigned kind);

/* Call `visit` for every block; it may change and free the one it is given.
 * size: what it occupies, in bytes. */
typedef void kin__visitor(kin_family *family, uint64_t off, kin_block_shm *block, uint64_t size,
                          void *context);
void kin__blocks_walk(kin_family *family, kin__visitor *visit, void *context);
/* Put blocks back on the free lists that a member took off or did not get to
 * put on before it died. */
void kin__blocks_rescue(kin_family *family);

void kin__arena_format(kin_arena_shm *arena);

#endif
