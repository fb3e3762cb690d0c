#include "dict_rows.h"

#include <string.h>

#include "family/arena.h"

#define INDEX_MIN 8
#define ROWS_MAX 0xfffffff0u

/* -- Hashing ---------------------------------------------------------------------------- */

/* Multiply and fold, eight bytes at a time; the multiplier is 2^64 divided by the golden ratio. */
static uint64_t mix(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 29;
}

uint64_t kin__key_hash(const kin_family *family, const void *key, size_t len) {
    const uint8_t *bytes = key;
    uint64_t hash, word, seed;
    memcpy(&hash, family->arena->id, sizeof hash);
    memcpy(&seed, family->arena->id + sizeof hash, sizeof seed);
    hash = mix(hash, len);
    for (; len >= sizeof word; len -= sizeof word, bytes += sizeof word) {
        memcpy(&word, bytes, sizeof word);
        hash = mix(hash, word ^ seed);
    }
    word = 0;
    if (len) memcpy(&word, bytes, len);
    hash = mix(hash, word ^ seed);
    return mix(hash, hash >> 32);
}

/* -- Tables -------------------------------------------------------------------------------- */

static uint64_t room_of(uint64_t mask) {
    return (mask + 1) * 2 / 3;
}

static uint64_t size_of(uint64_t mask) {
    return sizeof(kin_rows_shm) + (mask + 1) * sizeof(uint64_t) +
           room_of(mask) * sizeof(kin_row_shm);
}

kin_rows_shm *kin__rows_at(kin_family *family, uint64_t off) {
    kin_block_shm *block = off ? kin__block_find(family, off) : NULL;
    if (!block || kin__block_tag(block) != KIN_TAG(KIN_OBJECT, KIN_KIND_SLOTS, 0)) return NULL;
    kin_rows_shm *rows = kin__payload(family, off);
    uint64_t mask = rows->mask;
    bool sound = mask <= 2ull * ROWS_MAX && (mask & (mask + 1)) == 0 &&
                 size_of(mask) <= kin__payload_room(family, off) &&
                 rows->places.first == size_of(mask) - room_of(mask) * sizeof(kin_row_shm) &&
                 kin__rows_used(rows) <= room_of(mask) && rows->tail <= room_of(mask);
    return sound ? rows : NULL;
}

static void put_in_index(kin_rows_shm *rows, uint64_t hash, uint64_t row) {
    uint64_t at = hash & rows->mask;
    while (atomic_load_explicit(&rows->index[at], memory_order_relaxed)) at = (at + 1) & rows->mask;
    atomic_store_explicit(&rows->index[at], (hash >> 32 << 32) | (row + 1), memory_order_relaxed);
}

static void copy_rows(kin_rows_shm *rows, const kin_rows_shm *old) {
    uint64_t used = 0;
    for (uint64_t i = 0; i < kin__rows_used(old); i++) {
        uint64_t entry = kin__row_entry(old, i);
        if (!entry) continue;
        kin_row_shm *row = kin__row(rows, used);
        *row = (kin_row_shm){.hash = kin__row(old, i)->hash, .number = kin__row(old, i)->number};
        atomic_init(&row->place, entry);
        put_in_index(rows, row->hash, used++);
    }
    atomic_init(&rows->used, used);
    rows->tail = used;
}

kin_err kin__rows_new(kin_family *family, const kin_rows_shm *old, uint64_t count, uint64_t *off) {
    uint64_t mask = INDEX_MIN - 1;
    while (room_of(mask) < 2 * count) mask = 2 * mask + 1;
    while (room_of(mask) <= count) mask = 2 * mask + 1;
    if (room_of(mask) > ROWS_MAX) return KIN_ETOOLARGE;
    kin_err err = kin__block_new(family, size_of(mask), off);
    if (err) return err;
    kin_rows_shm *rows = kin__payload(family, *off);
    memset((void *)rows, 0, size_of(mask));
    rows->mask = mask;
    rows->places = (kin_places_shm){
        .first = size_of(mask) - room_of(mask) * sizeof(kin_row_shm),
        .stride = sizeof(kin_row_shm),
        .count = room_of(mask),
    };
    if (old) copy_rows(rows, old);
    return 0;
}

bool kin__rows_are_sparse(const kin_rows_shm *rows, uint64_t count) {
    return rows->mask >= 8 * INDEX_MIN && count < room_of(rows->mask) / 8;
}

/* -- Finding --------------------------------------------------------------------------------- */

static bool is_key_of(kin_family *family, uint64_t off, const void *key, size_t len) {
    const kin_entry_shm *entry = kin__entry_at(family, off);
    return entry && entry->key_len == len && memcmp(kin__entry_key(entry), key, len) == 0;
}

int64_t kin__rows_find(kin_family *family, const kin_rows_shm *rows, uint64_t hash, const void *key,
                       size_t len) {
    uint64_t at = hash & rows->mask;
    for (uint64_t tries = 0; tries <= rows->mask; tries++, at = (at + 1) & rows->mask) {
        uint64_t slot = atomic_load_explicit(&rows->index[at], memory_order_relaxed);
        if (!slot) return -1;
        uint64_t row = (uint32_t)slot - 1;
        if (slot >> 32 != hash >> 32 || row >= kin__rows_used(rows)) continue;
        uint64_t entry = kin__row_entry(rows, row);
        if (entry && kin__row(rows, row)->hash == hash && is_key_of(family, entry, key, len))
            return (int64_t)row;
    }
    return -1;
}

_Atomic uint64_t *kin__rows_slot(kin_rows_shm *rows, uint64_t hash, uint64_t *value) {
    uint64_t used = kin__rows_used(rows), at = hash & rows->mask;
    if (used >= room_of(rows->mask)) return NULL;
    for (uint64_t tries = 0; tries <= rows->mask; tries++, at = (at + 1) & rows->mask) {
        if (atomic_load_explicit(&rows->index[at], memory_order_relaxed)) continue;
        *value = (hash >> 32 << 32) | (used + 1);
        return &rows->index[at];
    }
    return NULL;
}
