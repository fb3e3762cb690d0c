/* Entries, and arrays of places that hold them. */
#ifndef KIN_TABLE_ENTRY_H
#define KIN_TABLE_ENTRY_H

#include "family/family_internal.h"
#include "family/refs.h"
#include "kin/entry.h"

typedef struct kin_entry_shm {
    uint64_t value_len;
    uint32_t key_len;
    uint32_t tag;
    uint32_t ref_count;
    uint32_t pad;
    _Atomic uint64_t ref[]; /* places; then the key, then the value */
} kin_entry_shm;

/* The entry that a place holds; NULL if there is none, or the bytes there are none. */
kin_entry_shm *kin__entry_at(kin_family *family, uint64_t off);
static inline const uint8_t *kin__entry_key(const kin_entry_shm *entry) {
    return (const uint8_t *)(entry->ref + entry->ref_count);
}
uint64_t kin__entry_serial(kin_family *family, uint64_t off);

/* Fill `out` from the entry at `off`, which a place holds as long as the caller has its mutex. */
KIN_NODISCARD kin_err kin__entry_find(kin_family *family, uint64_t off, kin_found *out);
/* The entry at `off` goes, by this change: true if kin__object_end is to be called for it. */
static inline bool kin__entry_leave(kin__change *change, uint64_t off) {
    return kin__change_drop(change, off);
}

/* The head of a block with places at regular distances: how its end finds them. */
typedef struct kin_places_shm {
    uint64_t first, stride, count; /* bytes from the head on; bytes; places */
} kin_places_shm;

/* Give back what the places of such a block hold. */
void kin__places_drop(kin_family *family, uint64_t off);

#endif
