/* What dicts and lists in the arena hold: an entry is a key (of a list's: none), a value, both bytes,
 * and references that the value mentions, whose objects it keeps alive.  Never changed once it is in:
 * another takes its place. */
#ifndef KIN_ENTRY_H
#define KIN_ENTRY_H

#include "family.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KIN_KEY_MAX 0x7fffffffu /* bytes */

/* An entry that is in no dict or list yet.  Zeroed: none. */
typedef struct kin_entry {
    kin_family *family;
    uint64_t off;
} kin_entry;

/* tag: the caller's, one byte's worth, given back with the value.  What the parts say is copied.
 * Errors: KIN_EARENAFULL, KIN_ETOOLARGE (also: a key beyond KIN_KEY_MAX), KIN_ESTALE (what a reference
 * names is gone), KIN_EKIND, KIN_ELEFT, KIN_ENOFAMILY. */
KIN_API KIN_NODISCARD kin_err kin_entry_create(kin_family *family, uint32_t tag, const void *key,
                                               size_t key_len, const kin_part *parts,
                                               size_t part_count, const kin_ref *refs,
                                               uint32_t ref_count, kin_entry *out);
/* Drop one that was put nowhere.  On none: nothing. */
KIN_API void kin_entry_free(kin_entry *entry);

/* What was found.  A short value without references is copied into `buffer`; any other entry is
 * held, and its bytes are in the arena, until kin_found_drop. */
#define KIN_FOUND_COPIED 448
typedef struct kin_found {
    const uint8_t *key, *value;
    uint64_t key_len, value_len;
    uint32_t tag;
    uint64_t number; /* of a dict's entry: grows with each key that is put in */
    uint64_t serial; /* of this very entry, never used again */
    kin_handle hold; /* not open if it was copied */
    uint8_t buffer[KIN_FOUND_COPIED];
} kin_found;

KIN_API void kin_found_drop(kin_found *found);

#ifdef __cplusplus
}
#endif

#endif
