/* Waiting for objects and descriptors together: what is ready, doorbells, many at once as threads
 * and as processes, and kills. */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "check.h"
#include "family/fault.h"
#include "kin.h"

static kin_family *family;

static kin_queue queue_new(uint64_t maxsize) {
    kin_queue queue;
    CHECK_EQ(kin_queue_create(family, maxsize, &queue), 0);
    return queue;
}

static void put(kin_queue *queue) {
    CHECK_EQ(kin_queue_push(queue, "x", 1, 0, KIN_FOREVER), 0);
}

static bool take(kin_queue *queue) {
    uint8_t buffer[KIN_RECORD_MAX];
    kin_record record;
    for (;;) {
        kin_err err = kin_queue_pop(queue, buffer, &record, KIN_NOW);
        if (err == -EAGAIN) continue; /* somebody is at work there */
        CHECK(err == 0 || err == -ETIMEDOUT);
        return err == 0;
    }
}

static uint64_t blocks(void) {
    kin_family_stats stats;
    kin_family_stats_read(family, &stats);
    return stats.blocks;
}

static bool is_ready(const kin_handle *object, int what) {
    int ready = -1;
    CHECK_EQ(kin_ready(object, what, &ready), 0);
    return ready;
}

static bool rung_by(kin_doorbell *bell, int timeout_ms) {
    struct pollfd fd = {.fd = kin_doorbell_fd(bell), .events = POLLIN};
    int got = poll(&fd, 1, timeout_ms);
    CHECK(got >= 0);
    return got == 1;
}

static bool is_rung(kin_doorbell *bell) {
    return rung_by(bell, 0);
}

/* For ever, as far as this test goes: its own deadline is the test runner's. */
static void await_ring(kin_doorbell *bell) {
    CHECK(rung_by(bell, -1));
}

static kin_doorbell *bell_for(const kin_handle *object, int what) {
    kin_doorbell *bell;
    CHECK_EQ(kin_doorbell_open(family, &bell), 0);
    CHECK_EQ(kin_doorbell_watch(bell, object, what), 0);
    return bell;
}

static kin_err wait_for(const kin_handle *object, int what, kin_deadline deadline) {
    kin_wait_item item = {.object = object, .what = what};
    kin_err err = kin_wait(family, &item, 1, deadline);
    if (!err) CHECK_EQ(item.ready, 1);
    return err;
}

static void end_child(void) {
    kin_family_leave(family);
    _exit(0);
}

static void join_child(pid_t pid) {
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    kin_family_reap(family);
}

/* -- One at a time ------------------------------------------------------------------- */

static void knows_what_is_ready(void) {
    kin_queue queue = queue_new(1);
    kin_lock lock;
    kin_event event;
    kin_semaphore semaphore;
    CHECK_EQ(kin_lock_create(family, &lock), 0);
    CHECK_EQ(kin_event_create(family, &event), 0);
    CHECK_EQ(kin_semaphore_create(family, 0, 2, &semaphore), 0);

    CHECK(!is_ready(&queue.handle, KIN_READY_TAKE) && is_ready(&queue.handle, KIN_READY_GIVE));
    put(&queue);
    CHECK(is_ready(&queue.handle, KIN_READY_TAKE) && !is_ready(&queue.handle, KIN_READY_GIVE));
    CHECK(is_ready(&lock.handle, KIN_READY_TAKE));
    CHECK_EQ(kin_lock_acquire(&lock, KIN_NOW), 0);
    CHECK(!is_ready(&lock.handle, KIN_READY_TAKE));
    CHECK(!is_ready(&event.handle, KIN_READY_TAKE));
    kin_event_set(&event);
    CHECK(is_ready(&event.handle, KIN_READY_TAKE));
    CHECK(!is_ready(&semaphore.handle, KIN_READY_TAKE));
    CHECK_EQ(kin_semaphore_release(&semaphore, 2), 0);
    CHECK(is_ready(&semaphore.handle, KIN_READY_TAKE));

    int ready;
    CHECK_EQ(kin_ready(&lock.handle, KIN_READY_GIVE, &ready), KIN_EKIND);
    CHECK_EQ(kin_ready(&queue.handle, 3, &ready), KIN_EKIND);
    CHECK_EQ(wait_for(&event.handle, KIN_READY_GIVE, KIN_NOW), KIN_EKIND);
    kin_handle memory;
    CHECK_EQ(kin_memory_create(family, 8, &memory), 0);
    CHECK_EQ(kin_ready(&memory, KIN_READY_TAKE, &ready), KIN_EKIND);
    kin_handle_close(&memory);

    kin_queue_close(&queue);
    CHECK_EQ(kin_lock_release(&lock), 0);
    kin_lock_close(&lock);
    kin_event_close(&event);
    kin_semaphore_close(&semaphore);
}

static void marks_all_that_are_ready(void) {
    int first[2], second[2];
    CHECK_EQ(pipe(first) | pipe(second), 0);
    kin_queue full = queue_new(0), empty = queue_new(0);
    put(&full);
    CHECK_EQ(write(second[1], "x", 1), 1);
    kin_wait_item items[] = {
        {.fd = first[0]},
        {.object = &full.handle, .what = KIN_READY_TAKE},
        {.fd = second[0]},
        {.object = &empty.handle, .what = KIN_READY_TAKE},
        {.object = &empty.handle, .what = KIN_READY_GIVE},
    };
    CHECK_EQ(kin_wait(family, items, 5, KIN_FOREVER), 0);
    CHECK(!items[0].ready && items[1].ready && items[2].ready && !items[3].ready && items[4].ready);
    kin_wait_item idle[] = {items[0], items[3]};
    CHECK_EQ(kin_wait(family, idle, 2, KIN_NOW), -ETIMEDOUT);
    CHECK_EQ(kin_wait(family, idle, 2, kin_deadline_after(3000000)), -ETIMEDOUT);
    CHECK_EQ(kin_wait(NULL, idle, 1, kin_deadline_after(3000000)), -ETIMEDOUT);
    CHECK_EQ(kin_wait(NULL, NULL, 0, kin_deadline_after(1000000)), -ETIMEDOUT);
    close(first[1]); /* an end is ready, too */
    CHECK_EQ(kin_wait(family, idle, 2, KIN_FOREVER), 0);
    CHECK(idle[0].ready && !idle[1].ready);
    close(first[0]); /* and what is not open */
    CHECK_EQ(kin_wait(family, idle, 2, KIN_FOREVER), 0);
    CHECK(idle[0].ready);
    idle[0].fd = -1;
    CHECK_EQ(kin_wait(family, idle, 2, KIN_FOREVER), -EBADF);
    close(second[0]);
    close(second[1]);
    kin_queue_close(&full);
    kin_queue_close(&empty);
}

static void rings_and_settles(void) {
    kin_queue queue = queue_new(0);
    kin_doorbell *bell = bell_for(&queue.handle, KIN_READY_TAKE);
    CHECK_EQ(kin_doorbell_watch(bell, &queue.handle, KIN_READY_TAKE), 0); /* once is enough */
    CHECK(!is_rung(bell));
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 100; i++) put(&queue);
        CHECK(is_rung(bell));
        CHECK(take(&queue));
        CHECK_EQ(kin_doorbell_settle(bell), 1);
        CHECK(is_rung(bell));
        while (take(&queue)) continue;
        CHECK_EQ(kin_doorbell_settle(bell), 0);
        CHECK(!is_rung(bell));
    }
    put(&queue);
    kin_doorbell_unwatch(bell, &queue.handle, KIN_READY_TAKE);
    CHECK_EQ(kin_doorbell_settle(bell), 0);
    put(&queue);
    CHECK(!is_rung(bell));
    /* what is ready when it is first watched */
    CHECK_EQ(kin_doorbell_watch(bell, &queue.handle, KIN_READY_TAKE), 0);
    CHECK(is_rung(bell));
    while (take(&queue)) continue;
    CHECK_EQ(kin_doorbell_settle(bell), 0);
    kin_queue_shutdown(&queue, 0);
    CHECK(is_rung(bell));
    CHECK_EQ(kin_doorbell_settle(bell), 1);
    kin_doorbell_close(bell);
    kin_doorbell_close(NULL);
    kin_queue_close(&queue);
}

static void every_kind_rings(void) {
    kin_queue queue = queue_new(1);
    kin_lock lock;
    kin_rlock rlock;
    kin_event event;
    kin_semaphore semaphore;
    CHECK_EQ(kin_lock_create(family, &lock), 0);
    CHECK_EQ(kin_rlock_create(family, &rlock), 0);
    CHECK_EQ(kin_event_create(family, &event), 0);
    CHECK_EQ(kin_semaphore_create(family, 0, 2, &semaphore), 0);
    CHECK_EQ(kin_lock_acquire(&lock, KIN_NOW), 0);
    CHECK_EQ(kin_rlock_acquire(&rlock, KIN_NOW), 0);
    put(&queue);
    const kin_handle *object[] = {&lock.handle, &rlock.handle, &event.handle, &semaphore.handle,
                                  &queue.handle};
    kin_doorbell *bell[5];
    for (int i = 0; i < 5; i++) {
        bell[i] = bell_for(object[i], i == 4 ? KIN_READY_GIVE : KIN_READY_TAKE);
        CHECK(!is_rung(bell[i]));
    }
    CHECK_EQ(kin_lock_release(&lock), 0);
    CHECK_EQ(kin_rlock_release(&rlock), 0);
    kin_event_set(&event);
    CHECK_EQ(kin_semaphore_release(&semaphore, 1), 0);
    CHECK(take(&queue));
    for (int i = 0; i < 5; i++) {
        CHECK(is_rung(bell[i]));
        CHECK_EQ(kin_doorbell_settle(bell[i]), 1);
        kin_doorbell_close(bell[i]);
    }
    kin_queue_close(&queue);
    kin_lock_close(&lock);
    kin_rlock_close(&rlock);
    kin_event_close(&event);
    kin_semaphore_close(&semaphore);
}

/* More watchers than a block of entries has room for, and all of them are told. */
static void many_watch_one(void) {
    enum { MANY = 120 };
    kin_event event;
    CHECK_EQ(kin_event_create(family, &event), 0);
    kin_doorbell *bell[MANY];
    for (int round = 0; round < 2; round++) {
        uint64_t before = blocks();
        for (int i = 0; i < MANY; i++) bell[i] = bell_for(&event.handle, KIN_READY_TAKE);
        if (round) CHECK_EQ(blocks(), before); /* entries are used again */
        kin_event_set(&event);
        for (int i = 0; i < MANY; i++) CHECK(is_rung(bell[i]));
        for (int i = 0; i < MANY; i++) kin_doorbell_close(bell[i]);
        kin_event_clear(&event);
    }
    kin_event_close(&event);
}

/* One doorbell for more rings than a socket holds. */
static void one_watches_many(void) {
    enum { MANY = 700 };
    static kin_event event[MANY];
    static kin_wait_item items[MANY];
    kin_doorbell *bell;
    CHECK_EQ(kin_doorbell_open(family, &bell), 0);
    for (int i = 0; i < MANY; i++) {
        CHECK_EQ(kin_event_create(family, &event[i]), 0);
        CHECK_EQ(kin_doorbell_watch(bell, &event[i].handle, KIN_READY_TAKE), 0);
        items[i] = (kin_wait_item){.object = &event[i].handle, .what = KIN_READY_TAKE};
    }
    pid_t pid = fork();
    if (pid == 0) {
        kin_event_set(&event[MANY - 1]);
        end_child();
    }
    CHECK_EQ(kin_wait(family, items, MANY, KIN_FOREVER), 0);
    for (int i = 0; i < MANY; i++) CHECK_EQ(items[i].ready, i == MANY - 1);
    join_child(pid);
    for (int i = 0; i < MANY; i++) kin_event_set(&event[i]);
    CHECK_EQ(kin_doorbell_settle(bell), 1);
    for (int i = 0; i < MANY; i++) kin_event_clear(&event[i]);
    CHECK_EQ(kin_doorbell_settle(bell), 0);
    CHECK(!is_rung(bell));
    kin_doorbell_close(bell);
    for (int i = 0; i < MANY; i++) kin_event_close(&event[i]);
}

/* -- Between processes -------------------------------------------------------------------- */

static void a_child_wakes_the_waiter(void) {
    kin_queue queue = queue_new(0), back = queue_new(0);
    int ends[2];
    CHECK_EQ(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 0; i < 300; i++) {
            CHECK_EQ(wait_for(&queue.handle, KIN_READY_TAKE, KIN_FOREVER), 0);
            CHECK(take(&queue));
            put(&back);
        }
        end_child();
    }
    kin_wait_item items[] = {{.fd = ends[0]}, {.object = &back.handle, .what = KIN_READY_TAKE}};
    for (int i = 0; i < 300; i++) {
        put(&queue);
        CHECK_EQ(kin_wait(family, items, 2, KIN_FOREVER), 0);
        CHECK(!items[0].ready && items[1].ready);
        CHECK(take(&back));
    }
    join_child(pid);
    close(ends[0]);
    close(ends[1]);
    kin_queue_close(&queue);
    kin_queue_close(&back);
}

/* What was put before a process ended is seen no later than its end. */
static void an_end_does_not_hide_what_was_put(void) {
    kin_queue queue = queue_new(0);
    for (int i = 0; i < 100; i++) {
        int ends[2];
        CHECK_EQ(pipe(ends), 0);
        pid_t pid = fork();
        if (pid == 0) {
            put(&queue);
            end_child();
        }
        close(ends[1]);
        kin_wait_item items[] = {{.fd = ends[0]},
                                 {.object = &queue.handle, .what = KIN_READY_TAKE}};
        CHECK_EQ(kin_wait(family, items, 2, KIN_FOREVER), 0);
        CHECK(items[1].ready && take(&queue));
        join_child(pid);
        close(ends[0]);
    }
    kin_queue_close(&queue);
}

static void a_child_has_not_its_parents_doorbells(void) {
    kin_queue queue = queue_new(0);
    kin_doorbell *bell = bell_for(&queue.handle, KIN_READY_TAKE);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK_EQ(kin_doorbell_settle(bell), KIN_ESTALE);
        CHECK_EQ(kin_doorbell_watch(bell, &queue.handle, KIN_READY_GIVE), KIN_ESTALE);
        CHECK_EQ(kin_doorbell_fd(bell), -1);
        kin_doorbell_unwatch(bell, &queue.handle, KIN_READY_TAKE);
        kin_doorbell_close(bell);
        bell = bell_for(&queue.handle, KIN_READY_TAKE);
        put(&queue);
        CHECK(is_rung(bell));
        end_child(); /* with a doorbell that is open */
    }
    await_ring(bell);
    CHECK(take(&queue));
    CHECK_EQ(kin_doorbell_settle(bell), 0);
    join_child(pid);
    kin_doorbell_close(bell);
    kin_queue_close(&queue);
}

/* Who dies as a watcher leaves an entry for the next. */
static void the_dead_make_room(void) {
    kin_event event;
    CHECK_EQ(kin_event_create(family, &event), 0);
    kin_doorbell *bell = bell_for(&event.handle, KIN_READY_TAKE);
    uint64_t before = blocks();
    for (int i = 0; i < 20; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            (void)bell_for(&event.handle, KIN_READY_TAKE);
            end_child();
        }
        join_child(pid);
    }
    CHECK_EQ(blocks(), before);
    kin_event_set(&event);
    CHECK(is_rung(bell));
    kin_doorbell_close(bell);
    kin_event_close(&event);
}

/* -- Many at once ---------------------------------------------------------------------------- */

enum { PRODUCERS = 3, CONSUMERS = 3, EACH = 4000, ROUNDS = 20000 };

static kin_queue busy;
static kin_handle tally; /* how many were taken */

static _Atomic uint32_t *taken(void) {
    return kin_memory_data(&tally);
}

static void *produce(void *unused) {
    for (int i = 0; i < EACH; i++) {
        put(&busy);
        if (i % 16) continue;
        kin_deadline until = kin_clock() + 20000; /* let it run empty now and then */
        while (kin_clock() < until) continue;
    }
    return unused;
}

static void count_one(void) {
    if (atomic_fetch_add(taken(), 1) + 1 == PRODUCERS * EACH) kin_queue_shutdown(&busy, 0);
}

/* Take one; false when it is shut and empty.  *empty: there was nothing. */
static bool take_busy(bool *empty) {
    uint8_t buffer[KIN_RECORD_MAX];
    kin_record record;
    kin_err err = kin_queue_pop(&busy, buffer, &record, KIN_NOW);
    *empty = err == -ETIMEDOUT;
    if (!err) count_one();
    return err != KIN_ECLOSED;
}

/* As an event loop does it: nothing but the descriptor says when to look. */
static void *consume_by_doorbell(void *unused) {
    kin_doorbell *bell = bell_for(&busy.handle, KIN_READY_TAKE);
    bool empty, open;
    do {
        await_ring(bell);
        open = take_busy(&empty);
        if (empty || kin_queue_len(&busy) == 0) CHECK(kin_doorbell_settle(bell) >= 0);
    } while (open);
    kin_doorbell_close(bell);
    return unused;
}

static void *consume_by_wait(void *unused) {
    bool empty;
    do CHECK_EQ(wait_for(&busy.handle, KIN_READY_TAKE, KIN_FOREVER), 0);
    while (take_busy(&empty));
    return unused;
}

typedef void *body(void *);

static void run_all(bool as_processes, kin_queue *queue) {
    pthread_t thread[PRODUCERS + CONSUMERS];
    pid_t pid[PRODUCERS + CONSUMERS];
    busy = *queue;
    CHECK_EQ(kin_memory_create(family, sizeof(uint32_t), &tally), 0);
    for (int i = 0; i < PRODUCERS + CONSUMERS; i++) {
        body *run = i < PRODUCERS ? produce : i % 2 ? consume_by_wait : consume_by_doorbell;
        if (!as_processes) {
            CHECK_EQ(pthread_create(&thread[i], NULL, run, NULL), 0);
            continue;
        }
        pid[i] = fork();
        CHECK(pid[i] >= 0);
        if (pid[i]) continue;
        run(NULL);
        end_child();
    }
    for (int i = 0; i < PRODUCERS + CONSUMERS; i++) {
        if (as_processes) join_child(pid[i]);
        else CHECK_EQ(pthread_join(thread[i], NULL), 0);
    }
    CHECK_EQ(atomic_load(taken()), PRODUCERS * EACH);
    kin_handle_close(&tally);
}

static void many_at_once(bool as_processes) {
    kin_queue unbounded = queue_new(0), bounded = queue_new(3);
    run_all(as_processes, &unbounded);
    run_all(as_processes, &bounded);
    kin_queue_close(&unbounded);
    kin_queue_close(&bounded);
}

/* Threads that share a doorbell, and settle it at the same time. */
static kin_doorbell *shared_bell;

static void *consume_by_shared_doorbell(void *unused) {
    bool empty, open;
    do {
        await_ring(shared_bell);
        open = take_busy(&empty);
        if (empty || kin_queue_len(&busy) == 0) CHECK(kin_doorbell_settle(shared_bell) >= 0);
    } while (open);
    return unused;
}

static void threads_share_a_doorbell(void) {
    pthread_t thread[PRODUCERS + CONSUMERS];
    busy = queue_new(0);
    shared_bell = bell_for(&busy.handle, KIN_READY_TAKE);
    CHECK_EQ(kin_memory_create(family, sizeof(uint32_t), &tally), 0);
    for (int i = 0; i < PRODUCERS + CONSUMERS; i++)
        CHECK_EQ(pthread_create(&thread[i], NULL,
                                i < PRODUCERS ? produce : consume_by_shared_doorbell, NULL),
                 0);
    for (int i = 0; i < PRODUCERS + CONSUMERS; i++) CHECK_EQ(pthread_join(thread[i], NULL), 0);
    CHECK_EQ(atomic_load(taken()), PRODUCERS * EACH);
    kin_doorbell_close(shared_bell);
    kin_handle_close(&tally);
    kin_queue_close(&busy);
}

/* A put at every moment of a settle: the other puts as soon as it sees the queue empty, and a
 * little later each time. */
static void *put_when_empty(void *unused) {
    for (uint32_t i = 0; i < ROUNDS; i++) {
        while (kin_queue_len(&busy)) continue;
        for (volatile uint32_t pause = i % 512 * 4; pause; pause--) continue;
        put(&busy);
    }
    return unused;
}

static void a_put_meets_a_settle(void) {
    pthread_t thread;
    busy = queue_new(0);
    kin_doorbell *bell = bell_for(&busy.handle, KIN_READY_TAKE);
    CHECK_EQ(pthread_create(&thread, NULL, put_when_empty, NULL), 0);
    for (uint32_t got = 0; got < ROUNDS;) {
        await_ring(bell);
        got += take(&busy);
        CHECK(kin_doorbell_settle(bell) >= 0);
    }
    CHECK_EQ(pthread_join(thread, NULL), 0);
    kin_doorbell_close(bell);
    kin_queue_close(&busy);
}

/* -- Kills -------------------------------------------------------------------------------------- */

static void a_dead_holders_lock_becomes_ready(void) {
    kin_lock lock;
    CHECK_EQ(kin_lock_create(family, &lock), 0);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK_EQ(kin_lock_acquire(&lock, KIN_NOW), 0);
        kill(getpid(), SIGKILL);
    }
    CHECK_EQ(waitpid(pid, NULL, 0), pid);
    CHECK_EQ(wait_for(&lock.handle, KIN_READY_TAKE, KIN_FOREVER), 0);
    CHECK_EQ(kin_lock_acquire(&lock, KIN_NOW), KIN_OWNER_DIED);
    CHECK_EQ(kin_lock_release(&lock), 0);
    kin_lock_close(&lock);
}

/* It ends while somebody waits, and nobody else is there to bury it. */
static void a_holder_may_die_during_the_wait(void) {
    kin_lock lock;
    int ends[2];
    CHECK_EQ(kin_lock_create(family, &lock), 0);
    CHECK_EQ(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK_EQ(kin_lock_acquire(&lock, KIN_NOW), 0);
        CHECK_EQ(write(ends[1], "x", 1), 1);
        usleep(20000); /* the other waits by then, or not: either way it must end */
        kill(getpid(), SIGKILL);
    }
    char got;
    CHECK_EQ(read(ends[0], &got, 1), 1);
    CHECK_EQ(wait_for(&lock.handle, KIN_READY_TAKE, KIN_FOREVER), 0);
    CHECK_EQ(waitpid(pid, NULL, 0), pid);
    close(ends[0]);
    close(ends[1]);
    kin_lock_close(&lock);
}

#ifdef KIN_FAULT_POINTS
static void die_at(const char *point, long after) {
    kin__fault_name = point;
    kin__fault_after = after;
}

/* Killed on the way to ring: the burial does. */
static void the_burial_rings(const char *point) {
    kin_queue queue = queue_new(0);
    kin_lock lock;
    kin_event event;
    kin_semaphore semaphore;
    CHECK_EQ(kin_lock_create(family, &lock), 0);
    CHECK_EQ(kin_event_create(family, &event), 0);
    CHECK_EQ(kin_semaphore_create(family, 0, 2, &semaphore), 0);
    for (int what = 0; what < 4; what++) {
        const kin_handle *object[] = {&queue.handle, &lock.handle, &event.handle,
                                      &semaphore.handle};
        if (what == 1) CHECK_EQ(kin_lock_acquire(&lock, KIN_NOW), 0);
        kin_doorbell *bell = bell_for(object[what], KIN_READY_TAKE);
        CHECK(!is_rung(bell));
        pid_t pid = fork();
        if (pid == 0) {
            die_at(point, 1);
            if (what == 0) put(&queue);
            if (what == 1) (void)kin_lock_release(&lock);
            if (what == 2) kin_event_set(&event);
            if (what == 3) (void)kin_semaphore_release(&semaphore, 1);
            _exit(1);
        }
        int status;
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK(WIFSIGNALED(status));
        CHECK(!is_rung(bell));
        CHECK_EQ(kin_family_reap(family), 1);
        CHECK(is_rung(bell));
        CHECK_EQ(kin_doorbell_settle(bell), 1);
        kin_doorbell_close(bell);
    }
    kin_queue_close(&queue);
    kin_lock_close(&lock);
    kin_event_close(&event);
    kin_semaphore_close(&semaphore);
}

/* Killed as it begins to watch: others can, and what it left goes with the object. */
static void the_dead_watcher_is_no_matter(const char *point) {
    for (int others = 0; others < 5; others++) {
        uint64_t before = blocks();
        kin_queue queue = queue_new(0);
        kin_doorbell *bell[5];
        for (int i = 0; i < others; i++) bell[i] = bell_for(&queue.handle, KIN_READY_TAKE);
        pid_t pid = fork();
        if (pid == 0) {
            die_at(point, 1);
            for (int i = 0; i < 15; i++) (void)bell_for(&queue.handle, KIN_READY_TAKE);
            _exit(1);
        }
        int status;
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK(WIFSIGNALED(status));
        put(&queue);
        for (int i = 0; i < others; i++) CHECK(is_rung(bell[i]));
        CHECK_EQ(kin_family_reap(family), 1);
        kin_doorbell *late = bell_for(&queue.handle, KIN_READY_TAKE);
        CHECK(is_rung(late));
        kin_doorbell_close(late);
        for (int i = 0; i < others; i++) kin_doorbell_close(bell[i]);
        kin_queue_close(&queue);
        CHECK_EQ(blocks(), before);
    }
}

static void kills_at_fault_points(void) {
    the_burial_rings("watch-ringing");
    the_burial_rings("watch-disarmed");
    the_dead_watcher_is_no_matter("watch-growing");
    the_dead_watcher_is_no_matter("watch-claimed");
    the_dead_watcher_is_no_matter("watch-armed");
}
#else
static void kills_at_fault_points(void) {}
#endif

/* -- Descriptors run out, and are closed ---------------------------------------------------------- */

static int lowest_free(void) {
    int fd = dup(0);
    CHECK(fd >= 0);
    close(fd);
    return fd;
}

/* A program that closes all that it does not know, as daemons do, rings all the same, and into
 * no file that has got the number since. */
static void rings_without_its_ringer(void) {
    kin_event event;
    CHECK_EQ(kin_event_create(family, &event), 0);
    kin_doorbell *bell = bell_for(&event.handle, KIN_READY_TAKE);
    pid_t pid = fork();
    if (pid == 0) {
        for (int fd = 3; fd < 64; fd++) close(fd);
        int ends[2];
        while (lowest_free() < 64) CHECK_EQ(pipe(ends), 0);
        kin_event_set(&event);
        end_child();
    }
    await_ring(bell);
    join_child(pid);
    kin_doorbell_close(bell);
    kin_event_close(&event);
}

int main(void) {
    CHECK_EQ(kin_family_found(NULL, &family), 0);
    one_watches_many(); /* and this member's table of holds is as large as it gets */
    uint64_t before = blocks();
    knows_what_is_ready();
    marks_all_that_are_ready();
    rings_and_settles();
    every_kind_rings();
    many_watch_one();
    a_child_wakes_the_waiter();
    an_end_does_not_hide_what_was_put();
    a_child_has_not_its_parents_doorbells();
    the_dead_make_room();
    many_at_once(false);
    many_at_once(true);
    threads_share_a_doorbell();
    a_put_meets_a_settle();
    a_dead_holders_lock_becomes_ready();
    a_holder_may_die_during_the_wait();
    kills_at_fault_points();
    rings_without_its_ringer();
    CHECK_EQ(blocks(), before);
    kin_family_leave(family);
    return 0;
}
