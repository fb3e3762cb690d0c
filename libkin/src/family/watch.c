/* Who watches an object: entries in blocks that hang from a place at the object.
 *
 * Blocks are only ever added, at the end, and live as long as the object does: so whoever has
 * the object open walks over them without a lock.  An entry is one word, changed by
 * compare-and-swap.  What is read from them is checked before it is followed. */
#include "watch.h"

#include <string.h>

#include "arena.h"
#include "doorbell.h"
#include "fault.h"
#include "kinds.h"
#include "members.h"
#include "refs.h"

typedef struct kin_watchers_shm {
    _Atomic uint64_t next; /* a place, as the one at the object is */
    _Atomic uint64_t entry[];
} kin_watchers_shm;

/* Blocks of 3, 11, 27, and from then on 59 entries. */
#define BLOCK_FIRST 64
#define BLOCK_LAST 512

/* The block that a place names; NULL at the end. */
static kin_watchers_shm *block_at(kin_family *family, const _Atomic uint64_t *place,
                                  uint32_t *count) {
    uint64_t off = atomic_load_explicit(place, memory_order_seq_cst);
    kin_block_shm *block = off ? kin__block_find(family, off) : NULL;
    if (!block || kin__block_tag(block) != KIN_TAG(KIN_OBJECT, KIN_KIND_WATCHERS, 0)) return NULL;
    *count = (uint32_t)((kin__payload_room(family, off) - sizeof(kin_watchers_shm)) / 8);
    return kin__payload(family, off);
}

/* -- Ring ----------------------------------------------------------------------------- */

/* False: it is not to be rung. */
static bool disarm(_Atomic uint64_t *entry, uint64_t *word, bool all) {
    *word = atomic_load_explicit(entry, memory_order_seq_cst);
    while (*word & KIN_WATCH_ARMED) {
        if (atomic_compare_exchange_weak_explicit(entry, word, *word & ~KIN_WATCH_ARMED,
                                                  memory_order_seq_cst, memory_order_seq_cst)) {
            *word &= ~KIN_WATCH_ARMED;
            return true;
        }
    }
    return all && *word;
}

static void ring_one(kin_family *family, _Atomic uint64_t *entry, bool all) {
    uint64_t word;
    if (!disarm(entry, &word, all)) return;
    KIN_FAULT("watch-disarmed");
    uint32_t token = KIN_WATCH_TOKEN(word);
    if (kin__doorbell_ring(family, token, KIN_WATCH_NUMBER(word)) != -ECONNREFUSED) return;
    /* Nobody there: it has died, or lives where its doorbells cannot be heard. */
    if (!kin__member_alive(family, token))
        atomic_compare_exchange_strong_explicit(entry, &word, 0, memory_order_seq_cst,
                                                memory_order_relaxed);
}

void kin__watch_ring(kin_family *family, _Atomic uint64_t *watch, bool all) {
    uint32_t count;
    kin_watchers_shm *block;
    KIN_FAULT("watch-ringing");
    for (; (block = block_at(family, watch, &count)); watch = &block->next)
        for (uint32_t i = 0; i < count; i++) ring_one(family, &block->entry[i], all);
}

void kin__watch_bury(kin_family *family, uint64_t off, unsigned kind, _Atomic uint64_t *watch) {
    kin_handle pin;
    if (!atomic_load_explicit(watch, memory_order_relaxed)) return;
    if (kin__object_pin(family, off, kind, &pin)) return;
    kin__watch_ring(family, watch, true);
    kin_handle_close(&pin);
}

/* -- Watch ------------------------------------------------------------------------------ */

static bool try_entry(kin_family *family, _Atomic uint64_t *entry, uint64_t word) {
    uint64_t seen = atomic_load_explicit(entry, memory_order_relaxed);
    if (seen && kin__member_alive(family, KIN_WATCH_TOKEN(seen))) return false;
    return atomic_compare_exchange_strong_explicit(entry, &seen, word, memory_order_seq_cst,
                                                   memory_order_relaxed);
}

/* One more block, at the place of the last one's next; it may be there by then. */
static kin_err grow(kin_family *family, _Atomic uint64_t *place, uint64_t size) {
    uint64_t off;
    kin_err err = kin__block_new(family, size - KIN_HEADER, &off);
    if (err) return err;
    memset(kin__payload(family, off), 0, kin__payload_room(family, off));
    KIN_FAULT("watch-growing");
    if (!kin__object_share_at(family, off, KIN_KIND_WATCHERS, place)) kin__block_free(family, off);
    return 0;
}

kin_err kin__watch_claim(kin_family *family, _Atomic uint64_t *watch, uint64_t word,
                         _Atomic uint64_t **entry) {
    uint64_t size = BLOCK_FIRST;
    for (;;) {
        uint32_t count;
        kin_watchers_shm *block = block_at(family, watch, &count);
        if (!block) {
            if (atomic_load_explicit(watch, memory_order_relaxed)) return -EBADMSG;
            kin_err err = grow(family, watch, size);
            if (err) return err;
            continue;
        }
        for (uint32_t i = 0; i < count; i++) {
            if (!try_entry(family, &block->entry[i], word)) continue;
            *entry = &block->entry[i];
            KIN_FAULT("watch-claimed");
            return 0;
        }
        watch = &block->next;
        if (size < BLOCK_LAST) size *= 2;
    }
}

void kin__watch_arm(_Atomic uint64_t *entry, _Atomic uint64_t *watch, _Atomic uint32_t *flag) {
    atomic_fetch_or_explicit(entry, KIN_WATCH_ARMED, memory_order_seq_cst);
    KIN_FAULT("watch-armed");
    if (flag) atomic_fetch_or_explicit(flag, KIN_WATCHED, memory_order_seq_cst);
    else atomic_fetch_or_explicit(watch, 0, memory_order_seq_cst);
}

/* -- End -------------------------------------------------------------------------------- */

void kin__watch_end(kin_family *family, _Atomic uint64_t *watch) {
    if (atomic_load_explicit(watch, memory_order_relaxed)) kin__ref_out_of(family, watch);
}

void kin__watchers_end(kin_family *family, uint64_t off) {
    kin_watchers_shm *block = kin__payload(family, off);
    kin__watch_end(family, &block->next);
}
