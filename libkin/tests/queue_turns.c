/* Whose turn it is at a queue: one that has waited for long is served before those who come, and
 * nobody waits for one that is dead or stopped. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "family/fault.h"
#include "kin.h"
#include "queue/records.h"
#include "queue/sides.h"

static kin_family *family;
static kin_queue queue;

/* What the tests do is the same at both sides: at a queue without a bound somebody waits for a
 * record; at one that is full, for room. */
static bool is_full;

static kin_count_shm *side(void) {
    kin_queue_shm *shm = queue.handle.shm;
    return is_full ? &shm->popped : &shm->pushed;
}

static uint64_t turn(void) {
    return atomic_load(&side()->turn) & ~0x80000000ull;
}

static kin_err push(kin_deadline deadline) {
    return kin_queue_push(&queue, "record", 6, 0, deadline);
}

static kin_err pop(kin_deadline deadline) {
    char buffer[KIN_RECORD_MAX];
    kin_record record;
    return kin_queue_pop(&queue, buffer, &record, deadline);
}

/* What the waiters wait for, and what lets one of them go on. */
static kin_err want(kin_deadline deadline) {
    return is_full ? push(deadline) : pop(deadline);
}

static void offer(void) {
    CHECK_EQ(is_full ? pop(KIN_FOREVER) : push(KIN_FOREVER), 0);
}

/* Has what was offered been taken by another? */
static bool is_gone(void) {
    return kin_queue_len(&queue) == is_full;
}

static void begin(bool full) {
    is_full = full;
    CHECK_EQ(kin_queue_create(family, full, &queue), 0);
    if (full) CHECK_EQ(push(KIN_NOW), 0);
}

static void end(void) {
    kin_queue_close(&queue);
}

/* Offer something and take it away before anybody else can look. */
static void snatch(void) {
    kin_queue_shm *shm = queue.handle.shm;
    char buffer[KIN_RECORD_MAX];
    kin_record record;
    kin_item item = {.data = "record", .len = 6};
    CHECK_EQ((is_full ? kin__tail_lock : kin__head_lock)(family, shm, KIN_FOREVER), 0);
    offer();
    if (is_full) CHECK_EQ(kin__record_write(family, shm, &item), 0);
    else CHECK_EQ(kin__record_read(family, shm, buffer, &record), 0);
    (is_full ? kin__tail_unlock : kin__head_unlock)(shm);
}

/* Wake whoever is parked in vain, until one of them claims the turn. */
static void snatch_until_claimed(void) {
    while (!turn()) {
        if (atomic_load(&side()->bell.waiting) & KIN_PARKED) snatch();
    }
}

static void *want_one(void *context) {
    CHECK_EQ(want(KIN_FOREVER), 0);
    atomic_fetch_add((_Atomic int *)context, 1);
    return NULL;
}

/* From its claim on, nothing goes to one that comes later. */
static void serves_who_has_waited_for_long(bool full) {
    begin(full);
    for (int i = 0; i < 5; i++) {
        _Atomic int served = 0;
        pthread_t waiter;
        pthread_create(&waiter, NULL, want_one, &served);
        snatch_until_claimed();
        CHECK_EQ(served, 0);
        offer();
        kin_err err = want(KIN_NOW);
        CHECK(err == -EAGAIN || err == -ETIMEDOUT);
        pthread_join(waiter, NULL);
        CHECK_EQ(turn(), 0);
    }
    end();
}

/* Of many that are woken in vain all the time, each claim lets one go on. */
#define WAITERS 8
static void serves_all(bool full) {
    begin(full);
    _Atomic int served = 0;
    pthread_t waiter[WAITERS];
    for (int i = 0; i < WAITERS; i++) pthread_create(&waiter[i], NULL, want_one, &served);
    for (int i = 0; i < WAITERS; i++) {
        snatch_until_claimed();
        CHECK(served <= i);
        offer();
        while (served == i) continue;
    }
    for (int i = 0; i < WAITERS; i++) pthread_join(waiter[i], NULL);
    CHECK(is_gone());
    end();
}

/* -- Those who do not come ------------------------------------------------------------------ */

/* One that wants all, until the queue is shut down. */
static pid_t start_waiter(const char *fault) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid) return pid;
#ifdef KIN_FAULT_POINTS
    kin__fault_name = fault;
    kin__fault_after = 1;
#else
    (void)fault;
#endif
    while (want(KIN_FOREVER) == 0) continue;
    kin_family_leave(family);
    _exit(0);
}

/* Parked, that is, and not in the middle of something. */
static bool is_asleep(pid_t pid) {
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    CHECK(file);
    CHECK_EQ(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
    fclose(file);
    return state == 'S';
}

static void does_not_wait_for_the_stopped(bool full) {
    begin(full);
    pid_t pid = start_waiter("nowhere");
    snatch_until_claimed();
    while (!is_asleep(pid)) continue;
    int status;
    CHECK_EQ(kill(pid, SIGSTOP), 0);
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    CHECK(WIFSTOPPED(status));
    offer();
    CHECK_EQ(want(KIN_NOW), -EAGAIN);
    CHECK_EQ(want(KIN_FOREVER), 0);
    CHECK_EQ(turn(), 0);
    CHECK_EQ(kill(pid, SIGCONT), 0);
    offer();
    while (!is_gone()) continue;
    kin_queue_shutdown(&queue, 0);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    end();
}

#ifdef KIN_FAULT_POINTS

static void expect_killed(pid_t pid) {
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* Killed with the turn: cancelled after a while by who finds it, or cleared by the burial. */
static void does_not_wait_for_the_dead(bool full, const char *fault, bool buried) {
    begin(full);
    pid_t pid = start_waiter(fault);
    snatch_until_claimed();
    expect_killed(pid);
    CHECK(turn() != 0);
    if (buried) CHECK_EQ(kin_family_reap(family), 1);
    offer();
    CHECK_EQ(want(KIN_NOW), buried ? 0 : -EAGAIN);
    if (!buried) CHECK_EQ(want(KIN_FOREVER), 0);
    CHECK_EQ(turn(), 0);
    CHECK(kin_family_reap(family) >= 0);
    end();
}

/* Killed before it woke the one whose turn it is: that one is served all the same. */
static void hears_of_what_the_dead_did(bool full) {
    begin(full);
    _Atomic int served = 0;
    pthread_t waiter;
    pthread_create(&waiter, NULL, want_one, &served);
    snatch_until_claimed();
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        kin__fault_name = "queue-turn-called";
        kin__fault_after = 1;
        offer();
        _exit(0);
    }
    expect_killed(pid);
    CHECK_EQ(kin_family_reap(family), 1);
    pthread_join(waiter, NULL);
    end();
}

#endif

int main(void) {
    kin_family_options options = {.reserve = 1ull << 32};
    CHECK_EQ(kin_family_found(&options, &family), 0);
    for (int full = 0; full < 2; full++) {
        serves_who_has_waited_for_long(full);
        serves_all(full);
        does_not_wait_for_the_stopped(full);
#ifdef KIN_FAULT_POINTS
        static const char *const points[] = {"queue-turn-claimed", "queue-turn-waiting"};
        for (int i = 0; i < 4; i++) does_not_wait_for_the_dead(full, points[i / 2], i % 2);
        hears_of_what_the_dead_did(full);
#endif
    }
    return 0;
}
