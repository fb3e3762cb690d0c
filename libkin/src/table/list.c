/* List: a mutex, an array of places, and which of them are its items.
 *
 * Items come and go at both ends in place; whatever moves the others makes another array
 * (list_rearrange.c).  As in dict.c, each function makes one kin__change of it all. */
#include "list_items.h"

#include <string.h>

#include "family/arena.h"
#include "family/fault.h"
#include "table_kinds.h"

#define ROOM_MIN 8
/* An array of which less is in use than one in so many is exchanged for a smaller one. */
#define SPARSE 8

_Static_assert(sizeof(kin_sequence_shm) + KIN_HEADER <= 64, "a list takes one line");

/* -- Arrays -------------------------------------------------------------------------------- */

static uint64_t size_of(uint64_t count) {
    return sizeof(kin_items_shm) + count * sizeof(uint64_t);
}

static kin_items_shm *items_at(kin_family *family, uint64_t off) {
    kin_block_shm *block = off ? kin__block_find(family, off) : NULL;
    if (!block || kin__block_tag(block) != KIN_TAG(KIN_OBJECT, KIN_KIND_SLOTS, 0)) return NULL;
    kin_items_shm *items = kin__payload(family, off);
    bool sound = items->places.count <= KIN_LIST_MAX * 2ull &&
                 size_of(items->places.count) <= kin__payload_room(family, off);
    return sound ? items : NULL;
}

kin_err kin__items_new(kin_family *family, uint64_t count, uint64_t *off) {
    if (count < ROOM_MIN) count = ROOM_MIN;
    kin_err err = kin__block_new(family, size_of(count), off);
    if (err) return err;
    kin_items_shm *items = kin__payload(family, *off);
    memset((void *)items, 0, size_of(count));
    items->places = (kin_places_shm){
        .first = offsetof(kin_items_shm, place), .stride = sizeof(uint64_t), .count = count};
    return 0;
}

void kin__list_changed(kin__list_visit *v, kin__change *change) {
    uint64_t version = atomic_load_explicit(&v->shm->version, memory_order_relaxed);
    kin__change_store(change, &v->shm->version, version + 1);
}

static void set_bounds(kin__list_visit *v, kin__change *change, uint64_t start, uint64_t end) {
    kin__change_store(change, &v->shm->bounds, KIN_BOUNDS(start, end));
    kin__list_changed(v, change);
}

void kin__items_swap(kin__list_visit *v, kin__change *change, uint64_t fresh, uint64_t len) {
    uint64_t old = atomic_load_explicit(&v->shm->items, memory_order_relaxed);
    kin__change_share(change, fresh, KIN_KIND_SLOTS, &v->shm->items);
    if (old && kin__change_drop(change, old)) v->ends[1] = old;
    set_bounds(v, change, 0, len);
}

/* The same items in an array for `count`. */
static kin_err resize(kin__list_visit *v, uint64_t count) {
    if (count > KIN_LIST_MAX) return KIN_ETOOLARGE;
    uint64_t fresh;
    kin_err err = kin__items_new(v->family, count, &fresh);
    if (err) return err;
    kin_items_shm *items = kin__payload(v->family, fresh);
    for (uint64_t i = 0; i < v->len; i++) atomic_init(&items->place[i], kin__list_entry(v, i));
    KIN_FAULT("list-resizing");
    kin__change change = kin__change_begin(v->family);
    kin__items_swap(v, &change, fresh, v->len);
    kin__change_end(&change);
    if (v->ends[1]) kin__object_end(v->family, v->ends[1]); /* ends with nothing: see SLOTS */
    v->ends[1] = 0;
    v->items = items;
    v->start = 0;
    return 0;
}

/* -- Entering and leaving -------------------------------------------------------------------- */

kin_err kin__list_enter(kin__list_visit *v, kin_list *list, kin_deadline deadline) {
    kin_family *family = list->handle.family;
    kin_sequence_shm *shm = list->handle.shm;
    *v = (kin__list_visit){.family = family, .shm = shm};
    kin_err err = kin__mutex_lock_until(family, &shm->mutex, deadline);
    while (err == -EINTR) err = kin__mutex_lock_until(family, &shm->mutex, deadline);
    if (err < 0) return err;
    uint64_t off = atomic_load_explicit(&shm->items, memory_order_relaxed);
    uint64_t bounds = atomic_load_explicit(&shm->bounds, memory_order_relaxed);
    uint64_t start = KIN_BOUNDS_START(bounds), end = KIN_BOUNDS_END(bounds);
    v->items = items_at(family, off);
    v->start = start;
    v->len = end - start;
    if (v->items ? start <= end && end <= v->items->places.count : !off && !bounds) return 0;
    kin__mutex_unlock(&shm->mutex);
    return -EIO;
}

kin_err kin__list_leave(kin__list_visit *v, kin_err err) {
    kin__mutex_unlock(&v->shm->mutex);
    for (int i = 0; i < 2; i++)
        if (v->ends[i]) kin__object_end(v->family, v->ends[i]);
    return err;
}

/* Index of an item, from its beginning on, or -1. */
static int64_t resolve(const kin__list_visit *v, int64_t index) {
    if (index < 0) index += (int64_t)v->len;
    return index >= 0 && (uint64_t)index < v->len ? index : -1;
}

/* -- Looking and putting ------------------------------------------------------------------------ */

kin_err kin_list_get(kin_list *list, int64_t index, kin_found *out, kin_deadline deadline) {
    kin__list_visit v;
    kin_err err = kin__list_enter(&v, list, deadline);
    if (err) return err;
    index = resolve(&v, index);
    if (index < 0) return kin__list_leave(&v, -ENOENT);
    err = kin__entry_find(v.family, kin__list_entry(&v, (uint64_t)index), out);
    return kin__list_leave(&v, err);
}

kin_err kin_list_set(kin_list *list, int64_t index, kin_entry *entry, kin_deadline deadline) {
    kin__list_visit v;
    kin_err err = kin__list_enter(&v, list, deadline);
    if (err) return err;
    index = resolve(&v, index);
    if (index < 0) return kin__list_leave(&v, -ENOENT);
    uint64_t old = kin__list_entry(&v, (uint64_t)index);
    KIN_FAULT("list-setting");
    kin__change change = kin__change_begin(v.family);
    kin__change_share(&change, entry->off, KIN_KIND_ENTRY, kin__list_place(&v, (uint64_t)index));
    if (kin__entry_leave(&change, old)) v.ends[0] = old;
    kin__list_changed(&v, &change);
    kin__change_end(&change);
    entry->family = NULL;
    return kin__list_leave(&v, 0);
}

static kin_err append(kin__list_visit *v, kin_entry *entry) {
    if (!v->items || v->start + v->len == v->items->places.count) {
        kin_err err = resize(v, v->len + v->len / 2 + ROOM_MIN);
        if (err) return err;
    }
    KIN_FAULT("list-appending");
    kin__change change = kin__change_begin(v->family);
    kin__change_share(&change, entry->off, KIN_KIND_ENTRY, kin__list_place(v, v->len));
    set_bounds(v, &change, v->start, v->start + v->len + 1);
    kin__change_end(&change);
    entry->family = NULL;
    return 0;
}

kin_err kin_list_append(kin_list *list, kin_entry *entry, kin_deadline deadline) {
    kin__list_visit v;
    kin_err err = kin__list_enter(&v, list, deadline);
    return err ? err : kin__list_leave(&v, append(&v, entry));
}

kin_err kin_list_extend(kin_list *list, kin_entry *entries, size_t count, size_t *done,
                        kin_deadline deadline) {
    kin__list_visit v;
    *done = 0;
    kin_err err = kin__list_enter(&v, list, deadline);
    if (err) return err;
    for (; *done < count && !(err = append(&v, &entries[*done])); ++*done) v.len++;
    return kin__list_leave(&v, err);
}

static uint64_t clamp(int64_t index, uint64_t len) {
    if (index < 0) index += (int64_t)len;
    return index < 0 ? 0 : (uint64_t)index > len ? len : (uint64_t)index;
}

kin_err kin_list_each(kin_list *list, int64_t start, int64_t stop, kin_list_visit *visit,
                      void *context, uint64_t *version, kin_deadline deadline) {
    kin__list_visit v;
    kin_err err = kin__list_enter(&v, list, deadline);
    if (err) return err;
    *version = kin_list_version(list);
    uint64_t end = clamp(stop, v.len);
    for (uint64_t i = clamp(start, v.len); !err && i < end; i++) {
        kin_found found;
        err = kin__entry_find(v.family, kin__list_entry(&v, i), &found);
        if (!err) err = visit(context, &found);
    }
    return kin__list_leave(&v, err);
}

/* -- Taking ---------------------------------------------------------------------------------------- */

/* From one of the ends, or with a new array without it. */
static kin_err take(kin__list_visit *v, uint64_t index) {
    uint64_t old = kin__list_entry(v, index), fresh = 0;
    bool is_first = index == 0, is_last = index + 1 == v->len;
    if (!is_first && !is_last) {
        kin_err err = kin__items_new(v->family, v->len + v->len / 4, &fresh);
        if (err) return err;
        kin_items_shm *items = kin__payload(v->family, fresh);
        for (uint64_t from = 0, to = 0; from < v->len; from++)
            if (from != index) atomic_init(&items->place[to++], kin__list_entry(v, from));
    }
    KIN_FAULT("list-taking");
    kin__change change = kin__change_begin(v->family);
    if (kin__entry_leave(&change, old)) v->ends[0] = old;
    if (fresh) {
        kin__items_swap(v, &change, fresh, v->len - 1);
    } else {
        kin__change_store(&change, kin__list_place(v, index), 0);
        set_bounds(v, &change, v->start + !is_last, v->start + v->len - is_last);
    }
    kin__change_end(&change);
    if (!fresh) v->start += !is_last;
    v->len--;
    return 0;
}

kin_err kin_list_take(kin_list *list, int64_t index, kin_found *out, kin_deadline deadline) {
    kin__list_visit v;
    kin_err err = kin__list_enter(&v, list, deadline);
    if (err) return err;
    index = resolve(&v, index);
    if (index < 0) return kin__list_leave(&v, -ENOENT);
    if (out) err = kin__entry_find(v.family, kin__list_entry(&v, (uint64_t)index), out);
    if (!err) {
        err = take(&v, (uint64_t)index);
        if (err && out) kin_found_drop(out);
    }
    /* memory given back; if there is none for the smaller one, the larger one does */
    uint64_t room = v.items->places.count;
    if (!err && !v.ends[1] && room > SPARSE * ROOM_MIN && v.len < room / SPARSE)
        (void)!resize(&v, 2 * v.len);
    return kin__list_leave(&v, err);
}

/* -- Questions, making, ending ------------------------------------------------------------------------ */

uint64_t kin_list_len(const kin_list *list) {
    const kin_sequence_shm *shm = list->handle.shm;
    uint64_t bounds = atomic_load_explicit(&shm->bounds, memory_order_relaxed);
    return KIN_BOUNDS_END(bounds) - KIN_BOUNDS_START(bounds);
}

uint64_t kin_list_version(const kin_list *list) {
    return atomic_load_explicit(&((const kin_sequence_shm *)list->handle.shm)->version,
                                memory_order_acquire);
}

kin_err kin_list_create(kin_family *family, kin_list *out) {
    kin_handle handle;
    kin_err err = kin__object_new(family, sizeof(kin_sequence_shm), &handle);
    if (err) return err;
    kin__object_share(&handle, KIN_KIND_LIST);
    out->handle = handle;
    return 0;
}

kin_err kin_list_open(kin_family *family, const kin_ref *ref, kin_list *out) {
    return kin__object_open(family, ref, KIN_KIND_LIST, &out->handle);
}

void kin_list_close(kin_list *list) {
    kin_handle_close(&list->handle);
}

/* May be begun again by another: what is given back already is 0 by then. */
void kin__list_end(kin_family *family, uint64_t off) {
    kin_sequence_shm *shm = kin__payload(family, off);
    uint64_t items = atomic_load_explicit(&shm->items, memory_order_relaxed);
    if (!items_at(family, items)) return;
    kin__places_drop(family, items);
    kin__ref_out_of(family, &shm->items);
}
