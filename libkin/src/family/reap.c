/* Giving back what a dead member held.
 *
 * Any member may do it, and begin again what another one, now dead too, had
 * begun: each step finds its work by what the arena says, and leaves nothing to
 * do twice.  The order matters: the journal first, then the counted holds (which
 * need the table of holds), then the sweep of all blocks, which frees that table
 * with everything else that was in the dead one's hands. */
#include "arena.h"
#include "fault.h"
#include "kinds.h"
#include "locker.h"
#include "members.h"
#include "os/os.h"
#include "refs.h"

typedef struct sweep {
    uint32_t dead;
    bool killed; /* it did not end normally */
} sweep;

static void sweep_block(kin_family *family, uint64_t off, kin_block_shm *block, uint64_t size,
                        void *context) {
    (void)size;
    const sweep *why = context;
    uint64_t tag = kin__block_tag(block);
    const kin__kind *kind = &kin__kinds[KIN_TAG_KIND(tag) % KIN_KINDS];
    if (KIN_TAG_STATE(tag) == KIN_OBJECT) {
        if (why->killed && kind->bury) kind->bury(family, off, why->dead);
        return;
    }
    if (KIN_TAG_STATE(tag) != KIN_HAND || KIN_TAG_LOW(tag) != why->dead) return;
    if (!kin__block_take(family, block, tag)) return;
    KIN_FAULT("reap-taken");
    if (kind->end) kind->end(family, off);
    kin__block_free(family, off);
}

static void bury(kin_family *family, uint32_t token) {
    kin_member_shm *row = kin__member_row(family, token);
    uint32_t flags = atomic_load_explicit(&row->flags, memory_order_acquire);
    if (!(flags & KIN_MEMBER_CLEAN)) {
        sweep why = {.dead = token, .killed = !(flags & KIN_MEMBER_LEFT)};
        kin__refs_settle(family);
        kin__holds_release(family, row);
        KIN_FAULT("reap-holds");
        kin__blocks_walk(family, sweep_block, &why);
        if (why.killed) kin__blocks_rescue(family);
    }
    kin__member_remove(family, token);
}

int kin_family_reap(kin_family *family) {
    if (!kin__token(family)) return 0;
    int count = 0;
    uint32_t slot = 0, dead;
    while ((dead = kin__member_next_dead(family, &slot))) {
        bury(family, dead);
        count++;
    }
    kin__locker_tidy(family);
    return count;
}

int kin_member_is_alive(kin_family *family, uint32_t token) {
    return token != 0 && kin__member_alive(family, token);
}

int kin_member_pid(kin_family *family, uint32_t token) {
    if (!kin_member_is_alive(family, token)) return 0;
    return atomic_load_explicit(&kin__member_row(family, token)->pid, memory_order_relaxed);
}

/* The sweep for one who leaves normally and has blocks in hand still. */
static void leave_holds(kin_family *family, kin_member_shm *row) {
    kin__holds_release(family, row);
    uint64_t off = atomic_exchange_explicit(&row->holds, 0, memory_order_relaxed);
    while (off) {
        kin_holds_shm *block = kin__payload(family, off);
        uint64_t next = atomic_load_explicit(&block->next, memory_order_relaxed);
        atomic_fetch_add_explicit(&family->hands, 1, memory_order_relaxed);
        kin__block_free(family, off);
        off = next;
    }
}

void kin_family_leave(kin_family *family) {
    uint32_t token = kin__token(family);
    if (!token) return;
    pthread_mutex_lock(&family->local);
    bool first = !atomic_exchange_explicit(&family->left, true, memory_order_relaxed);
    pthread_mutex_unlock(&family->local);
    if (!first) return;
    kin_member_shm *row = kin__member_row(family, token);
    atomic_fetch_or_explicit(&row->flags, KIN_MEMBER_LEFT, memory_order_release);
    leave_holds(family, row);
    if (atomic_load_explicit(&family->hands, memory_order_relaxed) == 0)
        atomic_fetch_or_explicit(&row->flags, KIN_MEMBER_CLEAN, memory_order_release);
}
