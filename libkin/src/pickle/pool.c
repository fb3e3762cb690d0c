/* Small pieces come from chunks, each a quarter of what there is already, so that
 * about a fifth is unused at most.  A large piece has a chunk to itself, and is
 * resized by malloc: what grows leaves no outgrown copies behind.  Which is which
 * follows from the size alone. */
#include "pool.h"

#include <stdlib.h>
#include <string.h>

#define MIN_CHUNK 512
#define MAX_CHUNK ((size_t)1 << 20)
#define LARGE 512 /* bytes: from here on a piece has a chunk of its own */

struct kin__chunk {
    kin__chunk *prev, *next;
    size_t len;
    uint64_t data[];
};

void kin__pool_init(kin__pool *pool, size_t limit) {
    *pool = (kin__pool){.limit = limit};
}

void kin__pool_fini(kin__pool *pool) {
    kin__chunk *next;
    for (kin__chunk *chunk = pool->chunks; chunk; chunk = next) {
        next = chunk->next;
        free(chunk);
    }
    *pool = (kin__pool){0};
}

kin_err kin__pool_error(const kin__pool *pool) {
    return pool->beyond ? KIN_EPICKLELIMIT : -ENOMEM;
}

/* May so many bytes more be taken? */
static bool allows(kin__pool *pool, size_t size) {
    pool->beyond = size > pool->limit - pool->taken;
    return !pool->beyond;
}

/* A chunk of `len` bytes, linked behind the first, or as the first. */
static kin__chunk *add_chunk(kin__pool *pool, size_t len, bool first) {
    size_t size = sizeof(kin__chunk) + len;
    if (!allows(pool, size)) return NULL;
    kin__chunk *chunk = malloc(size);
    if (!chunk) return NULL;
    pool->taken += size;
    chunk->len = len;
    kin__chunk *head = pool->chunks;
    first = first || !head;
    chunk->prev = first ? NULL : head;
    chunk->next = first ? head : head->next;
    if (chunk->next) chunk->next->prev = chunk;
    if (first) pool->chunks = chunk;
    else head->next = chunk;
    return chunk;
}

/* A chunk for small pieces, of which `size` bytes are wanted now. */
static bool refill(kin__pool *pool, size_t size) {
    size_t len = pool->taken / 4;
    if (len < MIN_CHUNK) len = MIN_CHUNK;
    if (len > MAX_CHUNK) len = MAX_CHUNK;
    /* The rest of the limit may be less than a good chunk. */
    size_t left = pool->limit - pool->taken;
    if (left < sizeof(kin__chunk) + len) {
        len = left < sizeof(kin__chunk) + size ? size : left - sizeof(kin__chunk);
    }
    len &= ~(size_t)7;
    kin__chunk *chunk = add_chunk(pool, len, true);
    if (!chunk) return false;
    pool->at = (uint8_t *)chunk->data;
    pool->end = pool->at + len;
    return true;
}

static size_t aligned(size_t size) {
    return (size + 7) & ~(size_t)7;
}

void *kin__pool_alloc(kin__pool *pool, size_t size) {
    if (size > SIZE_MAX / 2) {
        pool->beyond = true;
        return NULL;
    }
    size = aligned(size);
    if (size >= LARGE) {
        kin__chunk *chunk = add_chunk(pool, size, false);
        return chunk ? chunk->data : NULL;
    }
    if ((size_t)(pool->end - pool->at) < size && !refill(pool, size)) return NULL;
    void *data = pool->at;
    pool->at += size;
    return data;
}

/* Of a piece that has a chunk of its own. */
static void *resize_chunk(kin__pool *pool, kin__chunk *chunk, size_t len) {
    size_t size = sizeof *chunk + len, old_size = sizeof *chunk + chunk->len;
    /* Both may be there for a moment. */
    if (!allows(pool, size)) return NULL;
    kin__chunk *moved = realloc(chunk, size);
    if (!moved) return NULL;
    pool->taken += size - old_size;
    moved->len = len;
    if (moved->prev) moved->prev->next = moved;
    else pool->chunks = moved;
    if (moved->next) moved->next->prev = moved;
    return moved->data;
}

void *kin__pool_resize(kin__pool *pool, void *old, size_t old_size, size_t size) {
    if (size > SIZE_MAX / 2) {
        pool->beyond = true;
        return NULL;
    }
    old_size = aligned(old_size);
    if (size <= old_size) return old;
    if (old_size >= LARGE) {
        kin__chunk *chunk = (kin__chunk *)((uint8_t *)old - offsetof(kin__chunk, data));
        return resize_chunk(pool, chunk, aligned(size));
    }
    void *data = kin__pool_alloc(pool, size);
    if (data && old_size) memcpy(data, old, old_size);
    return data;
}

kin_err kin__pool_grow_stack(kin__pool *pool, void **items, size_t *room, size_t need,
                             size_t item_size) {
    size_t want = *room + *room / 2;
    if (want < 16) want = 16;
    if (want < need) want = need;
    if (want > SIZE_MAX / 2 / item_size) return KIN_EPICKLELIMIT;
    if (!allows(pool, want * item_size)) return KIN_EPICKLELIMIT;
    void *moved = realloc(*items, want * item_size);
    if (!moved) return -ENOMEM;
    pool->taken += (want - *room) * item_size;
    *items = moved;
    *room = want;
    return 0;
}

void kin__pool_free_stack(kin__pool *pool, void *items, size_t room, size_t item_size) {
    free(items);
    pool->taken -= room * item_size;
}
