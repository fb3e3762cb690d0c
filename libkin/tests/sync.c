/* Locks, semaphores, events, conditions and barriers: each body among threads, then among
 * processes. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "check.h"
#include "kin.h"

#define WORKERS 6
#define ROUNDS 20000

static kin_family *family;
static kin_lock lock;
static kin_rlock rlock;
static kin_semaphore semaphore;
static kin_event event, answer;
static kin_condition condition;
static kin_barrier barrier;
static kin_handle memory;

typedef struct board {
    uint64_t plain;          /* guarded by a lock */
    _Atomic int64_t inside;  /* how many hold the semaphore */
    _Atomic uint64_t passed; /* acquisitions */
    _Atomic uint32_t round, arrived;
    uint64_t made, eaten; /* guarded by a lock */
} board;

static board *shared(void) {
    return kin_memory_data(&memory);
}

static pid_t start(void *(*body)(void *)) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid) return pid;
    body(NULL);
    kin_family_leave(family);
    _exit(0);
}

/* Run the body in WORKERS threads, or processes, and wait for all. */
static void run(void *(*body)(void *), int as_processes) {
    pthread_t thread[WORKERS];
    pid_t pid[WORKERS];
    *shared() = (board){0};
    for (int i = 0; i < WORKERS; i++) {
        if (as_processes) pid[i] = start(body);
        else CHECK_EQ(pthread_create(&thread[i], NULL, body, NULL), 0);
    }
    for (int i = 0; i < WORKERS; i++) {
        int status = 0;
        if (as_processes) CHECK_EQ(waitpid(pid[i], &status, 0), pid[i]);
        else pthread_join(thread[i], NULL);
        CHECK_EQ(status, 0);
    }
    kin_family_reap(family);
}

static void *count_under_lock(void *unused) {
    for (int i = 0; i < ROUNDS; i++) {
        CHECK_EQ(kin_lock_acquire(&lock, KIN_FOREVER), 0);
        shared()->plain++;
        CHECK_EQ(kin_lock_release(&lock), 0);
    }
    return unused;
}

static void *count_under_rlock(void *unused) {
    for (int i = 0; i < ROUNDS; i++) {
        CHECK_EQ(kin_rlock_acquire(&rlock, KIN_FOREVER), 0);
        CHECK_EQ(kin_rlock_acquire(&rlock, KIN_FOREVER), 0);
        CHECK_EQ(kin_rlock_depth(&rlock), 2);
        shared()->plain++;
        CHECK_EQ(kin_rlock_release(&rlock), 0);
        CHECK_EQ(kin_rlock_release(&rlock), 0);
    }
    CHECK_EQ(kin_rlock_depth(&rlock), 0);
    CHECK_EQ(kin_rlock_release(&rlock), KIN_ENOTOWNER);
    return unused;
}

static void *pass_the_semaphore(void *unused) {
    for (int i = 0; i < ROUNDS; i++) {
        CHECK_EQ(kin_semaphore_acquire(&semaphore, KIN_FOREVER), 0);
        int64_t inside = atomic_fetch_add(&shared()->inside, 1) + 1;
        CHECK(inside >= 1 && inside <= 2);
        atomic_fetch_add(&shared()->passed, 1);
        atomic_fetch_sub(&shared()->inside, 1);
        CHECK_EQ(kin_semaphore_release(&semaphore, 1), 0);
    }
    return unused;
}

/* The last to arrive lets the others go, round after round: a lost wake-up stops it. */
static void *meet(void *unused) {
    for (uint32_t round = 0; round < 300; round++) {
        kin_event *gate = round % 2 ? &answer : &event, *next = round % 2 ? &event : &answer;
        if (atomic_fetch_add(&shared()->arrived, 1) + 1 == (round + 1) * WORKERS) {
            kin_event_clear(next);
            kin_event_set(gate);
        } else {
            CHECK_EQ(kin_event_wait(gate, KIN_FOREVER), 0);
        }
        CHECK(atomic_load(&shared()->arrived) >= (round + 1) * WORKERS);
    }
    return unused;
}

static int wait_under(kin_lock *held, kin_deadline deadline) {
    kin_seat seat;
    CHECK_EQ(kin_condition_enter(&condition, &seat), 0);
    CHECK_EQ(kin_lock_release(held), 0);
    kin_err err = kin_condition_sleep(&condition, &seat, deadline);
    CHECK(err == 0 || err == -ETIMEDOUT);
    CHECK_EQ(kin_lock_acquire(held, KIN_FOREVER), 0);
    int called = kin_condition_leave(&condition, &seat);
    CHECK(called || err == -ETIMEDOUT);
    return called;
}

#define MEALS 3000

/* Half of them make, half of them eat, one at a time: a lost notify stops it. */
static void *make_and_eat(void *unused) {
    uint32_t number = atomic_fetch_add(&shared()->arrived, 1);
    for (int i = 0; i < MEALS; i++) {
        CHECK_EQ(kin_lock_acquire(&lock, KIN_FOREVER), 0);
        if (number % 2) {
            shared()->made++;
            (void)kin_condition_notify(&condition, 1);
        } else {
            while (shared()->made == shared()->eaten)
                (void)wait_under(&lock, i % 3 ? KIN_FOREVER : kin_deadline_after(100000));
            shared()->eaten++;
        }
        CHECK_EQ(kin_lock_release(&lock), 0);
    }
    return unused;
}

/* Round after round, the last one of each counts it: one that went too early would be seen. */
static void *meet_at_barrier(void *unused) {
    for (uint32_t round = 0; round < 500; round++) {
        kin_seat seat;
        uint32_t index;
        CHECK_EQ(atomic_load(&shared()->round), round);
        kin_err err = kin_barrier_arrive(&barrier, &seat, &index, KIN_FOREVER);
        CHECK(err == (index == WORKERS - 1 ? KIN_BARRIER_LAST : 0));
        if (err) {
            atomic_store(&shared()->round, round + 1);
            CHECK_EQ(kin_barrier_release(&barrier, &seat), 0);
        } else {
            CHECK_EQ(kin_barrier_wait(&barrier, &seat, KIN_FOREVER), 0);
        }
        CHECK_EQ(atomic_load(&shared()->round), round + 1);
        CHECK_EQ(kin_barrier_waiting(&barrier), 0);
        /* so that nobody comes again before all have looked */
        if (atomic_fetch_add(&shared()->arrived, 1) + 1 == (round + 1) * WORKERS)
            kin_event_set(round % 2 ? &answer : &event);
        else CHECK_EQ(kin_event_wait(round % 2 ? &answer : &event, KIN_FOREVER), 0);
        if (index == 0) kin_event_clear(round % 2 ? &event : &answer);
    }
    return unused;
}

static void condition_loses_no_call(int as_processes) {
    run(make_and_eat, as_processes);
    CHECK_EQ(shared()->eaten, WORKERS / 2 * MEALS);
    CHECK_EQ(kin_condition_waiting(&condition), 0);
}

static void barrier_lets_all_go_together(int as_processes) {
    kin_event_clear(&event);
    kin_event_clear(&answer);
    run(meet_at_barrier, as_processes);
    CHECK_EQ(shared()->round, 500);
    CHECK(!kin_barrier_is_broken(&barrier));
}

static void condition_answers_at_once(void) {
    CHECK_EQ(kin_condition_notify(&condition, 1), 0);
    CHECK_EQ(kin_lock_acquire(&lock, KIN_NOW), 0);
    CHECK_EQ(wait_under(&lock, KIN_NOW), 0);
    CHECK_EQ(wait_under(&lock, kin_deadline_after(1000000)), 0);
    kin_seat seat[100];
    for (int i = 0; i < 100; i++) CHECK_EQ(kin_condition_enter(&condition, &seat[i]), 0);
    CHECK_EQ(kin_condition_waiting(&condition), 100);
    CHECK_EQ(kin_condition_notify(&condition, 3), 3);
    for (int i = 0; i < 50; i++) CHECK_EQ(kin_condition_leave(&condition, &seat[i]), i < 3);
    CHECK_EQ(kin_condition_notify(&condition, UINT32_MAX), 50);
    for (int i = 50; i < 100; i++) CHECK_EQ(kin_condition_leave(&condition, &seat[i]), 1);
    CHECK_EQ(kin_condition_notify(&condition, 1), 0);
    CHECK_EQ(kin_lock_release(&lock), 0);
}

static void barrier_breaks_and_is_mended(void) {
    kin_barrier two;
    kin_seat seat, other;
    uint32_t index;
    CHECK_EQ(kin_barrier_create(family, 0, &two), -EINVAL);
    CHECK_EQ(kin_barrier_create(family, 2, &two), 0);
    CHECK_EQ(kin_barrier_parties(&two), 2);
    CHECK_EQ(kin_barrier_arrive(&two, &seat, &index, KIN_NOW), 0);
    CHECK_EQ(kin_barrier_waiting(&two), 1);
    CHECK_EQ(kin_barrier_wait(&two, &seat, kin_deadline_after(1000000)), -ETIMEDOUT);
    CHECK(!kin_barrier_is_broken(&two));
    CHECK_EQ(kin_barrier_give_up(&two, &seat), KIN_EBROKEN);
    CHECK(kin_barrier_is_broken(&two));
    CHECK_EQ(kin_barrier_waiting(&two), 0);
    CHECK_EQ(kin_barrier_arrive(&two, &seat, &index, KIN_NOW), KIN_EBROKEN);
    kin_barrier_reset(&two);
    CHECK_EQ(kin_barrier_arrive(&two, &seat, &index, KIN_NOW), 0);
    kin_barrier_leave(&two, &seat);
    CHECK(!kin_barrier_is_broken(&two));
    CHECK_EQ(kin_barrier_arrive(&two, &seat, &index, KIN_NOW), 0);
    CHECK_EQ(index, 0);
    CHECK_EQ(kin_barrier_arrive(&two, &other, &index, KIN_NOW), KIN_BARRIER_LAST);
    CHECK_EQ(index, 1);
    kin_seat third;
    CHECK_EQ(kin_barrier_arrive(&two, &third, &index, KIN_NOW), -ETIMEDOUT);
    CHECK_EQ(kin_barrier_release(&two, &other), 0);
    CHECK_EQ(kin_barrier_wait(&two, &seat, KIN_NOW), 0);
    CHECK_EQ(kin_barrier_arrive(&two, &seat, &index, KIN_NOW), 0);
    kin_barrier_reset(&two);
    CHECK_EQ(kin_barrier_wait(&two, &seat, KIN_FOREVER), KIN_EBROKEN);
    CHECK(!kin_barrier_is_broken(&two));
    CHECK_EQ(kin_barrier_arrive(&two, &seat, &index, KIN_NOW), 0);
    CHECK_EQ(kin_barrier_arrive(&two, &other, &index, KIN_NOW), KIN_BARRIER_LAST);
    kin_barrier_leave(&two, &other);
    CHECK_EQ(kin_barrier_wait(&two, &seat, KIN_FOREVER), KIN_EBROKEN);
    CHECK(kin_barrier_is_broken(&two));
    CHECK_EQ(kin_barrier_died(&two), 0);
    kin_barrier_close(&two);
}

static void lock_excludes(int as_processes) {
    run(count_under_lock, as_processes);
    CHECK_EQ(shared()->plain, WORKERS * ROUNDS);
    run(count_under_rlock, as_processes);
    CHECK_EQ(shared()->plain, WORKERS * ROUNDS);
}

static void semaphore_admits_as_many_as_it_says(int as_processes) {
    run(pass_the_semaphore, as_processes);
    CHECK_EQ(shared()->passed, WORKERS * ROUNDS);
    CHECK_EQ(kin_semaphore_value(&semaphore), 2);
}

static void event_lets_all_go(int as_processes) {
    kin_event_clear(&event);
    kin_event_clear(&answer);
    run(meet, as_processes);
}

static void answers_at_once(void) {
    CHECK_EQ(kin_lock_release(&lock), KIN_EOVERRELEASE);
    CHECK_EQ(kin_lock_acquire(&lock, KIN_NOW), 0);
    CHECK_EQ(kin_lock_owner(&lock), kin_family_member(family));
    CHECK_EQ(kin_lock_acquire(&lock, KIN_NOW), -ETIMEDOUT);
    CHECK_EQ(kin_lock_acquire(&lock, kin_deadline_after(1000000)), -ETIMEDOUT);
    CHECK_EQ(kin_lock_release(&lock), 0);

    CHECK_EQ(kin_semaphore_release(&semaphore, 1), KIN_EOVERRELEASE);
    CHECK_EQ(kin_semaphore_acquire(&semaphore, KIN_NOW), 0);
    CHECK_EQ(kin_semaphore_acquire(&semaphore, KIN_NOW), 0);
    CHECK_EQ(kin_semaphore_acquire(&semaphore, KIN_NOW), -ETIMEDOUT);
    CHECK_EQ(kin_semaphore_acquire(&semaphore, kin_deadline_after(1000000)), -ETIMEDOUT);
    CHECK_EQ(kin_semaphore_release(&semaphore, 3), KIN_EOVERRELEASE);
    CHECK_EQ(kin_semaphore_release(&semaphore, 2), 0);

    CHECK_EQ(kin_event_wait(&event, KIN_NOW), -ETIMEDOUT);
    CHECK_EQ(kin_event_wait(&event, kin_deadline_after(1000000)), -ETIMEDOUT);
    kin_event_set(&event);
    kin_event_set(&event);
    CHECK(kin_event_is_set(&event));
    CHECK_EQ(kin_event_wait(&event, KIN_NOW), 0);
    kin_event_clear(&event);
    CHECK(!kin_event_is_set(&event));
}

static void refuses_what_makes_no_sense(void) {
    kin_semaphore bad;
    CHECK_EQ(kin_semaphore_create(family, 2, 1, &bad), -EINVAL);
    CHECK_EQ(kin_semaphore_create(family, 0, KIN_SEMAPHORE_MAX + 1u, &bad), -EINVAL);
}

/* A lock taken in one process may be released in another. */
static void lock_passes_between_processes(void) {
    CHECK_EQ(kin_lock_acquire(&lock, KIN_NOW), 0);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK_EQ(kin_lock_release(&lock), 0);
        CHECK_EQ(kin_rlock_release(&rlock), KIN_ENOTOWNER);
        kin_family_leave(family);
        _exit(0);
    }
    CHECK_EQ(kin_lock_acquire(&lock, KIN_FOREVER), 0);
    CHECK_EQ(kin_lock_release(&lock), 0);
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
}

int main(void) {
    kin_family_options options = {.reserve = 1ull << 32};
    CHECK_EQ(kin_family_found(&options, &family), 0);
    CHECK_EQ(kin_lock_create(family, &lock), 0);
    CHECK_EQ(kin_rlock_create(family, &rlock), 0);
    CHECK_EQ(kin_semaphore_create(family, 2, 2, &semaphore), 0);
    CHECK_EQ(kin_event_create(family, &event), 0);
    CHECK_EQ(kin_event_create(family, &answer), 0);
    CHECK_EQ(kin_condition_create(family, &condition), 0);
    CHECK_EQ(kin_barrier_create(family, WORKERS, &barrier), 0);
    CHECK_EQ(kin_memory_create(family, sizeof(board), &memory), 0);
    answers_at_once();
    condition_answers_at_once();
    barrier_breaks_and_is_mended();
    refuses_what_makes_no_sense();
    lock_passes_between_processes();
    for (int as_processes = 0; as_processes < 2; as_processes++) {
        lock_excludes(as_processes);
        semaphore_admits_as_many_as_it_says(as_processes);
        event_lets_all_go(as_processes);
        condition_loses_no_call(as_processes);
        barrier_lets_all_go_together(as_processes);
    }
    return 0;
}
