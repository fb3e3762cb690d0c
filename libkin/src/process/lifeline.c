/* Lifelines: a child is told by the kernel when its parent process has died.
 *
 * The lifeline is a pipe whose write end one process alone holds; nothing is ever
 * written.  When that process ends, however it does, the kernel closes the end and
 * signals whoever has asked for it (os_process.h, kin__os_lifeline_bind).  Compare:
 *
 *   PR_SET_PDEATHSIG   goes off when the *thread* that forked ends, and is not to
 *                      be had for the child of a zygote
 *   a thread in the child, reading a pipe   one more thread in every child, and
 *                      forks with threads are what the zygote is there to avoid
 *
 * Invariant: the write end is open in its own process and nowhere else, or the
 * children would outlive the parent.  Hence the handler that closes it in every
 * forked child; a program that is executed closes it by close-on-exec.
 *
 * Programs close descriptors that are not theirs (daemons do, by the thousand), and
 * the numbers are used again: before closing, the handler looks whether it is still
 * our pipe that has the number. */
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>

#include "kin/process.h"
#include "os/os.h"
#include "os/os_process.h"
#include "process/fork.h"

/* A descriptor that this file keeps, and what it was opened on. */
struct kept {
    int fd; /* -1: none */
    struct kin__os_identity identity;
};

/* All under the fork lock. */
static struct kept own_read = {.fd = -1};  /* handed out in copies */
static struct kept own_write = {.fd = -1}; /* held and nothing else */
static struct kept bound = {.fd = -1};     /* on another process's lifeline */
static struct kept watched = {.fd = -1};   /* the same, where a thread watches */

static bool is_ours_held(const struct kept *kept) {
    struct kin__os_identity now;
    return kept->fd >= 0 && kin__os_identity(kept->fd, &now) == 0 &&
           now.device == kept->identity.device && now.inode == kept->identity.inode;
}

static void keep_held(struct kept *kept, int fd) {
    kept->fd = fd;
    if (kin__os_identity(fd, &kept->identity) != 0) kept->fd = -1;
}

static void drop_held(struct kept *kept) {
    if (is_ours_held(kept)) kin__os_close(kept->fd);
    kept->fd = -1;
}

void kin__lifeline_after_fork(void) {
    drop_held(&own_write);
    drop_held(&own_read);
    drop_held(&bound);
    drop_held(&watched);
}

/* -- The parent's side -------------------------------------------------------------- */

static kin_err make_own_held(void) {
    int ends[2];
    kin_err err = kin__os_lifeline_new(ends);
    if (err) return err;
    drop_held(&own_read);
    keep_held(&own_read, ends[0]);
    keep_held(&own_write, ends[1]);
    return 0;
}

static kin_err ensure_own_held(void) {
    if (!is_ours_held(&own_write)) return make_own_held();
    if (is_ours_held(&own_read)) return 0;
    /* Somebody closed it.  Children hang on the other end: no new pipe now. */
    int fd = kin__os_lifeline_reopen(own_write.fd);
    if (fd < 0) return fd;
    keep_held(&own_read, fd);
    return 0;
}

kin_err kin_lifeline_fd(int *read_end) {
    kin__fork_hold();
    kin_err err = ensure_own_held();
    int copy = err ? err : kin__os_duplicate(own_read.fd);
    kin__fork_release();
    if (copy < 0) return copy;
    *read_end = copy;
    return 0;
}

/* -- The child's side ----------------------------------------------------------------- */

static bool has_ended(int fd) {
    struct kin__os_poll poll = {.fd = fd};
    kin_err err;
    do {
        err = kin__os_poll(&poll, 1, KIN_NOW);
    } while (err == -EINTR);
    return err == 0 && poll.gone;
}

static void signal_self(int signo) {
    (void)kin__os_process_signal(kin__os_pid(), -1, signo);
}

/* The thread for systems where the kernel does not signal by itself. */
static void *watch(void *packed) {
    int fd = (int)((intptr_t)packed >> 8), signo = (int)((intptr_t)packed & 0xff);
    while (!has_ended(fd)) {
        struct kin__os_poll poll = {.fd = fd};
        (void)!kin__os_poll(&poll, 1, KIN_FOREVER);
    }
    signal_self(signo);
    return NULL;
}

static kin_err start_watcher(int fd, int signo) {
    sigset_t all, before;
    pthread_attr_t attributes;
    pthread_t thread;
    if (pthread_attr_init(&attributes) != 0) return -ENOMEM;
    (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    (void)pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN + 65536);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread, &attributes, watch, (void *)(((intptr_t)fd << 8) | signo));
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return -failed;
}

static kin_err bind_with_thread(int read_end, int signo) {
    kin_err err = start_watcher(read_end, signo);
    if (err) return err;
    kin__fork_hold();
    keep_held(&watched, read_end);
    kin__fork_release();
    return 0;
}

kin_err kin_lifeline_bind(int read_end, int signo) {
    if (signo < 1 || signo >= NSIG) return -EINVAL;
    int fd = kin__os_lifeline_bind(read_end, signo);
    if (fd == -EINVAL || fd == -EBADF || fd == -EMFILE || fd == -ENFILE) return fd;
    if (fd < 0) return bind_with_thread(read_end, signo);

    kin__fork_hold();
    drop_held(&bound);
    keep_held(&bound, fd);
    kin__fork_release();
    /* The signal is sent when the end comes; one that came before is seen here. */
    if (has_ended(fd)) signal_self(signo);
    kin__os_close(read_end);
    return 0;
}
