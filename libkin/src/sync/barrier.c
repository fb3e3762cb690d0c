/* Barrier: who comes takes a seat, says in which round it waits, and parks until the round is over.
 *
 *   seat   IDLE     a party that is not here just now
 *          WAITING  here, in the round that is the seat's number
 *          LAST     the one that made the round full, and is about to release it
 *          PASSED   let go: it may go on        BROKEN  let go: the barrier broke
 *
 * `round` is what all park on; it grows when those who wait are let go, each told by its seat why.
 * A seat stays its member's from one round to the next, for that makes the member a party: its
 * death breaks the barrier.  Who waits looks now and then whether all parties are alive.
 *
 * Letting go is many stores.  Who takes the mutex over from one that was killed in the middle
 * breaks the barrier, for a party has died, and tells those who were not told yet. */
#include "family/arena.h"
#include "family/fault.h"
#include "family/members.h"
#include "family/mutex.h"
#include "family/refs.h"
#include "kin/sync.h"
#include "os/os.h"
#include "park.h"
#include "seats.h"
#include "sync_kinds.h"

typedef struct kin_barrier_shm {
    kin_mutex_shm mutex;
    _Atomic uint32_t round;   /* changed under the mutex; never 0 */
    _Atomic uint32_t arrived; /* how many seats are WAITING or LAST */
    _Atomic uint32_t broken;
    _Atomic uint32_t died; /* pid of the party whose death broke it */
    uint32_t parties;
    kin_seats_shm seats;
} kin_barrier_shm;

#define SIZE (sizeof(kin_barrier_shm) + KIN_SEATS_FIRST * sizeof(kin_seat_shm))

_Static_assert(SIZE + KIN_HEADER <= 128, "a barrier takes two lines");

enum { IDLE = 1, WAITING, LAST, PASSED, BROKEN };

/* How long to wait before asking whether all parties are alive. */
#define PATIENCE_NS 100000000

static uint32_t get(const _Atomic uint32_t *word) {
    return atomic_load_explicit(word, memory_order_relaxed); /* the mutex orders them */
}

static void set(_Atomic uint32_t *word, uint32_t value) {
    atomic_store_explicit(word, value, memory_order_relaxed);
}

/* -- With the mutex held --------------------------------------------------------------------- */

static bool is_here(const kin_seat_shm *seat) {
    uint32_t state = kin__seat_state(seat);
    return state == WAITING || state == LAST;
}

/* The round is over. */
static void let_go(kin_family *family, kin_barrier_shm *shm, uint32_t why) {
    kin_seat_shm *seat;
    set(&shm->arrived, 0); /* first: who was told may ask */
    for (kin__seat_walk walk = kin__seats_of(family, &shm->seats);
         (seat = kin__seat_next(&walk));) {
        if (!is_here(seat)) continue;
        kin__seat_say(seat, why);
        KIN_FAULT("barrier-letting-go");
    }
    uint32_t round = get(&shm->round) + 1;
    /* release: who sees it sees its seat */
    atomic_store_explicit(&shm->round, round ? round : 1, memory_order_release);
    KIN_FAULT("barrier-round");
    kin__os_wake(&shm->round, INT32_MAX);
}

static void break_it(kin_family *family, kin_barrier_shm *shm, uint32_t pid) {
    if (!get(&shm->died)) set(&shm->died, pid);
    set(&shm->broken, 1);
    KIN_FAULT("barrier-breaking");
    let_go(family, shm, BROKEN);
}

static uint32_t pid_of(kin_family *family, uint32_t token) {
    return (uint32_t)atomic_load_explicit(&kin__member_row(family, token)->pid,
                                          memory_order_relaxed);
}

static void lock(kin_family *family, kin_barrier_shm *shm) {
    if (kin__mutex_lock(family, &shm->mutex) == KIN_OWNER_DIED) break_it(family, shm, 0);
}

static void unlock(kin_barrier_shm *shm) {
    kin__mutex_unlock(&shm->mutex);
}

/* A seat of this member that nobody sits in; else a new one. */
static kin_err sit_down(kin_family *family, kin_barrier_shm *shm, uint32_t state,
                        kin_seat_shm **out) {
    uint32_t token = kin__token(family);
    kin_seat_shm *seat;
    for (kin__seat_walk walk = kin__seats_of(family, &shm->seats);
         (seat = kin__seat_next(&walk));) {
        if (kin__seat_token(seat) != token || kin__seat_state(seat) != IDLE) continue;
        atomic_store_explicit(&seat->number, get(&shm->round), memory_order_relaxed);
        kin__seat_say(seat, state);
        *out = seat;
        return 0;
    }
    return kin__seat_take(family, &shm->seats, state, get(&shm->round), out);
}

/* -- The dead ---------------------------------------------------------------------------------- */

/* A party that is dead, whose seat is given up.  One that was killed, or left while a thread of it
 * was here, breaks the barrier; one that came to its normal end is just no party any more. */
static void clear_up(kin_family *family, kin_barrier_shm *shm, kin_seat_shm *seat, bool killed) {
    uint32_t pid = killed ? pid_of(family, kin__seat_token(seat)) : 0;
    if (killed || is_here(seat)) break_it(family, shm, pid);
    KIN_FAULT("barrier-clearing");
    kin__seat_free(seat);
}

/* Somebody's who is dead: of those who were killed, or of the others. */
static kin_seat_shm *dead_seat(kin_family *family, kin_barrier_shm *shm, bool killed) {
    kin_seat_shm *seat;
    for (kin__seat_walk walk = kin__seats_of(family, &shm->seats);
         (seat = kin__seat_next(&walk));) {
        uint32_t token = kin__seat_token(seat);
        if (!kin__member_alive(family, token) && kin__member_is_settled(family, token) != killed)
            return seat;
    }
    return NULL;
}

/* Those who were killed are their burial's. */
static void look_after_the_dead(kin_family *family, kin_barrier_shm *shm) {
    kin_seat_shm *seat;
    if (dead_seat(family, shm, true)) (void)kin_family_reap(family);
    if (!dead_seat(family, shm, false)) return;
    lock(family, shm);
    while ((seat = dead_seat(family, shm, false))) clear_up(family, shm, seat, false);
    unlock(shm);
}

static kin_seat_shm *seat_of(kin_family *family, kin_barrier_shm *shm, uint32_t token) {
    kin_seat_shm *seat;
    kin__seat_walk walk = kin__seats_of(family, &shm->seats);
    do seat = kin__seat_next(&walk);
    while (seat && kin__seat_token(seat) != token);
    return seat;
}

void kin__barrier_bury(kin_family *family, uint64_t off, uint32_t token) {
    kin_barrier_shm *shm = kin__payload(family, off);
    kin_seat_shm *seat;
    kin_handle pin;
    bool concerns = seat_of(family, shm, token) || kin__mutex_is_held_by(&shm->mutex, token);
    if (!concerns || kin__object_pin(family, off, KIN_KIND_BARRIER, &pin)) return;
    lock(family, shm);
    while ((seat = seat_of(family, shm, token))) clear_up(family, shm, seat, true);
    unlock(shm);
    kin_handle_close(&pin);
}

/* -- Coming ------------------------------------------------------------------------------------ */

static bool is_full(const kin_barrier_shm *shm) {
    return get(&shm->arrived) >= shm->parties;
}

static kin_err arrive(kin_family *family, kin_barrier_shm *shm, kin_seat *out, uint32_t *index) {
    kin_seat_shm *seat;
    uint32_t arrived = get(&shm->arrived);
    bool is_last = arrived + 1 >= shm->parties;
    kin_err err = sit_down(family, shm, is_last ? LAST : WAITING, &seat);
    if (err) return err;
    KIN_FAULT("barrier-arriving");
    set(&shm->arrived, arrived + 1);
    *index = arrived;
    *out = (kin_seat){.shm = seat, .number = get(&shm->round)};
    return is_last ? KIN_BARRIER_LAST : 0;
}

/* Park until the round is not this one any more: 0, perhaps too early, -ETIMEDOUT or -EINTR. */
static kin_err park(kin_family *family, kin_barrier_shm *shm, uint32_t round,
                    kin_deadline deadline) {
    kin_deadline patience = kin__os_clock() + PATIENCE_NS;
    bool patient = patience < deadline;
    KIN_FAULT("barrier-waiting");
    kin_err err = kin__os_park(&shm->round, round, patient ? patience : deadline);
    if (err == -EINTR || (err == -ETIMEDOUT && !patient)) return err;
    if (err == -ETIMEDOUT) look_after_the_dead(family, shm);
    return 0;
}

kin_err kin_barrier_arrive(kin_barrier *barrier, kin_seat *seat, uint32_t *index,
                           kin_deadline deadline) {
    kin_family *family = barrier->handle.family;
    kin_barrier_shm *shm = barrier->handle.shm;
    kin_err err = kin__may(family);
    /* a newcomer tidies, lest those who have left fill the seats; and who may be the last one does,
     * lest a round with a dead party in it be full */
    bool may_be_last = get(&shm->arrived) + 1 >= shm->parties;
    if (!err && (may_be_last || !seat_of(family, shm, kin__token(family))))
        look_after_the_dead(family, shm);
    while (!err) {
        lock(family, shm);
        uint32_t round = get(&shm->round);
        bool must_wait = is_full(shm);
        if (get(&shm->broken)) err = KIN_EBROKEN;
        else if (!must_wait) err = arrive(family, shm, seat, index);
        unlock(shm);
        if (err || !must_wait) return err;
        err = park(family, shm, round, deadline);
    }
    return err;
}

/* -- Waiting ------------------------------------------------------------------------------------- */

/* 0, KIN_EBROKEN, or -EAGAIN if it was not let go yet. */
static kin_err answer(const kin_seat *taken) {
    kin_seat_shm *seat = taken->shm;
    uint32_t state = kin__seat_state(seat);
    if (state == WAITING || state == LAST) return -EAGAIN;
    kin__seat_say(seat, IDLE); /* it is ours alone now */
    return state == PASSED ? 0 : KIN_EBROKEN;
}

static bool is_over(const void *taken) {
    uint32_t state = kin__seat_state(((const kin_seat *)taken)->shm);
    return state != WAITING && state != LAST;
}

kin_err kin_barrier_give_up(kin_barrier *barrier, const kin_seat *seat) {
    kin_family *family = barrier->handle.family;
    kin_barrier_shm *shm = barrier->handle.shm;
    lock(family, shm);
    if (!is_over(seat)) break_it(family, shm, 0);
    unlock(shm);
    return answer(seat);
}

kin_err kin_barrier_wait(kin_barrier *barrier, const kin_seat *seat, kin_deadline deadline) {
    kin_family *family = barrier->handle.family;
    kin_barrier_shm *shm = barrier->handle.shm;
    if (deadline != KIN_NOW) (void)kin__spin(family, is_over, seat);
    kin_err err;
    while ((err = answer(seat)) == -EAGAIN) {
        err = park(family, shm, (uint32_t)seat->number, deadline);
        if (err) return err;
    }
    return err;
}

kin_err kin_barrier_release(kin_barrier *barrier, const kin_seat *seat) {
    kin_family *family = barrier->handle.family;
    kin_barrier_shm *shm = barrier->handle.shm;
    lock(family, shm);
    if (!is_over(seat)) let_go(family, shm, PASSED);
    unlock(shm);
    return answer(seat);
}

void kin_barrier_leave(kin_barrier *barrier, const kin_seat *seat) {
    kin_family *family = barrier->handle.family;
    kin_barrier_shm *shm = barrier->handle.shm;
    lock(family, shm);
    if (kin__seat_state(seat->shm) == LAST) break_it(family, shm, 0);
    if (is_here(seat->shm)) set(&shm->arrived, get(&shm->arrived) - 1);
    kin__seat_say(seat->shm, IDLE);
    unlock(shm);
}

/* -- The rest -------------------------------------------------------------------------------------- */

void kin_barrier_abort(kin_barrier *barrier) {
    kin_barrier_shm *shm = barrier->handle.shm;
    lock(barrier->handle.family, shm);
    break_it(barrier->handle.family, shm, 0);
    unlock(shm);
}

void kin_barrier_reset(kin_barrier *barrier) {
    kin_barrier_shm *shm = barrier->handle.shm;
    lock(barrier->handle.family, shm);
    let_go(barrier->handle.family, shm, BROKEN);
    set(&shm->died, 0);
    set(&shm->broken, 0);
    unlock(shm);
}

kin_err kin_barrier_join(kin_barrier *barrier) {
    kin_family *family = barrier->handle.family;
    kin_barrier_shm *shm = barrier->handle.shm;
    kin_err err = kin__may(family);
    if (err) return err;
    kin_seat_shm *seat;
    lock(family, shm);
    err = sit_down(family, shm, IDLE, &seat);
    unlock(shm);
    return err;
}

uint32_t kin_barrier_parties(const kin_barrier *barrier) {
    return ((const kin_barrier_shm *)barrier->handle.shm)->parties;
}

uint32_t kin_barrier_waiting(kin_barrier *barrier) {
    return get(&((const kin_barrier_shm *)barrier->handle.shm)->arrived);
}

int kin_barrier_is_broken(kin_barrier *barrier) {
    return get(&((const kin_barrier_shm *)barrier->handle.shm)->broken) != 0;
}

int kin_barrier_died(const kin_barrier *barrier) {
    return (int)get(&((const kin_barrier_shm *)barrier->handle.shm)->died);
}

kin_err kin_barrier_create(kin_family *family, uint32_t parties, kin_barrier *out) {
    if (parties == 0) return -EINVAL;
    kin_handle handle;
    kin_err err = kin__object_new(family, SIZE, &handle);
    if (err) return err;
    kin_barrier_shm *shm = handle.shm;
    shm->parties = parties;
    atomic_init(&shm->round, 1);
    kin__object_share(&handle, KIN_KIND_BARRIER);
    out->handle = handle;
    return 0;
}

kin_err kin_barrier_open(kin_family *family, const kin_ref *ref, kin_barrier *out) {
    return kin__object_open(family, ref, KIN_KIND_BARRIER, &out->handle);
}

void kin_barrier_close(kin_barrier *barrier) {
    kin_handle_close(&barrier->handle);
}

void kin__barrier_end(kin_family *family, uint64_t off) {
    kin_barrier_shm *shm = kin__payload(family, off);
    kin__seats_end_all(family, &shm->seats);
}
