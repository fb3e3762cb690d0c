/* Condition: who waits takes a seat, with a number that says when it came, and parks on its seat's
 * own word; a notify calls the seats with the lowest numbers.
 *
 *   seat   WAITING  until it is called    CALLED  until who sits there leaves
 *
 * Who was called leaves only when it has the user's lock again.  So whoever finds a seat that was
 * called, of a member that is dead, knows that the call was for nothing and passes it on: the
 * burial, and who has waited for long and looks again.
 *
 * The mutex makes each of these one step, and nothing is half-done that counts: a seat is taken,
 * called and freed by one store each.  docs/locks.md has the states. */
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

typedef struct kin_condition_shm {
    kin_mutex_shm mutex;
    uint32_t pad;
    uint64_t last; /* number given out; guarded by the mutex */
    kin_seats_shm seats;
} kin_condition_shm;

#define SIZE (sizeof(kin_condition_shm) + KIN_SEATS_FIRST * sizeof(kin_seat_shm))

_Static_assert(SIZE + KIN_HEADER <= 128, "a condition takes two lines");

enum { WAITING = 1, CALLED = 2 };

static void lock(kin_family *family, kin_condition_shm *shm) {
    /* who died with the mutex has left nothing half-done */
    if (kin__mutex_lock(family, &shm->mutex) == KIN_OWNER_DIED) return;
}

static void unlock(kin_condition_shm *shm) {
    kin__mutex_unlock(&shm->mutex);
}

/* -- Calling, with the mutex held ---------------------------------------------------------- */

static bool is_called(const void *seat) {
    return kin__seat_state(seat) == CALLED;
}

static uint32_t call_some(kin_family *family, kin_condition_shm *shm, uint32_t count);

/* Whoever sat there is dead.  First the other call: who is killed in between has called one too
 * many, and who is called for nothing looks and waits again. */
static void clear_up(kin_family *family, kin_condition_shm *shm, kin_seat_shm *seat) {
    if (is_called(seat)) (void)call_some(family, shm, 1);
    KIN_FAULT("condition-clearing");
    kin__seat_free(seat);
}

static bool call(kin_family *family, kin_condition_shm *shm, kin_seat_shm *seat) {
    if (!kin__member_alive(family, kin__seat_token(seat))) {
        clear_up(family, shm, seat);
        return false;
    }
    kin__seat_say(seat, CALLED);
    KIN_FAULT("condition-called");
    kin__os_wake(&seat->state, INT32_MAX);
    return true;
}

/* The one that waits longest. */
static kin_seat_shm *next_waiting(kin_family *family, kin_condition_shm *shm) {
    kin_seat_shm *seat, *found = NULL;
    for (kin__seat_walk walk = kin__seats_of(family, &shm->seats);
         (seat = kin__seat_next(&walk));) {
        if (kin__seat_state(seat) != WAITING) continue;
        if (!found || kin__seat_number(seat) < kin__seat_number(found)) found = seat;
    }
    return found;
}

static uint32_t call_some(kin_family *family, kin_condition_shm *shm, uint32_t count) {
    uint32_t called = 0;
    while (called < count) {
        kin_seat_shm *seat = next_waiting(family, shm);
        if (!seat) break;
        called += call(family, shm, seat);
    }
    return called;
}

/* The order does not matter where all are called. */
static uint32_t call_all(kin_family *family, kin_condition_shm *shm) {
    uint32_t called = 0;
    kin_seat_shm *seat;
    for (kin__seat_walk walk = kin__seats_of(family, &shm->seats); (seat = kin__seat_next(&walk));)
        if (kin__seat_state(seat) == WAITING) called += call(family, shm, seat);
    return called;
}

uint32_t kin_condition_notify(kin_condition *condition, uint32_t count) {
    kin_family *family = condition->handle.family;
    kin_condition_shm *shm = condition->handle.shm;
    lock(family, shm);
    uint32_t called = count == UINT32_MAX ? call_all(family, shm) : call_some(family, shm, count);
    unlock(shm);
    return called;
}

uint32_t kin_condition_waiting(kin_condition *condition) {
    kin_family *family = condition->handle.family;
    kin_condition_shm *shm = condition->handle.shm;
    uint32_t count = 0;
    kin_seat_shm *seat;
    lock(family, shm);
    for (kin__seat_walk walk = kin__seats_of(family, &shm->seats); (seat = kin__seat_next(&walk));)
        count +=
            kin__seat_state(seat) == WAITING && kin__member_alive(family, kin__seat_token(seat));
    unlock(shm);
    return count;
}

/* -- Waiting ------------------------------------------------------------------------------- */

kin_err kin_condition_enter(kin_condition *condition, kin_seat *out) {
    kin_family *family = condition->handle.family;
    kin_condition_shm *shm = condition->handle.shm;
    kin_err err = kin__may(family);
    if (err) return err;
    kin_seat_shm *seat;
    lock(family, shm);
    uint64_t number = ++shm->last;
    err = kin__seat_take(family, &shm->seats, WAITING, number, &seat);
    unlock(shm);
    if (!err) *out = (kin_seat){.shm = seat, .number = number};
    return err;
}

/* A call may have gone to one that was killed before it could answer. */
static void look_after_the_dead(kin_family *family, kin_condition_shm *shm) {
    kin_seat_shm *seat;
    lock(family, shm);
    for (kin__seat_walk walk = kin__seats_of(family, &shm->seats); (seat = kin__seat_next(&walk));)
        if (is_called(seat) && !kin__member_alive(family, kin__seat_token(seat)))
            clear_up(family, shm, seat);
    unlock(shm);
}

kin_err kin_condition_sleep(kin_condition *condition, const kin_seat *taken,
                            kin_deadline deadline) {
    kin_family *family = condition->handle.family;
    kin_seat_shm *seat = taken->shm;
    if (deadline != KIN_NOW && kin__spin(family, is_called, seat)) return 0;
    while (!is_called(seat)) {
        kin_deadline patience = kin__patience_end();
        bool patient = patience < deadline;
        KIN_FAULT("condition-waiting");
        kin_err err = kin__os_park(&seat->state, WAITING, patient ? patience : deadline);
        if (err == -EINTR || (err == -ETIMEDOUT && !patient)) return err;
        kin__patience_after(err);
        if (err == -ETIMEDOUT) look_after_the_dead(family, condition->handle.shm);
    }
    return 0;
}

int kin_condition_leave(kin_condition *condition, const kin_seat *seat) {
    kin_condition_shm *shm = condition->handle.shm;
    lock(condition->handle.family, shm);
    bool called = is_called(seat->shm);
    KIN_FAULT("condition-leaving");
    kin__seat_free(seat->shm);
    unlock(shm);
    return called;
}

/* -- Making, ending, burying --------------------------------------------------------------- */

kin_err kin_condition_create(kin_family *family, kin_condition *out) {
    kin_handle handle;
    kin_err err = kin__object_new(family, SIZE, &handle);
    if (err) return err;
    kin__object_share(&handle, KIN_KIND_CONDITION);
    out->handle = handle;
    return 0;
}

kin_err kin_condition_open(kin_family *family, const kin_ref *ref, kin_condition *out) {
    return kin__object_open(family, ref, KIN_KIND_CONDITION, &out->handle);
}

void kin_condition_close(kin_condition *condition) {
    kin_handle_close(&condition->handle);
}

void kin__condition_end(kin_family *family, uint64_t off) {
    kin_condition_shm *shm = kin__payload(family, off);
    kin__seats_end_all(family, &shm->seats);
}

/* A look before it is held: most conditions have nothing of the dead one's. */
static kin_seat_shm *seat_of(kin_family *family, kin_condition_shm *shm, uint32_t token) {
    kin_seat_shm *seat;
    kin__seat_walk walk = kin__seats_of(family, &shm->seats);
    do seat = kin__seat_next(&walk);
    while (seat && kin__seat_token(seat) != token);
    return seat;
}

void kin__condition_bury(kin_family *family, uint64_t off, uint32_t token) {
    kin_condition_shm *shm = kin__payload(family, off);
    kin_seat_shm *seat;
    kin_handle pin;
    if (!seat_of(family, shm, token) || kin__object_pin(family, off, KIN_KIND_CONDITION, &pin))
        return;
    lock(family, shm);
    while ((seat = seat_of(family, shm, token))) clear_up(family, shm, seat);
    unlock(shm);
    kin_handle_close(&pin);
}
