/* The locker: descriptors that wait for whoever holds them, and leave with the last hold. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "check.h"
#include "family/family_internal.h"
#include "family/fault.h"
#include "kin.h"
#include "os/os_locker.h"

static kin_family *family;

static void in_a_child(void (*body)(void)) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(100); /* a hang is a failure */
        CHECK_EQ(kin_family_found(NULL, &family), 0);
        body();
        kin_family_stats stats;
        kin_family_reap(family);
        kin_family_stats_read(family, &stats);
        CHECK_EQ(stats.waiting, 0);
        CHECK_EQ(stats.objects, 0);
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
}

static int open_count(void) {
    int count = 0;
    for (int fd = 0; fd < 4096; fd++) count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* From now on this process may open no more descriptors.  Returns the limit from before. */
static struct rlimit open_no_more(void) {
    struct rlimit before, limit;
    int free_one = dup(0);
    CHECK(free_one > 0);
    close(free_one);
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    limit = (struct rlimit){.rlim_cur = (rlim_t)free_one, .rlim_max = before.rlim_max};
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    return before;
}

/* A file with a number in it. */
static int file_with(int number) {
    int fd = memfd_create("test", MFD_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_EQ(pwrite(fd, &number, sizeof number, 0), sizeof number);
    return fd;
}

static int number_in(int fd) {
    int number = -1;
    CHECK_EQ(pread(fd, &number, sizeof number, 0), sizeof number);
    return number;
}

/* A descriptor in the locker with a number in it, and nowhere else. */
static kin_descriptor deposit(int number) {
    kin_descriptor descriptor;
    int fd = file_with(number);
    CHECK_EQ(kin_descriptor_create(family, fd, &descriptor), 0);
    close(fd);
    return descriptor;
}

static void check_number(const kin_descriptor *descriptor, int number) {
    int fd = -1;
    CHECK_EQ(kin_descriptor_fetch(descriptor, &fd), 0);
    CHECK_EQ(number_in(fd), number);
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    close(fd);
}

static void waits_and_is_fetched_again_and_again(void) {
    int before = open_count();
    kin_descriptor one = deposit(1), two = deposit(2), again;
    CHECK_EQ(open_count(), before);
    check_number(&two, 2);
    check_number(&one, 1);
    check_number(&one, 1);
    CHECK_EQ(kin_descriptor_fetched(&one), 2);
    CHECK_EQ(kin_descriptor_fetched(&two), 1);
    CHECK_EQ(kin_descriptor_open(family, &one.handle.ref, &again), 0);
    kin_descriptor_close(&one);
    check_number(&again, 1);
    kin_ref ref = again.handle.ref;
    kin_descriptor_close(&again);
    CHECK_EQ(kin_descriptor_open(family, &ref, &again), KIN_ESTALE);
    ref = two.handle.ref;
    kin_lock lock;
    CHECK_EQ(kin_lock_open(family, &ref, &lock), KIN_EKIND);
    kin_descriptor_close(&two);
    CHECK_EQ(open_count(), before);
}

/* Does the kernel hold the other end of this pipe still?  No call to wait for: the end of an
 * object closes what it stands for before it returns. */
static int is_closed(int read_end) {
    char byte;
    ssize_t got = read(read_end, &byte, 1);
    CHECK(got == 0 || errno == EAGAIN);
    return got == 0;
}

static kin_descriptor deposit_write_end(int *read_end) {
    int ends[2];
    kin_descriptor descriptor;
    CHECK_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    CHECK_EQ(kin_descriptor_create(family, ends[1], &descriptor), 0);
    close(ends[1]);
    *read_end = ends[0];
    return descriptor;
}

/* In whatever order they end, the one that ends is closed, and the others are not. */
static void is_closed_with_the_last_hold(void) {
    enum { COUNT = 40 };
    kin_descriptor held[COUNT];
    int read_end[COUNT];
    unsigned seed = 1;
    for (int i = 0; i < COUNT; i++) held[i] = deposit_write_end(&read_end[i]);
    for (int round = 0; round < 500; round++) {
        int i = rand_r(&seed) % COUNT, other = rand_r(&seed) % COUNT;
        CHECK(!is_closed(read_end[i]));
        kin_descriptor_close(&held[i]);
        CHECK(is_closed(read_end[i]));
        close(read_end[i]);
        held[i] = deposit_write_end(&read_end[i]);
        CHECK(!is_closed(read_end[other]));
    }
    for (int i = 0; i < COUNT; i++) {
        int fd;
        CHECK_EQ(kin_descriptor_fetch(&held[i], &fd), 0);
        kin_descriptor_close(&held[i]);
        CHECK(!is_closed(read_end[i]));
        CHECK_EQ(write(fd, "x", 1), 1);
        close(fd);
        char byte;
        CHECK_EQ(read(read_end[i], &byte, 1), 1);
        CHECK(is_closed(read_end[i]));
        close(read_end[i]);
    }
}

/* A message keeps it, the sender gone. */
static void travels_in_a_message(void) {
    kin_queue queue;
    kin_record record;
    uint8_t buffer[KIN_RECORD_MAX];
    CHECK_EQ(kin_queue_create(family, 0, &queue), 0);
    pid_t pid = fork();
    if (pid == 0) {
        kin_descriptor descriptor = deposit(7);
        kin_blob blob;
        CHECK_EQ(kin_blob_create(family, sizeof(kin_ref), 1, &blob), 0);
        memcpy(blob.data, &descriptor.handle.ref, sizeof(kin_ref));
        CHECK_EQ(kin_blob_add_ref(&blob, &descriptor.handle.ref), 0);
        CHECK_EQ(kin_queue_push_blob(&queue, &blob, 0, KIN_NOW), 0);
        kill(getpid(), SIGKILL);
    }
    CHECK_EQ(waitpid(pid, NULL, 0), pid);
    kin_family_reap(family);
    kin_ref ref;
    kin_descriptor descriptor;
    CHECK_EQ(kin_queue_pop(&queue, buffer, &record, KIN_NOW), 0);
    memcpy(&ref, record.blob.data, sizeof ref);
    CHECK_EQ(kin_descriptor_open(family, &ref, &descriptor), 0);
    kin_blob_free(&record.blob);
    check_number(&descriptor, 7);
    kin_descriptor_close(&descriptor);
    kin_queue_close(&queue);
}

static void goes_with_its_killed_holders(void) {
    int read_end, behind;
    kin_descriptor descriptor = deposit_write_end(&read_end);
    kin_descriptor other = deposit_write_end(&behind);
    pid_t pids[3];
    int born[2];
    char byte;
    CHECK_EQ(pipe2(born, O_CLOEXEC), 0);
    for (int i = 0; i < 3; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            CHECK_EQ(write(born[1], "x", 1), 1);
            for (;;) pause();
        }
        CHECK_EQ(read(born[0], &byte, 1), 1); /* killed at birth it would be found dead later */
    }
    kin_descriptor_close(&other);
    kin_descriptor_close(&descriptor);
    for (int i = 0; i < 3; i++) {
        kin_family_reap(family);
        CHECK(!is_closed(read_end));
        CHECK(!is_closed(behind));
        kill(pids[i], SIGKILL);
        CHECK_EQ(waitpid(pids[i], NULL, 0), pids[i]);
    }
    CHECK_EQ(kin_family_reap(family), 1);
    CHECK(is_closed(read_end));
    CHECK(is_closed(behind));
    close(read_end);
    close(behind);
}

static void says_what_is_wrong(void) {
    kin_descriptor descriptor = deposit(3), none;
    CHECK_EQ(kin_descriptor_create(family, -1, &none), -EBADF);
    CHECK_EQ(kin_descriptor_create(family, 4000, &none), -EBADF);
    struct rlimit limit = open_no_more();
    int fd = -1;
    CHECK_EQ(kin_descriptor_fetch(&descriptor, &fd), -EMFILE);
    CHECK_EQ(fd, -1);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    check_number(&descriptor, 3);

    int arena, locker;
    kin_family_fds(family, &arena, &locker);
    int spare = dup(locker), stranger = file_with(1);
    CHECK_EQ(dup2(stranger, locker), locker);
    CHECK_EQ(kin_descriptor_fetch(&descriptor, &fd), KIN_ENOLOCKER);
    CHECK_EQ(kin_descriptor_create(family, stranger, &none), KIN_ENOLOCKER);
    kin_descriptor_close(&descriptor); /* left for others to take out */
    CHECK_EQ(number_in(stranger), 1);
    CHECK_EQ(dup2(spare, locker), locker);
    close(spare);
    close(stranger);
}

/* With no descriptor to spare, what would have to be moved can't be; it is, later. */
static void is_closed_later_where_it_cannot_be_now(void) {
    int read_end;
    kin_descriptor first = deposit(1), second = deposit_write_end(&read_end);
    struct rlimit limit = open_no_more();
    kin_descriptor_close(&second);
    CHECK(!is_closed(read_end));
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    kin_family_reap(family);
    CHECK(is_closed(read_end));
    check_number(&first, 1);
    kin_descriptor_close(&first);
    close(read_end);
}

/* As full as it gets, then emptied, some out of turn. */
static void holds_more_than_parcels(void) {
    enum { COUNT = 1000 };
    static kin_descriptor held[COUNT];
    int fd = file_with(5), count = 0;
    kin_err err = 0;
    kin_locker_shm *shm = &family->arena->locker;
    shm->room = 80000; /* some hundred parcels; 425984 is usual */
    while (count < COUNT && (err = kin_descriptor_create(family, fd, &held[count])) == 0) count++;
    CHECK_EQ(err, 0);
    CHECK(shm->parcels < 105);
    unsigned seed = 2;
    for (int i = 0; i < 100; i++) check_number(&held[rand_r(&seed) % count], 5);
    for (int i = 0; i < 100; i++) kin_descriptor_close(&held[rand_r(&seed) % count]);
    for (int i = 0; i < 100; i++) {
        kin_descriptor *some = &held[rand_r(&seed) % count];
        if (some->handle.family) check_number(some, 5);
    }
    for (int i = 0; i < count; i++) kin_descriptor_close(&held[i]);
    close(fd);
}

static void says_when_it_is_full(void) {
    kin_descriptor held[13], one;
    int fd = file_with(6);
    kin_locker_shm *shm = &family->arena->locker;
    uint64_t room = shm->room;
    for (int i = 0; i < 13; i++) CHECK_EQ(kin_descriptor_create(family, fd, &held[i]), 0);
    CHECK_EQ(shm->parcels, 13);
    shm->room = 0;
    CHECK_EQ(kin_descriptor_create(family, fd, &one), 0); /* they fit two parcels */
    CHECK_EQ(shm->parcels, 3);
    kin_descriptor_close(&one);
    CHECK_EQ(kin_descriptor_create(family, fd, &one), -ENOBUFS);
    shm->room = room;
    for (int i = 0; i < 13; i++) check_number(&held[i], 6);
    for (int i = 0; i < 13; i++) kin_descriptor_close(&held[i]);
    close(fd);
}

/* Several members put in, fetch and take out at once. */
static void many_at_once(void) {
    pid_t pids[4];
    kin_descriptor common = deposit(-2);
    for (int child = 0; child < 4; child++) {
        pids[child] = fork();
        if (pids[child]) continue;
        kin_descriptor held[8] = {0};
        unsigned seed = (unsigned)child;
        for (int i = 0; i < 1000; i++) {
            int at = rand_r(&seed) % 8;
            if (held[at].handle.family) check_number(&held[at], child * 8 + at);
            kin_descriptor_close(&held[at]);
            if (i % 3) held[at] = deposit(child * 8 + at);
            check_number(&common, -2);
        }
        kin_family_leave(family);
        _exit(0);
    }
    for (int child = 0; child < 4; child++) {
        int status;
        CHECK_EQ(waitpid(pids[child], &status, 0), pids[child]);
        CHECK_EQ(status, 0);
    }
    check_number(&common, -2);
    kin_descriptor_close(&common);
}

#ifdef KIN_FAULT_POINTS
/* Killed at each of the points, again and again: what the others hold stays, what the dead one held
 * goes. */
static const char *const points[] = {
    "locker-sent",   "locker-taken",  "locker-renumber", "locker-moved",
    "journal-store", "arena-claimed", "reap-taken",
};

static void be_killed(const char *point, int after, const kin_descriptor *common) {
    kin__fault_after = after;
    kin__fault_name = point;
    kin_descriptor held[5] = {0};
    for (int i = 0; i < 200; i++) {
        kin_descriptor_close(&held[i % 5]);
        held[i % 5] = deposit(i);
        check_number(common, -3);
        if (i % 7 == 0) kin_descriptor_close(&held[(i + 2) % 5]);
    }
    kill(getpid(), SIGKILL);
}

static void survives_kills(void) {
    for (size_t point = 0; point < sizeof points / sizeof *points; point++) {
        for (int after = 1; after < 40; after += after < 8 ? 1 : 7) {
            int read_end, other_end;
            kin_descriptor first = deposit_write_end(&read_end), common = deposit(-3);
            kin_descriptor ending = deposit_write_end(&other_end);
            pid_t pid = fork();
            if (pid == 0) be_killed(points[point], after, &common);
            CHECK_EQ(waitpid(pid, NULL, 0), pid);
            kin_descriptor_close(&ending);
            check_number(&common, -3);
            CHECK_EQ(kin_family_reap(family), 1);
            CHECK(is_closed(other_end));
            CHECK(!is_closed(read_end));
            CHECK_EQ(family->arena->locker.sent - family->arena->locker.taken, 32);
            kin_descriptor_close(&common);
            kin_descriptor_close(&first);
            CHECK(is_closed(read_end));
            close(read_end);
            close(other_end);
            kin_family_stats stats;
            kin_family_stats_read(family, &stats);
            CHECK_EQ(stats.waiting, 0);
        }
    }
}

/* The one who settles the numbers after a death is killed as well. */
static void survives_a_kill_in_the_settling(void) {
    kin_descriptor one = deposit(1), two = deposit(2);
    for (int round = 0; round < 3; round++) {
        pid_t first = fork();
        if (first == 0) be_killed("locker-sent", 1, &one);
        CHECK_EQ(waitpid(first, NULL, 0), first);
        for (int i = 0; i < 3; i++) {
            pid_t second = fork();
            if (second == 0) be_killed("locker-renumber", 1, &one);
            CHECK_EQ(waitpid(second, NULL, 0), second);
        }
        check_number(&two, 2);
        check_number(&one, 1);
        kin_family_reap(family);
    }
    kin_descriptor_close(&one);
    kin_descriptor_close(&two);
}
#endif

int main(void) {
    in_a_child(waits_and_is_fetched_again_and_again);
    in_a_child(is_closed_with_the_last_hold);
    in_a_child(travels_in_a_message);
    in_a_child(goes_with_its_killed_holders);
    in_a_child(says_what_is_wrong);
    in_a_child(is_closed_later_where_it_cannot_be_now);
    in_a_child(holds_more_than_parcels);
    in_a_child(says_when_it_is_full);
    in_a_child(many_at_once);
#ifdef KIN_FAULT_POINTS
    in_a_child(survives_kills);
    in_a_child(survives_a_kill_in_the_settling);
#endif
    return 0;
}
