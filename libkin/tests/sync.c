/* Locks, semaphores and events: each body among threads, then among processes. */
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
static kin_handle memory;

typedef struct board {
    uint64_t plain;          /* guarded by a lock */
    _Atomic int64_t inside;  /* how many hold the semaphore */
    _Atomic uint64_t passed; /* acquisitions */
    _Atomic uint32_t round, arrived;
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
    CHECK_EQ(kin_memory_create(family, sizeof(board), &memory), 0);
    answers_at_once();
    refuses_what_makes_no_sense();
    lock_passes_between_processes();
    for (int as_processes = 0; as_processes < 2; as_processes++) {
        lock_excludes(as_processes);
        semaphore_admits_as_many_as_it_says(as_processes);
        event_lets_all_go(as_processes);
    }
    return 0;
}
