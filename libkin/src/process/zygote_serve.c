/* The zygote: forks children for others and reports their ends.
 *
 * A child is best forked before it is asked for: the fork itself, and the copying of each page that
 * the child writes to, are most of what a start takes.  So when there is nothing else to do the
 * zygote has one SPARE child, which waits for an order on a socket of its own, and a request is
 * handed on to it.  A request that finds no spare gets a child forked for it.
 *
 * One loop over a set of descriptors: the socket of requests, and a pidfd for each
 * child.  Each child has a record here until its end is reported:
 *
 *   pidfd    its end; a copy goes to the client.  -1 without pidfds, and then the
 *            loop wakes now and then and asks for each such child
 *   report   the private socket that came with the request; the exit code goes
 *            there, then it is closed.  Of the spare: the socket on which it waits
 *
 * That is two descriptors a child, which is why the limit is raised meanwhile.
 *
 * Invariants.  Only the zygote has a copy of what a client waits on: a child closes
 * all of it before anything else, so that the zygote's death is seen by everyone.  A
 * child is known to its client or it ends before it has begun: it is the child that
 * replies, so whatever happens to the zygote cannot come between.  Nothing that a
 * client sends makes the zygote wait: all sending here is without waiting. */
#include <stdlib.h>
#include <string.h>

#include "kin/process.h"
#include "os/os.h"
#include "os/os_process.h"
#include "process/zygote_wire.h"

struct child {
    struct child *next, **link; /* link: what points to this one */
    int pid;
    int pidfd;
    int report;
};

struct kin_zygote {
    int sock;  /* -1 in a child */
    int watch; /* the set that the loop waits on; tags: a child, or the zygote itself */
    struct child *children;
    struct child *spare; /* one of them, or NULL */
    bool wants_spare;    /* there has been a request, and no failure since */
    size_t unwatched;    /* how many of them have to be asked for */
    int pause_ms;        /* how long until that is next done */
    uint64_t limit_before;
    bool ignored_before;
    struct kin__zygote_request request; /* the one being dealt with ... */
    uint8_t payload[KIN_ZYGOTE_PAYLOAD_MAX];
    int fds[KIN__OS_MESSAGE_FDS]; /* ... its private socket first */
};

#define PAUSE_FIRST_MS 1
#define PAUSE_LAST_MS 32

static void close_all(const int *fds, size_t count) {
    for (size_t i = 0; i < count; i++) kin__os_close(fds[i]);
}

/* -- Records ----------------------------------------------------------------------------- */

static void link_child(struct kin_zygote *zygote, struct child *child) {
    child->next = zygote->children;
    child->link = &zygote->children;
    if (child->next) child->next->link = &child->next;
    zygote->children = child;
}

static void free_child(struct child *child) {
    if (child->pidfd >= 0) kin__os_close(child->pidfd);
    kin__os_close(child->report);
    free(child);
}

static void forget_child(struct child *child) {
    *child->link = child->next;
    if (child->next) child->next->link = child->link;
    free_child(child);
}

/* Close and free what serving has opened, and put the process back as it was. */
static void undo(struct kin_zygote *zygote) {
    for (struct child *child = zygote->children, *next; child; child = next) {
        next = child->next;
        free_child(child);
    }
    zygote->children = zygote->spare = NULL;
    if (zygote->watch < 0) return;
    kin__os_close(zygote->watch);
    zygote->watch = -1;
    kin__os_descriptor_limit_set(zygote->limit_before);
    kin__os_children_ignore(zygote->ignored_before);
}

kin_err kin_zygote_new(int sock, kin_zygote **out) {
    kin_err err = kin__os_socket_name_senders(sock);
    if (err) return err;
    struct kin_zygote *zygote = malloc(sizeof *zygote);
    if (zygote == NULL) return -ENOMEM;
    zygote->sock = sock;
    zygote->children = zygote->spare = NULL;
    zygote->wants_spare = false;
    zygote->unwatched = 0;
    zygote->pause_ms = PAUSE_FIRST_MS;
    zygote->watch = kin__os_watch_new();
    err = zygote->watch < 0 ? zygote->watch : kin__os_watch_add(zygote->watch, sock, zygote);
    if (err) {
        if (zygote->watch >= 0) kin__os_close(zygote->watch);
        free(zygote);
        return err;
    }
    zygote->limit_before = kin__os_descriptor_limit_raise();
    zygote->ignored_before = kin__os_children_report();
    *out = zygote;
    return 0;
}

void kin_zygote_free(kin_zygote *zygote) {
    if (zygote == NULL) return;
    undo(zygote);
    free(zygote);
}

void kin_zygote_order_fini(kin_zygote_order *order) {
    free(order->payload);
    free(order->fds);
    memset(order, 0, sizeof *order);
}

/* -- Ends ------------------------------------------------------------------------------------ */

/* Report the child's end, if it has come. */
static void reap_child(struct kin_zygote *zygote, struct child *child) {
    int status = 0;
    kin_err err = kin__os_child_reap(child->pid, child->pidfd, false, &status);
    if (err == -EAGAIN || err == -EINTR) return;
    /* If someone else in this process took the end, nobody knows the code: the
     * client sees the report closed without one. */
    if (err == 0) (void)!kin__zygote_status_send(child->report, status);
    if (child->pidfd >= 0) {
        /* the client's copy would keep it in the set */
        kin__os_watch_remove(zygote->watch, child->pidfd);
    } else {
        zygote->unwatched--;
    }
    if (zygote->spare == child) zygote->spare = NULL;
    forget_child(child);
}

static void reap_unwatched(struct kin_zygote *zygote) {
    if (zygote->unwatched == 0) return;
    for (struct child *child = zygote->children, *next; child; child = next) {
        next = child->next;
        if (child->pidfd < 0) reap_child(zygote, child);
    }
    if (zygote->pause_ms < PAUSE_LAST_MS) zygote->pause_ms *= 2;
}

/* -- Starts ------------------------------------------------------------------------------------ */

static kin_err reply(int to, int result, int *pidfd) {
    struct kin__zygote_reply reply = {.magic = KIN__ZYGOTE_MAGIC, .result = result};
    struct kin__os_message message = {
        .head = &reply,
        .head_len = sizeof reply,
        .fds = pidfd,
        .fd_count = pidfd && *pidfd >= 0,
    };
    kin_err err = kin__os_message_send(to, &message, false);
    if (err != -ETOOMANYREFS) return err;
    message.fd_count = 0;
    return kin__os_message_send(to, &message, false);
}

/* Is the request one to act on?  -EBADMSG: not even one to answer. */
static kin_err check(const struct kin_zygote *zygote, const struct kin__os_message *got) {
    const struct kin__zygote_request *request = &zygote->request;
    if (got->len < sizeof *request || request->magic != KIN__ZYGOTE_MAGIC) return -EBADMSG;
    if (got->fd_count == 0) return -EBADMSG;
    if (request->version != KIN__ZYGOTE_VERSION) return -EPROTO;
    if (got->sender_uid != kin__os_uid() && got->sender_uid != 0) return -EPERM;
    if (got->cut || got->len != sizeof *request + request->len) return -EPROTO;
    if (got->fds_cut) return -EMFILE;
    return got->fd_count == 1u + request->fd_count ? 0 : -EPROTO;
}

/* Copies of what the child is to have, made while a failure can still be told. */
static kin_err prepare_order(const struct kin_zygote *zygote, kin_zygote_order *order) {
    size_t count = zygote->request.fd_count, len = zygote->request.len;
    order->payload = malloc(len + 1);
    order->fds = malloc((count + 1) * sizeof *order->fds);
    if (order->payload == NULL || order->fds == NULL) {
        kin_zygote_order_fini(order);
        return -ENOMEM;
    }
    memcpy(order->payload, zygote->payload, len);
    memcpy(order->fds, zygote->fds + 1, count * sizeof *order->fds);
    order->len = len;
    order->fd_count = count;
    return 0;
}

/* The zygote's own descriptors were many; now that they are closed, the child's
 * take low numbers, as they would have in any young process. */
static void renumber(int *fds, size_t count) {
    for (size_t i = 0; i < count; i++) {
        int copy = kin__os_duplicate(fds[i]);
        if (copy < 0) continue;
        kin__os_close(copy < fds[i] ? fds[i] : copy);
        if (copy < fds[i]) fds[i] = copy;
    }
}

static void leave_zygote(struct kin_zygote *zygote) {
    kin__os_close(zygote->sock);
    zygote->sock = -1;
    undo(zygote);
}

static void answer_client(const struct kin_zygote *zygote, kin_zygote_order *order) {
    int pidfd = kin__os_pidfd_open(kin__os_pid());
    /* The client has gone: nobody would ever wait for this child. */
    if (reply(zygote->fds[0], kin__os_pid(), &pidfd) != 0) kin__os_exit(1);
    if (pidfd >= 0) kin__os_close(pidfd);
    kin__os_close(zygote->fds[0]);
    renumber(order->fds, order->fd_count);
}

static void adopt(struct kin_zygote *zygote, struct child *child, int pid, int report) {
    child->pid = pid;
    child->report = report;
    child->pidfd = kin__os_pidfd_open(pid);
    if (child->pidfd < 0 || kin__os_watch_add(zygote->watch, child->pidfd, child) != 0) {
        if (child->pidfd >= 0) kin__os_close(child->pidfd);
        child->pidfd = -1;
        zygote->unwatched++;
        zygote->pause_ms = PAUSE_FIRST_MS;
    }
    link_child(zygote, child);
}

static void call(void (*hook)(void *), void *arg) {
    if (hook) hook(arg);
}

/* -- The spare ------------------------------------------------------------------------------------- */

static struct kin__os_message request_message(struct kin_zygote *zygote) {
    return (struct kin__os_message){
        .head = &zygote->request,
        .head_len = sizeof zygote->request,
        .body = zygote->payload,
        .body_len = sizeof zygote->payload,
        .fds = zygote->fds,
    };
}

/* In the spare: KIN_ZYGOTE_CHILD with an order, KIN_ZYGOTE_UNUSED if there will be none. */
static kin_err wait_for_order(struct kin_zygote *zygote, int from, kin_zygote_order *order) {
    struct kin__os_message message = request_message(zygote);
    kin_err err;
    do {
        struct kin__os_poll poll = {.fd = from, .want = KIN__OS_READ};
        err = kin__os_poll(&poll, 1, KIN_FOREVER);
        if (err == 0) err = kin__os_message_recv(from, &message);
    } while (err == -EINTR || err == -EAGAIN);
    kin__os_close(from);
    if (err || message.len == 0 || message.fd_count == 0) return KIN_ZYGOTE_UNUSED;
    /* The zygote has checked it; but this process's limit may be another. */
    err = message.fds_cut ? -EMFILE : prepare_order(zygote, order);
    if (err) {
        (void)!reply(zygote->fds[0], err, NULL);
        return KIN_ZYGOTE_UNUSED;
    }
    answer_client(zygote, order);
    return KIN_ZYGOTE_CHILD;
}

/* KIN_ZYGOTE_CHILD and KIN_ZYGOTE_UNUSED in the spare, when its time has come. */
static kin_err make_spare(struct kin_zygote *zygote, const kin_zygote_hooks *hooks,
                          kin_zygote_order *order) {
    int pair[2];
    struct child *spare = malloc(sizeof *spare);
    zygote->wants_spare = false; /* whatever comes of it: not again before the next request */
    if (spare == NULL || kin__os_socket_pair(pair) != 0) {
        free(spare);
        return 0;
    }
    call(hooks->before, hooks->arg);
    int pid = kin__os_fork();
    if (pid == 0) {
        free(spare);
        kin__os_close(pair[0]);
        leave_zygote(zygote);
        call(hooks->after_child, hooks->arg);
        call(hooks->ahead, hooks->arg);
        return wait_for_order(zygote, pair[1], order);
    }
    call(hooks->after_parent, hooks->arg);
    kin__os_close(pair[1]);
    if (pid > 0) {
        adopt(zygote, spare, pid, pair[0]);
        zygote->spare = spare;
    } else {
        kin__os_close(pair[0]);
        free(spare);
    }
    return 0;
}

/* Hand the request that was received on to the spare, which is a child like any other from then
 * on.  False: there is no spare, or it can't take it. */
static bool hand_to_spare(struct kin_zygote *zygote, size_t fd_count) {
    struct child *spare = zygote->spare;
    if (spare == NULL) return false;
    struct kin__os_message message = request_message(zygote);
    message.body_len = zygote->request.len;
    message.fd_count = fd_count;
    if (kin__os_message_send(spare->report, &message, false) != 0) return false;
    zygote->spare = NULL;
    kin__os_close(spare->report);
    spare->report = zygote->fds[0];
    close_all(zygote->fds + 1, fd_count - 1);
    return true;
}

/* 0 in the zygote, whatever came of it; KIN_ZYGOTE_CHILD in the child. */
static kin_err start(struct kin_zygote *zygote, const kin_zygote_hooks *hooks,
                     kin_zygote_order *order) {
    struct child *child = malloc(sizeof *child);
    kin_err err = child ? prepare_order(zygote, order) : -ENOMEM;
    int pid = err;
    if (err == 0) {
        call(hooks->before, hooks->arg);
        pid = kin__os_fork();
        if (pid == 0) {
            free(child);
            leave_zygote(zygote);
            answer_client(zygote, order);
            call(hooks->after_child, hooks->arg);
            return KIN_ZYGOTE_CHILD;
        }
        call(hooks->after_parent, hooks->arg);
        kin_zygote_order_fini(order);
    }
    if (pid > 0) {
        adopt(zygote, child, pid, zygote->fds[0]);
    } else {
        (void)!reply(zygote->fds[0], pid, NULL);
        kin__os_close(zygote->fds[0]);
        free(child);
    }
    close_all(zygote->fds + 1, zygote->request.fd_count);
    return 0;
}

#define ALL_GONE 3

static kin_err take_request(struct kin_zygote *zygote, const kin_zygote_hooks *hooks,
                            kin_zygote_order *order) {
    struct kin__os_message message = request_message(zygote);
    kin_err err = kin__os_message_recv(zygote->sock, &message);
    if (err) return err == -EAGAIN || err == -ECONNRESET ? 0 : err;
    if (message.end) return ALL_GONE;
    err = check(zygote, &message);
    if (err == 0) {
        zygote->wants_spare = true;
        return hand_to_spare(zygote, message.fd_count) ? 0 : start(zygote, hooks, order);
    }
    if (err != -EBADMSG) (void)!reply(zygote->fds[0], err, NULL);
    close_all(zygote->fds, message.fd_count);
    return 0;
}

/* -- The loop ------------------------------------------------------------------------------------- */

kin_err kin_zygote_serve(kin_zygote *zygote, const kin_zygote_hooks *hooks,
                         kin_zygote_order *order) {
    static const kin_zygote_hooks none = {NULL};
    kin_zygote_order made = {NULL};
    if (zygote->sock < 0) return -EBADF;
    for (;;) {
        void *ready[16];
        bool has_time = zygote->wants_spare && zygote->spare == NULL;
        int timeout = has_time ? 0 : zygote->unwatched ? zygote->pause_ms : -1;
        int count = kin__os_watch_wait(zygote->watch, ready, 16, timeout);
        if (count < 0) return count;
        kin_err err = 0;
        if (count == 0 && has_time) err = make_spare(zygote, hooks ? hooks : &none, &made);
        for (int i = 0; i < count; i++) {
            if (ready[i] == zygote) {
                err = take_request(zygote, hooks ? hooks : &none, &made);
                if (err) break;
            } else {
                reap_child(zygote, ready[i]);
            }
        }
        if (err == KIN_ZYGOTE_CHILD) *order = made;
        if (err) return err == ALL_GONE ? 0 : err;
        reap_unwatched(zygote);
    }
}
