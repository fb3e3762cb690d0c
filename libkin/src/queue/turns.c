#include "turns.h"

#include "family/fault.h"
#include "os/os.h"

/* Who has waited for so long claims the turn. */
#define LONG_NS 10000000
/* For so long the others leave to it what is there. */
#define GRACE_NS 2000000

#define CALLED KIN_TURN_CALLED

static uint64_t turn_of(const kin_count_shm *side) {
    return atomic_load_explicit(&side->turn, memory_order_seq_cst);
}

/* One step of the turn's word; all of them are seq_cst: see docs/queue.md. */
static bool step(kin_count_shm *side, uint64_t from, uint64_t to) {
    return atomic_compare_exchange_strong_explicit(&side->turn, &from, to, memory_order_seq_cst,
                                                   memory_order_relaxed);
}

/* Have those that are parked for their turn look again. */
static void wake(kin_count_shm *side) {
    atomic_fetch_add_explicit(&side->calls, 1, memory_order_seq_cst);
    kin__os_wake(&side->calls, INT32_MAX);
}

/* -- Calling ----------------------------------------------------------------------------- */

bool kin__turn_call(kin_count_shm *side) {
    uint64_t turn = turn_of(side);
    if (!turn || turn & CALLED || !step(side, turn, turn | CALLED)) return false;
    KIN_FAULT("queue-turn-called");
    wake(side);
    return true;
}

void kin__call_all(kin_family *family, kin_count_shm *side) {
    wake(side);
    kin__bell_ring_all(family, &side->bell);
}

/* -- Having the turn ------------------------------------------------------------------------ */

static bool claim(kin__waiter *waiter) {
    static _Atomic uint32_t numbers;
    uint64_t number = atomic_fetch_add_explicit(&numbers, 1, memory_order_relaxed);
    uint64_t word = number << 32 | kin__token(waiter->family);
    if (!step(waiter->side, 0, word)) return false;
    KIN_FAULT("queue-turn-claimed");
    waiter->turn = word;
    return true;
}

/* Has it the turn still?  If it was called it has looked, in vain: it may be called again. */
static bool keep(kin__waiter *waiter) {
    if (!waiter->turn) return false;
    (void)step(waiter->side, waiter->turn | CALLED, waiter->turn);
    if (turn_of(waiter->side) == waiter->turn) return true;
    waiter->turn = 0;
    return false;
}

static void give_back(kin__waiter *waiter) {
    if (!waiter->turn) return;
    if (!step(waiter->side, waiter->turn, 0)) (void)step(waiter->side, waiter->turn | CALLED, 0);
    waiter->turn = 0;
}

/* It is dead, stopped or slow.  If it lives it looks again, and waits like the others. */
static void cancel(kin_count_shm *side, uint64_t turn) {
    if (!step(side, turn, 0)) return;
    KIN_FAULT("queue-turn-cancelled");
    wake(side);
}

void kin__turn_bury(kin_count_shm *side, uint32_t token) {
    uint64_t turn = turn_of(side);
    if ((turn & KIN_TOKEN_MASK) == token) (void)step(side, turn, 0);
}

/* -- Waiting -------------------------------------------------------------------------------- */

static bool is_free(const void *object) {
    const kin__waiter *waiter = object;
    return waiter->ready(waiter) && !kin__is_reserved(waiter);
}

/* Something is there, for another: give that one some time to come. */
static kin_err await_the_other(kin__waiter *waiter) {
    kin_count_shm *side = waiter->side;
    waiter->listened = true;
    uint32_t heard = kin__bell_listen(&side->bell);
    uint64_t turn = turn_of(side);
    if (!turn || is_free(waiter)) return 0;
    kin_deadline grace = kin__os_clock() + GRACE_NS;
    if (grace > waiter->deadline) grace = waiter->deadline;
    kin_err err = kin__os_park(&side->bell.rings, heard, grace);
    if (err == -ETIMEDOUT) cancel(side, turn);
    return err == -EINTR ? err : 0;
}

static bool has_waited_for_long(kin__waiter *waiter) {
    kin_deadline now = kin__os_clock();
    if (!waiter->since) waiter->since = now;
    return now - waiter->since > LONG_NS;
}

static kin_err await_a_call(kin__waiter *waiter, uint32_t heard) {
    if (waiter->ready(waiter)) return 0;
    KIN_FAULT("queue-turn-waiting");
    return kin__park(&waiter->side->calls, heard, waiter->deadline);
}

static kin_err await_a_ring(kin__waiter *waiter) {
    waiter->listened = true;
    uint32_t heard = kin__bell_listen(&waiter->side->bell);
    if (waiter->ready(waiter)) return 0;
    KIN_FAULT("queue-waiting");
    return kin__bell_wait(&waiter->side->bell, heard, waiter->deadline);
}

kin_err kin__await(kin__waiter *waiter, bool reserved) {
    if (waiter->deadline == KIN_NOW) return reserved ? -EAGAIN : -ETIMEDOUT;
    /* who has been parked is in no hurry any more */
    if (!waiter->since && kin__spin(waiter->family, is_free, waiter)) return 0;
    if (reserved) return await_the_other(waiter);
    /* before the claim: from then on it may be called */
    uint32_t heard = atomic_load_explicit(&waiter->side->calls, memory_order_seq_cst);
    bool is_long = has_waited_for_long(waiter);
    if (keep(waiter) || (is_long && claim(waiter))) return await_a_call(waiter, heard);
    return await_a_ring(waiter);
}

void kin__waiter_leave_slow(kin__waiter *waiter) {
    give_back(waiter);
    kin__bell_pass_on(&waiter->side->bell);
    if (waiter->ready(waiter)) kin__bell_ring(waiter->family, &waiter->side->bell, 1);
}
