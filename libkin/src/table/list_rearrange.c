/* Lists in another order: one new array says it all, and one change puts it in place.
 *
 * What comes lies in a block of its own until then, and what goes in another one afterwards, so that
 * both are somebody's at any moment: in kind DROPPED a block gives back what is in it when it ends,
 * also by a burial; in kind RAW it does not.  The change turns the one into the other. */
#include <stdlib.h>
#include <string.h>

#include "family/arena.h"
#include "family/fault.h"
#include "list_items.h"

/* The three arrays of a rearrangement, in this member's hands; 0: none is needed. */
typedef struct plan {
    uint64_t fresh, coming, going;
    const int64_t *order;
    size_t count;
    kin_entry *entries;
    size_t entry_count;
} plan;

static kin_items_shm *array(kin__list_visit *v, uint64_t off) {
    return kin__payload(v->family, off);
}

static void set(_Atomic uint64_t *place, uint64_t off) {
    atomic_store_explicit(place, off, memory_order_relaxed);
}

/* -- The orders are the caller's: each index once ------------------------------------------------ */

static bool mark(uint8_t *seen, uint64_t index, uint64_t count) {
    if (index >= count || seen[index]) return false;
    seen[index] = 1;
    return true;
}

/* What is left 0 in `seen` is not mentioned. */
static bool check(const plan *p, uint8_t *seen, uint64_t len) {
    size_t mentioned = 0;
    for (size_t i = 0; i < p->count; i++) {
        bool is_new = p->order[i] < 0;
        uint64_t index = is_new ? (uint64_t)(-1 - p->order[i]) : (uint64_t)p->order[i];
        if (!(is_new ? mark(seen + len, index, p->entry_count) : mark(seen, index, len)))
            return false;
        mentioned += is_new;
    }
    return mentioned == p->entry_count;
}

/* -- Making the arrays ------------------------------------------------------------------------------ */

static void retag(kin__list_visit *v, uint64_t off, unsigned from, unsigned to) {
    uint32_t token = kin__token(v->family);
    kin__block_retag(kin__block(v->family, off), KIN_TAG(KIN_HAND, from, token),
                     KIN_TAG(KIN_HAND, to, token));
}

/* From here on the entries are held by the array, and with it by nobody else. */
static kin_err gather_coming(kin__list_visit *v, plan *p) {
    if (!p->entry_count) return 0;
    kin_err err = kin__items_new(v->family, p->entry_count, &p->coming);
    if (err) return err;
    retag(v, p->coming, KIN_KIND_RAW, KIN_KIND_DROPPED);
    for (size_t i = 0; i < p->entry_count; i++) {
        kin__change change = kin__change_begin(v->family);
        kin__change_share(&change, p->entries[i].off, KIN_KIND_ENTRY,
                          &array(v, p->coming)->place[i]);
        kin__change_end(&change);
        KIN_FAULT("list-gathering");
    }
    return 0;
}

static kin_err gather_going(kin__list_visit *v, plan *p, const uint8_t *seen, uint64_t going) {
    if (!going) return 0;
    kin_err err = kin__items_new(v->family, going, &p->going);
    if (err) return err;
    for (uint64_t i = 0, to = 0; i < v->len; i++)
        if (!seen[i]) set(&array(v, p->going)->place[to++], kin__list_entry(v, i));
    return 0;
}

static void fill(kin__list_visit *v, const plan *p) {
    kin_items_shm *items = array(v, p->fresh);
    for (size_t i = 0; i < p->count; i++) {
        int64_t from = p->order[i];
        uint64_t entry = from < 0 ? atomic_load_explicit(&array(v, p->coming)->place[-1 - from],
                                                         memory_order_relaxed)
                                  : kin__list_entry(v, (uint64_t)from);
        set(&items->place[i], entry);
    }
}

static kin_err make(kin__list_visit *v, plan *p, const uint8_t *seen) {
    uint64_t kept = p->count - p->entry_count;
    kin_err err = kin__items_new(v->family, p->count + p->count / 4, &p->fresh);
    if (!err) err = gather_going(v, p, seen, v->len - kept);
    if (!err) err = gather_coming(v, p); /* last: nothing can fail any more */
    if (!err) fill(v, p);
    return err;
}

static void commit(kin__list_visit *v, plan *p) {
    KIN_FAULT("list-rearranging");
    kin__change change = kin__change_begin(v->family);
    kin__items_swap(v, &change, p->fresh, p->count);
    if (p->coming) kin__change_kind(&change, p->coming, KIN_KIND_RAW);
    if (p->going) kin__change_kind(&change, p->going, KIN_KIND_DROPPED);
    kin__change_end(&change);
    p->fresh = 0;
}

static void clear_up(kin__list_visit *v, plan *p) {
    KIN_FAULT("list-rearranged");
    if (p->going) kin__places_drop(v->family, p->going);
    if (p->going) kin__block_free(v->family, p->going);
    if (p->coming) kin__block_free(v->family, p->coming);
}

static kin_err rearrange(kin__list_visit *v, plan *p) {
    if (p->count > KIN_LIST_MAX || p->entry_count > KIN_LIST_MAX) return KIN_ETOOLARGE;
    uint8_t *seen = calloc(v->len + p->entry_count + 1, 1);
    if (!seen) return -ENOMEM;
    kin_err err = check(p, seen, v->len) ? make(v, p, seen) : -EINVAL;
    free(seen);
    if (!err) {
        commit(v, p);
        return 0;
    }
    /* `going` is a copy still, and `coming` was not made */
    if (p->fresh) kin__block_free(v->family, p->fresh);
    if (p->going) kin__block_free(v->family, p->going);
    p->going = p->coming = 0;
    return err;
}

static kin_err finish(kin__list_visit *v, plan *p, kin_err err) {
    kin__list_leave(v, err);
    if (err) return err;
    for (size_t i = 0; i < p->entry_count; i++) p->entries[i].family = NULL;
    clear_up(v, p);
    return 0;
}

kin_err kin_list_rearrange(kin_list *list, uint64_t version, const int64_t *order, size_t count,
                           kin_entry *entries, size_t entry_count, kin_deadline deadline) {
    kin__list_visit v;
    plan p = {.order = order, .count = count, .entries = entries, .entry_count = entry_count};
    kin_err err = kin__list_enter(&v, list, deadline);
    if (err) return err;
    bool is_late = version != KIN_ANY_VERSION && kin_list_version(list) != version;
    return finish(&v, &p, is_late ? -ESTALE : rearrange(&v, &p));
}

kin_err kin_list_insert(kin_list *list, int64_t index, kin_entry *entry, kin_deadline deadline) {
    kin__list_visit v;
    kin_err err = kin__list_enter(&v, list, deadline);
    if (err) return err;
    int64_t len = (int64_t)v.len, at = index < 0 ? index + len : index;
    at = at < 0 ? 0 : at > len ? len : at;
    int64_t *order = malloc((v.len + 1) * sizeof *order);
    if (!order) return kin__list_leave(&v, -ENOMEM);
    for (int64_t i = 0; i <= len; i++) order[i] = i < at ? i : i == at ? -1 : i - 1;
    plan p = {.order = order, .count = v.len + 1, .entries = entry, .entry_count = 1};
    err = finish(&v, &p, rearrange(&v, &p));
    free(order);
    return err;
}
