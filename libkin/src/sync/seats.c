#include "seats.h"

#include <string.h>

#include "family/arena.h"
#include "family/fault.h"
#include "family/refs.h"
#include "sync_kinds.h"

static kin_seats_shm *behind(kin_family *family, kin_seats_shm *block) {
    uint64_t off = atomic_load_explicit(&block->more, memory_order_acquire);
    kin_block_shm *found = off ? kin__block_find(family, off) : NULL;
    if (!found || kin__block_tag(found) != KIN_TAG(KIN_OBJECT, KIN_KIND_SEATS, 0)) return NULL;
    return kin__payload(family, off);
}

/* The next seat, whoever's it is. */
static kin_seat_shm *any_next(kin__seat_walk *walk) {
    if (walk->at == walk->count) {
        kin_seats_shm *next = behind(walk->family, walk->block);
        if (!next) return NULL;
        *walk = (kin__seat_walk){.family = walk->family, .block = next, .count = KIN_SEATS_MORE};
    }
    return &walk->block->seat[walk->at++];
}

kin_seat_shm *kin__seat_next(kin__seat_walk *walk) {
    kin_seat_shm *seat;
    do seat = any_next(walk);
    while (seat && !kin__seat_token(seat));
    return seat;
}

/* Without burying anybody at the limit: a burial may want the mutex that the caller has. */
static kin_err add_block(kin_family *family, kin_seats_shm *last) {
    uint64_t off, size = sizeof(kin_seats_shm) + KIN_SEATS_MORE * sizeof(kin_seat_shm);
    kin_err err = kin__block_new_for(family, size, kin__token(family), &off);
    if (err) return err;
    atomic_fetch_add_explicit(&family->hands, 1, memory_order_relaxed);
    memset(kin__payload(family, off), 0, size);
    KIN_FAULT("seats-growing");
    if (!kin__object_share_at(family, off, KIN_KIND_SEATS, &last->more))
        kin__block_free(family, off);
    return 0;
}

static kin_err find_free(kin_family *family, kin_seats_shm *first, kin_seat_shm **out) {
    kin__seat_walk walk = kin__seats_of(family, first);
    for (;;) {
        kin_seat_shm *seat = any_next(&walk);
        if (!seat) {
            kin_err err = add_block(family, walk.block);
            if (err) return err;
        } else if (!kin__seat_token(seat)) {
            *out = seat;
            return 0;
        }
    }
}

kin_err kin__seat_take(kin_family *family, kin_seats_shm *first, uint32_t state, uint64_t number,
                       kin_seat_shm **out) {
    kin_err err = find_free(family, first, out);
    if (err) return err;
    atomic_store_explicit(&(*out)->state, state, memory_order_relaxed);
    atomic_store_explicit(&(*out)->number, number, memory_order_relaxed);
    KIN_FAULT("seat-taking");
    /* the last store: killed before it, this member has taken nothing */
    atomic_store_explicit(&(*out)->token, kin__token(family), memory_order_release);
    return 0;
}

void kin__seat_free(kin_seat_shm *seat) {
    atomic_store_explicit(&seat->token, 0, memory_order_release);
}

void kin__seats_end_all(kin_family *family, kin_seats_shm *first) {
    kin__ref_out_of(family, &first->more);
}

void kin__seats_end(kin_family *family, uint64_t off) {
    kin__seats_end_all(family, kin__payload(family, off));
}
