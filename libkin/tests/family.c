/* The family: limits, memory given back, references, members and their deaths. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "check.h"
#include "family/arena.h"
#include "family/members.h"
#include "kin.h"

static kin_family *family;

static kin_family_stats stats(void) {
    kin_family_stats now;
    kin_family_stats_read(family, &now);
    return now;
}

/* Each case founds a family of its own, in a child that stays out of the others'. */
static void in_a_child(void (*body)(void)) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        body();
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
}

static void found(uint64_t limit) {
    kin_family_options options = {.reserve = 1ull << 33, .limit = limit};
    CHECK_EQ(kin_family_found(&options, &family), 0);
}

static void refuses_what_does_not_fit(void) {
    found(64 << 20);
    kin_blob blob, more;
    CHECK_EQ(kin_blob_create(family, 1ull << 33, 0, &blob), KIN_ETOOLARGE);
    CHECK_EQ(kin_blob_create(family, 80 << 20, 0, &blob), KIN_ETOOLARGE);
    CHECK_EQ(kin_blob_create(family, 40 << 20, 0, &blob), 0);
    memset(blob.data, 1, blob.len);
    CHECK_EQ(kin_blob_create(family, 40 << 20, 0, &more), KIN_EARENAFULL);
    CHECK_EQ(kin_blob_create(family, 10 << 20, 0, &more), 0);
    kin_blob_free(&blob);
    /* The freed block's pages, if warm, give way to the new one. */
    CHECK_EQ(kin_blob_create(family, 50 << 20, 0, &blob), 0);
    memset(blob.data, 1, blob.len);
    CHECK(stats().committed <= 64 << 20);
}

/* Small blocks too: a queue that nobody empties hits the limit, and goes on. */
static void queue_outlives_a_full_arena(void) {
    found(16 << 20);
    kin_queue queue;
    uint8_t data[KIN_RECORD_MAX] = {0};
    kin_record record;
    uint32_t put = 0, got = 0;
    CHECK_EQ(kin_queue_create(family, 0, &queue), 0);
    kin_err err;
    while ((err = kin_queue_push(&queue, data, 1000, 0, KIN_NOW)) == 0) put++;
    CHECK_EQ(err, KIN_EARENAFULL);
    CHECK(put > 10000);
    CHECK_EQ(kin_queue_len(&queue), put);
    for (; kin_queue_pop(&queue, data, &record, KIN_NOW) == 0; got++) CHECK_EQ(record.len, 1000);
    CHECK_EQ(got, put);
    CHECK_EQ(kin_queue_push(&queue, data, 1000, 0, KIN_NOW), 0);
}

static void gives_memory_back(void) {
    kin_family_options options = {.reserve = 1ull << 33, .warm = 64 << 20};
    CHECK_EQ(kin_family_found(&options, &family), 0);
    uint64_t before = stats().committed;
    kin_blob blob[8];
    for (int i = 0; i < 8; i++) {
        CHECK_EQ(kin_blob_create(family, 32 << 20, 0, &blob[i]), 0);
        memset(blob[i].data, 1, blob[i].len);
    }
    CHECK(stats().committed - before >= 8ull * (32 << 20));
    for (int i = 0; i < 8; i++) kin_blob_free(&blob[i]);
    CHECK(stats().committed - before <= 65 << 20); /* the warm budget, and rows */
    CHECK_EQ(stats().in_use, 0);
}

static void fits_a_small_address_space(void) {
    struct rlimit limit = {.rlim_cur = 1ull << 30, .rlim_max = 1ull << 30};
    CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
    kin_blob blob;
    CHECK_EQ(kin_family_found(NULL, &family), 0);
    CHECK(stats().reserved < 1ull << 30);
    CHECK_EQ(kin_blob_create(family, 8 << 20, 0, &blob), 0);
}

static void says_when_even_the_smallest_does_not_fit(void) {
    struct rlimit limit = {.rlim_cur = 32 << 20, .rlim_max = 32 << 20};
    CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
    CHECK_EQ(kin_family_found(NULL, &family), KIN_EARENAMAP);
    CHECK(kin_family_self() == NULL);
}

static void takes_its_limit_from_the_environment(void) {
    setenv("KINFOLK_ARENA_LIMIT", "64M", 1);
    CHECK_EQ(kin_family_found(NULL, &family), 0);
    CHECK_EQ(stats().limit, 64 << 20);
}

static void refuses_a_limit_that_is_no_size(void) {
    setenv("KINFOLK_ARENA_LIMIT", "much", 1);
    CHECK_EQ(kin_family_found(NULL, &family), KIN_EBADLIMIT);
}

static void joins_only_arenas(void) {
    int fd = memfd_create("other", MFD_CLOEXEC);
    CHECK_EQ(kin_family_join(fd, fd, &family), KIN_EBADARENA);
    CHECK_EQ(ftruncate(fd, 64 << 20), 0);
    CHECK_EQ(kin_family_join(fd, fd, &family), KIN_EBADARENA);
    CHECK_EQ(kin_family_join(-1, -1, &family), KIN_EBADARENA);
    CHECK(kin_family_self() == NULL);
    found(0);
    CHECK_EQ(kin_family_join(fd, fd, &family), KIN_EINFAMILY);
}

static void knows_stale_references(void) {
    found(0);
    kin_lock lock, again;
    CHECK_EQ(kin_lock_create(family, &lock), 0);
    kin_ref ref = lock.handle.ref, wrong = ref;
    wrong.kind = KIN_KIND_QUEUE;
    kin_queue queue;
    CHECK_EQ(kin_queue_open(family, &wrong, &queue), KIN_EKIND);
    CHECK_EQ(kin_queue_open(family, &ref, &queue), KIN_EKIND);
    CHECK_EQ(kin_lock_open(family, &ref, &again), 0);
    kin_lock_close(&lock);
    CHECK_EQ(kin_lock_acquire(&again, KIN_NOW), 0);
    kin_lock_close(&again);
    CHECK_EQ(kin_lock_open(family, &ref, &again), KIN_ESTALE);
    CHECK_EQ(kin_lock_create(family, &lock), 0); /* in the same block */
    CHECK_EQ(lock.handle.ref.off, ref.off);
    CHECK_EQ(kin_lock_open(family, &ref, &again), KIN_ESTALE);
    for (uint64_t off = 0; off < stats().reserved; off += stats().reserved / 1000 + 32) {
        kin_ref garbage = {.off = off, .serial = ref.serial + 1, .kind = KIN_KIND_LOCK};
        if (off != lock.handle.ref.off)
            CHECK_EQ(kin_lock_open(family, &garbage, &again), KIN_ESTALE);
    }
}

static void inherits_by_fork(void) {
    found(0);
    kin_queue queue, late;
    char buffer[KIN_RECORD_MAX];
    kin_record record;
    CHECK_EQ(kin_queue_create(family, 0, &queue), 0);
    uint32_t parent = kin_family_member(family);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(kin_family_member(family) != parent);
        CHECK(kin_member_is_alive(family, parent));
        CHECK_EQ(kin_member_pid(family, parent), getppid());
        /* The parent has let go of it, so that this is the last hold. */
        CHECK_EQ(kin_queue_pop(&queue, buffer, &record, KIN_FOREVER), 0);
        CHECK_EQ(kin_queue_create(family, 0, &late), 0);
        kin_queue_close(&queue);
        kin_queue_close(&late);
        kin_family_leave(family);
        CHECK_EQ(kin_queue_create(family, 0, &late), KIN_ELEFT);
        _exit(0);
    }
    CHECK_EQ(kin_queue_push(&queue, "x", 1, 0, KIN_NOW), 0);
    kin_queue_close(&queue);
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    CHECK_EQ(kin_family_reap(family), 1);
    CHECK_EQ(stats().objects, 0);
    CHECK_EQ(stats().members, 1);
}

static uint32_t member_of_child(int fd) {
    uint32_t token = 0;
    CHECK_EQ(read(fd, &token, sizeof token), sizeof token);
    return token;
}

/* The kernel's word, not the process table's: a zombie is dead, and so is one that
 * executes another program. */
static void sees_deaths(void) {
    found(0);
    int told[2];
    CHECK_EQ(pipe2(told, O_CLOEXEC), 0);
    for (int how = 0; how < 3; how++) {
        pid_t pid = fork();
        if (pid == 0) {
            uint32_t token = kin_family_member(family);
            CHECK_EQ(write(told[1], &token, sizeof token), sizeof token);
            if (how == 0) _exit(0);
            if (how == 1) kill(getpid(), SIGKILL);
            execl("/bin/sh", "sh", "-c", "read line", NULL);
        }
        uint32_t token = member_of_child(told[0]);
        while (kin_member_is_alive(family, token)) sched_yield();
        CHECK_EQ(kin_family_reap(family), 1);
        CHECK_EQ(kin_member_pid(family, token), 0);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
}

static void uses_rows_again(void) {
    found(0);
    for (int i = 0; i < 1000; i++) {
        pid_t pid = fork();
        if (pid == 0) _exit(0);
        waitpid(pid, NULL, 0);
        CHECK_EQ(kin_family_reap(family), 1);
    }
    CHECK_EQ(stats().members, 1);
    CHECK(family->arena->rows_used == 256);
}

static void hides_from_core_dumps(void) {
    found(0);
    FILE *maps = fopen("/proc/self/smaps", "r");
    char line[4096];
    int in_arena = 0, hidden = 0;
    while (fgets(line, sizeof line, maps)) {
        if (strstr(line, "memfd:kinfolk")) in_arena = 1;
        else if (in_arena && strncmp(line, "VmFlags:", 8) == 0) {
            hidden += strstr(line, " dd") != NULL;
            in_arena = 0;
        }
    }
    fclose(maps);
    CHECK_EQ(hidden, 1);
}

static void keeps_a_payload_for_its_views(void) {
    found(0);
    kin_blob blob;
    kin_handle view;
    CHECK_EQ(kin_blob_create(family, 1 << 20, 0, &blob), 0);
    memset(blob.data, 7, blob.len);
    uint8_t *data = blob.data;
    CHECK_EQ(kin_blob_keep(&blob, &view), 0);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK_EQ(data[blob.len - 1], 7);
        _exit(0);
    }
    kin_handle_close(&view);
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    kin_family_reap(family);
    CHECK_EQ(stats().objects, 0);
}

static void moves_blobs_between_members(void) {
    found(0);
    kin_blob blob, mine;
    CHECK_EQ(kin_blob_create(family, 100, 0, &blob), 0);
    memset(blob.data, 5, 100);
    kin_ref ref = blob.ref;
    pid_t pid = fork();
    if (pid == 0) {
        kin_blob_free(&blob); /* the parent's, not ours: nothing happens */
        CHECK_EQ(kin_blob_claim(family, &ref, &mine), 0);
        CHECK_EQ(mine.data[99], 5);
        kin_blob_free(&mine);
        CHECK_EQ(kin_blob_claim(family, &ref, &mine), KIN_ESTALE);
        kin_family_leave(family);
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    kin_blob_free(&blob);
    kin_family_reap(family);
    CHECK_EQ(kin_blob_claim(family, &ref, &mine), KIN_ESTALE);
    CHECK_EQ(stats().in_use, 0);
}

int main(void) {
    in_a_child(refuses_what_does_not_fit);
    in_a_child(queue_outlives_a_full_arena);
    in_a_child(gives_memory_back);
#ifndef __SANITIZE_ADDRESS__
#ifndef __SANITIZE_THREAD__
    in_a_child(fits_a_small_address_space);
    in_a_child(says_when_even_the_smallest_does_not_fit);
#endif
#endif
    in_a_child(takes_its_limit_from_the_environment);
    in_a_child(refuses_a_limit_that_is_no_size);
    in_a_child(joins_only_arenas);
    in_a_child(knows_stale_references);
    in_a_child(inherits_by_fork);
    in_a_child(sees_deaths);
    in_a_child(uses_rows_again);
    in_a_child(hides_from_core_dumps);
    in_a_child(keeps_a_payload_for_its_views);
    in_a_child(moves_blobs_between_members);
    return 0;
}
