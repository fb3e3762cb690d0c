/* Memory of small blocks is given back: after many were made and dropped the arena is as it was;
 * with many threads and processes at it; and with members killed at each step. */
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "check.h"
#include "family/fault.h"
#include "kin.h"

#define MANY 200000
#define SLACK ((uint64_t)8 << 20) /* bytes that may stay: some idle chunks of each size */

static kin_family *family;

static kin_family_stats stats(void) {
    kin_family_stats now;
    kin_family_stats_read(family, &now);
    return now;
}

/* One of each kind in turn. */
static void make(uint32_t i, kin_handle *out) {
    union {
        kin_lock lock;
        kin_semaphore semaphore;
        kin_condition condition;
        kin_barrier barrier;
        kin_dict dict;
        kin_handle handle;
    } made;
    switch (i % 6) {
    case 0: CHECK_EQ(kin_lock_create(family, &made.lock), 0); break;
    case 1: CHECK_EQ(kin_semaphore_create(family, 1, 1, &made.semaphore), 0); break;
    case 2: CHECK_EQ(kin_condition_create(family, &made.condition), 0); break;
    case 3: CHECK_EQ(kin_barrier_create(family, 2, &made.barrier), 0); break;
    case 4: CHECK_EQ(kin_dict_create(family, &made.dict), 0); break;
    default: CHECK_EQ(kin_memory_create(family, i % 4000, &made.handle), 0); break;
    }
    *out = made.handle;
}

static void make_and_drop(kin_handle *held, uint32_t count, bool backwards) {
    for (uint32_t i = 0; i < count; i++) make(i, &held[i]);
    for (uint32_t i = 0; i < count; i++) kin_handle_close(&held[backwards ? count - 1 - i : i]);
}

static void is_as_it_was(kin_family_stats before) {
    kin_family_stats now = stats();
    CHECK_EQ(now.blocks, before.blocks);
    CHECK_EQ(now.in_use, before.in_use);
    if (now.committed > before.committed + SLACK)
        fprintf(stderr, "%llu bytes, then %llu\n", (unsigned long long)before.committed,
                (unsigned long long)now.committed);
    CHECK(now.committed <= before.committed + SLACK);
}

static void gives_memory_back(void) {
    kin_handle *held = malloc(MANY * sizeof *held);
    kin_family_stats before = stats();
    for (int round = 0; round < 4; round++) {
        make_and_drop(held, MANY, round % 2);
        is_as_it_was(before);
    }
    free(held);
}

/* At the limit what nobody uses is given back before anybody is refused. */
static void gives_back_at_the_limit(void) {
    kin_handle *held = malloc(MANY * sizeof *held), *kept = malloc(400 * sizeof *kept);
    for (uint32_t i = 0; i < MANY; i++) make(i, &held[i]);
    for (uint32_t i = 0; i < MANY; i++) {
        if (i % 500 == 0) kept[i / 500] = held[i];
        else kin_handle_close(&held[i]);
    }
    uint64_t limit = stats().limit, size = 1 << 20, made = 0;
    kin_handle *large = malloc(limit / size * sizeof *large);
    while (made < limit / size && kin_memory_create(family, size, &large[made]) == 0) made++;
    CHECK(made > limit / size * 8 / 10);
    for (uint64_t i = 0; i < made; i++) kin_handle_close(&large[i]);
    for (int i = 0; i < 400; i++) kin_handle_close(&kept[i]);
    free(large);
    free(kept);
    free(held);
}

static void *churn(void *seed) {
    kin_handle held[3000] = {{0}};
    uint32_t random = (uint32_t)(uintptr_t)seed;
    for (int i = 0; i < 60000; i++) {
        random = random * 1664525u + 1013904223u;
        /* now nearly all are held, now nearly none */
        uint32_t at = (random >> 8) % 3000, wanted = i / 6000 % 2 ? 1 : 15;
        if (!held[at].family && (random >> 28) < wanted) make(random >> 20, &held[at]);
        else kin_handle_close(&held[at]);
    }
    for (int i = 0; i < 3000; i++) kin_handle_close(&held[i]);
    return NULL;
}

static void in_threads(void) {
    pthread_t thread[4];
    kin_family_stats before = stats();
    for (uintptr_t i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&thread[i], NULL, churn, (void *)(i + 1)), 0);
    for (int i = 0; i < 4; i++) CHECK_EQ(pthread_join(thread[i], NULL), 0);
    CHECK_EQ(stats().blocks, before.blocks);
}

static pid_t start(uintptr_t seed, const char *point, long after) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid) return pid;
    kin_handle *held = malloc(25000 * sizeof *held);
#ifdef KIN_FAULT_POINTS
    kin__fault_after = after;
    kin__fault_name = point;
#endif
    churn((void *)seed);
    make_and_drop(held, 25000, seed % 2);
    make_and_drop(held, 25000, !(seed % 2));
    kin_family_leave(family);
    _exit(0);
}

static bool run_processes(const char *point, long after) {
    pid_t pid[3];
    kin_family_stats before = stats();
    for (uintptr_t i = 0; i < 3; i++) pid[i] = start(i + 1, i ? "nowhere" : point, after);
    bool killed = false;
    for (int i = 0; i < 3; i++) {
        int status;
        CHECK_EQ(waitpid(pid[i], &status, 0), pid[i]);
        bool was_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        CHECK(was_killed ? i == 0 : status == 0);
        killed |= was_killed;
    }
    kin_family_reap(family);
    CHECK_EQ(stats().blocks, before.blocks);
    kin_handle *held = malloc(25000 * sizeof *held);
    make_and_drop(held, 25000, false);
    free(held);
    CHECK_EQ(stats().blocks, before.blocks);
    return killed;
}

/* Processes are not what ThreadSanitizer is for, and it makes them too slow. */
#if defined(KIN_FAULT_POINTS) && !defined(__SANITIZE_THREAD__)
static void survives_kills(void) {
    static const char *const points[] = {"chunk-taken",   "chunk-lists",   "chunk-in-hand",
                                         "chunk-punched", "chunk-warming", "holds-shrinking"};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        /* which of the three comes by there is chance */
        int killed = 0;
        for (long attempt = 0; attempt < 60 && killed < 2; attempt++)
            killed += run_processes(points[i], 1 + attempt % 3);
        if (!killed) fprintf(stderr, "nobody came by %s\n", points[i]);
        CHECK(killed);
    }
}
#else
static void survives_kills(void) {}
#endif

int main(void) {
    kin_family_options options = {.reserve = 1ull << 32, .limit = 512ull << 20};
    CHECK_EQ(kin_family_found(&options, &family), 0);
    kin_handle some[1200];
    make_and_drop(some, 1200, false); /* one block of the table of holds stays, in case */
    gives_memory_back();
    in_threads();
    CHECK(!run_processes("nowhere", 1));
    gives_back_at_the_limit();
    gives_memory_back();
    survives_kills();
    return 0;
}
