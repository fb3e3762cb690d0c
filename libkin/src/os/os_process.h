/* The system, as far as processes and descriptors go: start, wait, signal,
 * hand descriptors over, notice that somebody is gone.
 *
 * The contract, like os.h; os_process_linux.c and os_descriptors_linux.c keep
 * it for Linux.  Every descriptor made here is close-on-exec.  A function that
 * returns `int` and is said to return a descriptor returns it or -errno.
 *
 * Safe from any thread; those marked (fork) may be called in a forked child,
 * whatever the other threads of its parent were doing. */
#ifndef KIN_OS_PROCESS_H
#define KIN_OS_PROCESS_H

#include <stdbool.h>
#include <stddef.h>

#include "kin/base.h"

/* -- Start ----------------------------------------------------------------- */

struct kin__os_exec {
    const char *path;  /* of the program's file; no search */
    char *const *argv; /* NULL-ended */
    char *const *env;  /* NULL-ended; NULL: this process's own */
    const int *keep;   /* descriptors that stay open under their numbers ... */
    size_t keep_count; /* ... beside 0, 1 and 2; any order, repeats are fine */
};

/* Run a program in a child process.  Returns its process id, or -errno: that of
 * the exec if it was the exec that failed (there is no child then), -EBADF if a
 * descriptor to keep is not open.
 * In the child handled signals are back to their default, ignored ones stay
 * ignored, and the signal mask is the calling thread's, all as exec has it. */
int kin__os_exec_start(const struct kin__os_exec *what);

/* Fork: 0 in the child, the child's process id, or -errno. */
int kin__os_fork(void);
/* The end of a forked child, with nothing flushed or called. (fork) */
_Noreturn void kin__os_exit(int code);

/* -- Wait and signal --------------------------------------------------------- */

/* A descriptor for the process, readable once it has ended.
 * -ENOSYS where the system has none, -ESRCH. */
int kin__os_pidfd_open(int pid);

/* Take a child's end from the system.  pidfd: the child's, or -1.
 * wait: until it has ended (-EINTR on a signal), else -EAGAIN if it has not.
 * status: its exit code, or minus the signal that killed it.
 * -ECHILD: not a child of this process, or somebody else took its end. */
kin_err kin__os_child_reap(int pid, int pidfd, bool wait, int *status);

/* Send a signal to a process.  With pidfd >= 0 it never hits another process
 * that has got the same id since.  -ESRCH: it is over. */
kin_err kin__os_process_signal(int pid, int pidfd, int signo);

/* Let children's ends be reported even if this process was started with them
 * ignored.  Returns whether that was so; kin__os_children_ignore(true) puts it back. */
bool kin__os_children_report(void);
void kin__os_children_ignore(bool ignored); /* (fork) */

/* -- Descriptors --------------------------------------------------------------- */

void kin__os_close(int fd); /* (fork) */
/* A second descriptor for the same open file, numbered 3 or more. (fork) */
int kin__os_duplicate(int fd);
/* Close all descriptors from 3 on but those in `keep`, which is in ascending
 * order without repeats and names no others. (fork) */
void kin__os_close_others(const int *keep, size_t count);
/* The same by the slow road, for systems without close_range. (fork) */
void kin__os_close_range_slow(unsigned first, unsigned last);
/* How many descriptors this process may have; raising returns what it was before. */
uint64_t kin__os_descriptor_limit_raise(void);
void kin__os_descriptor_limit_set(uint64_t soft); /* (fork) */

#define KIN__OS_POLL_MAX 4
enum { KIN__OS_READ = 1, KIN__OS_WRITE = 2 };
struct kin__os_poll {
    int fd;             /* -1: skipped */
    unsigned char want; /* KIN__OS_READ, KIN__OS_WRITE, 0: only its end */
    unsigned char got;  /* what is possible; an end or an error counts as all of `want` */
    bool gone;          /* the other side is gone, or the descriptor is bad */
};
/* Wait for one of up to KIN__OS_POLL_MAX descriptors: 0, -ETIMEDOUT, -EINTR. */
kin_err kin__os_poll(struct kin__os_poll *fds, size_t count, kin_deadline deadline);
/* Sleep: -ETIMEDOUT at the deadline, -EINTR. */
kin_err kin__os_sleep(kin_deadline deadline);

/* -- Messages with descriptors ------------------------------------------------ */

/* The most descriptors that one message carries. */
#define KIN__OS_MESSAGE_FDS 253

/* Two connected sockets that keep the bounds of messages. */
kin_err kin__os_socket_pair(int ends[2]);

/* fds, to send: borrowed.  Received: room for KIN__OS_MESSAGE_FDS of them, which are
 * the receiver's from then on; if it is NULL, those that come are closed. */
struct kin__os_message {
    void *head; /* the message is these two parts, one behind the other */
    size_t head_len;
    void *body;
    size_t body_len;
    int *fds;
    size_t fd_count;
    bool named;         /* to send: with the sender's name, even if nobody asks yet */
    size_t len;         /* received: bytes of both parts */
    bool cut;           /* received: bytes did not fit and are lost */
    bool fds_cut;       /* received: so are descriptors, mostly by this process's limit */
    bool end;           /* received: nobody is left to send any more */
    int64_t sender_uid; /* received: -1 unless kin__os_socket_name_senders */
};

/* Send all of it as one message; no SIGPIPE.  wait: until there is room, else
 * -EAGAIN.  -EPIPE: nobody can receive it.  -EINTR: nothing was sent. */
kin_err kin__os_message_send(int sock, const struct kin__os_message *message, bool wait);
/* Receive one message, without waiting: -EAGAIN if there is none.
 * An empty message is told from the end only on a socket that names senders. */
kin_err kin__os_message_recv(int sock, struct kin__os_message *message);
/* Have the system say with each message who sent it. */
kin_err kin__os_socket_name_senders(int sock);
int64_t kin__os_uid(void);

/* -- Many descriptors at once ---------------------------------------------- */

/* A set of descriptors to wait on, each with a tag. */
int kin__os_watch_new(void);
kin_err kin__os_watch_add(int watch, int fd, void *tag);
void kin__os_watch_remove(int watch, int fd);
/* Fill `tags` with those that are ready: their count, or -errno.
 * timeout_ms -1: no limit. */
int kin__os_watch_wait(int watch, void **tags, int room, int timeout_ms);

/* -- Lifelines ---------------------------------------------------------------- */

/* A pipe; [0] reports its end when nobody holds [1] any more. */
kin_err kin__os_lifeline_new(int ends[2]);
/* What tells two open files apart, wherever their descriptors are numbered. */
struct kin__os_identity {
    uint64_t device;
    uint64_t inode;
};
kin_err kin__os_identity(int fd, struct kin__os_identity *out); /* (fork) */
/* A new descriptor of the read end, with an open file of its own: from either end. */
int kin__os_lifeline_reopen(int fd);
/* Have the kernel send `signo` to this process when the lifeline ends: returns
 * a descriptor, a new one, that has to stay open for that, and leaves `fd` as
 * it was.  -EINVAL: not a lifeline.  Other errors: this system cannot. */
int kin__os_lifeline_bind(int fd, int signo);

#endif
