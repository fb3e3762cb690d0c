/* Processes on Linux: keeps the first half of os_process.h.
 *
 * A program is started by vfork.  The child then borrows its parent's memory,
 * and the calling thread stands still, until the exec: nothing is copied, so a
 * start costs the same from a process of 2 MiB and of 20 GiB, where fork has to
 * copy page tables first (measured: docs/process.md).  What makes the borrowing
 * safe:
 *
 *  - all that runs in the child is child_exec() and what it calls: system calls
 *    and stores into `struct job`; no allocation, no lock, no library state;
 *  - all signals are blocked across it, and the child puts handlers back to
 *    their default before it lets any in, so no handler of the program ever
 *    runs in the child, in memory that is not its own;
 *  - thread cancellation is off, or a close() in the child might act on a
 *    request meant for the thread whose memory it borrows;
 *  - the child has its own descriptor table from the first instant: what it
 *    closes or unmarks is closed and unmarked for it alone.  That is also why
 *    starts in other threads need no lock: a descriptor that another thread is
 *    just making is closed in the child by number, marked or not.
 *
 * The reason why an exec failed is a store into `struct job`.  Where vfork is
 * only another name for fork (emulators, ThreadSanitizer) that store would be
 * lost, so the first start brings a close-on-exec pipe as well, and finds out
 * which of the two this system is. */
#include "os/os_process.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef P_PIDFD
#define P_PIDFD 3
#endif

/* -- Start ----------------------------------------------------------------- */

struct job {
    const struct kin__os_exec *what;
    char *const *env;
    const int *open;   /* ascending: the descriptors from 3 on that stay open */
    size_t open_count; /* ... until the exec: those to keep, and the pipe's end */
    int pipe_end;      /* -1: none */
    sigset_t mask;     /* what the program is to start with */
    volatile int shares_memory;
    volatile int error; /* why there is no program, a positive errno */
};

/* Is what a vforked child writes seen here? */
static _Atomic bool memory_is_shared = false;

static void reset_handlers(void) {
    struct sigaction action;
    for (int signo = 1; signo < NSIG; signo++) {
        if (sigaction(signo, NULL, &action) != 0) continue;
        if (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN) continue;
        memset(&action, 0, sizeof action);
        action.sa_handler = SIG_DFL;
        sigaction(signo, &action, NULL);
    }
}

static int keep_across_exec(const struct kin__os_exec *what) {
    for (size_t i = 0; i < what->keep_count; i++) {
        if (fcntl(what->keep[i], F_SETFD, 0) != 0) return errno;
    }
    return 0;
}

/* The whole life of the child before its program; see the top of the file for
 * what may be done in here. */
static _Noreturn __attribute__((noinline)) void child_exec(struct job *job) {
    job->shares_memory = 1;
    reset_handlers();
    kin__os_close_others(job->open, job->open_count);
    int error = keep_across_exec(job->what);
    if (error == 0) {
        sigprocmask(SIG_SETMASK, &job->mask, NULL);
        execve(job->what->path, job->what->argv, job->env);
        error = errno;
    }
    job->error = error;
    if (job->pipe_end >= 0) {
        ssize_t ignored = write(job->pipe_end, &error, sizeof error);
        (void)ignored;
    }
    _exit(127);
}

/* A function of its own, so that no variable of its caller lives in the frame
 * from which the child goes on. */
static __attribute__((noinline)) pid_t child_start(struct job *job) {
    pid_t pid = vfork();
    if (pid == 0) child_exec(job);
    return pid;
}

static int exec_error(struct job *job, int pipe_read) {
    if (job->shares_memory) {
        atomic_store_explicit(&memory_is_shared, true, memory_order_relaxed);
        return job->error;
    }
    if (pipe_read < 0) return 0;
    int error = 0;
    ssize_t got;
    do {
        got = read(pipe_read, &error, sizeof error);
    } while (got < 0 && errno == EINTR);
    return got == sizeof error ? error : 0;
}

static int run_job(struct job *job, int pipe_ends[2]) {
    sigset_t all;
    int cancel;
    sigfillset(&all);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    pthread_sigmask(SIG_SETMASK, &all, &job->mask);

    pid_t pid = child_start(job);
    int failed = pid < 0 ? errno : 0;

    pthread_sigmask(SIG_SETMASK, &job->mask, NULL);
    if (pipe_ends[1] >= 0) {
        close(pipe_ends[1]);
        pipe_ends[1] = -1;
    }
    if (!failed && (failed = exec_error(job, pipe_ends[0])) != 0) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) continue;
    }
    pthread_setcancelstate(cancel, NULL);
    return failed ? -failed : pid;
}

static int by_number(const void *a, const void *b) {
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

/* What stays open in the child, in the form that kin__os_close_others wants. */
static size_t sort_open(const struct kin__os_exec *what, int pipe_end, int *open) {
    size_t count = 0, unique = 0;
    for (size_t i = 0; i < what->keep_count; i++) {
        if (what->keep[i] >= 3) open[count++] = what->keep[i];
    }
    if (pipe_end >= 3) open[count++] = pipe_end;
    qsort(open, count, sizeof *open, by_number);
    for (size_t i = 0; i < count; i++) {
        if (unique == 0 || open[unique - 1] != open[i]) open[unique++] = open[i];
    }
    return unique;
}

int kin__os_exec_start(const struct kin__os_exec *what) {
    for (size_t i = 0; i < what->keep_count; i++) {
        if (fcntl(what->keep[i], F_GETFD) < 0) return -errno;
    }
    int *open = malloc((what->keep_count + 1) * sizeof *open);
    if (open == NULL) return -ENOMEM;

    int ends[2] = {-1, -1};
    if (!atomic_load_explicit(&memory_is_shared, memory_order_relaxed) &&
        pipe2(ends, O_CLOEXEC) != 0) {
        int failed = -errno;
        free(open);
        return failed;
    }
    struct job job = {
        .what = what,
        .env = what->env ? what->env : environ,
        .open = open,
        .open_count = sort_open(what, ends[1], open),
        .pipe_end = ends[1],
    };
    int pid = run_job(&job, ends);
    if (ends[0] >= 0) close(ends[0]);
    free(open);
    return pid;
}

int kin__os_fork(void) {
    pid_t pid = fork();
    return pid < 0 ? -errno : pid;
}

_Noreturn void kin__os_exit(int code) {
    _exit(code);
}

/* -- Wait and signal --------------------------------------------------------- */

int kin__os_pidfd_open(int pid) {
    long fd = syscall(SYS_pidfd_open, pid, 0);
    if (fd >= 0) return (int)fd;
    /* a sandbox that does not know the call says EPERM, the kernel never does */
    return errno == EPERM ? -ENOSYS : -errno;
}

static kin_err wait_id(idtype_t type, id_t id, bool wait, int *status) {
    siginfo_t info;
    info.si_pid = 0;
    if (waitid(type, id, &info, WEXITED | (wait ? 0 : WNOHANG)) != 0) return -errno;
    if (info.si_pid == 0) return -EAGAIN;
    *status = info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
    return 0;
}

kin_err kin__os_child_reap(int pid, int pidfd, bool wait, int *status) {
    if (pidfd >= 0) {
        kin_err err = wait_id(P_PIDFD, (id_t)pidfd, wait, status);
        if (err != -EINVAL) return err;
        /* Linux 5.3 has pidfds but cannot wait for them */
    }
    return wait_id(P_PID, (id_t)pid, wait, status);
}

kin_err kin__os_process_signal(int pid, int pidfd, int signo) {
    if (pidfd >= 0) {
        if (syscall(SYS_pidfd_send_signal, pidfd, signo, NULL, 0) == 0) return 0;
        if (errno != ENOSYS) return -errno;
    }
    return kill(pid, signo) == 0 ? 0 : -errno;
}

bool kin__os_children_report(void) {
    struct sigaction action;
    sigaction(SIGCHLD, NULL, &action);
    if (action.sa_handler != SIG_IGN) return false;
    action.sa_handler = SIG_DFL;
    sigaction(SIGCHLD, &action, NULL);
    return true;
}

void kin__os_children_ignore(bool ignored) {
    if (!ignored) return;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_IGN;
    sigaction(SIGCHLD, &action, NULL);
}

/* -- How many descriptors --------------------------------------------------------- */

uint64_t kin__os_descriptor_limit_raise(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
    uint64_t before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    return before;
}

void kin__os_descriptor_limit_set(uint64_t soft) {
    struct rlimit limit;
    if (soft == 0 || getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = (rlim_t)soft;
    setrlimit(RLIMIT_NOFILE, &limit);
}
