/* Dict: a mutex, a table (dict_rows.c), and how many entries there are.
 *
 * Each function looks things up under the mutex and makes one kin__change: the entry that comes, the
 * one that goes, the row, the index and the count are stored together or not at all.  So there is
 * nothing to settle after a holder of the mutex that was killed.  What comes was made before the
 * mutex was taken, and what goes is ended after it was released.
 *
 * docs/shared-dict.md says who may die where. */
#include "kin/dict.h"

#include <string.h>

#include "dict_rows.h"
#include "family/arena.h"
#include "family/fault.h"
#include "family/mutex.h"
#include "table_kinds.h"

typedef struct kin_dict_shm {
    kin_mutex_shm mutex;
    uint32_t pad;
    _Atomic uint64_t rows; /* a place: the table; 0 while nothing was ever put in */
    _Atomic uint64_t count;
    uint64_t last; /* number given to an entry */
} kin_dict_shm;

_Static_assert(sizeof(kin_dict_shm) + KIN_HEADER <= 64, "a dict takes one line");

/* One call, with the mutex held. */
typedef struct visit {
    kin_family *family;
    kin_dict_shm *shm;
    kin_rows_shm *rows; /* NULL: there is none */
    uint64_t ends[2];   /* what this call took out, for the end: objects, or 0 */
} visit;

static uint64_t count_of(const kin_dict_shm *shm) {
    return atomic_load_explicit(&shm->count, memory_order_relaxed);
}

static kin_err enter(visit *v, kin_dict *dict, kin_deadline deadline) {
    kin_family *family = dict->handle.family;
    kin_dict_shm *shm = dict->handle.shm;
    *v = (visit){.family = family, .shm = shm};
    kin_err err = kin__mutex_lock_until(family, &shm->mutex, deadline);
    while (err == -EINTR) err = kin__mutex_lock_until(family, &shm->mutex, deadline);
    if (err < 0) return err;
    uint64_t off = atomic_load_explicit(&shm->rows, memory_order_relaxed);
    v->rows = kin__rows_at(family, off);
    if (!off || v->rows) return 0;
    kin__mutex_unlock(&shm->mutex);
    return -EIO;
}

static kin_err leave(visit *v, kin_err err) {
    kin__mutex_unlock(&v->shm->mutex);
    for (int i = 0; i < 2; i++)
        if (v->ends[i]) kin__object_end(v->family, v->ends[i]);
    return err;
}

static kin_err show(visit *v, uint64_t row, kin_found *out) {
    if (!out) return 0;
    kin_err err = kin__entry_find(v->family, kin__row_entry(v->rows, row), out);
    if (!err) out->number = kin__row(v->rows, row)->number;
    return err;
}

/* -- Another table -------------------------------------------------------------------------- */

static kin_err retable(visit *v) {
    _Atomic uint64_t *place = &v->shm->rows;
    uint64_t old = atomic_load_explicit(place, memory_order_relaxed), fresh;
    kin_err err = kin__rows_new(v->family, v->rows, count_of(v->shm), &fresh);
    if (err) return err;
    KIN_FAULT("dict-retabling");
    kin__change change = kin__change_begin(v->family);
    kin__change_share(&change, fresh, KIN_KIND_SLOTS, place);
    bool ends = old && kin__change_drop(&change, old);
    kin__change_end(&change);
    if (ends) kin__object_end(v->family, old); /* a table ends with nothing: see SLOTS */
    v->rows = kin__payload(v->family, fresh);
    return 0;
}

/* -- Putting -------------------------------------------------------------------------------- */

static void replace(visit *v, uint64_t row, uint64_t fresh) {
    _Atomic uint64_t *place = &kin__row(v->rows, row)->place;
    uint64_t old = kin__row_entry(v->rows, row);
    KIN_FAULT("dict-replacing");
    kin__change change = kin__change_begin(v->family);
    kin__change_share(&change, fresh, KIN_KIND_ENTRY, place);
    if (kin__entry_leave(&change, old)) v->ends[0] = old;
    kin__change_end(&change);
}

static kin_err add(visit *v, uint64_t hash, uint64_t fresh) {
    uint64_t value;
    _Atomic uint64_t *slot = v->rows ? kin__rows_slot(v->rows, hash, &value) : NULL;
    if (!slot) {
        kin_err err = retable(v);
        if (err) return err;
        slot = kin__rows_slot(v->rows, hash, &value);
        if (!slot) return -EIO;
    }
    uint64_t used = kin__rows_used(v->rows);
    kin_row_shm *row = kin__row(v->rows, used);
    row->hash = hash;
    row->number = ++v->shm->last;
    v->rows->tail = used + 1;
    KIN_FAULT("dict-adding");
    kin__change change = kin__change_begin(v->family);
    kin__change_share(&change, fresh, KIN_KIND_ENTRY, &row->place);
    kin__change_store(&change, slot, value);
    kin__change_store(&change, &v->rows->used, used + 1);
    kin__change_store(&change, &v->shm->count, count_of(v->shm) + 1);
    kin__change_end(&change);
    return 0;
}

/* Is what is there what the caller wants to put something in place of? */
static kin_err check(visit *v, int64_t row, int how, uint64_t serial, kin_found *out) {
    if (how == KIN_PUT_NEW && row >= 0) {
        kin_err err = show(v, (uint64_t)row, out);
        return err ? err : -EEXIST;
    }
    if (how != KIN_PUT_SAME) return 0;
    uint64_t there =
        row < 0 ? 0 : kin__entry_serial(v->family, kin__row_entry(v->rows, (uint64_t)row));
    return there == serial ? 0 : -ESTALE;
}

kin_err kin_dict_put(kin_dict *dict, kin_entry *entry, int how, uint64_t serial, kin_found *out,
                     kin_deadline deadline) {
    const kin_entry_shm *shm = kin__payload(entry->family, entry->off);
    const uint8_t *key = kin__entry_key(shm);
    uint64_t hash = kin__key_hash(entry->family, key, shm->key_len);
    visit v;
    kin_err err = enter(&v, dict, deadline);
    if (err) return err;
    int64_t row = v.rows ? kin__rows_find(v.family, v.rows, hash, key, shm->key_len) : -1;
    err = check(&v, row, how, serial, out);
    if (!err && row >= 0) replace(&v, (uint64_t)row, entry->off);
    else if (!err) err = add(&v, hash, entry->off);
    if (!err) entry->family = NULL;
    return leave(&v, err);
}

/* -- Taking ----------------------------------------------------------------------------------- */

static kin_err take(visit *v, uint64_t row, kin_found *out) {
    kin_err err = show(v, row, out);
    if (err) return err;
    uint64_t old = kin__row_entry(v->rows, row), count = count_of(v->shm) - 1;
    KIN_FAULT("dict-taking");
    kin__change change = kin__change_begin(v->family);
    kin__change_store(&change, &kin__row(v->rows, row)->place, 0);
    if (kin__entry_leave(&change, old)) v->ends[0] = old;
    kin__change_store(&change, &v->shm->count, count);
    kin__change_end(&change);
    /* memory given back; if there is none for the smaller one, the larger one does */
    if (kin__rows_are_sparse(v->rows, count)) (void)!retable(v);
    return 0;
}

kin_err kin_dict_take(kin_dict *dict, const void *key, size_t key_len, kin_found *out,
                      kin_deadline deadline) {
    uint64_t hash = kin__key_hash(dict->handle.family, key, key_len);
    visit v;
    kin_err err = enter(&v, dict, deadline);
    if (err) return err;
    int64_t row = v.rows ? kin__rows_find(v.family, v.rows, hash, key, key_len) : -1;
    return leave(&v, row < 0 ? -ENOENT : take(&v, (uint64_t)row, out));
}

kin_err kin_dict_take_last(kin_dict *dict, kin_found *out, kin_deadline deadline) {
    visit v;
    kin_err err = enter(&v, dict, deadline);
    if (err) return err;
    uint64_t row = v.rows ? v.rows->tail : 0;
    while (row > 0 && !kin__row_entry(v.rows, row - 1)) row--;
    if (v.rows) v.rows->tail = row;
    return leave(&v, row == 0 ? -ENOENT : take(&v, row - 1, out));
}

kin_err kin_dict_clear(kin_dict *dict, kin_deadline deadline) {
    visit v;
    kin_err err = enter(&v, dict, deadline);
    if (err || !v.rows) return err ? err : leave(&v, 0);
    uint64_t old = atomic_load_explicit(&v.shm->rows, memory_order_relaxed);
    KIN_FAULT("dict-clearing");
    kin__change change = kin__change_begin(v.family);
    kin__change_store(&change, &v.shm->rows, 0);
    kin__change_store(&change, &v.shm->count, 0);
    /* nobody else holds a table, so this is its last holder; its places go with it from now on */
    if (kin__change_drop(&change, old)) v.ends[0] = old;
    kin__change_kind(&change, old, KIN_KIND_DROPPED);
    kin__change_end(&change);
    return leave(&v, 0);
}

/* -- Looking ------------------------------------------------------------------------------------ */

uint64_t kin_dict_len(const kin_dict *dict) {
    return count_of(dict->handle.shm);
}

kin_err kin_dict_get(kin_dict *dict, const void *key, size_t key_len, kin_found *out,
                     kin_deadline deadline) {
    uint64_t hash = kin__key_hash(dict->handle.family, key, key_len);
    visit v;
    kin_err err = enter(&v, dict, deadline);
    if (err) return err;
    int64_t row = v.rows ? kin__rows_find(v.family, v.rows, hash, key, key_len) : -1;
    return leave(&v, row < 0 ? -ENOENT : show(&v, (uint64_t)row, out));
}

/* The first row with a number beyond `number`. */
static uint64_t row_behind(const kin_rows_shm *rows, uint64_t number) {
    uint64_t low = 0, high = kin__rows_used(rows);
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (kin__row(rows, middle)->number > number) high = middle;
        else low = middle + 1;
    }
    return low;
}

/* The row itself, or where it would be: the hint first, for who goes from row to row. */
static uint64_t start_at(const kin_rows_shm *rows, uint64_t number, uint64_t hint) {
    if (number == 0 || number == UINT64_MAX) return number ? kin__rows_used(rows) : 0;
    if (hint < kin__rows_used(rows) && kin__row(rows, hint)->number == number) return hint + 1;
    return row_behind(rows, number);
}

static int64_t next_row(const kin_rows_shm *rows, uint64_t number, bool back, uint64_t hint) {
    uint64_t at = start_at(rows, number, hint);
    if (!back) {
        while (at < kin__rows_used(rows) && !kin__row_entry(rows, at)) at++;
        return at < kin__rows_used(rows) ? (int64_t)at : -1;
    }
    while (at > 0 && (kin__row(rows, at - 1)->number >= number || !kin__row_entry(rows, at - 1)))
        at--;
    return (int64_t)at - 1;
}

kin_err kin_dict_next(kin_dict *dict, uint64_t number, int back, uint64_t *hint, kin_found *out,
                      kin_deadline deadline) {
    visit v;
    kin_err err = enter(&v, dict, deadline);
    if (err) return err;
    int64_t row = v.rows ? next_row(v.rows, number, back, *hint) : -1;
    if (row >= 0) *hint = (uint64_t)row;
    return leave(&v, row < 0 ? -ENOENT : show(&v, (uint64_t)row, out));
}

/* -- Making and ending ------------------------------------------------------------------------------ */

kin_err kin_dict_create(kin_family *family, kin_dict *out) {
    kin_handle handle;
    kin_err err = kin__object_new(family, sizeof(kin_dict_shm), &handle);
    if (err) return err;
    kin__object_share(&handle, KIN_KIND_DICT);
    out->handle = handle;
    return 0;
}

kin_err kin_dict_open(kin_family *family, const kin_ref *ref, kin_dict *out) {
    return kin__object_open(family, ref, KIN_KIND_DICT, &out->handle);
}

void kin_dict_close(kin_dict *dict) {
    kin_handle_close(&dict->handle);
}

/* May be begun again by another: what is given back already is 0 by then. */
void kin__dict_end(kin_family *family, uint64_t off) {
    kin_dict_shm *shm = kin__payload(family, off);
    uint64_t rows = atomic_load_explicit(&shm->rows, memory_order_relaxed);
    if (!kin__rows_at(family, rows)) return;
    kin__places_drop(family, rows);
    kin__ref_out_of(family, &shm->rows);
}
