/* The table of a dict: an index by hash, and rows in the order in which they were put in.
 *
 *   index   0: nothing was ever here; else row + 1, and 32 bits of the hash
 *   row     its place: the entry, or 0 once that was taken out
 *
 * Rows are only ever added, until there is no room: then the dict gets another table, of a size that
 * fits what is left.  All of it is guarded by the dict's mutex; what a change stores in it, it
 * stores whole or not at all (kin__change). */
#ifndef KIN_TABLE_DICT_ROWS_H
#define KIN_TABLE_DICT_ROWS_H

#include "entry.h"

typedef struct kin_row_shm {
    _Atomic uint64_t place;
    uint64_t hash;
    uint64_t number; /* grows from row to row */
} kin_row_shm;

typedef struct kin_rows_shm {
    kin_places_shm places; /* the rows, for who gives them back */
    uint64_t mask;         /* the index has mask + 1 slots */
    _Atomic uint64_t used; /* rows */
    uint64_t tail; /* there is no entry in this row or behind it; perhaps not in the one before */
    _Atomic uint64_t index[];
} kin_rows_shm;

static inline kin_row_shm *kin__row(const kin_rows_shm *rows, uint64_t at) {
    return (kin_row_shm *)((uint8_t *)rows + rows->places.first) + at;
}
static inline uint64_t kin__rows_used(const kin_rows_shm *rows) {
    return atomic_load_explicit(&rows->used, memory_order_relaxed);
}
static inline uint64_t kin__row_entry(const kin_rows_shm *rows, uint64_t at) {
    return atomic_load_explicit(&kin__row(rows, at)->place, memory_order_relaxed);
}

/* The same in every member of a family, and another in each family. */
uint64_t kin__key_hash(const kin_family *family, const void *key, size_t len);

/* The table at `off`; NULL if there is none, or it is torn. */
kin_rows_shm *kin__rows_at(kin_family *family, uint64_t off);
/* A table for `count` entries and as many more, in this member's hands, with the entries of `old`
 * (which may be NULL) in their order; they are still those of `old`.  KIN_EARENAFULL. */
KIN_NODISCARD kin_err kin__rows_new(kin_family *family, const kin_rows_shm *old, uint64_t count,
                                    uint64_t *off);
/* The row with this key, or -1. */
int64_t kin__rows_find(kin_family *family, const kin_rows_shm *rows, uint64_t hash, const void *key,
                       size_t len);
/* Where in the index the next row goes, and what is to be stored there; NULL if the table is full. */
_Atomic uint64_t *kin__rows_slot(kin_rows_shm *rows, uint64_t hash, uint64_t *value);
/* Would a much smaller table do? */
bool kin__rows_are_sparse(const kin_rows_shm *rows, uint64_t count);

#endif
