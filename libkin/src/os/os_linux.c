/* os.h for Linux: memfd, futex and /proc. */
#define _GNU_SOURCE
#include "os.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "os_groups.h"

/* -- Memory ---------------------------------------------------------------- */

int kin__os_memory_new(uint64_t len) {
    int fd = memfd_create("kinfolk", MFD_CLOEXEC);
    if (fd < 0) return -errno;
    if (ftruncate(fd, (off_t)len) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    return fd;
}

uint64_t kin__os_memory_len(int fd) {
    struct stat status;
    return fstat(fd, &status) < 0 || status.st_size < 0 ? 0 : (uint64_t)status.st_size;
}

uint64_t kin__os_memory_given(int fd) {
    struct stat status;
    return fstat(fd, &status) < 0 ? 0 : (uint64_t)status.st_blocks * 512;
}

void *kin__os_memory_map(int fd, uint64_t len) {
    if (len > SIZE_MAX) return NULL;
    void *base = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (base == MAP_FAILED) return NULL;
    (void)madvise(base, len, MADV_DONTDUMP); /* a core without it is only larger */
    return base;
}

void kin__os_memory_unmap(void *base, uint64_t len) {
    munmap(base, len);
}

kin_err kin__os_memory_remap(void *start, uint64_t len, int fd, uint64_t off, bool own) {
    int flags = MAP_FIXED | MAP_NORESERVE | (own ? MAP_PRIVATE : MAP_SHARED);
    if (len > SIZE_MAX) return -ENOMEM;
    void *at = mmap(start, len, PROT_READ | PROT_WRITE, flags, fd, (off_t)off);
    if (at == MAP_FAILED) return -errno;
    (void)madvise(start, len, MADV_DONTDUMP);
    return 0;
}

kin_err kin__os_memory_punch(void *start, uint64_t len) {
    return madvise(start, len, MADV_REMOVE) < 0 ? -errno : 0;
}

void kin__os_memory_expect(void *start, uint64_t len) {
    uint64_t page = kin__os_page();
    uint64_t first = ((uintptr_t)start + page - 1) / page * page;
    uint64_t end = ((uintptr_t)start + len) / page * page;
    if (end > first) (void)madvise((void *)(uintptr_t)first, end - first, MADV_HUGEPAGE);
}

uint64_t kin__os_memory_total(void) {
    uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * kin__os_page();
    uint64_t group = kin__os_groups_memory(&kin__os_groups_here);
    return group < machine ? group : machine;
}

uint64_t kin__os_page(void) {
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

int kin__os_close_on_exec(int fd) {
    return fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : 0;
}

/* -- Waiting --------------------------------------------------------------- */

kin_err kin__os_park(_Atomic uint32_t *word, uint32_t expected, kin_deadline deadline) {
    struct timespec until, *timeout = NULL;
    if (deadline != KIN_FOREVER) {
        until.tv_sec = deadline / 1000000000;
        until.tv_nsec = deadline % 1000000000;
        timeout = &until;
    }
    /* FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC time. */
    long got = syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected, timeout, NULL,
                       FUTEX_BITSET_MATCH_ANY);
    return got < 0 ? -errno : 0;
}

void kin__os_wake(_Atomic uint32_t *word, int count) {
    syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

int kin__os_cpus(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

kin_deadline kin__os_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (kin_deadline)now.tv_sec * 1000000000 + now.tv_nsec;
}

void kin__os_yield(void) {
    sched_yield();
}

/* -- Processes and threads -------------------------------------------------- */

int kin__os_pid(void) {
    return (int)getpid();
}

uint32_t kin__os_tid(void) {
    return (uint32_t)syscall(SYS_gettid);
}

int kin__os_threads(void) {
    struct stat status; /* a directory for each, beside . and .. */
    return stat("/proc/self/task", &status) == 0 ? (int)status.st_nlink - 2 : 0;
}

bool kin__os_is_main_thread(void) {
    return kin__os_tid() == (uint32_t)kin__os_pid();
}

/* /proc/PID/stat: "pid (name) state ppid … starttime …", the start time being
 * the twentieth field after the name, which may itself hold spaces and brackets.
 * Only async-signal-safe calls: this runs after fork. */
uint64_t kin__os_process_started(int pid) {
    char path[32] = "/proc/", text[1024];
    char digits[12];
    size_t at = 6, n = 0;
    for (unsigned rest = (unsigned)pid; rest || n == 0; rest /= 10)
        digits[n++] = (char)('0' + rest % 10);
    while (n) path[at++] = digits[--n];
    memcpy(path + at, "/stat", 6);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0) return 0;
    text[got] = 0;
    const char *field = strrchr(text, ')');
    if (!field || field[1] != ' ') return 0;
    field += 2;
    if (*field == 'Z' || *field == 'X') return 0;
    for (int skip = 0; skip < 19; skip++) {
        field = strchr(field, ' ');
        if (!field) return 0;
        field++;
    }
    uint64_t started = 0;
    for (; *field >= '0' && *field <= '9'; field++)
        started = started * 10 + (uint64_t)(*field - '0');
    return started;
}

bool kin__os_process_exists(int pid) {
    return kill(pid, 0) == 0 || errno != ESRCH;
}

int kin__os_random(void *out, size_t len) {
    return getrandom(out, len, 0) == (ssize_t)len ? 0 : -EIO;
}
