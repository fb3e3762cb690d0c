#include "refs.h"

#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "fault.h"
#include "kinds.h"
#include "members.h"
#include "mutex.h"

/* -- The journal ------------------------------------------------------------- */

static void store(kin_family *family, uint64_t off, uint64_t value) {
    _Atomic uint64_t *place = kin__at(family, off);
    /* release: who reads a tag or an entry sees what it is about */
    atomic_store_explicit(place, value, memory_order_release);
}

static void redo(kin_family *family) {
    kin_journal_shm *journal = &family->arena->journal;
    uint32_t armed = atomic_load_explicit(&journal->armed, memory_order_acquire);
    for (uint32_t i = 0; i < armed && i < KIN_JOURNAL_STORES; i++) {
        KIN_FAULT("journal-store");
        store(family, journal->store[i].off, journal->store[i].value);
    }
    atomic_store_explicit(&journal->armed, 0, memory_order_release);
}

static void lock(kin_family *family) {
    if (kin__mutex_lock(family, &family->arena->refs) == KIN_OWNER_DIED) redo(family);
}

static void unlock(kin_family *family) {
    kin__mutex_unlock(&family->arena->refs);
}

static void plan(kin_family *family, uint32_t at, const void *place, uint64_t value) {
    family->arena->journal.store[at].off = kin__off(family, place);
    family->arena->journal.store[at].value = value;
}

static void carry_out(kin_family *family, uint32_t count) {
    atomic_store_explicit(&family->arena->journal.armed, count, memory_order_release);
    redo(family);
}

void kin__refs_settle(kin_family *family) {
    lock(family);
    unlock(family);
}

/* -- Counting, with the refs mutex held ----------------------------------------- */

static kin_err check_locked(kin_family *family, const kin_ref *ref, kin_block_shm **out) {
    kin_block_shm *block = kin__block_find(family, ref->off);
    if (!block || ref->serial == 0) return KIN_ESTALE;
    if (atomic_load_explicit(&block->serial, memory_order_acquire) != ref->serial)
        return KIN_ESTALE;
    uint64_t tag = kin__block_tag(block);
    if (KIN_TAG_STATE(tag) != KIN_OBJECT) return KIN_ESTALE;
    if (KIN_TAG_KIND(tag) != ref->kind) return KIN_EKIND;
    *out = block;
    return 0;
}

static uint64_t count_of(kin_block_shm *block) {
    return atomic_load_explicit(&block->count, memory_order_relaxed);
}

static void hold_locked(kin_family *family, kin_block_shm *block, uint64_t off,
                        _Atomic uint64_t *place) {
    plan(family, 0, place, off);
    plan(family, 1, &block->count, count_of(block) + 1);
    carry_out(family, 2);
}

/* Give the reference in `place` back.  True: it was the last one, and the object
 * is now in this member's hands. */
static bool drop_locked(kin_family *family, kin_block_shm *block, _Atomic uint64_t *place) {
    uint64_t count = count_of(block) - 1;
    plan(family, 0, place, 0);
    plan(family, 1, &block->count, count);
    if (count == 0) {
        uint64_t tag = atomic_load_explicit(&block->tag, memory_order_relaxed);
        uint64_t hand = KIN_TAG(KIN_HAND, KIN_TAG_KIND(tag), kin__token(family));
        plan(family, 2, &block->tag, hand | (tag & KIN_TAG_CLASS_BITS));
    }
    carry_out(family, count == 0 ? 3 : 2);
    return count == 0;
}

/* Objects that are to be ended by this thread, one behind the other by their `next`.
 * An object's end may give the last reference to another back (a queue with a message
 * that mentions a queue with a message …): they are ended in a loop, however long that
 * chain is, and not by recursion. */
static _Thread_local struct {
    bool busy;
    uint64_t first;
} ending;

static void end_one(kin_family *family, uint64_t off, kin_block_shm *block) {
    const kin__kind *kind = &kin__kinds[KIN_TAG_KIND(kin__block_tag(block)) % KIN_KINDS];
    if (kind->end) kind->end(family, off);
    kin__block_free(family, off);
}

/* The object is in this member's hands; if it is killed meanwhile its burial ends it. */
static void end_object(kin_family *family, uint64_t off, kin_block_shm *block) {
    atomic_fetch_add_explicit(&family->hands, 1, memory_order_relaxed);
    atomic_store_explicit(&block->next, ending.first, memory_order_relaxed);
    ending.first = off;
    if (ending.busy) return;
    ending.busy = true;
    while ((off = ending.first)) {
        block = kin__block(family, off);
        ending.first = atomic_load_explicit(&block->next, memory_order_relaxed);
        end_one(family, off, block);
    }
    ending.busy = false;
}

kin_err kin__ref_into(kin_family *family, const kin_ref *ref, _Atomic uint64_t *place) {
    kin_block_shm *block;
    lock(family);
    kin_err err = check_locked(family, ref, &block);
    if (!err) hold_locked(family, block, ref->off, place);
    unlock(family);
    return err;
}

void kin__ref_out_of(kin_family *family, _Atomic uint64_t *place) {
    lock(family);
    uint64_t off = atomic_load_explicit(place, memory_order_relaxed);
    kin_block_shm *block = off ? kin__block_find(family, off) : NULL;
    bool last = block && drop_locked(family, block, place);
    unlock(family);
    if (last) end_object(family, off, block);
}

/* -- Changes of several words -------------------------------------------------------- */

kin__change kin__change_begin(kin_family *family) {
    lock(family);
    return (kin__change){.family = family};
}

void kin__change_store(kin__change *change, _Atomic uint64_t *word, uint64_t value) {
    plan(change->family, change->count++, word, value);
}

static uint64_t class_bits(kin_block_shm *block) {
    return atomic_load_explicit(&block->tag, memory_order_relaxed) & KIN_TAG_CLASS_BITS;
}

void kin__change_share(kin__change *change, uint64_t off, unsigned kind, _Atomic uint64_t *place) {
    kin_block_shm *block = kin__block(change->family, off);
    kin__change_store(change, place, off);
    kin__change_store(change, &block->count, 1);
    kin__change_store(change, &block->tag, KIN_TAG(KIN_OBJECT, kind, 0) | class_bits(block));
    atomic_fetch_sub_explicit(&change->family->hands, 1, memory_order_relaxed);
}

void kin__change_hold(kin__change *change, uint64_t off, _Atomic uint64_t *place) {
    kin_block_shm *block = kin__block(change->family, off);
    kin__change_store(change, place, off);
    kin__change_store(change, &block->count, count_of(block) + 1);
}

bool kin__change_drop(kin__change *change, uint64_t off) {
    kin_block_shm *block = kin__block(change->family, off);
    uint64_t count = count_of(block) - 1;
    kin__change_store(change, &block->count, count);
    if (count == 0) kin__change_kind(change, off, KIN_TAG_KIND(kin__block_tag(block)));
    return count == 0;
}

void kin__change_kind(kin__change *change, uint64_t off, unsigned kind) {
    kin_block_shm *block = kin__block(change->family, off);
    uint64_t hand = KIN_TAG(KIN_HAND, kind, kin__token(change->family));
    kin__change_store(change, &block->tag, hand | class_bits(block));
}

void kin__change_end(kin__change *change) {
    carry_out(change->family, change->count);
    unlock(change->family);
}

void kin__object_end(kin_family *family, uint64_t off) {
    end_object(family, off, kin__block(family, off));
}

/* -- This member's table of holds ------------------------------------------------ */

static _Atomic uint64_t *entry_locked(kin_family *family, uint32_t index) {
    return &family->holds.block[index / KIN_HOLDS_PER_BLOCK]->entry[index % KIN_HOLDS_PER_BLOCK];
}

/* The entries stay where they are, but which block is where is in an array that may grow. */
static _Atomic uint64_t *entry(kin_family *family, uint32_t index) {
    pthread_mutex_lock(&family->local);
    _Atomic uint64_t *place = entry_locked(family, index);
    pthread_mutex_unlock(&family->local);
    return place;
}

/* One more block of entries, put in front of the others of `token`'s row. */
static kin_err grow_for(kin_family *family, uint32_t token, kin_holds_shm **out) {
    uint64_t off;
    kin_err err = kin__block_new_for(family, sizeof(kin_holds_shm), token, &off);
    if (err) return err;
    kin_member_shm *row = kin__member_row(family, token);
    kin_holds_shm *block = kin__payload(family, off);
    memset((void *)block, 0, sizeof *block);
    atomic_store_explicit(&block->next, atomic_load_explicit(&row->holds, memory_order_relaxed),
                          memory_order_relaxed);
    /* release: a reaper that sees the block sees its entries zero */
    atomic_store_explicit(&row->holds, off, memory_order_release);
    *out = block;
    return 0;
}

static kin_err grow_locally(kin_family *family) {
    uint32_t count = family->holds.block_count;
    void *grown = realloc(family->holds.block, (count + 1) * sizeof *family->holds.block);
    if (!grown) return -ENOMEM;
    family->holds.block = grown;
    grown = realloc(family->holds.in_use, (count + 1) * sizeof *family->holds.in_use);
    if (!grown) return -ENOMEM;
    family->holds.in_use = grown;
    family->holds.in_use[count] = 0;
    kin_err err = grow_for(family, kin__token(family), &family->holds.block[count]);
    if (!err) family->holds.block_count++;
    return err;
}

/* Indices of blocks that are gone are not to be used again. */
static void forget_spares_from(kin_family *family, uint32_t end) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < family->holds.spare_count; i++)
        if (family->holds.spare[i] < end) family->holds.spare[kept++] = family->holds.spare[i];
    family->holds.spare_count = kept;
}

/* Give blocks at the end back of which no entry is in use, but one. */
static void shrink_locally(kin_family *family) {
    kin_member_shm *row = kin__member_row(family, kin__token(family));
    uint32_t count = family->holds.block_count, before = count;
    while (count > 1 && !family->holds.in_use[count - 1] && !family->holds.in_use[count - 2]) {
        kin_holds_shm *last = family->holds.block[--count];
        uint64_t off = atomic_load_explicit(&row->holds, memory_order_relaxed);
        /* the newest one is the first of the chain; from here on it is just a block in hand */
        atomic_store_explicit(&row->holds, atomic_load_explicit(&last->next, memory_order_relaxed),
                              memory_order_release);
        KIN_FAULT("holds-shrinking");
        atomic_fetch_add_explicit(&family->hands, 1, memory_order_relaxed);
        kin__block_free(family, off);
    }
    if (count == before) return;
    family->holds.block_count = count;
    if (family->holds.used > count * KIN_HOLDS_PER_BLOCK)
        family->holds.used = count * KIN_HOLDS_PER_BLOCK;
    forget_spares_from(family, family->holds.used);
}

static kin_err index_take(kin_family *family, uint32_t *index) {
    kin_err err = kin__may(family);
    if (err) return err;
    pthread_mutex_lock(&family->local);
    if (family->holds.spare_count) {
        *index = family->holds.spare[--family->holds.spare_count];
    } else {
        if (family->holds.used == family->holds.block_count * KIN_HOLDS_PER_BLOCK)
            err = grow_locally(family);
        if (!err) *index = family->holds.used++;
    }
    if (!err) family->holds.in_use[*index / KIN_HOLDS_PER_BLOCK]++;
    pthread_mutex_unlock(&family->local);
    return err;
}

static void index_give_locked(kin_family *family, uint32_t index) {
    uint32_t block = index / KIN_HOLDS_PER_BLOCK;
    if (--family->holds.in_use[block] == 0 && block + 2 >= family->holds.block_count) {
        shrink_locally(family);
        if (index >= family->holds.used) return;
    }
    if (family->holds.spare_count == family->holds.spare_room) {
        uint32_t room = family->holds.spare_room * 2 + 64;
        void *grown = realloc(family->holds.spare, room * sizeof *family->holds.spare);
        if (!grown) return; /* one entry stays unused */
        family->holds.spare = grown;
        family->holds.spare_room = room;
    }
    family->holds.spare[family->holds.spare_count++] = index;
}

static void index_give(kin_family *family, uint32_t index) {
    pthread_mutex_lock(&family->local);
    index_give_locked(family, index);
    pthread_mutex_unlock(&family->local);
}

bool kin__holds_copy(kin_family *family, uint32_t child) {
    uint32_t count = family->holds.block_count;
    kin_holds_shm **copy = calloc(count ? count : 1, sizeof *copy);
    if (!copy) return false;
    /* The chain runs from the newest block to the oldest, as this member's does. */
    for (uint32_t i = 0; i < count; i++) {
        if (grow_for(family, child, &copy[i])) {
            free(copy);
            return false;
        }
    }
    lock(family);
    for (uint32_t i = 0; i < family->holds.used; i++) {
        uint64_t off = atomic_load_explicit(entry_locked(family, i), memory_order_relaxed);
        if (off)
            hold_locked(family, kin__block(family, off), off,
                        &copy[i / KIN_HOLDS_PER_BLOCK]->entry[i % KIN_HOLDS_PER_BLOCK]);
    }
    unlock(family);
    family->child_block = copy;
    return true;
}

void kin__holds_release(kin_family *family, kin_member_shm *row) {
    uint64_t off = atomic_load_explicit(&row->holds, memory_order_acquire);
    while (off) {
        kin_holds_shm *block = kin__payload(family, off);
        for (int i = 0; i < KIN_HOLDS_PER_BLOCK; i++)
            if (atomic_load_explicit(&block->entry[i], memory_order_relaxed))
                kin__ref_out_of(family, &block->entry[i]);
        off = atomic_load_explicit(&block->next, memory_order_relaxed);
    }
}

/* -- Objects and handles ------------------------------------------------------------ */

kin_err kin__object_adopt(kin_family *family, uint64_t off, uint64_t serial, kin_handle *out) {
    uint32_t index;
    kin_err err = index_take(family, &index);
    if (err) return err;
    *out = (kin_handle){.family = family, .hold = index, .shm = kin__payload(family, off)};
    out->ref = (kin_ref){.off = off, .serial = serial};
    return 0;
}

void kin__object_abandon(kin_handle *handle) {
    index_give(handle->family, handle->hold);
    handle->family = NULL;
}

kin_err kin__object_new(kin_family *family, uint64_t len, kin_handle *out) {
    uint64_t off;
    kin_err err = kin__block_new(family, len, &off);
    if (err) return err;
    kin_block_shm *block = kin__block(family, off);
    uint64_t serial = atomic_load_explicit(&block->serial, memory_order_relaxed);
    err = kin__object_adopt(family, off, serial, out);
    if (err) {
        kin__block_free(family, off);
        return err;
    }
    memset(out->shm, 0, len);
    return 0;
}

bool kin__object_share_at(kin_family *family, uint64_t off, unsigned kind,
                          _Atomic uint64_t *place) {
    kin_block_shm *block = kin__block(family, off);
    uint64_t class = atomic_load_explicit(&block->tag, memory_order_relaxed) & KIN_TAG_CLASS_BITS;
    lock(family);
    bool is_empty = atomic_load_explicit(place, memory_order_relaxed) == 0;
    if (is_empty) {
        plan(family, 0, place, off);
        plan(family, 1, &block->count, 1);
        plan(family, 2, &block->tag, KIN_TAG(KIN_OBJECT, kind, 0) | class);
        carry_out(family, 3);
    }
    unlock(family);
    if (is_empty) atomic_fetch_sub_explicit(&family->hands, 1, memory_order_relaxed);
    return is_empty;
}

void kin__object_share(kin_handle *handle, unsigned kind) {
    kin_family *family = handle->family;
    (void)kin__object_share_at(family, handle->ref.off, kind, entry(family, handle->hold));
    handle->ref.kind = kind;
}

void kin__object_drop(kin_handle *handle) {
    kin__block_free(handle->family, handle->ref.off);
    kin__object_abandon(handle);
}

kin_err kin_handle_open(kin_family *family, const kin_ref *ref, kin_handle *out) {
    uint32_t index;
    kin_err err = index_take(family, &index);
    if (err) return err;
    err = kin__ref_into(family, ref, entry(family, index));
    if (err) {
        index_give(family, index);
        return err;
    }
    out->family = family;
    out->shm = kin__payload(family, ref->off);
    out->ref = *ref;
    out->hold = index;
    return 0;
}

kin_err kin__object_open(kin_family *family, const kin_ref *ref, unsigned kind, kin_handle *out) {
    return ref->kind == kind ? kin_handle_open(family, ref, out) : KIN_EKIND;
}

kin_err kin__object_pin(kin_family *family, uint64_t off, unsigned kind, kin_handle *out) {
    kin_block_shm *block = kin__block_find(family, off);
    if (!block) return KIN_ESTALE;
    kin_ref ref = {.off = off, .kind = kind};
    ref.serial = atomic_load_explicit(&block->serial, memory_order_acquire);
    return kin_handle_open(family, &ref, out);
}

void kin_handle_close(kin_handle *handle) {
    kin_family *family = handle->family;
    if (!family) return;
    handle->family = NULL;
    if (!kin__token(family)) return;
    pthread_mutex_lock(&family->local);
    bool left = atomic_load_explicit(&family->left, memory_order_relaxed);
    _Atomic uint64_t *place = left ? NULL : entry_locked(family, handle->hold);
    pthread_mutex_unlock(&family->local);
    if (left) return; /* all holds were given back at once */
    kin__ref_out_of(family, place);
    index_give(family, handle->hold);
}
