/* An entry is a block with a head, places for what its value mentions, its key and its value.
 *
 * While it is made it is in its maker's hands, of kind ENTRY: killed, its burial gives back what it
 * holds (kin__entry_end).  From then on it is an object that one place of a dict's or list's array
 * holds, and for some time perhaps a member that reads it. */
#include "entry.h"

#include <string.h>

#include "family/arena.h"
#include "family/fault.h"
#include "table_kinds.h"

/* Torn bytes must not lead out of the block. */
static bool is_whole(kin_family *family, uint64_t off, const kin_entry_shm *entry) {
    uint64_t room = kin__payload_room(family, off);
    uint64_t front = sizeof *entry + (uint64_t)entry->ref_count * sizeof entry->ref[0];
    return front <= room && entry->key_len <= room - front &&
           entry->value_len <= room - front - entry->key_len;
}

kin_entry_shm *kin__entry_at(kin_family *family, uint64_t off) {
    kin_block_shm *block = off ? kin__block_find(family, off) : NULL;
    if (!block || kin__block_tag(block) != KIN_TAG(KIN_OBJECT, KIN_KIND_ENTRY, 0)) return NULL;
    kin_entry_shm *entry = kin__payload(family, off);
    return is_whole(family, off, entry) ? entry : NULL;
}

uint64_t kin__entry_serial(kin_family *family, uint64_t off) {
    return atomic_load_explicit(&kin__block(family, off)->serial, memory_order_relaxed);
}

/* -- Making ---------------------------------------------------------------------------- */

static uint64_t sum_of(const kin_part *parts, size_t count) {
    uint64_t len = 0;
    for (size_t i = 0; i < count; i++) len += parts[i].len;
    return len;
}

static void fill(kin_entry_shm *entry, const void *key, const kin_part *parts, size_t count) {
    uint8_t *out = (uint8_t *)(entry->ref + entry->ref_count);
    if (entry->key_len) memcpy(out, key, entry->key_len);
    out += entry->key_len;
    for (size_t i = 0; i < count; i++) {
        if (parts[i].len) memcpy(out, parts[i].data, parts[i].len);
        out += parts[i].len;
    }
}

static kin_err hold_refs(kin_family *family, kin_entry_shm *entry, const kin_ref *refs) {
    for (uint32_t i = 0; i < entry->ref_count; i++) {
        kin_err err = kin__ref_into(family, &refs[i], &entry->ref[i]);
        if (err) return err;
        KIN_FAULT("entry-holding");
    }
    return 0;
}

kin_err kin_entry_create(kin_family *family, uint32_t tag, const void *key, size_t key_len,
                         const kin_part *parts, size_t part_count, const kin_ref *refs,
                         uint32_t ref_count, kin_entry *out) {
    uint64_t value_len = sum_of(parts, part_count), off;
    uint64_t front = sizeof(kin_entry_shm) + (uint64_t)ref_count * sizeof(uint64_t);
    if (key_len > KIN_KEY_MAX || value_len > KIN_ARENA_MAX) return KIN_ETOOLARGE;
    kin_err err = kin__block_new(family, front + key_len + value_len, &off);
    if (err) return err;
    kin_entry_shm *entry = kin__payload(family, off);
    entry->value_len = value_len;
    entry->key_len = (uint32_t)key_len;
    entry->tag = tag;
    entry->ref_count = ref_count;
    for (uint32_t i = 0; i < ref_count; i++) atomic_init(&entry->ref[i], 0);
    uint32_t token = kin__token(family);
    kin__block_retag(kin__block(family, off), KIN_TAG(KIN_HAND, KIN_KIND_RAW, token),
                     KIN_TAG(KIN_HAND, KIN_KIND_ENTRY, token));
    *out = (kin_entry){.family = family, .off = off};
    err = hold_refs(family, entry, refs);
    if (err) kin_entry_free(out);
    else fill(entry, key, parts, part_count);
    return err;
}

void kin_entry_free(kin_entry *entry) {
    kin_family *family = entry->family;
    if (!family) return;
    entry->family = NULL;
    kin__entry_end(family, entry->off);
    kin__block_free(family, entry->off);
}

void kin__entry_end(kin_family *family, uint64_t off) {
    kin_entry_shm *entry = kin__payload(family, off);
    if (!is_whole(family, off, entry)) return;
    for (uint32_t i = 0; i < entry->ref_count; i++)
        if (atomic_load_explicit(&entry->ref[i], memory_order_relaxed))
            kin__ref_out_of(family, &entry->ref[i]);
}

/* -- Finding ---------------------------------------------------------------------------- */

static void show(const kin_entry_shm *entry, const uint8_t *bytes, kin_found *out) {
    out->key = bytes;
    out->key_len = entry->key_len;
    out->value = bytes + entry->key_len;
    out->value_len = entry->value_len;
}

kin_err kin__entry_find(kin_family *family, uint64_t off, kin_found *out) {
    kin_entry_shm *entry = kin__entry_at(family, off);
    if (!entry) return -EIO;
    const uint8_t *bytes = kin__entry_key(entry);
    uint64_t len = entry->key_len + entry->value_len;
    kin_handle hold = {0};
    if (entry->ref_count || len > KIN_FOUND_COPIED) {
        kin_err err = kin__object_pin(family, off, KIN_KIND_ENTRY, &hold);
        if (err) return err;
    } else if (len) {
        memcpy(out->buffer, bytes, len);
    }
    out->hold = hold;
    out->tag = entry->tag;
    out->number = 0;
    out->serial = kin__entry_serial(family, off);
    show(entry, hold.family ? bytes : out->buffer, out);
    return 0;
}

void kin_found_drop(kin_found *found) {
    kin_handle_close(&found->hold);
}

/* -- Arrays of places ----------------------------------------------------------------------- */

void kin__places_drop(kin_family *family, uint64_t off) {
    uint8_t *start = kin__payload(family, off);
    const kin_places_shm *head = (const kin_places_shm *)start;
    uint64_t room = kin__payload_room(family, off), stride = head->stride;
    if (stride < sizeof(uint64_t) || stride % sizeof(uint64_t) || head->first % sizeof(uint64_t) ||
        head->first > room || head->count > (room - head->first) / stride)
        return;
    for (uint64_t i = 0; i < head->count; i++) {
        _Atomic uint64_t *place = (_Atomic uint64_t *)(start + head->first + i * stride);
        if (atomic_load_explicit(place, memory_order_relaxed)) kin__ref_out_of(family, place);
    }
}

void kin__dropped_end(kin_family *family, uint64_t off) {
    kin__places_drop(family, off);
}
