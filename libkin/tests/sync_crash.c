/* Kills at every fault point of locks, conditions and barriers: the living go on. */
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "check.h"
#include "family/fault.h"
#include "kin.h"

#ifndef KIN_FAULT_POINTS
int main(void) {
    return 77; /* skipped: built without fault points */
}
#else

#define WORKERS 4 /* the first one is the victim */
#define TURNS 60

static kin_family *family;
static kin_lock lock;
static kin_rlock rlock;
static kin_condition condition;
static kin_barrier barrier;
static kin_handle memory;

typedef struct board {
    uint64_t count; /* guarded by the lock */
    uint64_t made, eaten;
    _Atomic uint64_t said[WORKERS];
    _Atomic uint32_t stop;
} board;

static board *shared(void) {
    return kin_memory_data(&memory);
}

static void pause_for(long ns) {
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

/* A worker that its death did not stop must not hang: it would be found here. */
static void has_to_end(void) {
    alarm(100);
}

static void die_at(const char *point, long after) {
    kin__fault_after = after;
    kin__fault_name = point;
}

/* -- The lives -------------------------------------------------------------------------- */

static void acquire(kin_lock *it) {
    kin_err err;
    do err = kin_lock_acquire_at(it, KIN_FOREVER, kin_lock_place(family, "somewhere"));
    while (err == -EINTR);
    CHECK(err == 0 || err == KIN_OWNER_DIED);
}

/* Long enough in it for the others to claim their turn. */
static void use_locks(int me) {
    for (int i = 0; i < TURNS; i++) {
        acquire(&lock);
        shared()->count++;
        atomic_fetch_add(&shared()->said[me], 1);
        if (i % 8 == 0) pause_for(6000000);
        CHECK_EQ(kin_lock_release(&lock), 0);
        kin_err err = kin_rlock_acquire(&rlock, KIN_FOREVER);
        CHECK(err == 0 || err == KIN_OWNER_DIED);
        CHECK_EQ(kin_rlock_release(&rlock), 0);
        if (kin_lock_acquire(&lock, KIN_NOW) >= 0) CHECK_EQ(kin_lock_release(&lock), 0);
    }
}

static void eat(int me) {
    acquire(&lock);
    while (!atomic_load(&shared()->stop)) {
        if (shared()->made > shared()->eaten) {
            shared()->eaten++;
            atomic_fetch_add(&shared()->said[me], 1);
            continue;
        }
        kin_seat seat;
        CHECK_EQ(kin_condition_enter(&condition, &seat), 0);
        CHECK_EQ(kin_lock_release(&lock), 0);
        kin_deadline deadline = me ? KIN_FOREVER : kin_deadline_after(3000000);
        kin_err err = kin_condition_sleep(&condition, &seat, deadline);
        CHECK(err == 0 || err == -ETIMEDOUT);
        acquire(&lock);
        (void)kin_condition_leave(&condition, &seat);
    }
    CHECK_EQ(kin_lock_release(&lock), 0);
}

/* One meal at a time, for one eater: if the one that was called is killed, another must hear of it. */
static void cook(void) {
    for (int i = 0; i < TURNS; i++) {
        acquire(&lock);
        shared()->made++;
        (void)kin_condition_notify(&condition, 1);
        CHECK_EQ(kin_lock_release(&lock), 0);
        for (bool eaten = false; !eaten;) {
            kin_family_reap(family);
            acquire(&lock);
            eaten = shared()->made == shared()->eaten;
            CHECK_EQ(kin_lock_release(&lock), 0);
            if (!eaten) pause_for(100000);
        }
    }
    acquire(&lock);
    atomic_store(&shared()->stop, 1);
    (void)kin_condition_notify(&condition, UINT32_MAX);
    CHECK_EQ(kin_lock_release(&lock), 0);
}

static void meet(int me) {
    for (int i = 0; i < TURNS; i++) {
        kin_seat seat;
        uint32_t index;
        kin_err err = kin_barrier_arrive(&barrier, &seat, &index, KIN_FOREVER);
        if (err == KIN_BARRIER_LAST) err = kin_barrier_release(&barrier, &seat);
        else if (err == 0) err = kin_barrier_wait(&barrier, &seat, KIN_FOREVER);
        if (err == KIN_EBROKEN) return;
        CHECK_EQ(err, 0);
        atomic_fetch_add(&shared()->said[me], 1);
    }
}

/* -- One of them is killed ------------------------------------------------------------------ */

static uint64_t blocks(void) {
    kin_family_stats stats;
    kin_family_stats_read(family, &stats);
    return stats.blocks;
}

static pid_t start(void (*life)(int me), int me, const char *point, long after) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid) return pid;
    has_to_end();
    if (me == 0) die_at(point, after);
    life(me);
    kin_family_leave(family);
    _exit(0);
}

static bool end_of(pid_t pid, bool may_be_killed) {
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    CHECK(killed ? may_be_killed : WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return killed;
}

/* Was the victim killed?  meanwhile: what this process does. */
static bool run(void (*life)(int me), void (*meanwhile)(void), const char *point, long after) {
    pid_t pid[WORKERS];
    *shared() = (board){0};
    for (int i = 0; i < WORKERS; i++) pid[i] = start(life, i, point, after);
    if (meanwhile) meanwhile();
    bool killed = end_of(pid[0], true);
    for (int i = 1; i < WORKERS; i++) (void)end_of(pid[i], false);
    kin_family_reap(family);
    return killed;
}

static void is_well(void) {
    kin_err err = kin_lock_acquire(&lock, KIN_NOW);
    CHECK(err == 0 || err == KIN_OWNER_DIED);
    CHECK_EQ(kin_lock_release(&lock), 0);
    CHECK_EQ(kin_lock_owner(&lock), 0);
    CHECK_EQ(kin_condition_waiting(&condition), 0);
    CHECK_EQ(kin_barrier_waiting(&barrier), 0);
}

static uint64_t sum_said(void) {
    uint64_t sum = 0;
    for (int i = 0; i < WORKERS; i++) sum += atomic_load(&shared()->said[i]);
    return sum;
}

static int locks_go_on(const char *point, long after) {
    int killed = run(use_locks, NULL, point, after);
    CHECK_EQ(shared()->count, sum_said());
    is_well();
    return killed;
}

static int conditions_go_on(const char *point, long after) {
    int killed = run(eat, cook, point, after);
    CHECK_EQ(shared()->made, TURNS);
    CHECK_EQ(sum_said(), TURNS);
    is_well();
    return killed;
}

/* Nobody is left waiting, and the barrier says who was killed. */
static int barriers_go_on(const char *point, long after) {
    pid_t pid[WORKERS];
    *shared() = (board){0};
    for (int i = 0; i < WORKERS; i++) pid[i] = start(meet, i, point, after);
    bool killed = end_of(pid[0], true);
    for (int i = 1; i < WORKERS; i++) (void)end_of(pid[i], false);
    kin_family_reap(family);
    if (killed) {
        CHECK(kin_barrier_is_broken(&barrier));
        CHECK_EQ(kin_barrier_died(&barrier), pid[0]);
    } else {
        CHECK_EQ(sum_said(), WORKERS * TURNS);
    }
    is_well();
    kin_barrier_reset(&barrier);
    CHECK(!kin_barrier_is_broken(&barrier));
    return killed;
}

static void at_each(int (*go_on)(const char *point, long after), const char *const *points) {
    for (; *points; points++) {
        int killed = 0;
        for (long after = 1; after < 60; after += 1 + after) {
            uint64_t before = blocks();
            killed += go_on(*points, after);
            CHECK_EQ(blocks(), before);
        }
        if (!killed) fprintf(stderr, "nobody came by %s\n", *points);
        CHECK(killed);
    }
}

/* -- The undertaker is killed, too ------------------------------------------------------------ */

static void hold_everything(void) {
    kin_seat seat;
    uint32_t index;
    CHECK_EQ(kin_barrier_arrive(&barrier, &seat, &index, KIN_FOREVER), 0);
    acquire(&lock);
    CHECK_EQ(kin_condition_enter(&condition, &seat), 0);
    CHECK_EQ(kin_condition_notify(&condition, 1), 1);
    CHECK_EQ(kin_condition_enter(&condition, &seat), 0);
    kill(getpid(), SIGKILL);
}

static void buries_the_undertaker(const char *point) {
    uint64_t before = blocks();
    kin_seat seat, own;
    uint32_t index;
    CHECK_EQ(kin_barrier_arrive(&barrier, &own, &index, KIN_FOREVER), 0);
    pid_t pid = fork();
    if (pid == 0) {
        pid_t child = fork();
        if (child == 0) hold_everything();
        waitpid(child, NULL, 0);
        CHECK_EQ(kin_condition_enter(&condition, &seat), 0);
        die_at(point, 1);
        kin_family_reap(family);
        _exit(3);
    }
    (void)end_of(pid, true);
    CHECK(kin_family_reap(family) >= 1);
    CHECK_EQ(kin_lock_acquire(&lock, KIN_NOW), KIN_OWNER_DIED);
    CHECK_EQ(kin_lock_release(&lock), 0);
    CHECK_EQ(kin_condition_waiting(&condition), 0);
    CHECK_EQ(kin_barrier_wait(&barrier, &own, KIN_FOREVER), KIN_EBROKEN);
    kin_barrier_reset(&barrier);
    is_well();
    CHECK_EQ(blocks(), before);
}

/* One that is killed between a change and the wake-up that it owes: the change is seen all the same. */
static void changes_are_seen(void) {
    kin_event event;
    kin_semaphore semaphore;
    CHECK_EQ(kin_event_create(family, &event), 0);
    CHECK_EQ(kin_semaphore_create(family, 0, 1, &semaphore), 0);
    for (int i = 0; i < 2; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            pause_for(50000000); /* so that mostly the other one is parked by then */
            die_at(i ? "semaphore-released" : "event-set", 1);
            if (i) (void)kin_semaphore_release(&semaphore, 1);
            else kin_event_set(&event);
            _exit(3);
        }
        kin_err err;
        do
            err = i ? kin_semaphore_acquire(&semaphore, KIN_FOREVER)
                    : kin_event_wait(&event, KIN_FOREVER);
        while (err == -EINTR);
        CHECK_EQ(err, 0);
        CHECK(end_of(pid, true));
    }
    kin_family_reap(family);
    kin_event_close(&event);
    kin_semaphore_close(&semaphore);
}

/* The news of a death say who it was and where the lock was taken. */
static void writes_obituaries(void) {
    pid_t pid = fork();
    if (pid == 0) {
        kin_member_name_set(family, "Ida");
        CHECK_EQ(kin_lock_acquire_at(&lock, KIN_NOW, kin_lock_place(family, "here")), 0);
        kill(getpid(), SIGKILL);
    }
    (void)end_of(pid, true);
    char said[KIN_OBITUARY_MAX + 1];
    CHECK_EQ(kin_lock_acquire(&lock, KIN_FOREVER), KIN_OWNER_DIED);
    CHECK_EQ(kin_lock_died(&lock), pid);
    kin_lock_obituary(&lock.handle, kin_lock_place(family, "there"), said);
    CHECK_EQ(strcmp(said, "Ida, here"), 0);
    kin_lock_obituary(&lock.handle, 0, said);
    CHECK_EQ(strcmp(said, "there"), 0);
    CHECK_EQ(kin_lock_release(&lock), 0);
}

/* One that came to its normal end is missed by nobody, unless it was just waiting. */
static void parties_may_leave(void) {
    for (int i = 0; i < 200; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            CHECK_EQ(kin_barrier_join(&barrier), 0);
            kin_family_leave(family);
            _exit(0);
        }
        (void)end_of(pid, false);
    }
    CHECK(!kin_barrier_is_broken(&barrier));
    CHECK_EQ(run(meet, NULL, "nowhere", 1), 0);
    CHECK_EQ(sum_said(), WORKERS * TURNS);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK_EQ(kin_barrier_join(&barrier), 0);
        kill(getpid(), SIGKILL);
    }
    (void)end_of(pid, true);
    kin_seat seat;
    uint32_t index;
    kin_err err = kin_barrier_arrive(&barrier, &seat, &index, KIN_FOREVER);
    if (err == 0) err = kin_barrier_wait(&barrier, &seat, KIN_FOREVER);
    CHECK_EQ(err, KIN_EBROKEN);
    CHECK_EQ(kin_barrier_died(&barrier), pid);
    kin_barrier_reset(&barrier);
}

static const char *const lock_points[] = {"lock-given", "lock-waiting", "lock-claimed",
                                          "lock-reserved", NULL};
static const char *const condition_points[] = {"seat-taking", "condition-waiting",
                                               "condition-leaving", NULL};
static const char *const barrier_points[] = {"barrier-arriving", "barrier-waiting",
                                             "barrier-letting-go", "barrier-round", NULL};
static const char *const burial_points[] = {
    "lock-buried",      "lock-given",         "condition-clearing", "condition-called",
    "barrier-breaking", "barrier-letting-go", "barrier-round",      "barrier-clearing"};

int main(void) {
    kin_family_options options = {.reserve = 1ull << 32};
    CHECK_EQ(kin_family_found(&options, &family), 0);
    CHECK_EQ(kin_lock_create(family, &lock), 0);
    CHECK_EQ(kin_rlock_create(family, &rlock), 0);
    CHECK_EQ(kin_condition_create(family, &condition), 0);
    CHECK_EQ(kin_barrier_create(family, WORKERS, &barrier), 0);
    CHECK_EQ(kin_memory_create(family, sizeof(board), &memory), 0);
    writes_obituaries();
    changes_are_seen();
    parties_may_leave();
    CHECK_EQ(run(use_locks, NULL, "nowhere", 1), 0); /* so that free lists and holds are there */
    at_each(locks_go_on, lock_points);
    at_each(conditions_go_on, condition_points);
    at_each(barriers_go_on, barrier_points);
    for (size_t i = 0; i < sizeof burial_points / sizeof *burial_points; i++)
        buries_the_undertaker(burial_points[i]);
    return 0;
}
#endif
