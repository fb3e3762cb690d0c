/* What a start costs: start and join of a child that does nothing, from a small
 * process and from one with memory in use (in small pages, as a heap has them);
 * by exec (libkin's, posix_spawn's, and fork + exec beside it), by fork, and from a
 * zygote.  The median, for a machine that has other things to do.
 *
 *     bench_process [MiB in use, 1024] [starts a case, 200] */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kin/process.h"

static char program[] = "/bin/true";
static char *argv[] = {program, NULL};
static int zygote;

static void must(kin_err err) {
    if (!err) return;
    fprintf(stderr, "%s\n", kin_strerror(err));
    _exit(1);
}

static void join(kin_process *process) {
    int status;
    must(kin_process_wait(process, KIN_FOREVER, &status));
    kin_process_close(process);
}

static int nothing(void *unused) {
    return 0;
}

static void by_spawn(void) {
    kin_spawn what = {.path = program, .argv = argv};
    kin_process process;
    must(kin_process_spawn(&what, &process));
    join(&process);
}

static void by_posix_spawn(void) {
    pid_t pid;
    must(posix_spawn(&pid, program, NULL, NULL, argv, environ));
    waitpid(pid, NULL, 0);
}

static void by_fork_and_exec(void) {
    pid_t pid = fork();
    if (pid == 0) {
        execv(program, argv);
        _exit(1);
    }
    waitpid(pid, NULL, 0);
}

static void by_fork(void) {
    kin_process process;
    must(kin_process_start_fork(nothing, NULL, &process));
    join(&process);
}

static void by_zygote(void) {
    kin_process process;
    must(kin_zygote_start(zygote, NULL, 0, NULL, 0, &process));
    join(&process);
}

#define MOST 10000
static int64_t taken[MOST];

static int by_length(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void measure(const char *name, void (*start)(void), int count) {
    start();
    for (int i = 0; i < count; i++) {
        kin_deadline began = kin_clock();
        start();
        taken[i] = kin_clock() - began;
    }
    qsort(taken, (size_t)count, sizeof *taken, by_length);
    printf("  %-14s %7.0f us\n", name, (double)taken[count / 2] / 1e3);
}

static void measure_all(int count) {
    measure("spawn", by_spawn, count);
    measure("posix_spawn", by_posix_spawn, count);
    measure("fork and exec", by_fork_and_exec, count);
    measure("fork", by_fork, count);
    measure("zygote", by_zygote, count);
}

static int serve(void *ends) {
    kin_zygote *self;
    kin_zygote_order order;
    close(((int *)ends)[0]);
    must(kin_zygote_new(((int *)ends)[1], &self));
    kin_err err = kin_zygote_serve(self, NULL, &order);
    kin_zygote_free(self);
    return err == KIN_ZYGOTE_CHILD ? 0 : err;
}

int main(int argc, char **args) {
    size_t mib = argc > 1 ? (size_t)atoi(args[1]) : 1024;
    int count = argc > 2 ? atoi(args[2]) : 200, ends[2];
    if (count < 1 || count > MOST) return 1;
    kin_process server;
    must(kin_zygote_channel(ends));
    must(kin_process_start_fork(serve, ends, &server));
    close(ends[1]);
    zygote = ends[0];

    printf("from a small process:\n");
    measure_all(count);
    void *memory =
        mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return 1;
    (void)madvise(memory, mib << 20, MADV_NOHUGEPAGE);
    memset(memory, 1, mib << 20);
    printf("with %zu MiB in use:\n", mib);
    measure_all(count);
    munmap(memory, mib << 20);
    close(zygote);
    join(&server);
    return 0;
}
