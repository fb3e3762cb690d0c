/* Processes: start, wait, signal; the zygote; the lifeline.
 *
 * A child is started in one of three ways, and has the same handle after each:
 *
 *   kin_process_start_fork   a copy of this process runs a function of it
 *   kin_process_spawn        a program is executed
 *   kin_zygote_start         a zygote, a process that was made ready for it
 *                            and has nothing running, forks a child for us
 *
 * Descriptors are the caller's business in the first (a fork has them all), and
 * named one by one in the other two: nothing else gets into the child.
 *
 * docs/process.md has the zygote's protocol, and what was measured. */
#ifndef KIN_PROCESS_H
#define KIN_PROCESS_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A child.  Plain data in the caller's storage; kin_process_close() gives its
 * descriptors back.
 * Threads: one at a time for each handle.  Fork: the copy in a child can send
 * signals; it cannot wait, being no parent. */
typedef struct kin_process {
    int pid;
    int pidfd;     /* readable once the process has ended; -1: the system has none */
    int status_fd; /* of a zygote's child: where its end is reported; else -1 */
    int status;    /* if `ended`: as from kin_process_wait */
    int ended;     /* has kin_process_wait seen the end? */
} kin_process;

/* -- Start ------------------------------------------------------------------- */

typedef struct kin_spawn {
    const char *path;    /* of the program's file; PATH is not searched */
    char *const *argv;   /* NULL-ended, its own name first */
    char *const *env;    /* NULL-ended "NAME=value"; NULL: this process's own */
    const int *keep_fds; /* stay open under the same numbers, close-on-exec or not */
    size_t keep_count;
} kin_spawn;

/* Execute a program in a child.  It has descriptors 0, 1 and 2 as they are here,
 * those of keep_fds, and no other, whatever other threads open meanwhile; the
 * calling thread's signal mask; ignored signals ignored, handled ones at their
 * default.
 * Errors: what exec says (-ENOENT, -EACCES, -ENOEXEC, -E2BIG, ...), and then there
 * is no child; -EBADF: one of keep_fds is not open; -EAGAIN, -ENOMEM, -EMFILE.
 * Threads: safe.  Blocks: the calling thread, until the program has begun. */
KIN_API KIN_NODISCARD kin_err kin_process_spawn(const kin_spawn *what, kin_process *out);

/* Fork a child that runs fn(arg) and exits with what it returns (its low 8 bits).
 * stdout and stderr are flushed here before, and in the child after; exit
 * handlers are not run there.  The child is a member of this process's family.
 * Errors: -EAGAIN, -ENOMEM. */
KIN_API KIN_NODISCARD kin_err kin_process_start_fork(int (*fn)(void *), void *arg,
                                                     kin_process *out);

/* A handle for a child that was started by other means, or for any process: then
 * it can be sent signals, but not be waited for.
 * Errors: -ESRCH (not where the system has no pidfds: pidfd is -1 there). */
KIN_API KIN_NODISCARD kin_err kin_process_open(int pid, kin_process *out);
/* Close the handle's descriptors.  The process is left alone; a child that has not
 * been waited for can be opened again by its pid. */
KIN_API void kin_process_close(kin_process *process);

/* -- Wait and signal ----------------------------------------------------------- */

/* Wait for the end.  status: the exit code, or minus the number of the signal that
 * killed it; the same again each time it is asked for.
 * Errors: -ETIMEDOUT, -EINTR; -ECHILD: not ours to wait for, or its end was taken
 * by someone else, or its zygote died first: it has ended, or for the first of
 * these may not have, and how is not known. */
KIN_API KIN_NODISCARD kin_err kin_process_wait(kin_process *process, kin_deadline deadline,
                                               int *status);

/* Send a signal; 0 only asks whether it is there.  Where there are pidfds another
 * process that got the same pid since is never hit.
 * Errors: -ESRCH: it has ended and was waited for; -EPERM, -EINVAL. */
KIN_API kin_err kin_process_signal(kin_process *process, int signo);

/* How many threads this process has, whoever started them; 0 if the system does not tell. */
KIN_API int kin_thread_count(void);

/* How many processors it may use, by its affinity and the quota of its control groups, of which a part
 * counts as a whole one: at least 1. */
KIN_API int kin_processors(void);

/* How many processes of its control group the system has killed for want of memory, so far; 0 also
 * where it does not tell. */
KIN_API uint64_t kin_oom_kills(void);

/* -- The zygote ------------------------------------------------------------------ */

/* Clients and zygote talk over one pair of sockets from kin_zygote_channel().  The
 * zygote alone holds ends[1]; any number of processes may hold ends[0], and pass
 * it on.  When the last of those is closed the zygote is done. */

#define KIN_ZYGOTE_PAYLOAD_MAX 65536 /* bytes */
#define KIN_ZYGOTE_FDS_MAX 252

/* Two connected sockets, close-on-exec. */
KIN_API KIN_NODISCARD kin_err kin_zygote_channel(int ends[2]);

/* What a child of the zygote was started with. */
typedef struct kin_zygote_order {
    void *payload; /* len bytes */
    size_t len;
    int *fds; /* fd_count descriptors, now this process's, close-on-exec */
    size_t fd_count;
} kin_zygote_order;

/* Free what the order points to; its descriptors stay open. */
KIN_API void kin_zygote_order_fini(kin_zygote_order *order);

/* Called around each fork in the zygote; any may be NULL. */
typedef struct kin_zygote_hooks {
    void (*before)(void *arg);
    void (*after_parent)(void *arg);
    void (*after_child)(void *arg); /* the zygote's own descriptors are closed by then */
    void (*ahead)(void *arg);       /* after that, in a child that has no order yet */
    void *arg;
} kin_zygote_hooks;

typedef struct kin_zygote kin_zygote;

/* Success with news from kin_zygote_serve. */
#define KIN_ZYGOTE_CHILD 2
#define KIN_ZYGOTE_UNUSED 4

/* Get ready to serve requests from `sock`, ends[1] of a channel, which stays the
 * caller's.  Until kin_zygote_free() the soft limit on descriptors is up at the
 * hard one, and SIGCHLD, if it was ignored, is not.
 * Errors: -ENOMEM, -EMFILE, -ENOTSOCK. */
KIN_API KIN_NODISCARD kin_err kin_zygote_new(int sock, kin_zygote **out);

/* Serve.  Returns
 *   KIN_ZYGOTE_CHILD  in each child: `order` is what it is to do; nothing of the
 *                     zygote's is open in it, `sock` included
 *   KIN_ZYGOTE_UNUSED in a child that was forked before there was a request, as one
 *                     mostly is: there will be none.  It is to end at once
 *   0                 in the zygote: all clients have gone.  Children that still
 *                     run are left alone, and their ends will not be reported
 *   -EINTR            in the zygote: a signal handler has run.  Call again
 *   another error     in the zygote: it can serve no more
 * Requests may come from anyone who was handed the socket and are checked: one that
 * is malformed, or from another user than this or root, starts nothing.
 * Threads: none may be running in a zygote that wants its children whole. */
KIN_API KIN_NODISCARD kin_err kin_zygote_serve(kin_zygote *zygote, const kin_zygote_hooks *hooks,
                                               kin_zygote_order *order);
/* In the zygote, and in a child too.  NULL is fine. */
KIN_API void kin_zygote_free(kin_zygote *zygote);

/* Have the zygote behind `sock`, ends[0] of a channel, start a child, which gets a
 * copy of the payload and of the descriptors.
 * Waits for the zygote's answer, signals notwithstanding; a caller that must look
 * after its signals uses the two halves below.
 * Errors: -EPIPE: the zygote is gone, or the child was killed before it answered, and
 * there is none; -EINTR: nothing was asked for; -EMSGSIZE, -E2BIG: more than KIN_ZYGOTE_PAYLOAD_MAX bytes or
 * KIN_ZYGOTE_FDS_MAX descriptors; -EPERM: the zygote is another user's; -EPROTO: it
 * is another version's; -EAGAIN, -ENOMEM, -EMFILE: here or in the zygote.
 * Threads, Processes: safe, any number at once. */
KIN_API KIN_NODISCARD kin_err kin_zygote_start(int sock, const void *payload, size_t len,
                                               const int *fds, size_t fd_count, kin_process *out);
/* The first half: ask.  `answer` is a descriptor on which the answer comes.
 * Blocks: while the zygote is behind with its work. */
KIN_API KIN_NODISCARD kin_err kin_zygote_ask(int sock, const void *payload, size_t len,
                                             const int *fds, size_t fd_count, int *answer);
/* The second: take the answer.  On success `answer` belongs to `out`.  After
 * -EINTR and -ETIMEDOUT it may be called again.  A caller who gives up closes
 * `answer`: a child that finds nobody to answer ends before it has begun. */
KIN_API KIN_NODISCARD kin_err kin_zygote_answer(int answer, kin_deadline deadline,
                                                kin_process *out);

/* -- The lifeline ------------------------------------------------------------------ */

/* A process's lifeline ends when the process does, however it does.  Children that
 * hold the other end are then sent a signal by the kernel: no thread watches, and the
 * end of the thread that started them is nothing to them (unlike PR_SET_PDEATHSIG). */

/* A descriptor of this process's lifeline: the caller's to hand to a child, and to
 * close.  The first call makes the lifeline.
 * Fork: the child holds its parent's lifeline no longer, and has one of its own.
 * A process made by a bare clone() without exec holds it on: nothing can be done
 * about those. */
KIN_API KIN_NODISCARD kin_err kin_lifeline_fd(int *read_end);

/* In the child: be sent `signo` when the lifeline ends; at once if it has already.
 * Takes read_end over on success.  One lifeline a process: the last bound counts.
 * It lasts until this process executes another program.
 * Errors: -EINVAL: not a lifeline; -ENOMEM, -EMFILE, -EAGAIN.
 * Where /proc is not mounted, or the kernel does not tell, a small thread watches. */
KIN_API KIN_NODISCARD kin_err kin_lifeline_bind(int read_end, int signo);

#ifdef __cplusplus
}
#endif

#endif
