/* The memory of values: given out piece by piece, freed at once, counted always.
 *
 * Also the reader's own stacks take theirs through here, so that one number bounds
 * all that a pickle can ask for. */
#ifndef KIN_PICKLE_POOL_H
#define KIN_PICKLE_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include <kin/base.h>

typedef struct kin__chunk kin__chunk;

typedef struct kin__pool {
    kin__chunk *chunks;  /* small pieces come from the first */
    uint8_t *at, *end;   /* what is left of that one */
    size_t taken, limit; /* bytes that malloc was asked for */
    bool beyond;         /* the limit, not malloc, was what refused */
} kin__pool;

void kin__pool_init(kin__pool *pool, size_t limit);
void kin__pool_fini(kin__pool *pool);

/* `size` bytes, aligned to 8; NULL: kin__pool_error() says why. */
void *kin__pool_alloc(kin__pool *pool, size_t size);
/* The `old_size` bytes at `old`, which are `size` from now on, perhaps elsewhere.  NULL: as above,
 * and they stay what they were. */
void *kin__pool_resize(kin__pool *pool, void *old, size_t old_size, size_t size);
kin_err kin__pool_error(const kin__pool *pool);

/* An array of a stack's, outside of the chunks: `*items`, of `item_size` bytes each, grow from
 * `*room` to hold `need` or more. */
KIN_NODISCARD kin_err kin__pool_grow_stack(kin__pool *pool, void **items, size_t *room, size_t need,
                                           size_t item_size);
void kin__pool_free_stack(kin__pool *pool, void *items, size_t room, size_t item_size);

#endif
