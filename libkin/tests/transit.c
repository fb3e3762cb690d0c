/* Transits: what they hold stays until it is dropped, or they end; whoever dies meanwhile. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "check.h"
#include "family/arena.h"
#include "family/fault.h"
#include "kin.h"

static kin_family *family;

static uint64_t objects(void) {
    kin_family_stats stats;
    kin_family_stats_read(family, &stats);
    return stats.objects;
}

static uint64_t blocks(void) {
    kin_family_stats stats;
    kin_family_stats_read(family, &stats);
    return stats.blocks;
}

static void in_a_child(void (*body)(void)) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(100); /* a hang is a failure */
        CHECK_EQ(kin_family_found(NULL, &family), 0);
        body();
        kin_family_reap(family);
        CHECK_EQ(objects(), family->arena->transit != 0);
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
}

/* A new lock, held by the transit alone. */
static uint64_t hold_new(kin_transit *transit, kin_ref *ref) {
    kin_lock lock;
    uint64_t number = 0;
    CHECK_EQ(kin_lock_create(family, &lock), 0);
    *ref = lock.handle.ref;
    CHECK_EQ(kin_transit_hold(transit, ref, 1, &number), 0);
    CHECK(number != 0);
    kin_lock_close(&lock);
    return number;
}

static int is_there(const kin_ref *ref) {
    kin_handle handle;
    kin_err err = kin_handle_open(family, ref, &handle);
    if (err == 0) kin_handle_close(&handle);
    else CHECK_EQ(err, KIN_ESTALE);
    return err == 0;
}

static void holds_until_dropped(void) {
    kin_transit transit;
    kin_ref one, two;
    CHECK_EQ(kin_transit_create(family, &transit), 0);
    uint64_t first = hold_new(&transit, &one), second = hold_new(&transit, &two);
    CHECK(first != second);
    kin_transit_drop(&transit, 0);
    kin_transit_drop(&transit, first + 1);
    kin_transit_drop(&transit, UINT64_MAX);
    CHECK(is_there(&one) && is_there(&two));
    kin_transit_drop(&transit, first);
    CHECK(!is_there(&one) && is_there(&two));
    uint64_t third = hold_new(&transit, &one); /* in the same place, by another number */
    kin_transit_drop(&transit, first);
    CHECK(third != first && is_there(&one));
    kin_transit_close(&transit);
    CHECK(!is_there(&one) && !is_there(&two));
}

static void holds_many_at_once(void) {
    enum { COUNT = 1000 };
    static kin_lock locks[COUNT];
    static kin_ref refs[COUNT];
    kin_transit transit;
    uint64_t all = 0, again = 0, none = 0;
    for (int i = 0; i < COUNT; i++) {
        CHECK_EQ(kin_lock_create(family, &locks[i]), 0);
        refs[i] = locks[i].handle.ref;
    }
    CHECK_EQ(kin_transit_create(family, &transit), 0);
    CHECK_EQ(kin_transit_hold(&transit, refs, COUNT, &all), 0);
    CHECK_EQ(kin_transit_hold(&transit, refs, 0, &none), 0);
    CHECK(none != 0);
    kin_transit_drop(&transit, none);
    for (int i = 0; i < COUNT; i++) kin_lock_close(&locks[i]);
    /* One that is gone, or of another kind: then none is held. */
    kin_ref bad = refs[500];
    refs[500].kind = KIN_KIND_QUEUE;
    CHECK_EQ(kin_transit_hold(&transit, refs, COUNT, &again), KIN_EKIND);
    refs[500].serial = 1;
    CHECK_EQ(kin_transit_hold(&transit, refs, COUNT, &again), KIN_ESTALE);
    CHECK_EQ(again, 0);
    refs[500] = bad;
    CHECK_EQ(kin_transit_hold(&transit, refs, COUNT, &again), 0);
    kin_transit_drop(&transit, all);
    for (int i = 0; i < COUNT; i++) CHECK(is_there(&refs[i]));
    kin_transit_drop(&transit, again);
    for (int i = 0; i < COUNT; i++) CHECK(!is_there(&refs[i]));
    uint64_t before = blocks();
    kin_transit_close(&transit);
    CHECK(blocks() < before);
    CHECK_EQ(objects(), 0);
}

/* In any order, the places of what was dropped are used again. */
static void uses_its_places_again(void) {
    enum { COUNT = 30 };
    kin_transit transit;
    kin_ref refs[COUNT];
    uint64_t numbers[COUNT] = {0};
    unsigned seed = 1;
    CHECK_EQ(kin_transit_create(family, &transit), 0);
    for (int i = 0; i < COUNT; i++) numbers[i] = hold_new(&transit, &refs[i]);
    uint64_t before = blocks();
    for (int round = 0; round < 3000; round++) {
        int i = rand_r(&seed) % COUNT;
        CHECK(is_there(&refs[i]));
        kin_transit_drop(&transit, numbers[i]);
        CHECK(!is_there(&refs[i]));
        numbers[i] = hold_new(&transit, &refs[i]);
    }
    CHECK_EQ(blocks(), before);
    kin_transit_close(&transit);
}

static void is_the_familys(void) {
    kin_transit mine;
    kin_ref ref;
    CHECK_EQ(kin_transit_of_family(family, &mine), 0);
    pid_t pid = fork();
    if (pid == 0) {
        kin_transit same;
        CHECK_EQ(kin_transit_of_family(family, &same), 0);
        CHECK_EQ(same.handle.ref.serial, mine.handle.ref.serial);
        uint64_t number = hold_new(&same, &ref);
        kin_queue queue;
        CHECK_EQ(kin_queue_create(family, 0, &queue), 0);
        CHECK_EQ(kin_queue_push(&queue, &number, sizeof number, 0, KIN_NOW), 0);
        CHECK_EQ(kin_transit_hold(&same, &queue.handle.ref, 1, &number), 0);
        kill(getpid(), SIGKILL);
    }
    CHECK_EQ(waitpid(pid, NULL, 0), pid);
    CHECK_EQ(kin_family_reap(family), 1);
    CHECK_EQ(objects(), 3); /* the transit, the lock, the queue */
    kin_transit_drop(&mine, 1u << 24);
    kin_transit_drop(&mine, (2u << 24) + 1);
    CHECK_EQ(objects(), 1);
    kin_transit_close(&mine);
    CHECK_EQ(objects(), 1);
}

/* Several members make, hand on and drop holds at once. */
static void many_at_once(void) {
    kin_transit transit;
    kin_queue queue;
    pid_t pids[4];
    enum { ROUNDS = 2000 };
    struct {
        kin_ref ref;
        uint64_t number;
    } note;
    CHECK_EQ(kin_transit_create(family, &transit), 0);
    CHECK_EQ(kin_queue_create(family, 100, &queue), 0);
    for (int child = 0; child < 4; child++) {
        pids[child] = fork();
        if (pids[child]) continue;
        uint8_t buffer[KIN_RECORD_MAX];
        kin_record record;
        for (int i = 0; i < ROUNDS; i++) {
            if (child % 2) {
                note.number = hold_new(&transit, &note.ref);
                CHECK_EQ(kin_queue_push(&queue, &note, sizeof note, 0, KIN_FOREVER), 0);
            } else {
                CHECK_EQ(kin_queue_pop(&queue, buffer, &record, KIN_FOREVER), 0);
                memcpy(&note, buffer, sizeof note);
                CHECK(is_there(&note.ref));
                kin_transit_drop(&transit, note.number);
                CHECK(!is_there(&note.ref));
            }
        }
        kin_family_leave(family);
        _exit(0);
    }
    for (int child = 0; child < 4; child++) {
        int status;
        CHECK_EQ(waitpid(pids[child], &status, 0), pids[child]);
        CHECK_EQ(status, 0);
    }
    CHECK_EQ(kin_queue_len(&queue), 0);
    kin_queue_close(&queue);
    kin_transit_close(&transit);
}

#ifdef KIN_FAULT_POINTS
static const char *const points[] = {
    "transit-holding", "transit-released", "transit-growing", "journal-store", "arena-popped",
};

/* Drops each hold when four more were made; each is of three. */
static void be_killed(const char *point, int after, kin_transit *transit) {
    kin_lock locks[3];
    kin_ref refs[3];
    uint64_t numbers[5] = {0};
    kin__fault_after = after;
    kin__fault_name = point;
    for (int i = 0; i < 100; i++) {
        kin_transit_drop(transit, numbers[i % 5]);
        for (int k = 0; k < 3; k++) {
            CHECK_EQ(kin_lock_create(family, &locks[k]), 0);
            refs[k] = locks[k].handle.ref;
        }
        CHECK_EQ(kin_transit_hold(transit, refs, 3, &numbers[i % 5]), 0);
        for (int k = 0; k < 3; k++) kin_lock_close(&locks[k]);
    }
    kill(getpid(), SIGKILL);
}

/* What others hold stays, their holds are made and dropped, and with the transit all goes. */
static void survives_kills(void) {
    for (size_t point = 0; point < sizeof points / sizeof *points; point++) {
        for (int after = 1; after < 60; after += after < 12 ? 1 : 7) {
            kin_transit transit;
            kin_ref ref, more;
            CHECK_EQ(kin_transit_create(family, &transit), 0);
            uint64_t number = hold_new(&transit, &ref);
            pid_t pid = fork();
            if (pid == 0) be_killed(points[point], after, &transit);
            CHECK_EQ(waitpid(pid, NULL, 0), pid);
            CHECK_EQ(kin_family_reap(family), 1);
            CHECK(is_there(&ref));
            uint64_t next = hold_new(&transit, &more);
            kin_transit_drop(&transit, number);
            kin_transit_drop(&transit, next);
            CHECK(!is_there(&ref) && !is_there(&more));
            kin_transit_close(&transit);
            CHECK_EQ(objects(), 0);
        }
    }
}

static void count_lock(kin_family *of, uint64_t off, kin_block_shm *block, uint64_t size,
                       void *count) {
    (void)of, (void)off, (void)size;
    if (kin__block_tag(block) == KIN_TAG(KIN_OBJECT, KIN_KIND_LOCK, 0)) ++*(int *)count;
}

static int locks_left(void) {
    int count = 0;
    kin__blocks_walk(family, count_lock, &count);
    return count;
}

/* Killed with a hold half made, or half dropped: nobody else need use the transit. */
static void gives_half_a_hold_back_at_the_burial(void) {
    for (int after = 1; after <= 3; after++) {
        kin_transit transit;
        CHECK_EQ(kin_transit_create(family, &transit), 0);
        for (int drop = 0; drop < 2; drop++) {
            pid_t pid = fork();
            if (pid == 0) be_killed(drop ? "transit-released" : "transit-holding", after, &transit);
            CHECK_EQ(waitpid(pid, NULL, 0), pid);
            CHECK_EQ(kin_family_reap(family), 1);
            CHECK_EQ(locks_left(), drop ? 4 * 3 : 0); /* of five when it began to drop */
        }
        kin_transit_close(&transit);
        CHECK_EQ(objects(), 0);
    }
}
#endif

int main(void) {
    in_a_child(holds_until_dropped);
    in_a_child(holds_many_at_once);
    in_a_child(uses_its_places_again);
    in_a_child(is_the_familys);
    in_a_child(many_at_once);
#ifdef KIN_FAULT_POINTS
    in_a_child(survives_kills);
    in_a_child(gives_half_a_hold_back_at_the_burial);
#endif
    return 0;
}
