/* The member table.
 *
 * A row goes FREE → PREPARED → ALIVE → REAPING → FREE, each step one
 * compare-and-swap of its word, which also holds the row's generation: a token
 * (row and generation) names one process and no later one.
 *
 * Who is alive is the kernel's word.  The main thread of a member holds the
 * robust mutex `life` of its row for as long as it lives; when it ends, however
 * it ends (an exec is an end too), the kernel marks the mutex, and whoever tries
 * it next is told.  That costs no system call and no descriptor, and knows
 * nothing of process ids.  Only a member that joined from another thread than
 * its main one, which may end before its process does, is told by its process id
 * and start time instead. */
#include "members.h"

#include <string.h>

#include "fault.h"
#include "os/os.h"

/* Rows in use are kept together, so that looking through them is quick; the
 * window grows by this many when it is full. */
#define WINDOW 256
/* A child that has not taken up its row this long after its parent died, or
 * after the parent began to fork, never will: the fork failed, or the child was
 * killed at birth. */
#define ORPHANED_NS (10 * INT64_C(1000000000))
#define FORGOTTEN_NS (60 * INT64_C(1000000000))

kin_member_shm *kin__member_row(const kin_family *family, uint32_t token) {
    return &family->members[KIN_TOKEN_SLOT(token)];
}

static bool change(kin_member_shm *row, uint64_t from, uint64_t to) {
    return atomic_compare_exchange_strong_explicit(&row->word, &from, to, memory_order_acq_rel,
                                                   memory_order_relaxed);
}

/* -- Coming ------------------------------------------------------------------- */

static bool life_init(kin_member_shm *row) {
    pthread_mutexattr_t attributes;
    if (pthread_mutexattr_init(&attributes)) return false;
    bool done = !pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) &&
                !pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) &&
                !pthread_mutex_init(&row->life, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return done;
}

/* Make a row that is this thread's alone ready to be taken up. */
static void furnish(kin_member_shm *row) {
    uint32_t flags =
        atomic_load_explicit(&row->flags, memory_order_relaxed) & KIN_MEMBER_LIFE_READY;
    /* Once and for all: later users of the row find it unlocked. */
    if (!flags && life_init(row)) flags = KIN_MEMBER_LIFE_READY;
    atomic_store_explicit(&row->flags, flags, memory_order_relaxed);
    row->name[0] = 0;
    atomic_store_explicit(&row->prepared_at, (uint64_t)kin__os_clock(), memory_order_relaxed);
}

static uint32_t try_row(kin_family *family, uint32_t slot, uint32_t guardian) {
    kin_member_shm *row = &family->members[slot];
    uint64_t word = atomic_load_explicit(&row->word, memory_order_relaxed);
    if (KIN_ROW_STATE(word) != KIN_ROW_FREE) return 0;
    uint32_t gen = (KIN_ROW_GEN(word) + 1) & ((1u << KIN_GENERATION_BITS) - 1);
    if (gen == 0) gen = 1;
    uint32_t token = KIN_TOKEN(slot, gen);
    if (!guardian) guardian = token; /* the process itself, before it is alive */
    if (!change(row, word, KIN_ROW(KIN_ROW_PREPARED, gen, guardian))) return 0;
    furnish(row);
    return token;
}

static uint32_t take_row(kin_family *family, uint32_t guardian) {
    kin_arena_shm *arena = family->arena;
    for (;;) {
        uint32_t used = atomic_load_explicit(&arena->rows_used, memory_order_relaxed);
        uint32_t hint = atomic_fetch_add_explicit(&arena->row_hint, 1, memory_order_relaxed);
        for (uint32_t i = 0; i < used; i++) {
            uint32_t token = try_row(family, (hint + i) % used, guardian);
            if (token) return token;
        }
        if (used + WINDOW > arena->members_len) return 0;
        atomic_compare_exchange_strong_explicit(&arena->rows_used, &used, used + WINDOW,
                                                memory_order_relaxed, memory_order_relaxed);
    }
}

static bool hold_life(kin_member_shm *row) {
    if (!(atomic_load_explicit(&row->flags, memory_order_relaxed) & KIN_MEMBER_LIFE_READY) ||
        !kin__os_is_main_thread())
        return false;
    int got = pthread_mutex_lock(&row->life);
    if (got == EOWNERDEAD) got = pthread_mutex_consistent(&row->life);
    return got == 0;
}

bool kin__member_adopt(kin_family *family, uint32_t token) {
    kin_member_shm *row = kin__member_row(family, token);
    uint64_t word = atomic_load_explicit(&row->word, memory_order_acquire);
    if (KIN_ROW_GEN(word) != KIN_TOKEN_GEN(token) || KIN_ROW_STATE(word) != KIN_ROW_PREPARED)
        return false;
    bool watched = hold_life(row);
    if (watched) atomic_fetch_or_explicit(&row->flags, KIN_MEMBER_WATCHED, memory_order_relaxed);
    else
        atomic_store_explicit(&row->started, kin__os_process_started(kin__os_pid()),
                              memory_order_relaxed);
    atomic_store_explicit(&row->pid, kin__os_pid(), memory_order_relaxed);
    KIN_FAULT("member-adopting");
    if (change(row, word, KIN_ROW(KIN_ROW_ALIVE, KIN_TOKEN_GEN(token), 0))) return true;
    if (watched) pthread_mutex_unlock(&row->life);
    return false;
}

uint32_t kin__member_prepare(kin_family *family) {
    return take_row(family, kin__token(family));
}

kin_err kin__member_enter(kin_family *family) {
    uint32_t token = take_row(family, 0);
    if (!token || !kin__member_adopt(family, token)) return KIN_EMEMBERS;
    atomic_store_explicit(&family->token, token, memory_order_relaxed);
    return 0;
}

void kin__member_remove(kin_family *family, uint32_t token) {
    kin_member_shm *row = kin__member_row(family, token);
    atomic_store_explicit(&row->holds, 0, memory_order_relaxed);
    atomic_store_explicit(&row->pid, 0, memory_order_relaxed);
    /* release: who takes the row next sees it swept */
    atomic_store_explicit(&row->word, KIN_ROW(KIN_ROW_FREE, KIN_TOKEN_GEN(token), 0),
                          memory_order_release);
}

/* -- Being alive ----------------------------------------------------------------- */

static bool process_alive(kin_member_shm *row) {
    if (!(atomic_load_explicit(&row->flags, memory_order_relaxed) & KIN_MEMBER_WATCHED)) {
        int pid = atomic_load_explicit(&row->pid, memory_order_relaxed);
        uint64_t started = atomic_load_explicit(&row->started, memory_order_relaxed);
        return started == 0 ? kin__os_process_exists(pid) : kin__os_process_started(pid) == started;
    }
    int got = pthread_mutex_trylock(&row->life);
    if (got == EBUSY) return true;
    if (got == EOWNERDEAD) got = pthread_mutex_consistent(&row->life);
    if (got == 0) pthread_mutex_unlock(&row->life);
    return false;
}

static bool abandoned(kin_family *family, kin_member_shm *row, uint64_t word) {
    uint32_t guardian = KIN_ROW_GUARDIAN(word), me = kin__token(family);
    int64_t age =
        kin__os_clock() - (int64_t)atomic_load_explicit(&row->prepared_at, memory_order_relaxed);
    if (guardian == me) return age > FORGOTTEN_NS;
    kin_member_shm *parent = kin__member_row(family, guardian);
    if (parent == row) return age > FORGOTTEN_NS; /* it was to be its own */
    return age > ORPHANED_NS && !kin__member_alive(family, guardian);
}

bool kin__member_alive(kin_family *family, uint32_t token) {
    if (KIN_TOKEN_SLOT(token) >= family->arena->members_len) return false;
    kin_member_shm *row = kin__member_row(family, token);
    uint64_t word = atomic_load_explicit(&row->word, memory_order_acquire);
    if (KIN_ROW_GEN(word) != KIN_TOKEN_GEN(token)) return false;
    switch (KIN_ROW_STATE(word)) {
    case KIN_ROW_ALIVE: return process_alive(row);
    case KIN_ROW_PREPARED: return !abandoned(family, row, word);
    default: return false;
    }
}

bool kin__member_is_settled(kin_family *family, uint32_t token) {
    kin_member_shm *row = kin__member_row(family, token);
    uint32_t flags = atomic_load_explicit(&row->flags, memory_order_acquire);
    uint64_t word = atomic_load_explicit(&row->word, memory_order_acquire);
    if (KIN_ROW_GEN(word) != KIN_TOKEN_GEN(token) || KIN_ROW_STATE(word) == KIN_ROW_FREE)
        return true;
    return flags & KIN_MEMBER_LEFT;
}

void kin_member_name_set(kin_family *family, const char *name) {
    if (!kin__token(family)) return;
    char *own = kin__member_row(family, kin__token(family))->name;
    /* the zero at its end first: a name that is cut short by a death is still one */
    size_t len = strnlen(name, KIN_MEMBER_NAME_MAX);
    own[len] = 0;
    memcpy(own, name, len);
}

/* -- Going ------------------------------------------------------------------------- */

/* Another member may be trying `life` this very moment, and so make a dead row
 * look alive; while its process is gone that can only be for an instant. */
static bool process_dead_for_sure(kin_member_shm *row) {
    for (int tries = 0; tries < 50; tries++) {
        if (!process_alive(row)) return true;
        int pid = atomic_load_explicit(&row->pid, memory_order_relaxed);
        if (pid == 0 || kin__os_process_exists(pid)) return false;
        kin__os_yield();
    }
    return false;
}

static bool is_to_be_cleared(kin_family *family, kin_member_shm *row, uint64_t word) {
    uint32_t guardian = KIN_ROW_GUARDIAN(word);
    switch (KIN_ROW_STATE(word)) {
    case KIN_ROW_ALIVE: return process_dead_for_sure(row);
    case KIN_ROW_PREPARED: return abandoned(family, row, word);
    case KIN_ROW_REAPING:
        return guardian != kin__token(family) && !kin__member_alive(family, guardian);
    default: return false;
    }
}

uint32_t kin__member_next_dead(kin_family *family, uint32_t *slot) {
    uint32_t used = atomic_load_explicit(&family->arena->rows_used, memory_order_relaxed);
    for (; *slot < used; ++*slot) {
        kin_member_shm *row = &family->members[*slot];
        uint64_t word = atomic_load_explicit(&row->word, memory_order_acquire);
        if (!is_to_be_cleared(family, row, word)) continue;
        uint32_t gen = KIN_ROW_GEN(word);
        if (!change(row, word, KIN_ROW(KIN_ROW_REAPING, gen, kin__token(family)))) continue;
        return KIN_TOKEN((*slot)++, gen);
    }
    return 0;
}
