/* The table of texts: open addressing by hash, entries are only ever added.
 *
 *   hash 0        the entry is free
 *   len 0         it was claimed, by one compare-and-swap, and is being written: nobody's yet
 *   len > 0       it is whole, for good
 *
 * A member killed while it writes leaves an entry that nobody reads, and whoever comes with the
 * same text takes another one. */
#include "texts.h"

#include <string.h>

#include "arena.h"
#include "fault.h"
#include "refs.h"

typedef struct kin_text_shm {
    _Atomic uint64_t hash;
    _Atomic uint32_t len;
    char text[KIN_TEXT_MAX];
} kin_text_shm;

#define PROBES 32

_Static_assert(sizeof(kin_text_shm) == 128, "two lines an entry");

/* The table, made when it is first needed; NULL if there is no memory for it. */
static kin_text_shm *table(kin_family *family) {
    _Atomic uint64_t *place = &family->arena->texts;
    uint64_t off = atomic_load_explicit(place, memory_order_acquire);
    if (!off) {
        uint64_t size = KIN_TEXTS * sizeof(kin_text_shm);
        if (kin__block_new(family, size, &off)) return NULL;
        memset(kin__payload(family, off), 0, size);
        if (!kin__object_share_at(family, off, KIN_KIND_TEXTS, place)) kin__block_free(family, off);
        off = atomic_load_explicit(place, memory_order_acquire);
    }
    return kin__payload(family, off);
}

/* FNV-1a; never 0. */
static uint64_t hash_of(const char *text, size_t len) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++) hash = (hash ^ (uint8_t)text[i]) * 0x100000001b3u;
    return hash | 1;
}

static bool is_it(kin_text_shm *entry, const char *text, size_t len) {
    return atomic_load_explicit(&entry->len, memory_order_acquire) == len &&
           memcmp(entry->text, text, len) == 0;
}

static bool claim(kin_text_shm *entry, uint64_t hash, const char *text, size_t len) {
    uint64_t expected = 0;
    if (!atomic_compare_exchange_strong_explicit(&entry->hash, &expected, hash,
                                                 memory_order_relaxed, memory_order_relaxed))
        return false;
    KIN_FAULT("text-claimed");
    memcpy(entry->text, text, len);
    /* release: who sees the length sees the text */
    atomic_store_explicit(&entry->len, (uint32_t)len, memory_order_release);
    return true;
}

uint32_t kin__text_number(kin_family *family, const char *text, size_t len) {
    if (len > KIN_TEXT_MAX) {
        text += len - KIN_TEXT_MAX;
        len = KIN_TEXT_MAX;
    }
    kin_text_shm *entries = len ? table(family) : NULL;
    if (!entries) return 0;
    uint64_t hash = hash_of(text, len);
    for (uint32_t probe = 0; probe < PROBES; probe++) {
        uint32_t at = (uint32_t)(hash + probe) % KIN_TEXTS;
        uint64_t found = atomic_load_explicit(&entries[at].hash, memory_order_relaxed);
        if (found == 0 ? claim(&entries[at], hash, text, len)
                       : found == hash && is_it(&entries[at], text, len))
            return at + 1;
    }
    return 0;
}

size_t kin__text_read(kin_family *family, uint32_t number, char out[KIN_TEXT_MAX + 1]) {
    out[0] = 0;
    uint64_t off = atomic_load_explicit(&family->arena->texts, memory_order_acquire);
    if (!off || number == 0 || number > KIN_TEXTS) return 0;
    kin_text_shm *entry = (kin_text_shm *)kin__payload(family, off) + (number - 1);
    size_t len = atomic_load_explicit(&entry->len, memory_order_acquire);
    if (len > KIN_TEXT_MAX) return 0;
    memcpy(out, entry->text, len);
    out[len] = 0;
    return len;
}
