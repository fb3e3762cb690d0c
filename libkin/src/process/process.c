/* Children: start by fork and by exec, wait, signal.
 *
 * A child's end can be learned in three ways, and kin_process_wait knows them all:
 *
 *   its pidfd becomes readable           our own child, or a zygote's
 *   its zygote sends the exit code       a zygote's child: only its parent, the
 *                                        zygote, can take the code from the kernel
 *   asking again and again               our own child, on a system without pidfds
 *
 * A handle remembers the end that it has seen: the pid is then anybody's, and is
 * used no more. */
#include "kin/process.h"

#include <limits.h>
#include <stdio.h>

#include "kin/family.h"
#include "os/os.h"
#include "os/os_groups.h"
#include "os/os_process.h"
#include "process/fork.h"
#include "process/zygote_wire.h"

static const kin_process closed = {.pid = 0, .pidfd = -1, .status_fd = -1};

/* A handle for a child that was just started.  Without a pidfd, for whatever
 * reason, it works too. */
static kin_process handle_for_child(int pid) {
    kin_process process = closed;
    process.pid = pid;
    int fd = kin__os_pidfd_open(pid);
    if (fd >= 0) process.pidfd = fd;
    return process;
}

/* -- Start --------------------------------------------------------------------- */

kin_err kin_process_spawn(const kin_spawn *what, kin_process *out) {
    struct kin__os_exec exec = {
        .path = what->path,
        .argv = what->argv,
        .env = what->env,
        .keep = what->keep_fds,
        .keep_count = what->keep_count,
    };
    int pid = kin__os_exec_start(&exec);
    if (pid < 0) return pid;
    *out = handle_for_child(pid);
    return 0;
}

static void flush_output(void) {
    fflush(stdout);
    fflush(stderr);
}

kin_err kin_process_start_fork(int (*fn)(void *), void *arg, kin_process *out) {
    flush_output();
    int pid = kin__os_fork();
    if (pid < 0) return pid;
    if (pid == 0) {
        int code = fn(arg);
        flush_output();
        if (kin_family_self() != NULL) kin_family_leave(kin_family_self());
        kin__os_exit(code);
    }
    *out = handle_for_child(pid);
    return 0;
}

kin_err kin_process_open(int pid, kin_process *out) {
    if (pid <= 0) return -ESRCH;
    int fd = kin__os_pidfd_open(pid);
    if (fd < 0 && fd != -ENOSYS) return fd == -EINVAL ? -ESRCH : fd;
    *out = closed;
    out->pid = pid;
    out->pidfd = fd < 0 ? -1 : fd;
    return 0;
}

void kin_process_close(kin_process *process) {
    if (process->pidfd >= 0) kin__os_close(process->pidfd);
    if (process->status_fd >= 0) kin__os_close(process->status_fd);
    *process = closed;
}

/* -- Wait ------------------------------------------------------------------------ */

#define PAUSE_FIRST 1000000 /* ns */
#define PAUSE_LAST 32000000

/* Sleep a little longer each time, but not past the deadline. */
static kin_err pause_before_next(int64_t *pause, kin_deadline deadline) {
    kin_deadline next = kin_deadline_after(*pause);
    if (*pause < PAUSE_LAST) *pause *= 2;
    if (deadline <= next) return kin__os_sleep(deadline);
    kin_err err = kin__os_sleep(next);
    return err == -ETIMEDOUT ? 0 : err;
}

static kin_err wait_readable(int fd, kin_deadline deadline) {
    struct kin__os_poll poll = {.fd = fd, .want = KIN__OS_READ};
    return kin__os_poll(&poll, 1, deadline);
}

static kin_err wait_child(const kin_process *process, kin_deadline deadline, int *status) {
    int64_t pause = PAUSE_FIRST;
    for (;;) {
        bool blocking = process->pidfd < 0 && deadline == KIN_FOREVER;
        kin_err err = kin__os_child_reap(process->pid, process->pidfd, blocking, status);
        if (err != -EAGAIN) return err;
        if (deadline == KIN_NOW) return -ETIMEDOUT;
        err = process->pidfd >= 0 ? wait_readable(process->pidfd, deadline)
                                  : pause_before_next(&pause, deadline);
        if (err) return err;
    }
}

/* The zygote has died and cannot tell; wait for the end itself. */
static kin_err wait_orphan(const kin_process *process, kin_deadline deadline) {
    if (process->pidfd >= 0) {
        kin_err err = wait_readable(process->pidfd, deadline);
        return err ? err : -ECHILD;
    }
    int64_t pause = PAUSE_FIRST;
    uint64_t started = kin__os_process_started(process->pid);
    while (started && kin__os_process_started(process->pid) == started) {
        if (deadline == KIN_NOW) return -ETIMEDOUT;
        kin_err err = pause_before_next(&pause, deadline);
        if (err) return err;
    }
    return -ECHILD;
}

static kin_err wait_zygote_child(const kin_process *process, kin_deadline deadline, int *status) {
    for (;;) {
        kin_err err = wait_readable(process->status_fd, deadline);
        if (err) return err;
        err = kin__zygote_status_recv(process->status_fd, status);
        if (err == -EPIPE) return wait_orphan(process, deadline);
        if (err != -EAGAIN) return err;
    }
}

kin_err kin_process_wait(kin_process *process, kin_deadline deadline, int *status) {
    if (!process->ended) {
        int seen = 0;
        kin_err err = process->status_fd >= 0 ? wait_zygote_child(process, deadline, &seen)
                                              : wait_child(process, deadline, &seen);
        if (err) return err;
        process->status = seen;
        process->ended = 1;
    }
    *status = process->status;
    return 0;
}

/* -- Signal ------------------------------------------------------------------------ */

kin_err kin_process_signal(kin_process *process, int signo) {
    if (process->ended) return -ESRCH;
    if (process->pidfd < 0 && process->status_fd >= 0) {
        /* Its pid may be another's once its zygote has taken its end: look first. */
        int status;
        kin_err err = kin_process_wait(process, KIN_NOW, &status);
        if (err == 0 || err == -ECHILD) return -ESRCH;
    }
    return kin__os_process_signal(process->pid, process->pidfd, signo);
}

int kin_thread_count(void) {
    return kin__os_threads();
}

int kin_processors(void) {
    uint64_t count = kin__os_processors();
    return count < INT_MAX ? (int)count : INT_MAX;
}

uint64_t kin_oom_kills(void) {
    return kin__os_groups_oom_kills(&kin__os_groups_here);
}
