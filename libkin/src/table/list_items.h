/* The inside of a list, for its two files. */
#ifndef KIN_TABLE_LIST_ITEMS_H
#define KIN_TABLE_LIST_ITEMS_H

#include "entry.h"
#include "family/mutex.h"
#include "kin/list.h"

typedef struct kin_items_shm {
    kin_places_shm places;
    _Atomic uint64_t place[]; /* places.count of them */
} kin_items_shm;

typedef struct kin_sequence_shm {
    kin_mutex_shm mutex;
    uint32_t pad;
    _Atomic uint64_t items;   /* a place: the array; 0 while there never was an item */
    _Atomic uint64_t bounds;  /* its items are from the first of these on, to before the second */
    _Atomic uint64_t version; /* grows with each change */
} kin_sequence_shm;

#define KIN_BOUNDS(start, end) ((uint64_t)(start) << 32 | (uint64_t)(end))
#define KIN_BOUNDS_START(bounds) ((bounds) >> 32)
#define KIN_BOUNDS_END(bounds) ((bounds) & 0xffffffffu)

/* One call, with the mutex held. */
typedef struct kin__list_visit {
    kin_family *family;
    kin_sequence_shm *shm;
    kin_items_shm *items; /* NULL: there is none */
    uint64_t start, len;
    uint64_t ends[2]; /* what this call took out, for the end: objects, or 0 */
} kin__list_visit;

KIN_NODISCARD kin_err kin__list_enter(kin__list_visit *v, kin_list *list, kin_deadline deadline);
kin_err kin__list_leave(kin__list_visit *v, kin_err err);

/* An array with room for `count` places, in this member's hands, all empty. */
KIN_NODISCARD kin_err kin__items_new(kin_family *family, uint64_t count, uint64_t *off);
/* In a change: this array, in this member's hands, becomes the list's, with `len` items from its
 * beginning on; the old one goes.  The version grows. */
void kin__items_swap(kin__list_visit *v, kin__change *change, uint64_t fresh, uint64_t len);
/* In a change: the version grows. */
void kin__list_changed(kin__list_visit *v, kin__change *change);

static inline _Atomic uint64_t *kin__list_place(kin__list_visit *v, uint64_t index) {
    return &v->items->place[v->start + index];
}
static inline uint64_t kin__list_entry(kin__list_visit *v, uint64_t index) {
    return atomic_load_explicit(kin__list_place(v, index), memory_order_relaxed);
}

#endif
