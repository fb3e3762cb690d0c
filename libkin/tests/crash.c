/* Kills at every fault point: the others go on, and nothing is lost, torn or
 * leaked but what the dead one had in its hands. */
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "family/fault.h"
#include "kin.h"

#ifndef KIN_FAULT_POINTS
int main(void) {
    return 77; /* skipped: built without fault points */
}
#else

static kin_family *family;
static kin_queue queue;
static kin_lock lock;
static kin_handle tally; /* what the child says that it has done */

typedef struct notes {
    _Atomic uint32_t pushed, popped; /* numbers up to here, for certain */
    kin_ref room;
} notes;

static notes *said(void) {
    return kin_memory_data(&tally);
}

static const char *const points[] = {
    "arena-popped",     "arena-freed",       "arena-claimed",       "journal-store",
    "queue-blob-armed", "queue-push-before", "queue-segment-armed", "queue-segment-linked",
    "queue-pop-before", "queue-push-after",  "queue-pop-after",     "queue-pop-taken",
    "blob-claimed",     "queue-waiting",
};

/* A child killed as it is being born is given up after some time only (members.c): its
 * row, and the block of its holds, are there until then.  So these come last. */
static const char *const births[] = {"fork-prepared", "member-adopting"};

/* The number is in each record; every third one is a blob that mentions the lock. */
static void put(uint32_t number) {
    if (number % 3) {
        uint8_t data[700] = {0};
        memcpy(data, &number, sizeof number);
        CHECK_EQ(kin_queue_push(&queue, data, sizeof data, 1, KIN_FOREVER), 0);
        return;
    }
    kin_blob blob;
    CHECK_EQ(kin_blob_create(family, 100000, 1, &blob), 0);
    memcpy(blob.data, &number, sizeof number);
    CHECK_EQ(kin_blob_add_ref(&blob, &lock.handle.ref), 0);
    CHECK_EQ(kin_queue_push_blob(&queue, &blob, 2, KIN_FOREVER), 0);
}

static uint32_t take(void) {
    uint8_t buffer[KIN_RECORD_MAX];
    kin_record record;
    uint32_t number;
    kin_err err = kin_queue_pop(&queue, buffer, &record, KIN_NOW);
    if (err == -ETIMEDOUT) return 0;
    CHECK_EQ(err, 0);
    CHECK_EQ(record.tag, record.blob.family ? 2 : 1);
    memcpy(&number, record.blob.family ? record.blob.data : buffer, sizeof number);
    kin_blob_free(&record.blob);
    return number;
}

static uint32_t take_and_say(void) {
    uint32_t number = take();
    if (number) atomic_store(&said()->popped, number);
    return number;
}

/* A bit of everything, until the fault point kills. */
static void live(void) {
    for (uint32_t i = 1; i <= 400; i++) {
        put(i);
        atomic_store(&said()->pushed, i);
        kin_queue other;
        CHECK_EQ(kin_queue_create(family, 0, &other), 0);
        CHECK_EQ(kin_queue_push(&other, &i, sizeof i, 0, KIN_NOW), 0);
        kin_queue_close(&other);
        if (i % 50 == 0) {
            pid_t pid = fork();
            if (pid == 0) {
                kin_family_leave(family);
                _exit(0);
            }
            waitpid(pid, NULL, 0);
            kin_family_reap(family);
        }
        if (i % 3) CHECK(take_and_say());
    }
    uint8_t buffer[KIN_RECORD_MAX];
    kin_record record;
    while (take_and_say()) continue;
    CHECK_EQ(kin_queue_pop(&queue, buffer, &record, kin_deadline_after(1000000)), -ETIMEDOUT);
}

#define BATCH 5

static void put_batch(uint32_t first) {
    uint8_t data[BATCH][700] = {{0}};
    kin_item items[BATCH] = {{0}};
    kin_blob blobs[BATCH];
    for (uint32_t i = 0; i < BATCH; i++) {
        uint32_t number = first + i;
        items[i] = (kin_item){.data = data[i], .len = sizeof data[i], .tag = 1};
        memcpy(data[i], &number, sizeof number);
        if (number % 3) continue;
        CHECK_EQ(kin_blob_create(family, 100000, 1, &blobs[i]), 0);
        memcpy(blobs[i].data, &number, sizeof number);
        CHECK_EQ(kin_blob_add_ref(&blobs[i], &lock.handle.ref), 0);
        items[i] = (kin_item){.tag = 2, .blob = &blobs[i]};
    }
    size_t done = 0;
    CHECK_EQ(kin_queue_push_many(&queue, items, BATCH, &done, KIN_FOREVER), 0);
    CHECK_EQ(done, BATCH);
}

/* How many there were to take; *number: of the last one. */
static size_t take_batch(uint32_t *number) {
    static uint8_t buffer[BATCH * KIN_RECORD_MAX];
    kin_record records[BATCH];
    size_t taken;
    kin_err err = kin_queue_pop_many(&queue, buffer, sizeof buffer, records, BATCH, 0, &taken,
                                     kin_deadline_after(1000000));
    if (err == -ETIMEDOUT) return 0;
    CHECK_EQ(err, 0);
    for (size_t i = 0; i < taken; i++) {
        kin_record *record = &records[i];
        memcpy(number, record->blob.family ? record->blob.data : buffer + record->off,
               sizeof *number);
        CHECK_EQ(record->tag, *number % 3 ? 1 : 2);
        kin_blob_free(&record->blob);
    }
    return taken;
}

static void live_in_batches(void) {
    uint32_t number = 0;
    for (uint32_t i = 1; i <= 400; i += BATCH) {
        put_batch(i);
        atomic_store(&said()->pushed, i + BATCH - 1);
        if (i % 3 && take_batch(&number)) atomic_store(&said()->popped, number);
    }
    while (take_batch(&number)) atomic_store(&said()->popped, number);
}

static uint64_t blocks(void) {
    kin_family_stats stats;
    kin_family_stats_read(family, &stats);
    return stats.blocks;
}

static void live_and_die(void (*life)(void), const char *point, long after) {
    atomic_store(&said()->pushed, 0);
    atomic_store(&said()->popped, 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        kin__fault_name = point;
        kin__fault_after = after;
        life();
        kin_family_leave(family);
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
}

/* What is still in the queue follows on what the child said that it took, but for
 * those that it had in its hands, and ends with what it said that it put. */
static void check_rest(uint32_t in_hands) {
    uint32_t pushed = atomic_load(&said()->pushed), popped = atomic_load(&said()->popped);
    uint32_t number = take();
    if (number) CHECK(number > popped && number <= popped + 1 + in_hands);
    uint32_t last = number ? number : popped;
    while ((number = take())) {
        CHECK_EQ(number, last + 1);
        last = number;
    }
    CHECK(last <= pushed + in_hands && last + in_hands >= pushed);
}

static void kill_in(void (*life)(void), uint32_t in_hands, const char *point, long after) {
    live_and_die(life, point, after);
    CHECK(kin_family_reap(family) >= 0);
    check_rest(in_hands);
    put(1);
    CHECK_EQ(take(), 1);
    CHECK_EQ(kin_lock_acquire(&lock, KIN_FOREVER), 0);
    CHECK_EQ(kin_lock_release(&lock), 0);
    kin_queue_close(&queue);
    CHECK_EQ(kin_queue_create(family, 0, &queue), 0);
}

static void kill_at(const char *point, long after) {
    kill_in(live, 1, point, after);
}

/* A lock held by the killed one goes to the next, who is told. */
static void hands_locks_on(void) {
    kin_event taken;
    CHECK_EQ(kin_event_create(family, &taken), 0);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK_EQ(kin_lock_acquire(&lock, KIN_FOREVER), 0);
        kin_event_set(&taken);
        kill(getpid(), SIGKILL);
    }
    CHECK_EQ(kin_event_wait(&taken, KIN_FOREVER), 0);
    kin_event_close(&taken);
    CHECK_EQ(kin_lock_acquire(&lock, KIN_FOREVER), KIN_OWNER_DIED);
    CHECK_EQ(kin_lock_died(&lock), pid);
    CHECK_EQ(kin_lock_release(&lock), 0);
    CHECK_EQ(kin_lock_acquire(&lock, KIN_FOREVER), 0);
    CHECK_EQ(kin_lock_release(&lock), 0);
    CHECK_EQ(waitpid(pid, NULL, 0), pid);
}

/* Kills leave no link half-made or half-unmade; and what is linked stays when its linker is gone. */
static void links_are_whole(const char *point, bool killed) {
    uint64_t before = blocks();
    pid_t pid = fork();
    if (pid == 0) {
        kin_handle made[3];
        kin__fault_name = point;
        kin__fault_after = 3;
        for (int i = 0; i < 3; i++) {
            CHECK_EQ(kin_memory_create(family, 100, &made[i]), 0);
            CHECK_EQ(kin_memory_link(&made[i]), 0);
            CHECK_EQ(kin_memory_link(&made[i]), 0);
            if (killed) CHECK_EQ(kin_memory_unlink(&made[i]), 0);
            if (killed) CHECK_EQ(kin_memory_unlink(&made[i]), -ENOENT);
            if (killed) CHECK_EQ(kin_memory_link(&made[i]), -ENOENT);
        }
        memcpy(kin_memory_data(&tally), &made[0].ref, sizeof made[0].ref);
        kin_family_leave(family);
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(WIFSIGNALED(status), killed);
    CHECK_EQ(kin_family_reap(family), 1);
    CHECK_EQ(blocks(), before + (killed ? 0 : 3));
    kin_handle found;
    kin_ref ref;
    memcpy(&ref, kin_memory_data(&tally), sizeof ref);
    if (!killed) {
        CHECK_EQ(kin_handle_open(family, &ref, &found), 0);
        CHECK(!kin_memory_is_unlinked(&found));
        CHECK_EQ(kin_memory_unlink(&found), 0);
        CHECK(kin_memory_is_unlinked(&found));
        kin_handle_close(&found);
        CHECK_EQ(kin_handle_open(family, &ref, &found), KIN_ESTALE);
    }
}

/* One who left holds nothing: what lies there now is not its to unlink. */
static void unlinks_nothing_after_leaving(void) {
    int there[2], back[2];
    CHECK_EQ(pipe(there), 0);
    CHECK_EQ(pipe(back), 0);
    pid_t pid = fork();
    if (pid == 0) {
        kin_handle old;
        char byte = 0;
        CHECK_EQ(kin_memory_create(family, 5000, &old), 0);
        memcpy(kin_memory_data(&tally), &old.ref, sizeof old.ref);
        kin_family_leave(family);
        CHECK_EQ(write(there[1], &byte, 1), 1);
        CHECK_EQ(read(back[0], &byte, 1), 1);
        CHECK_EQ(kin_memory_unlink(&old), KIN_ELEFT);
        _exit(0);
    }
    char byte;
    kin_ref old;
    CHECK_EQ(read(there[0], &byte, 1), 1);
    memcpy(&old, kin_memory_data(&tally), sizeof old);
    enum { MANY = 64 };
    kin_handle new[MANY];
    size_t same = MANY;
    for (size_t i = 0; i < MANY; i++) {
        CHECK_EQ(kin_memory_create(family, 5000, &new[i]), 0);
        if (new[i].ref.off == old.off) same = i;
    }
    CHECK(same < MANY);
    CHECK_EQ(write(back[1], &byte, 1), 1);
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    CHECK(!kin_memory_is_unlinked(&new[same]));
    for (size_t i = 0; i < MANY; i++) kin_handle_close(&new[i]);
    for (int i = 0; i < 2; i++) {
        close(there[i]);
        close(back[i]);
    }
    CHECK_EQ(kin_family_reap(family), 1);
}

/* One that ended normally keeps it. */
static void keeps_locks_of_those_who_left(void) {
    pid_t pid = fork();
    if (pid == 0) {
        CHECK_EQ(kin_lock_acquire(&lock, KIN_FOREVER), 0);
        kin_family_leave(family);
        _exit(0);
    }
    CHECK_EQ(waitpid(pid, NULL, 0), pid);
    CHECK_EQ(kin_family_reap(family), 1);
    CHECK_EQ(kin_lock_acquire(&lock, KIN_NOW), -ETIMEDOUT);
    CHECK_EQ(kin_lock_release(&lock), 0);
}

/* Killed while it clears another one away: a third goes on with it. */
static void buries_the_undertaker(const char *point) {
    uint64_t before = blocks();
    pid_t pid = fork();
    if (pid == 0) {
        pid_t child = fork();
        if (child == 0) {
            kin_queue other;
            for (uint32_t i = 1; i < 40; i++) put(i);
            CHECK_EQ(kin_queue_create(family, 0, &other), 0);
            CHECK_EQ(kin_lock_acquire(&lock, KIN_FOREVER), 0);
            kill(getpid(), SIGKILL);
        }
        waitpid(child, NULL, 0);
        kin__fault_name = point;
        kin__fault_after = 1;
        kin_family_reap(family);
        _exit(3);
    }
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status));
    CHECK(kin_family_reap(family) >= 1);
    CHECK_EQ(kin_lock_acquire(&lock, KIN_NOW), KIN_OWNER_DIED);
    CHECK_EQ(kin_lock_release(&lock), 0);
    for (uint32_t i = 1; i < 40; i++) CHECK_EQ(take(), i);
    kin_queue_close(&queue);
    CHECK_EQ(kin_queue_create(family, 0, &queue), 0);
    CHECK_EQ(blocks(), before);
}

int main(void) {
    kin_family_options options = {.reserve = 1ull << 32};
    CHECK_EQ(kin_family_found(&options, &family), 0);
    CHECK_EQ(kin_queue_create(family, 0, &queue), 0);
    CHECK_EQ(kin_lock_create(family, &lock), 0);
    CHECK_EQ(kin_memory_create(family, sizeof(notes), &tally), 0);
    kill_at("nowhere", 1); /* so that free lists and holds are there */
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        for (long after = 1; after < 900; after += 1 + after / 3) {
            uint64_t before = blocks();
            kill_at(points[i], after);
            CHECK_EQ(blocks(), before);
            kill_in(live_in_batches, BATCH, points[i], after);
            CHECK_EQ(blocks(), before);
        }
    hands_locks_on();
    keeps_locks_of_those_who_left();
    links_are_whole("memory-linked", true);
    links_are_whole("memory-unlinked", true);
    links_are_whole("journal-store", true);
    links_are_whole("nowhere", false);
    unlinks_nothing_after_leaving();
    static const char *const burial[] = {"reap-holds", "reap-taken", "lock-buried", "journal-store",
                                         "arena-freed"};
    for (size_t i = 0; i < sizeof burial / sizeof *burial; i++) buries_the_undertaker(burial[i]);
    for (size_t i = 0; i < sizeof births / sizeof *births; i++)
        for (long after = 1; after < 9; after++) kill_at(births[i], after);
    return 0;
}
#endif
